// SPDX-License-Identifier: Apache-2.0
// conv_rest.cu - what stands around a convolution of the library: bias, activation and residual behind it,
// the filters of a convolution over a doubled picture, and windows for convolutions that are matmuls.
// Idea: one pass in pieces of eight channels; a thread keeps its channels and their bias for many pixels.
// In a doubled picture each output pixel sees 2x2 pixels of the small one: the 3x3 taps that fall on the
// same pixel are summed, which gives one 2x2 filter for each of the four places an output pixel can
// have. Interleaved they are the 4x4 taps of a transposed convolution with stride 2.
// Easy to get wrong: the sum may be the output itself.
#include "cuda/any.cuh"
#include "cuda/dtype.cuh"
#include "cuda/grid.cuh"
#include "cuda/kernels.h"

enum { PIECE = 8, THREADS = 256, PIXELS = 4 };

// sum and out may be one buffer: no restrict.
template <class S, class R, class O>
__global__ void rest_kernel(const S *sum, const float *bias, const R *residual, O *out, int64_t pixels,
                            int channels, int columns, int act)
{
    grid_begin();
    int rows = blockDim.x / columns, row = threadIdx.x / columns, column = threadIdx.x - row * columns;
    if (row >= rows) return;
    float b[PIECE] = {};
    if (bias) load<float, PIECE>(bias + column * PIECE, b);
    int64_t step = (int64_t)gridDim.x * rows;
    for (int64_t p = (int64_t)blockIdx.x * rows + row; p < pixels; p += step * PIXELS) {
        vec<S, PIECE> s[PIXELS];
        vec<R, PIECE> r[PIXELS];
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            int64_t at = (p + i * step < pixels ? p + i * step : p) * channels + column * PIECE;
            s[i] = *(const vec<S, PIECE> *)(sum + at);
            if (residual) r[i] = *(const vec<R, PIECE> *)(residual + at);
        }
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            if (p + i * step >= pixels) break;
            float y[PIECE];
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                y[k] = to_f32(s[i].v[k]) + b[k];
                if (act) y[k] = activate(y[k], act);
                if (residual) y[k] += to_f32(r[i].v[k]);
            }
            store<O, PIECE>(out + (p + i * step) * channels + column * PIECE, y);
        }
    }
}

extern "C" cudaError_t at_k_conv_rest(cudaStream_t s, const at_view *sum, const float *bias,
                                      const at_view *residual, const at_view *out, int act)
{
    int64_t pixels = 1;
    int channels = (int)out->shape[out->rank - 1], columns = channels / PIECE;
    for (int i = 0; i < out->rank - 1; i++)
        pixels *= out->shape[i];
    if (!pixels) return cudaSuccess;
    int rows = THREADS / columns;
    int64_t blocks = (pixels + (int64_t)rows * PIXELS - 1) / ((int64_t)rows * PIXELS);
    if (blocks > 2048) blocks = 2048;
    at_dtype rt = residual ? residual->dtype : sum->dtype;
    const void *r = residual ? residual->data : NULL;
    AT_FLOATS(sum->dtype, S,
              AT_FLOATS(rt, R, AT_FLOATS(out->dtype, O, {
                            return launch_early(rest_kernel<S, R, O>, dim3((unsigned)blocks),
                                                THREADS, 0, s, (const S *)sum->data, bias,
                                                (const R *)r, (O *)out->data, pixels, channels,
                                                columns, act);
                        })))
    return cudaErrorInvalidValue;
}

// Which of three taps fall on tap t of four, as bits.
__device__ inline unsigned taps_of(int t)
{
    return t == 0 ? 4u : t == 1 ? 6u : t == 2 ? 3u : 1u;
}

__global__ void phases_kernel(const void *w, int wt, void *out, int ot, int cout, int cin, int64_t count)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= count) return;
    int o = (int)(i % cout);
    int64_t rest = i / cout;
    int tx = (int)(rest % 4), ty = (int)(rest / 4 % 4), c = (int)(rest / 16);
    float sum = 0;
    for (int ky = 0; ky < 3; ky++)
        for (int kx = 0; kx < 3; kx++)
            if (taps_of(ty) >> ky & taps_of(tx) >> kx & 1)
                sum += (float)any_load(w, wt, (((int64_t)o * cin + c) * 3 + ky) * 3 + kx);
    any_store(out, ot, i, sum);
}

extern "C" cudaError_t at_k_conv_phases(cudaStream_t s, const at_view *w, void *out, at_dtype dtype)
{
    int64_t count = w->shape[0] * w->shape[1] * 16;
    phases_kernel<<<(unsigned)((count + 255) / 256), 256, 0, s>>>(
        w->data, w->dtype, out, dtype, (int)w->shape[0], (int)w->shape[1], count);
    return cudaGetLastError();
}

// One piece of eight channels of a window each.
__global__ void windows_kernel(const uint4 *x, uint4 *out, int h, int w, int columns, int oh, int ow,
                               int kh, int kw, int stride, int top, int left, int64_t xb, int64_t xr,
                               int64_t xp, int64_t count)
{
    grid_begin();
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= count) return;
    int column = (int)(i % columns);
    int64_t rest = i / columns;
    int kx = (int)(rest % kw), ky = (int)(rest / kw % kh);
    rest /= (int64_t)kw * kh;
    int ix = (int)(rest % ow) * stride + kx - left, iy = (int)(rest / ow % oh) * stride + ky - top;
    int64_t b = rest / ow / oh;
    bool in = ix >= 0 && iy >= 0 && ix < w && iy < h;
    out[i] = in ? x[b * xb + iy * xr + ix * xp + column] : make_uint4(0, 0, 0, 0);
}

extern "C" cudaError_t at_k_conv_windows(cudaStream_t s, const at_view *x, void *out, int kh, int kw,
                                         int oh, int ow, int stride, int top, int left)
{
    int columns = (int)x->shape[3] / PIECE;
    int64_t count = x->shape[0] * oh * ow * kh * kw * columns;
    if (!count) return cudaSuccess;
    return launch_early(windows_kernel, dim3((unsigned)((count + THREADS - 1) / THREADS)), THREADS, 0, s,
                        (const uint4 *)x->data, (uint4 *)out, (int)x->shape[1], (int)x->shape[2], columns,
                        oh, ow, kh, kw, stride, top, left, x->stride[0] / PIECE, x->stride[1] / PIECE,
                        x->stride[2] / PIECE, count);
}
