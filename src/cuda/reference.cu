// SPDX-License-Identifier: Apache-2.0
// reference.cu - matmul, attention and convolution of our own: plain loops with f32 sums.
// Idea: what the vendor's libraries refuse (an odd head size, a format, a machine without cuDNN)
// still runs, and every fast path has something on the same chip to be compared with.
#include "cuda/dtype.cuh"
#include "cuda/kernels.h"

__device__ inline float read(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AT_F32: return ((const float *)p)[i];
    case AT_BF16: return to_f32(((const bf16 *)p)[i]);
    case AT_F16: return to_f32(((const f16 *)p)[i]);
    case AT_F8E4M3: return to_f32(((const e4m3 *)p)[i]);
    case AT_F8E5M2: return to_f32(((const e5m2 *)p)[i]);
    case AT_F64: return (float)((const double *)p)[i];
    case AT_I8: return ((const int8_t *)p)[i];
    default: return 0;
    }
}

__device__ inline void write(void *p, int dtype, int64_t i, float x)
{
    if (dtype == AT_F32)
        ((float *)p)[i] = x;
    else if (dtype == AT_BF16)
        ((bf16 *)p)[i] = from_f32<bf16>(x);
    else
        ((f16 *)p)[i] = from_f32<f16>(x);
}

static int floats(at_dtype t)
{
    return t == AT_F32 || t == AT_BF16 || t == AT_F16;
}

// --- matmul: 16x16 tiles through shared memory ---------------------------------------------------
struct mat {
    const void *p;
    int dtype;
    int64_t rows_per_batch, batch_stride, row_stride;
};

__global__ void linear_kernel(mat x, mat w, float scale, const float *bias, void *out, int dout,
                              int64_t ob, int64_t orow, int64_t m, int n, int k)
{
    __shared__ float xs[16][17], ws[16][17];
    int tx = threadIdx.x, ty = threadIdx.y;
    int64_t row = blockIdx.x * 16LL + ty;
    int col = blockIdx.y * 16 + tx, wrow = blockIdx.y * 16 + ty;
    int64_t b = row / x.rows_per_batch, t = row - b * x.rows_per_batch;
    float sum = 0;
    for (int at = 0; at < k; at += 16) {
        xs[ty][tx] = row < m && at + tx < k
                         ? read(x.p, x.dtype, b * x.batch_stride + t * x.row_stride + at + tx)
                         : 0.0f;
        ws[ty][tx] = wrow < n && at + tx < k ? read(w.p, w.dtype, (int64_t)wrow * k + at + tx) : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; i++)
            sum += xs[ty][i] * ws[tx][i];
        __syncthreads();
    }
    if (row >= m || col >= n) return;
    sum *= scale;
    if (bias) sum += bias[col];
    write(out, dout, b * ob + t * orow + col, sum);
}

extern "C" cudaError_t at_k_linear(cudaStream_t s, const at_view *x, const at_view *w, float scale,
                                   const float *bias, const at_view *out)
{
    int64_t m = x->shape[0] * x->shape[1];
    int n = (int)w->shape[0], k = (int)w->shape[1];
    if (!floats(x->dtype) || !floats(out->dtype)) return cudaErrorInvalidValue;
    if (!m || !n) return cudaSuccess;
    mat a = {x->data, x->dtype, x->shape[1], x->stride[0], x->stride[1]};
    mat b = {w->data, w->dtype, n, 0, k};
    dim3 grid((unsigned)((m + 15) / 16), (unsigned)((n + 15) / 16));
    linear_kernel<<<grid, dim3(16, 16), 0, s>>>(a, b, scale, bias, out->data, out->dtype, out->stride[0],
                                                out->stride[1], m, n, k);
    return cudaGetLastError();
}

// --- attention: a warp a query, keys one after the other, softmax kept as running maximum and sum --
struct attention_shape {
    int64_t tq, tk;
    int heads, dim;
    int64_t q[3], k[3], v[3], o[3], bias[4];
    int qt, kt, vt, ot;
    float scale;
    bool causal;
    float *lse;
};

template <int EACH>
__global__ void attention_kernel(attention_shape a, const void *q, const void *k, const void *v, void *out,
                                 const float *bias)
{
    int lane = threadIdx.x & 31;
    int64_t i = blockIdx.x * (int64_t)(blockDim.x / 32) + threadIdx.x / 32;
    int h = blockIdx.y, b = blockIdx.z;
    if (i >= a.tq) return;
    float query[EACH], sum[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int d = lane + 32 * e;
        query[e] = d < a.dim ? read(q, a.qt, b * a.q[0] + i * a.q[1] + h * a.q[2] + d) * a.scale : 0.0f;
        sum[e] = 0;
    }
    float most = -INFINITY, total = 0;
    int64_t seen = a.causal ? i + (a.tk - a.tq) + 1 : a.tk;
    if (seen > a.tk) seen = a.tk;
    for (int64_t j = 0; j < seen; j++) {
        float dot = 0;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int d = lane + 32 * e;
            if (d < a.dim) dot += query[e] * read(k, a.kt, b * a.k[0] + j * a.k[1] + h * a.k[2] + d);
        }
#pragma unroll
        for (int w = 16; w; w >>= 1)
            dot += __shfl_xor_sync(0xffffffffu, dot, w);
        if (bias) dot += bias[b * a.bias[0] + h * a.bias[1] + i * a.bias[2] + j * a.bias[3]];
        if (dot == -INFINITY) continue;
        float top = fmaxf(most, dot), keep = expf(most - top), p = expf(dot - top);
        total = total * keep + p;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int d = lane + 32 * e;
            float x = d < a.dim ? read(v, a.vt, b * a.v[0] + j * a.v[1] + h * a.v[2] + d) : 0.0f;
            sum[e] = sum[e] * keep + p * x;
        }
        most = top;
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int d = lane + 32 * e;
        if (d < a.dim)
            write(out, a.ot, b * a.o[0] + i * a.o[1] + h * a.o[2] + d, total > 0 ? sum[e] / total : 0.0f);
    }
    if (a.lse && lane == 0)
        a.lse[((int64_t)b * a.heads + h) * a.tq + i] = total == 0 ? -INFINITY : most + logf(total);
}

extern "C" cudaError_t at_k_attention(cudaStream_t s, const at_k_attention_in *in)
{
    attention_shape a = {};
    a.tq = in->q.shape[1];
    a.tk = in->k.shape[1];
    a.heads = (int)in->q.shape[2];
    a.dim = (int)in->q.shape[3];
    for (int i = 0; i < 3; i++) {
        a.q[i] = in->q.stride[i];
        a.k[i] = in->k.stride[i];
        a.v[i] = in->v.stride[i];
        a.o[i] = in->out.stride[i];
    }
    if (in->bias.data)
        for (int i = 0; i < 4; i++)
            a.bias[i] = in->bias.shape[i] == 1 ? 0 : in->bias.stride[i];
    a.qt = in->q.dtype;
    a.kt = in->k.dtype;
    a.vt = in->v.dtype;
    a.ot = in->out.dtype;
    a.scale = in->scale;
    a.causal = in->causal;
    a.lse = in->lse;
    int64_t b = in->q.shape[0];
    if (!b || !a.tq || !a.heads) return cudaSuccess;
    if (a.dim > 512) return cudaErrorInvalidValue;
    dim3 grid((unsigned)((a.tq + 7) / 8), (unsigned)a.heads, (unsigned)b);
    const float *bias = (const float *)in->bias.data;
#define RUN(E) attention_kernel<E><<<grid, 256, 0, s>>>(a, in->q.data, in->k.data, in->v.data, in->out.data, bias)
    if (a.dim <= 64)
        RUN(2);
    else if (a.dim <= 128)
        RUN(4);
    else if (a.dim <= 256)
        RUN(8);
    else
        RUN(16);
#undef RUN
    return cudaGetLastError();
}

// --- convolution ---------------------------------------------------------------------------------
struct conv_shape {
    int h, w, cin, oh, ow, cout, kh, kw, stride, top, left, twice;
    int64_t x[3], o[3];
    int xt, wt, ot;
    float scale;
};

__global__ void conv_kernel(conv_shape a, const void *x, const void *w, const float *bias, void *out,
                            int64_t total)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int co = (int)(i % a.cout);
    int64_t p = i / a.cout;
    int ox = (int)(p % a.ow), oy = (int)(p / a.ow % a.oh);
    int64_t b = p / a.ow / a.oh;
    int ih = a.twice ? 2 * a.h : a.h, iw = a.twice ? 2 * a.w : a.w;
    float sum = 0;
    for (int ky = 0; ky < a.kh; ky++) {
        int y = oy * a.stride + ky - a.top;
        if (y < 0 || y >= ih) continue;
        for (int kx = 0; kx < a.kw; kx++) {
            int c = ox * a.stride + kx - a.left;
            if (c < 0 || c >= iw) continue;
            int64_t from = b * a.x[0] + (a.twice ? y / 2 : y) * a.x[1] + (a.twice ? c / 2 : c) * a.x[2];
            int64_t wt = (((int64_t)co * a.kh + ky) * a.kw + kx) * a.cin;
            for (int k = 0; k < a.cin; k++)
                sum += read(x, a.xt, from + k) * read(w, a.wt, wt + k);
        }
    }
    sum *= a.scale;
    if (bias) sum += bias[co];
    write(out, a.ot, b * a.o[0] + oy * a.o[1] + ox * a.o[2] + co, sum);
}

extern "C" cudaError_t at_k_conv(cudaStream_t s, const at_k_conv_in *in)
{
    conv_shape a = {};
    a.h = (int)in->x.shape[1];
    a.w = (int)in->x.shape[2];
    a.cin = (int)in->x.shape[3];
    a.oh = (int)in->out.shape[1];
    a.ow = (int)in->out.shape[2];
    a.cout = (int)in->out.shape[3];
    a.kh = (int)in->w.shape[1];
    a.kw = (int)in->w.shape[2];
    a.stride = in->stride;
    a.top = in->top;
    a.left = in->left;
    a.twice = in->twice;
    for (int i = 0; i < 3; i++) {
        a.x[i] = in->x.stride[i];
        a.o[i] = in->out.stride[i];
    }
    a.xt = in->x.dtype;
    a.wt = in->w.dtype;
    a.ot = in->out.dtype;
    a.scale = in->scale;
    int64_t total = in->out.shape[0] * a.oh * a.ow * (int64_t)a.cout;
    if (!total) return cudaSuccess;
    conv_kernel<<<(unsigned)((total + 255) / 256), 256, 0, s>>>(a, in->x.data, in->w.data, in->bias,
                                                               in->out.data, total);
    return cudaGetLastError();
}

// --- what a convolution needs made ready -----------------------------------------------------------
template <class T>
__global__ void pad_kernel(const T *x, int64_t xb, int64_t xy, int64_t xx, int h, int w, T *out, int oh,
                           int ow, int c, int top, int left, int twice, int64_t total)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int ch = (int)(i % c);
    int64_t p = i / c;
    int ox = (int)(p % ow), oy = (int)(p / ow % oh);
    int64_t b = p / ow / oh;
    int y = oy - top, q = ox - left;
    int ih = twice ? 2 * h : h, iw = twice ? 2 * w : w;
    bool inside = y >= 0 && y < ih && q >= 0 && q < iw;
    out[i] = inside ? x[b * xb + (twice ? y / 2 : y) * xy + (twice ? q / 2 : q) * xx + ch] : T();
}

extern "C" cudaError_t at_k_pad(cudaStream_t s, const at_view *src, const at_view *dst, int top, int left,
                                bool twice)
{
    // channels in words of 16 bytes where they fit
    size_t size = src->dtype == AT_F32 ? 4 : 2;
    int64_t per = (int64_t)(16 / size), c = src->shape[3];
    bool wide = c % per == 0 && (uintptr_t)src->data % 16 == 0 && (uintptr_t)dst->data % 16 == 0 &&
                src->stride[0] % per == 0 && src->stride[1] % per == 0 && src->stride[2] % per == 0;
    int64_t unit = wide ? per : 1;
    int64_t total = dst->shape[0] * dst->shape[1] * dst->shape[2] * (c / unit);
    if (!total) return cudaSuccess;
    unsigned blocks = (unsigned)((total + 255) / 256);
#define RUN(T)                                                                                     \
    pad_kernel<T><<<blocks, 256, 0, s>>>((const T *)src->data, src->stride[0] / unit, src->stride[1] / unit, \
                                         src->stride[2] / unit, (int)src->shape[1], (int)src->shape[2],      \
                                         (T *)dst->data, (int)dst->shape[1], (int)dst->shape[2],             \
                                         (int)(c / unit), top, left, twice, total)
    if (wide)
        RUN(uint4);
    else if (size == 4)
        RUN(uint32_t);
    else
        RUN(uint16_t);
#undef RUN
    return cudaGetLastError();
}

__global__ void filter_kernel(const void *src, int st, void *dst, int dt, int o, int c, int taps)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= (int64_t)o * c * taps) return;
    int k = (int)(i % c);
    int64_t r = i / c;
    int tap = (int)(r % taps);
    int64_t out = r / taps;
    write(dst, dt, i, read(src, st, (out * c + k) * taps + tap));
}

extern "C" cudaError_t at_k_filter(cudaStream_t s, const at_view *src, const at_view *dst)
{
    int o = (int)src->shape[0], c = (int)src->shape[1], taps = (int)(src->shape[2] * src->shape[3]);
    int64_t n = (int64_t)o * c * taps;
    if (!n) return cudaSuccess;
    filter_kernel<<<(unsigned)((n + 255) / 256), 256, 0, s>>>(src->data, src->dtype, dst->data, dst->dtype, o,
                                                             c, taps);
    return cudaGetLastError();
}
