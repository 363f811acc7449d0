// SPDX-License-Identifier: Apache-2.0
// model_file.c - see model_file.h.
#include "nodes/model_file.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "weight/edits.h"
#include "weight/extent.h"
#include "weight/matrix.h"

enum { PARTS = 3 };
struct at_model_row {
    char *name;
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK];
    const at_weight *w[PARTS]; // none: `own`
    bool turned;
    void *own;
};

void at_model_file_free(at_model_file *f)
{
    for (size_t i = 0; i < f->count; i++) {
        at_free(f->rows[i].name);
        at_free(f->rows[i].own);
    }
    at_free(f->rows);
    *f = (at_model_file){0};
}

static at_model_row *push(at_model_file *f, const char *name)
{
    if (f->count == f->cap && !f->failed) {
        size_t want = f->cap ? f->cap * 2 : 256, bytes;
        at_model_row *p = NULL;
        if (at_mul_size(want, sizeof *p, &bytes)) p = at_realloc(f->rows, bytes);
        if (p) {
            f->rows = p;
            f->cap = want;
        }
        f->failed = !p;
    }
    char *copy = f->failed ? NULL : at_strdup(name);
    f->failed |= !copy;
    if (!copy) return NULL;
    at_model_row *r = &f->rows[f->count++];
    *r = (at_model_row){.name = copy};
    return r;
}

// What a record is written as.
static at_dtype saved_dtype(const at_weight *w)
{
    return w->scale == 1.0f ? w->dtype : AT_BF16;
}

void at_model_file_add(at_model_file *f, const char *name, const at_weight *w, bool turned)
{
    at_model_row *r = push(f, name);

    if (!r) return;
    r->dtype = saved_dtype(w);
    r->rank = w->rank;
    memcpy(r->shape, w->shape, sizeof r->shape);
    r->w[0] = w;
    r->turned = turned && w->rank == 2;
    if (!r->turned) return;
    r->shape[0] = w->shape[1];
    r->shape[1] = w->shape[0];
}

void at_model_file_join(at_model_file *f, const char *name, const at_weight *const w[3])
{
    at_model_row *r = push(f, name);

    if (!r) return;
    r->dtype = saved_dtype(w[0]);
    r->rank = w[0]->rank;
    memcpy(r->shape, w[0]->shape, sizeof r->shape);
    r->shape[0] = 0;
    for (int i = 0; i < PARTS; i++) {
        r->w[i] = w[i];
        r->shape[0] += w[i]->shape[0];
    }
}

void at_model_file_put(at_model_file *f, const char *name, at_dtype dtype, int rank,
                       const int64_t *shape, const double *values, size_t n)
{
    at_model_row *r = push(f, name);
    size_t size = at_dtype_size(dtype);

    if (!r) return;
    r->dtype = dtype;
    r->rank = rank;
    for (int i = 0; i < rank; i++)
        r->shape[i] = shape[i];
    r->own = at_calloc(n ? n : 1, size);
    f->failed |= !r->own;
    for (size_t i = 0; r->own && i < n; i++) {
        if (dtype == AT_I64)
            ((int64_t *)r->own)[i] = (int64_t)values[i];
        else
            ((float *)r->own)[i] = (float)values[i];
    }
}

static bool is_marker(const char *key)
{
    static const char *const others[] = {".scale_weight", ".scale_input", ".weight_scale",
                                         ".input_scale",  ".comfy_quant", "scaled_fp8"};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (at_ends_with(key, others[i])) return true;
    return false;
}

void at_model_file_add_all(at_model_file *f, at_store *s, const char *prefix, const char *to,
                           bool (*without)(const char *key))
{
    size_t skip = strlen(prefix);

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        const char *key = w->name + skip;
        if (strncmp(w->name, prefix, skip) != 0 || is_marker(key)) continue;
        if (without && without(key)) continue;
        char *name = at_strprintf("%s%s", to, key);
        if (name) at_model_file_add(f, name, w, false);
        f->failed |= !name;
        at_free(name);
    }
}

// --- writing -----------------------------------------------------------------------------------------
// One record's elements at `bytes`. Edited ones are computed here and not kept.
static at_status put_record(const at_model_row *r, const at_weight *w, void *bytes)
{
    at_matrix m = {0}, turned = {0};
    at_status st = AT_OK;

    if (!w->lazy && !r->turned && w->dtype == r->dtype && w->scale == 1.0f) {
        if (!w->data && w->bytes)
            return at_fail(AT_EUNSUPPORTED, "%s is a shape without bytes", w->name);
        if (w->bytes) memcpy(bytes, w->data, w->bytes);
        return AT_OK;
    }
    AT_TRY(at_edits_read(w, &m));
    if (r->turned) {
        AT_TRY(at_matrix_transpose(&m, &turned));
        at_matrix_free(&m);
        m = turned;
        turned = (at_matrix){0};
    }
    AT_TRY(at_matrix_store(m.v, m.rows * m.cols, r->dtype, bytes));
out:
    at_matrix_free(&m);
    at_matrix_free(&turned);
    return st;
}

static at_status make(void *ctx, size_t row, void *bytes)
{
    const at_model_file *f = ctx;
    const at_model_row *r = &f->rows[row];
    uint8_t *p = bytes;
    at_status st = AT_OK;

    for (int i = 0; i < PARTS && r->w[i]; i++) {
        AT_TRY(put_record(r, r->w[i], p));
        p += (size_t)at_weight_elements(r->w[i]) * at_dtype_size(r->dtype);
    }
out:
    return at_fail_context(st, "%s: ", r->name);
}

// Parts of a joined row must be of one width, or they would not fill it.
static bool parts_fit(const at_model_row *r)
{
    for (int i = 1; i < PARTS && r->w[i]; i++) {
        if (r->w[i]->rank != r->rank) return false;
        for (int d = 1; d < r->rank; d++)
            if (r->w[i]->shape[d] != r->shape[d]) return false;
    }
    return true;
}

at_status at_model_file_write(at_model_file *f, const char *path, const at_st_pair *meta,
                              size_t meta_count)
{
    at_st_out *rows = at_calloc(f->count ? f->count : 1, sizeof *rows);
    at_status st = AT_OK;

    if (f->failed || !rows)
        AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for %zu tensors", path, f->count));
    for (size_t i = 0; i < f->count; i++) {
        const at_model_row *r = &f->rows[i];
        if (!parts_fit(r))
            AT_TRY(at_fail(AT_EFORMAT, "%s: %s: its parts differ in shape", path, r->name));
        rows[i] = (at_st_out){.name = r->name, .dtype = r->dtype, .rank = r->rank, .data = r->own};
        memcpy(rows[i].shape, r->shape, sizeof rows[i].shape);
    }
    AT_TRY(at_st_write_made(path, rows, f->count, meta, meta_count, make, f));
out:
    at_free(rows);
    return st;
}
