// SPDX-License-Identifier: Apache-2.0
// attention_fp8.c - attention in e4m3 where it may be: cuDNN's pattern of matmul, softmax, matmul.
// Idea: before 9.25 cuDNN has no single operation for it; it knows the graph of eighteen operations that
// stands for it (scores times three scales, softmax as maximum, difference, exponential, sum and quotient,
// probabilities scaled to e4m3, values, three scales) and runs it as one kernel. q, k and v become e4m3
// with one constant factor, the result comes back from e4m3 (heads8.cu). At 4608 x 24 x 128 (H200, cuDNN
// 9.19): 283 us and 49 us of both passes, against 413 us in bf16; at 1280 tokens the passes eat the gain. Where
// q and k are to be rotated first, that and the pass before are one (ropes.c).
// Easy to get wrong: the pattern is matched as a whole. k is described turned ([b, h, d, t]), the
// probabilities are a virtual e4m3 tensor, the rows' statistics (maximum + log of the sum) and both amax
// outputs must be there, and the scales are tensors on the device, the softmax's scale a value on the host.
// FACTOR 2 leaves q, k, v and out the range to +-224 and full precision down to 2^-7: heads of an
// attention with normed q and k reach some ten.
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"
#include "cuda/heads8.h"
#include "cuda/ropes.h"

#define FACTOR      2.0f
#define PROBABILITY 256.0f // what one becomes

enum { LEAST_TOKENS = 2048, DIM = 128, MOST_OPS = 20 };

typedef struct problem {
    int64_t b, h, tq, tk;
    int fp8; // tells this key from those of other plans
    int lse; // rows' statistics are wanted
} problem;

typedef struct plan {
    at_dnn_plan p; // plan NULL: cuDNN refused
    float *scales; // on the device: the six of `factors`, then the two amax
} plan;

static const float factors[6] = {1 / FACTOR,      1 / FACTOR,  1 / FACTOR,
                                 1 / PROBABILITY, PROBABILITY, FACTOR};

enum { // in the order of the addresses
    UID_Q = 1,
    UID_K,
    UID_V,
    UID_O,
    UID_SCALE,
    UID_OF_Q, // what takes the factor of q away, and so on
    UID_OF_K,
    UID_OF_V,
    UID_OF_P,
    UID_TO_P,
    UID_TO_O,
    UID_AMAX_P,
    UID_AMAX_O,
    UID_LSE, // last: not always there
    UIDS = UID_AMAX_O,
    UID_VIRTUAL = 100
};

// --- the graph -----------------------------------------------------------------------------------
typedef struct graph {
    at_dnn_build b;
    void *ops[MOST_OPS];
    int n;
    int64_t uid; // of the next virtual tensor
    const problem *p;
} graph;

static void *heads_tensor(graph *g, int64_t uid, int64_t tokens, bool turned)
{
    int64_t h = g->p->h, t = tokens, dims[] = {g->p->b, h, t, DIM};
    int64_t strides[] = {t * h * DIM, DIM, h * DIM, 1};
    if (turned) {
        dims[2] = DIM;
        dims[3] = t;
        strides[2] = 1;
        strides[3] = h * DIM;
    }
    return at_dnn_tensor(&g->b, uid, DNN_E4M3, 4, dims, strides, 0, 0);
}

static void *between(graph *g, int type, int64_t cols)
{
    int64_t rows = g->p->tq, h = g->p->h, dims[] = {g->p->b, h, rows, cols};
    int64_t strides[] = {h * rows * cols, rows * cols, cols, 1};
    return at_dnn_tensor(&g->b, g->uid++, type, 4, dims, strides, 1, 0);
}

static void *number(graph *g, int64_t uid, int by_value)
{
    static const int64_t one[] = {1, 1, 1, 1};
    return at_dnn_tensor(&g->b, uid, DNN_FLOAT, 4, one, one, 0, by_value);
}

static void *add_op(graph *g, int type)
{
    if (g->n == MOST_OPS) {
        g->b.status = -1;
        return NULL;
    }
    return g->ops[g->n++] = at_dnn_desc(&g->b, type);
}

static void matmul(graph *g, void *x, void *y, void *out)
{
    const int f32 = DNN_FLOAT;
    void *m = at_dnn_desc(&g->b, DNN_MATMUL), *op;
    at_dnn_set(&g->b, m, DNN_A_MATMUL_COMP, DNN_T_DATA_TYPE, 1, &f32);
    at_dnn_finish(&g->b, m);
    op = add_op(g, DNN_OP_MATMUL);
    at_dnn_set_desc(&g->b, op, DNN_A_OPMM_A, x);
    at_dnn_set_desc(&g->b, op, DNN_A_OPMM_B, y);
    at_dnn_set_desc(&g->b, op, DNN_A_OPMM_C, out);
    at_dnn_set_desc(&g->b, op, DNN_A_OPMM_DESC, m);
    at_dnn_finish(&g->b, op);
}

static void pointwise(graph *g, int mode, void *x, void *y, void *out)
{
    const int f32 = DNN_FLOAT;
    void *p = at_dnn_desc(&g->b, DNN_POINTWISE), *op;
    at_dnn_set(&g->b, p, DNN_A_PW_MODE, DNN_T_PW_MODE, 1, &mode);
    at_dnn_set(&g->b, p, DNN_A_PW_PREC, DNN_T_DATA_TYPE, 1, &f32);
    at_dnn_finish(&g->b, p);
    op = add_op(g, DNN_OP_POINTWISE);
    at_dnn_set_desc(&g->b, op, DNN_A_OPPW_DESC, p);
    at_dnn_set_desc(&g->b, op, DNN_A_OPPW_X, x);
    if (y) at_dnn_set_desc(&g->b, op, DNN_A_OPPW_B, y);
    at_dnn_set_desc(&g->b, op, DNN_A_OPPW_Y, out);
    at_dnn_finish(&g->b, op);
}

static void reduce(graph *g, int mode, void *x, void *out)
{
    const int f32 = DNN_FLOAT;
    void *r = at_dnn_desc(&g->b, DNN_REDUCTION), *op;
    at_dnn_set(&g->b, r, DNN_A_RED_MODE, DNN_T_RED_MODE, 1, &mode);
    at_dnn_set(&g->b, r, DNN_A_RED_COMP, DNN_T_DATA_TYPE, 1, &f32);
    at_dnn_finish(&g->b, r);
    op = add_op(g, DNN_OP_REDUCTION);
    at_dnn_set_desc(&g->b, op, DNN_A_OPRED_X, x);
    at_dnn_set_desc(&g->b, op, DNN_A_OPRED_Y, out);
    at_dnn_set_desc(&g->b, op, DNN_A_OPRED_DESC, r);
    at_dnn_finish(&g->b, op);
}

static void *times(graph *g, void *x, void *factor, int type, int64_t cols)
{
    void *y = between(g, type, cols);
    pointwise(g, DNN_PW_MUL, x, factor, y);
    return y;
}

static void *scores(graph *g)
{
    int64_t tk = g->p->tk;
    void *s = between(g, DNN_FLOAT, tk);
    matmul(g, heads_tensor(g, UID_Q, g->p->tq, false), heads_tensor(g, UID_K, tk, true), s);
    s = times(g, s, number(g, UID_SCALE, 1), DNN_FLOAT, tk);
    s = times(g, s, number(g, UID_OF_Q, 0), DNN_FLOAT, tk);
    return times(g, s, number(g, UID_OF_K, 0), DNN_FLOAT, tk);
}

// Maximum + log of the sum of each row: [b, h, tq, 1], there for cuDNN's pattern if nobody reads them.
static void *statistics(graph *g)
{
    int64_t rows = g->p->tq, h = g->p->h, dims[] = {g->p->b, h, rows, 1};
    int64_t strides[] = {h * rows, rows, 1, 1};
    if (!g->p->lse) return between(g, DNN_FLOAT, 1);
    return at_dnn_tensor(&g->b, UID_LSE, DNN_FLOAT, 4, dims, strides, 0, 0);
}

static void *softmax(graph *g, void *s)
{
    int64_t tk = g->p->tk;
    void *top = between(g, DNN_FLOAT, 1), *less = between(g, DNN_FLOAT, tk);
    void *e = between(g, DNN_FLOAT, tk), *sum = between(g, DNN_FLOAT, 1);
    void *p = between(g, DNN_FLOAT, tk), *log = between(g, DNN_FLOAT, 1);
    reduce(g, DNN_RED_MAX, s, top);
    pointwise(g, DNN_PW_SUB, s, top, less);
    pointwise(g, DNN_PW_EXP, less, NULL, e);
    reduce(g, DNN_RED_ADD, e, sum);
    pointwise(g, DNN_PW_LOG, sum, NULL, log);
    pointwise(g, DNN_PW_ADD, top, log, statistics(g));
    pointwise(g, DNN_PW_DIV, e, sum, p);
    reduce(g, DNN_RED_AMAX, p, number(g, UID_AMAX_P, 0));
    return times(g, p, number(g, UID_TO_P, 0), DNN_E4M3, tk);
}

static void plan_make(at_cuda *d, const problem *p, plan *out)
{
    graph g = {.b = {.dnn = d->dnn}, .uid = UID_VIRTUAL, .p = p};
    void *s = softmax(&g, scores(&g)), *r = between(&g, DNN_FLOAT, DIM);
    matmul(&g, s, heads_tensor(&g, UID_V, p->tk, false), r);
    r = times(&g, r, number(&g, UID_OF_P, 0), DNN_FLOAT, DIM);
    r = times(&g, r, number(&g, UID_OF_V, 0), DNN_FLOAT, DIM);
    pointwise(&g, DNN_PW_MUL, r, number(&g, UID_TO_O, 0), heads_tensor(&g, UID_O, p->tq, false));
    reduce(&g, DNN_RED_AMAX, r, number(&g, UID_AMAX_O, 0));
    if (g.b.status || at_dnn_plan_make(&g.b, d->dnn_handle, g.ops, g.n, &out->p)) {
        at_dnn_build_drop(&g.b);
        out->p.plan = NULL;
        return;
    }
    out->p.n = p->lse ? UIDS + 1 : UIDS;
    for (int i = 0; i < out->p.n; i++)
        out->p.uids[i] = i + 1;
    if (out->p.workspace > d->workspace_bytes) out->p.plan = NULL;
}

static at_status plan_of(at_cuda *g, const problem *p, plan **out)
{
    at_status st = AT_OK;
    plan *fresh = NULL;

    *out = at_cuda_plans_find(g->attention_plans, p, sizeof *p);
    if (*out || g->recording) return AT_OK;
    fresh = at_calloc(1, sizeof *fresh);
    if (!fresh) AT_TRY(at_fail(AT_ENOMEM, "cuda: no memory for a plan"));
    AT_TRY(at_cuda_alloc(g, (UIDS + 1) * sizeof(float), (void **)&fresh->scales));
    AT_TRY(at_cuda_upload(g, fresh->scales, factors, sizeof factors));
    plan_make(g, p, fresh);
    AT_TRY(at_cuda_plans_add(g->attention_plans, p, sizeof *p, fresh));
    *out = fresh;
    fresh = NULL;
out:
    if (fresh) at_cuda_free(g, fresh->scales);
    at_free(fresh);
    return st;
}

// --- the door ------------------------------------------------------------------------------------
static bool suits(const at_cuda *g, const at_attention_args *a)
{
    const at_view *v[] = {&a->q, &a->k, &a->v, &a->out};
    if (!a->fp8 || !g->dnn || g->capability != 90 || a->bias.data || a->causal) return false;
    if (a->q.dtype != AT_BF16 && a->q.dtype != AT_F16) return false;
    if ((uintptr_t)a->lse.data % 16) return false;
    if (a->q.shape[1] < LEAST_TOKENS || a->k.shape[1] < LEAST_TOKENS || a->q.shape[3] != DIM)
        return false;
    for (int i = 0; i < 4; i++) {
        bool rows8 = i == 3 && a->out_scale.data;
        if (!rows8 && v[i]->dtype != a->q.dtype) return false;
        if ((uintptr_t)v[i]->data % 16) return false;
        if (at_cuda_count(v[i]) > INT32_MAX) return false;
        for (int d = 0; d < 3; d++)
            if (v[i]->shape[d] > 1 && v[i]->stride[d] % 8) return false;
    }
    return true;
}

at_status at_cuda_attention_fp8(at_cuda *g, const at_attention_args *a, bool *done)
{
    at_status st = AT_OK;
    void *heads[4] = {NULL};
    plan *chosen = NULL;
    problem p;
    size_t q_bytes = (size_t)at_cuda_count(&a->q), k_bytes = (size_t)at_cuda_count(&a->k);
    bool turned = false;

    *done = false;
    if (!suits(g, a)) return AT_OK;
    memset(&p, 0, sizeof p); // padding is part of the key
    p.b = a->q.shape[0];
    p.tq = a->q.shape[1];
    p.h = a->q.shape[2];
    p.tk = a->k.shape[1];
    p.fp8 = 1;
    p.lse = a->lse.data != NULL;
    AT_TRY(plan_of(g, &p, &chosen));
    if (!chosen || !chosen->p.plan) goto out;
    for (int i = 0; i < (a->out_scale.data ? 3 : 4); i++)
        AT_TRY(at_cuda_alloc(g, i == 1 || i == 2 ? k_bytes : q_bytes, &heads[i]));
    if (a->n_turns) {
        AT_TRY(at_cuda_turned_heads8(g, a, FACTOR, heads, &turned));
        if (!turned) goto out;
    } else {
        AT_TRY(at_cuda_check(g, at_k_heads8(g->stream, &a->q, &a->k, &a->v, FACTOR, heads),
                             "attention in fp8"));
    }
    float scale = a->scale, *s = chosen->scales;
    void *result = a->out_scale.data ? a->out.data : heads[3];
    void *addresses[UIDS + 1] = {heads[0], heads[1], heads[2], result, &scale, s,     s + 1,
                                 s + 2,    s + 3,    s + 4,    s + 5,  s + 6,  s + 7, a->lse.data};
    if (at_dnn_run(g->dnn, g->dnn_handle, &chosen->p, addresses, g->workspace)) {
        chosen->p.plan = NULL;
        goto out;
    }
    AT_TRY(at_cuda_check(g,
                         a->out_scale.data
                             ? at_k_fill(g->stream, &a->out_scale, 1 / FACTOR)
                             : at_k_heads8_floats(g->stream, heads[3], 1 / FACTOR, &a->out),
                         "attention in fp8"));
    at_cuda_served(turned ? "cudnn sdpa fp8 behind own ropes" : "cudnn sdpa fp8 between own casts");
    *done = true;
out:
    for (int i = 0; i < 4; i++)
        at_cuda_free(g, heads[i]);
    return st;
}
