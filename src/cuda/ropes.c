// SPDX-License-Identifier: Apache-2.0
// ropes.c - rotations where they lie, and on the way into the e4m3 that an attention in fp8 reads.
// Idea: one kernel serves both (rope.cu): a thread that has normalised and rotated a piece may as well write it as
// e4m3 where attention wants it, and v is a rotation without angles. That saves writing and reading q and k once.
// Easy to get wrong: a turn is a run of tokens of q or of k, known by its address; together they must be all of
// both, or parts of the e4m3 would be left unwritten.
#include "cuda/cuda.h"
#include "cuda/ropes.h"

// What the kernel sees of a rotation; its weight in f32, which *own tells to free.
static at_status kernel_in(at_cuda *g, const at_rope_args *a, at_k_rope_in *in, void **own)
{
    const void *w = NULL;
    at_status st = at_cuda_vector(g, &a->weight, AT_F32, &w, own);
    *in = (at_k_rope_in){.x = a->x,
                         .out = a->out,
                         .weight = w,
                         .cosines = a->cos.data,
                         .sines = a->sin.data,
                         .eps = a->eps,
                         .halves = a->halves,
                         .per_batch = a->cos.data && a->cos.shape[0] != a->x.shape[1]};
    return st;
}

at_status at_cuda_ropes(void *stream, const at_rope_args *a, int n)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    at_k_rope_in in[AT_K_ROPES];
    void *own[AT_K_ROPES] = {0};

    cudaSetDevice(g->ordinal);
    if (n > AT_K_ROPES)
        return at_fail(AT_EINTERNAL, "%s: %d tensors to rotate, %d are the most", g->dev.name, n,
                       AT_K_ROPES);
    for (int i = 0; i < n; i++)
        AT_TRY(kernel_in(g, &a[i], &in[i], &own[i]));
    AT_TRY(at_cuda_check(g, at_k_rope(g->stream, in, n), "rope"));
out:
    for (int i = 0; i < n; i++)
        at_cuda_free(g, own[i]);
    return st;
}

// `x` is tokens [at, at + its tokens) of `whole`.
static bool run_of(const at_view *whole, const at_view *x, int64_t at)
{
    const char *from =
        (const char *)whole->data + at * whole->stride[1] * (int64_t)at_cuda_size(whole->dtype);
    bool same = x->dtype == whole->dtype && x->data == from && x->shape[0] == whole->shape[0] &&
                x->shape[2] == whole->shape[2] && x->shape[3] == whole->shape[3];
    if (same && x->shape[0] > 1) same = x->stride[0] == whole->stride[0];
    if (same && x->shape[1] > 1) same = x->stride[1] == whole->stride[1];
    if (same && x->shape[2] > 1) same = x->stride[2] == whole->stride[2];
    return same && at + x->shape[1] <= whole->shape[1];
}

// Tokens [at, at + those of x) of contiguous e4m3 heads like `whole`.
static at_view place(void *heads, const at_view *whole, const at_view *x, int64_t at)
{
    at_view v = at_cuda_view(heads, AT_F8E4M3, 4, whole->shape);
    v.data = (char *)heads + at * v.stride[1];
    v.shape[1] = x->shape[1];
    return v;
}

at_status at_cuda_turned_heads8(at_cuda *g, const at_attention_args *a, float factor,
                                void *const heads[3], bool *done)
{
    at_status st = AT_OK;
    at_k_rope_in in[AT_K_ROPES];
    void *own[AT_K_ROPES] = {0};
    int64_t of_q = 0, of_k = 0;
    int n = a->n_turns;

    *done = false;
    if (n >= AT_K_ROPES || a->v.shape[1] != a->k.shape[1]) return AT_OK;
    for (int i = 0; i < n; i++) {
        const at_view *x = &a->turns[i].x;
        bool q = run_of(&a->q, x, of_q);
        if (a->turns[i].halves || (!q && !run_of(&a->k, x, of_k))) goto out;
        AT_TRY(kernel_in(g, &a->turns[i], &in[i], &own[i]));
        in[i].out = q ? place(heads[0], &a->q, x, of_q) : place(heads[1], &a->k, x, of_k);
        in[i].factor = factor;
        *(q ? &of_q : &of_k) += x->shape[1];
    }
    if (of_q != a->q.shape[1] || of_k != a->k.shape[1]) goto out;
    in[n] = (at_k_rope_in){.x = a->v, .out = place(heads[2], &a->v, &a->v, 0), .factor = factor};
    cudaError_t e = at_k_rope(g->stream, in, n + 1);
    if (e == cudaErrorInvalidValue) goto out; // not in pieces: nothing was launched
    AT_TRY(at_cuda_check(g, e, "rope"));
    *done = true;
out:
    for (int i = 0; i < n && i < AT_K_ROPES; i++)
        at_cuda_free(g, own[i]);
    return st;
}
