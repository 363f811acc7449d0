// SPDX-License-Identifier: Apache-2.0
// linear_tune.c - which of the library's proposals for a product is the fastest on this GPU.
// Idea: the heuristic's first proposal is often some percent behind its third. Each problem is timed once,
// into scratch, when it is first met; the answer goes to a small text file in the user's cache folder, so
// that the next process times nothing. A line is two hashes: of the problem and of the chosen algorithm; a
// saved answer counts only if the library proposes that very algorithm again, so a file that is old,
// foreign or damaged can choose nothing that the library did not.
// Large products run at the chip's power limit in a model. Timed there for a fifth of a second each, the heuristic's first
// is mostly the most economical one, so another must be clearly faster in the short run that is timed here; what is
// 2 % faster in it is so at the limit too (docs/bench/cuda.md).
// Easy to get wrong: a product that adds a residual in place must not be run many times into its output;
// nothing may be timed while a graph is recorded (the device cannot be waited for then).
// Owns: the table lives in the at_cuda for the life of the process.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "cuda/linear.h"

enum { MOST_ANSWERS = 4096, MOST_BYTES = 256 << 10, HEX_LINE = 34 };

typedef struct answer {
    uint64_t problem, algo;
} answer;

struct at_cuda_tuned {
    bool off, fresh; // fresh: something is not on disk yet
    char *path;      // NULL: nowhere to write
    char title[192]; // the file's first line: what the answers hold for
    answer *answers;
    size_t count, cap;
};

static uint64_t hash_of(const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

// --- the table -----------------------------------------------------------------------------------
static const answer *find(const at_cuda_tuned *t, uint64_t problem)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->answers[i].problem == problem) return &t->answers[i];
    return NULL;
}

// Without memory (or beyond the most) the answer is not kept.
static void keep(at_cuda_tuned *t, uint64_t problem, uint64_t algo)
{
    answer *old = (answer *)find(t, problem);
    if (old) {
        old->algo = algo;
        return;
    }
    if (t->count == MOST_ANSWERS) return;
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        answer *grown = at_realloc(t->answers, cap * sizeof *grown);
        if (!grown) return;
        t->answers = grown;
        t->cap = cap;
    }
    t->answers[t->count++] = (answer){problem, algo};
}

// --- the file ------------------------------------------------------------------------------------
// TITLE\n, then "%016x %016x\n" for each answer, then "sum %016x\n" over all that stands before it.
static bool parse(at_cuda_tuned *t, const char *text, size_t bytes)
{
    size_t title = strlen(t->title), tail = strlen("sum ") + 17;
    if (bytes < title + 1 + tail || memcmp(text, t->title, title) != 0 || text[title] != '\n')
        return false;
    const char *at = text + title + 1, *end = text + bytes - tail;
    char sum[24];
    snprintf(sum, sizeof sum, "sum %016llx\n", (unsigned long long)hash_of(text, bytes - tail));
    if (memcmp(end, sum, tail) != 0 || (end - at) % HEX_LINE != 0) return false;
    for (; at < end; at += HEX_LINE) {
        char *stop = NULL;
        uint64_t problem = strtoull(at, &stop, 16);
        if (stop != at + 16) return false;
        uint64_t algo = strtoull(at + 17, &stop, 16);
        if (stop != at + 33 || at[33] != '\n') return false;
        keep(t, problem, algo);
    }
    return true;
}

static char *path_of(const at_cuda *g)
{
    char name[96];
    snprintf(name, sizeof name, "linear-sm%d-%016llx.txt", g->capability,
             (unsigned long long)hash_of(g->dev.description, strlen(g->dev.description)));
    return at_path_cache(name);
}

static void read_file(at_cuda_tuned *t)
{
    char *text = NULL;
    size_t bytes = 0;
    if (!t->path || !at_path_exists(t->path)) return;
    if (at_file_read(t->path, MOST_BYTES, &text, &bytes) != AT_OK || !parse(t, text, bytes)) {
        at_log(AT_INFO, "CUDA-TUNE", "%s: not of this GPU, driver and library; it is made anew",
               t->path);
        t->count = 0;
    }
    at_free(text);
}

static at_cuda_tuned *table_of(at_cuda *g)
{
    if (g->tuned) return g->tuned;
    at_cuda_tuned *t = at_calloc(1, sizeof *t);
    int driver = 0;
    if (!t) return NULL;
    (void)cudaDriverGetVersion(&driver);
    snprintf(t->title, sizeof t->title,
             "atelier linear 5; %.100s; driver %d; cublasLt %zu; cuDNN %zu", g->dev.description,
             driver, g->lt ? g->lt->GetVersion() : 0, g->dnn ? g->dnn->GetVersion() : 0);
    t->off = at_has_word(getenv("AT_OFF"), "tune");
    if (!t->off) t->path = path_of(g);
    read_file(t);
    return g->tuned = t;
}

static at_status write_file(const at_cuda_tuned *t)
{
    at_status st = AT_OK;
    at_atomic_file *file = NULL;
    at_str text = {0};
    char *dir = at_path_dir(t->path);

    if (!dir) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", t->path));
    AT_TRY(at_make_dirs(dir));
    at_str_printf(&text, "%s\n", t->title);
    for (size_t i = 0; i < t->count; i++)
        at_str_printf(&text, "%016llx %016llx\n", (unsigned long long)t->answers[i].problem,
                      (unsigned long long)t->answers[i].algo);
    uint64_t sum = hash_of(at_str_text(&text), text.len);
    at_str_printf(&text, "sum %016llx\n", (unsigned long long)sum);
    if (text.failed) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", t->path));
    AT_TRY(at_atomic_open(t->path, &file));
    AT_TRY(at_atomic_write(file, text.data, text.len));
    AT_TRY(at_atomic_commit(&file));
out:
    at_atomic_abort(&file);
    at_str_free(&text);
    at_free(dir);
    return st;
}

void at_cuda_tuned_free(at_cuda *g)
{
    if (!g->tuned) return;
    at_free(g->tuned->answers);
    at_free(g->tuned->path);
    at_free(g->tuned);
    g->tuned = NULL;
}

void at_cuda_tuned_save(at_cuda *g)
{
    at_cuda_tuned *t = g->tuned;
    if (!t || !t->fresh || !t->path) return;
    t->fresh = false;
    if (write_file(t) != AT_OK)
        at_log(AT_INFO, "CUDA-TUNE", "%s; the next start times its products again",
               at_error_text());
}

// --- timing --------------------------------------------------------------------------------------
// Milliseconds a run, or a negative number where the candidate cannot run.
static float time_one(at_cuda *g, const at_lt_algo *algo, int runs, void *d, at_cuda_try *run,
                      void *self, const cudaEvent_t events[2])
{
    float ms = -1;
    if (run(self, algo, d)) return -1;
    if (cudaEventRecord(events[0], g->stream) != cudaSuccess) return -1;
    for (int i = 0; i < runs; i++)
        if (run(self, algo, d)) return -1;
    if (cudaEventRecord(events[1], g->stream) != cudaSuccess ||
        cudaEventSynchronize(events[1]) != cudaSuccess ||
        cudaEventElapsedTime(&ms, events[0], events[1]) != cudaSuccess)
        return -1;
    return ms / (float)runs;
}

// Two rounds, so that a clock that changes meanwhile does not decide. What does not need less than `below`
// times the first one's time is not taken.
static int fastest(at_cuda *g, const at_lt_algo *algos, int n, int runs, float below, void *d,
                   at_cuda_try *run, void *self, const cudaEvent_t events[2])
{
    float best[AT_CUDA_CANDIDATES] = {0};
    int chosen = 0;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < n; i++) {
            if (round && (best[i] < 0 || best[i] > 1.2f * best[chosen])) continue;
            float ms = time_one(g, &algos[i], runs, d, run, self, events);
            if (round == 0 || (ms >= 0 && ms < best[i])) best[i] = ms;
            if (ms >= 0 && (best[chosen] < 0 || ms < best[chosen])) chosen = i;
        }
    if (best[0] >= 0 && best[chosen] > below * best[0]) chosen = 0;
    (void)cudaGetLastError(); // a candidate's refusal is no failure
    return chosen;
}

static int by_timing(at_cuda *g, const at_cuda_problem *p, const at_lt_algo *algos, int n,
                     size_t out_bytes, at_cuda_try *run, void *self)
{
    double flops = 2.0 * (double)(p->m * p->batch) * (double)p->n * (double)p->k;
    int runs = (int)(4e11 / (flops + 1)), chosen = -1;
    cudaEvent_t events[2] = {0};
    void *d = NULL;

    runs = runs < 2 ? 2 : runs > 10 ? 10 : runs;
    if (cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess &&
        at_cuda_alloc(g, out_bytes, &d) == AT_OK)
        chosen = fastest(g, algos, n, runs, at_cuda_large(p) ? 0.985f : 1.0f, d, run, self, events);
    at_cuda_free(g, d);
    for (int i = 0; i < 2; i++)
        if (events[i]) cudaEventDestroy(events[i]);
    (void)cudaGetLastError();
    return chosen;
}

at_lt_algo at_cuda_tune(at_cuda *g, const at_cuda_problem *p, const at_lt_algo *candidates, int n,
                        size_t out_bytes, at_cuda_try *run, void *self)
{
    at_cuda_tuned *t = table_of(g);

    if (n < 2 || !t || t->off) return candidates[0];
    uint64_t problem = hash_of(p, sizeof *p);
    const answer *known = find(t, problem);
    for (int i = 0; known && i < n; i++)
        if (hash_of(&candidates[i], sizeof candidates[i]) == known->algo) return candidates[i];
    if (g->recording) return candidates[0];
    int chosen = by_timing(g, p, candidates, n, out_bytes, run, self);
    if (chosen < 0) return candidates[0]; // no memory: another time
    keep(t, problem, hash_of(&candidates[chosen], sizeof candidates[chosen]));
    t->fresh = true;
    return candidates[chosen];
}

bool at_cuda_choice_find(at_cuda *g, const void *problem, size_t bytes, uint64_t *choice)
{
    const at_cuda_tuned *t = table_of(g);
    const answer *known = t && !t->off ? find(t, hash_of(problem, bytes)) : NULL;
    if (known) *choice = known->algo;
    return known != NULL;
}

void at_cuda_choice_keep(at_cuda *g, const void *problem, size_t bytes, uint64_t choice)
{
    at_cuda_tuned *t = table_of(g);
    if (!t || t->off) return;
    keep(t, hash_of(problem, bytes), choice);
    t->fresh = true;
}
