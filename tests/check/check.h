// SPDX-License-Identifier: Apache-2.0
// check.h - how a row of the check table is made concrete, run on every twin, and judged.
// Idea: a row becomes tensors with guard bytes; truth is computed in double with a magnitude for
// every output (the sum of absolute values that went into it), so one tolerance per dtype and op
// suffices:
//   |out - truth| <= store(dtype) * |truth| + least(dtype) + sum(op) * magnitude
// Owns: a ck_run owns its tensors and truth until ck_run_free.
#ifndef AT_TESTS_CHECK_H
#define AT_TESTS_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atelier/backend.h"

typedef enum ck_fill {
    CK_UNIT,   // uniform in [-1, 1)
    CK_LARGE,  // times 1e4 (fp8: times 64)
    CK_SMALL,  // times 1e-15 (fp8 and f16: times 2^-6)
    CK_MIXED,  // signs and magnitudes from e^-6 to e^6
    CK_OFFSET, // 100 + unit: the mean hides the variance
    CK_WIDE,   // uniform in [-12, 12): where activations bend and saturate
    CK_MASK,   // 0 or -inf, each by chance
    CK_POSITIVE
} ck_fill;

// Layout of a view over its block.
typedef struct ck_layout {
    int pad;            // elements between rows, and between outer dimensions
    int shift;          // elements after a 64-byte boundary
    unsigned broadcast; // bit d: stride 0 in dimension d (inputs only)
    int gap;            // stride of the last dimension is 1 + gap
    int slab;           // elements between slabs of the last two dimensions: q inside a fused qkv
} ck_layout;

typedef struct ck_tensor {
    at_view v;
    uint8_t *block, *pristine, *owned; // owned[i]: byte i belongs to an element
    size_t bytes;
    bool also_written; // beside the output: its bytes may change
} ck_tensor;

#define CK_TENSORS 12
typedef struct ck_run {
    const struct ck_op *op;
    ck_tensor t[CK_TENSORS]; // t[0] is the output
    int n;
    at_packed packed, packed2; // of the weight, and of the vector beside it
    at_view scales; // fp8 rows of the output: element = byte * scale of its row; data NULL: none
    void *stream;   // what every slot is called with: the CPU's is NULL
    union {
        at_linear_args linear;
        at_geglu_args geglu;
        at_attention_args attention;
        at_attention_merge_args merge;
        at_norm_args norm;
        at_group_norm_args group_norm;
        at_rope_args rope;
        at_rope_args ropes[AT_ROPES];
        at_conv2d_args conv2d;
        at_binary_args binary;
        at_gate_add_args gate_add;
        at_lincomb_args lincomb;
        at_embedding_args embedding;
        struct {
            at_view x, out;
            at_act act;
            double value;
        } simple;
    } a;
    at_rope_args turns[AT_ROPES]; // of attention
    double *truth, *mag;          // one per output element, row-major
    double flops, bytes;          // what bench divides by time
    uint64_t seed;
} ck_run;

typedef struct ck_op {
    const char *name;
    size_t slot; // offset in at_backend
    double sum;  // error of sums, relative to the magnitude
    bool exact;  // a twin must agree with plain C bit for bit
    int rows;
    const char *(*label)(int row, char out[160]);
    bool (*bench_only)(int row);
    void (*build)(ck_run *r, int row);
    at_status (*call)(const at_backend *b, ck_run *r);
    void (*truth)(ck_run *r);
} ck_op;

extern const ck_op ck_linear, ck_attention, ck_norm, ck_group_norm, ck_rope, ck_ropes, ck_conv2d,
    ck_unary, ck_binary, ck_gate_add, ck_lincomb, ck_copy, ck_fill_op, ck_embedding, ck_geglu,
    ck_attention_lse, ck_attention_merge;

// One more tensor of the run, filled; its view. Index 0 (the first made) is the output.
at_view ck_make(ck_run *r, at_dtype dtype, int rank, const int64_t *shape, ck_layout layout,
                ck_fill fill);
#define CK_SHAPE(...)                                                                              \
    (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[])                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
// Where the scales of the output's fp8 rows go, and what plain C does for a backend that makes or reads none:
// floats of n rows to e4m3 and back.
at_view ck_make_scales(ck_run *r, int64_t rows);
void ck_to_rows8(const float *from, int64_t rows, int64_t k, uint8_t *to, float *scales);
at_wview ck_weight(ck_run *r, at_dtype dtype, int rank, const int64_t *shape, ck_fill fill,
                   float scale);
void ck_run_free(ck_run *r);
void ck_forget_packed(ck_run *r); // frees what a twin made of the row's weights
// The value of an element, decoded here and not by the code under test.
double ck_value(const at_view *v, int64_t element);
double ck_act(double x, at_act act);
// Element offset of row-major index i.
int64_t ck_offset(const at_view *v, int64_t i);
int64_t ck_count(const at_view *v);
double ck_store_error(at_dtype t);
double ck_least_error(at_dtype t);
void ck_random(uint64_t seed);
double ck_uniform(void); // [0, 1)
// What rounding both sides of a sum of products to 127 steps may cost. A rounding error is uniform over a step s,
// its variance s^2/12; the products' errors are independent, so the sum's deviation is the root of
//   sum over k of (sx^2 w^2 + sw^2 x^2) / 12 + sx^2 sw^2 / 144
// and six deviations are the limit (2e-9 of normal values lie outside). Steps: the largest magnitudes over 127.
typedef struct ck_q8 {
    double most_x, most_w, x2, w2, xw2, n;
} ck_q8;
// A weight that is rounded to bf16 (x is bf16, w is finer) errs by up to 2^-9 of itself, uniformly: six deviations.
double ck_bf16_error(const ck_q8 *q, at_dtype x, at_dtype w);
void ck_q8_add(ck_q8 *q, double x, double w);
double ck_q8_error(const ck_q8 *q);
// The same for e4m3 with a scale a row on both sides.
double ck_f8_error(const ck_q8 *q);
size_t ck_size(at_dtype t);
const char *ck_dtype_name(at_dtype t);
int64_t ck_dim(const at_view *v, int d);

#endif
