// SPDX-License-Identifier: Apache-2.0
// attention.c - scaled dot product attention: who takes which case, and cuDNN's part of it.
// Idea: cuDNN (9.13 and later) takes [b, h, t, d] with any strides as one operation, so q, k and v are
// read where they lie, in token-major buffers with heads interleaved. It is twice as fast as our own
// kernel where there is much to do (652 against 277 TFLOP/s at 4608 x 24 x 128, 468 against 257 at
// 4096 x 10 x 64), but a plan takes 35 ms, the first of a head size and format 330 to 1000 ms (kept
// as JSON it loads in 1 ms, and compiles in its first run).
// Who takes what, in this order:
//   0. in e4m3, where the caller gives leave and there is enough of it: attention_fp8.c
//   1. 16 bits, no mask, heads to 256: cuDNN, but for what is `small`: few keys (flash_few.cu: 11.3 us
//      against 15.0 at 4096 x 77 x 10 x 64, 6.8 against 11.1 at 1024 x 77 x 20 x 64) and SD1.5's deepest
//      levels (12 against 10 us at 256 x 256 x 8 x 160, but no plan of 0.6 s)
//   2. 16 bits, heads to 256 in steps of 8, any mask, machines without cuDNN: flash.cu
//   3. f32, mixed formats, heads wider than 256 (cuDNN: 7.1 ms at 16384 x 1 x 512): attention_matmul.c
//   4. what is left: the reference
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cuda/cuda.h"
#include "cuda/flash_90a.h"
#include "cuda/ropes.h"
#include "cuda/rows8.h"

typedef struct problem {
    int64_t b, h, tq, tk, d;
    int64_t q[3], k[3], v[3], o[3];
    int type, lse;
} problem;

typedef struct plan {
    at_dnn_plan p; // plan NULL: cuDNN refused
} plan;

enum { UID_Q = 1, UID_K, UID_V, UID_O, UID_SCALE, UID_LSE };

static void *tensor(at_dnn_build *b, int64_t uid, int type, int64_t batch, int64_t heads,
                    int64_t tokens, int64_t dim, const int64_t s[3])
{
    int64_t dims[] = {batch, heads, tokens, dim}, strides[] = {s[0], s[2], s[1], 1};
    return at_dnn_tensor(b, uid, type, 4, dims, strides, 0, 0);
}

static void plan_make(at_cuda *g, const problem *p, plan *out)
{
    at_dnn_build b = {.dnn = g->dnn};
    const int64_t one[] = {1, 1, 1, 1};
    void *op = at_dnn_desc(&b, DNN_OP_SDPA);
    at_dnn_set_desc(&b, op, DNN_A_SDPA_Q,
                    tensor(&b, UID_Q, p->type, p->b, p->h, p->tq, p->d, p->q));
    at_dnn_set_desc(&b, op, DNN_A_SDPA_K,
                    tensor(&b, UID_K, p->type, p->b, p->h, p->tk, p->d, p->k));
    at_dnn_set_desc(&b, op, DNN_A_SDPA_V,
                    tensor(&b, UID_V, p->type, p->b, p->h, p->tk, p->d, p->v));
    at_dnn_set_desc(&b, op, DNN_A_SDPA_O,
                    tensor(&b, UID_O, p->type, p->b, p->h, p->tq, p->d, p->o));
    at_dnn_set_desc(&b, op, DNN_A_SDPA_SCALE,
                    at_dnn_tensor(&b, UID_SCALE, DNN_FLOAT, 4, one, one, 0, 1));
    if (p->lse) { // maximum + log of the sum, of real scores
        const int64_t row[] = {p->h * p->tq, 1, p->tq};
        at_dnn_set_desc(&b, op, DNN_A_SDPA_STATS,
                        tensor(&b, UID_LSE, DNN_FLOAT, p->b, p->h, p->tq, 1, row));
    }
    at_dnn_finish(&b, op);
    if (b.status || at_dnn_plan_make(&b, g->dnn_handle, &op, 1, &out->p)) {
        at_dnn_build_drop(&b);
        out->p.plan = NULL;
        return;
    }
    static const int64_t uids[] = {UID_Q, UID_K, UID_V, UID_O, UID_SCALE, UID_LSE};
    memcpy(out->p.uids, uids, sizeof uids);
    out->p.n = p->lse ? 6 : 5;
    if (out->p.workspace > g->workspace_bytes) out->p.plan = NULL;
}

// Where our own kernel is as fast or faster (H200, cuDNN 9.19), and needs no plan: see the header.
static bool small(const at_attention_args *a)
{
    int64_t tq = a->q.shape[1], tk = a->k.shape[1], d = a->q.shape[3];
    return tk <= (d <= 64 ? 160 : 80) || (tq * tk <= 256 * 256 && d > 128);
}

static bool suits(const at_cuda *g, const at_attention_args *a)
{
    const at_view *v[] = {&a->q, &a->k, &a->v, &a->out};
    if (!g->dnn || a->bias.data || a->causal || a->q.shape[3] % 8 || a->q.shape[3] > 256)
        return false;
    if (a->q.dtype != AT_BF16 && a->q.dtype != AT_F16) return false;
    for (int i = 0; i < 4; i++) {
        if (v[i]->dtype != a->q.dtype || (uintptr_t)v[i]->data % 16) return false;
        if ((uintptr_t)a->lse.data % 16) return false;
        for (int d = 0; d < 3; d++)
            if (v[i]->shape[d] > 1 && (v[i]->stride[d] % 8 || v[i]->stride[d] <= 0)) return false;
    }
    return true;
}

// The stride of a dimension of one says nothing: a plain value keeps the key the same.
static void strides_of(const at_view *v, int64_t out[3])
{
    for (int d = 0; d < 3; d++)
        out[d] = v->shape[d] == 1 ? v->shape[3] : v->stride[d];
}

static at_status by_cudnn(at_cuda *g, const at_attention_args *a, bool *done)
{
    problem p;
    memset(&p, 0, sizeof p);
    p.b = a->q.shape[0];
    p.tq = a->q.shape[1];
    p.h = a->q.shape[2];
    p.d = a->q.shape[3];
    p.tk = a->k.shape[1];
    strides_of(&a->q, p.q);
    strides_of(&a->k, p.k);
    strides_of(&a->v, p.v);
    strides_of(&a->out, p.o);
    p.type = a->q.dtype == AT_BF16 ? DNN_BF16 : DNN_HALF;
    p.lse = a->lse.data != NULL;
    *done = false;
    plan *chosen = at_cuda_plans_find(g->attention_plans, &p, sizeof p);
    if (!chosen) {
        chosen = at_calloc(1, sizeof *chosen);
        if (!chosen) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
        plan_make(g, &p, chosen);
        at_status st = at_cuda_plans_add(g->attention_plans, &p, sizeof p, chosen);
        if (st != AT_OK) return st;
    }
    if (!chosen->p.plan) return AT_OK;
    float scale = a->scale;
    void *addresses[] = {a->q.data, a->k.data, a->v.data, a->out.data, &scale, a->lse.data};
    int st = at_dnn_run(g->dnn, g->dnn_handle, &chosen->p, addresses, g->workspace);
    if (st)
        chosen->p.plan = NULL;
    else
        at_cuda_served("cudnn sdpa");
    *done = st == 0;
    return AT_OK;
}

// Hopper's matrix units by our own kernel.
static bool wide(const at_cuda *g, const at_k_attention_in *in)
{
    static int off = -1;
    if (off < 0) off = at_has_word(getenv("AT_OFF"), "wide");
    if (off || g->capability != 90 || !at_k_flash_90a_suits(in) || !at_k_flash_suits(in))
        return false;
    cudaError_t e = at_k_flash_90a(g->stream, in);
    if (e == cudaSuccess)
        at_cuda_served("own flash wgmma");
    else
        (void)cudaGetLastError(); // an older driver, too little shared memory: the next one
    return e == cudaSuccess;
}

// What stands where it is to be read.
static at_status in_place(at_cuda *g, const at_attention_args *a)
{
    at_status st = AT_OK;
    bool done = false;
    at_k_attention_in in = {a->q, a->k, a->v, a->out, a->bias, a->scale, a->causal, a->lse.data};

    AT_TRY(at_cuda_attention_fp8(g, a, &done));
    if (done || wide(g, &in)) goto out;
    if (suits(g, a) && !(small(a) && at_k_flash_suits(&in))) AT_TRY(by_cudnn(g, a, &done));
    if (done) goto out;
    if (at_k_flash_suits(&in)) {
        cudaError_t e = at_k_flash(g->stream, &in);
        if (e == cudaSuccess) at_cuda_served("own flash");
        if (e == cudaSuccess) goto out;
        (void)cudaGetLastError(); // too little shared memory: the next one
    }
    AT_TRY(at_cuda_attention_matmul(g, a, &done));
    if (done) at_cuda_served("cublasLt and own softmax");
    if (!done) AT_TRY(at_cuda_check(g, at_k_attention(g->stream, &in), "attention"));
out:
    return st;
}

// The result as floats first, then as the fp8 rows that were asked for.
static at_status in_place_to_rows8(at_cuda *g, const at_attention_args *a)
{
    at_status st = AT_OK;
    at_attention_args floats = *a;
    int64_t d = a->out.shape[2] * a->out.shape[3];
    int64_t rows[] = {a->out.shape[0], a->out.shape[1], d};
    void *scratch = NULL;

    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * at_cuda_size(a->q.dtype), &scratch));
    floats.out = at_cuda_view(scratch, a->q.dtype, 4, a->out.shape);
    floats.out_scale.data = NULL;
    AT_TRY(in_place(g, &floats));
    at_view x = at_cuda_view(scratch, a->q.dtype, 3, rows);
    AT_TRY(at_cuda_check(g, at_k_rows8(g->stream, &x, a->out.data, a->out_scale.data), "fp8 rows"));
out:
    at_cuda_free(g, scratch);
    return st;
}

at_status at_cuda_attention(void *stream, const at_attention_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    at_attention_args turned = *a;
    bool done = false;

    if (at_cuda_count(&a->out) == 0) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (a->k.shape[1] == 0) {
        AT_TRY(at_cuda_check(g, at_k_fill(g->stream, &a->out, 0), "attention"));
        if (a->lse.data)
            AT_TRY(at_cuda_check(g, at_k_fill(g->stream, &a->lse, -INFINITY), "attention"));
        return AT_OK;
    }
    if (!a->n_turns) return in_place(g, a);
    AT_TRY(at_cuda_attention_fp8(g, a, &done));
    if (done) goto out;
    turned.n_turns = 0;
    AT_TRY(at_cuda_ropes(g, a->turns, a->n_turns));
    AT_TRY(a->out_scale.data ? in_place_to_rows8(g, &turned) : in_place(g, &turned));
out:
    return st;
}
