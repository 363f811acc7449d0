// SPDX-License-Identifier: Apache-2.0
// group_norm.cu - group norm over [batch, pixels, channels] with an added vector before it and an
// activation behind it.
// Idea: one block a chunk of pixels. A thread owns eight neighbouring channels for all its pixels, so
// sums and the final y = x * a + b live in registers and groups matter only when a block is done.
// Where all chunks fit the shared memories of the device, one launch reads each pixel once: blocks
// give their sums, wait for each other, and write. In small maps a block takes all pixels of the least
// set of groups that is whole pieces of eight channels, and waits for nobody. Larger maps take two streaming passes: the last
// block of a sample to finish merges all chunks into a table of (a, b) per channel, and the second
// pass walks each chunk backwards, because its end is what the L2 cache still holds.
// Easy to get wrong:
//   - sums are taken about each channel's first value and merged as (mean, squared distances)
//     (Chan, Golub, LeVeque 1979), so that an offset does not hide the variance
//   - merges run in a fixed order, so results repeat; the counter of finished blocks resets itself
//   - groups may cut a thread's eight channels anywhere
// What registers hold is group_norm_held.cu's. Shapes that vectors do not fit take the plain kernels of group_plain.cuh.
#include "cuda/group_norm_held.h"
#include "cuda/group_plain.cuh"
#include "cuda/kernels.h"

enum {
    VEC = 8,
    THREADS = 512,
    DEPTH = 4, // pixels in flight for each thread
    MOST_CHUNKS = 264,
    MOST_BATCH = 1024, // of the fast kernels: counters
    LEAST_SETS = 24,   // blocks, for sets of groups to be normed apart
    MOST_ALONE = 1024  // pixels that one block takes
};

__device__ inline float warp_sum(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

struct gn_sums_in {
    int64_t xb, xp, pixels;
    int channels, groups, columns, rows; // columns = channels / VEC
    gn_add add;
    const float *weight, *bias;
    float eps;
    float2 *partial; // [batch, groups, chunks]: mean, sum of squared distances
    float2 *table;   // [batch, channels]: y = x * a + b; of the two passes
    float2 *told;    // in place of the table: [batch, groups] mean and squared distances, or NULL
};

// A block's place: one chunk of one sample's pixels, and each thread's channels and rows of pixels in it.
// slot counts samples, or sets of groups in samples where sets are normed apart.
struct gn_place {
    int chunk, chunks, row, column;
    int64_t b, slot, first, last;
};

__device__ inline gn_place place_of(int64_t pixels, int columns)
{
    gn_place w;
    w.chunk = blockIdx.x;
    w.chunks = gridDim.x;
    w.b = blockIdx.y;
    w.slot = w.b * gridDim.z + blockIdx.z;
    w.first = chunk_begin(pixels, w.chunk, w.chunks);
    w.last = chunk_begin(pixels, w.chunk + 1, w.chunks);
    w.row = threadIdx.x / columns;
    w.column = threadIdx.x - w.row * columns;
    return w;
}

// Sums of the chunk for each channel into shared [rows, channels]; with a slab, the pixels into it too.
template <class T>
__device__ inline void take_sums(const T *x, const gn_sums_in &p, const gn_place &w, float2 *shared,
                                 vec<T, VEC> *slab)
{
    if (w.row >= p.rows) return;
    float pivot[VEC], sum[VEC] = {}, square[VEC] = {};
    const T *base = x + w.b * p.xb + w.column * VEC;
    load<T, VEC>(base, pivot);
    for (int64_t at = w.first + w.row; at < w.last; at += p.rows * DEPTH) {
        vec<T, VEC> v[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            int64_t pixel = at + i * p.rows; // past the end: pixel 0 is the pivot and adds nothing
            v[i] = *(const vec<T, VEC> *)(base + (pixel < w.last ? pixel : 0) * p.xp);
        }
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            int64_t pixel = at + i * p.rows;
            if (slab && pixel < w.last) slab[(pixel - w.first) * p.columns + w.column] = v[i];
#pragma unroll
            for (int k = 0; k < VEC; k++) {
                float d = to_f32(v[i].v[k]) - pivot[k];
                sum[k] += d;
                square[k] += d * d;
            }
        }
    }
#pragma unroll
    for (int k = 0; k < VEC; k++)
        shared[w.row * p.channels + w.column * VEC + k] = make_float2(sum[k], square[k]);
}

// The block's sums into (mean, squared distances) of each group, for everybody to see.
template <class T>
__device__ inline void give_partial(const T *x, const gn_sums_in &p, const gn_place &w, float2 *shared)
{
    int per = p.channels / p.groups, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    float n = (float)(w.last - w.first);
    __syncthreads();
    // Many rows of few channels: a warp for each channel. It is the only one that touches its column.
    bool tall = p.rows > 32;
    int first = tall ? (int)threadIdx.x >> 5 : (int)threadIdx.x, step = tall ? warps : (int)blockDim.x;
    for (int c = first; c < p.channels; c += step) {
        float s = 0, q = 0;
        for (int r = tall ? lane : 0; r < p.rows; r += tall ? 32 : 1) {
            s += shared[r * p.channels + c].x;
            q += shared[r * p.channels + c].y;
        }
        if (tall) { // c is the same for the whole warp; the sums meet after the last lane's reads
            s = warp_sum(s);
            q = warp_sum(q);
        }
        float far = q - s * s / n;
        float mean = to_f32(x[w.b * p.xb + c]) + add_at(p.add, w.b, c) + s / n;
        if (!tall || !lane) shared[c] = make_float2(mean, far > 0 ? far : 0);
    }
    __syncthreads();
    for (int g = threadIdx.x >> 5; g < p.groups; g += warps) {
        const float2 *from = shared + g * per;
        float pivot = from[0].x, s = 0, q = 0, m = 0;
        for (int i = lane; i < per; i += 32) {
            float d = from[i].x - pivot;
            s += d;
            q += d * d;
            m += from[i].y;
        }
        s = warp_sum(s);
        q = warp_sum(q);
        m = warp_sum(m);
        float apart = q - s * s / (float)per;
        if (!lane)
            p.partial[(w.slot * p.groups + g) * w.chunks + w.chunk] =
                make_float2(pivot + s / (float)per, m + n * (apart > 0 ? apart : 0));
    }
    __threadfence();
    __syncthreads();
}

// All chunks of a slot into shared[group] = (mean, 1 / deviation), or (mean, squared distances), when their
// partials are there.
__device__ inline void merge_chunks(const gn_sums_in &p, int64_t slot, int chunks, float2 *shared,
                                    bool distances = false)
{
    int lane = threadIdx.x & 31, warps = blockDim.x >> 5, per = p.channels / p.groups;
    float count = (float)p.pixels;
    for (int g = threadIdx.x >> 5; g < p.groups; g += warps) {
        const float2 *from = p.partial + (slot * p.groups + g) * chunks;
        float pivot = __ldcg(&from->x), s = 0, q = 0, m = 0;
        for (int i = lane; i < chunks; i += 32) {
            float2 c = __ldcg(from + i);
            float n = (float)(chunk_begin(p.pixels, i + 1, chunks) - chunk_begin(p.pixels, i, chunks));
            float d = c.x - pivot;
            s += n * d;
            q += n * d * d;
            m += c.y;
        }
        s = warp_sum(s);
        q = warp_sum(q);
        m = warp_sum(m);
        float apart = q - s * s / count;
        float far = m + (float)per * (apart > 0 ? apart : 0);
        float var = far / (count * (float)per);
        if (!lane) shared[g] = make_float2(pivot + s / count, distances ? far : rsqrtf(var + p.eps));
    }
    __syncthreads();
}

// y = x * a + b of one channel, from its group's (mean, 1 / deviation).
__device__ inline float2 affine_from(const gn_sums_in &p, int64_t b, int c, float2 s)
{
    float a = p.weight ? s.y * p.weight[c] : s.y;
    float shift = (add_at(p.add, b, c) - s.x) * a;
    return make_float2(a, p.bias ? shift + p.bias[c] : shift);
}

__device__ inline float2 affine_of(const gn_sums_in &p, int64_t b, int c, const float2 *stats)
{
    return affine_from(p, b, c, stats[c / (p.channels / p.groups)]);
}

static __device__ unsigned gn_finished[MOST_BATCH]; // blocks of a sample that are done; 0 between launches
static __device__ unsigned gn_round[MOST_BATCH];    // how often a sample's blocks have met

// The first of two passes.
template <class T> __global__ void __launch_bounds__(THREADS) gn_fast_sums(const T *x, gn_sums_in p)
{
    __shared__ float2 shared[THREADS * VEC];
    __shared__ bool last_one;
    gn_place w = place_of(p.pixels, p.columns);
    take_sums<T>(x, p, w, shared, NULL);
    give_partial<T>(x, p, w, shared);
    if (!threadIdx.x) {
        last_one = atomicAdd(&gn_finished[w.b], 1u) == (unsigned)w.chunks - 1;
        if (last_one) gn_finished[w.b] = 0;
    }
    __syncthreads();
    if (!last_one) return;
    __threadfence();
    merge_chunks(p, w.slot, w.chunks, shared, p.told != NULL);
    if (p.told) {
        for (int g = threadIdx.x; g < p.groups; g += blockDim.x)
            p.told[w.b * p.groups + g] = shared[g];
        return;
    }
    for (int c = threadIdx.x; c < p.channels; c += blockDim.x)
        p.table[w.b * p.channels + c] = affine_of(p, w.b, c, shared);
}

// Waits for all blocks of the sample; all of them must be on the device at once (a cooperative launch).
__device__ inline void meet(int64_t b, unsigned blocks)
{
    if (!threadIdx.x) {
        unsigned round = atomicAdd(&gn_round[b], 0u);
        __threadfence(); // the round is known before this block counts
        if (atomicAdd(&gn_finished[b], 1u) == blocks - 1) {
            gn_finished[b] = 0;
            __threadfence();
            atomicAdd(&gn_round[b], 1u);
        } else {
            while (*(volatile unsigned *)&gn_round[b] == round) {
            }
        }
        __threadfence();
    }
    __syncthreads();
}

// SiLU for 16-bit results: the fast exponential's error lies far below their rounding.
template <class O, int ACT> __device__ inline float gn_act(float y, int act)
{
    if (ACT == 0) return y;
    if (ACT == 1) return sizeof(O) == 2 ? __fdividef(y, 1.0f + __expf(-y)) : activate(y, 1);
    return activate(y, act);
}

// One pass: the chunk waits in shared memory until all chunks' sums are known. p describes one set of
// groups, blockIdx.z says which. ACT: 0 none, 1 SiLU, 2 as `act` says.
template <class T, class O, int ACT>
__global__ void __launch_bounds__(THREADS, 1)
    gn_whole(const T *x, gn_sums_in p, O *out, int64_t ob, int64_t op, int act)
{
    extern __shared__ uint4 slab_bytes[]; // [pixels of the chunk, columns]
    __shared__ float2 shared[THREADS * VEC];
    vec<T, VEC> *slab = (vec<T, VEC> *)slab_bytes;
    gn_place w = place_of(p.pixels, p.columns);
    int c0 = blockIdx.z * p.channels;
    x += c0;
    out += c0;
    if (p.weight) p.weight += c0;
    if (p.bias) p.bias += c0;
    p.add.first = c0;
    take_sums<T>(x, p, w, shared, slab);
    give_partial<T>(x, p, w, shared);
    if (w.chunks > 1) meet(w.slot, (unsigned)w.chunks);
    merge_chunks(p, w.slot, w.chunks, shared);
    if (w.row >= p.rows) return;
    float a[VEC], shift[VEC];
#pragma unroll
    for (int k = 0; k < VEC; k++) {
        float2 t = affine_of(p, w.b, w.column * VEC + k, shared);
        a[k] = t.x;
        shift[k] = t.y;
    }
    out += w.b * ob + w.column * VEC;
    // Each thread meets the pixels that it put there itself.
    for (int64_t at = w.first + w.row; at < w.last; at += p.rows) {
        vec<T, VEC> v = slab[(at - w.first) * p.columns + w.column];
        float y[VEC];
#pragma unroll
        for (int k = 0; k < VEC; k++)
            y[k] = gn_act<O, ACT>(fmaf(to_f32(v.v[k]), a[k], shift[k]), act);
        store<O, VEC>(out + at * op, y);
    }
}

// ACT: 0 none, 1 SiLU, 2 as `act` says.
template <class T, class O, int ACT>
__global__ void __launch_bounds__(THREADS, 2)
    gn_fast_apply(const T *x, int64_t xb, int64_t xp, O *out, int64_t ob, int64_t op, int64_t pixels,
                  int channels, int columns, int rows, const float2 *table, int act)
{
    int64_t b = blockIdx.y;
    int64_t first = chunk_begin(pixels, blockIdx.x, gridDim.x),
            last = chunk_begin(pixels, blockIdx.x + 1, gridDim.x);
    int row = threadIdx.x / columns, column = threadIdx.x - row * columns;
    if (row >= rows) return;
    float a[VEC], shift[VEC];
    const float4 *from = (const float4 *)(table + b * channels + column * VEC);
#pragma unroll
    for (int k = 0; k < VEC / 2; k++) {
        float4 t = from[k];
        a[2 * k] = t.x;
        shift[2 * k] = t.y;
        a[2 * k + 1] = t.z;
        shift[2 * k + 1] = t.w;
    }
    x += b * xb + column * VEC;
    out += b * ob + column * VEC;
    int left = (int)(last - first) - row; // pixels of this row that are not done, from `first + left - 1` down
    x += (first + left - 1) * xp;
    out += (first + left - 1) * op;
    for (; left > 0; left -= rows * DEPTH) {
        vec<T, VEC> v[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++)
            if (left > i * rows) v[i] = *(const vec<T, VEC> *)(x - i * rows * xp);
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            float y[VEC];
#pragma unroll
            for (int k = 0; k < VEC; k++)
                y[k] = gn_act<O, ACT>(fmaf(to_f32(v[i].v[k]), a[k], shift[k]), act);
            if (left > i * rows) store<O, VEC>(out - i * rows * op, y);
        }
        x -= rows * DEPTH * xp;
        out -= rows * DEPTH * op;
    }
}

static bool gn_aligned(const at_view *v, size_t size)
{
    return (uintptr_t)v->data % (size * VEC > 16 ? 16 : size * VEC) == 0 && v->stride[0] % VEC == 0 &&
           v->stride[1] % VEC == 0 && v->shape[2] % VEC == 0;
}

static bool gn_is_fast(int64_t batch, int64_t channels, int groups)
{
    return channels % VEC == 0 && channels / VEC <= THREADS && batch <= MOST_BATCH &&
           groups <= THREADS * VEC;
}

// Blocks along the pixels: two for each multiprocessor of the largest GPUs over all samples, but no
// block with less than DEPTH pixels for each of its rows.
static int gn_fast_chunks(int64_t batch, int64_t pixels, int64_t channels)
{
    int64_t rows = THREADS / (channels / VEC), n = pixels / (rows * DEPTH), most = MOST_CHUNKS / batch;
    if (n > most) n = most;
    return n < 1 ? 1 : (int)n;
}

static gn_sums_in sums_in(const at_k_group_norm_in *a)
{
    const at_view *x = &a->x;
    float2 *scratch = (float2 *)a->partial;
    gn_sums_in in = {.xb = x->stride[0],
                     .xp = x->stride[1],
                     .pixels = x->shape[1],
                     .channels = (int)x->shape[2],
                     .groups = a->groups,
                     .columns = (int)x->shape[2] / VEC,
                     .rows = THREADS / ((int)x->shape[2] / VEC),
                     .add = {a->add.data, a->add.dtype, a->add.shape[0] > 1 ? a->add.stride[0] : 0, 0},
                     .weight = a->weight,
                     .bias = a->bias,
                     .eps = a->eps};
    // The table lies first: its rows are read in pieces of 16 bytes.
    in.table = scratch;
    in.partial = scratch + x->shape[0] * x->shape[2];
    return in;
}

// How one pass is cut: chunks of pixels that wait for each other, and sets of groups that need not.
struct gn_cut {
    int chunks, sets; // chunks 0: what a block would hold does not fit its shared memory
    size_t shared;
};

static gn_cut gn_cut_of(const at_k_group_norm_in *a, size_t element)
{
    int device = 0, blocks = 0, most = 0, cooperative = 0;
    int64_t b = a->x.shape[0], pixels = a->x.shape[1], c = a->x.shape[2];
    gn_cut none = {0, 1, 0};
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
        return none;
    size_t rest = (size_t)most - sizeof(float2) * THREADS * VEC - 1024;
    // The least channels that are whole groups and whole pieces: a block for each of them, if its pixels fit.
    int64_t unit = c / a->groups;
    while (unit % VEC)
        unit *= 2;
    size_t slab = (size_t)(pixels * unit) * element;
    if (c % unit == 0 && unit / VEC <= THREADS && slab <= rest && b * (c / unit) >= LEAST_SETS &&
        b * (c / unit) <= MOST_BATCH && pixels <= MOST_ALONE) {
        gn_cut cut = {1, (int)(c / unit), slab};
        return cut;
    }
    int64_t chunks = blocks / b, rows = THREADS / (c / VEC);
    if (!cooperative || chunks < 1) return none;
    if (chunks > MOST_CHUNKS) chunks = MOST_CHUNKS;
    if (chunks > pixels / rows) chunks = pixels / rows ? pixels / rows : 1;
    gn_cut cut = {(int)chunks, 1, (size_t)((pixels + chunks - 1) / chunks * c) * element};
    return cut.shared <= rest ? cut : none;
}

template <class T, class O, int ACT>
static cudaError_t gn_run_whole(cudaStream_t s, const at_k_group_norm_in *a, gn_cut cut)
{
    gn_sums_in in = sums_in(a);
    in.channels /= cut.sets;
    in.groups /= cut.sets;
    in.columns /= cut.sets;
    in.rows = THREADS / in.columns;
    const T *x = (const T *)a->x.data;
    O *out = (O *)a->out.data;
    int64_t ob = a->out.stride[0], op = a->out.stride[1];
    int act = a->act;
    void *args[] = {&x, &in, &out, &ob, &op, &act};
    const void *kernel = (const void *)gn_whole<T, O, ACT>;
    unsigned threads = (unsigned)(in.columns * in.rows + 31) / 32 * 32;
    cudaError_t e =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)cut.shared);
    if (e != cudaSuccess) return e;
    dim3 grid((unsigned)cut.chunks, (unsigned)a->x.shape[0], (unsigned)cut.sets);
    return cut.chunks > 1
               ? cudaLaunchCooperativeKernel(kernel, grid, dim3(threads), args, cut.shared, s)
               : cudaLaunchKernel(kernel, grid, dim3(threads), args, cut.shared, s);
}

template <class T, class O> static cudaError_t gn_two_passes(cudaStream_t s, const at_k_group_norm_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    unsigned b = (unsigned)x->shape[0];
    int chunks = gn_fast_chunks(b, x->shape[1], x->shape[2]);
    gn_sums_in in = sums_in(a);
    unsigned threads = (unsigned)(in.columns * in.rows + 31) / 32 * 32;
    dim3 grid((unsigned)chunks, b);
    gn_fast_sums<T><<<grid, threads, 0, s>>>((const T *)x->data, in);
#define APPLY(ACT)                                                                                 \
    gn_fast_apply<T, O, ACT><<<grid, threads, 0, s>>>(                                             \
        (const T *)x->data, x->stride[0], x->stride[1], (O *)o->data, o->stride[0], o->stride[1],  \
        in.pixels, in.channels, in.columns, in.rows, in.table, a->act)
    if (a->act == 0)
        APPLY(0);
    else if (a->act == 1)
        APPLY(1);
    else
        APPLY(2);
#undef APPLY
    return cudaGetLastError();
}

template <class T, class O> static cudaError_t gn_fast(cudaStream_t s, const at_k_group_norm_in *a)
{
    gn_cut cut = gn_cut_of(a, sizeof(T));
    cudaError_t e = cudaErrorInvalidValue;
    if (cut.chunks)
        e = a->act == 0 ? gn_run_whole<T, O, 0>(s, a, cut)
            : a->act == 1 ? gn_run_whole<T, O, 1>(s, a, cut)
                          : gn_run_whole<T, O, 2>(s, a, cut);
    if (e == cudaSuccess) return e;
    if (cut.chunks) (void)cudaGetLastError(); // a device that cannot hold all blocks at once
    return gn_two_passes<T, O>(s, a);
}

// --- any shape, any stride ---------------------------------------------------------------------
template <class T, class O> static cudaError_t gn_plain(cudaStream_t s, const at_k_group_norm_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    int b = (int)x->shape[0], channels = (int)x->shape[2];
    int64_t pixels = x->shape[1], per = channels / a->groups;
    int chunks = gn_plain_chunks(pixels), total = b * a->groups;
    gn_add add = {a->add.data, a->add.dtype, a->add.shape[0] > 1 ? a->add.stride[0] : 0, 0};
    gn_sums<T><<<dim3((unsigned)chunks, (unsigned)a->groups, (unsigned)b), PLAIN_THREADS, 0, s>>>(
        (const T *)x->data, x->stride[0], x->stride[1], add, pixels, channels, a->groups, a->partial);
    gn_finish<T><<<(unsigned)((total + 63) / 64), 64, 0, s>>>((const T *)x->data, x->stride[0], add,
                                                             channels, a->groups, pixels * per, a->eps,
                                                             a->partial, chunks, total, NULL);
    unsigned blocks = (unsigned)((pixels * channels + PLAIN_THREADS - 1) / PLAIN_THREADS);
    if (blocks > 8192) blocks = 8192;
    gn_apply<T, O><<<dim3(blocks, (unsigned)b), PLAIN_THREADS, 0, s>>>(
        (const T *)x->data, x->stride[0], x->stride[1], (O *)o->data, o->stride[0], o->stride[1], add,
        pixels, channels, a->groups, a->weight, a->bias, a->partial, chunks, a->act);
    return cudaGetLastError();
}

// --- one map over several devices ----------------------------------------------------------------
// What each part says of its pixels: parts[(i * batch + b) * groups + g], and how many they are.
struct gn_parts {
    const float2 *stats;
    int n;
    double pixels[AT_K_GROUP_PARTS];
};

// One thread a channel: its group's parts into y = x * a + b.
__global__ void gn_parts_table(gn_sums_in p, gn_parts parts, int64_t batch)
{
    int64_t b = blockIdx.y;
    int c = blockIdx.x * blockDim.x + threadIdx.x, per = p.channels / p.groups;
    if (c >= p.channels) return;
    const float2 *from = parts.stats + b * p.groups + c / per;
    double pixels = 0, mean = 0, far = 0;
    for (int i = 0; i < parts.n; i++) {
        double n = parts.pixels[i];
        float2 s = from[i * batch * p.groups];
        if (n == 0) continue;
        double apart = s.x - mean, all = pixels + n;
        mean += apart * n / all;
        far += (double)s.y + apart * apart * (double)per * pixels * n / all;
        pixels = all;
    }
    double var = far / (pixels * (double)per);
    float2 s = make_float2((float)mean, (float)(1.0 / sqrt(var + p.eps)));
    p.table[b * p.channels + c] = affine_from(p, b, c, s);
}

template <class T, class O>
__global__ void gn_table_apply(const T *x, int64_t xb, int64_t xp, O *out, int64_t ob, int64_t op,
                               int64_t pixels, int channels, const float2 *table, int act)
{
    int64_t b = blockIdx.y, total = pixels * channels;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t p = i / channels;
        int c = (int)(i - p * channels);
        float2 t = table[b * channels + c];
        float y = fmaf(to_f32(x[b * xb + p * xp + c]), t.x, t.y);
        out[b * ob + p * op + c] = from_f32<O>(activate(y, act));
    }
}

template <class T> static cudaError_t gn_tell(cudaStream_t s, const at_k_group_norm_in *a)
{
    const at_view *x = &a->x;
    int b = (int)x->shape[0], channels = (int)x->shape[2], total = b * a->groups;
    float2 *told = (float2 *)a->out.data;
    if (gn_is_fast(b, channels, a->groups) && gn_aligned(x, sizeof(T))) {
        gn_sums_in in = sums_in(a);
        in.told = told;
        unsigned threads = (unsigned)(in.columns * in.rows + 31) / 32 * 32;
        dim3 grid((unsigned)gn_fast_chunks(b, x->shape[1], channels), (unsigned)b);
        gn_fast_sums<T><<<grid, threads, 0, s>>>((const T *)x->data, in);
        return cudaGetLastError();
    }
    int chunks = gn_plain_chunks(x->shape[1]);
    gn_add add = {a->add.data, a->add.dtype, a->add.shape[0] > 1 ? a->add.stride[0] : 0, 0};
    gn_sums<T><<<dim3((unsigned)chunks, (unsigned)a->groups, (unsigned)b), PLAIN_THREADS, 0, s>>>(
        (const T *)x->data, x->stride[0], x->stride[1], add, x->shape[1], channels, a->groups, a->partial);
    gn_finish<T><<<(unsigned)((total + 63) / 64), 64, 0, s>>>(
        (const T *)x->data, x->stride[0], add, channels, a->groups, x->shape[1] * (channels / a->groups),
        a->eps, a->partial, chunks, total, told);
    return cudaGetLastError();
}

extern "C" cudaError_t at_k_group_stats(cudaStream_t s, const at_k_group_norm_in *a)
{
    if (!a->x.shape[0] || !a->x.shape[1]) return cudaSuccess;
    AT_FLOATS(a->x.dtype, T, return gn_tell<T>(s, a))
    return cudaErrorInvalidValue;
}

template <class T, class O> static cudaError_t gn_of_parts(cudaStream_t s, const at_k_group_norm_in *a)
{
    const at_view *x = &a->x, *o = &a->out;
    unsigned b = (unsigned)x->shape[0];
    int channels = (int)x->shape[2];
    bool fast = gn_is_fast(b, channels, a->groups) && gn_aligned(x, sizeof(T)) && gn_aligned(o, sizeof(O));
    gn_parts parts = {(const float2 *)a->parts.data, (int)a->parts.shape[0], {0}};
    for (int i = 0; i < parts.n; i++)
        parts.pixels[i] = (double)a->part_pixels[i];
    gn_sums_in in = {.pixels = x->shape[1],
                     .channels = channels,
                     .groups = a->groups,
                     .add = {a->add.data, a->add.dtype, a->add.shape[0] > 1 ? a->add.stride[0] : 0, 0},
                     .weight = a->weight,
                     .bias = a->bias,
                     .eps = a->eps,
                     .table = (float2 *)a->partial};
    gn_parts_table<<<dim3((unsigned)(channels + 63) / 64, b), 64, 0, s>>>(in, parts, b);
    if (!fast) {
        int64_t blocks = (x->shape[1] * channels + PLAIN_THREADS - 1) / PLAIN_THREADS;
        gn_table_apply<T, O><<<dim3((unsigned)(blocks > 8192 ? 8192 : blocks), b), PLAIN_THREADS, 0, s>>>(
            (const T *)x->data, x->stride[0], x->stride[1], (O *)o->data, o->stride[0], o->stride[1],
            x->shape[1], channels, in.table, a->act);
        return cudaGetLastError();
    }
    int columns = channels / VEC, rows = THREADS / columns;
    unsigned threads = (unsigned)(columns * rows + 31) / 32 * 32;
    gn_fast_apply<T, O, 2><<<dim3((unsigned)gn_fast_chunks(b, x->shape[1], channels), b), threads, 0, s>>>(
        (const T *)x->data, x->stride[0], x->stride[1], (O *)o->data, o->stride[0], o->stride[1],
        x->shape[1], channels, columns, rows, in.table, a->act);
    return cudaGetLastError();
}

extern "C" size_t at_k_group_norm_scratch(int64_t batch, int64_t pixels, int64_t channels, int groups)
{
    int64_t plain = batch * groups * gn_plain_chunks(pixels), fast = 0;
    if (plain < batch * channels) plain = batch * channels; // the table of gn_of_parts
    if (gn_is_fast(batch, channels, groups))
        fast = batch * (channels + (int64_t)groups * MOST_CHUNKS);
    return sizeof(float2) * (size_t)(fast > plain ? fast : plain);
}

template <class T, class O> static cudaError_t group_norm(cudaStream_t s, const at_k_group_norm_in *a)
{
    if (!a->x.shape[0] || !a->x.shape[1]) return cudaSuccess;
    if (a->parts.data) return gn_of_parts<T, O>(s, a);
    if (gn_is_fast(a->x.shape[0], a->x.shape[2], a->groups) && gn_aligned(&a->x, sizeof(T)) &&
        gn_aligned(&a->out, sizeof(O)))
        return a->held && at_k_group_norm_held(s, a) ? cudaSuccess : gn_fast<T, O>(s, a);
    return gn_plain<T, O>(s, a);
}

extern "C" cudaError_t at_k_group_norm(cudaStream_t s, const at_k_group_norm_in *a)
{
    AT_FLOATS(a->x.dtype, T, AT_FLOATS(a->out.dtype, O, return (group_norm<T, O>(s, a))))
    return cudaErrorInvalidValue;
}
