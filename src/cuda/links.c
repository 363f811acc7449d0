// SPDX-License-Identifier: Apache-2.0
// links.c - how fast two GPUs reach each other: measured once, kept in a file of the user's cache.
// Idea: the figures that matter are those of the pushes that a picture is made with (wire.c), both ways at
// once: bytes a second of a large one, seconds of one that carries nothing to speak of. A file per pair
// says in its first line for which machine it holds; any other content is measured anew.
// Easy to get wrong: one thread drives both ends, so nothing may wait for the host between two pushes.
// Owns: the answers live as long as the process.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "cuda/wire.h"
#include "cuda/cuda.h"

enum { GPUS = 16, LARGE = 64 << 20, TIMES = 8, SMALL = 256, SMALL_TIMES = 50 };

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static at_wire_link g_known[GPUS][GPUS]; // bandwidth 0: not yet

// --- measuring ---------------------------------------------------------------------------------
typedef struct end {
    at_cuda *g;
    char *from, *to;
    cudaEvent_t began, ended;
} end;

static at_status open_end(end *e, at_device *d)
{
    at_status st = AT_OK;
    void *p = NULL;

    e->g = (at_cuda *)d;
    AT_TRY(at_cuda_alloc(e->g, LARGE, &p));
    e->from = p;
    AT_TRY(at_cuda_alloc(e->g, LARGE, &p));
    e->to = p;
    AT_TRY(
        at_cuda_check(e->g, cudaMemsetAsync(e->from, 0, LARGE, e->g->stream), "measuring a link"));
    AT_TRY(at_cuda_check(e->g, cudaEventCreate(&e->began), "an event"));
    AT_TRY(at_cuda_check(e->g, cudaEventCreate(&e->ended), "an event"));
out:
    return st;
}

static void close_end(end *e)
{
    if (!e->g) return;
    (void)cudaSetDevice(e->g->ordinal);
    if (e->began) (void)cudaEventDestroy(e->began);
    if (e->ended) (void)cudaEventDestroy(e->ended);
    at_cuda_free(e->g, e->from);
    at_cuda_free(e->g, e->to);
}

static at_status mark(const end *e, cudaEvent_t event)
{
    (void)cudaSetDevice(e->g->ordinal);
    return at_cuda_check(e->g, cudaEventRecord(event, e->g->stream), "measuring a link");
}

// Seconds of one push of so many bytes each way.
static at_status timed(at_wire *w, end *e, size_t bytes, int times, double *seconds)
{
    at_status st = AT_OK;
    int64_t n = (int64_t)bytes;

    *seconds = 0;
    for (int i = -1; i < times; i++)
        for (int r = 0; r < 2; r++) {
            at_wire_part part = {.rank = 1 - r,
                                 .from = at_cuda_view(e[r].from, AT_U8, 1, &n),
                                 .to = at_cuda_view(e[1 - r].to, AT_U8, 1, &n),
                                 .comes = true};

            if (i == 0) AT_TRY(mark(&e[r], e[r].began)); // behind one that sets them going together
            AT_TRY(at_cuda_wire_ops.push(w, r, &part, 1));
            if (i == times - 1) AT_TRY(mark(&e[r], e[r].ended));
        }
    for (int r = 0; r < 2; r++) {
        float ms = 0;

        (void)cudaSetDevice(e[r].g->ordinal);
        AT_TRY(at_cuda_check(e[r].g, cudaEventSynchronize(e[r].ended), "measuring a link"));
        AT_TRY(at_cuda_check(e[r].g, cudaEventElapsedTime(&ms, e[r].began, e[r].ended),
                             "measuring a link"));
        if (ms * 1e-3 / times > *seconds) *seconds = ms * 1e-3 / times;
    }
out:
    return st;
}

static at_status measure(at_device *a, at_device *b, at_wire_link *out)
{
    at_status st = AT_OK;
    at_device *both[] = {a, b};
    at_wire *w = NULL;
    end e[2] = {{0}};
    double large = 0, small = 0;

    AT_TRY(at_cuda_wire_ops.open(both, 2, &w));
    for (int r = 0; r < 2; r++)
        AT_TRY(open_end(&e[r], both[r]));
    AT_TRY(timed(w, e, SMALL, SMALL_TIMES, &small));
    AT_TRY(timed(w, e, LARGE, TIMES, &large));
    out->seconds = small;
    out->bandwidth = LARGE / (large > small ? large - small : large);
out:
    if (w && st != AT_OK) at_cuda_wire_ops.cut(w); // nobody waits for what was not queued
    for (int r = 0; r < 2 && st != AT_OK; r++)
        if (e[r].g) (void)cudaStreamSynchronize(e[r].g->stream);
    at_cuda_wire_ops.free(w);
    for (int r = 0; r < 2; r++)
        close_end(&e[r]);
    return st;
}

// --- on disk -----------------------------------------------------------------------------------
static void title_of(const at_cuda *a, const at_cuda *b, char out[256])
{
    char bus[2][32] = {"", ""};
    int driver = 0;

    (void)cudaDeviceGetPCIBusId(bus[0], sizeof bus[0], a->ordinal);
    (void)cudaDeviceGetPCIBusId(bus[1], sizeof bus[1], b->ordinal);
    (void)cudaDriverGetVersion(&driver);
    snprintf(out, 256, "atelier link 1; %.60s at %.20s; %.60s at %.20s; driver %d%s",
             a->dev.description, bus[0], b->dev.description, bus[1], driver,
             at_has_word(getenv("AT_OFF"), "stores") ? "; copies" : "");
}

static char *path_of(const char *title)
{
    char name[64];
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a

    for (const char *p = title; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    snprintf(name, sizeof name, "link-%016llx.txt", (unsigned long long)h);
    return at_path_cache(name);
}

static bool remembered(const char *path, const char *title, at_wire_link *out)
{
    char *text = NULL, *rest = NULL;
    size_t bytes = 0, n = strlen(title);
    bool there = false;

    if (path && at_path_exists(path) && at_file_read(path, 1024, &text, &bytes) == AT_OK &&
        bytes > n && memcmp(text, title, n) == 0 && text[n] == '\n') {
        out->bandwidth = strtod(text + n + 1, &rest);
        out->seconds = strtod(rest, NULL);
        there =
            out->bandwidth > 1e6 && out->bandwidth < 1e14 && out->seconds > 0 && out->seconds < 1;
    }
    at_free(text);
    return there;
}

static void remember(const char *path, const char *title, const at_wire_link *l)
{
    at_status st = AT_OK;
    at_atomic_file *file = NULL;
    char text[384], *dir = path ? at_path_dir(path) : NULL;
    int n = snprintf(text, sizeof text, "%s\n%.6e %.6e\n", title, l->bandwidth, l->seconds);

    if (!dir) return;
    AT_TRY(at_make_dirs(dir));
    AT_TRY(at_atomic_open(path, &file));
    AT_TRY(at_atomic_write(file, text, (size_t)n));
    AT_TRY(at_atomic_commit(&file));
out:
    if (st != AT_OK) at_log(AT_INFO, "CUDA-LINK", "not kept: %s", at_error_text());
    at_atomic_abort(&file);
    at_free(dir);
}

at_status at_cuda_link(at_device *a, at_device *b, at_wire_link *out)
{
    at_status st = AT_OK;
    at_cuda *x = (at_cuda *)a, *y = (at_cuda *)b;
    at_wire_link *known;
    char title[256], *path = NULL;

    *out = (at_wire_link){0};
    if (x->ordinal > y->ordinal) return at_cuda_link(b, a, out);
    if (x == y || y->ordinal >= GPUS)
        return at_fail(AT_EINVAL, "no link between %s and %s", a->name, b->name);
    known = &g_known[x->ordinal][y->ordinal];
    pthread_mutex_lock(&g_lock);
    if (known->bandwidth > 0) goto out;
    title_of(x, y, title);
    path = path_of(title);
    if (remembered(path, title, known)) goto out;
    AT_TRY(measure(a, b, known));
    remember(path, title, known);
out:
    if (st == AT_OK) *out = *known;
    pthread_mutex_unlock(&g_lock);
    at_free(path);
    return st;
}
