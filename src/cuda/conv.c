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
    int64_t xs[3], os[3];
    int type;
} problem;

typedef struct plan {
    at_dnn_plan p;
} plan;

enum { UID_X = 1, UID_W, UID_Y };

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

static void plan_make(at_cuda *g, const problem *p, plan *out)
{
    at_dnn_build b = {.dnn = g->dnn};
    const int64_t xd[] = {p->n, p->cin, p->h, p->w}, xs[] = {p->xs[0], 1, p->xs[1], p->xs[2]};
    const int64_t wd[] = {p->cout, p->cin, p->kh, p->kw};
    const int64_t ws[] = {p->kh * p->kw * p->cin, 1, p->kw * p->cin, p->cin};
    const int64_t yd[] = {p->n, p->cout, p->oh, p->ow}, ys[] = {p->os[0], 1, p->os[1], p->os[2]};
    float one = 1.0f, zero = 0.0f;
    void *op = at_dnn_desc(&b, DNN_OP_CONV);
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_DESC, conv_desc(&b, p));
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_X, at_dnn_tensor(&b, UID_X, p->type, 4, xd, xs, 0, 0));
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_W, at_dnn_tensor(&b, UID_W, p->type, 4, wd, ws, 0, 0));
    at_dnn_set_desc(&b, op, DNN_A_OPCONV_Y, at_dnn_tensor(&b, UID_Y, p->type, 4, yd, ys, 0, 0));
    at_dnn_set(&b, op, DNN_A_OPCONV_ALPHA, DNN_T_FLOAT, 1, &one);
    at_dnn_set(&b, op, DNN_A_OPCONV_BETA, DNN_T_FLOAT, 1, &zero);
    at_dnn_finish(&b, op);
    if (b.status || at_dnn_plan_make(&b, g->dnn_handle, &op, 1, &out->p)) {
        at_dnn_build_drop(&b);
        out->p.plan = NULL;
        return;
    }
    static const int64_t uids[] = {UID_X, UID_W, UID_Y};
    memcpy(out->p.uids, uids, sizeof uids);
    out->p.n = 3;
    if (out->p.workspace > g->workspace_bytes) out->p.plan = NULL;
}

static at_status by_cudnn(at_cuda *g, const at_view *x, const at_view *w, const at_view *out,
                          int stride, const int pad[4], bool *done)
{
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
    p.stride = stride;
    for (int i = 0; i < 4; i++)
        p.pad[i] = pad[i];
    for (int i = 0; i < 3; i++) {
        p.xs[i] = x->stride[i];
        p.os[i] = out->stride[i];
    }
    p.type = dnn_type(x->dtype);
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
    void *addresses[] = {x->data, w->data, out->data};
    int st = at_dnn_run(g->dnn, g->dnn_handle, &chosen->p, addresses, g->workspace);
    if (st) chosen->p.plan = NULL;
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

// Bias, activation and residual over [b * h * w, c] in one pass.
static at_status finish(at_cuda *g, const at_conv2d_args *a, const at_view *sum, const void *bias)
{
    at_view b = {0}, out = a->out;
    int64_t n = out.shape[3];
    if (bias) b = at_cuda_view((void *)(uintptr_t)bias, AT_F32, 1, &n);
    cudaError_t e = cudaSuccess;
    if (bias)
        e = at_k_binary(g->stream, sum, &b, &out, AT_ADD, AT_ACT_NONE);
    else if (sum->data != out.data)
        e = at_k_copy(g->stream, sum, &out);
    if (e == cudaSuccess && a->act != AT_ACT_NONE)
        e = at_k_unary(g->stream, &out, &out, (int)a->act);
    if (e == cudaSuccess && a->residual.data)
        e = at_k_binary(g->stream, &out, &a->residual, &out, AT_ADD, AT_ACT_NONE);
    return at_cuda_check(g, e, "conv: bias and residual");
}

at_status at_cuda_conv2d(void *stream, const at_conv2d_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    at_linear_args l;
    conv_call c = {0};
    at_dtype math = a->out.dtype;
    bool done = false;
    bool even = a->pad_top == a->pad_bottom && a->pad_left == a->pad_right;
    bool frame = a->upsample2x || !even;
    int pad[4] = {a->pad_top, a->pad_left, a->pad_bottom, a->pad_right};

    if (at_cuda_count(&a->out) == 0) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (as_linear(a, &l)) return at_cuda_linear(stream, &l);
    AT_TRY(at_cuda_weight(g, &a->w, math, true, &c.w, &c.own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &c.bias, &c.own_b));
    // the residual may be the output: the sum then needs a place of its own
    c.out = a->out;
    if (a->residual.data || a->w.scale != 1.0f || a->out.stride[3] != 1) {
        AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * at_cuda_size(math), &c.so));
        c.out = at_cuda_view(c.so, math, 4, a->out.shape);
    }
    if (g->dnn && a->w.scale == 1.0f) {
        AT_TRY(ready(g, a, math, frame, &c));
        if (frame) memset(pad, 0, sizeof pad);
        AT_TRY(by_cudnn(g, &c.x, &c.w, &c.out, a->stride, pad, &done));
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
    if (a->residual.data && a->residual.data == a->out.data) {
        // sum + bias, act in scratch, then onto the residual
        at_conv2d_args first = *a;
        first.out = c.out;
        first.residual = (at_view){0};
        AT_TRY(finish(g, &first, &c.out, c.bias));
        AT_TRY(at_cuda_check(
            g, at_k_binary(g->stream, &a->residual, &c.out, &a->out, AT_ADD, AT_ACT_NONE),
            "conv: residual"));
    } else {
        AT_TRY(finish(g, a, &c.out, c.bias));
    }
out:
    at_cuda_free(g, c.own_w);
    at_cuda_free(g, c.own_b);
    at_cuda_free(g, c.sx);
    at_cuda_free(g, c.sp);
    at_cuda_free(g, c.so);
    return st;
}
