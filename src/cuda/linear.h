// SPDX-License-Identifier: Apache-2.0
// linear.h - what the files of the linear layer share: one product as cublasLt sees it.
// Idea: linear.c turns a slot's arguments into at most two products and a kernel behind them; linear_lt.c runs a
// product; linear_tune.c times the library's proposals for it once and keeps the answer on disk.
// Owns nothing: plans and the table of answers live in the at_cuda.
#ifndef AT_CUDA_LINEAR_H
#define AT_CUDA_LINEAR_H

#include "cuda/cuda.h"

// out = gelu?(x w^T * scale + bias) + residual; all on the device, x and w in one 16-bit or f32 format, or both
// fp8 with a scale for each row.
typedef struct at_cuda_product {
    at_view x, w, out, residual; // [b, t, k], [n, k], [b, t, n], the same or data NULL
    const void *bias;            // in out's format, or NULL
    float scale;
    bool gelu;
    const float *x_rows,
        *w_rows; // fp8: scale of each row of x (all batches) and of w; NULL: the values are the bytes'
} at_cuda_product;

// *done false: the library has nothing for it, nothing was written.
at_status at_cuda_product_run(at_cuda *g, const at_cuda_product *p, bool *done);

// --- linear_tune.c -------------------------------------------------------------------------------
// A problem is its bytes: whoever fills one zeroes it first, padding included.
typedef struct at_cuda_problem {
    int64_t m, n, k, batch, ldx, ldo, ldr, xb, ob, rb;
    int32_t x_type, w_type, out_type, res_type, epilogue, residual, rows_scaled, fp8;
    int32_t align_x, align_o, align_r, align_b;
} at_cuda_problem;

enum {
    AT_CUDA_PROPOSALS = 8,                                   // of the library
    AT_CUDA_OWN = 8,                                         // that it does not propose
    AT_CUDA_TILES = 16,                                      // whose kernels it is asked for
    AT_CUDA_CANDIDATES = AT_CUDA_PROPOSALS + AT_CUDA_OWN + 1 // and a kernel of our own
};
// Its runs are timed at the chip's power limit in a model.
static inline bool at_cuda_large(const at_cuda_problem *p)
{
    return 2.0 * (double)(p->m * p->batch) * (double)p->n * (double)p->k > 1e11;
}
// --- linear_tiles.c ------------------------------------------------------------------------------
// The library's numbers of the tiles that suit a product on `sms` multiprocessors, best first, at most AT_CUDA_TILES.
// 0: the usual ones do.
int at_cuda_tiles(const at_cuda_problem *p, int sms, int most, int32_t *ids);

// --- linear_tune.c -------------------------------------------------------------------------------
// Run candidate `algo` of a problem into `d` (the output or scratch laid out like it); 0 is success.
typedef int at_cuda_try(void *self, const at_lt_algo *algo, void *d);

// The fastest of n candidates: from the table, or by timing them (which waits for the device, and is left out
// while a graph is recorded or with AT_OFF=tune); the first where neither is possible.
at_lt_algo at_cuda_tune(at_cuda *g, const at_cuda_problem *p, const at_lt_algo *candidates, int n,
                        size_t out_bytes, at_cuda_try *run, void *self);
// Write what was learned since the last time, if anything; a failure costs a line in the log.
void at_cuda_tuned_save(at_cuda *g);
void at_cuda_tuned_free(at_cuda *g); // a GPU of the program keeps its table for the process's life

#endif
