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
//   - a block of a cluster may have a pixel more than another: the mean is weighted
//   - all threads take part in barriers and shuffles, also those without a row
#include "cuda/group_norm_held.h"

#include "cuda/dtype.cuh"
#include "cuda/grid.cuh"
#include "cuda/pieces.cuh"

enum { HELD_THREADS = 640, HELD_WARPS = HELD_THREADS / 32, HELD_CLUSTER = 8 };

struct held_args {
    const void *x, *add;
    void *out;
    const float *weight, *bias;
    int64_t xb, xp, ob, op, add_b;
    int pixels, columns, rows,
        per; // columns of pieces and rows of pixels in a block; per: of a group
    int dadd;
    float eps;
    bool silu;
};

// What the threads gave to group g.
template <int G> __device__ inline float held_sum(const float (*shared)[G], int g)
{
    float sum = 0;
    for (int w = 0; w < (int)blockDim.x >> 5; w++)
        sum += shared[w][g];
    return sum;
}

// Sums over the block into `shared`: this thread gives `low` to group `at` and `high` to the next.
template <int G> __device__ inline void held_give(float low, float high, int at, float (*shared)[G])
{
#pragma unroll
    for (int g = 0; g < G; g++) {
        float v = warp_sum((g == at ? low : 0.0f) + (g == at + 1 ? high : 0.0f));
        if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5][g] = v;
    }
    __syncthreads();
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

// Pixels of block `rank` of `size`: from here to the next block's.
__device__ inline int held_begin(int pixels, unsigned rank, unsigned size)
{
    return (int)((int64_t)pixels * rank / size);
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
        float n = (float)(held_begin(a.pixels, i + 1, size) - held_begin(a.pixels, i, size));
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
    const unsigned size = gridDim.x, rank = blockIdx.x;
    const int row = (int)threadIdx.x / a.columns, column = (int)threadIdx.x - row * a.columns;
    const int c = (int)blockIdx.y * a.columns * PIECE + column * PIECE; // the first of eight
    const int first = held_begin(a.pixels, rank, size), last = held_begin(a.pixels, rank + 1, size);
    const int at = column * PIECE / a.per, cut = (at + 1) * a.per - column * PIECE;
    const int next = at + 1 < G ? at + 1 : at;          // not used where no piece is cut
    const int here = row < a.rows ? first + row : last; // this thread's first pixel
    const T *x = (const T *)a.x + blockIdx.z * a.xb + c;
    const T *of_set = x - column * PIECE;
    vec<T, PIECE> raw[E];
    float add[PIECE] = {}, low = 0, high = 0;

    grid_begin();
#pragma unroll
    for (int e = 0; e < E;
         e++) // a piece that is not there: the thread's or the map's first, unused
        raw[e] =
            *(const vec<T, PIECE> *)(x + (here + e * a.rows < last ? here + e * a.rows : 0) * a.xp);
    if (a.add)
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            add[k] = one_at(a.add, a.dadd, blockIdx.z * a.add_b + c + k);
    // The set's first element: sums about it keep an offset, and a map of one value is exact.
    float pivot = to_f32(of_set[0]);
    if (a.add) pivot += one_at(a.add, a.dadd, blockIdx.z * a.add_b + c - column * PIECE);
#pragma unroll
    for (int e = 0; e < E; e++) {
        if (here + e * a.rows >= last) break;
        float v[PIECE];
#pragma unroll
        for (int k = 0; k < PIECE; k++)
            v[k] = to_f32(raw[e].v[k]) + add[k] - pivot;
        halves_of(v, cut, low, high);
    }
    held_give<G>(low, high, at, sums[0]);
    const float count = (float)(last - first) * (float)a.per;
    float mean_low = pivot + held_sum<G>(sums[0], at) / count;
    float mean_high = G > 1 ? pivot + held_sum<G>(sums[0], next) / count : mean_low;
    low = high = 0;
#pragma unroll
    for (int e = 0; e < E; e++) {
        if (here + e * a.rows >= last) break;
        float v[PIECE];
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            float d = to_f32(raw[e].v[k]) + add[k] - (k < cut ? mean_low : mean_high);
            v[k] = d * d;
        }
        halves_of(v, cut, low, high);
    }
    held_give<G>(low, high, at, sums[1]);
    float far_low, far_high;
    if (size > 1) {
        const int g = (int)threadIdx.x; // the pivot is the set's: all threads have it
        if (g < G)
            mine[g] = make_float2(pivot + held_sum<G>(sums[0], g) / count, held_sum<G>(sums[1], g));
        cluster_arrive();
        cluster_wait();
        float2 all = held_meet(a, mine + at, size);
        mean_low = all.x;
        far_low = all.y;
        if (G > 1) all = held_meet(a, mine + next, size);
        mean_high = all.x;
        far_high = all.y;
        cluster_arrive(); // waited for at the end
    } else {
        far_low = held_sum<G>(sums[1], at);
        far_high = G > 1 ? held_sum<G>(sums[1], next) : far_low;
    }
    float factor[PIECE], term[PIECE];
    const float all = (float)a.pixels * (float)a.per;
    float r_low = rsqrtf(far_low / all + a.eps), r_high = rsqrtf(far_high / all + a.eps);
#pragma unroll
    for (int k = 0; k < PIECE; k++) {
        factor[k] = (k < cut ? r_low : r_high) * (a.weight ? a.weight[c + k] : 1.0f);
        term[k] = (add[k] - (k < cut ? mean_low : mean_high)) * factor[k] +
                  (a.bias ? a.bias[c + k] : 0.0f);
    }
    T *out = (T *)a.out + blockIdx.z * a.ob + c;
#pragma unroll
    for (int e = 0; e < E; e++) {
        if (here + e * a.rows >= last) break;
        float y[PIECE];
#pragma unroll
        for (int k = 0; k < PIECE; k++) {
            y[k] = fmaf(to_f32(raw[e].v[k]), factor[k], term[k]);
            if (a.silu) y[k] = __fdividef(y[k], 1.0f + __expf(-y[k]));
        }
        store<T, PIECE>(out + (here + e * a.rows) * a.op, y);
    }
    if (size > 1) cluster_wait();
}

// How the work is cut; rows 0: it does not fit.
struct held_cut {
    int sets, columns, groups, rows, each;
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
    int64_t blocks = batch * cut.sets, pieces = pixels * cut.columns, c = 1;
    enum { CHIP = 132, FEW = 1024, MOST_EACH = 16 };
    if (batch > 65535 || cut.sets > 65535 || blocks < CHIP / 16) return none;
    const int64_t most = HELD_CLUSTER;
    while (c < most && ((pieces / c > FEW && blocks * c < CHIP) ||
                        pieces / c > HELD_THREADS * MOST_EACH * 3 / 4))
        c *= 2;
    int64_t share = (pixels + c - 1) / c, rows = 1;
    while (2 * rows * cut.columns <= HELD_THREADS && rows < share)
        rows *= 2;
    cut.cluster = (unsigned)c;
    cut.rows = (int)rows;
    cut.each = (int)((share + rows - 1) / rows);
    return cut.each <= MOST_EACH ? cut : none;
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

extern "C" bool at_k_group_norm_held(cudaStream_t s, const at_k_group_norm_in *in)
{
    const at_view *x = &in->x, *o = &in->out;
    if (in->act > 1 || x->dtype != o->dtype || (x->dtype != AT_F16 && x->dtype != AT_BF16))
        return false;
    held_cut cut = held_cut_of(x->shape[0], x->shape[1], x->shape[2], in->groups);
    if (!cut.rows || cut.cluster > (unsigned)most_of_cluster()) return false;
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
