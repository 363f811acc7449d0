// SPDX-License-Identifier: Apache-2.0
// elem.cu - elementwise arithmetic over strided views: act(a), act(a) op b, x + gate * act(y).
// Idea: one kernel for all three, over slabs of pieces where every view allows it (slab.cuh), per
// element elsewhere. A gated unit is the product of two halves of one buffer, so it is binary too.
// Memory-bound: bytes are what counts. Where the result has 16 bits, activations take the fast
// exponential: its error of a few f32 roundings is far below one of the result's.
#include "cuda/fast_act.cuh"
#include "cuda/grid.cuh"
#include "cuda/kernels.h"
#include "cuda/slab.cuh"

enum elem_op { ELEM_ADD, ELEM_SUB, ELEM_MUL, ELEM_DIV, ELEM_ONLY, ELEM_GATE };
enum { OUT, A, B, GATE, THREADS = 256 };

struct elem_args {
    void *out;
    const void *in[ND_VIEWS]; // by view; NULL: absent
    int dtype[ND_VIEWS];
    int op, act;
    bool fast, back; // back: as in slab
};

// The switch outside, so that the elements' arithmetic runs side by side.
template <int E> __device__ inline void activate_all(float (&x)[E][PIECE], int act, bool fast)
{
#define EACH(f)                                                                                    \
    _Pragma("unroll") for (int e = 0; e < E; e++)                                                  \
        _Pragma("unroll") for (int k = 0; k < PIECE; k++) x[e][k] = f;                             \
    return
    if (act == 0) return;
    if (fast) switch (act) {
        case 1: EACH(activate_fast(x[e][k], 1));
        case 2: EACH(activate_fast(x[e][k], 2));
        case 3: EACH(activate_fast(x[e][k], 3));
        case 4: EACH(activate_fast(x[e][k], 4));
        default: break;
        }
#pragma unroll 1
    for (int n = 0; n < E * PIECE; n++) { // by turns: one copy of the code for every other case
        float first = activate(x[0][0], act);
#pragma unroll
        for (int i = 0; i < E * PIECE - 1; i++)
            x[i / PIECE][i % PIECE] = x[(i + 1) / PIECE][(i + 1) % PIECE];
        x[E - 1][PIECE - 1] = first;
    }
#undef EACH
}

__device__ inline float combine(float a, float b, int op)
{
    switch (op) {
    case ELEM_ADD: return a + b;
    case ELEM_SUB: return a - b;
    case ELEM_MUL: return a * b;
    default: return a / b;
    }
}

template <int E>
__device__ inline void combine_all(float (&a)[E][PIECE], const float (&b)[E][PIECE], int op)
{
#define EACH(f)                                                                                    \
    _Pragma("unroll") for (int e = 0; e < E; e++)                                                  \
        _Pragma("unroll") for (int k = 0; k < PIECE; k++) a[e][k] = f;                             \
    return
    switch (op) {
    case ELEM_ADD: EACH(a[e][k] + b[e][k]);
    case ELEM_SUB: EACH(a[e][k] - b[e][k]);
    case ELEM_MUL: EACH(a[e][k] * b[e][k]);
    default: EACH(a[e][k] / b[e][k]);
    }
#undef EACH
}

// GATED: out = in[A] + in[GATE] * act(in[B]), any of A and GATE absent; else act(in[A]) op in[B].
template <bool GATED, bool ACT, int E>
__global__ void __launch_bounds__(THREADS) elem_kernel(const slab s, const elem_args a)
{
    grid_begin();
    slab_at at = slab_here<E>(s, PIECE);
    if (!at.have) return;
    const int first = GATED ? B : A, second = GATED ? A : B;
    bool two = a.in[second] != NULL, gated = GATED && a.in[GATE] != NULL;
    raw_pieces<E> raw, raw2, raw3;
    slab_fetch<E>(s, first, a.in[first], a.dtype[first], at, raw);
    if (two) slab_fetch<E>(s, second, a.in[second], a.dtype[second], at, raw2);
    if (gated) slab_fetch<E>(s, GATE, a.in[GATE], a.dtype[GATE], at, raw3);
    float x[E][PIECE], y[E][PIECE];
    slab_floats<E>(s, first, a.dtype[first], at, raw, x);
    if (ACT) activate_all<E>(x, a.act, a.fast);
    if (gated) {
        slab_floats<E>(s, GATE, a.dtype[GATE], at, raw3, y);
        combine_all<E>(x, y, ELEM_MUL);
    }
    if (two) {
        slab_floats<E>(s, second, a.dtype[second], at, raw2, y);
        combine_all<E>(x, y, GATED ? (int)ELEM_ADD : a.op);
    }
    store_pieces<E>(a.out, a.dtype[OUT], slab_offset(s, OUT, at), s.step[OUT], at.have, x);
}

// Any strides, any address: a thread an element.
template <bool GATED> __global__ void elem_plain_kernel(const nd_plan p, const elem_args a)
{
    int64_t total = p.row * p.rows;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * THREADS) {
        int64_t r = i / p.row, at = i - r * p.row;
        float v[ND_VIEWS] = {};
#pragma unroll
        for (int n = A; n <= (GATED ? GATE : B); n++)
            if (a.in[n]) v[n] = one_at(a.in[n], a.dtype[n], nd_offset(p, n, r) + at * p.inner[n]);
        float y = activate(v[GATED ? B : A], a.act);
        if (GATED && a.in[GATE]) y *= v[GATE];
        if (a.in[GATED ? A : B]) y = GATED ? v[A] + y : combine(y, v[B], a.op);
        put_at(a.out, a.dtype[OUT], nd_offset(p, OUT, r) + at * p.inner[OUT], y);
    }
}

static size_t float_size(int dtype)
{
    return dtype == AT_F32 ? 4 : 2;
}

static bool is_float(at_dtype t)
{
    return t == AT_F32 || t == AT_F16 || t == AT_BF16;
}

template <bool GATED>
static cudaError_t launch(cudaStream_t st, const nd_plan &p, int n, const elem_args &a)
{
    enum { ENOUGH = 132 * 2048 }; // threads that fill a large chip
    const void *data[ND_VIEWS] = {a.out, a.in[1], a.in[2], a.in[3]};
    size_t size[ND_VIEWS];
    slab s;
    for (int v = 0; v < n; v++)
        size[v] = float_size(a.dtype[v]);
    int64_t pieces = p.rows * p.row / PIECE;
    bool whole = slab_make(&s, p, n, data, size, PIECE);
    s.back = a.back;
    if (!whole) {
        int64_t blocks = (p.rows * p.row + THREADS - 1) / THREADS;
        if (blocks > 0x7fffffff) blocks = 0x7fffffff;
        elem_plain_kernel<GATED><<<(unsigned)blocks, THREADS, 0, st>>>(p, a);
    } else if (s.rows < 4 || pieces < 2 * ENOUGH) {
        return launch_early(elem_kernel<GATED, true, 1>, slab_grid(s, PIECE, 1), s.threads, 0, st,
                            s, a);
    } else if (a.act) {
        return launch_early(elem_kernel<GATED, true, 2>, slab_grid(s, PIECE, 2), s.threads, 0, st,
                            s, a);
    } else {
        constexpr int each = GATED ? 2 : 4; // three operands, or at most two
        return launch_early(elem_kernel<GATED, false, each>, slab_grid(s, PIECE, each), s.threads,
                            0, st, s, a);
    }
    return cudaGetLastError();
}

static cudaError_t binary(cudaStream_t s, const at_view *a, const at_view *b, const at_view *out,
                          int op, int act, bool back)
{
    const at_view *views[] = {out, a, b};
    int n = b ? 3 : 2;
    for (int v = 0; v < n; v++)
        if (!is_float(views[v]->dtype)) return cudaErrorInvalidValue;
    nd_plan p = nd_make(n, views);
    if (p.rows * p.row == 0) return cudaSuccess;
    elem_args e = {};
    e.out = out->data;
    for (int v = 0; v < n; v++) {
        e.in[v] = views[v]->data;
        e.dtype[v] = views[v]->dtype;
    }
    e.op = op;
    e.act = act;
    e.back = back;
    e.fast = out->dtype != AT_F32;
    return launch<false>(s, p, n, e);
}

extern "C" cudaError_t at_k_unary(cudaStream_t s, const at_view *x, const at_view *out, int act)
{
    return binary(s, x, NULL, out, ELEM_ONLY, act, false);
}

extern "C" cudaError_t at_k_binary(cudaStream_t s, const at_view *a, const at_view *b,
                                   const at_view *out, int op, int act_a)
{
    return binary(s, a, b, out, op, act_a, false);
}

// out[.., j] = y[.., j] * act(y[.., n + j]). Backwards: y is a product's result and may be larger than the L2 cache (42
// MB in SDXL), which holds its end; what is written last here is what the next product begins with.
extern "C" cudaError_t at_k_geglu(cudaStream_t s, const at_view *y, const at_view *out, int act)
{
    at_view value = *y, gate = *y;
    value.shape[2] = gate.shape[2] = out->shape[2];
    gate.data = (char *)y->data + (size_t)out->shape[2] * float_size(y->dtype);
    return binary(s, &gate, &value, out, ELEM_MUL, act, true);
}

extern "C" cudaError_t at_k_gate_add(cudaStream_t s, const at_view *x, const at_view *y,
                                     const at_view *gate, const at_view *out, int act)
{
    at_view g = *out; // [b, 1, n] over [b, t, n]
    bool gated = gate && gate->data, add = x && x->data;
    if (gated) {
        g = *gate;
        g.rank = 3;
        g.shape[0] = out->shape[0];
        g.shape[1] = 1;
        g.shape[2] = out->shape[2];
        g.stride[0] = gate->shape[0] == 1 ? 0 : gate->stride[0];
        g.stride[1] = 0;
        g.stride[2] = gate->stride[1];
    }
    const at_view *views[] = {out, add ? x : out, y, &g};
    for (int v = 0; v < 4; v++)
        if (!is_float(views[v]->dtype)) return cudaErrorInvalidValue;
    nd_plan p = nd_make(4, views);
    if (p.rows * p.row == 0) return cudaSuccess;
    elem_args e = {};
    e.out = out->data;
    for (int v = 0; v < 4; v++) {
        e.in[v] = views[v]->data;
        e.dtype[v] = views[v]->dtype;
    }
    e.in[OUT] = NULL;
    if (!add) e.in[A] = NULL;
    if (!gated) e.in[GATE] = NULL;
    e.act = act;
    e.fast = out->dtype != AT_F32;
    return launch<true>(s, p, 4, e);
}
