// SPDX-License-Identifier: Apache-2.0
// gemm.h - the linear layer as its drivers see it (gemm.c, onednn_linear.c).
// Idea: a driver brings sums; what happens to a finished row is the same for all.
// Owns: a gemm owns its bias until at_cpu_gemm_close.
#ifndef AT_CPU_GEMM_H
#define AT_CPU_GEMM_H

#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

enum {
    GEMM_NC = 512, // columns that are finished at a time, at most
    GEMM_PAD = 16  // floats between rows of scratch, against cache aliasing
};

typedef struct gemm {
    const at_cpu_kernels *k;
    const at_linear_args *a;
    at_view x, w, out, residual,
        gate; // in pair mode x and w hold pairs of bf16 as if they were f32
    int64_t m, n, kk, tokens;
    void (*tile)(int, int, const int64_t *, int64_t, const float *, int64_t, const float *, float *,
                 int64_t, bool);
    bool glu;            // w has n value rows, then n gate rows; out = value * act(gate)
    const float *bias;   // f32 [n], with glu [2n], or NULL
    float *panels;       // [columns / nr][kk][nr]; with glu those of the gate rows follow
    int64_t n0, columns; // the block of w that is packed
    int64_t mc, nc, m_tasks;
    const int8_t *q_w; // int8: rows of 2 * kk bytes, else NULL; tile, x and kk are in pairs
    const float *q_rows, *q_columns; // and the scales
    const float *few;                // dots: f32 rows
    int64_t few_stride;
    at_cpu_oom oom;
} gemm;

static inline int64_t round_up(int64_t v, int64_t to)
{
    return (v + to - 1) / to * to;
}
static inline int64_t at_most(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
// Offset of row m of a [batch, tokens, features] view.
static inline int64_t row_offset(const at_view *v, int64_t m, int64_t tokens)
{
    return m / tokens * at_cpu_step(v, 0) + m % tokens * at_cpu_step(v, 1);
}

// Ask for a part of the next panel while a tile runs on this one: it arrives in the second cache.
static inline void at_cpu_fetch_ahead(const float *next, int64_t floats, int64_t part,
                                      int64_t parts)
{
    int64_t each = round_up((floats + parts - 1) / parts, 16);
    for (int64_t i = part * each; i < at_most((part + 1) * each, floats); i += 16)
        __builtin_prefetch(next + i, 0, 2);
}

bool at_cpu_gemm_dtype(at_dtype t); // the weight formats that leaves can load
at_status at_cpu_gemm_open(gemm *g, const at_cpu_kernels *k, const at_linear_args *a);
void at_cpu_gemm_close(gemm *g);
at_status at_cpu_gemm_many(gemm *g); // many rows: pack, multiply, finish
// int8 (int8.c), for an opened g: whether it is wanted and worth it, and the work.
bool at_cpu_int8_pays(const at_cpu_kernels *k, const at_linear_args *a);
at_status at_cpu_int8_linear(gemm *g, const at_linear_args *a);
// The linear layer whose sums make a gated unit: its out is the unit's, its w and bias are twice as long.
at_linear_args at_cpu_glu_linear(const at_geglu_args *a);
// Finish row m, columns [n, n + count) of sums c, in place, and store it. count <= GEMM_NC.
void at_cpu_gemm_finish_row(const gemm *g, float *c, int64_t m, int64_t n, int64_t count);
// The same with glu, for value sums c and gate sums d.
void at_cpu_gemm_finish_glu(const gemm *g, float *c, float *d, int64_t m, int64_t n, int64_t count);

#endif
