// SPDX-License-Identifier: Apache-2.0
// elem.cu - copies, fills and elementwise arithmetic over strided views.
// Idea: one thread per piece of eight elements where all views allow it, per element elsewhere; the
// block's y runs over rows. Memory-bound: bytes are what counts.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"
#include "cuda/nd.cuh"

enum { THREADS = 256, PIECE = 8 };

static dim3 grid_of(const nd_plan &p, int per_thread)
{
    int64_t pieces = (p.row + per_thread - 1) / per_thread;
    int64_t total = pieces * p.rows;
    int64_t blocks = (total + THREADS - 1) / THREADS;
    return dim3((unsigned)(blocks > 0x7fffffff ? 0x7fffffff : blocks));
}

// --- copy --------------------------------------------------------------------------------------
template <class S, class D, int N>
__global__ void copy_kernel(nd_plan p, const S *src, D *dst)
{
    int64_t per = (p.row + N - 1) / N, total = per * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / per, at = (i - r * per) * N;
        D *d = dst + nd_offset(p, 0, r);
        const S *s = src + nd_offset(p, 1, r);
        if (N > 1) {
            float x[N];
            load<S, N>(s + at, x);
            store<D, N>(d + at, x);
        } else {
            d[at * p.inner[0]] = from_f32<D>(to_f32(s[at * p.inner[1]]));
        }
    }
}

// Same bytes on both sides: moved as they are.
template <class T>
__global__ void move_kernel(nd_plan p, const T *src, T *dst)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        dst[nd_offset(p, 0, r) + at * p.inner[0]] = src[nd_offset(p, 1, r) + at * p.inner[1]];
    }
}

__device__ inline double any_load(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AT_F32: return ((const float *)p)[i];
    case AT_F16: return to_f32(((const f16 *)p)[i]);
    case AT_BF16: return to_f32(((const bf16 *)p)[i]);
    case AT_F8E4M3: return to_f32(((const e4m3 *)p)[i]);
    case AT_F8E5M2: return to_f32(((const e5m2 *)p)[i]);
    case AT_F64: return ((const double *)p)[i];
    case AT_I8: return ((const int8_t *)p)[i];
    case AT_U8: return ((const uint8_t *)p)[i];
    case AT_I16: return ((const int16_t *)p)[i];
    case AT_I32: return ((const int32_t *)p)[i];
    case AT_I64: return (double)((const int64_t *)p)[i];
    default: return ((const uint8_t *)p)[i] != 0;
    }
}

// Truncated towards zero and kept within the type, as on the CPU; NaN becomes 0.
__device__ inline int64_t to_int(double x, double least, double most)
{
    if (isnan(x)) return 0;
    return (int64_t)(x < least ? least : x > most ? most : x);
}

__device__ inline void any_store(void *p, int dtype, int64_t i, double x)
{
    switch (dtype) {
    case AT_F32: ((float *)p)[i] = (float)x; break;
    case AT_F16: ((f16 *)p)[i] = __double2half(x); break;
    case AT_BF16: ((bf16 *)p)[i] = __double2bfloat16(x); break;
    case AT_F8E4M3: {
        e4m3 y;
        y.__x = __nv_cvt_double_to_fp8(x, __NV_NOSAT, __NV_E4M3);
        ((e4m3 *)p)[i] = y;
        break;
    }
    case AT_F8E5M2: {
        e5m2 y;
        y.__x = __nv_cvt_double_to_fp8(x, __NV_NOSAT, __NV_E5M2);
        ((e5m2 *)p)[i] = y;
        break;
    }
    case AT_F64: ((double *)p)[i] = x; break;
    case AT_I8: ((int8_t *)p)[i] = (int8_t)to_int(x, -128.0, 127.0); break;
    case AT_U8: ((uint8_t *)p)[i] = (uint8_t)to_int(x, 0.0, 255.0); break;
    case AT_I16: ((int16_t *)p)[i] = (int16_t)to_int(x, -32768.0, 32767.0); break;
    case AT_I32: ((int32_t *)p)[i] = (int32_t)to_int(x, -2147483648.0, 2147483647.0); break;
    case AT_I64: ((int64_t *)p)[i] = (int64_t)x; break;
    default: ((uint8_t *)p)[i] = x != 0; break;
    }
}

__global__ void any_copy_kernel(nd_plan p, const void *src, int sdtype, void *dst, int ddtype)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        double x = any_load(src, sdtype, nd_offset(p, 1, r) + at * p.inner[1]);
        any_store(dst, ddtype, nd_offset(p, 0, r) + at * p.inner[0], x);
    }
}

static size_t size_of(at_dtype t)
{
    switch (t) {
    case AT_F32:
    case AT_I32: return 4;
    case AT_F16:
    case AT_BF16:
    case AT_I16: return 2;
    case AT_F64:
    case AT_I64: return 8;
    default: return 1;
    }
}

template <class S, class D>
static cudaError_t copy_floats(cudaStream_t st, const nd_plan &p, const void *src, void *dst)
{
    bool wide = nd_vectors(p, 0, dst, sizeof(D), PIECE) && nd_vectors(p, 1, src, sizeof(S), PIECE);
    if (wide)
        copy_kernel<S, D, PIECE><<<grid_of(p, PIECE), THREADS, 0, st>>>(p, (const S *)src, (D *)dst);
    else
        copy_kernel<S, D, 1><<<grid_of(p, 1), THREADS, 0, st>>>(p, (const S *)src, (D *)dst);
    return cudaGetLastError();
}

static cudaError_t move_bytes(cudaStream_t st, nd_plan p, const void *src, void *dst, size_t size)
{
    // Rows of contiguous bytes move in words of 16 where everything is a multiple of 16.
    size_t per = 16 / size;
    bool wide = per > 1 && nd_vectors(p, 0, dst, size, (int)per) && nd_vectors(p, 1, src, size, (int)per);
    if (wide) {
        p.row /= (int64_t)per;
        for (int v = 0; v < 2; v++)
            for (int d = 0; d < p.rank; d++)
                p.stride[v][d] /= (int64_t)per;
        move_kernel<uint4><<<grid_of(p, 1), THREADS, 0, st>>>(p, (const uint4 *)src, (uint4 *)dst);
    } else if (size == 1) {
        move_kernel<uint8_t><<<grid_of(p, 1), THREADS, 0, st>>>(p, (const uint8_t *)src, (uint8_t *)dst);
    } else if (size == 2) {
        move_kernel<uint16_t><<<grid_of(p, 1), THREADS, 0, st>>>(p, (const uint16_t *)src, (uint16_t *)dst);
    } else if (size == 4) {
        move_kernel<uint32_t><<<grid_of(p, 1), THREADS, 0, st>>>(p, (const uint32_t *)src, (uint32_t *)dst);
    } else {
        move_kernel<uint64_t><<<grid_of(p, 1), THREADS, 0, st>>>(p, (const uint64_t *)src, (uint64_t *)dst);
    }
    return cudaGetLastError();
}

static bool is_float(at_dtype t)
{
    return t == AT_F32 || t == AT_F16 || t == AT_BF16;
}

extern "C" cudaError_t at_k_copy(cudaStream_t s, const at_view *src, const at_view *dst)
{
    const at_view *views[] = {dst, src};
    nd_plan p = nd_make(2, views);
    if (p.rows * p.row == 0) return cudaSuccess;
    if (src->dtype == dst->dtype && src->dtype != AT_BOOL)
        return move_bytes(s, p, src->data, dst->data, size_of(src->dtype));
    if (is_float(dst->dtype) && (is_float(src->dtype) || src->dtype == AT_F8E4M3)) {
        if (src->dtype == AT_F8E4M3) {
            AT_FLOATS(dst->dtype, D, return (copy_floats<e4m3, D>(s, p, src->data, dst->data)))
        }
        AT_FLOATS(src->dtype, S,
                  AT_FLOATS(dst->dtype, D, return (copy_floats<S, D>(s, p, src->data, dst->data))))
    }
    any_copy_kernel<<<grid_of(p, 1), THREADS, 0, s>>>(p, src->data, src->dtype, dst->data, dst->dtype);
    return cudaGetLastError();
}

__global__ void fill_kernel(nd_plan p, void *dst, int dtype, double value)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        any_store(dst, dtype, nd_offset(p, 0, r) + at * p.inner[0], value);
    }
}

extern "C" cudaError_t at_k_fill(cudaStream_t s, const at_view *dst, double value)
{
    const at_view *views[] = {dst};
    nd_plan p = nd_make(1, views);
    if (p.rows * p.row == 0) return cudaSuccess;
    fill_kernel<<<grid_of(p, 1), THREADS, 0, s>>>(p, dst->data, dst->dtype, value);
    return cudaGetLastError();
}

// --- unary and binary --------------------------------------------------------------------------
__device__ inline float combine(float a, float b, int op)
{
    switch (op) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return a * b;
    default: return a / b;
    }
}

// Elements are read at run-time dtypes: three loads and a branch cost less than the bytes.
template <int N>
__global__ void binary_kernel(nd_plan p, const void *a, int da, const void *b, int db, void *out, int dout,
                              int op, int act)
{
    int64_t per = (p.row + N - 1) / N, total = per * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / per, at = (i - r * per) * N;
        int64_t oa = nd_offset(p, 1, r), ob = nd_offset(p, 2, r), oo = nd_offset(p, 0, r);
        float x[N], y[N];
        if (N > 1) {
            if (da == AT_F32)
                load<float, N>((const float *)a + oa + at, x);
            else if (da == AT_BF16)
                load<bf16, N>((const bf16 *)a + oa + at, x);
            else
                load<f16, N>((const f16 *)a + oa + at, x);
        } else {
            x[0] = (float)any_load(a, da, oa + at * p.inner[1]);
        }
#pragma unroll
        for (int k = 0; k < N; k++)
            y[k] = b ? (float)any_load(b, db, ob + (at + k) * p.inner[2]) : 0.0f;
#pragma unroll
        for (int k = 0; k < N; k++) {
            x[k] = activate(x[k], act);
            if (b) x[k] = combine(x[k], y[k], op);
        }
        if (N > 1) {
            if (dout == AT_F32)
                store<float, N>((float *)out + oo + at, x);
            else if (dout == AT_BF16)
                store<bf16, N>((bf16 *)out + oo + at, x);
            else
                store<f16, N>((f16 *)out + oo + at, x);
        } else {
            any_store(out, dout, oo + at * p.inner[0], x[0]);
        }
    }
}

static cudaError_t binary(cudaStream_t s, const at_view *a, const at_view *b, const at_view *out, int op,
                          int act)
{
    const at_view *views[] = {out, a, b ? b : a};
    nd_plan p = nd_make(3, views);
    if (p.rows * p.row == 0) return cudaSuccess;
    bool wide = is_float(a->dtype) && is_float(out->dtype) &&
                nd_vectors(p, 0, out->data, size_of(out->dtype), PIECE) &&
                nd_vectors(p, 1, a->data, size_of(a->dtype), PIECE);
    const void *bd = b ? b->data : NULL;
    int bt = b ? b->dtype : AT_F32;
    if (wide)
        binary_kernel<PIECE><<<grid_of(p, PIECE), THREADS, 0, s>>>(p, a->data, a->dtype, bd, bt, out->data,
                                                                   out->dtype, op, act);
    else
        binary_kernel<1><<<grid_of(p, 1), THREADS, 0, s>>>(p, a->data, a->dtype, bd, bt, out->data,
                                                           out->dtype, op, act);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_unary(cudaStream_t s, const at_view *x, const at_view *out, int act)
{
    return binary(s, x, NULL, out, 0, act);
}

extern "C" cudaError_t at_k_binary(cudaStream_t s, const at_view *a, const at_view *b, const at_view *out,
                                   int op, int act_a)
{
    return binary(s, a, b, out, op, act_a);
}

// --- gated residual ----------------------------------------------------------------------------
template <class T, int N>
__global__ void gate_add_kernel(nd_plan p, const void *x, int dx, const T *y, const void *gate, int dg,
                                void *out, int dout, int act)
{
    int64_t per = (p.row + N - 1) / N, total = per * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / per, at = (i - r * per) * N;
        int64_t oo = nd_offset(p, 0, r), ox = nd_offset(p, 1, r), oy = nd_offset(p, 2, r);
        int64_t og = nd_offset(p, 3, r);
        float v[N];
        if (N > 1) {
            load<T, N>(y + oy + at, v);
        } else {
            v[0] = to_f32(y[oy + at * p.inner[2]]);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            v[k] = activate(v[k], act);
            if (gate) v[k] *= (float)any_load(gate, dg, og + (at + k) * p.inner[3]);
            if (x) v[k] += (float)any_load(x, dx, ox + (at + k) * p.inner[1]);
        }
        if (N > 1 && dout == AT_BF16)
            store<bf16, N>((bf16 *)out + oo + at, v);
        else if (N > 1 && dout == AT_F16)
            store<f16, N>((f16 *)out + oo + at, v);
        else if (N > 1)
            store<float, N>((float *)out + oo + at, v);
        else
            any_store(out, dout, oo + at * p.inner[0], v[0]);
    }
}

extern "C" cudaError_t at_k_gate_add(cudaStream_t s, const at_view *x, const at_view *y,
                                     const at_view *gate, const at_view *out, int act)
{
    at_view g = *out; // [b, 1, n] over [b, t, n]
    g.data = NULL;
    if (gate && gate->data) {
        g = *gate;
        g.rank = 3;
        g.shape[0] = out->shape[0];
        g.shape[1] = 1;
        g.shape[2] = out->shape[2];
        g.stride[0] = gate->shape[0] == 1 ? 0 : gate->stride[0];
        g.stride[1] = 0;
        g.stride[2] = gate->stride[1];
    }
    bool add = x && x->data;
    const at_view *views[] = {out, add ? x : out, y, g.data ? &g : out};
    nd_plan p = nd_make(4, views);
    if (p.rows * p.row == 0) return cudaSuccess;
    bool wide = nd_vectors(p, 0, out->data, size_of(out->dtype), PIECE) &&
                nd_vectors(p, 2, y->data, size_of(y->dtype), PIECE) && is_float(out->dtype);
    const void *xd = add ? x->data : NULL;
    int xt = add ? x->dtype : AT_F32;
    AT_FLOATS(y->dtype, T, {
        if (wide)
            gate_add_kernel<T, PIECE><<<grid_of(p, PIECE), THREADS, 0, s>>>(
                p, xd, xt, (const T *)y->data, g.data, g.dtype, out->data, out->dtype, act);
        else
            gate_add_kernel<T, 1><<<grid_of(p, 1), THREADS, 0, s>>>(p, xd, xt, (const T *)y->data, g.data,
                                                                   g.dtype, out->data, out->dtype, act);
    })
    return cudaGetLastError();
}

// --- gated linear unit -------------------------------------------------------------------------
template <class T, class O>
__global__ void geglu_kernel(const T *y, int64_t rows, int64_t n, int64_t ystride, O *out, int64_t ostride,
                             int act)
{
    int64_t total = rows * n;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / n, c = i - r * n;
        float v = to_f32(y[r * ystride + c]), g = to_f32(y[r * ystride + n + c]);
        out[r * ostride + c] = from_f32<O>(v * activate(g, act));
    }
}

extern "C" cudaError_t at_k_geglu(cudaStream_t s, const at_view *y, const at_view *out, int act)
{
    // y is ours and contiguous; out's rows may be strided within a batch
    int64_t b = out->shape[0], t = out->shape[1], n = out->shape[2];
    for (int64_t i = 0; i < b; i++) {
        int64_t total = t * n;
        if (!total) continue;
        unsigned blocks = (unsigned)((total + THREADS - 1) / THREADS);
        AT_FLOATS(y->dtype, T, AT_FLOATS(out->dtype, O, {
                      geglu_kernel<T, O><<<blocks, THREADS, 0, s>>>(
                          (const T *)y->data + i * y->stride[0], t, n, y->stride[1],
                          (O *)out->data + i * out->stride[0], out->stride[1], act);
                  }))
    }
    return cudaGetLastError();
}

// --- linear combinations -----------------------------------------------------------------------
struct lincomb_args {
    int n, dout;
    float coef[8];
    const void *in[8];
    int dtype[8];
};
__global__ void lincomb_kernel(lincomb_args a, void *out, int64_t count)
{
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS) {
        float sum = 0;
        for (int k = 0; k < a.n; k++) {
            float x = a.dtype[k] == AT_F32 ? ((const float *)a.in[k])[i]
                                           : (float)any_load(a.in[k], a.dtype[k], i);
            sum = __fadd_rn(sum, __fmul_rn(a.coef[k], x));
        }
        if (a.dout == AT_F32)
            ((float *)out)[i] = sum;
        else
            any_store(out, a.dout, i, sum);
    }
}

extern "C" cudaError_t at_k_lincomb(cudaStream_t s, const at_k_lincomb_in *a)
{
    lincomb_args k = {};
    int64_t n = 1;
    for (int d = 0; d < a->out.rank; d++)
        n *= a->out.shape[d];
    k.n = a->n;
    k.dout = a->out.dtype;
    for (int i = 0; i < a->n; i++) {
        k.coef[i] = a->coef[i];
        k.in[i] = a->in[i].data;
        k.dtype[i] = a->in[i].dtype;
    }
    if (!n) return cudaSuccess;
    lincomb_kernel<<<(unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, s>>>(k, a->out.data, n);
    return cudaGetLastError();
}

// --- embedding ---------------------------------------------------------------------------------
__global__ void embedding_kernel(const void *table, int dtype, float scale, const int32_t *ids, void *out,
                                 int dout, int64_t n, int64_t dim, int64_t ostride)
{
    int64_t total = n * dim;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / dim, c = i - r * dim;
        float x = (float)any_load(table, dtype, (int64_t)ids[r] * dim + c) * scale;
        any_store(out, dout, r * ostride + c, x);
    }
}

extern "C" cudaError_t at_k_embedding(cudaStream_t s, const at_view *table, float scale, const at_view *ids,
                                      const at_view *out)
{
    int64_t n = ids->shape[0], dim = table->shape[1];
    if (n * dim == 0) return cudaSuccess;
    embedding_kernel<<<(unsigned)((n * dim + THREADS - 1) / THREADS), THREADS, 0, s>>>(
        table->data, table->dtype, scale, (const int32_t *)ids->data, out->data, out->dtype, n, dim,
        out->stride[0]);
    return cudaGetLastError();
}
