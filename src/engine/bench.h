// SPDX-License-Identifier: Apache-2.0
// bench.h - speed of a model on random weights of its true shape: no download needed.
// Idea: a store filled with N(0, 0.02)-like noise in the real key layout goes through the same detection,
// binding, sessions and ops as a file in a job; the report says what share of this machine's own rates it
// reached. A device that records is timed by its own clock over steps that follow each other as in a run.
// Owns nothing beyond the call.
#ifndef AT_ENGINE_BENCH_H
#define AT_ENGINE_BENCH_H

#include "engine/bench_fill.h"
#include "engine/bench_load.h"
#include "engine/ceilings.h"
#include "engine/trace_ranks.h"
#include "engine/trace_table.h"
#include "models/models.h"
#include "par/mesh.h"

typedef enum at_bench_work { AT_BENCH_FORWARD, AT_BENCH_ENCODE } at_bench_work; // encode: of a VAE

// A model's shape by name. `doubles`, `singles`: block counts, < 0: the true ones (CPU runs reduce them).
typedef struct at_bench_shape {
    const char *name, *title;
    at_part part;
    at_status (*fill)(at_store *s, at_fill_as as, int doubles, int singles);
    int text_tokens; // as its workflows have them; 0: no text
    at_bench_work work;
    bool f16; // at_arch_f16 of it
} at_bench_shape;
extern const at_bench_shape at_bench_shapes[];
extern const size_t at_bench_shape_count;
const at_bench_shape *at_bench_shape_find(const char *name); // NULL if unknown

enum { AT_BENCH_RANKS = 16 };

typedef struct at_bench_options {
    const at_bench_shape *shape;
    at_device *device;
    at_dtype compute, storage;
    bool int8; // wide layers may multiply in int8
    bool fp8;  // or in fp8
    int batch; // pictures, or both halves of a guided one
    int width, height, steps, doubles, singles;
    int text_tokens;   // 0: the shape's own
    bool by_op;        // also a run op by op (a device with marks always has one)
    bool first;        // and the first step, by the host's clock: where start-up goes
    const char *trace; // NULL, or the file that gets the first of these runs
    bool trace_ops;    // of several ranks: op by op instead of recorded steps
    int ranks;         // 1 (or 0), or so many devices that share the work by `degrees`
    at_device *devices[AT_BENCH_RANKS]; // the first is `device`
    at_degrees degrees;
    at_comm
        *world; // the ranks are processes, and this is this one's comm (borrowed); NULL: threads
    const char *comm; // of threads: at_engine_config.comm
    at_store *store;  // weights that are there already; NULL: they are made
    bool quick;       // steps alone: no ceilings, nothing op by op
} at_bench_options;

enum { AT_BENCH_KERNELS = 200, AT_BENCH_BATCH = 64 };

// Ops of one step, taken apart in a run of its own; steps 0: it was not.
typedef struct at_bench_ops {
    int steps;   // that were traced
    double wall; // seconds of the last of them on the host's clock
    at_trace_sum classes[AT_CLASSES], kernels[AT_BENCH_KERNELS];
    size_t n_kernels;
} at_bench_ops;

// Of one of several ranks while steps were timed.
typedef struct at_bench_rank {
    at_wire_spent spent; // of one step
    at_load load;
} at_bench_rank;

typedef struct at_bench_report {
    double load_seconds; // making the random weights and binding them
    // Seconds: the first step (weights go to the device, plans are made), the second (a forward is
    // recorded; 0 where nothing is), the median of the rest, and what the host saw of each of those.
    double first_step, second_step, step, wall_step;
    at_load load;      // while these were timed
    at_ops_stats work; // of one step; its times are the host's
    at_ceilings ceilings;
    double blocks[256]; // seconds of each block in the last step; none on a device that records
    size_t block_count;
    size_t peak_bytes, device_peak_bytes; // of host memory and of the device's, at the highest
    at_device_holds holds;                // where the device's is, of one that keeps books
    double planned_bytes;   // in use at the highest, as `plan` would say; 0: it could not
    at_bench_ops ops;       // of a later step, on the device's clock
    at_bench_ops first_ops; // of the first, on the host's
    at_bench_rank ranks[AT_BENCH_RANKS];       // of several
    at_trace_rank_row by_rank[AT_TRACE_RANKS]; // of `trace` with several ranks
    int n_by_rank;
    double difference; // of several ranks' result from one rank's, relative; 0: not asked
} at_bench_report;

// Random weights of b->shape, for several runs.
at_status at_bench_store(const at_bench_options *b, at_store **out);
at_status at_bench_run(const at_bench_options *options, at_bench_report *out);

#endif
