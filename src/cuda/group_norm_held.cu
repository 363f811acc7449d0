// SPDX-License-Identifier: Apache-2.0
// group_norm_held.cu - group norm of maps that the chip's registers hold: UNets' at usual sizes.
// Idea: the channels of a few whole groups that are whole pieces of eight make a set. One block, or a
// cluster of them that shares the pixels, norms one set of one sample: each thread asks for all its
// pieces at once and keeps them, sums are two passes over registers (the mean, then the squared
// distances from it), clusters exchange (mean, squared distances) once through each other's shared memory
// (Chan, Golub, LeVeque 1979), and every pixel is read once. Nothing goes through global memory but x
// and the result; group_norm.cu's kernels take what does not fit.
// Easy to get wrong:
//   - a piece lies in two groups where groups are no multiple of eight: `cut` says where the second begins
//   - the last block of a cluster may have fewer pixels: the mean is weighted
//   - all threads take part in barriers and shuffles, also those without a row
#include "cuda/group_norm_held.h"

#include "cuda/dtype.cuh"
#include "cuda/grid.cuh"
#include "cuda/pieces.cuh"

enum { HELD_THREADS = 512, HELD_WARPS = HELD_THREADS / 32, HELD_CLUSTER = 8 };

struct held_args {
    const void *x, *add;
    void *out;
    const float *weight, *bias;
    int64_t xb, xp, ob, op, add_b;
    int pixels, share, columns, rows, per; // share: pixels of a block; per: channels of a group
    int dadd;
    float eps;
    bool silu;
};

// Sums of G groups over the block; every thread gets them. This one adds `low` to group `at` and `high` to the next.
template <int G>
__device__ inline void held_sums(float low, float high, int at, float (*shared)[G], float (&sum)[G])
{
    int lane = threadIdx.x & 31, warps = (int)blockDim.x >> 5;
#pragma unroll
    for (int g = 0; g < G; g++) {
        float v = warp_sum((g == at ? low : 0.0f) + (g == at + 1 ? high : 0.0f));
        if (!lane) shared[threadIdx.x >> 5][g] = v;
    }
    __syncthreads();
#pragma unroll
    for (int g = 0; g < G; g++)
        sum[g] = warp_sum(lane < warps ? shared[lane][g] : 0.0f);
}

// That of group `at` and of the next, where there is one.
template <int G> __device__ inline void two_of(const float (&v)[G], int at, float &low, float &high)
{
    low = high = v[0];
#pragma unroll
    for (int g = 1; g < G; g++) {
        low = g == at ? v[g] : low;
        high = g == at + 1 ? v[g] : high;
    }
}

// Sums of eight channels, those from `cut` on apart.
__device__ inline void halves_of(const float (&v)[PIECE], int cut, float &low, float &high)
{
#pragma unroll
    for (int k = 0; k < PIECE; k++) {
        low += k < cut ? v[k] : 0.0f;
        high += k < cut ? 0.0f : v[k];
    }
}

// The cluster's (mean, squared distances) of a group out of its blocks'.
__device__ inline float2 held_meet(const held_args &a, const float2 *mine, unsigned size)
{
    float2 part[HELD_CLUSTER];
    float moved = 0, apart = 0, far = 0;
#pragma unroll
    for (unsigned i = 0; i < HELD_CLUSTER; i++)
        if (i < size) part[i] = cluster_read(mine, i);
#pragma unroll
    for (unsigned i = 0; i < HELD_CLUSTER; i++) {
        if (i >= size) break;
        float n = (float)max(0, min(a.share, a.pixels - (int)i * a.share));
        float d = part[i].x - part[0].x;
        moved += n * d;
        apart += n * d * d;
        far += part[i].y;
    }
    moved /= (float)a.pixels;
    apart -= (float)a.pixels * moved * moved;
    return make_float2(part[0].x + moved, far + (float)a.per * (apart > 0 ? apart : 0));
}

// E pieces a thread; grid: blocks of a cluster (all along x), sets, samples.
template <class T, int G, int E>
__global__ void __launch_bounds__(HELD_THREADS) held_kernel(const held_args a)
{
    __shared__ float sums[2][HELD_WARPS][G];
    __shared__ float2 mine[G];
    const unsigned size = gridDim.x;
    const int row = (int)threadIdx.x / a.columns, column = (int)threadIdx.x - row * a.columns;
    const int c = ((int)blockIdx.y * a.columns + column) * PIECE; // the first of eight
    const int first = (int)blockIdx.x * a.share, last = min(first + a.share, a.pixels);
    const int at = column * PIECE / a.per, cut = (at + 1) * a.per - column * PIECE;
    const int here = row < a.rows ? first + row : last; // this thread's first pixel
    const T *x = (const T *)a.x + blockIdx.z * a.xb + c;
    vec<T, PIECE> raw[E];
    float weight[PIECE], bias[PIECE], add[PIECE] = {}, v[PIECE], low = 0, high = 0;

    grid_begin();
#pragma unroll
    for (int e = 0; e < E; e++) // a piece that is not there: the map's first, unused
        raw[e] =
            *(const vec<T, PIECE> *)(x + (here + e * a.rows < last ? here + e * a.rows : 0) * a.xp);
    // The set's first element: sums about it keep an offset, and a map of one value is exact.
    float pivot = to_f32(x[-column * PIECE]);
#pragma unroll
    for (int k = 0; k < PIECE; k++) {
        weight[k] = 1.0f;
        bias[k] = 0.0f;
    }
    if (a.weight) load<float, PIECE>(a.weight + c, weight);
    if (a.bias) load<float, PIECE>(a.bias + c, bias);
    if (a.add) {
        const int64_t of = blockIdx.z * a.add_b + c;
        pivot += one_at(a.add, a.dadd, of - column * PIECE);
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            add[k] = one_at(a.add, a.dadd, of + k);
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        if (here + e * a.rows >= last) break;
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[k] = to_f32(raw[e].v[k]) + add[k] - pivot;
        halves_of(v, cut, low, high);
    }
    float mean[G], far[G], mean_low, mean_high, far_low, far_high;
    held_sums<G>(low, high, at, sums[0], mean);
    const float count = (float)max(1, last - first) * (float)a.per;
#pragma unroll
    for (int g = 0; g < G; g++)
        mean[g] = pivot + mean[g] / count;
    two_of<G>(mean, at, mean_low, mean_high);
    low = high = 0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        if (here + e * a.rows >= last) break;
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            float d = to_f32(raw[e].v[k]) + add[k] - (k < cut ? mean_low : mean_high);
            v[k] = d * d;
        }
        halves_of(v, cut, low, high);
    }
    held_sums<G>(low, high, at, sums[1], far);
    two_of<G>(far, at, far_low, far_high);
    if (size > 1) {
        if (threadIdx.x == 0)
#pragma unroll
            for (int g = 0; g < G; g++)
                mine[g] = make_float2(mean[g], far[g]);
        cluster_arrive();
        cluster_wait();
        float2 all = held_meet(a, mine + at, size);
        mean_low = all.x;
        far_low = all.y;
        if (G > 1) all = held_meet(a, mine + min(at + 1, G - 1), size);
        mean_high = all.x;
        far_high = all.y;
        cluster_arrive(); // waited for at the end
    }
    const float all = (float)a.pixels * (float)a.per;
    float r_low = rsqrtf(far_low / all + a.eps), r_high = rsqrtf(far_high / all + a.eps);
#pragma unroll
    for (int k = 0; k < PIECE; k++) { // y = x * weight + bias from here on
        weight[k] *= k < cut ? r_low : r_high;
        bias[k] += (add[k] - (k < cut ? mean_low : mean_high)) * weight[k];
    }
    T *out = (T *)a.out + blockIdx.z * a.ob + c;
#pragma unroll
    for (int e = 0; e < E; e++) {
        if (here + e * a.rows >= last) break;
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            v[k] = fmaf(to_f32(raw[e].v[k]), weight[k], bias[k]);
            if (a.silu) v[k] = __fdividef(v[k], 1.0f + __expf(-v[k]));
        }
        store<T, PIECE>(out + (here + e * a.rows) * a.op, v);
    }
    if (size > 1) cluster_wait();
}

// How the work is cut; rows 0: it does not fit.
struct held_cut {
    int sets, columns, groups, rows, share, each;
    unsigned cluster;
};

static held_cut held_cut_of(int64_t batch, int64_t pixels, int64_t channels, int groups)
{
    held_cut cut = {}, none = {};
    int64_t per = channels / groups, unit = per;
    while (unit % PIECE)
        unit *= 2;
    if (per < PIECE || channels % unit || unit / per > 4 || unit / PIECE > 32 || pixels >= 1 << 24)
        return none;
    cut.sets = (int)(channels / unit);
    cut.columns = (int)(unit / PIECE);
    cut.groups = (int)(unit / per);
    int64_t blocks = batch * cut.sets, pieces = pixels * cut.columns, c = 1, rows = 1;
    enum { CHIP = 132, FEW = 1280, MOST_EACH = 16 };
    if (batch > 65535 || cut.sets > 65535 || blocks < CHIP / 16) return none;
    while (2 * rows * cut.columns <= HELD_THREADS && rows < pixels)
        rows *= 2;
    while (c < HELD_CLUSTER &&
           ((pieces > FEW * c && blocks * c < CHIP) || pixels > rows * MOST_EACH * c))
        c *= 2;
    if (pixels < c * c || pixels > rows * MOST_EACH * c) return none; // no block without pixels
    cut.cluster = (unsigned)c;
    cut.rows = (int)rows;
    cut.share = (int)((pixels + c - 1) / c);
    cut.each = (int)((cut.share + rows - 1) / rows);
    return cut;
}

template <class T, int G>
static cudaError_t held_run(cudaStream_t s, const held_args &a, const held_cut &cut, dim3 grid)
{
    unsigned threads = (unsigned)(cut.columns * cut.rows + 31) / 32 * 32;
    void (*kernel)(const held_args) = cut.each <= 1   ? held_kernel<T, G, 1>
                                      : cut.each <= 2 ? held_kernel<T, G, 2>
                                      : cut.each <= 4 ? held_kernel<T, G, 4>
                                      : cut.each <= 8 ? held_kernel<T, G, 8>
                                                      : held_kernel<T, G, 16>;
    return launch_wide(kernel, grid, threads, 0, cut.cluster, s, a);
}

// The cut of what the kernel takes; rows 0: nothing.
static held_cut held_cut_for(const at_k_group_norm_in *in)
{
    const at_view *x = &in->x;
    held_cut none = {};
    if (((uintptr_t)in->weight | (uintptr_t)in->bias) % 16) return none;
    if (in->act > 1 || x->dtype != in->out.dtype || (x->dtype != AT_F16 && x->dtype != AT_BF16))
        return none;
    held_cut cut = held_cut_of(x->shape[0], x->shape[1], x->shape[2], in->groups);
    return cut.cluster <= (unsigned)most_of_cluster() ? cut : none;
}

extern "C" int at_k_group_norm_cluster(const at_k_group_norm_in *in)
{
    held_cut cut = held_cut_for(in);
    return cut.rows ? (int)cut.cluster : 0;
}

extern "C" bool at_k_group_norm_held(cudaStream_t s, const at_k_group_norm_in *in)
{
    const at_view *x = &in->x, *o = &in->out;
    held_cut cut = held_cut_for(in);
    if (!cut.rows) return false;
    held_args a = {};
    a.x = x->data;
    a.out = o->data;
    a.add = in->add.data;
    a.dadd = in->add.dtype;
    a.add_b = in->add.data && in->add.shape[0] > 1 ? in->add.stride[0] : 0;
    a.weight = in->weight;
    a.bias = in->bias;
    a.xb = x->stride[0];
    a.xp = x->stride[1];
    a.ob = o->stride[0];
    a.op = o->stride[1];
    a.pixels = (int)x->shape[1];
    a.columns = cut.columns;
    a.rows = cut.rows;
    a.share = cut.share;
    a.per = (int)(x->shape[2] / in->groups);
    a.eps = in->eps;
    a.silu = in->act == 1;
    dim3 grid(cut.cluster, (unsigned)cut.sets, (unsigned)x->shape[0]);
    bool half = x->dtype == AT_F16, one = cut.groups == 1;
    cudaError_t e =
        half  ? one ? held_run<f16, 1>(s, a, cut, grid) : held_run<f16, 4>(s, a, cut, grid)
         : one ? held_run<bf16, 1>(s, a, cut, grid)
              : held_run<bf16, 4>(s, a, cut, grid);
    if (e != cudaSuccess) (void)cudaGetLastError(); // the other kernels take it
    return e == cudaSuccess;
}
