// SPDX-License-Identifier: Apache-2.0
// norm_rows.cu - layer and RMS norm with affine for the widths of UNets (320, 640, 1280) and text
// encoders (768, 1024, 1280, 4096).
// Idea: a row lies in the registers of a team: 8, 16 or 32 lanes of a warp, or a block of 128, so that
// each of its threads has the same few pieces of eight and none idles. All rows of a thread are asked for
// before the first is used, sums go by shuffles, and the affine is read once for both rows of a team.
// With one team a row the whole chip has its bytes in flight at once; layer_norm.cu's kernel, which
// walks many rows with few threads, is for what is wider or modulated.
// Easy to get wrong: lanes whose team has no row shuffle with the others and store nothing.
#include "cuda/norm_rows.h"

#include "cuda/dtype.cuh"
#include "cuda/grid.cuh"
#include "cuda/pieces.cuh"

enum {
    ROWS_THREADS = 128,
    ROWS_SPREAD = 132 * 12
}; // warps that a chip wants before a team takes two rows

struct rows_norm {
    const void *x;
    void *out;
    const float *weight, *bias;
    int64_t xb, xt, ob, ot;
    unsigned rows, tokens;
    float eps;
    bool rms;
};

// Sum over a team; every thread of it gets it.
template <int TEAM> __device__ inline float team_sum(float x, float *shared)
{
#pragma unroll
    for (int i = (TEAM < 32 ? TEAM : 32) / 2; i; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    if (TEAM <= 32) return x;
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
#pragma unroll
    for (int w = 0; w < TEAM / 32; w++)
        x += shared[w];
    return x;
}

// Rows of EACH * TEAM pieces; a team takes AT_ONCE neighbouring rows.
template <class T, class O, int EACH, int TEAM, int AT_ONCE>
__global__ void __launch_bounds__(ROWS_THREADS) norm_rows_kernel(const rows_norm a)
{
    enum { DIM = EACH * TEAM * PIECE };
    __shared__ float sums[2 * AT_ONCE][TEAM / 32 + 1]; // of teams that are a block
    const unsigned lane = threadIdx.x % TEAM, team = threadIdx.x / TEAM;
    const unsigned first = (blockIdx.x * (ROWS_THREADS / TEAM) + team) * AT_ONCE;
    vec<T, PIECE> raw[AT_ONCE][EACH];
    float weight[EACH][PIECE], bias[EACH][PIECE];

    grid_begin();
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) { // beyond the last row: the last again
        unsigned r = min(first + i, a.rows - 1), b = r / a.tokens;
        const T *x = (const T *)a.x + b * a.xb + (r - b * a.tokens) * a.xt;
#pragma unroll
        for (int e = 0; e < EACH; e++)
            raw[i][e] = *(const vec<T, PIECE> *)(x + (e * TEAM + lane) * PIECE);
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        load<float, PIECE>(a.weight + (e * TEAM + lane) * PIECE, weight[e]);
        if (a.bias) load<float, PIECE>(a.bias + (e * TEAM + lane) * PIECE, bias[e]);
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        float mean = 0, square = 0;
        if (!a.rms) {
#pragma unroll
            for (int e = 0; e < EACH; e++)
#pragma unroll
                for (int k = 0; k < PIECE; k++)
                    mean += to_f32(raw[i][e].v[k]);
            mean = team_sum<TEAM>(mean, sums[2 * i]) / (float)DIM;
        }
#pragma unroll
        for (int e = 0; e < EACH; e++)
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                float d = to_f32(raw[i][e].v[k]) - mean;
                square += d * d;
            }
        float r = rsqrtf(team_sum<TEAM>(square, sums[2 * i + 1]) / (float)DIM + a.eps);
        if (first + i >= a.rows) continue;
        unsigned b = (first + i) / a.tokens, t = first + i - b * a.tokens;
        O *out = (O *)a.out + b * a.ob + t * a.ot;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            float y[PIECE];
#pragma unroll
            for (int k = 0; k < PIECE; k++) {
                y[k] = (to_f32(raw[i][e].v[k]) - mean) * r * weight[e][k];
                if (a.bias) y[k] += bias[e][k];
            }
            store<O, PIECE>(out + (e * TEAM + lane) * PIECE, y);
        }
    }
}

template <class T, class O, int EACH, int TEAM>
static cudaError_t rows_run(cudaStream_t s, const rows_norm &a)
{
    const unsigned teams = ROWS_THREADS / TEAM, per_warp = TEAM < 32 ? 32 / TEAM : 1;
    if (TEAM <= 32 && a.rows / per_warp > ROWS_SPREAD)
        return launch_early(norm_rows_kernel < T, O, EACH, TEAM, TEAM <= 32 ? 2 : 1 >,
                            dim3((a.rows + 2 * teams - 1) / (2 * teams)), ROWS_THREADS, 0, s, a);
    return launch_early(norm_rows_kernel<T, O, EACH, TEAM, 1>, dim3((a.rows + teams - 1) / teams),
                        ROWS_THREADS, 0, s, a);
}

// False: another width.
template <class T, class O>
static bool unet_rows(cudaStream_t s, const rows_norm &a, int64_t dim, cudaError_t *e)
{
    switch (dim) {
    case 320: *e = rows_run<T, O, 5, 8>(s, a); return true;
    case 640: *e = rows_run<T, O, 5, 16>(s, a); return true;
    case 1280: *e = rows_run<T, O, 5, 32>(s, a); return true;
    default: return false;
    }
}

template <class O>
static bool text_rows(cudaStream_t s, const rows_norm &a, int64_t dim, cudaError_t *e)
{
    switch (dim) {
    case 768: *e = rows_run<float, O, 3, 32>(s, a); return true;
    case 1024: *e = rows_run<float, O, 4, 32>(s, a); return true;
    case 1280: *e = rows_run<float, O, 5, 32>(s, a); return true;
    case 4096: *e = rows_run<float, O, 4, 128>(s, a); return true;
    default: return false;
    }
}

static bool in_words(const at_view *v)
{
    return (uintptr_t)v->data % 16 == 0 && (v->shape[0] == 1 || v->stride[0] % PIECE == 0) &&
           (v->shape[1] == 1 || v->stride[1] % PIECE == 0);
}

extern "C" bool at_k_norm_rows(cudaStream_t s, const at_k_norm_in *in)
{
    const at_view *x = &in->x, *o = &in->out;
    if (in->y.data || in->scales || in->mod_scale.data || in->mod_shift.data || !in->weight)
        return false;
    if (!in_words(x) || !in_words(o) || ((uintptr_t)in->weight | (uintptr_t)in->bias) % 16)
        return false;
    int64_t dim = x->shape[2];
    cudaError_t e = cudaSuccess;
    bool known = false;
    rows_norm a = {};
    a.x = x->data;
    a.out = o->data;
    a.weight = in->weight;
    a.bias = in->bias;
    a.xb = x->shape[0] == 1 ? 0 : x->stride[0];
    a.xt = x->shape[1] == 1 ? 0 : x->stride[1];
    a.ob = o->shape[0] == 1 ? 0 : o->stride[0];
    a.ot = o->shape[1] == 1 ? 0 : o->stride[1];
    a.rows = (unsigned)(x->shape[0] * x->shape[1]);
    a.tokens = (unsigned)x->shape[1];
    a.eps = in->eps;
    a.rms = in->rms;
    if (x->dtype == AT_F16 && o->dtype == AT_F16)
        known = unet_rows<f16, f16>(s, a, dim, &e);
    else if (x->dtype == AT_BF16 && o->dtype == AT_BF16)
        known = unet_rows<bf16, bf16>(s, a, dim, &e);
    else if (x->dtype == AT_F32 && o->dtype == AT_F16)
        known = text_rows<f16>(s, a, dim, &e);
    else if (x->dtype == AT_F32 && o->dtype == AT_BF16)
        known = text_rows<bf16>(s, a, dim, &e);
    if (e != cudaSuccess) (void)cudaGetLastError(); // the other kernels take it
    return known && e == cudaSuccess;
}
