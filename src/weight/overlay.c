// SPDX-License-Identifier: Apache-2.0
// overlay.c - see overlay.h.
// Idea: one lock an overlay: a record is made under it by whoever asks first, and the others wait; the
// arithmetic inside runs on the pool. Failure is not remembered: memory may have come back.
#include "weight/overlay.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "weight/extent.h"
#include "weight/store_impl.h"

struct at_overlay {
    at_store *base;
    at_overlay_maker maker;
    pthread_mutex_t lock;
};

void at_overlay_close(at_overlay *o)
{
    if (!o) return;
    if (o->maker.free) o->maker.free(o->maker.ctx);
    at_store_release(&o->base);
    pthread_mutex_destroy(&o->lock);
    at_free(o);
}

at_store *at_store_base(at_store *s)
{
    return s->overlay ? s->overlay->base : NULL;
}

void *at_store_maker(const at_store *s, at_overlay_make_fn *make)
{
    return s->overlay && s->overlay->maker.make == make ? s->overlay->maker.ctx : NULL;
}

// --- making --------------------------------------------------------------------------------------
static at_status make_record(at_record *r)
{
    at_overlay *o = r->w.store->overlay;
    void *bytes = at_alloc(r->w.bytes ? r->w.bytes : 1);
    at_status st = AT_OK;

    if (!bytes) AT_TRY(at_fail(AT_ENOMEM, "no memory for its %zu changed bytes", r->w.bytes));
    AT_TRY(o->maker.make(o->maker.ctx, r->lazy.row, &r->w, bytes));
    r->own = bytes;
    r->w.data = bytes;
    atomic_store_explicit(&r->lazy.ready, true, memory_order_release);
    bytes = NULL;
out:
    at_free(bytes);
    return at_fail_context(st, "%s: %s: ", at_store_path(r->w.store), r->w.name);
}

at_status at_weight_ready(const at_weight *w)
{
    at_status st = AT_OK;

    if (!w->lazy || atomic_load_explicit(&w->lazy->ready, memory_order_acquire)) return AT_OK;
    at_store *s = w->lazy->store;
    pthread_mutex_lock(&s->overlay->lock);
    if (!atomic_load_explicit(&w->lazy->ready, memory_order_relaxed))
        st = make_record(&s->block[w->lazy->row]);
    pthread_mutex_unlock(&s->overlay->lock);
    return st;
}

// --- building ------------------------------------------------------------------------------------
static at_status fill_record(at_store *s, size_t i, const at_overlay_row *row)
{
    at_record *r = &s->block[i];
    uint64_t bytes;

    if (row->rank < 0 || row->rank > AT_MAX_RANK ||
        !at_extent_bytes(row->dtype, row->rank, row->shape, &bytes))
        return at_fail(AT_EINVAL, "%s: the shape of %s is out of range", s->path, row->name);
    r->own_name = at_strdup(row->name);
    if (!r->own_name) return at_fail(AT_ENOMEM, "%s: no memory for %s", s->path, row->name);
    r->w = (at_weight){.name = r->own_name,
                       .dtype = row->dtype,
                       .rank = row->rank,
                       .bytes = bytes,
                       .scale = 1,
                       .packed = &r->packed,
                       .cuts = &r->cuts,
                       .store = s,
                       .lazy = &r->lazy};
    memcpy(r->w.shape, row->shape, sizeof r->w.shape);
    r->lazy.row = i;
    r->lazy.store = s;
    atomic_init(&r->lazy.ready, false);
    return AT_OK;
}

// The overlay's own record of that name; `mine` is sorted.
static at_record *own_record(at_record **mine, size_t n, const at_record *like)
{
    at_record **hit = n ? bsearch(&like, mine, n, sizeof *mine, at_record_by_name) : NULL;

    return hit ? *hit : NULL;
}

// order: the base's, with own records in the place of theirs, then the new ones.
static at_status join(at_store *s, at_store *base, at_record **mine, size_t n)
{
    size_t total;

    for (size_t i = 1; i < n; i++)
        if (!strcmp(mine[i - 1]->w.name, mine[i]->w.name))
            return at_fail(AT_EINVAL, "%s: %s is changed twice", s->path, mine[i]->w.name);
    if (!at_add_size(base->count, n, &total) || !(s->order = at_calloc(total, sizeof *s->order)) ||
        !(s->sorted = at_calloc(total, sizeof *s->sorted)))
        return at_fail(AT_ENOMEM, "%s: no memory for %zu records", s->path, base->count);
    s->cap = total;
    for (size_t i = 0; i < base->count; i++) {
        at_record *own = own_record(mine, n, base->order[i]);
        s->order[s->count++] = own ? own : base->order[i];
    }
    for (size_t i = 0; i < n; i++)
        if (!at_store_find(base, s->block[i].w.name)) s->order[s->count++] = &s->block[i];
    memcpy(s->sorted, s->order, s->count * sizeof *s->sorted);
    qsort(s->sorted, s->count, sizeof *s->sorted, at_record_by_name);
    return AT_OK;
}

static at_status fill(at_store *s, at_store *base, const at_overlay_row *rows, size_t n)
{
    at_record **mine = at_calloc(n ? n : 1, sizeof *mine);
    at_status st = AT_OK;

    s->block = at_calloc(n ? n : 1, sizeof *s->block);
    if (!mine || !s->block)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu changed records", s->path, n));
    s->block_count = n;
    for (size_t i = 0; i < n; i++) {
        AT_TRY(fill_record(s, i, &rows[i]));
        mine[i] = &s->block[i];
    }
    qsort(mine, n, sizeof *mine, at_record_by_name);
    AT_TRY(join(s, base, mine, n));
out:
    at_free(mine);
    return st;
}

at_status at_store_overlay(at_store *base, const at_overlay_row *rows, size_t n,
                           const at_overlay_maker *maker, at_store **out)
{
    at_overlay *o = NULL;
    at_store *s = NULL;
    at_status st = AT_OK;

    *out = NULL;
    AT_TRY(at_store_new(base->path, &s));
    o = at_calloc(1, sizeof *o);
    if (!o || pthread_mutex_init(&o->lock, NULL) != 0) {
        at_free(o);
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for an overlay", base->path));
    }
    o->base = at_store_retain(base);
    s->overlay = o;
    AT_TRY(fill(s, base, rows, n));
    o->maker = *maker;
    *out = s;
    return AT_OK;
out:
    if (maker->free) maker->free(maker->ctx);
    at_store_release(&s);
    return st;
}
