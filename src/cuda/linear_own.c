// SPDX-License-Identifier: Apache-2.0
// linear_own.c - own products among the library's candidates: one round of small tiles (few_tiles_90a.cu).
// Idea: the tuner times candidates and keeps the fastest; a candidate is an algorithm of the library or, as here, a mark
// in its place, so that our kernel is taken where it wins on this very GPU and nowhere else.
// Easy to get wrong: a mark must not reach the library; what is timed runs into scratch that is laid out like the result.
// Owns nothing.
#include "cuda/linear_own.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cuda/few_tiles_90a.h"

enum { MARK = 0xa7 }; // each byte of it

// [batch, tokens, n] as one matrix: rows at one distance.
static bool flat(const at_view *v, int64_t *row)
{
    *row = v->shape[1] > 1 ? v->stride[1] : v->stride[0];
    return v->stride[2] == 1 && *row >= v->shape[2] &&
           (v->shape[0] == 1 || v->shape[1] == 1 || v->stride[0] == v->shape[1] * v->stride[1]);
}

static bool product_of(const at_cuda_product *c, at_k_few_tiles_in *in)
{
    at_dtype t = c->x.dtype;
    *in = (at_k_few_tiles_in){.x = c->x.data,
                              .w = c->w.data,
                              .bias = c->bias,
                              .residual = c->residual.data,
                              .out = c->out.data,
                              .m = c->x.shape[0] * c->x.shape[1],
                              .n = c->out.shape[2],
                              .k = c->x.shape[2],
                              .w_row = c->w.stride[0],
                              .scale = c->scale,
                              .dtype = t};
    return (t == AT_F16 || t == AT_BF16) && c->w.dtype == t && c->out.dtype == t && !c->gelu &&
           !c->x_rows && !c->w_rows && c->w.stride[1] == 1 && flat(&c->x, &in->x_row) &&
           flat(&c->out, &in->out_row) &&
           (!c->residual.data || (c->residual.dtype == t && flat(&c->residual, &in->residual_row)));
}

bool at_cuda_own_forced(void)
{
    static int on = -1;
    if (on < 0) on = at_has_word(getenv("AT_ON"), "own");
    return on;
}

// One round that most multiprocessors take part in.
static bool one_round(const at_cuda *g, const at_k_few_tiles_in *in)
{
    int sms = 0;
    int64_t blocks = at_k_few_tiles_blocks(in->m, in->n);
    return cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, g->ordinal) ==
               cudaSuccess &&
           blocks <= sms && 4 * blocks >= 3 * sms && in->k >= 256;
}

bool at_cuda_own_product(const at_cuda *g, const at_cuda_product *c, at_lt_algo *mark)
{
    static int off = -1;
    at_k_few_tiles_in in;

    if (off < 0) off = at_has_word(getenv("AT_OFF"), "few") && !at_cuda_own_forced();
    if (off || g->capability != 90 || !product_of(c, &in) || !at_k_few_tiles_suits(&in))
        return false;
    memset(mark, MARK, sizeof *mark);
    return at_cuda_own_forced() || one_round(g, &in);
}

bool at_cuda_own_marked(const at_lt_algo *algo)
{
    at_lt_algo mark;
    memset(&mark, MARK, sizeof mark);
    return memcmp(algo, &mark, sizeof mark) == 0;
}

int at_cuda_own_run(at_cuda *g, const at_cuda_product *c, void *out)
{
    at_k_few_tiles_in in;
    if (!product_of(c, &in)) return 1;
    in.out = out;
    return at_k_few_tiles(g->stream, &in) != cudaSuccess;
}
