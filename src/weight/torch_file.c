// SPDX-License-Identifier: Apache-2.0
// torch_file.c - see torch_file.h.
// Format: torch/serialization.py. Zip: NAME/data.pkl and NAME/data/KEY. Older: five pickles (magic
// number, protocol, system, the object, the storages' keys), then each storage as a count of elements
// (8 bytes) and its elements.
// Easy to get wrong: two records may share a storage (tied weights); a view with other strides than a
// plain tensor's is copied in order; the older format's storages lie at odd addresses and are copied.
#include "weight/torch_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "tensor/dtype.h"
#include "weight/extent.h"
#include "weight/pickle.h"
#include "weight/store_impl.h"
#include "weight/zip.h"

enum { MAX_DEPTH = 8, MAX_VISITS = 1 << 22, MAX_PICKLE = 1 << 30 };

// Where a storage's bytes lie in the file.
typedef struct place {
    const char *key;
    uint64_t offset, bytes;
} place;

typedef struct reader {
    at_store *s;
    const char *label;
    at_pickle pickle, keys; // keys: the older format's list
    at_zip zip;
    char *root; // of the archive's names: "archive"
    bool is_zip;
    place *places; // older format, sorted by key
    size_t place_count;
    at_record *records;
    size_t count, cap;
    at_st_pair *meta;
    size_t meta_count, meta_cap, visits;
} reader;

bool at_torch_is(const void *data, size_t size)
{
    return size >= 4 && (!memcmp(data, "PK\x03\x04", 4) || !memcmp(data, "\x80\x02", 2));
}

// --- storages --------------------------------------------------------------------------------------
static at_status bad(const reader *r, const char *name, const char *what)
{
    return at_fail(AT_EFORMAT, "%s: tensor %.120s: %s", r->label, name, what);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const place *)a)->key, ((const place *)b)->key);
}

static at_status find_storage(const reader *r, const char *name, const at_pv *storage, place *out)
{
    at_status st = AT_OK;

    if (r->is_zip) {
        char *path = at_strprintf("%s/data/%s", r->root, storage->text);
        const at_zip_row *row = path ? at_zip_find(&r->zip, path) : NULL;
        at_free(path);
        if (!path) return at_fail(AT_ENOMEM, "%s: no memory for a name", r->label);
        if (!row) return bad(r, name, "its storage is not in the archive");
        *out = (place){storage->text, row->offset, row->bytes};
    } else {
        place key = {.key = storage->text};
        const place *hit =
            r->place_count ? bsearch(&key, r->places, r->place_count, sizeof key, by_key) : NULL;
        if (!hit) return bad(r, name, "its storage is not in the file");
        *out = *hit;
    }
    return st;
}

// Elements between the first and the last that a tensor names, and how many it has.
static bool measure(const at_pv_tensor *t, int64_t *reach, int64_t *count)
{
    int64_t last = t->offset, n = 1;

    for (int i = 0; i < t->rank; i++) {
        int64_t step;
        if (__builtin_mul_overflow(n, t->shape[i], &n)) return false;
        if (t->shape[i] == 0) continue;
        if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return false;
    }
    *count = n;
    *reach = 0; // nothing is read of an empty tensor
    return n == 0 || !__builtin_add_overflow(last, 1, reach);
}

static bool is_plain(const at_pv_tensor *t)
{
    int64_t stride = 1;

    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != stride) return false;
        stride *= t->shape[i];
    }
    return true;
}

// The elements of a view, in order.
static void gather(const at_pv_tensor *t, size_t size, int64_t n, const uint8_t *from, uint8_t *to)
{
    int64_t at[AT_MAX_RANK] = {0}, off = t->offset;

    for (int64_t i = 0; i < n; i++, to += size) {
        memcpy(to, from + (size_t)off * size, size);
        for (int d = t->rank - 1; d >= 0; d--) {
            off += t->stride[d];
            if (++at[d] < t->shape[d]) break;
            off -= at[d] * t->stride[d];
            at[d] = 0;
        }
    }
}

static at_status place_tensor(reader *r, const char *name, const at_pv *v, at_record *rec)
{
    const at_pv *storage = at_pickle_at(&r->pickle, v->items[0]);
    const at_pv_tensor *t = v->tensor;
    size_t size = at_dtype_size(v->dtype);
    int64_t reach, n;
    place p = {0};
    at_status st = find_storage(r, name, storage, &p);

    if (st != AT_OK) return st;
    if (!measure(t, &reach, &n) || (uint64_t)reach > p.bytes / size || (uint64_t)n > p.bytes / size)
        return bad(r, name, "it leaves its storage");
    const uint8_t *bytes = r->s->map.data + p.offset;
    const uint8_t *begin = n ? bytes + (size_t)t->offset * size : bytes;
    rec->w.bytes = (size_t)n * size;
    rec->w.data = begin;
    rec->w.mapped = true;
    if (n == 0 || (is_plain(t) && (uintptr_t)begin % size == 0)) return AT_OK;
    rec->own = at_alloc(rec->w.bytes);
    if (!rec->own)
        return at_fail(AT_ENOMEM, "%s: no memory for tensor %.120s (%zu bytes)", r->label, name,
                       rec->w.bytes);
    gather(t, size, n, bytes, rec->own);
    rec->w.data = rec->own;
    rec->w.mapped = false;
    return AT_OK;
}

// --- records ---------------------------------------------------------------------------------------
static at_status grow(const reader *r, void **items, size_t count, size_t *cap, size_t size)
{
    size_t want = *cap ? *cap * 2 : 256, bytes;
    void *p = NULL;

    if (count < *cap) return AT_OK;
    if (at_mul_size(want, size, &bytes)) p = at_realloc(*items, bytes);
    if (!p) return at_fail(AT_ENOMEM, "%s: no memory for its tensors", r->label);
    *items = p;
    *cap = want;
    return AT_OK;
}

static at_status add_tensor(reader *r, const char *name, const at_pv *v)
{
    at_record rec = {0};
    at_status st = AT_OK;

    rec.w = (at_weight){.dtype = v->dtype, .rank = v->tensor->rank, .scale = 1, .store = r->s};
    memcpy(rec.w.shape, v->tensor->shape, sizeof rec.w.shape);
    rec.own_name = at_strdup(name);
    if (!rec.own_name) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a name", r->label));
    AT_TRY(place_tensor(r, name, v, &rec));
    AT_TRY(grow(r, (void **)&r->records, r->count, &r->cap, sizeof *r->records));
    r->records[r->count++] = rec;
    return AT_OK;
out:
    at_free(rec.own_name);
    at_free(rec.own);
    return st;
}

static at_status add_fact(reader *r, const char *name, const at_pv *v)
{
    char number[40];
    at_st_pair pair;
    at_status st = AT_OK;

    snprintf(number, sizeof number, v->kind == AT_PV_FLOAT ? "%.17g" : "%.0f",
             v->kind == AT_PV_FLOAT ? v->f : (double)v->i);
    const char *text = v->kind == AT_PV_STRING ? v->text
                       : v->kind == AT_PV_BOOL ? (v->i ? "True" : "False")
                                               : number;
    pair = (at_st_pair){at_strdup(name), at_strdup(text)};
    if (!pair.key || !pair.value) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a fact", r->label));
    AT_TRY(grow(r, (void **)&r->meta, r->meta_count, &r->meta_cap, sizeof *r->meta));
    r->meta[r->meta_count++] = pair;
    return AT_OK;
out:
    at_free((void *)(uintptr_t)pair.key);
    at_free((void *)(uintptr_t)pair.value);
    return st;
}

static bool key_text(const at_pv *k, char out[40], const char **text)
{
    *text = k->text;
    if (k->kind == AT_PV_STRING) return true;
    if (k->kind != AT_PV_INT) return false;
    snprintf(out, 40, "%lld", (long long)k->i);
    *text = out;
    return true;
}

static at_status flatten(reader *r, const char *name, const at_pv *v, int depth);

static at_status flatten_child(reader *r, const char *name, const char *key, const at_pv *v,
                               int depth)
{
    char *child = *name ? at_strprintf("%s.%s", name, key) : at_strdup(key);
    at_status st = child ? flatten(r, child, v, depth + 1)
                         : at_fail(AT_ENOMEM, "%s: no memory for a name", r->label);

    at_free(child);
    return st;
}

// Records and facts of everything below a value. Depth is bounded: a pickle may hold itself.
static at_status flatten(reader *r, const char *name, const at_pv *v, int depth)
{
    bool dict = v->kind == AT_PV_DICT, list = v->kind == AT_PV_LIST || v->kind == AT_PV_TUPLE;
    at_status st = AT_OK;

    // Containers may be shared: there can be many more paths than values.
    if (++r->visits > MAX_VISITS) return at_fail(AT_EFORMAT, "%s: too many values", r->label);
    if (v->kind == AT_PV_TENSOR) return add_tensor(r, name, v);
    if (v->kind == AT_PV_STRING || v->kind == AT_PV_BOOL || v->kind == AT_PV_INT ||
        v->kind == AT_PV_FLOAT)
        return add_fact(r, name, v);
    if ((!dict && !list) || depth >= MAX_DEPTH) return AT_OK;
    for (size_t i = 0; i < v->count; i += dict ? 2 : 1) {
        char number[40];
        const char *key = number;
        if (list)
            snprintf(number, sizeof number, "%zu", i);
        else if (!key_text(at_pickle_at(&r->pickle, v->items[i]), number, &key))
            continue;
        AT_TRY(flatten_child(r, name, key, at_pickle_at(&r->pickle, v->items[i + dict]), depth));
    }
out:
    return st;
}

// The dict that holds the tensors, as ComfyUI finds it.
static const at_pv *lifted(const reader *r)
{
    const at_pv *root = at_pickle_at(&r->pickle, r->pickle.root);
    const at_pv *state = at_pickle_get(&r->pickle, root, "state_dict"), *only;

    if (state) return state;
    if (root->kind != AT_PV_DICT || root->count != 2) return root;
    only = at_pickle_at(&r->pickle, root->items[1]);
    return only->kind == AT_PV_DICT ? only : root;
}

// --- the two formats -------------------------------------------------------------------------------
static at_status open_zip(reader *r)
{
    static const char leaf[] = "/data.pkl";
    const at_zip_row *row = NULL;
    at_status st = AT_OK;

    r->is_zip = true;
    AT_TRY(at_zip_read(r->label, r->s->map.data, r->s->map.size, &r->zip));
    for (size_t i = 0; i < r->zip.count && !row; i++)
        if (at_ends_with(r->zip.rows[i].name, leaf)) row = &r->zip.rows[i];
    if (!row)
        AT_TRY(at_fail(AT_EUNSUPPORTED,
                       "%s: a zip archive, but not one of torch.save: it has no "
                       "data.pkl",
                       r->label));
    r->root = at_strndup(row->name, strlen(row->name) - strlen(leaf));
    if (!r->root) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a name", r->label));
    char *order = at_strprintf("%s/byteorder", r->root);
    const at_zip_row *o = order ? at_zip_find(&r->zip, order) : NULL;
    at_free(order);
    if (o && o->bytes >= 3 && !memcmp(r->s->map.data + o->offset, "big", 3))
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%s: its numbers are stored big end first", r->label));
    if (row->bytes > MAX_PICKLE)
        AT_TRY(at_fail(AT_EFORMAT, "%s: its pickle is too long", r->label));
    AT_TRY(at_pickle_read(r->label, r->s->map.data + row->offset, (size_t)row->bytes, &r->pickle));
out:
    return st;
}

static at_status read_next(const reader *r, size_t *at, at_pickle *out)
{
    size_t left = r->s->map.size - *at;
    at_status st = at_pickle_read(r->label, r->s->map.data + *at, left, out);

    if (st == AT_OK) *at += out->used;
    return st;
}

// All storages that tensors name, sorted by key; `bytes` holds the size of an element for now.
static at_status list_storages(reader *r)
{
    size_t kept = 0;

    r->places = at_calloc(r->pickle.count + 1, sizeof *r->places);
    if (!r->places) return at_fail(AT_ENOMEM, "%s: no memory for its storages", r->label);
    for (size_t i = 0; i < r->pickle.count; i++) {
        const at_pv *v = &r->pickle.values[i];
        if (v->kind == AT_PV_STORAGE)
            r->places[r->place_count++] = (place){v->text, 0, at_dtype_size(v->dtype)};
    }
    if (r->place_count) qsort(r->places, r->place_count, sizeof *r->places, by_key);
    for (size_t i = 0; i < r->place_count; i++)
        if (!kept || strcmp(r->places[kept - 1].key, r->places[i].key) != 0)
            r->places[kept++] = r->places[i];
    r->place_count = kept;
    return AT_OK;
}

// The storage of that key before its place is known; NULL: no tensor names it, or it came already.
static place *unplaced(reader *r, const at_pv *key)
{
    place like = {.key = key->text}, *hit = NULL;

    if (key->kind == AT_PV_STRING && r->place_count)
        hit = bsearch(&like, r->places, r->place_count, sizeof like, by_key);
    return hit && hit->offset == 0 ? hit : NULL;
}

// The storages behind the pickles, in the order of their keys.
static at_status walk_storages(reader *r, size_t at)
{
    const at_pv *list = at_pickle_at(&r->keys, r->keys.root);
    at_status st = AT_OK;

    if (list->kind != AT_PV_LIST)
        return at_fail(AT_EFORMAT, "%s: it has no list of storages", r->label);
    AT_TRY(list_storages(r));
    for (size_t i = 0; i < list->count; i++) {
        place *p = unplaced(r, at_pickle_at(&r->keys, list->items[i]));
        uint64_t n = 0;
        if (!p || r->s->map.size - at < 8)
            AT_TRY(at_fail(AT_EFORMAT, "%s: storage %zu is unknown or cut off", r->label, i));
        for (int b = 7; b >= 0; b--)
            n = n << 8 | r->s->map.data[at + (size_t)b];
        at += 8;
        if (n > (r->s->map.size - at) / p->bytes)
            AT_TRY(at_fail(AT_EFORMAT, "%s: storage %.40s ends behind the file: it is truncated",
                           r->label, p->key));
        p->offset = at;
        p->bytes *= n;
        at += (size_t)p->bytes;
    }
    for (size_t i = 0; i < r->place_count; i++)
        if (!r->places[i].offset) r->places[i].bytes = 0; // not in the file: nothing fits in
out:
    return st;
}

static at_status open_older(reader *r)
{
    static const uint8_t magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                    0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
    size_t at = sizeof magic;
    at_pickle other = {0};
    at_status st = AT_OK;

    if (r->s->map.size < sizeof magic || memcmp(r->s->map.data, magic, sizeof magic) != 0)
        AT_TRY(
            at_fail(AT_EUNSUPPORTED, "%s: a Python pickle, but not one of torch.save", r->label));
    for (int i = 0; i < 2; i++) { // protocol and system
        AT_TRY(read_next(r, &at, &other));
        at_pickle_free(&other);
    }
    AT_TRY(read_next(r, &at, &r->pickle));
    AT_TRY(read_next(r, &at, &r->keys));
    AT_TRY(walk_storages(r, at));
out:
    return st;
}

// --- into the store --------------------------------------------------------------------------------
static int by_meta(const void *a, const void *b)
{
    return strcmp(((const at_st_pair *)a)->key, ((const at_st_pair *)b)->key);
}

// The facts in one buffer, as the store's metadata is freed.
static at_status keep_meta(reader *r)
{
    at_st_file *f = &r->s->st;
    at_str text = {0};

    if (!r->meta_count) return AT_OK;
    for (size_t i = 0; i < r->meta_count; i++) {
        at_str_append_n(&text, r->meta[i].key, strlen(r->meta[i].key) + 1);
        at_str_append_n(&text, r->meta[i].value, strlen(r->meta[i].value) + 1);
    }
    f->meta = at_calloc(r->meta_count, sizeof *f->meta);
    f->owner = at_str_take(&text);
    if (!f->meta || !f->owner) return at_fail(AT_ENOMEM, "%s: no memory for facts", r->label);
    const char *p = f->owner;
    for (size_t i = 0; i < r->meta_count; i++) {
        f->meta[i].key = p;
        p += strlen(p) + 1;
        f->meta[i].value = p;
        p += strlen(p) + 1;
    }
    f->meta_count = r->meta_count;
    qsort(f->meta, f->meta_count, sizeof *f->meta, by_meta);
    return AT_OK;
}

static at_status keep_records(reader *r)
{
    at_store *s = r->s;
    size_t n = r->count ? r->count : 1;
    at_status st = AT_OK;

    s->order = at_calloc(n, sizeof *s->order);
    s->sorted = at_calloc(n, sizeof *s->sorted);
    s->block = at_calloc(n, sizeof *s->block);
    if (!s->order || !s->sorted || !s->block)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu records", r->label, r->count));
    for (size_t i = 0; i < r->count; i++) {
        at_record *to = &s->block[i];
        to->w = r->records[i].w;
        to->own = r->records[i].own;
        to->own_name = r->records[i].own_name;
        to->w.name = to->own_name;
        to->w.packed = &to->packed;
        to->w.cuts = &to->cuts;
        s->order[i] = s->sorted[i] = to;
    }
    s->count = s->cap = s->block_count = r->count;
    r->count = 0; // names and bytes belong to the store now
    if (s->count) qsort(s->sorted, s->count, sizeof *s->sorted, at_record_by_name);
    for (size_t i = 1; i < s->count; i++)
        if (!strcmp(s->sorted[i - 1]->w.name, s->sorted[i]->w.name))
            AT_TRY(at_fail(AT_EFORMAT, "%s: two tensors are named %.120s", r->label,
                           s->sorted[i]->w.name));
out:
    return st;
}

at_status at_torch_fill(at_store *s)
{
    reader r = {.s = s, .label = s->path};
    at_status st = AT_OK;

    AT_TRY(s->map.data[0] == 'P' ? open_zip(&r) : open_older(&r));
    AT_TRY(flatten(&r, "", lifted(&r), 0));
    AT_TRY(keep_meta(&r));
    AT_TRY(keep_records(&r));
out:
    for (size_t i = 0; i < r.count; i++) {
        at_free(r.records[i].own_name);
        at_free(r.records[i].own);
    }
    for (size_t i = 0; i < r.meta_count; i++) {
        at_free((void *)(uintptr_t)r.meta[i].key);
        at_free((void *)(uintptr_t)r.meta[i].value);
    }
    at_free(r.records);
    at_free(r.meta);
    at_free(r.places);
    at_free(r.root);
    at_zip_free(&r.zip);
    at_pickle_free(&r.pickle);
    at_pickle_free(&r.keys);
    return st;
}
