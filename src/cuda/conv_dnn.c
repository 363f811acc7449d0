// SPDX-License-Identifier: Apache-2.0
// conv_dnn.c - convolutions by cuDNN: one graph for a problem, the fastest of its proposals.
// Idea: cuDNN names dimensions [n, c, h, w] and takes strides, so NHWC buffers are used as they lie. Of all
// that its graphs can fuse, one pattern exists compiled and costs nothing: convolution, then a residual,
// then a bias of x's 16-bit format. Everything else (f32 bias, activations) would be compiled at first use,
// 0.3 to 2 s for each shape, and is left to kernels of ours. Doubling the picture first is the gradient of a
// strided convolution, which cuDNN has as a kernel too: 2.25 times less work than convolving the doubled
// picture, which is never made.
// Easy to get wrong: the order residual, bias is the pattern; bias, residual is not. Proposals differ by
// 10 % and the first is often not the best, so they are timed, in f32 sums all of them; the choice is
// kept on disk with those of linear layers.
// Owns: plans live in g->conv_plans for the life of the process.
// Source: NVIDIA cuDNN backend API; measured on cuDNN 9.19 (docs/bench/cuda.md).
#include <string.h>

#include "base/mem.h"
#include "cuda/conv.h"

enum { CANDIDATES = 8, RUNS = 2 };
// What another proposal must need of the first one's time: a model runs at the chip's power limit, where the
// library's first is mostly the most economical.
static const float CLEARLY = 0.97f;

typedef struct problem {
    int64_t what; // tells its hash from a linear layer's
    int64_t n, h, w, cin, oh, ow, cout, kh, kw, stride, pad[4], xs[3];
    int type, out_type, bias, residual, up;
} problem;

typedef struct plan {
    at_dnn_plan p; // plan NULL: cuDNN refused
} plan;

enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_RESIDUAL, UID_VIRTUAL };

static int dnn_type(at_dtype t)
{
    return t == AT_F32 ? DNN_FLOAT : t == AT_BF16 ? DNN_BF16 : DNN_HALF;
}

// --- the graph -----------------------------------------------------------------------------------
static void *conv_desc(at_dnn_build *b, int64_t stride, const int64_t pad[4])
{
    void *c = at_dnn_desc(b, DNN_CONVOLUTION);
    int comp = DNN_FLOAT, mode = DNN_CROSS_CORRELATION;
    const int64_t dilation[] = {1, 1}, strides[] = {stride, stride};
    const int64_t pre[] = {pad[0], pad[1]}, post[] = {pad[2], pad[3]};
    at_dnn_set(b, c, DNN_A_CONV_COMP, DNN_T_DATA_TYPE, 1, &comp);
    at_dnn_set(b, c, DNN_A_CONV_MODE, DNN_T_CONV_MODE, 1, &mode);
    at_dnn_set_i64(b, c, DNN_A_CONV_DIMS, 2);
    at_dnn_set(b, c, DNN_A_CONV_DILATIONS, DNN_T_INT64, 2, dilation);
    at_dnn_set(b, c, DNN_A_CONV_STRIDES, DNN_T_INT64, 2, strides);
    at_dnn_set(b, c, DNN_A_CONV_PRE_PAD, DNN_T_INT64, 2, pre);
    at_dnn_set(b, c, DNN_A_CONV_POST_PAD, DNN_T_INT64, 2, post);
    at_dnn_finish(b, c);
    return c;
}

// y = x + second, in f32.
static void *add_op(at_dnn_build *b, void *x, void *second, void *y)
{
    int prec = DNN_FLOAT, mode = DNN_PW_ADD;
    void *pw = at_dnn_desc(b, DNN_POINTWISE), *op;
    at_dnn_set(b, pw, DNN_A_PW_MODE, DNN_T_PW_MODE, 1, &mode);
    at_dnn_set(b, pw, DNN_A_PW_PREC, DNN_T_DATA_TYPE, 1, &prec);
    at_dnn_finish(b, pw);
    op = at_dnn_desc(b, DNN_OP_POINTWISE);
    at_dnn_set_desc(b, op, DNN_A_OPPW_DESC, pw);
    at_dnn_set_desc(b, op, DNN_A_OPPW_X, x);
    at_dnn_set_desc(b, op, DNN_A_OPPW_B, second);
    at_dnn_set_desc(b, op, DNN_A_OPPW_Y, y);
    at_dnn_finish(b, op);
    return op;
}

// A tensor without gaps, [n, c, h, w] over NHWC.
static void *dense_tensor(at_dnn_build *b, int64_t uid, int type, int64_t n, int64_t c, int64_t h,
                          int64_t w, bool is_virtual)
{
    const int64_t d[] = {n, c, h, w}, s[] = {h * w * c, 1, w * c, c};
    return at_dnn_tensor(b, uid, type, 4, d, s, is_virtual, 0);
}

static void *x_tensor(at_dnn_build *b, const problem *p)
{
    const int64_t d[] = {p->n, p->cin, p->h, p->w}, s[] = {p->xs[0], 1, p->xs[1], p->xs[2]};
    return at_dnn_tensor(b, UID_X, p->type, 4, d, s, 0, 0);
}

static int forward_ops(at_dnn_build *b, const problem *p, void *ops[3])
{
    float one = 1.0f, zero = 0.0f;
    int n = 1 + p->residual + p->bias, at = 1;
    void *y[3], *op = ops[0] = at_dnn_desc(b, DNN_OP_CONV);
    for (int i = 0; i < n; i++)
        y[i] = dense_tensor(b, i == n - 1 ? UID_Y : UID_VIRTUAL + i,
                            i == n - 1 ? p->out_type : DNN_FLOAT, p->n, p->cout, p->oh, p->ow,
                            i < n - 1);
    at_dnn_set_desc(b, op, DNN_A_OPCONV_DESC, conv_desc(b, p->stride, p->pad));
    at_dnn_set_desc(b, op, DNN_A_OPCONV_X, x_tensor(b, p));
    at_dnn_set_desc(b, op, DNN_A_OPCONV_W,
                    dense_tensor(b, UID_W, p->type, p->cout, p->cin, p->kh, p->kw, false));
    at_dnn_set_desc(b, op, DNN_A_OPCONV_Y, y[0]);
    at_dnn_set(b, op, DNN_A_OPCONV_ALPHA, DNN_T_FLOAT, 1, &one);
    at_dnn_set(b, op, DNN_A_OPCONV_BETA, DNN_T_FLOAT, 1, &zero);
    at_dnn_finish(b, op);
    if (p->residual) {
        void *r = dense_tensor(b, UID_RESIDUAL, p->out_type, p->n, p->cout, p->oh, p->ow, false);
        ops[at] = add_op(b, y[at - 1], r, y[at]);
        at++;
    }
    if (p->bias) {
        void *bias = dense_tensor(b, UID_BIAS, p->type, 1, p->cout, 1, 1, false);
        ops[at] = add_op(b, y[at - 1], bias, y[at]);
    }
    return n;
}

// Read from its end: the gradient of a convolution from the doubled picture to x.
static int up_ops(at_dnn_build *b, const problem *p, void *ops[3])
{
    float one = 1.0f, zero = 0.0f;
    static const int64_t pad[] = {1, 1, 1, 1};
    void *op = ops[0] = at_dnn_desc(b, DNN_OP_CONV_BACK);
    at_dnn_set_desc(b, op, DNN_A_OPBACK_DESC, conv_desc(b, 2, pad));
    at_dnn_set_desc(b, op, DNN_A_OPBACK_DY, x_tensor(b, p));
    at_dnn_set_desc(b, op, DNN_A_OPBACK_W,
                    dense_tensor(b, UID_W, p->type, p->cin, p->cout, 4, 4, false));
    at_dnn_set_desc(b, op, DNN_A_OPBACK_DX,
                    dense_tensor(b, UID_Y, p->out_type, p->n, p->cout, p->oh, p->ow, false));
    at_dnn_set(b, op, DNN_A_OPBACK_ALPHA, DNN_T_FLOAT, 1, &one);
    at_dnn_set(b, op, DNN_A_OPBACK_BETA, DNN_T_FLOAT, 1, &zero);
    at_dnn_finish(b, op);
    return 1;
}

// --- choosing ------------------------------------------------------------------------------------
// Milliseconds a run, or a negative number where it cannot run. One run before, which loads the kernel.
static float time_of(at_cuda *g, const at_dnn_plan *p, void *const *addresses,
                     const cudaEvent_t events[2])
{
    float ms = -1;
    if (at_dnn_run(g->dnn, g->dnn_handle, p, addresses, g->workspace)) return -1;
    if (cudaEventRecord(events[0], g->stream) != cudaSuccess) return -1;
    for (int i = 0; i < RUNS; i++)
        if (at_dnn_run(g->dnn, g->dnn_handle, p, addresses, g->workspace)) return -1;
    if (cudaEventRecord(events[1], g->stream) != cudaSuccess ||
        cudaEventSynchronize(events[1]) != cudaSuccess ||
        cudaEventElapsedTime(&ms, events[0], events[1]) != cudaSuccess)
        return -1;
    return ms / RUNS;
}

static int fastest(at_cuda *g, const at_dnn_plan *plans, int n, void *const *addresses)
{
    cudaEvent_t events[2] = {NULL, NULL};
    float best = -1;
    int at = 0;
    if (cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess)
        for (int i = 0; i < n; i++) {
            float ms = time_of(g, &plans[i], addresses, events);
            if (ms >= 0 && (best < 0 || ms < (at ? 1.0f : CLEARLY) * best)) {
                best = ms;
                at = i;
            }
        }
    if (events[0]) cudaEventDestroy(events[0]);
    if (events[1]) cudaEventDestroy(events[1]);
    return at;
}

// What tells a proposal apart for the file of choices: its place and its workspace.
static uint64_t name_of(const at_dnn_plan *plans, int n, int i)
{
    return ((uint64_t)plans[i].workspace << 16) + (uint64_t)(n << 8) + (uint64_t)i + 1;
}

// The proposal that an earlier process chose, or the fastest now.
static int choose(at_cuda *g, const problem *p, const at_dnn_plan *plans, int n,
                  void *const *addresses)
{
    uint64_t known = 0;
    if (n < 2) return 0;
    if (at_cuda_choice_find(g, p, sizeof *p, &known))
        for (int i = 0; i < n; i++)
            if (name_of(plans, n, i) == known) return i;
    if (g->recording) return 0;
    int best = fastest(g, plans, n, addresses);
    at_cuda_choice_keep(g, p, sizeof *p, name_of(plans, n, best));
    return best;
}

static void plan_make(at_cuda *g, const problem *p, void *const *addresses, plan *out)
{
    at_dnn_build b = {.dnn = g->dnn};
    at_dnn_plan plans[CANDIDATES];
    void *ops[3];
    int n_ops = p->up ? up_ops(&b, p, ops) : forward_ops(&b, p, ops), n = 0;

    memset(plans, 0, sizeof plans);
    if (b.status)
        at_dnn_build_drop(&b);
    else
        n = at_dnn_plans_make(&b, g->dnn_handle, ops, n_ops, g->workspace_bytes, plans, CANDIDATES);
    for (int i = 0; i < n; i++) {
        int at = 0;
        plans[i].uids[at++] = UID_X;
        plans[i].uids[at++] = UID_W;
        plans[i].uids[at++] = UID_Y;
        if (p->bias) plans[i].uids[at++] = UID_BIAS;
        if (p->residual) plans[i].uids[at++] = UID_RESIDUAL;
        plans[i].n = at;
    }
    int best = choose(g, p, plans, n, addresses);
    for (int i = 0; i < n; i++)
        if (i == best)
            out->p = plans[i];
        else
            at_dnn_plan_drop(g->dnn, &plans[i]);
}

// --- one convolution -----------------------------------------------------------------------------
static problem problem_of(const at_cuda_conv_in *in)
{
    const at_view *x = in->x, *out = in->out;
    problem p;
    memset(&p, 0, sizeof p);
    p.what = 0x636f6e76;
    p.n = x->shape[0];
    p.h = x->shape[1];
    p.w = x->shape[2];
    p.cin = x->shape[3];
    p.oh = out->shape[1];
    p.ow = out->shape[2];
    p.cout = out->shape[3];
    p.kh = in->w->shape[1];
    p.kw = in->w->shape[2];
    p.stride = in->stride;
    p.pad[0] = in->top;
    p.pad[1] = in->left;
    p.pad[2] = in->bottom;
    p.pad[3] = in->right;
    for (int i = 0; i < 3; i++)
        p.xs[i] = x->stride[i];
    p.type = dnn_type(x->dtype);
    p.out_type = dnn_type(out->dtype);
    p.bias = in->bias != NULL;
    p.residual = in->residual != NULL;
    p.up = in->up;
    return p;
}

at_status at_cuda_conv_dnn(at_cuda *g, const at_cuda_conv_in *in, bool *done)
{
    problem p = problem_of(in);
    void *addresses[AT_DNN_TENSORS] = {in->x->data, in->w->data, in->out->data};
    int n = 3;

    *done = false;
    if (in->bias) addresses[n++] = (void *)(uintptr_t)in->bias;
    if (in->residual) addresses[n++] = in->residual->data;
    plan *chosen = at_cuda_plans_find(g->conv_plans, &p, sizeof p);
    if (!chosen) {
        chosen = at_calloc(1, sizeof *chosen);
        if (!chosen) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
        plan_make(g, &p, addresses, chosen);
        at_status st = at_cuda_plans_add(g->conv_plans, &p, sizeof p, chosen);
        if (st != AT_OK) {
            at_dnn_plan_drop(g->dnn, &chosen->p);
            at_free(chosen);
            return st;
        }
    }
    if (!chosen->p.plan) return AT_OK;
    *done = at_dnn_run(g->dnn, g->dnn_handle, &chosen->p, addresses, g->workspace) == 0;
    if (!*done) at_dnn_plan_drop(g->dnn, &chosen->p);
    return AT_OK;
}
