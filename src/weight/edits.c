// SPDX-License-Identifier: Apache-2.0
// edits.c - sets of changes, and the store that they make of another.
// Idea: a set is a flat list; when it is laid over a store it is copied behind what is there already,
// sorted by name (in order among equals), and each run of one name is a row of an overlay.
// Owns: see edits.h.
#include "weight/edits.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "weight/edit_impl.h"
#include "weight/store_impl.h"

typedef struct item {
    char *name;
    size_t order;
    at_edit edit;
} item;

// A run of items with one name, in an edited store.
typedef struct run {
    size_t first, count;
    const at_weight *base;
} run;

struct at_edits {
    atomic_int refs;
    item *items;
    size_t count, cap;
    at_store **held;
    size_t held_count, held_cap;
    run *runs; // of an edited store only
    size_t run_count;
    const at_edit **list; // the items' edits in order, for at_edits_of
};

at_status at_edits_new(at_edits **out)
{
    at_edits *e = at_calloc(1, sizeof *e);

    *out = e;
    if (!e) return at_fail(AT_ENOMEM, "no memory for changes of weights");
    atomic_init(&e->refs, 1);
    return AT_OK;
}

at_edits *at_edits_retain(at_edits *e)
{
    if (e) atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void at_edits_release(at_edits **pe)
{
    at_edits *e = pe ? *pe : NULL;

    if (!e) return;
    *pe = NULL;
    if (atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < e->count; i++)
        at_free(e->items[i].name);
    for (size_t i = 0; i < e->held_count; i++)
        at_store_release(&e->held[i]);
    at_free(e->items);
    at_free(e->held);
    at_free(e->runs);
    at_free(e->list);
    at_free(e);
}

// Room for one more.
static at_status room(void **items, size_t count, size_t *cap, size_t size)
{
    size_t want = *cap ? *cap * 2 : 16, bytes;
    void *p = NULL;

    if (count < *cap) return AT_OK;
    if (at_mul_size(want, size, &bytes)) p = at_realloc(*items, bytes);
    if (!p) return at_fail(AT_ENOMEM, "no memory for %zu changes of weights", want);
    *items = p;
    *cap = want;
    return AT_OK;
}

at_status at_edits_add(at_edits *e, const char *name, const at_edit *one)
{
    at_status st = room((void **)&e->items, e->count, &e->cap, sizeof *e->items);
    char *copy = st == AT_OK ? at_strdup(name) : NULL;

    if (st != AT_OK) return st;
    if (!copy) return at_fail(AT_ENOMEM, "no memory for a change of %s", name);
    e->items[e->count] = (item){copy, e->count, *one};
    e->count++;
    return AT_OK;
}

at_status at_edits_hold(at_edits *e, at_store *s)
{
    for (size_t i = 0; i < e->held_count; i++)
        if (e->held[i] == s) return AT_OK;
    at_status st = room((void **)&e->held, e->held_count, &e->held_cap, sizeof(at_store *));
    if (st == AT_OK) e->held[e->held_count++] = at_store_retain(s);
    return st;
}

size_t at_edits_count(const at_edits *e)
{
    return e->count;
}

// --- an edited store -------------------------------------------------------------------------------
static at_status make_row(void *ctx, size_t row, const at_weight *w, void *bytes)
{
    const at_edits *e = ctx;
    const run *r = &e->runs[row];
    at_matrix m = {0};
    at_status st = AT_OK;

    AT_TRY(at_edit_list(r->base, e->list + r->first, r->count, &m));
    if (m.rows * m.cols != at_weight_elements(w))
        AT_TRY(at_fail(AT_EINTERNAL, "the changes give %lld x %lld elements", (long long)m.rows,
                       (long long)m.cols));
    AT_TRY(at_matrix_store(m.v, m.rows * m.cols, w->dtype, bytes));
out:
    at_matrix_free(&m);
    return st;
}

static void free_ctx(void *ctx)
{
    at_edits *e = ctx;

    at_edits_release(&e);
}

size_t at_edits_of(const at_weight *w, const at_edit *const **list, const at_weight **base)
{
    const at_edits *e = w->lazy ? at_store_maker(w->lazy->store, make_row) : NULL;

    if (!e) return 0;
    *list = e->list + e->runs[w->lazy->row].first;
    *base = e->runs[w->lazy->row].base;
    return e->runs[w->lazy->row].count;
}

static int by_name(const void *a, const void *b)
{
    const item *x = a, *y = b;
    int c = strcmp(x->name, y->name);

    return c ? c : (x->order > y->order) - (x->order < y->order);
}

// Items and held stores of `from`, behind those of `to`.
static at_status append(at_edits *to, const at_edits *from)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < from->count; i++)
        AT_TRY(at_edits_add(to, from->items[i].name, &from->items[i].edit));
    for (size_t i = 0; i < from->held_count; i++)
        AT_TRY(at_edits_hold(to, from->held[i]));
out:
    return st;
}

// The dtype and shape of a changed record.
static at_status row_of(const at_edits *e, const run *r, at_overlay_row *row)
{
    const at_weight *w = r->base;
    bool fp8 = w->dtype == AT_F8E4M3 || w->dtype == AT_F8E5M2;

    *row = (at_overlay_row){.name = w->name, .dtype = fp8 ? AT_BF16 : w->dtype, .rank = w->rank};
    memcpy(row->shape, w->shape, sizeof row->shape);
    for (size_t i = 0; i < r->count; i++) {
        const at_edit *one = e->list[r->first + i];
        if (one->grow_rank != row->rank) continue; // refused when it is applied
        for (int d = 0; d < row->rank; d++)
            if (one->grow[d] < row->shape[d])
                return at_fail(AT_EINVAL, "%s: reshape_weight makes dimension %d %lld, it has %lld",
                               w->name, d, (long long)one->grow[d], (long long)row->shape[d]);
        memcpy(row->shape, one->grow, (size_t)row->rank * sizeof *row->shape);
    }
    return AT_OK;
}

// Sort, find the runs and their base records. rows is made for at_store_overlay.
static at_status arrange(at_edits *e, at_store *base, at_overlay_row **rows)
{
    size_t n = e->count ? e->count : 1;
    at_status st = AT_OK;

    e->runs = at_calloc(n, sizeof *e->runs);
    e->list = at_calloc(n, sizeof *e->list);
    *rows = at_calloc(n, sizeof **rows);
    if (!e->runs || !e->list || !*rows)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu changes", at_store_path(base), n));
    if (e->count) qsort(e->items, e->count, sizeof *e->items, by_name);
    for (size_t i = 0; i < e->count; i++) {
        e->list[i] = &e->items[i].edit;
        if (i > 0 && !strcmp(e->items[i].name, e->items[i - 1].name)) {
            e->runs[e->run_count - 1].count++;
            continue;
        }
        const at_weight *w = at_store_find(base, e->items[i].name);
        if (!w || !at_dtype_is_float(w->dtype))
            AT_TRY(at_fail(AT_EINVAL, "%s: %s %s", at_store_path(base), e->items[i].name,
                           w ? "holds no floats to change" : "is not there to change"));
        e->runs[e->run_count++] = (run){i, 1, w};
    }
    for (size_t i = 0; i < e->run_count; i++)
        AT_TRY(row_of(e, &e->runs[i], &(*rows)[i]));
out:
    return st;
}

at_status at_store_edit(at_store *s, const at_edits *e, at_store **out)
{
    const at_edits *before = at_store_maker(s, make_row);
    at_store *base = before ? at_store_base(s) : s;
    at_edits *all = NULL;
    at_overlay_row *rows = NULL;
    at_status st = AT_OK;

    *out = NULL;
    AT_TRY(at_edits_new(&all));
    if (before) AT_TRY(append(all, before));
    AT_TRY(append(all, e));
    AT_TRY(arrange(all, base, &rows));
    at_overlay_maker maker = {.make = make_row, .free = free_ctx, .ctx = all};
    all = NULL;
    AT_TRY(at_store_overlay(base, rows, ((at_edits *)maker.ctx)->run_count, &maker, out));
out:
    at_edits_release(&all);
    at_free(rows);
    return st;
}
