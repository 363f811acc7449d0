// SPDX-License-Identifier: Apache-2.0
// bench.h - speed of a model on random weights of its true shape: no download needed.
// Idea: a store filled with N(0, 0.02)-like noise in the real key layout goes through the same detection,
// binding and ops as a file; the report says what share of this machine's own matmul rate it reached.
// Owns nothing beyond the call.
#ifndef AT_ENGINE_BENCH_H
#define AT_ENGINE_BENCH_H

#include "engine/trace_table.h"
#include "models/models.h"

// A model's shape by name. `doubles`, `singles`: block counts, < 0: the true ones (CPU runs reduce them).
typedef struct at_bench_shape {
    const char *name, *title;
    at_part part;
    at_status (*fill)(at_store *s, at_dtype storage, int doubles, int singles);
} at_bench_shape;
extern const at_bench_shape at_bench_shapes[];
extern const size_t at_bench_shape_count;
const at_bench_shape *at_bench_shape_find(const char *name); // NULL if unknown

// One random matrix as a record of `s`.
at_status at_bench_add_matrix(at_store *s, const char *name, at_dtype storage, int64_t rows,
                              int64_t cols);

typedef struct at_bench_options {
    const at_bench_shape *shape;
    at_device *device;
    at_dtype compute, storage;
    bool int8; // wide layers may multiply in int8
    int width, height, steps, text_tokens, doubles, singles;
    const char *trace; // NULL, or the file that gets the traced steps
} at_bench_options;

enum { AT_BENCH_KERNELS = 200 };

typedef struct at_bench_report {
    double load_seconds;     // making the random weights and binding them
    double first_step, step; // seconds: the first (packs weights), and the median of the timed ones
    double settle;           // two steps between, on a device that records the forward meanwhile
    double linear_flops, linear_seconds, attention_flops, attention_seconds, conv_flops,
        conv_seconds,
        other_seconds;  // of one median step
    double ceiling;     // FLOP/s of one large linear layer in the same run and dtype
    double blocks[256]; // seconds of each block in the last step
    size_t block_count;
    size_t peak_bytes; // host memory at its highest
    // of one step, op by op, in a run of its own (device times; none where nothing was traced)
    int traced_steps;
    at_trace_sum classes[AT_CLASSES], kernels[AT_BENCH_KERNELS];
    size_t n_kernels;
} at_bench_report;

at_status at_bench_run(const at_bench_options *options, at_bench_report *out);

#endif
