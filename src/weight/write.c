// SPDX-License-Identifier: Apache-2.0
// write.c - the safetensors writer.
// Idea: header first, then the tensors with the widest elements first, so that every tensor is
// aligned to its element size; the file appears under its name only when it is complete. Format: as
// the reader, see safetensors.h; the header is padded with spaces to a multiple of 8.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "tensor/dtype.h"
#include "weight/extent.h"
#include "weight/safetensors.h"

typedef struct placed {
    uint64_t begin, bytes;
} placed;

static void append_json_string(at_str *s, const char *text)
{
    at_str_append(s, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\') {
            at_str_printf(s, "\\%c", c);
        } else if (c < 0x20) {
            at_str_printf(s, "\\u%04x", c);
        } else {
            at_str_append_n(s, p, 1);
        }
    }
    at_str_append(s, "\"");
}

static at_status row_bytes(const char *path, const at_st_out *r, bool may_lack, uint64_t *out)
{
    uint64_t bytes;

    if (!r->name || !*r->name || !at_utf8_valid(r->name, strlen(r->name)) ||
        !strcmp(r->name, "__metadata__"))
        return at_fail(AT_EINVAL,
                       "%s: a tensor's name must be UTF-8, not empty and not "
                       "__metadata__",
                       path);
    if (r->rank < 0 || r->rank > AT_MAX_RANK)
        return at_fail(AT_EINVAL, "%s: tensor %s has rank %d, the limit is %d", path, r->name,
                       r->rank, AT_MAX_RANK);
    if (!at_extent_bytes(r->dtype, r->rank, r->shape, &bytes))
        return at_fail(AT_EINVAL, "%s: the shape of %s is negative or above 2^63 bytes", path,
                       r->name);
    if (bytes && !r->data && !may_lack)
        return at_fail(AT_EINVAL, "%s: tensor %s has no data", path, r->name);
    *out = bytes;
    return AT_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static at_status check_names(const char *path, const at_st_out *rows, size_t count)
{
    const char **names = at_calloc(count ? count : 1, sizeof *names);
    at_status st = AT_OK;

    if (!names) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu names", path, count));
    for (size_t i = 0; i < count; i++)
        names[i] = rows[i].name;
    qsort(names, count, sizeof *names, by_text);
    for (size_t i = 1; i < count; i++)
        if (!strcmp(names[i - 1], names[i]))
            AT_TRY(at_fail(AT_EINVAL, "%s: two tensors are named %s", path, names[i]));
out:
    at_free(names);
    return st;
}

// Offsets by descending element size, in the order given among equals.
static at_status place(const char *path, const at_st_out *rows, size_t count, bool may_lack,
                       placed *at)
{
    uint64_t next = 0;
    at_status st;

    for (size_t size = 8; size; size /= 2) {
        for (size_t i = 0; i < count; i++) {
            if (at_dtype_size(rows[i].dtype) != size) continue;
            st = row_bytes(path, &rows[i], may_lack, &at[i].bytes);
            if (st != AT_OK) return st;
            at[i].begin = next;
            if (__builtin_add_overflow(next, at[i].bytes, &next))
                return at_fail(AT_EINVAL, "%s: more than 2^64 bytes of tensors", path);
        }
    }
    return AT_OK;
}

static void append_metadata(at_str *s, const at_st_pair *meta, size_t meta_count)
{
    at_str_append(s, "\"__metadata__\":{");
    for (size_t i = 0; i < meta_count; i++) {
        if (i) at_str_append(s, ",");
        append_json_string(s, meta[i].key);
        at_str_append(s, ":");
        append_json_string(s, meta[i].value);
    }
    at_str_append(s, "}");
}

static void append_header(at_str *s, const at_st_out *rows, size_t count, const placed *at,
                          const at_st_pair *meta, size_t meta_count)
{
    at_str_append(s, "{");
    if (meta_count) append_metadata(s, meta, meta_count);
    for (size_t i = 0; i < count; i++) {
        if (i || meta_count) at_str_append(s, ",");
        append_json_string(s, rows[i].name);
        at_str_printf(s, ":{\"dtype\":\"%s\",\"shape\":[", at_dtype_st_name(rows[i].dtype));
        for (int d = 0; d < rows[i].rank; d++)
            at_str_printf(s, d ? ",%lld" : "%lld", (long long)rows[i].shape[d]);
        at_str_printf(s, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at[i].begin,
                      (unsigned long long)(at[i].begin + at[i].bytes));
    }
    at_str_append(s, "}");
    while (s->len % 8 && !s->failed)
        at_str_append(s, " ");
}

typedef struct maker {
    at_st_make_fn *make;
    void *ctx;
} maker;

static at_status write_row(at_atomic_file *f, const at_st_out *r, size_t i, uint64_t bytes,
                           const maker *m)
{
    void *made = NULL;
    at_status st = AT_OK;

    if (!bytes) return AT_OK;
    if (!r->data) {
        made = at_alloc(bytes);
        if (!made)
            AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %llu bytes", r->name,
                           (unsigned long long)bytes));
        AT_TRY(m->make(m->ctx, i, made));
    }
    AT_TRY(at_atomic_write(f, made ? made : r->data, bytes));
out:
    at_free(made);
    return st;
}

static at_status write_all(at_atomic_file *f, const at_str *header, const at_st_out *rows,
                           size_t count, const placed *at, const maker *m)
{
    uint8_t length[8];
    at_status st = AT_OK;

    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header->len >> (8 * i));
    AT_TRY(at_atomic_write(f, length, sizeof length));
    AT_TRY(at_atomic_write(f, header->data, header->len));
    for (size_t size = 8; size; size /= 2)
        for (size_t i = 0; i < count; i++)
            if (at_dtype_size(rows[i].dtype) == size)
                AT_TRY(write_row(f, &rows[i], i, at[i].bytes, m));
out:
    return st;
}

at_status at_st_write(const char *path, const at_st_out *rows, size_t count, const at_st_pair *meta,
                      size_t meta_count)
{
    return at_st_write_made(path, rows, count, meta, meta_count, NULL, NULL);
}

at_status at_st_write_made(const char *path, const at_st_out *rows, size_t count,
                           const at_st_pair *meta, size_t meta_count, at_st_make_fn *make,
                           void *ctx)
{
    const maker m = {make, ctx};
    at_atomic_file *f = NULL;
    at_str header = {0};
    placed *at = at_calloc(count ? count : 1, sizeof *at);
    at_status st = AT_OK;

    if (!at) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu tensors", path, count));
    AT_TRY(place(path, rows, count, make != NULL, at));
    AT_TRY(check_names(path, rows, count));
    append_header(&header, rows, count, at, meta, meta_count);
    if (header.failed) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for the header", path));
    AT_TRY(at_atomic_open(path, &f));
    AT_TRY(write_all(f, &header, rows, count, at, &m));
    st = at_atomic_commit(&f);
out:
    at_atomic_abort(&f);
    at_str_free(&header);
    at_free(at);
    return st;
}
