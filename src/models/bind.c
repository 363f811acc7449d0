// SPDX-License-Identifier: Apache-2.0
// bind.c - the interpreter of size rows and bind rows.
// Idea: one pass over tables reads sizes, a second fills structs and lists all that is wrong.
// Easy to get wrong: stop at the first missing tensor and a person fixes a file forty times; a file
// is hostile, so every size read off it is positive and bounded.
// Owns: see bind.h.
#include "models/bind.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "models/convert.h"
#include "models/session.h"

enum { MAX_BLOCKS = 4096, MAX_NAMED = 8 };
static const int64_t max_size = (int64_t)1 << 31;

static int64_t *field_of(void *config, size_t offset)
{
    return (int64_t *)((char *)config + offset);
}

// key has at most one %d; the tables are ours, never a file's.
static at_weight *find_numbered(at_store *s, const char *prefix, const char *key, int i)
{
    char name[256];
    const char *mark = strstr(key, "%d");
    if (!mark) return at_store_findf(s, "%s%s", prefix, key);
    snprintf(name, sizeof name, "%s%.*s%d%s", prefix, (int)(mark - key), key, i, mark + 2);
    return at_store_find(s, name);
}

static at_status read_dim(at_store *s, const char *prefix, const at_size_row *r, void *config)
{
    const at_weight *w = at_store_findf(s, "%s%s", prefix, r->key);
    if (!w)
        return at_fail(AT_EFORMAT, "%s: tensor %s%s is missing (it gives the model's %s)",
                       at_store_path(s), prefix, r->key, r->name);
    if (r->dim >= w->rank || w->shape[r->dim] < 1 || w->shape[r->dim] > max_size)
        return at_fail(AT_EFORMAT, "%s: tensor %s%s has no usable dimension %d (the model's %s)",
                       at_store_path(s), prefix, r->key, r->dim, r->name);
    int64_t by = r->by_field ? at_size_at(config, r->by_field) : r->by ? r->by : 1;
    if (by < 1 || w->shape[r->dim] % by)
        return at_fail(AT_EFORMAT, "%s: %s%s: %lld is no multiple of %lld (the model's %s)",
                       at_store_path(s), prefix, r->key, (long long)w->shape[r->dim], (long long)by,
                       r->name);
    *field_of(config, r->offset) = w->shape[r->dim] / by;
    return AT_OK;
}

at_status at_read_sizes(at_store *s, const char *prefix, const at_size_row *rows, size_t n,
                        void *config)
{
    at_status st = AT_OK;

    for (size_t i = 0; i < n; i++) {
        const at_size_row *r = &rows[i];
        int count = 0;
        switch (r->how) {
        case AT_SIZE_DIM: AT_TRY(read_dim(s, prefix, r, config)); break;
        case AT_SIZE_COUNT:
            while (count < MAX_BLOCKS && find_numbered(s, prefix, r->key, count))
                count++;
            *field_of(config, r->offset) = count;
            break;
        case AT_SIZE_HAS:
            *field_of(config, r->offset) = at_store_findf(s, "%s%s", prefix, r->key) != NULL;
            break;
        case AT_SIZE_MEASURED: break;
        }
    }
out:
    return st;
}

// --- tensors -----------------------------------------------------------------------------------
static bool shape_fits(const at_weight *w, const at_bind_row *r, const void *config)
{
    if (r->rank == 0) return true;
    if (w->rank != r->rank) return false;
    for (int i = 0; i < r->rank && i < 4; i++)
        if (r->dim[i] && w->shape[i] != at_size_at(config, r->dim[i])) return false;
    return true;
}

static void report_shape(at_binder *b, const at_weight *w, const at_bind_row *r, const void *config)
{
    char text[128];
    at_str_printf(&b->problems, "%s is %s, not [", w->name,
                  at_shape_text(w->dtype, w->rank, w->shape, text));
    for (int i = 0; i < r->rank && i < 4; i++) {
        if (i) at_str_append(&b->problems, ", ");
        if (r->dim[i])
            at_str_printf(&b->problems, "%lld", (long long)at_size_at(config, r->dim[i]));
        else
            at_str_append(&b->problems, "any");
    }
    at_str_append(&b->problems, "]\n");
    b->count++;
}

static void cut(at_binder *b, const at_weight *w, const at_bind_row *r, const void *config)
{
    at_cutting how = {.columns = r->cut->columns};

    for (int i = 0; i < 2; i++)
        for (int k = 0; k < r->cut->run[i].times && how.n < AT_CUT_RUNS; k++) {
            const at_bind_run *run = &r->cut->run[i];
            how.run[how.n++] =
                (at_cut_run){at_size_at(config, run->length),
                             run->unit ? at_size_at(config, run->unit) : AT_CUT_UNIT};
        }
    if (at_weight_cut(w, &how) == AT_OK) return;
    at_str_printf(&b->problems, "%s\n", at_error_text());
    b->count++;
}

const at_weight *at_bind_one(at_binder *b, const char *base, const at_bind_row *row,
                             const void *config)
{
    const at_weight *w = at_store_findf(b->store, "%s%s%s", b->prefix, base, row->key);
    if (!w) {
        if (row->optional) return NULL;
        at_str_printf(&b->problems, "%s%s%s\n", b->prefix, base, row->key);
        b->count++;
        return NULL;
    }
    if (shape_fits(w, row, config)) {
        if (row->cut) cut(b, w, row, config);
        return w;
    }
    report_shape(b, w, row, config);
    return NULL;
}

void at_bind_rows(at_binder *b, const char *base, const at_bind_row *rows, size_t n,
                  const void *config, void *target)
{
    for (size_t i = 0; i < n; i++) {
        const at_weight *w = at_bind_one(b, base, &rows[i], config);
        memcpy((char *)target + rows[i].offset, &w, sizeof w);
    }
}

at_status at_bind_groups(at_binder *b, const at_bind_group *groups, size_t n, const void *config,
                         void *weights)
{
    for (size_t g = 0; g < n; g++) {
        const at_bind_group *p = &groups[g];
        if (!p->count) {
            at_bind_rows(b, p->base, p->rows, p->n_rows, config, weights);
            continue;
        }
        size_t count = (size_t)at_size_at(config, p->count);
        char *array = at_calloc(count ? count : 1, p->size);
        if (!array)
            return at_fail(AT_ENOMEM, "%s: no memory for %zu blocks", at_store_path(b->store),
                           count);
        memcpy((char *)weights + p->array, &array, sizeof array);
        const char *mark = strstr(p->base, "%d");
        for (size_t i = 0; i < count; i++) {
            char base[128];
            snprintf(base, sizeof base, "%.*s%zu%s", (int)(mark - p->base), p->base, i, mark + 2);
            at_bind_rows(b, base, p->rows, p->n_rows, config, array + i * p->size);
        }
    }
    return AT_OK;
}

// --- at_bound ----------------------------------------------------------------------------------
static void bound_free(at_bound *b)
{
    if (!b) return;
    at_sessions_free(b->sessions);
    for (size_t g = 0; b->weights && g < b->arch->n_groups; g++) {
        void *array = NULL;
        if (!b->arch->groups[g].count) continue;
        memcpy(&array, (char *)b->weights + b->arch->groups[g].array, sizeof array);
        at_free(array);
    }
    at_free(b->weights);
    at_free(b->config);
    at_store_release(&b->store);
    at_free(b);
}

// Config and weights of a component; problems go to `found`. AT_EFORMAT only if sizes cannot be
// read.
static at_status bound_fill(at_bound *b, at_binder *found)
{
    at_status st = AT_OK;
    const at_arch *a = b->arch;
    const char *path = at_store_path(b->store);

    b->config = at_calloc(1, a->config_size);
    b->weights = at_calloc(1, a->weights_size);
    if (!b->config || !b->weights)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to bind %s", path, a->title));
    AT_TRY(at_read_sizes(b->store, b->prefix, a->sizes, a->n_sizes, b->config));
    const char *why = a->measure ? a->measure(b->store, b->prefix, b->config) : NULL;
    if (!why && a->derive) why = a->derive(b->config);
    if (why) AT_TRY(at_fail(AT_EFORMAT, "%s: %s: %s", path, a->title, why));
    AT_TRY(at_bind_groups(found, a->groups, a->n_groups, b->config, b->weights));
    if (a->bind) a->bind(found, b->config, b->weights);
    if (found->problems.failed)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to list missing tensors", path));
out:
    return st;
}

static at_status bound_new(const at_arch *arch, at_store *s, const char *prefix, at_binder *found,
                           at_bound **out)
{
    at_status st = AT_OK;
    at_bound *b = at_calloc(1, sizeof *b);

    if (!b) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to bind %s", at_store_path(s), arch->title));
    atomic_init(&b->refs, 1);
    AT_TRY(at_arch_resolve(&arch, s, &prefix, &b->store));
    b->arch = arch;
    snprintf(b->prefix, sizeof b->prefix, "%s", prefix);
    found->store = b->store;
    found->prefix = b->prefix;
    AT_TRY(bound_fill(b, found));
    *out = b;
    b = NULL;
out:
    bound_free(b);
    return st;
}

// The first few lines, joined by commas.
static at_status fail_with_names(at_store *s, const at_arch *arch, const at_binder *found)
{
    at_status st = AT_EFORMAT;
    at_str names = {0};
    const char *line = at_str_text(&found->problems);

    for (size_t i = 0; i < found->count && i < MAX_NAMED; i++) {
        size_t n = strcspn(line, "\n");
        if (i) at_str_append(&names, ", ");
        at_str_append_n(&names, line, n);
        line += n + 1;
    }
    if (found->count > MAX_NAMED) at_str_printf(&names, " and %zu more", found->count - MAX_NAMED);
    at_fail(st, "%s: %zu tensor%s of %s missing or of a wrong shape: %s", at_store_path(s),
            found->count, found->count == 1 ? "" : "s", arch->title, at_str_text(&names));
    at_str_free(&names);
    return st;
}

at_status at_bound_new(const at_arch *arch, at_store *s, const char *prefix, at_bound **out)
{
    at_status st = AT_OK;
    at_binder found = {0};
    at_bound *b = NULL;

    AT_TRY(bound_new(arch, s, prefix, &found, &b));
    if (found.count) AT_TRY(fail_with_names(s, arch, &found));
    *out = b;
    b = NULL;
out:
    bound_free(b);
    at_str_free(&found.problems);
    return st;
}

at_status at_bound_problems(const at_arch *arch, at_store *s, const char *prefix, char **text,
                            size_t *count)
{
    at_status st = AT_OK;
    at_binder found = {0};
    at_bound *b = NULL;

    *text = NULL;
    st = bound_new(arch, s, prefix, &found, &b);
    if (st ==
        AT_EFORMAT) { // the sizes themselves cannot be read: one problem, with its own sentence
        at_str_clear(&found.problems);
        at_str_append(&found.problems, at_error_text());
        found.count = 1;
        st = AT_OK;
    }
    AT_TRY(st);
    *count = found.count;
    *text = at_str_take(&found.problems);
    if (!*text) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to list tensors", at_store_path(s)));
out:
    bound_free(b);
    at_str_free(&found.problems);
    return st;
}

at_bound *at_bound_retain(at_bound *b)
{
    if (b) atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void at_bound_release(at_bound **b)
{
    if (*b && atomic_fetch_sub_explicit(&(*b)->refs, 1, memory_order_acq_rel) == 1) bound_free(*b);
    *b = NULL;
}

// --- ahead -------------------------------------------------------------------------------------
typedef struct wanted {
    at_wview *views;
    size_t n, cap;
    int rank, size;
    bool pieces;
} wanted;

// What a LoRA changes is made when it is used.
static void want(wanted *l, const at_weight *w)
{
    if (!w || !w->data || l->n >= l->cap) return;
    at_wview *v = &l->views[l->n];
    l->n +=
        at_weight_share_view(w, l->rank, l->size, l->pieces, v) == AT_OK && at_view_count(&v->v);
}

static void want_rows(wanted *l, const at_bind_row *rows, size_t n, const void *target)
{
    for (size_t i = 0; i < n; i++) {
        const at_weight *w = NULL;
        memcpy(&w, (const char *)target + rows[i].offset, sizeof w);
        want(l, w);
    }
}

static pthread_mutex_t g_brought_lock = PTHREAD_MUTEX_INITIALIZER;

// True: all of this share was sent for already, and nothing has left the device since. False: the caller sends for it
// now.
static bool brought(at_bound *b, at_device *d, int rank, int size)
{
    unsigned long moved = atomic_load(&d->moved);
    unsigned i = 0;

    pthread_mutex_lock(&g_brought_lock);
    while (i < b->brought_count && i < AT_BROUGHT && b->brought[i].to != d)
        i++;
    if (i == b->brought_count || i == AT_BROUGHT) i = b->brought_count++ % AT_BROUGHT;
    bool is = b->brought[i].to == d && b->brought[i].moved == moved && b->brought[i].rank == rank &&
              b->brought[i].size == size;
    b->brought[i].to = d;
    b->brought[i].moved = moved;
    b->brought[i].rank = rank;
    b->brought[i].size = size;
    pthread_mutex_unlock(&g_brought_lock);
    return is;
}

void at_bound_prefetch(at_bound *b, at_device *d, int rank, int size)
{
    if (!d->ops->prefetch || brought(b, d, rank, size)) return;
    wanted l = {.cap = 3 * at_store_count(b->store), // rows, and the rest of the file
                .rank = rank,
                .size = size,
                .pieces = d->backend->pieces};
    l.views = at_calloc(l.cap ? l.cap : 1, sizeof *l.views);
    if (!l.views) return;
    for (size_t g = 0; g < b->arch->n_groups; g++) {
        const at_bind_group *p = &b->arch->groups[g];
        if (!p->count) {
            want_rows(&l, p->rows, p->n_rows, b->weights);
            continue;
        }
        char *array = NULL;
        memcpy(&array, (char *)b->weights + p->array, sizeof array);
        for (int64_t i = 0; array && i < at_size_at(b->config, p->count); i++)
            want_rows(&l, p->rows, p->n_rows, array + (size_t)i * p->size);
    }
    for (size_t i = 0; i < at_store_count(b->store); i++) {
        const at_weight *w = at_store_at(b->store, i);
        if (at_starts_with(w->name, b->prefix)) want(&l, w);
    }
    (void)d->ops->prefetch(d, l.views, l.n);
    at_free(l.views);
}
