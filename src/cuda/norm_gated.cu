// SPDX-License-Identifier: Apache-2.0
// norm_gated.cu - x += gate * y and the modulated norm of that, for 16-bit rows of Flux's width: a warp a row.
// Idea: with a row in the registers of one warp its sums are shuffles, no barrier is left, and a
// multiprocessor has as many rows on their way as it has warps. Gates, factors and terms lie in shared memory,
// folded once a block. Rows go to multiprocessors in turn, so that all have the same number (+-1).
// Read 2 + 2, written 2 + 2 (or + 1 as e4m3 with a scale a row) bytes an element, once.
// Easy to get wrong: a row is written by the warp that read it, after it has read all of it; sums are of the
// unrounded x + gate * y, as in layer_norm.cu, which is the reference and takes whatever does not fit here.
#include "cuda/grid.cuh"
#include "cuda/kernels.h"
#include "cuda/norm_gated.h"
#include "cuda/pieces.cuh"

namespace
{

enum { CHIP = 132, LANES = 32, FOUR = 4 }; // multiprocessors of an H200
const float E4M3_MOST = 448.0f, E4M3_LEAST = 1e-30f;

struct gated_args {
    void *x;
    const void *y, *gate, *scale, *shift;
    void *out;
    float *scales; // of fp8 rows
    const float *weight, *bias;
    int64_t xb, xt, yb, yt, ob, ot, gate_b, scale_b, shift_b;
    unsigned tokens;
    int dgate, dscale, dshift;
    float eps;
    bool rms;
};

// What a row is multiplied with: halves of pieces of eight side by side, so that lanes read without conflicts.
template <int EACH> struct folded {
    float4 factor[EACH][2][LANES], term[EACH][2][LANES], gate[EACH][2][LANES];
};

__device__ inline float warp_most(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

__device__ inline void put_halves(float4 (&to)[2][LANES], int lane, const float (&v)[1][PIECE])
{
    to[0][lane] = make_float4(v[0][0], v[0][1], v[0][2], v[0][3]);
    to[1][lane] = make_float4(v[0][4], v[0][5], v[0][6], v[0][7]);
}

// y = x * factor + term of sample b, and its gate; each thread some pieces.
template <int EACH> __device__ inline void fold(const gated_args &a, unsigned b, folded<EACH> &all)
{
    for (int i = threadIdx.x; i < EACH * LANES; i += blockDim.x) {
        float gate[1][PIECE], x[1][PIECE], factor[1][PIECE], term[1][PIECE];
        int at = i * PIECE, e = i / LANES, lane = i % LANES;
        load_pieces<1>(a.gate, a.dgate, b * a.gate_b + at, 0, 0, 1, gate);
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            factor[0][k] = 1.0f;
            term[0][k] = 0.0f;
        }
        if (a.weight) load_pieces_of<float, 1>(a.weight, at, 0, 0, 1, factor);
        if (a.bias) load_pieces_of<float, 1>(a.bias, at, 0, 0, 1, term);
        if (a.scale) {
            load_pieces<1>(a.scale, a.dscale, b * a.scale_b + at, 0, 0, 1, x);
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                factor[0][k] *= 1.0f + x[0][k];
                term[0][k] *= 1.0f + x[0][k];
            }
        }
        if (a.shift) {
            load_pieces<1>(a.shift, a.dshift, b * a.shift_b + at, 0, 0, 1, x);
#pragma unroll
            for (int k = 0; k < PIECE; k++)
                term[0][k] += x[0][k];
        }
        put_halves(all.factor[e], lane, factor);
        put_halves(all.term[e], lane, term);
        put_halves(all.gate[e], lane, gate);
    }
}

template <class T> __device__ inline void unpack(const uint4 &raw, float (&v)[PIECE])
{
    const uint32_t word[FOUR] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int k = 0; k < PIECE; k++) {
        uint16_t bits = (uint16_t)(word[k / 2] >> (k % 2 * 16));
        T one;
        memcpy(&one, &bits, sizeof one);
        v[k] = to_f32(one);
    }
}

__device__ inline void take_halves(const float4 (&from)[2][LANES], int lane, float (&v)[PIECE])
{
    float4 a = from[0][lane], b = from[1][lane];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

__device__ inline void put_rows8(uint8_t *to, const float (&v)[PIECE], float by)
{
    union {
        uint2 all;
        __nv_fp8x2_storage_t two[PIECE / 2];
    } u;
#pragma unroll
    for (int k = 0; k < PIECE / 2; k++)
        u.two[k] = __nv_cvt_float2_to_fp8x2(make_float2(v[2 * k] * by, v[2 * k + 1] * by),
                                            __NV_SATFINITE, __NV_E4M3);
    *(uint2 *)to = u.all;
}

// x + gate * y of this lane's pieces into v and back to x; the sum of them.
template <class T, int EACH>
__device__ inline float add_row(T *x, const T *y, const folded<EACH> &all, int lane,
                                float (&v)[EACH][PIECE])
{
    uint4 of_x[EACH], of_y[EACH];
    float sum = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        of_x[e] = *(const uint4 *)(x + e * LANES * PIECE);
        of_y[e] = *(const uint4 *)(y + e * LANES * PIECE);
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        float add[PIECE], gate[PIECE];
        unpack<T>(of_x[e], v[e]);
        unpack<T>(of_y[e], add);
        take_halves(all.gate[e], lane, gate);
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            v[e][k] += gate[k] * add[k];
            sum += v[e][k];
        }
        store<T, PIECE>(x + e * LANES * PIECE, v[e]);
    }
    return sum;
}

template <class T, bool ROWS8, int EACH, int WARPS>
__global__ void __launch_bounds__(WARPS *LANES, 1) gated_kernel(const gated_args a)
{
    enum { DIM = EACH * LANES * PIECE };
    extern __shared__ uint4 space[];
    folded<EACH> &all = *(folded<EACH> *)space;
    const int lane = threadIdx.x % LANES, at = lane * PIECE;
    const unsigned b = blockIdx.y;
    float v[EACH][PIECE];

    grid_begin();
    fold<EACH>(a, b, all);
    __syncthreads();
    for (unsigned t = threadIdx.x / LANES * gridDim.x + blockIdx.x; t < a.tokens;
         t += WARPS * gridDim.x) {
        T *x = (T *)a.x + b * a.xb + t * a.xt + at;
        float sum = add_row<T, EACH>(x, (const T *)a.y + b * a.yb + t * a.yt + at, all, lane, v);
        float mean = a.rms ? 0.0f : warp_sum(sum) / DIM;
        sum = 0;
#pragma unroll
        for (int e = 0; e < EACH; e++)
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                v[e][k] -= mean;
                sum += v[e][k] * v[e][k];
            }
        float rstd = rsqrtf(warp_sum(sum) / DIM + a.eps), most = 0;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            float factor[PIECE], term[PIECE];
            take_halves(all.factor[e], lane, factor);
            take_halves(all.term[e], lane, term);
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                v[e][k] = v[e][k] * rstd * factor[k] + term[k];
                if (ROWS8) most = fmaxf(most, fabsf(v[e][k]));
            }
            if (!ROWS8)
                store<T, PIECE>((T *)a.out + b * a.ob + t * a.ot + at + e * LANES * PIECE, v[e]);
        }
        if (ROWS8) {
            int64_t row = (int64_t)b * a.tokens + t;
            most = fmaxf(warp_most(most), E4M3_LEAST);
#pragma unroll
            for (int e = 0; e < EACH; e++)
                put_rows8((uint8_t *)a.out + row * DIM + at + e * LANES * PIECE, v[e],
                          E4M3_MOST / most);
            if (!lane) a.scales[row] = most / E4M3_MOST;
        }
    }
}

template <class T, bool ROWS8, int EACH, int WARPS>
cudaError_t launch(cudaStream_t s, const gated_args &a, unsigned batch)
{
    auto kernel = gated_kernel<T, ROWS8, EACH, WARPS>;
    const int bytes = sizeof(folded<EACH>);
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return e;
    unsigned blocks = batch < CHIP ? CHIP / batch : 1;
    if (blocks > a.tokens) blocks = a.tokens;
    return launch_early(kernel, dim3(blocks, batch), WARPS * LANES, bytes, s, a);
}

// Pieces of eight begin at whole 16 bytes.
bool whole(const at_view &v, int strides)
{
    bool ok = (uintptr_t)v.data % 16 == 0;
    for (int i = 0; i < strides; i++)
        ok = ok && (v.shape[i] == 1 || v.stride[i] % PIECE == 0);
    return ok;
}

int64_t stride_of(const at_view &v, int d)
{
    return v.data && v.shape[d] > 1 ? v.stride[d] : 0; // a single entry's says nothing
}

gated_args args_of(const at_k_norm_in *in)
{
    gated_args a = {};
    a.x = in->x.data;
    a.y = in->y.data;
    a.gate = in->gate.data;
    a.scale = in->mod_scale.data;
    a.shift = in->mod_shift.data;
    a.out = in->out.data;
    a.scales = in->scales;
    a.weight = in->weight;
    a.bias = in->bias;
    a.xb = stride_of(in->x, 0);
    a.xt = stride_of(in->x, 1);
    a.yb = stride_of(in->y, 0);
    a.yt = stride_of(in->y, 1);
    a.ob = stride_of(in->out, 0);
    a.ot = stride_of(in->out, 1);
    a.gate_b = stride_of(in->gate, 0);
    a.scale_b = stride_of(in->mod_scale, 0);
    a.shift_b = stride_of(in->mod_shift, 0);
    a.tokens = (unsigned)in->x.shape[1];
    a.dgate = in->gate.dtype;
    a.dscale = in->mod_scale.dtype;
    a.dshift = in->mod_shift.dtype;
    a.eps = in->eps;
    a.rms = in->rms;
    return a;
}

enum { EACH = 12, WARPS = 12 }; // rows of 3072

} // namespace

extern "C" bool at_k_norm_gated_suits(const at_k_norm_in *in)
{
    at_dtype t = in->x.dtype;
    bool ok = in->y.data && in->gate.data && in->x.shape[2] == EACH * LANES * PIECE &&
              (t == AT_BF16 || t == AT_F16) && in->y.dtype == t && in->x.shape[0] <= 65535;
    if (ok && !in->scales) ok = in->out.dtype == t && whole(in->out, 2);
    if (ok && in->scales) ok = (uintptr_t)in->out.data % 16 == 0;
    return ok && whole(in->x, 2) && whole(in->y, 2) && whole(in->gate, 1) &&
           (!in->mod_scale.data || whole(in->mod_scale, 1)) &&
           (!in->mod_shift.data || whole(in->mod_shift, 1)) && (uintptr_t)in->weight % 16 == 0 &&
           (uintptr_t)in->bias % 16 == 0;
}

extern "C" cudaError_t at_k_norm_gated(cudaStream_t s, const at_k_norm_in *in)
{
    gated_args a = args_of(in);
    unsigned batch = (unsigned)in->x.shape[0];
    if (in->x.dtype == AT_BF16)
        return in->scales ? launch<bf16, true, EACH, WARPS>(s, a, batch)
                          : launch<bf16, false, EACH, WARPS>(s, a, batch);
    return in->scales ? launch<f16, true, EACH, WARPS>(s, a, batch)
                      : launch<f16, false, EACH, WARPS>(s, a, batch);
}
