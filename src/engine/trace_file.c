// SPDX-License-Identifier: Apache-2.0
// trace_file.c - slices written as JSON, one line each, without building a tree: there may be a million.
#include "engine/trace_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/trace_ranks.h"
#include "tensor/device.h"

enum { AT_TRACE_DEVICES = 64 };

at_trace_level at_trace_level_of(const char *word)
{
    return word && strcmp(word, "spans") == 0 ? AT_TRACE_SPANS : AT_TRACE_OPS;
}

static void put_text(FILE *f, const char *s)
{
    putc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') putc('\\', f);
        if ((unsigned char)*s < 0x20)
            fprintf(f, "\\u%04x", (unsigned)*s);
        else
            putc(*s, f);
    }
    putc('"', f);
}

static void put_name(FILE *f, const char *what, int process, int thread, const char *name)
{
    fprintf(f, "{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":", what,
            process, thread);
    put_text(f, name);
    fputs("}},\n", f);
}

static void put_args(FILE *f, const at_trace_slice *s)
{
    double seconds = s->device_seconds > 0 ? s->device_seconds : s->seconds;

    fprintf(f, "\"args\":{\"host_us\":%.2f", s->seconds * 1e6);
    if (s->device_seconds >= 0) fprintf(f, ",\"device_us\":%.2f", s->device_seconds * 1e6);
    if (s->kernel[0]) {
        fputs(",\"kernel\":", f);
        put_text(f, s->kernel);
    }
    if (s->detail[0]) {
        fputs(",\"shapes\":", f);
        put_text(f, s->detail);
    }
    if (s->flops > 0) {
        fprintf(f, ",\"gflop\":%.6g", s->flops * 1e-9);
        if (seconds > 0) fprintf(f, ",\"tflop_per_s\":%.4g", s->flops / seconds * 1e-12);
    }
    if (s->bytes > 0) {
        fprintf(f, ",\"bytes\":%.0f", s->bytes);
        if (seconds > 0) fprintf(f, ",\"gb_per_s\":%.4g", s->bytes / seconds * 1e-9);
    }
    putc('}', f);
}

static void put_slice(FILE *f, const at_trace_slice *s, int process, int track, double began,
                      double seconds)
{
    fprintf(f,
            "{\"ph\":\"X\",\"cat\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"name\":",
            s->category, process, track, began * 1e6, seconds * 1e6);
    put_text(f, s->name);
    putc(',', f);
    put_args(f, s);
    fputs("},\n", f);
}

// Tracks of a rank beside its host threads, which have small numbers.
enum { WORK = 1000, EXCHANGE = 2000, BESIDE = 3000 };

static int device_number(const char *name)
{
    for (int i = 0; i < at_device_count(); i++)
        if (strcmp(at_device_at(i)->name, name) == 0) return i;
    return 0;
}

static void put_one(FILE *f, const at_trace_slice *s, double zero)
{
    int process = s->rank + 1, device = s->device ? device_number(s->device) : 0;

    if (!s->device_only) put_slice(f, s, process, s->thread, s->began - zero, s->seconds);
    if (s->device_only)
        put_slice(f, s, process, (s->beside ? BESIDE : EXCHANGE) + device, s->device_began - zero,
                  s->device_seconds);
    else if (device && s->device_seconds >= 0)
        put_slice(f, s, process, WORK + device, s->device_began - zero, s->device_seconds);
}

// Names of a rank and of its tracks on devices: what stands on them comes later.
static void put_names(FILE *f, int rank)
{
    bool there[3][AT_TRACE_DEVICES] = {{false}};
    static const char *const what[] = {"", ": exchanges that it stands still for",
                                       ": exchanges beside"};
    char name[96];
    int first = 0;

    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);
        int d = s->device ? device_number(s->device) : 0;

        if (s->rank != rank || d <= 0 || d >= AT_TRACE_DEVICES || s->device_seconds < 0) continue;
        there[!s->device_only ? 0 : s->beside ? 2 : 1][d] = true;
        if (!first) first = d;
    }
    snprintf(name, sizeof name, "rank %d, %s", rank, at_device_at(first)->name);
    put_name(f, "process_name", rank + 1, 0, name);
    for (int k = 0; k < 3; k++)
        for (int d = 1; d < AT_TRACE_DEVICES; d++) {
            if (!there[k][d]) continue;
            snprintf(name, sizeof name, "%s%s", at_device_at(d)->name, what[k]);
            put_name(f, "thread_name", rank + 1, WORK * (k + 1) + d, name);
        }
}

double at_trace_zero(void)
{
    double zero = at_trace_count() ? at_trace_at(0)->began : 0;

    for (size_t i = 0; i < at_trace_count(); i++)
        if (at_trace_at(i)->began < zero) zero = at_trace_at(i)->began;
    return zero;
}

void at_trace_put_events(FILE *f, double zero)
{
    size_t n = at_trace_count();
    bool there[AT_TRACE_RANKS] = {false};

    for (size_t i = 0; i < n; i++)
        if (at_trace_at(i)->rank < AT_TRACE_RANKS) there[at_trace_at(i)->rank] = true;
    for (int i = 0; i < AT_TRACE_RANKS; i++)
        if (there[i]) put_names(f, i);
    for (size_t i = 0; i < n; i++)
        put_one(f, at_trace_at(i), zero);
    fprintf(f,
            "{\"ph\":\"M\",\"name\":\"process_labels\",\"pid\":%d,\"args\":{\"labels\":\"%zu "
            "slices, %zu dropped\"}}",
            at_trace_rank() + 1, n, at_trace_dropped());
}

at_status at_trace_check(const char *path)
{
    FILE *f = fopen(path, "we");

    if (!f) return at_fail(AT_EIO, "--trace %s: %s", path, strerror(errno));
    fclose(f);
    return AT_OK;
}

at_status at_trace_open(const char *path, FILE **out)
{
    *out = fopen(path, "we");
    if (!*out) return at_fail(AT_EIO, "--trace %s: %s", path, strerror(errno));
    fputs("{\"traceEvents\":[\n", *out);
    return AT_OK;
}

at_status at_trace_close(const char *path, FILE *f)
{
    fputs("\n],\n\"displayTimeUnit\":\"ms\"}\n", f);
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) return at_fail(AT_EIO, "--trace %s: %s", path, strerror(errno));
    return AT_OK;
}

at_status at_trace_write(const char *path)
{
    at_status st = AT_OK;
    FILE *f = NULL;

    AT_TRY(at_trace_open(path, &f));
    at_trace_put_events(f, at_trace_zero());
    st = at_trace_close(path, f);
out:
    return st;
}
