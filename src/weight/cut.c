// SPDX-License-Identifier: Apache-2.0
// cut.c - see cut.h.
// Idea: a record holds how it is cut and a list of shares, both said once and never changed. A share whose bytes
// lie behind each other in the record shows them where they are; others are gathered into bytes of their own.
// Easy to get wrong: one lock makes shares, because ranks ask for theirs at the same time; no work on files is done
// under it but the gathering itself.
#include "weight/cut.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "weight/store_impl.h"

struct at_share {
    at_weight w;
    at_packed packed;
    int rank, size;
    void *own; // gathered bytes, or NULL
    struct at_share *next;
};

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;

int64_t at_cut_share(at_cut_run run, int rank, int size, int64_t *first)
{
    int64_t unit = run.unit > 0 ? run.unit : 1, units = (run.length + unit - 1) / unit;
    int64_t base = units / size, rest = units % size;
    int64_t begin = base * rank + (rank < rest ? rank : rest), n = base + (rank < rest);
    int64_t end = (begin + n) * unit < run.length ? (begin + n) * unit : run.length;

    *first = begin * unit < run.length ? begin * unit : run.length;
    return end - *first;
}

// --- how -------------------------------------------------------------------------------------------
static bool same(const at_cutting *a, const at_cutting *b)
{
    if (a->columns != b->columns || a->n != b->n) return false;
    for (int i = 0; i < a->n; i++)
        if (a->run[i].length != b->run[i].length || a->run[i].unit != b->run[i].unit) return false;
    return true;
}

at_status at_weight_cut(const at_weight *w, const at_cutting *how)
{
    at_cuts *c = w->cuts;
    int dim = how->columns, n = how->n;
    int64_t length = 0;

    for (int i = 0; i < n && n <= AT_CUT_RUNS; i++)
        length += how->run[i].length;
    if (!c) return AT_OK; // made by hand: it stays whole
    if (n < 1 || n > AT_CUT_RUNS || w->rank <= dim || length != w->shape[dim])
        return at_fail(AT_EINVAL, "%s: %d runs of %lld in all do not cut dimension %d", w->name, n,
                       (long long)length, dim);
    pthread_mutex_lock(&g_lock);
    if (!atomic_load_explicit(&c->known, memory_order_relaxed)) {
        c->how = *how;
        atomic_store_explicit(&c->known, true, memory_order_release);
    }
    pthread_mutex_unlock(&g_lock);
    return same(&c->how, how) ? AT_OK : at_fail(AT_EINTERNAL, "%s is cut in two ways", w->name);
}

const at_cutting *at_weight_how_cut(const at_weight *w)
{
    if (!w || !w->cuts || !atomic_load_explicit(&w->cuts->known, memory_order_acquire)) return NULL;
    return &w->cuts->how;
}

void at_weight_share_shape(const at_weight *w, int rank, int size, int64_t shape[AT_MAX_RANK])
{
    const at_cutting *how = at_weight_how_cut(w);
    int64_t first, length = 0;

    memcpy(shape, w->shape, sizeof w->shape);
    if (!how || size < 2) return;
    for (int i = 0; i < how->n; i++)
        length += at_cut_share(how->run[i], rank, size, &first);
    shape[how->columns] = length;
}

// --- shares ----------------------------------------------------------------------------------------
// Bytes of one step of the cut dimension, and how many such lines stand behind each other.
static size_t step_of(const at_weight *w, const at_cutting *how)
{
    size_t step = at_dtype_size(w->dtype);
    for (int i = how->columns + 1; i < w->rank; i++)
        step *= (size_t)w->shape[i];
    return step;
}

// The share's bytes as one run of the record's, or NULL: they lie apart.
static const char *in_one(const at_weight *w, const at_cutting *how, int rank, int size)
{
    int64_t first, at = 0, n = 0;
    const char *found = w->data; // of an empty share, which nobody reads
    int runs = 0;

    for (int i = 0; i < how->n; at += how->run[i++].length) {
        n = at_cut_share(how->run[i], rank, size, &first);
        if (n == 0) continue;
        found = (const char *)w->data + (size_t)(at + first) * step_of(w, how);
        runs++;
    }
    bool lines = how->columns && w->shape[0] > 1;
    return runs == 0 || (runs == 1 && !lines) ? found : NULL;
}

static void gather(const at_weight *w, const at_cutting *how, int rank, int size, char *to)
{
    size_t step = step_of(w, how), line = step * (size_t)w->shape[how->columns];
    int64_t lines = how->columns ? w->shape[0] : 1;

    for (int64_t l = 0; l < lines; l++) {
        const char *from = (const char *)w->data + (size_t)l * line;
        for (int i = 0; i < how->n; from += (size_t)how->run[i++].length * step) {
            int64_t first, n = at_cut_share(how->run[i], rank, size, &first);
            memcpy(to, from + (size_t)first * step, (size_t)n * step);
            to += (size_t)n * step;
        }
    }
}

// Locked: made and in the list.
static at_status make(const at_weight *w, const at_cutting *how, int rank, int size, at_share **out)
{
    at_share *s = at_calloc(1, sizeof *s);
    at_status st = AT_OK;

    if (!s) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a share", w->name));
    s->w = *w;
    s->w.packed = &s->packed;
    s->w.lazy = NULL;
    s->w.cuts = NULL;
    s->rank = rank;
    s->size = size;
    at_weight_share_shape(w, rank, size, s->w.shape);
    s->w.bytes = at_dtype_size(w->dtype);
    for (int i = 0; i < w->rank; i++)
        s->w.bytes *= (size_t)s->w.shape[i];
    if (!w->data) goto done; // a shape alone
    s->w.data = in_one(w, how, rank, size);
    if (s->w.data) goto done;
    s->own = at_alloc(s->w.bytes ? s->w.bytes : 1);
    if (!s->own)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu bytes of rank %d", w->name, s->w.bytes,
                       rank));
    gather(w, how, rank, size, s->own);
    s->w.data = s->own;
    s->w.mapped = false;
done:
    s->next = atomic_load_explicit(&w->cuts->first, memory_order_relaxed);
    atomic_store_explicit(&w->cuts->first, s, memory_order_release);
    *out = s;
    s = NULL;
out:
    at_free(s);
    return st;
}

static at_share *find(at_cuts *c, int rank, int size)
{
    at_share *s = atomic_load_explicit(&c->first, memory_order_acquire);
    while (s && (s->rank != rank || s->size != size))
        s = s->next;
    return s;
}

at_status at_weight_share(const at_weight *w, int rank, int size, const at_weight **out)
{
    const at_cutting *how = at_weight_how_cut(w);
    at_status st = AT_OK;
    at_share *s;

    *out = w;
    if (!how || size < 2) return at_weight_ready(w);
    if (!(s = find(w->cuts, rank, size))) {
        AT_TRY(at_weight_ready(w));
        pthread_mutex_lock(&g_lock);
        if (!(s = find(w->cuts, rank, size))) st = make(w, how, rank, size, &s);
        pthread_mutex_unlock(&g_lock);
        AT_TRY(st);
    }
    *out = &s->w;
out:
    return st;
}

void at_cuts_close(at_cuts *c)
{
    at_share *s = atomic_load_explicit(&c->first, memory_order_acquire);

    while (s) {
        at_share *next = s->next;
        void *packed = atomic_load_explicit(&s->packed.data, memory_order_acquire);
        if (packed && s->packed.free) s->packed.free(packed);
        at_free(s->own);
        at_free(s);
        s = next;
    }
}
