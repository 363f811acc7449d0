// SPDX-License-Identifier: Apache-2.0
// matrix.c - see matrix.h.
// Easy to get wrong: the linear slot wants its weight as [n, k], so b goes in transposed; b is the
// narrow side (a LoRA's rank), which makes that cheap.
#include "weight/matrix.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/thread.h"
#include "tensor/device.h"

enum { GRAIN = 1 << 15 }; // elements that are worth a task

at_status at_matrix_new(int64_t rows, int64_t cols, at_matrix *out)
{
    size_t n, bytes;

    *out = (at_matrix){0};
    if (rows < 0 || cols < 0 || !at_mul_size((size_t)rows, (size_t)cols, &n) ||
        !at_mul_size(n, sizeof(float), &bytes) || bytes > (size_t)INT64_MAX)
        return at_fail(AT_EINVAL, "a matrix of %lld x %lld is too large", (long long)rows,
                       (long long)cols);
    out->v = at_alloc(bytes ? bytes : 1);
    if (!out->v)
        return at_fail(AT_ENOMEM, "no memory for a matrix of %lld x %lld (%zu bytes)",
                       (long long)rows, (long long)cols, bytes);
    out->rows = rows;
    out->cols = cols;
    return AT_OK;
}

void at_matrix_free(at_matrix *m)
{
    if (!m) return;
    at_free(m->v);
    *m = (at_matrix){0};
}

// --- reading and storing -------------------------------------------------------------------------
static at_view flat_view(const void *data, at_dtype dtype, int64_t n)
{
    return (at_view){
        .data = (void *)(uintptr_t)data, .dtype = dtype, .rank = 1, .shape = {n}, .stride = {1}};
}

// Convert n elements through the backend. False: there is none.
static bool convert(const void *src, at_dtype from, void *dst, at_dtype to, int64_t n,
                    at_status *st)
{
    const at_device *cpu = at_device_cpu();
    at_view a = flat_view(src, from, n), b = flat_view(dst, to, n);

    if (!cpu->backend || !cpu->backend->copy) return false;
    *st = cpu->backend->copy(cpu->stream, &a, &b);
    return true;
}

at_status at_matrix_read(const at_weight *w, at_matrix *out)
{
    int64_t n = at_weight_elements(w), rows = w->rank > 0 ? w->shape[0] : 1;
    at_status st = AT_OK;

    *out = (at_matrix){0};
    AT_TRY(at_weight_ready(w));
    if (!w->data && n > 0) AT_TRY(at_fail(AT_EUNSUPPORTED, "%s is a shape without bytes", w->name));
    AT_TRY(at_matrix_new(rows, rows > 0 ? n / rows : 0, out));
    if (convert(w->data, w->dtype, out->v, AT_F32, n, &st)) {
        AT_TRY(st);
        if (w->scale != 1.0f) at_matrix_scale(out->v, n, w->scale);
    } else {
        at_weight_read_f32(w, 0, n, out->v);
    }
out:
    if (st != AT_OK) at_matrix_free(out);
    return st;
}

at_status at_matrix_store(const float *v, int64_t n, at_dtype dtype, void *bytes)
{
    at_status st = AT_OK;

    if (dtype == AT_F32) {
        if (n) memcpy(bytes, v, (size_t)n * sizeof *v);
        return AT_OK;
    }
    if (convert(v, AT_F32, bytes, dtype, n, &st)) return st;
    for (int64_t i = 0; i < n; i++) {
        switch (dtype) {
        case AT_F16: ((uint16_t *)bytes)[i] = at_f32_to_f16(v[i]); break;
        case AT_BF16: ((uint16_t *)bytes)[i] = at_f32_to_bf16(v[i]); break;
        case AT_F64: ((double *)bytes)[i] = (double)v[i]; break;
        case AT_F8E4M3: ((uint8_t *)bytes)[i] = at_f32_to_f8e4m3(v[i]); break;
        case AT_F8E5M2: ((uint8_t *)bytes)[i] = at_f32_to_f8e5m2(v[i]); break;
        default:
            return at_fail(AT_EUNSUPPORTED, "%s holds no changed weights", at_dtype_name(dtype));
        }
    }
    return AT_OK;
}

// --- elementwise ---------------------------------------------------------------------------------
typedef struct line_job {
    float *y;
    const float *x;
    float s;
} line_job;

static void add_range(void *ctx, int64_t begin, int64_t end)
{
    const line_job *j = ctx;

    for (int64_t i = begin; i < end; i++)
        j->y[i] += j->s * j->x[i];
}

static void scale_range(void *ctx, int64_t begin, int64_t end)
{
    const line_job *j = ctx;

    for (int64_t i = begin; i < end; i++)
        j->y[i] *= j->s;
}

void at_matrix_add(float *y, const float *x, int64_t n, float s)
{
    at_parallel_for(n, GRAIN, add_range, &(line_job){y, x, s});
}

void at_matrix_scale(float *y, int64_t n, float s)
{
    at_parallel_for(n, GRAIN, scale_range, &(line_job){y, NULL, s});
}

// --- products ------------------------------------------------------------------------------------
at_status at_matrix_transpose(const at_matrix *a, at_matrix *out)
{
    at_status st = at_matrix_new(a->cols, a->rows, out);

    if (st != AT_OK) return st;
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < a->cols; j++)
            out->v[j * a->rows + i] = a->v[i * a->cols + j];
    return AT_OK;
}

typedef struct mul_job {
    const at_matrix *a, *b;
    float *out;
} mul_job;

static void mul_rows(void *ctx, int64_t begin, int64_t end)
{
    const mul_job *j = ctx;
    int64_t n = j->b->cols, kk = j->b->rows;

    for (int64_t i = begin; i < end; i++) {
        float *y = j->out + i * n;
        memset(y, 0, (size_t)n * sizeof *y);
        for (int64_t k = 0; k < kk; k++) {
            float s = j->a->v[i * kk + k];
            for (int64_t c = 0; c < n; c++)
                y[c] += s * j->b->v[k * n + c];
        }
    }
}

static at_status mul_backend(const at_device *cpu, const at_matrix *a, const at_matrix *b,
                             at_matrix *out)
{
    at_matrix bt = {0};
    at_status st = AT_OK;

    AT_TRY(at_matrix_transpose(b, &bt));
    at_linear_args args = {
        .x = {a->v, AT_F32, 3, {1, a->rows, a->cols}, {a->rows * a->cols, a->cols, 1}},
        .out = {out->v, AT_F32, 3, {1, out->rows, out->cols}, {0, out->cols, 1}},
        .w = {.v = {bt.v, AT_F32, 2, {bt.rows, bt.cols}, {bt.cols, 1}}, .scale = 1},
        .bias = {.scale = 1}};
    args.out.stride[0] = out->rows * out->cols;
    const atomic_bool *watched = at_threads_watch(NULL); // the result is kept: it must be whole
    st = cpu->backend->linear(cpu->stream, &args);
    at_threads_watch(watched);
    AT_TRY(st);
out:
    at_matrix_free(&bt);
    return st;
}

at_status at_matrix_mul(const at_matrix *a, const at_matrix *b, at_matrix *out)
{
    const at_device *cpu = at_device_cpu();
    at_status st = AT_OK;

    *out = (at_matrix){0};
    if (a->cols != b->rows)
        return at_fail(AT_EINVAL, "[%lld, %lld] does not multiply [%lld, %lld]", (long long)a->rows,
                       (long long)a->cols, (long long)b->rows, (long long)b->cols);
    AT_TRY(at_matrix_new(a->rows, b->cols, out));
    if (a->rows == 0 || b->cols == 0) return AT_OK;
    if (a->cols > 0 && cpu->backend && cpu->backend->linear)
        AT_TRY(mul_backend(cpu, a, b, out));
    else
        at_parallel_for(a->rows, 1 + GRAIN / (1 + a->cols * b->cols), mul_rows,
                        &(mul_job){a, b, out->v});
out:
    if (st != AT_OK) at_matrix_free(out);
    return st;
}

at_status at_matrix_core(const at_matrix *t, int64_t inner, const at_matrix *b, at_matrix *out)
{
    at_matrix bt = {0}, part = {0};
    at_status st = AT_OK;

    int64_t cols = 0, wide = 0;

    *out = (at_matrix){0};
    if (inner == 1) return at_matrix_mul(t, b, out);
    if (inner < 1 || __builtin_mul_overflow(b->rows, inner, &cols) || t->cols != cols ||
        __builtin_mul_overflow(b->cols, inner, &wide))
        return at_fail(AT_EINVAL, "a core of %lld columns does not multiply [%lld, %lld] x %lld",
                       (long long)t->cols, (long long)b->rows, (long long)b->cols,
                       (long long)inner);
    AT_TRY(at_matrix_transpose(b, &bt));
    AT_TRY(at_matrix_new(t->rows, wide, out));
    for (int64_t i = 0; i < t->rows; i++) {
        at_matrix one = {t->v + i * t->cols, b->rows, inner};
        AT_TRY(at_matrix_mul(&bt, &one, &part));
        memcpy(out->v + i * out->cols, part.v, (size_t)out->cols * sizeof *out->v);
        at_matrix_free(&part);
    }
out:
    at_matrix_free(&bt);
    at_matrix_free(&part);
    if (st != AT_OK) at_matrix_free(out);
    return st;
}

// --- inverse: Gauss and Jordan with row pivots -----------------------------------------------------
static void swap_rows(double *a, int64_t n, int64_t i, int64_t j)
{
    for (int64_t c = 0; c < n && i != j; c++) {
        double t = a[i * n + c];
        a[i * n + c] = a[j * n + c];
        a[j * n + c] = t;
    }
}

static bool eliminate(double *a, double *inv, int64_t n, int64_t col)
{
    int64_t best = col;

    for (int64_t r = col + 1; r < n; r++)
        if (fabs(a[r * n + col]) > fabs(a[best * n + col])) best = r;
    double pivot = a[best * n + col];
    if (!(fabs(pivot) > 0) || !isfinite(pivot)) return false;
    swap_rows(a, n, best, col);
    swap_rows(inv, n, best, col);
    for (int64_t c = 0; c < n; c++) {
        a[col * n + c] /= pivot;
        inv[col * n + c] /= pivot;
    }
    for (int64_t r = 0; r < n; r++) {
        double f = a[r * n + col];
        if (r == col || f == 0) continue;
        for (int64_t c = 0; c < n; c++) {
            a[r * n + c] -= f * a[col * n + c];
            inv[r * n + c] -= f * inv[col * n + c];
        }
    }
    return true;
}

at_status at_matrix_invert(double *a, int64_t n)
{
    double *inv = at_calloc((size_t)(n * n), sizeof *inv);
    at_status st = AT_OK;

    if (!inv)
        return at_fail(AT_ENOMEM, "no memory to invert %lld x %lld", (long long)n, (long long)n);
    for (int64_t i = 0; i < n; i++)
        inv[i * n + i] = 1;
    for (int64_t col = 0; col < n; col++)
        if (!eliminate(a, inv, n, col))
            AT_TRY(at_fail(AT_EINVAL, "a block of %lld x %lld has no inverse", (long long)n,
                           (long long)n));
    memcpy(a, inv, (size_t)(n * n) * sizeof *a);
out:
    at_free(inv);
    return st;
}
