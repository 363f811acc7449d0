// SPDX-License-Identifier: Apache-2.0
// machine.c - see machine.h.
#include "engine/machine.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/ranks.h"
#include "json/json.h"

enum { MOST_DEVICES = 256, MOST_BYTES = 64 << 10 };

typedef struct row {
    const char *name;
    size_t at;
    double least, most;
} row;

// A rate of nothing would divide by nothing; no chip has more than the most for many years.
#define RATE(field, least, most)                                                                   \
    {                                                                                              \
#field, offsetof(at_rates, field), least, most                                             \
    }
static const row rows[] = {
    RATE(memory, 1e6, 1e15),    RATE(units, 1, 1e5),         RATE(hertz, 1e6, 1e11),
    RATE(watts, 0, 1e5),        RATE(idle_watts, 0, 1e5),    RATE(unit_flops, 1, 1e7),
    RATE(copy, 1e6, 1e16),      RATE(upload, 1e6, 1e15),     RATE(op, 0, 1),
    RATE(step, 0, 10),          RATE(product, 0.01, 1),      RATE(product8, 0.01, 1),
    RATE(edge, 0, 10),          RATE(product_start, 0, 1e7), RATE(store, 0, 100),
    RATE(waves, 0, 1),          RATE(waves8, 0, 1),          RATE(conv, 0.01, 10),
    RATE(narrow, 1, 1e7),       RATE(narrow_start, 0, 1e7),  RATE(wide, 1, 1e7),
    RATE(wide_start, 0, 1e7),   RATE(wide8, 1, 1e7),         RATE(wide8_start, 0, 1e7),
    RATE(huge, 1, 1e7),         RATE(group_start, 0, 1),     RATE(rope_share, 0.01, 1),
    RATE(group_share, 0.01, 1), RATE(joule16, 0, 1e-9),      RATE(joule8, 0, 1e-9),
    RATE(joule_byte, 0, 1e-6),  RATE(volts, 0, 5),           RATE(together, 0, 1),
    RATE(spread, 0, 1),         RATE(link, 1e3, 1e15),       RATE(link_sum, 1e3, 1e15),
    RATE(meeting, 0, 1),        RATE(meeting_sum, 0, 1),     RATE(meeting_more, 0, 1),
};
enum { ROWS = sizeof rows / sizeof *rows };

static double *slot(at_rates *r, size_t i)
{
    return (double *)(void *)((char *)r + rows[i].at);
}

// "h200", "h200-x8"
static bool known(const char *name, at_machine *out)
{
    char *end = NULL;
    long n = 1;

    if (strncmp(name, "h200", 4) != 0) return false;
    if (name[4]) {
        if (strncmp(name + 4, "-x", 2) != 0) return false;
        n = strtol(name + 6, &end, 10);
        if (end == name + 6 || *end || n < 1 || n > MOST_DEVICES) return false;
    }
    *out = (at_machine){.devices = (int)n, .rates = at_rates_h200};
    if (n > 1)
        snprintf(out->name, sizeof out->name, "%ld x %s", n, at_rates_h200.name);
    else
        snprintf(out->name, sizeof out->name, "%s", at_rates_h200.name);
    return true;
}

static at_status read_rates(const char *path, const json_t *list, at_rates *r)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)list, key, value)
    {
        size_t i = 0;
        while (i < ROWS && strcmp(rows[i].name, key) != 0)
            i++;
        if (i == ROWS) return at_fail(AT_EUSAGE, "%s: rates: there is no rate \"%s\"", path, key);
        double v = json_is_number(value) ? json_number_value(value) : -1;
        if (!(v >= rows[i].least && v <= rows[i].most))
            return at_fail(AT_EUSAGE, "%s: rates: %s is not a number from %g to %g", path, key,
                           rows[i].least, rows[i].most);
        *slot(r, i) = v;
    }
    return AT_OK;
}

static at_status read_machine(const char *path, const json_t *o, at_machine *out)
{
    at_status st = AT_OK;
    const char *key;
    json_t *value;
    const json_t *like = json_object_get(o, "like"), *devices = json_object_get(o, "devices"),
                 *name = json_object_get(o, "name");

    if (!json_is_object(o)) AT_TRY(at_fail(AT_EUSAGE, "%s: not a JSON object", path));
    json_object_foreach((json_t *)o, key, value)
    {
        static const char *const keys[] = {"name", "like", "devices", "rates", "note"};
        size_t i = 0;
        while (i < 5 && strcmp(keys[i], key) != 0)
            i++;
        if (i == 5)
            AT_TRY(at_fail(AT_EUSAGE, "%s: \"%s\" is none of name, like, devices, rates, note",
                           path, key));
    }
    if (!known(json_is_string(like) ? json_string_value(like) : "h200", out))
        AT_TRY(at_fail(AT_EUSAGE, "%s: like \"%s\": known are h200 and h200-xN", path,
                       json_string_value(like)));
    if (devices && !(json_is_integer(devices) && json_integer_value(devices) >= 1 &&
                     json_integer_value(devices) <= MOST_DEVICES))
        AT_TRY(at_fail(AT_EUSAGE, "%s: devices is not a number from 1 to %d", path, MOST_DEVICES));
    if (devices) out->devices = (int)json_integer_value(devices);
    if (json_is_string(name)) snprintf(out->name, sizeof out->name, "%s", json_string_value(name));
    if (json_object_get(o, "rates"))
        AT_TRY(read_rates(path, json_object_get(o, "rates"), &out->rates));
out:
    return st;
}

// --- a device that is here -------------------------------------------------------------------------
typedef struct chip {
    double units;
    bool hopper;
} chip;

static void hear(void *ctx, const char *name, const char *value)
{
    chip *c = ctx;

    if (strcmp(name, "multiprocessors") == 0) c->units = strtod(value, NULL);
    if (strcmp(name, "capability") == 0) c->hopper = strcmp(value, "9.0") == 0;
}

bool at_machine_here(at_device *d, const at_par_site *site, at_machine *out)
{
    chip c = {0};
    at_device_usage now = {0};

    *out = (at_machine){.devices = site->ranks, .rates = at_rates_h200};
    if (d->host || !d->ops->facts) return false;
    d->ops->facts(d, hear, &c);
    if (!c.hopper || c.units < 1) return false;
    snprintf(out->name, sizeof out->name, "%s", d->description);
    snprintf(out->rates.name, sizeof out->rates.name, "%s", d->name);
    out->rates.units = c.units;
    if (d->ops->usage && d->ops->usage(d, &now) == AT_OK) {
        if (now.max_mhz > 0) out->rates.hertz = now.max_mhz * 1e6;
        if (now.limit_watts > 0) out->rates.watts = now.limit_watts;
    }
    if (site->memory > 0) out->rates.memory = site->memory;
    // A link that is slower than the one whose rates these are keeps its share for sums too.
    if (site->bandwidth > 0 && site->bandwidth < out->rates.link) {
        out->rates.link_sum *= site->bandwidth / out->rates.link;
        out->rates.link = site->bandwidth;
    }
    return true;
}

// All GPUs of this machine, of the slowest link between any two.
static at_status all_here(at_machine *out)
{
    at_status st = AT_OK;
    at_env env = {.device = at_device_cpu()};
    at_engine_config config = {.devices = "cuda", .parallel = "auto"};

    AT_TRY(at_engine_ranks(&config, &env));
    if (!at_machine_here(env.ranks.device[0], &env.ranks.site, out))
        AT_TRY(at_fail(AT_ENOTFOUND, "the rates of %s (%s) are not known; describe it in a file",
                       env.ranks.device[0]->name, env.ranks.device[0]->description));
out:
    at_par_memory_free(env.ranks.known);
    return st;
}

// --- by name ----------------------------------------------------------------------------------------
at_status at_machine_find(const char *name, at_machine *out)
{
    at_status st = AT_OK;
    char *text = NULL;
    size_t bytes = 0;
    json_t *o = NULL;

    *out = (at_machine){0};
    if (known(name, out)) return AT_OK;
    if (strcmp(name, "here") == 0) return all_here(out);
    if (!at_path_exists(name))
        AT_TRY(at_fail(AT_ENOTFOUND,
                       "no machine is called \"%s\", and no such file exists (known "
                       "are h200 and h200-xN)",
                       name));
    AT_TRY(at_file_read(name, MOST_BYTES, &text, &bytes));
    AT_TRY(at_json_load(name, text, bytes, &o));
    AT_TRY(read_machine(name, o, out));
out:
    if (st == AT_EWORKFLOW) st = at_fail_context(AT_EUSAGE, "%s", ""); // bad JSON of a flag's file
    json_decref(o);
    at_free(text);
    return st;
}

char *at_machine_text(const at_machine *m)
{
    json_t *rates = json_object(), *o;
    at_rates r = m->rates;

    for (size_t i = 0; i < ROWS; i++)
        json_object_set_new(rates, rows[i].name, json_real(*slot(&r, i)));
    o = json_pack("{s:s, s:s, s:i, s:o}", "name", m->name, "like", "h200", "devices", m->devices,
                  "rates", rates);
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(o);
    return text;
}

at_par_site at_machine_site(const at_machine *m, int ranks)
{
    const at_rates *r = &m->rates;

    return (at_par_site){.ranks = ranks,
                         .flops = 645e12 * r->units / at_rates_h200.units * r->hertz /
                                  at_rates_h200.hertz,
                         .memory = r->memory,
                         .bandwidth = r->link,
                         .latency = r->meeting,
                         .load = r->upload,
                         .overhead = 0.5e-3,
                         .op = 2.4e-6};
}
