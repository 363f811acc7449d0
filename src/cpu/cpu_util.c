// SPDX-License-Identifier: Apache-2.0
// cpu_util.c - element access of every dtype, activations, and loops over broadcast views.
// Idea: plain and complete; the vector twins replace the hot parts and are checked against this.
// Owns nothing. Any thread.
#include "cpu/cpu_impl.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/status.h"
#include "base/thread.h"

size_t at_cpu_dtype_bytes(at_dtype t)
{
    static const unsigned char bytes[AT_DTYPE_COUNT] = {
        [AT_F32] = 4, [AT_F16] = 2, [AT_BF16] = 2, [AT_F8E4M3] = 1, [AT_F8E5M2] = 1, [AT_F64] = 8,
        [AT_I8] = 1,  [AT_U8] = 1,  [AT_I16] = 2,  [AT_I32] = 4,    [AT_I64] = 8,    [AT_BOOL] = 1,
    };
    return (unsigned)t < AT_DTYPE_COUNT ? bytes[t] : 1;
}

#define LOAD_LOOP(type, expr)                                                                      \
    do {                                                                                           \
        const type *p = (const type *)base + first;                                                \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const type v = p[i * stride];                                                          \
            dst[i] = (float)(expr);                                                                \
        }                                                                                          \
    } while (0)

void at_cpu_load(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride, int64_t n)
{
    switch (t) {
    case AT_F32:
        if (stride == 1) {
            memcpy(dst, (const float *)base + first, (size_t)n * sizeof *dst);
        } else {
            LOAD_LOOP(float, v);
        }
        break;
    case AT_F16: LOAD_LOOP(uint16_t, at_f16_to_f32(v)); break;
    case AT_BF16: LOAD_LOOP(uint16_t, at_bf16_to_f32(v)); break;
    case AT_F8E4M3: LOAD_LOOP(uint8_t, at_f8e4m3_to_f32(v)); break;
    case AT_F8E5M2: LOAD_LOOP(uint8_t, at_f8e5m2_to_f32(v)); break;
    case AT_F64: LOAD_LOOP(double, v); break;
    case AT_I8: LOAD_LOOP(int8_t, v); break;
    case AT_BOOL:
    case AT_U8: LOAD_LOOP(uint8_t, v); break;
    case AT_I16: LOAD_LOOP(int16_t, v); break;
    case AT_I32: LOAD_LOOP(int32_t, v); break;
    case AT_I64: LOAD_LOOP(int64_t, v); break;
    case AT_DTYPE_COUNT: break;
    }
}

// Truncation that is defined for every float: NaN gives 0, out of range gives the nearest end.
static int64_t to_int(float v, int64_t lo, int64_t hi)
{
    if (v != v) return 0;
    if (v <= (float)lo) return lo;
    if (v >= (float)hi) return hi;
    return (int64_t)v;
}

#define STORE_LOOP(type, expr)                                                                     \
    do {                                                                                           \
        type *p = (type *)base + first;                                                            \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const float v = src[i];                                                                \
            p[i * stride] = (type)(expr);                                                          \
        }                                                                                          \
    } while (0)

void at_cpu_store(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                  int64_t n)
{
    switch (t) {
    case AT_F32:
        if (stride == 1) {
            memcpy((float *)base + first, src, (size_t)n * sizeof *src);
        } else {
            STORE_LOOP(float, v);
        }
        break;
    case AT_F16: STORE_LOOP(uint16_t, at_f32_to_f16(v)); break;
    case AT_BF16: STORE_LOOP(uint16_t, at_f32_to_bf16(v)); break;
    case AT_F8E4M3: STORE_LOOP(uint8_t, at_f32_to_f8e4m3(v)); break;
    case AT_F8E5M2: STORE_LOOP(uint8_t, at_f32_to_f8e5m2(v)); break;
    case AT_F64: STORE_LOOP(double, v); break;
    case AT_I8: STORE_LOOP(int8_t, to_int(v, INT8_MIN, INT8_MAX)); break;
    case AT_U8: STORE_LOOP(uint8_t, to_int(v, 0, UINT8_MAX)); break;
    case AT_I16: STORE_LOOP(int16_t, to_int(v, INT16_MIN, INT16_MAX)); break;
    case AT_I32: STORE_LOOP(int32_t, to_int(v, INT32_MIN, INT32_MAX)); break;
    case AT_I64: STORE_LOOP(int64_t, to_int(v, INT64_MIN, INT64_MAX)); break;
    case AT_BOOL: STORE_LOOP(uint8_t, v != 0); break;
    case AT_DTYPE_COUNT: break;
    }
}

float at_cpu_get(const at_view *v, int64_t i)
{
    float f = 0;
    at_cpu_load(&f, v->data, v->dtype, i, 1, 1);
    return f;
}

float at_cpu_apply(float x, at_act act)
{
    switch (act) {
    case AT_ACT_NONE: return x;
    case AT_ACT_SILU: return x / (1.0f + expf(-x));
    case AT_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case AT_ACT_GELU_ERF: return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case AT_ACT_QUICK_GELU: return x / (1.0f + expf(-1.702f * x));
    case AT_ACT_RELU: return x > 0 ? x : x * 0.0f; // keeps NaN, as torch does
    case AT_ACT_TANH: return tanhf(x);
    case AT_ACT_SIGMOID: return 1.0f / (1.0f + expf(-x));
    }
    return x;
}

at_view at_cpu_rank(const at_view *v, int rank)
{
    at_view r = *v;
    int pad = rank - v->rank;
    if (pad <= 0) return r;
    for (int d = rank - 1; d >= 0; d--) {
        r.shape[d] = d >= pad ? v->shape[d - pad] : 1;
        r.stride[d] = d >= pad ? v->stride[d - pad] : 0;
    }
    r.rank = rank;
    return r;
}

static bool can_merge(const at_cpu_nd *nd, const int64_t outer_stride[])
{
    int last = nd->rank - 1; // dimensions are gathered innermost first
    for (int i = 0; i < nd->views; i++) {
        if (outer_stride[i] != nd->stride[i][last] * nd->shape[last]) return false;
    }
    return true;
}

static void reverse_dims(at_cpu_nd *nd)
{
    for (int a = 0, b = nd->rank - 1; a < b; a++, b--) {
        int64_t t = nd->shape[a];
        nd->shape[a] = nd->shape[b];
        nd->shape[b] = t;
        for (int i = 0; i < nd->views; i++) {
            t = nd->stride[i][a];
            nd->stride[i][a] = nd->stride[i][b];
            nd->stride[i][b] = t;
        }
    }
}

void at_cpu_nd_init(at_cpu_nd *nd, int views, const at_view *const *v)
{
    memset(nd, 0, sizeof *nd);
    nd->views = views;
    for (int d = v[0]->rank - 1; d >= 0; d--) {
        int64_t n = v[0]->shape[d], stride[AT_CPU_ND_VIEWS];
        if (n == 1) continue;
        for (int i = 0; i < views; i++) {
            int e = d - (v[0]->rank - v[i]->rank);
            stride[i] = e < 0 ? 0 : at_cpu_step(v[i], e);
        }
        if (nd->rank && can_merge(nd, stride)) {
            nd->shape[nd->rank - 1] *= n;
            continue;
        }
        nd->shape[nd->rank] = n;
        for (int i = 0; i < views; i++)
            nd->stride[i][nd->rank] = stride[i];
        nd->rank++;
    }
    if (!nd->rank) {
        nd->rank = 1;
        nd->shape[0] = 1;
    }
    reverse_dims(nd);
    nd->row = nd->shape[nd->rank - 1];
    nd->rows = 1;
    for (int d = 0; d < nd->rank - 1; d++)
        nd->rows *= nd->shape[d];
}

void at_cpu_nd_offsets(const at_cpu_nd *nd, int64_t r, int64_t off[AT_CPU_ND_VIEWS])
{
    memset(off, 0, AT_CPU_ND_VIEWS * sizeof *off);
    for (int d = nd->rank - 2; d >= 0; d--) {
        int64_t i = r % nd->shape[d];
        r /= nd->shape[d];
        for (int k = 0; k < nd->views; k++)
            off[k] += i * nd->stride[k][d];
    }
}

typedef struct nd_job {
    const at_cpu_nd *nd;
    at_cpu_piece_fn *fn;
    void *ctx;
    int64_t pieces; // per row
} nd_job;

static void nd_range(void *ctx, int64_t begin, int64_t end)
{
    const nd_job *j = ctx;
    const at_cpu_nd *nd = j->nd;
    int64_t step[AT_CPU_ND_VIEWS];

    for (int k = 0; k < AT_CPU_ND_VIEWS; k++)
        step[k] = nd->stride[k][nd->rank - 1];
    for (int64_t p = begin; p < end; p++) {
        int64_t off[AT_CPU_ND_VIEWS], first = p % j->pieces * AT_CPU_PIECE;
        int64_t n = nd->row - first < AT_CPU_PIECE ? nd->row - first : AT_CPU_PIECE;
        at_cpu_nd_offsets(nd, p / j->pieces, off);
        for (int k = 0; k < nd->views; k++)
            off[k] += first * step[k];
        j->fn(j->ctx, off, step, n);
    }
}

void at_cpu_nd_run(const at_cpu_nd *nd, at_cpu_piece_fn *fn, void *ctx)
{
    nd_job j = {nd, fn, ctx, (nd->row + AT_CPU_PIECE - 1) / AT_CPU_PIECE};
    int64_t per_piece = j.pieces > 1 ? AT_CPU_PIECE : nd->row ? nd->row : 1;
    at_parallel_for(nd->rows * j.pieces, 16384 / per_piece + 1, nd_range, &j);
}

at_status at_cpu_oom_status(at_cpu_oom *oom, const char *slot)
{
    if (!atomic_load_explicit(&oom->hit, memory_order_relaxed)) return AT_OK;
    return at_fail(AT_ENOMEM, "%s: no memory for a thread's scratch space", slot);
}
