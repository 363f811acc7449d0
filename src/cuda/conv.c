// SPDX-License-Identifier: Apache-2.0
// conv.c - NHWC convolution by cuDNN, 1x1 as a linear layer.
// Idea: cuDNN names dimensions [n, c, h, w] and takes strides, so NHWC buffers are used as they lie;
// the filter is kept as [o, kh, kw, i]. Bias, activation and residual are one kernel of ours behind
// it. What cuDNN refuses (different paddings, upsampling) is first made plain by at_k_pad.
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"

typedef struct problem {
    int64_t n, h, w, cin, oh, ow, cout, kh, kw, stride, pad[4];
    int64_t xs[3], os[3], rs[3];
    int type, out_type, res_type, bias, silu, residual;
} problem;

typedef struct plan {
    at_dnn_plan p;
} plan;

enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_RESIDUAL, UID_VIRTUAL };

static int dnn_type(at_dtype t)
{
    return t == AT_F32 ? DNN_FLOAT : t == AT_BF16 ? DNN_BF16 : DNN_HALF;
}

static void *conv_desc(at_dnn_build *b, const problem *p)
{
    void *c = at_dnn_desc(b, DNN_CONVOLUTION);
    int comp = DNN_FLOAT, mode = DNN_CROSS_CORRELATION;
    const int64_t dilation[] = {1, 1}, stride[] = {p->stride, p->stride};
    const int64_t pre[] = {p->pad[0], p->pad[1]}, post[] = {p->pad[2], p->pad[3]};
    at_dnn_set(b, c, DNN_A_CONV_COMP, DNN_T_DATA_TYPE, 1, &comp);
    at_dnn_set(b, c, DNN_A_CONV_MODE, DNN_T_CONV_MODE, 1, &mode);
    at_dnn_set_i64(b, c, DNN_A_CONV_DIMS, 2);
    at_dnn_set(b, c, DNN_A_CONV_DILATIONS, DNN_T_INT64, 2, dilation);
    at_dnn_set(b, c, DNN_A_CONV_STRIDES, DNN_T_INT64, 2, stride);
    at_dnn_set(b, c, DNN_A_CONV_PRE_PAD, DNN_T_INT64, 2, pre);
    at_dnn_set(b, c, DNN_A_CONV_POST_PAD, DNN_T_INT64, 2, post);
    at_dnn_finish(b, c);
    return c;
}

// One more pointwise operation: y = mode(x[, b]).
static void *pointwise(at_dnn_build *b, int mode, void *x, void *second, void *y)
{
    int prec = DNN_FLOAT;
    void *pw = at_dnn_desc(b, DNN_POINTWISE), *op;
    at_dnn_set(b, pw, DNN_A_PW_MODE, DNN_T_PW_MODE, 1, &mode);
    at_dnn_set(b, pw, DNN_A_PW_PREC, DNN_T_DATA_TYPE, 1, &prec);
    at_dnn_finish(b, pw);
    op = at_dnn_desc(b, DNN_OP_POINTWISE);
    at_dnn_set_desc(b, op, DNN_A_OPPW_DESC, pw);
    at_dnn_set_desc(b, op, DNN_A_OPPW_X, x);
    if (second) at_dnn_set_desc(b, op, DNN_A_OPPW_B, second);
    at_dnn_set_desc(b, op, DNN_A_OPPW_Y, y);
    at_dnn_finish(b, op);
    return op;
}

static void plan_make(at_cuda *g, const problem *p, plan *out)
{
    at_dnn_build b = {.dnn = g->dnn};
    const int64_t xd[] = {p->n, p->cin, p->h, p->w}, xs[] = {p->xs[0], 1, p->xs[1], p->xs[2]};
    const int64_t wd[] = {p->cout, p->cin, p->kh, p->kw};
    const int64_t ws[] = {p->kh * p->kw * p->cin, 1, p->kw * p->cin, p->cin};
    const int64_t yd[] = {p->n, p->cout, p->oh, p->ow}, ys[] = {p->os[0], 1, p->os[1], p->os[2]};
    const int64_t bd[] = {1, p->cout, 1, 1}, bs[] = {p->cout, 1, p->cout, p->cout};
    const int64_t rs[] = {p->rs[0], 1, p->rs[1], p->rs[2]};
    float one = 1.0f, zero = 0.0f;
    void *ops[4], *y[4];
    int n = 1 + p->bias + p->silu + p->residual;
    for (int i = 0; i < n; i++)
        y[i] = i == n - 1 ? at_dnn_tensor(&b, UID_Y, p->out_type, 4, yd, ys, 0, 0)
                          : at_dnn_tensor(&b, UID_VIRTUAL + i, DNN_FLOAT, 4, yd, ys, 1, 0);
    void *op = ops[0] = at_dnn_desc(&b, DNN_OP_CONV);
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_DESC, conv_desc(&b, p));
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_X, at_dnn_tensor(&b, UID_X, p->type, 4, xd, xs, 0, 0));
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_W, at_dnn_tensor(&b, UID_W, p->type, 4, wd, ws, 0, 0));
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_Y, y[0]);
    at_dnn_set(&b, op, DNN_A_OPCONV_ALPHA, DNN_T_FLOAT, 1, &one);
    at_dnn_set(&b, op, DNN_A_OPCONV_BETA, DNN_T_FLOAT, 1, &zero);
    at_dnn_finish(&b, op);
    int at = 1;
    if (p->bias) {
        void *bias = at_dnn_tensor(&b, UID_BIAS, DNN_FLOAT, 4, bd, bs, 0, 0);
        ops[at] = pointwise(&b, DNN_PW_ADD, y[at - 1], bias, y[at]);
        at++;
    }
    if (p->silu) {
        ops[at] = pointwise(&b, DNN_PW_SWISH, y[at - 1], NULL, y[at]);
        at++;
    }
    if (p->residual) {
        void *r = at_dnn_tensor(&b, UID_RESIDUAL, p->res_type, 4, yd, rs, 0, 0);
        ops[at] = pointwise(&b, DNN_PW_ADD, y[at - 1], r, y[at]);
        at++;
    }
    if (b.status || at_dnn_plan_make(&b, g->dnn_handle, ops, n, &out->p)) {
        at_dnn_build_drop(&b);
        out->p.plan = NULL;
        return;
    }
    out->p.n = 0;
    out->p.uids[out->p.n++] = UID_X;
    out->p.uids[out->p.n++] = UID_W;
    out->p.uids[out->p.n++] = UID_Y;
    if (p->bias) out->p.uids[out->p.n++] = UID_BIAS;
    if (p->residual) out->p.uids[out->p.n++] = UID_RESIDUAL;
    if (out->p.workspace > g->workspace_bytes) out->p.plan = NULL;
}

// What one graph computes: out = silu?(conv(x, w) + bias?) + residual?
typedef struct graph_in {
    const at_view *x, *w, *out, *residual;
    const void *bias; // f32
    int stride;
    const int *pad;
    bool silu;
} graph_in;

static at_status by_cudnn(at_cuda *g, const graph_in *in, bool *done)
{
    const at_view *x = in->x, *w = in->w, *out = in->out;
    problem p;
    memset(&p, 0, sizeof p);
    p.n = x->shape[0];
    p.h = x->shape[1];
    p.w = x->shape[2];
    p.cin = x->shape[3];
    p.oh = out->shape[1];
    p.ow = out->shape[2];
    p.cout = out->shape[3];
    p.kh = w->shape[1];
    p.kw = w->shape[2];
    p.stride = in->stride;
    for (int i = 0; i < 4; i++)
        p.pad[i] = in->pad[i];
    for (int i = 0; i < 3; i++) {
        p.xs[i] = x->stride[i];
        p.os[i] = out->stride[i];
        if (in->residual) p.rs[i] = in->residual->stride[i];
    }
    p.type = dnn_type(x->dtype);
    p.out_type = dnn_type(out->dtype);
    p.res_type = in->residual ? dnn_type(in->residual->dtype) : 0;
    p.bias = in->bias != NULL;
    p.silu = in->silu;
    p.residual = in->residual != NULL;
    *done = false;
    plan *chosen = at_cuda_plans_find(g->conv_plans, &p, sizeof p);
    if (!chosen) {
        chosen = at_calloc(1, sizeof *chosen);
        if (!chosen) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
        plan_make(g, &p, chosen);
        at_status st = at_cuda_plans_add(g->conv_plans, &p, sizeof p, chosen);
        if (st != AT_OK) return st;
    }
    if (!chosen->p.plan) return AT_OK;
    void *addresses[AT_DNN_TENSORS] = {x->data, w->data, out->data};
    int n = 3;
    if (in->bias) addresses[n++] = (void *)(uintptr_t)in->bias;
    if (in->residual) addresses[n++] = in->residual->data;
    int st = at_dnn_run(g->dnn, g->dnn_handle, &chosen->p, addresses, g->workspace);
    if (st)
        chosen->p.plan = NULL;
    else
        at_cuda_served("cudnn conv");
    *done = st == 0;
    return AT_OK;
}

// [b, h, w, c] as [b, h * w, c] where rows lie behind each other; false where they do not.
static bool flat(const at_view *v, at_view *out)
{
    *out = *v;
    if (v->shape[1] > 1 && v->shape[2] > 1 && v->stride[1] != v->shape[2] * v->stride[2])
        return false;
    out->rank = 3;
    out->shape[1] = v->shape[1] * v->shape[2];
    out->stride[1] = v->shape[2] > 1 ? v->stride[2] : v->stride[1];
    out->shape[2] = v->shape[3];
    out->stride[2] = v->stride[3];
    return true;
}

// A 1x1 convolution over flat views is a linear layer with all its epilogues.
static bool as_linear(const at_conv2d_args *a, at_linear_args *l)
{
    if (a->w.v.shape[2] != 1 || a->w.v.shape[3] != 1 || a->stride != 1 || a->upsample2x)
        return false;
    if (a->pad_top || a->pad_left || a->pad_bottom || a->pad_right) return false;
    *l = (at_linear_args){.w = a->w, .bias = a->bias, .act = a->act};
    if (!flat(&a->x, &l->x) || !flat(&a->out, &l->out)) return false;
    if (a->residual.data && !flat(&a->residual, &l->residual)) return false;
    l->w.v.rank = 2;
    return true;
}

typedef struct conv_call {
    at_view x, w, out;
    void *own_w, *own_b, *sx, *so, *sp;
    const void *bias;
} conv_call;

// x in the arithmetic's format with channels contiguous, framed and doubled where asked.
static at_status ready(at_cuda *g, const at_conv2d_args *a, at_dtype math, bool frame, conv_call *c)
{
    at_status st = AT_OK;
    c->x = a->x;
    if (a->x.dtype != math || a->x.stride[3] != 1) {
        AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->x) * at_cuda_size(math), &c->sx));
        c->x = at_cuda_view(c->sx, math, 4, a->x.shape);
        AT_TRY(at_cuda_check(g, at_k_copy(g->stream, &a->x, &c->x), "conv: converting x"));
    }
    if (frame) {
        int up = a->upsample2x ? 2 : 1;
        int64_t shape[] = {a->x.shape[0], a->x.shape[1] * up + a->pad_top + a->pad_bottom,
                           a->x.shape[2] * up + a->pad_left + a->pad_right, a->x.shape[3]};
        int64_t n = shape[0] * shape[1] * shape[2] * shape[3];
        AT_TRY(at_cuda_alloc(g, (size_t)n * at_cuda_size(math), &c->sp));
        at_view to = at_cuda_view(c->sp, math, 4, shape);
        AT_TRY(at_cuda_check(
            g, at_k_pad(g->stream, &c->x, &to, a->pad_top, a->pad_left, a->upsample2x),
            "conv: framing x"));
        c->x = to;
    }
out:
    return st;
}

// Bias and activation over the f32 sum in place, then onto the residual or into the output.
static at_status finish(at_cuda *g, const at_conv2d_args *a, const at_view *sum, const void *bias)
{
    at_view b = {0};
    int64_t n = sum->shape[3];
    cudaError_t e = cudaSuccess;
    if (bias) {
        b = at_cuda_view((void *)(uintptr_t)bias, AT_F32, 1, &n);
        e = at_k_binary(g->stream, sum, &b, sum, AT_ADD, AT_ACT_NONE);
    }
    if (e == cudaSuccess && a->residual.data)
        e = at_k_binary(g->stream, sum, &a->residual, &a->out, AT_ADD, (int)a->act);
    else if (e == cudaSuccess)
        e = at_k_unary(g->stream, sum, &a->out, (int)a->act);
    return at_cuda_check(g, e, "conv: bias and residual");
}

static bool dense(const at_view *v)
{
    int64_t want = 1;
    for (int d = v->rank - 1; d >= 0; want *= v->shape[d], d--)
        if (v->shape[d] > 1 && v->stride[d] != want) return false;
    return true;
}

// The whole layer as one graph, where cuDNN has one: x and w in one format, no scale, everything
// without gaps (cuDNN's kernels may write into them), and an output that is not the residual.
static at_status fused(at_cuda *g, const at_conv2d_args *a, conv_call *c, const int pad[4],
                       bool *done)
{
    graph_in in = {.x = &c->x,
                   .w = &c->w,
                   .out = &a->out,
                   .bias = c->bias,
                   .stride = a->stride,
                   .pad = pad,
                   .silu = a->act == AT_ACT_SILU};
    *done = false;
    if (a->act != AT_ACT_NONE && a->act != AT_ACT_SILU) return AT_OK;
    if (a->w.scale != 1.0f || !dense(&a->out)) return AT_OK;
    if (a->residual.data) {
        if (a->residual.data == a->out.data || !dense(&a->residual)) return AT_OK;
        in.residual = &a->residual;
    }
    return by_cudnn(g, &in, done);
}

at_status at_cuda_conv2d(void *stream, const at_conv2d_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    at_linear_args l;
    conv_call c = {0};
    at_dtype math = a->x.dtype;
    bool done = false;
    bool even = a->pad_top == a->pad_bottom && a->pad_left == a->pad_right;
    bool frame = a->upsample2x || !even;
    int pad[4] = {a->pad_top, a->pad_left, a->pad_bottom, a->pad_right};

    if (at_cuda_count(&a->out) == 0) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (as_linear(a, &l)) return at_cuda_linear(stream, &l);
    AT_TRY(at_cuda_weight(g, &a->w, math, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &c.bias, &c.own_b));
    if (g->dnn) {
        AT_TRY(ready(g, a, math, frame, &c));
        if (frame) memset(pad, 0, sizeof pad);
        AT_TRY(fused(g, a, &c, pad, &done));
        if (done) goto out;
    }
    AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * sizeof(float), &c.so));
    c.out = at_cuda_view(c.so, AT_F32, 4, a->out.shape);
    if (g->dnn && a->w.scale == 1.0f) {
        graph_in in = {.x = &c.x, .w = &c.w, .out = &c.out, .stride = a->stride, .pad = pad};
        AT_TRY(by_cudnn(g, &in, &done));
    }
    if (!done) {
        at_k_conv_in in = {.x = a->x,
                           .w = c.w,
                           .out = c.out,
                           .scale = a->w.scale,
                           .stride = a->stride,
                           .top = a->pad_top,
                           .left = a->pad_left,
                           .twice = a->upsample2x};
        AT_TRY(at_cuda_check(g, at_k_conv(g->stream, &in), "conv"));
    }
    AT_TRY(finish(g, a, &c.out, c.bias));
out:
    at_cuda_free(g, c.own_w);
    at_cuda_free(g, c.own_b);
    at_cuda_free(g, c.sx);
    at_cuda_free(g, c.sp);
    at_cuda_free(g, c.so);
    return st;
}
