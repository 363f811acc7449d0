// SPDX-License-Identifier: Apache-2.0
// speeds.c - see speeds.h.
// Easy to get wrong: what cannot be measured is no failure: then ranks share evenly, as if nobody had asked.
#include "engine/speeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/ceilings.h"

at_status at_speeds_parse(const char *text, int n, uint8_t out[AT_SHARE_RANKS])
{
    const char *at = text;

    memset(out, 0, AT_SHARE_RANKS);
    for (int i = 0; i < n && i < AT_SHARE_RANKS; i++) {
        char *end = NULL;
        long value = strtol(at, &end, 10);

        if (value < 1 || value > AT_SHARE_MOST || *end != (i + 1 < n ? ',' : '\0')) {
            memset(out, 0, AT_SHARE_RANKS);
            return at_fail(AT_EUSAGE,
                           "--shares %s: a number from 1 to %d for each of %d devices, with "
                           "commas between",
                           text, AT_SHARE_MOST, n);
        }
        out[i] = (uint8_t)value;
        at = end + 1;
    }
    return AT_OK;
}

// The file's first line says for which kind of device it holds.
static double remembered(const char *path, const char *kind)
{
    char *text = NULL;
    size_t bytes = 0, n = strlen(kind);
    double rate = 0;

    if (at_path_exists(path) && at_file_read(path, 1024, &text, &bytes) == AT_OK && bytes > n &&
        memcmp(text, kind, n) == 0 && text[n] == '\n')
        rate = strtod(text + n + 1, NULL);
    at_error_clear();
    at_free(text);
    return rate > 1e6 && rate < 1e18 ? rate : 0;
}

static void keep(const char *path, const char *kind, double rate)
{
    at_status st = AT_OK;
    at_atomic_file *file = NULL;
    char text[256], *dir = at_path_dir(path);
    int n = snprintf(text, sizeof text, "%s\n%.6e\n", kind, rate);

    if (!dir) return;
    AT_TRY(at_make_dirs(dir));
    AT_TRY(at_atomic_open(path, &file));
    AT_TRY(at_atomic_write(file, text, (size_t)n));
    AT_TRY(at_atomic_commit(&file));
out:
    if (st != AT_OK) at_log(AT_INFO, "SPEEDS", "not kept: %s", at_error_text());
    at_atomic_abort(&file);
    at_free(dir);
}

// FLOP/s of its products, 0: not known.
static double rate_of(at_device *d)
{
    at_ceilings c;
    char name[64];
    unsigned h = 2166136261u; // FNV-1a
    double rate;

    for (const char *p = d->description; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    snprintf(name, sizeof name, "speed-%08x.txt", h);
    char *path = at_path_cache(name);
    rate = path ? remembered(path, d->description) : 0;
    if (rate <= 0) {
        if (at_ceilings_measure(d, d->host ? AT_F32 : AT_F16, false, false, &c) == AT_OK)
            rate = c.linear_sustained > 0 ? c.linear_sustained : c.linear;
        else
            at_log(AT_WARN, "SPEEDS", "%s shares evenly: %s", d->name, at_error_text());
        at_error_clear();
        if (path && rate > 0) keep(path, d->description, rate);
    }
    at_free(path);
    return rate;
}

void at_speeds_measure(at_device *const *devices, int n, uint8_t out[AT_SHARE_RANKS])
{
    double rates[AT_SHARE_RANKS] = {0};
    bool alike = true;

    memset(out, 0, AT_SHARE_RANKS);
    for (int i = 1; i < n; i++)
        alike = alike && strcmp(devices[i]->description, devices[0]->description) == 0;
    if (alike || n > AT_SHARE_RANKS) return;
    for (int i = 0; i < n; i++) {
        rates[i] = 0;
        for (int k = 0; k < i && rates[i] <= 0; k++)
            if (strcmp(devices[i]->description, devices[k]->description) == 0) rates[i] = rates[k];
        if (rates[i] <= 0) rates[i] = rate_of(devices[i]);
    }
    at_shares_of_rates(rates, n, out);
    for (int i = 0; i < n && out[0]; i++)
        at_log(AT_INFO, "SPEEDS", "rank %d, %s: %.1f TFLOP/s, a share of %d", i, devices[i]->name,
               rates[i] / 1e12, out[i]);
}
