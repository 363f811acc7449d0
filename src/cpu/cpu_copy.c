// SPDX-License-Identifier: Apache-2.0
// cpu_copy.c - strided copy with conversion, fill, and table look-up, in plain C.
// Idea: equal dtypes move bytes; integers travel as int64, doubles as double, everything else as
// f32. Owns nothing.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"

typedef struct copy_job {
    at_view src, dst;
    size_t bytes; // element size, when no conversion is needed
} copy_job;

static bool is_int(at_dtype t)
{
    return t == AT_I8 || t == AT_U8 || t == AT_I16 || t == AT_I32 || t == AT_I64 || t == AT_BOOL;
}

static int64_t get_int(const void *p, at_dtype t, int64_t i)
{
    switch (t) {
    case AT_I8: return ((const int8_t *)p)[i];
    case AT_I16: return ((const int16_t *)p)[i];
    case AT_I32: return ((const int32_t *)p)[i];
    case AT_I64: return ((const int64_t *)p)[i];
    default: return ((const uint8_t *)p)[i];
    }
}

// Integers wrap as C's unsigned conversion does.
static void put_int(void *p, at_dtype t, int64_t i, int64_t v)
{
    switch (t) {
    case AT_I16:
    case AT_I8:
    case AT_U8:
        if (at_cpu_dtype_bytes(t) == 1) {
            ((uint8_t *)p)[i] = (uint8_t)(uint64_t)v;
        } else {
            ((uint16_t *)p)[i] = (uint16_t)(uint64_t)v;
        }
        break;
    case AT_I32: ((uint32_t *)p)[i] = (uint32_t)(uint64_t)v; break;
    case AT_I64: ((int64_t *)p)[i] = v; break;
    default: ((uint8_t *)p)[i] = v != 0; break;
    }
}

static int64_t double_to_int(double v, at_dtype t)
{
    static const double lo[AT_DTYPE_COUNT] = {
        [AT_I8] = -128, [AT_I16] = -32768, [AT_I32] = -2147483648.0, [AT_I64] = -0x1p63};
    static const int64_t hi[AT_DTYPE_COUNT] = {[AT_I8] = INT8_MAX,
                                               [AT_U8] = UINT8_MAX,
                                               [AT_I16] = INT16_MAX,
                                               [AT_I32] = INT32_MAX,
                                               [AT_I64] = INT64_MAX};
    if (t == AT_BOOL) return v != 0;
    if (v != v) return 0;
    if (v <= lo[t]) return (int64_t)lo[t];
    if (v >= (double)hi[t]) return hi[t];
    return (int64_t)v;
}

static double get_double(const void *p, at_dtype t, int64_t i)
{
    float f;
    if (t == AT_F64) return ((const double *)p)[i];
    if (is_int(t)) return (double)get_int(p, t, i);
    at_cpu_load(&f, p, t, i, 1, 1);
    return (double)f;
}

static void put_double(void *p, at_dtype t, int64_t i, double v)
{
    float f = (float)v;
    if (t == AT_F64) {
        ((double *)p)[i] = v;
    } else if (is_int(t)) {
        put_int(p, t, i, double_to_int(v, t));
    } else {
        at_cpu_store(p, t, i, 1, &f, 1);
    }
}

// Views: 0 = dst, 1 = src.
static void copy_same(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const copy_job *j = ctx;
    char *d = at_cpu_at(&j->dst, off[0]);
    const char *s = at_cpu_at(&j->src, off[1]);
    int64_t size = (int64_t)j->bytes;

    if (step[0] == 1 && step[1] == 1) {
        memcpy(d, s, (size_t)(n * size));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        memcpy(d + i * step[0] * size, s + i * step[1] * size, j->bytes);
}

static void copy_ints(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const copy_job *j = ctx;
    for (int64_t i = 0; i < n; i++)
        put_int(j->dst.data, j->dst.dtype, off[0] + i * step[0],
                get_int(j->src.data, j->src.dtype, off[1] + i * step[1]));
}

static void copy_doubles(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const copy_job *j = ctx;
    for (int64_t i = 0; i < n; i++)
        put_double(j->dst.data, j->dst.dtype, off[0] + i * step[0],
                   get_double(j->src.data, j->src.dtype, off[1] + i * step[1]));
}

static void copy_floats(void *ctx, const int64_t *off, const int64_t *step, int64_t n)
{
    const copy_job *j = ctx;
    float buf[AT_CPU_PIECE];
    at_cpu_load(buf, j->src.data, j->src.dtype, off[1], step[1], n);
    at_cpu_store(j->dst.data, j->dst.dtype, off[0], step[0], buf, n);
}

at_status at_cpu_ref_copy(void *stream, const at_view *src, const at_view *dst)
{
    copy_job j = {*src, *dst, at_cpu_dtype_bytes(dst->dtype)};
    const at_view *views[] = {dst, src};
    at_cpu_piece_fn *fn = copy_floats;
    at_cpu_nd nd;
    bool si = is_int(src->dtype), di = is_int(dst->dtype);

    (void)stream;
    if (src->dtype == dst->dtype) {
        fn = copy_same;
    } else if (si && di) {
        fn = copy_ints;
    } else if (si || di || src->dtype == AT_F64 || dst->dtype == AT_F64) {
        fn = copy_doubles;
    }
    at_cpu_nd_init(&nd, 2, views);
    at_cpu_nd_run(&nd, fn, &j);
    return AT_OK;
}

at_status at_cpu_ref_fill(void *stream, const at_view *dst, double value)
{
    _Alignas(8) unsigned char element[8] = {0};
    at_view src = *dst;

    put_double(element, dst->dtype, 0, value);
    src.data = element;
    for (int d = 0; d < src.rank; d++)
        src.stride[d] = 0;
    return at_cpu_ref_copy(stream, &src, dst);
}

typedef struct embedding_job {
    const at_embedding_args *a;
    int64_t dim;
} embedding_job;

static void embedding_range(void *ctx, int64_t begin, int64_t end)
{
    const embedding_job *j = ctx;
    const at_view *t = &j->a->table.v, *ids = &j->a->ids, *o = &j->a->out;
    float buf[AT_CPU_PIECE];

    for (int64_t i = begin; i < end; i++) {
        int64_t row = ((const int32_t *)ids->data)[i * ids->stride[ids->rank - 1]];
        for (int64_t c = 0; c < j->dim; c += AT_CPU_PIECE) {
            int64_t n = j->dim - c < AT_CPU_PIECE ? j->dim - c : AT_CPU_PIECE;
            at_cpu_load(buf, t->data, t->dtype, row * j->dim + c, 1, n);
            for (int64_t k = 0; k < n; k++)
                buf[k] *= j->a->table.scale;
            at_cpu_store(o->data, o->dtype, i * o->stride[o->rank - 2] + c, 1, buf, n);
        }
    }
}

at_status at_cpu_ref_embedding(void *stream, const at_embedding_args *a)
{
    embedding_job j = {a, a->table.v.shape[a->table.v.rank - 1]};
    (void)stream;
    at_parallel_for(a->ids.shape[a->ids.rank - 1], 4, embedding_range, &j);
    return AT_OK;
}
