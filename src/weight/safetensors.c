// SPDX-License-Identifier: Apache-2.0
// safetensors.c - the container's header into rows.
// Idea: scan the header once, then prove three things by sorting: names are unique, tensors neither
// overlap nor leave holes, and together they are exactly the bytes behind the header. These are the
// rules of the reference implementation (huggingface/safetensors 0.5, format description and
// Metadata::validate), so what opens there opens here.
#include "weight/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "tensor/dtype.h"
#include "weight/extent.h"
#include "weight/header_scan.h"

#define MAX_HEADER 100000000u // the reference's limit

typedef struct parser {
    at_scan scan;
    uint64_t data_bytes, data_start;
    at_st_file *file;
    size_t row_cap, meta_cap;
} parser;

static at_status grow(const char *label, void **items, size_t count, size_t *cap, size_t size)
{
    size_t want = *cap ? *cap * 2 : 64, bytes;
    void *p;

    if (count < *cap) return AT_OK;
    if (!at_mul_size(want, size, &bytes) || !(p = at_realloc(*items, bytes)))
        return at_fail(AT_ENOMEM, "%s: no memory for %zu header entries", label, want);
    *items = p;
    *cap = want;
    return AT_OK;
}

static at_status parse_dtype(const parser *p, const char *name, const char *text, at_dtype *out)
{
    static const char *const known[] = {"U16",         "U32", "U64",     "F8_E8M0", "F8_E4M3FNUZ",
                                        "F8_E5M2FNUZ", "F4",  "F6_E2M3", "F6_E3M2", "C64"};

    for (int d = 0; d < AT_DTYPE_COUNT; d++) {
        if (!strcmp(text, at_dtype_st_name((at_dtype)d))) {
            *out = (at_dtype)d;
            return AT_OK;
        }
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(text, known[i]))
            return at_fail(AT_EUNSUPPORTED,
                           "%s: tensor %s has element type %s, which atelier does not read yet; "
                           "convert the file to bf16, f16 or fp8",
                           p->scan.label, name, text);
    return at_fail(AT_EFORMAT, "%s: tensor %s has unknown element type \"%.40s\"", p->scan.label,
                   name, text);
}

static at_status parse_shape(parser *p, at_st_row *row)
{
    at_status st = AT_OK;
    uint64_t v;

    AT_TRY(at_scan_expect(&p->scan, '['));
    if (at_scan_take(&p->scan, ']')) goto out;
    do {
        AT_TRY(at_scan_u64(&p->scan, &v));
        if (row->rank == AT_MAX_RANK)
            AT_TRY(at_fail(AT_EFORMAT, "%s: tensor %s has more than %d dimensions", p->scan.label,
                           row->name, AT_MAX_RANK));
        if (v > INT64_MAX)
            AT_TRY(at_fail(AT_EFORMAT, "%s: tensor %s: dimension %d is %llu, above 2^63 - 1",
                           p->scan.label, row->name, row->rank, (unsigned long long)v));
        row->shape[row->rank++] = (int64_t)v;
    } while (at_scan_take(&p->scan, ','));
    AT_TRY(at_scan_expect(&p->scan, ']'));
out:
    return st;
}

// Check one row's own numbers: shape * dtype == end - begin, inside the file.
static at_status check_row(const parser *p, at_st_row *row, uint64_t begin, uint64_t end)
{
    uint64_t bytes;

    if (!at_extent_bytes(row->dtype, row->rank, row->shape, &bytes))
        return at_fail(AT_EFORMAT, "%s: tensor %s: its shape times %zu bytes is above 2^63",
                       p->scan.label, row->name, at_dtype_size(row->dtype));
    if (end < begin)
        return at_fail(AT_EFORMAT, "%s: tensor %s: data offsets run backwards (%llu, %llu)",
                       p->scan.label, row->name, (unsigned long long)begin,
                       (unsigned long long)end);
    if (end > p->data_bytes)
        return at_fail(AT_EFORMAT,
                       "%s: tensor %s ends at data byte %llu, but the file has only %llu: it is "
                       "truncated; download it again",
                       p->scan.label, row->name, (unsigned long long)end,
                       (unsigned long long)p->data_bytes);
    if (end - begin != bytes)
        return at_fail(
            AT_EFORMAT, "%s: tensor %s: data offsets hold %llu bytes, its shape and type need %llu",
            p->scan.label, row->name, (unsigned long long)(end - begin), (unsigned long long)bytes);
    row->offset = p->data_start + begin;
    row->bytes = bytes;
    return AT_OK;
}

// {"dtype": .., "shape": [..], "data_offsets": [begin, end]}; unknown keys are skipped.
static at_status parse_tensor(parser *p, const char *name)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    at_scan *s = &p->scan;
    at_st_row row = {.name = name};
    uint64_t begin = 0, end = 0;
    unsigned seen = 0;
    at_status st = AT_OK;

    AT_TRY(at_scan_expect(s, '{'));
    if (at_scan_peek(s) != '}') {
        do {
            size_t mark = s->used;
            const char *key, *text;
            unsigned bit;
            AT_TRY(at_scan_string(s, &key));
            AT_TRY(at_scan_expect(s, ':'));
            bit = !strcmp(key, "dtype")          ? DTYPE
                  : !strcmp(key, "shape")        ? SHAPE
                  : !strcmp(key, "data_offsets") ? OFFSETS
                                                 : 0;
            if (bit & seen)
                AT_TRY(
                    at_fail(AT_EFORMAT, "%s: tensor %s: \"%s\" stands twice", s->label, name, key));
            seen |= bit;
            if (bit == DTYPE) {
                AT_TRY(at_scan_string(s, &text));
                AT_TRY(parse_dtype(p, name, text, &row.dtype));
            } else if (bit == SHAPE) {
                AT_TRY(parse_shape(p, &row));
            } else if (bit == OFFSETS) {
                AT_TRY(at_scan_expect(s, '['));
                AT_TRY(at_scan_u64(s, &begin));
                AT_TRY(at_scan_expect(s, ','));
                AT_TRY(at_scan_u64(s, &end));
                AT_TRY(at_scan_expect(s, ']'));
            } else {
                AT_TRY(at_scan_skip(s, 2));
            }
            s->used = mark; // keys and the dtype's name are not kept
        } while (at_scan_take(s, ','));
    }
    AT_TRY(at_scan_expect(s, '}'));
    if (seen != (DTYPE | SHAPE | OFFSETS))
        AT_TRY(at_fail(AT_EFORMAT, "%s: tensor %s has no \"%s\"", s->label, name,
                       !(seen & DTYPE)   ? "dtype"
                       : !(seen & SHAPE) ? "shape"
                                         : "data_offsets"));
    AT_TRY(check_row(p, &row, begin, end));
    AT_TRY(grow(s->label, (void **)&p->file->rows, p->file->count, &p->row_cap, sizeof row));
    p->file->rows[p->file->count++] = row;
out:
    return st;
}

static at_status parse_metadata(parser *p)
{
    at_scan *s = &p->scan;
    at_st_file *f = p->file;
    at_status st = AT_OK;

    if (at_scan_peek(s) == 'n') return at_scan_skip(s, 1); // null
    AT_TRY(at_scan_expect(s, '{'));
    if (at_scan_take(s, '}')) goto out;
    do {
        at_st_pair pair;
        AT_TRY(at_scan_string(s, &pair.key));
        AT_TRY(at_scan_expect(s, ':'));
        if (at_scan_peek(s) != '"')
            AT_TRY(at_fail(AT_EFORMAT, "%s: __metadata__ \"%.60s\" is not a string", s->label,
                           pair.key));
        AT_TRY(at_scan_string(s, &pair.value));
        AT_TRY(grow(s->label, (void **)&f->meta, f->meta_count, &p->meta_cap, sizeof pair));
        f->meta[f->meta_count++] = pair;
    } while (at_scan_take(s, ','));
    AT_TRY(at_scan_expect(s, '}'));
out:
    return st;
}

static at_status parse_header(parser *p)
{
    at_scan *s = &p->scan;
    bool have_meta = false;
    at_status st = AT_OK;

    if (at_scan_peek(s) != '{' || s->p != s->begin)
        AT_TRY(at_scan_fail(s, "it must begin with '{'"));
    s->p++;
    if (at_scan_peek(s) != '}') {
        do {
            const char *name;
            AT_TRY(at_scan_string(s, &name));
            AT_TRY(at_scan_expect(s, ':'));
            if (strcmp(name, "__metadata__") != 0) {
                AT_TRY(parse_tensor(p, name));
            } else if (have_meta) {
                AT_TRY(at_scan_fail(s, "__metadata__ stands twice"));
            } else {
                have_meta = true;
                AT_TRY(parse_metadata(p));
            }
        } while (at_scan_take(s, ','));
    }
    AT_TRY(at_scan_expect(s, '}'));
    if (at_scan_peek(s) != -1) AT_TRY(at_scan_fail(s, "text behind the closing '}'"));
out:
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const at_st_row *const *)a)->name, (*(const at_st_row *const *)b)->name);
}

static int by_offset(const void *a, const void *b)
{
    const at_st_row *x = *(const at_st_row *const *)a, *y = *(const at_st_row *const *)b;

    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const at_st_pair *)a)->key, ((const at_st_pair *)b)->key);
}

static at_status check_layout(const parser *p, const at_st_row **order)
{
    const at_st_file *f = p->file;
    uint64_t at = p->data_start, end = p->data_start + p->data_bytes;

    qsort(order, f->count, sizeof *order, by_name);
    for (size_t i = 1; i < f->count; i++)
        if (!strcmp(order[i - 1]->name, order[i]->name))
            return at_fail(AT_EFORMAT, "%s: tensor %s stands twice in the header", p->scan.label,
                           order[i]->name);
    qsort(order, f->count, sizeof *order, by_offset);
    for (size_t i = 0; i < f->count; i++) {
        if (order[i]->offset != at)
            return at_fail(AT_EFORMAT, "%s: tensor %s begins at file byte %llu, expected %llu: %s",
                           p->scan.label, order[i]->name, (unsigned long long)order[i]->offset,
                           (unsigned long long)at,
                           order[i]->offset < at ? "it overlaps another tensor"
                                                 : "bytes before it belong to no tensor");
        at += order[i]->bytes;
    }
    if (at != end)
        return at_fail(AT_EFORMAT, "%s: %llu bytes behind the last tensor belong to no tensor",
                       p->scan.label, (unsigned long long)(end - at));
    return AT_OK;
}

static at_status check_all(const parser *p)
{
    at_st_file *f = p->file;
    const at_st_row **order = at_calloc(f->count ? f->count : 1, sizeof *order);
    at_status st = AT_OK;

    if (!order)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu tensors", p->scan.label, f->count));
    for (size_t i = 0; i < f->count; i++)
        order[i] = &f->rows[i];
    AT_TRY(check_layout(p, order));
    // Metadata has no order that means anything; sorted it is searched fast.
    if (f->meta_count) qsort(f->meta, f->meta_count, sizeof *f->meta, by_key);
    for (size_t i = 1; i < f->meta_count; i++)
        if (!strcmp(f->meta[i - 1].key, f->meta[i].key))
            AT_TRY(at_fail(AT_EFORMAT, "%s: __metadata__ \"%.60s\" stands twice", p->scan.label,
                           f->meta[i].key));
out:
    at_free(order);
    return st;
}

static uint64_t read_u64(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

at_status at_st_parse(const char *label, const void *data, size_t size, at_st_file *out)
{
    at_st_file file = {0};
    parser p = {.file = &file};
    const uint8_t *bytes = data;
    at_status st = AT_OK;
    uint64_t n;

    *out = file;
    if (size < 8)
        return at_fail(AT_EFORMAT, "%s: %zu bytes are too few for a safetensors file", label, size);
    n = read_u64(bytes);
    if (n > MAX_HEADER)
        return at_fail(AT_EFORMAT,
                       "%s: header says %llu bytes, the limit is %u: not a safetensors file", label,
                       (unsigned long long)n, MAX_HEADER);
    if (n > size - 8)
        return at_fail(AT_EFORMAT,
                       "%s: header says %llu bytes, the file has %zu: it is truncated; download it "
                       "again",
                       label, (unsigned long long)n, size);
    if (!at_utf8_valid((const char *)bytes + 8, n))
        return at_fail(AT_EFORMAT, "%s: header is not UTF-8", label);
    file.owner = at_alloc(n + 1);
    if (!file.owner)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a header of %llu bytes", label,
                       (unsigned long long)n));
    p.scan = (at_scan){.label = label,
                       .begin = bytes + 8,
                       .p = bytes + 8,
                       .end = bytes + 8 + n,
                       .strings = file.owner};
    p.data_start = 8 + n;
    p.data_bytes = size - p.data_start;
    AT_TRY(parse_header(&p));
    AT_TRY(check_all(&p));
    *out = file;
    return AT_OK;
out:
    at_st_free(&file);
    return st;
}

void at_st_free(at_st_file *f)
{
    if (!f) return;
    at_free(f->rows);
    at_free(f->meta);
    at_free(f->owner);
    *f = (at_st_file){0};
}
