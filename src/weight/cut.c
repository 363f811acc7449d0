// SPDX-License-Identifier: Apache-2.0
// cut.c - see cut.h.
// Idea: a record holds how it is cut and a list of shares, both said once and never changed. A share whose bytes
// lie behind each other in the record shows them where they are; others are gathered once, or read piece by piece by
// who can.
// Easy to get wrong: ranks ask for theirs at the same time. One lock makes all shares, which is no work; each has a
// lock of its own for the gathering.
#include "weight/cut.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/pieces.h"
#include "weight/store_impl.h"

struct at_share {
    at_weight w; // data NULL: its bytes lie apart, and were not gathered yet
    at_packed packed;
    at_pieces apart; // lines 0: they do not
    const void *base;
    int rank, size;
    pthread_mutex_t lock; // over the gathering
    _Atomic(void *) own;  // gathered bytes, or NULL
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

// Where the share's bytes lie in a line of the record's.
static at_pieces pieces_of(const at_weight *w, const at_cutting *how, int rank, int size)
{
    size_t step = step_of(w, how), at = 0;
    at_pieces p = {.lines = how->columns ? w->shape[0] : 1,
                   .line = step * (size_t)w->shape[how->columns]};

    for (int i = 0; i < how->n; at += (size_t)how->run[i++].length * step) {
        int64_t first, n = at_cut_share(how->run[i], rank, size, &first);
        if (!n) continue;
        p.piece[p.n].at = at + (size_t)first * step;
        p.piece[p.n++].bytes = (size_t)n * step;
    }
    return p;
}

// Locked: made and in the list.
static at_status make(const at_weight *w, const at_cutting *how, int rank, int size, at_share **out)
{
    at_share *s = at_calloc(1, sizeof *s);
    at_pieces p = pieces_of(w, how, rank, size);

    if (!s) return at_fail(AT_ENOMEM, "%s: no memory for a share", w->name);
    s->w = *w;
    s->w.packed = &s->packed;
    s->w.lazy = NULL;
    s->w.cuts = NULL;
    s->rank = rank;
    s->size = size;
    pthread_mutex_init(&s->lock, NULL);
    at_weight_share_shape(w, rank, size, s->w.shape);
    s->w.bytes = at_dtype_size(w->dtype);
    for (int i = 0; i < w->rank; i++)
        s->w.bytes *= (size_t)s->w.shape[i];
    if (w->data && p.n <= 1 && (p.lines <= 1 || !s->w.bytes)) {
        s->w.data = (const char *)w->data + (p.n ? p.piece[0].at : 0);
    } else if (w->data) { // else a shape alone
        s->apart = p;
        s->base = w->data;
        s->w.data = NULL;
    }
    s->next = atomic_load_explicit(&w->cuts->first, memory_order_relaxed);
    atomic_store_explicit(&w->cuts->first, s, memory_order_release);
    *out = s;
    return AT_OK;
}

static at_share *find(at_cuts *c, int rank, int size)
{
    at_share *s = atomic_load_explicit(&c->first, memory_order_acquire);
    while (s && (s->rank != rank || s->size != size))
        s = s->next;
    return s;
}

// The share's record; NULL in *out: w stays whole.
static at_status share_of(const at_weight *w, int rank, int size, at_share **out)
{
    const at_cutting *how = at_weight_how_cut(w);
    at_status st = AT_OK;

    *out = NULL;
    if (!how || size < 2) return at_weight_ready(w);
    if ((*out = find(w->cuts, rank, size))) return AT_OK;
    AT_TRY(at_weight_ready(w));
    pthread_mutex_lock(&g_lock);
    if (!(*out = find(w->cuts, rank, size))) st = make(w, how, rank, size, out);
    pthread_mutex_unlock(&g_lock);
out:
    return st;
}

// Bytes that lie apart, in one piece from here on; s->w is the caller's to see afterwards.
static at_status gather(at_share *s)
{
    at_status st = AT_OK;
    void *own = NULL;

    if (!s->apart.lines || atomic_load_explicit(&s->own, memory_order_acquire)) return AT_OK;
    pthread_mutex_lock(&s->lock);
    if (atomic_load_explicit(&s->own, memory_order_relaxed)) goto out;
    own = at_alloc(s->w.bytes);
    if (!own)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu bytes of rank %d", s->w.name, s->w.bytes,
                       s->rank));
    at_pieces_copy(&s->apart, s->base, 0, s->w.bytes, own);
    s->w.data = own;
    s->w.mapped = false;
    atomic_store_explicit(&s->own, own, memory_order_release);
out:
    pthread_mutex_unlock(&s->lock);
    return st;
}

at_status at_weight_share(const at_weight *w, int rank, int size, const at_weight **out)
{
    at_status st = AT_OK;
    at_share *s = NULL;

    AT_TRY(share_of(w, rank, size, &s));
    if (s) AT_TRY(gather(s));
    *out = s ? &s->w : w;
out:
    return st;
}

at_status at_weight_share_view(const at_weight *w, int rank, int size, bool apart, at_wview *out)
{
    at_status st = AT_OK;
    at_share *s = NULL;

    AT_TRY(share_of(w, rank, size, &s));
    if (s && !(apart && s->apart.lines)) AT_TRY(gather(s));
    if (s && apart && s->apart.lines) {
        at_weight shown = {.name = s->w.name,
                           .dtype = s->w.dtype,
                           .rank = s->w.rank,
                           .scale = s->w.scale,
                           .packed = &s->packed,
                           .data = s->base};
        memcpy(shown.shape, s->w.shape, sizeof shown.shape);
        *out = at_weight_view(&shown);
        out->apart = &s->apart;
    } else {
        *out = at_weight_view(s ? &s->w : w);
    }
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
        at_free(atomic_load_explicit(&s->own, memory_order_acquire));
        pthread_mutex_destroy(&s->lock);
        at_free(s);
        s = next;
    }
}
