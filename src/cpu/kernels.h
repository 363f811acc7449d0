// SPDX-License-Identifier: Apache-2.0
// kernels.h - the vector kernels that one instruction set provides, and the drivers over them.
// Idea: blocking, parallelism, strides and dtypes are written once in plain C (gemm.c, gemm_conv.c,
// flash.c, fast_*.c); an instruction set is a table of leaves: a register tile, a panel packer, row
// arithmetic. A new processor is one more table.
// Owns nothing: every buffer is the caller's. Any thread.
#ifndef AT_CPU_KERNELS_H
#define AT_CPU_KERNELS_H

#include "atelier/backend.h"

// What happens to a finished row of sums, in this order; absent pointers are NULL.
typedef struct at_cpu_finish {
    float scale;       // 1: nothing
    const float *bias; // [n]
    at_act act;
    const float *gate;     // [n]
    const float *residual; // [n]
} at_cpu_finish;

typedef struct at_cpu_kernels {
    const char *name; // "avx2"
    int mr, nr, kc;   // the register tile: mr rows of x, nr rows of w; K of one call

    // c[i][j] (+)= sum over segments s and k < k_len of
    //     a[i * lda + off[s] + k] * b[(s * k_len + k) * nr + j]
    //   for i < rows <= mr, j < nr.   `add`: keep what c holds. off may be NULL for one segment.
    void (*tile)(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                 int64_t lda, const float *b, float *c, int64_t ldc, bool add);
    // The same over pairs of bf16 (one float holds two neighbours along K); NULL if there is none.
    void (*pair_tile)(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                      int64_t lda, const float *b, float *c, int64_t ldc, bool add);
    // pair_tile in matrix registers, for whole blocks of 32 rows by nr = 32 and steps of 16 pairs; begin and end stand
    // around a run of calls on each thread. NULL if there are none.
    void (*matrix_tile)(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                        int64_t lda, const float *b, float *c, int64_t ldc, bool add);
    void (*matrix_begin)(void);
    void (*matrix_end)(void);
    // The same over pairs of int16 that hold int8 (int8.c), one segment, sums in int32; NULL if there is none. And
    // its packer: dst[k][nr] pairs from rows of bytes.
    void (*int8_tile)(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                      int64_t lda, const float *b, float *c, int64_t ldc, bool add);
    void (*int8_pack)(float *dst, const int8_t *w, int64_t ldw, int n, int64_t k);
    // dst[k][nr] = rows of w transposed, as f32: element (j, k) is w[j * ldw + first + k], zero for
    // j >= n.
    void (*pack)(float *dst, const void *w, at_dtype t, int64_t first, int64_t ldw, int n,
                 int64_t k);
    // out[i * ldo + j] = x[i] . w[j] for i < m <= 6, j < n: few rows; w of any float dtype is
    // read in place.
    void (*dots)(float *out, int64_t ldo, const float *x, int64_t ldx, int m, const void *w,
                 at_dtype t, int64_t first, int64_t ldw, int64_t n, int64_t k);

    // Winograd's F(4x4, 3x3) on n channels (winograd.c), NULL if there is none. 36 places lie `step` floats apart.
    //   input: v = transform of the 6x6 pixels px; output: y [16] pixels, `ld` apart, from products m;
    //   filter: u from nr filters g [9][nr].
    void (*wino_input)(float *v, int64_t step, const float *const px[36], int64_t n);
    void (*wino_output)(float *y, int64_t ld, const float *m, int64_t step, int64_t n);
    void (*wino_filter)(float *u, int64_t step, const float *g, int nr);

    // Rows of n elements; load and store as at_cpu_load and at_cpu_store.
    void (*load)(float *dst, const void *base, at_dtype t, int64_t first, int64_t stride,
                 int64_t n);
    void (*store)(void *base, at_dtype t, int64_t first, int64_t stride, const float *src,
                  int64_t n);
    void (*finish)(float *y, const float *x, int64_t n, const at_cpu_finish *f); // y may be x
    void (*binary)(float *x, const float *y, int64_t n, at_binary_op op);        // x = x op y
    void (*mul_add)(float *x, const float *g, const float *y, int64_t n);        // x += g * y
    void (*axpy)(float *x, float c, const float *y, int64_t n);                  // x += c * y
    float (*sum)(const float *x, int64_t n);
    float (*squares)(const float *x, float mean, int64_t n); // sum of (x - mean)^2
    // y = (x - mean) * rstd, then * w + b, then * (1 + s) + t; absent pointers are NULL.
    void (*norm)(float *y, const float *x, int64_t n, float mean, float rstd, const float *w,
                 const float *b, const float *s, const float *t);
    // Over `rows` rows that lie `pitch` floats apart: acc += x; acc += (x - mean)^2.
    void (*channel_sum)(float *acc, const float *x, int64_t n, int64_t rows, int64_t pitch);
    void (*channel_squares)(float *acc, const float *x, const float *mean, int64_t n, int64_t rows,
                            int64_t pitch);
    // y = act(x * a + b) for each of the rows
    void (*channel_affine)(float *y, int64_t y_pitch, const float *x, int64_t x_pitch,
                           const float *a, const float *b, int64_t n, int64_t rows, at_act act);
    void (*rotate)(float *x, const float *cos, const float *sin, int64_t half, bool halves);
    float (*max)(const float *x, int64_t n); // -inf if n is 0
    // int8 (int8.h): the largest magnitude, NaN if there is one; x * inverse to the nearest whole number, as bytes
    // or as 16-bit words; sums back to floats, x * scale * scales.
    float (*absmax)(const float *x, int64_t n);
    void (*quantise)(int8_t *q, const float *x, float inverse, int64_t n);
    void (*quantise_words)(int16_t *q, const float *x, float inverse, int64_t n);
    void (*from_s32)(float *y, const int32_t *x, float scale, const float *scales, int64_t n);
    float (*exp_sum)(float *x, float minus, int64_t n); // x = exp(x - minus), returns the sum
    void (*scale)(float *x, float by, int64_t n);
    // p: n bf16, exp(x * scale - minus), with a zero behind an odd n; returns their sum before rounding. NULL if
    // there is no pair_tile.
    float (*exp_pairs)(float *p, const float *x, float scale, float minus, int64_t n);
} at_cpu_kernels;

// The drivers: the slots' work on top of a table.
at_status at_cpu_gemm_linear(const at_cpu_kernels *k, const at_linear_args *a);
at_status at_cpu_gemm_geglu(const at_cpu_kernels *k, const at_geglu_args *a);
at_status at_cpu_gemm_conv2d(const at_cpu_kernels *k, const at_conv2d_args *a);
at_status at_cpu_flash_attention(const at_cpu_kernels *k, const at_attention_args *a);
at_status at_cpu_fast_norm(const at_cpu_kernels *k, const at_norm_args *a);
at_status at_cpu_fast_group_norm(const at_cpu_kernels *k, const at_group_norm_args *a);
at_status at_cpu_fast_group_stats(const at_cpu_kernels *k, const at_group_norm_args *a);
at_status at_cpu_fast_rope(const at_cpu_kernels *k, const at_rope_args *a);
at_status at_cpu_fast_copy(const at_cpu_kernels *k, const at_view *src, const at_view *dst);
at_status at_cpu_fast_unary(const at_cpu_kernels *k, const at_view *x, const at_view *out,
                            at_act act);
at_status at_cpu_fast_binary(const at_cpu_kernels *k, const at_binary_args *a);
at_status at_cpu_fast_gate_add(const at_cpu_kernels *k, const at_gate_add_args *a);
at_status at_cpu_fast_lincomb(const at_cpu_kernels *k, const at_lincomb_args *a);

// f32 elements [first, first + n): in place when they already are, else converted into buf.
static inline const float *at_cpu_row(const at_cpu_kernels *k, float *buf, const void *base,
                                      at_dtype t, int64_t first, int64_t stride, int64_t n)
{
    if (t == AT_F32 && stride == 1) return (const float *)base + first;
    k->load(buf, base, t, first, stride, n);
    return buf;
}

// The table of the widest instructions that this CPU has and AT_OFF allows; NULL if there is none.
const at_cpu_kernels *at_cpu_table(void);
extern const at_cpu_kernels at_cpu_avx2_table, at_cpu_avx512_table, at_cpu_avx512bf16_table,
    at_cpu_amx_table;

// What each set does to a backend; to be called only if the CPU has the instructions.
void at_cpu_use_avx2(at_backend *b);
void at_cpu_use_avx512(at_backend *b);
void at_cpu_use_avx512bf16(at_backend *b);
void at_cpu_use_amx(at_backend *b);
bool at_cpu_amx_allowed(void);         // asks the kernel for the registers; the CPU must have them
void at_cpu_use_onednn(at_backend *b); // where it is the faster one: bf16
void at_cpu_use_onednn_all(at_backend *b); // f32 too, to compare

#endif
