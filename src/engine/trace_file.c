// SPDX-License-Identifier: Apache-2.0
// trace_file.c - slices written as JSON, one line each, without building a tree: there may be a million.
#include "engine/trace_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tensor/device.h"

enum { HOST = 1, DEVICE = 2 }; // process numbers in the file

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

static int device_number(const char *name)
{
    for (int i = 0; i < at_device_count(); i++)
        if (strcmp(at_device_at(i)->name, name) == 0) return i;
    return 0;
}

static void put_all(FILE *f, size_t n)
{
    double zero = n ? at_trace_at(0)->began : 0;

    for (size_t i = 0; i < n; i++)
        if (at_trace_at(i)->began < zero) zero = at_trace_at(i)->began;
    put_name(f, "process_name", HOST, 0, "host");
    put_name(f, "process_name", DEVICE, 0, "devices");
    for (int i = 1; i < at_device_count(); i++)
        put_name(f, "thread_name", DEVICE, i, at_device_at(i)->name);
    for (size_t i = 0; i < n; i++) {
        const at_trace_slice *s = at_trace_at(i);
        int device = s->device ? device_number(s->device) : 0;

        put_slice(f, s, HOST, s->thread, s->began - zero, s->seconds);
        if (device && s->device_seconds >= 0)
            put_slice(f, s, DEVICE, device, s->device_began - zero, s->device_seconds);
    }
}

at_status at_trace_check(const char *path)
{
    FILE *f = fopen(path, "we");

    if (!f) return at_fail(AT_EIO, "--trace %s: %s", path, strerror(errno));
    fclose(f);
    return AT_OK;
}

at_status at_trace_write(const char *path)
{
    size_t n = at_trace_count();
    FILE *f = fopen(path, "we");

    if (!f) return at_fail(AT_EIO, "--trace %s: %s", path, strerror(errno));
    fputs("{\"traceEvents\":[\n", f);
    put_all(f, n);
    fprintf(f,
            "{\"ph\":\"M\",\"name\":\"process_labels\",\"pid\":%d,\"args\":{\"labels\":\"%zu "
            "slices, %zu "
            "dropped\"}}\n],\n\"displayTimeUnit\":\"ms\"}\n",
            HOST, n, at_trace_dropped());
    bool bad = ferror(f) != 0;
    if (fclose(f) != 0 || bad) return at_fail(AT_EIO, "--trace %s: %s", path, strerror(errno));
    return AT_OK;
}
