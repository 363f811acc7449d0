// SPDX-License-Identifier: Apache-2.0
// bench_fill.h - how bench fills a store: a list of layers reads as a list, the first failure stays.
// Ownership: records belong to the store.
#ifndef AT_ENGINE_BENCH_FILL_H
#define AT_ENGINE_BENCH_FILL_H

#include "weight/store.h"

typedef struct at_noise {
    uint64_t state;
    at_dtype dtype;
    float scale, shift;
} at_noise;

// How: in this format; or zeros that take no memory, where only shapes count.
typedef struct at_fill_as {
    at_dtype dtype;
    bool zeros;
} at_fill_as;

// Adds records with a sticky status, so that a list of shapes reads as a list.
typedef struct at_filler {
    at_store *store;
    at_dtype dtype;
    bool zeros;
    at_noise n;
    at_status st;
    char prefix[64];
} at_filler;

at_filler at_fill_start(at_store *s, at_fill_as as);
// Tensors below f->prefix: NAME alone, or NAME.weight and NAME.bias.
void at_fill_matrix(at_filler *f, const char *name, int64_t rows, int64_t cols);
void at_fill_vector(at_filler *f, const char *name, int64_t n, float shift);
void at_fill_linear(at_filler *f, const char *name, int64_t rows, int64_t cols);
void at_fill_affine(at_filler *f, const char *name, int64_t n);
void at_fill_conv(at_filler *f, const char *name, int64_t out, int64_t in, int64_t k);

// UNets (bench_unet.c); block counts of the command line do not apply.
at_status at_fill_sd15(at_store *s, at_fill_as as, int doubles, int singles);
at_status at_fill_sd21(at_store *s, at_fill_as as, int doubles, int singles);
at_status at_fill_sdxl(at_store *s, at_fill_as as, int doubles, int singles);
at_status at_fill_sdxl_refiner(at_store *s, at_fill_as as, int doubles, int singles);

#endif
