// SPDX-License-Identifier: Apache-2.0
// zip.c - see zip.h.
// Easy to get wrong: the end record may be followed by a comment, so it is searched from behind; sizes
// of 2^32 and more stand in an extra field; a local header has its own lengths of name and extra.
#include "weight/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    END_SIZE = 22,
    LOCATOR_SIZE = 20,
    END64_SIZE = 56,
    ENTRY_SIZE = 46,
    LOCAL_SIZE = 30,
    MAX_COMMENT = 65535,
    MAX_ENTRIES = 1 << 20
};

typedef struct archive {
    const char *label;
    const uint8_t *data;
    uint64_t size;
} archive;

static uint64_t get(const uint8_t *p, int bytes)
{
    uint64_t v = 0;

    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static at_status bad(const archive *a, const char *what)
{
    return at_fail(AT_EFORMAT, "%s: as a zip archive it is broken: %s; download it again", a->label,
                   what);
}

static bool inside(const archive *a, uint64_t offset, uint64_t bytes)
{
    return offset <= a->size && bytes <= a->size - offset;
}

typedef struct directory {
    uint64_t offset, bytes, entries;
} directory;

static at_status find_directory(const archive *a, directory *d)
{
    uint64_t at, low;

    if (a->size < END_SIZE) return bad(a, "it is too short");
    at = a->size - END_SIZE;
    low = at > MAX_COMMENT ? at - MAX_COMMENT : 0;
    while (memcmp(a->data + at, "PK\x05\x06", 4) != 0) {
        if (at == low) return bad(a, "its directory is missing");
        at--;
    }
    const uint8_t *p = a->data + at;
    *d = (directory){.entries = get(p + 10, 2), .bytes = get(p + 12, 4), .offset = get(p + 16, 4)};
    if (d->entries != 0xffff && d->bytes != 0xffffffff && d->offset != 0xffffffff) return AT_OK;
    if (at < LOCATOR_SIZE || memcmp(p - LOCATOR_SIZE, "PK\x06\x07", 4) != 0) return AT_OK;
    uint64_t end64 = get(p - LOCATOR_SIZE + 8, 8);
    if (!inside(a, end64, END64_SIZE) || memcmp(a->data + end64, "PK\x06\x06", 4) != 0)
        return bad(a, "its zip64 directory is missing");
    p = a->data + end64;
    *d = (directory){.entries = get(p + 32, 8), .bytes = get(p + 40, 8), .offset = get(p + 48, 8)};
    return AT_OK;
}

// Sizes that do not fit 32 bits, from the extra field; `wide` are those that said so, in order.
static at_status wide_sizes(const archive *a, const uint8_t *extra, size_t n, uint64_t **wide,
                            int count)
{
    while (n >= 4) {
        size_t id = (size_t)get(extra, 2), len = (size_t)get(extra + 2, 2);
        if (len > n - 4) break;
        if (id == 1) {
            if (len < 8 * (size_t)count) break;
            for (int i = 0; i < count; i++)
                *wide[i] = get(extra + 4 + 8 * i, 8);
            return AT_OK;
        }
        extra += 4 + len;
        n -= 4 + len;
    }
    return bad(a, "an entry lacks its zip64 sizes");
}

// One entry of the directory; *used is its length there.
static at_status read_entry(const archive *a, const uint8_t *p, uint64_t left, at_zip_row *row,
                            uint64_t *used)
{
    uint64_t packed, bytes, local, *wide[3];
    int n = 0;

    if (left < ENTRY_SIZE || memcmp(p, "PK\x01\x02", 4) != 0) return bad(a, "an entry is missing");
    size_t name = (size_t)get(p + 28, 2), extra = (size_t)get(p + 30, 2);
    *used = ENTRY_SIZE + name + extra + get(p + 32, 2);
    if (*used > left) return bad(a, "an entry is cut short");
    packed = get(p + 20, 4);
    bytes = get(p + 24, 4);
    local = get(p + 42, 4);
    if (bytes == 0xffffffff) wide[n++] = &bytes;
    if (packed == 0xffffffff) wide[n++] = &packed;
    if (local == 0xffffffff) wide[n++] = &local;
    if (n) {
        at_status st = wide_sizes(a, p + ENTRY_SIZE + name, extra, wide, n);
        if (st != AT_OK) return st;
    }
    if (get(p + 10, 2) != 0 || get(p + 8, 2) & 1 || packed != bytes)
        return at_fail(AT_EUNSUPPORTED,
                       "%s: an entry of this zip archive is compressed; torch.save "
                       "stores its tensors as they are",
                       a->label);
    if (!inside(a, local, LOCAL_SIZE) || memcmp(a->data + local, "PK\x03\x04", 4) != 0)
        return bad(a, "an entry's data are missing");
    const uint8_t *q = a->data + local;
    row->offset = local + LOCAL_SIZE + get(q + 26, 2) + get(q + 28, 2);
    row->bytes = bytes;
    if (!inside(a, row->offset, bytes)) return bad(a, "an entry ends behind the file");
    row->name = at_strndup((const char *)p + ENTRY_SIZE, name);
    return row->name ? AT_OK : at_fail(AT_ENOMEM, "%s: no memory for its directory", a->label);
}

static int by_name(const void *x, const void *y)
{
    return strcmp(((const at_zip_row *)x)->name, ((const at_zip_row *)y)->name);
}

static int by_offset(const void *x, const void *y)
{
    const at_zip_row *a = x, *b = y;

    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static at_status check_rows(const archive *a, at_zip *z)
{
    if (!z->count) return AT_OK;
    qsort(z->rows, z->count, sizeof *z->rows, by_offset);
    for (size_t i = 1; i < z->count; i++)
        if (z->rows[i].offset < z->rows[i - 1].offset + z->rows[i - 1].bytes)
            return bad(a, "two entries overlap");
    qsort(z->rows, z->count, sizeof *z->rows, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (!strcmp(z->rows[i].name, z->rows[i - 1].name)) return bad(a, "a name stands twice");
    return AT_OK;
}

at_status at_zip_read(const char *label, const void *data, size_t size, at_zip *out)
{
    archive a = {label, data, size};
    directory d = {0};
    at_zip z = {0};
    at_status st = AT_OK;

    *out = z;
    AT_TRY(find_directory(&a, &d));
    if (!inside(&a, d.offset, d.bytes)) AT_TRY(bad(&a, "its directory lies outside"));
    if (d.entries > MAX_ENTRIES || d.entries > d.bytes / ENTRY_SIZE)
        AT_TRY(bad(&a, "its directory has too many entries"));
    z.rows = at_calloc((size_t)d.entries + 1, sizeof *z.rows);
    if (!z.rows) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for its directory", label));
    for (uint64_t at = 0; z.count < d.entries;) {
        uint64_t used = 0;
        AT_TRY(read_entry(&a, a.data + d.offset + at, d.bytes - at, &z.rows[z.count], &used));
        z.count++;
        at += used;
    }
    AT_TRY(check_rows(&a, &z));
    *out = z;
    return AT_OK;
out:
    at_zip_free(&z);
    return st;
}

void at_zip_free(at_zip *z)
{
    for (size_t i = 0; i < z->count; i++)
        at_free(z->rows[i].name);
    at_free(z->rows);
    *z = (at_zip){0};
}

const at_zip_row *at_zip_find(const at_zip *z, const char *name)
{
    at_zip_row key = {.name = (char *)(uintptr_t)name};

    return z->count ? bsearch(&key, z->rows, z->count, sizeof key, by_name) : NULL;
}
