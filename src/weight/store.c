// SPDX-License-Identifier: Apache-2.0
// store.c - weights as records over a mapped file, or over buffers filled by hand.
// Idea: records never move (I3), so they stand in blocks of their own; two arrays of pointers give
// them in file order and sorted by name. Easy to get wrong: a file may place a tensor at an address
// that its element type does not allow (old writers did not pad the header); such a tensor is
// copied once at open, because compilers use the alignment they were promised.
#include "weight/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/mem.h"
#include "weight/extent.h"
#include "weight/scaled.h"
#include "weight/store_impl.h"
#include "weight/torch_file.h"

#define MOST_ZEROS ((size_t)1 << 32) // bytes of a record of zeros: of addresses, not of memory

int at_record_by_name(const void *a, const void *b)
{
    return strcmp((*(at_record *const *)a)->w.name, (*(at_record *const *)b)->w.name);
}

// Index of `name` in sorted, or of the first greater one.
static size_t lower_bound(const at_store *s, const char *name, bool *hit)
{
    size_t lo = 0, hi = s->count;

    *hit = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(s->sorted[mid]->w.name, name);
        if (c == 0) {
            *hit = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static at_status reserve(at_store *s, size_t want)
{
    size_t cap = s->cap ? s->cap : 64, bytes;
    at_record **p;

    while (cap < want && cap <= SIZE_MAX / 2)
        cap *= 2;
    if (cap <= s->cap) return AT_OK;
    if (!at_mul_size(cap, sizeof *p, &bytes)) goto nomem;
    if (!(p = at_realloc(s->order, bytes))) goto nomem;
    s->order = p;
    if (!(p = at_realloc(s->sorted, bytes))) goto nomem;
    s->sorted = p;
    s->cap = cap;
    return AT_OK;
nomem:
    return at_fail(AT_ENOMEM, "%s: no memory for %zu records", s->path, want);
}

static void free_record(at_record *r)
{
    void *packed = atomic_load_explicit(&r->packed.data, memory_order_acquire);

    if (packed && r->packed.free) r->packed.free(packed);
    at_cuts_close(&r->cuts);
    at_free(r->own);
    at_free(r->own_name);
}

at_status at_store_new(const char *label, at_store **out)
{
    at_store *s = at_calloc(1, sizeof *s);

    *out = NULL;
    if (s) s->path = at_strdup(label);
    if (!s || !s->path) {
        at_free(s);
        return at_fail(AT_ENOMEM, "%s: no memory for a weight store", label);
    }
    atomic_init(&s->refs, 1);
    *out = s;
    return AT_OK;
}

at_store *at_store_retain(at_store *s)
{
    if (s) atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void at_store_release(at_store **ps)
{
    at_store *s = ps ? *ps : NULL;

    if (!s) return;
    *ps = NULL;
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < s->block_count; i++)
        free_record(&s->block[i]);
    for (size_t i = 0; i < s->count && !s->block; i++) {
        free_record(s->order[i]);
        at_free(s->order[i]);
    }
    at_overlay_close(s->overlay);
    at_store_release(&s->under);
    at_free(s->block);
    at_free(s->order);
    at_free(s->sorted);
    at_st_free(&s->st);
    at_map_close(&s->map);
    if (s->zeros) munmap(s->zeros, MOST_ZEROS);
    at_free(s->path);
    at_free(s);
}

// --- a store over a file -------------------------------------------------------------------------

static at_status refuse_other_kinds(const char *path, const at_map *m)
{
    static const struct {
        const char *magic, *what;
        size_t n;
    } kinds[] = {
        {"GGUF", "a GGUF file", 4},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (m->size >= kinds[i].n && !memcmp(m->data, kinds[i].magic, kinds[i].n))
            return at_fail(AT_EUNSUPPORTED,
                           "%s: this is %s; atelier reads safetensors: get the model in that "
                           "format, or convert it",
                           path, kinds[i].what);
    return AT_OK;
}

static at_status copy_unaligned(at_store *s, size_t *copied)
{
    for (size_t i = 0; i < s->count; i++) {
        at_record *r = s->order[i];
        if ((uintptr_t)r->w.data % at_dtype_size(r->w.dtype) == 0) continue;
        r->own = at_alloc(r->w.bytes);
        if (!r->own)
            return at_fail(AT_ENOMEM, "%s: no memory to align tensor %s (%zu bytes)", s->path,
                           r->w.name, r->w.bytes);
        memcpy(r->own, r->w.data, r->w.bytes);
        r->w.data = r->own;
        r->w.mapped = false;
        *copied += r->w.bytes;
    }
    return AT_OK;
}

static at_status fill_from_file(at_store *s)
{
    size_t unaligned = 0;
    at_status st = AT_OK;

    AT_TRY(reserve(s, s->st.count));
    s->block = at_calloc(s->st.count ? s->st.count : 1, sizeof *s->block);
    if (!s->block)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu records", s->path, s->st.count));
    s->block_count = s->st.count;
    for (size_t i = 0; i < s->st.count; i++) {
        const at_st_row *row = &s->st.rows[i];
        at_record *r = &s->block[i];
        r->w = (at_weight){.name = row->name,
                           .dtype = row->dtype,
                           .rank = row->rank,
                           .data = s->map.data + row->offset,
                           .bytes = row->bytes,
                           .scale = 1,
                           .packed = &r->packed,
                           .cuts = &r->cuts,
                           .mapped = true,
                           .store = s};
        memcpy(r->w.shape, row->shape, sizeof row->shape);
        s->order[i] = s->sorted[i] = r;
    }
    s->count = s->st.count;
    qsort(s->sorted, s->count, sizeof *s->sorted, at_record_by_name);
    AT_TRY(copy_unaligned(s, &unaligned));
    if (unaligned)
        at_log(AT_WARN, "WEIGHT-UNALIGNED",
               "%s: %zu bytes of tensors lie at odd addresses and were copied to memory; rewrite "
               "the file with a current safetensors to have it mapped",
               s->path, unaligned);
    AT_TRY(at_scaled_fold(s));
out:
    return st;
}

at_status at_store_open(const char *path, at_store **out)
{
    at_store *s = NULL;
    at_status st = AT_OK;

    *out = NULL;
    AT_TRY(at_store_new(path, &s));
    AT_TRY(at_map_open(path, &s->map));
    AT_TRY(refuse_other_kinds(path, &s->map));
    if (at_torch_is(s->map.data, s->map.size)) {
        AT_TRY(at_torch_fill(s));
        AT_TRY(at_scaled_fold(s));
    } else {
        AT_TRY(at_st_parse(path, s->map.data, s->map.size, &s->st));
        AT_TRY(fill_from_file(s));
    }
    *out = s;
    s = NULL;
out:
    at_store_release(&s);
    return st;
}

// --- a store filled by hand ----------------------------------------------------------------------

static at_status check_shape(const at_store *s, const char *name, at_dtype dtype, int rank,
                             const int64_t *shape, size_t *bytes)
{
    uint64_t n;

    if (rank < 0 || rank > AT_MAX_RANK)
        return at_fail(AT_EINVAL, "%s: %s has rank %d, the limit is %d", s->path, name, rank,
                       AT_MAX_RANK);
    if (!at_extent_bytes(dtype, rank, shape, &n))
        return at_fail(AT_EINVAL, "%s: the shape of %s is negative or above 2^63 bytes", s->path,
                       name);
    *bytes = n;
    return AT_OK;
}

static at_status add(at_store *s, const char *name, at_dtype dtype, int rank, const int64_t *shape,
                     bool with_bytes, at_record **out)
{
    at_record *r = NULL;
    size_t bytes = 0, at;
    bool hit;
    at_status st = AT_OK;

    if (s->block) AT_TRY(at_fail(AT_EINVAL, "%s: a store over a file takes no records", s->path));
    AT_TRY(check_shape(s, name, dtype, rank, shape, &bytes));
    at = lower_bound(s, name, &hit);
    if (hit) AT_TRY(at_fail(AT_EINVAL, "%s: there is a record %s already", s->path, name));
    AT_TRY(reserve(s, s->count + 1));
    r = at_calloc(1, sizeof *r);
    if (r) r->own_name = at_strdup(name);
    if (r && with_bytes) r->own = at_calloc(bytes ? bytes : 1, 1);
    if (!r || !r->own_name || (with_bytes && !r->own))
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %s (%zu bytes)", s->path, name, bytes));
    r->w = (at_weight){.name = r->own_name,
                       .dtype = dtype,
                       .rank = rank,
                       .data = r->own,
                       .bytes = bytes,
                       .scale = 1,
                       .packed = &r->packed,
                       .cuts = &r->cuts,
                       .store = s};
    for (int i = 0; i < rank; i++)
        r->w.shape[i] = shape[i];
    memmove(s->sorted + at + 1, s->sorted + at, (s->count - at) * sizeof *s->sorted);
    s->sorted[at] = s->order[s->count++] = r;
    *out = r;
    return AT_OK;
out:
    if (r) free_record(r);
    at_free(r);
    return st;
}

at_status at_store_add(at_store *s, const char *name, at_dtype dtype, int rank,
                       const int64_t *shape, void (*fill)(void *ctx, void *bytes, size_t n),
                       void *ctx)
{
    at_record *r;
    at_status st = add(s, name, dtype, rank, shape, true, &r);

    if (st == AT_OK && fill) fill(ctx, r->own, r->w.bytes);
    return st;
}

at_status at_store_add_shape(at_store *s, const char *name, at_dtype dtype, int rank,
                             const int64_t *shape)
{
    at_record *r;

    return add(s, name, dtype, rank, shape, false, &r);
}

static at_status open_zeros(at_store *s)
{
    void *p = mmap(NULL, MOST_ZEROS, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return at_fail(AT_ENOMEM, "%s: no %zu bytes of addresses", s->path, MOST_ZEROS);
    s->zeros = p;
    return AT_OK;
}

at_status at_store_add_zeros(at_store *s, const char *name, at_dtype dtype, int rank,
                             const int64_t *shape)
{
    at_status st = AT_OK;
    at_record *r;

    if (!s->zeros) AT_TRY(open_zeros(s));
    AT_TRY(add(s, name, dtype, rank, shape, false, &r));
    if (r->w.bytes > MOST_ZEROS)
        AT_TRY(at_fail(AT_EINVAL, "%s: %s: %zu bytes of zeros; %zu are the most", s->path, name,
                       r->w.bytes, MOST_ZEROS));
    r->w.data = s->zeros;
out:
    return st;
}

// --- asking --------------------------------------------------------------------------------------

const char *at_store_path(const at_store *s)
{
    return s->path;
}

size_t at_store_count(const at_store *s)
{
    return s->count;
}

at_weight *at_store_at(at_store *s, size_t i)
{
    return i < s->count ? &s->order[i]->w : NULL;
}

at_weight *at_store_find(at_store *s, const char *name)
{
    bool hit;
    size_t i = lower_bound(s, name, &hit);

    return hit ? &s->sorted[i]->w : NULL;
}

at_weight *at_store_findf(at_store *s, const char *fmt, ...)
{
    char name[512];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return n >= 0 && (size_t)n < sizeof name ? at_store_find(s, name) : NULL;
}

const char *at_store_metadata(const at_store *s, const char *key)
{
    size_t lo = 0, hi = s->st.meta_count;

    if (s->overlay) return at_store_metadata(at_store_base((at_store *)(uintptr_t)s), key);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(s->st.meta[mid].key, key);
        if (c == 0) return s->st.meta[mid].value;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

uint64_t at_store_file_bytes(const at_store *s)
{
    return s->overlay ? at_store_file_bytes(at_store_base((at_store *)(uintptr_t)s)) : s->map.size;
}
