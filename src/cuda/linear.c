// SPDX-License-Identifier: Apache-2.0
// linear.c - linear layers by cublasLt, with bias, GELU and residual in its epilogue.
// Idea: out[m, n] row-major is [n, m] column-major, so the weight is the left operand (transposed)
// and x the right one: no copies, any row strides. What the epilogue cannot do (other activations,
// the gate) is one kernel of ours after it. The library's choice per problem is made once.
// Easy to get wrong: the operands must share a format, and nothing may be rounded that the caller
// gave: the weight takes x's format; where more than one kernel makes the result, what lies between
// is f32. The scale of a scaled weight is alpha, the bias stays unscaled.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"

typedef struct problem {
    int64_t m, n, k, batch, ldx, ldo, ldr, xb, ob, rb;
    int type, out_type, res_type, epilogue, residual;
    int align_x, align_o, align_r;
} problem;

typedef struct plan {
    void *desc, *w, *x, *c, *d;
    at_lt_algo algo;
    bool works;
    char name[48]; // for traces
} plan;

static int lt_type(at_dtype t)
{
    return t == AT_F32 ? LT_R_32F : t == AT_BF16 ? LT_R_16BF : LT_R_16F;
}

static int alignment(const void *p, int64_t stride, size_t size)
{
    uintptr_t bits = (uintptr_t)p | (uintptr_t)stride * size;
    int a = 16;
    while (a > 1 && bits % (unsigned)a)
        a /= 2;
    return a;
}

static int layout(const at_cublaslt *lt, void **out, int type, int64_t rows, int64_t cols,
                  int64_t ld, int64_t batch, int64_t stride)
{
    int32_t count = (int32_t)batch;
    int st = lt->MatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)cols, ld);
    if (!st && batch > 1)
        st = lt->MatrixLayoutSetAttribute(*out, LT_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (!st && batch > 1)
        st = lt->MatrixLayoutSetAttribute(*out, LT_LAYOUT_BATCH_STRIDE, &stride, sizeof stride);
    return st;
}

// Alignments that the heuristic may count on.
static int preferences(const at_cublaslt *lt, const at_cuda *g, const problem *p, void **out)
{
    uint32_t a = 16, x = (uint32_t)p->align_x, c = (uint32_t)p->align_r, d = (uint32_t)p->align_o;
    size_t bytes = g->workspace_bytes;
    int st = lt->MatmulPreferenceCreate(out);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, LT_PREF_WORKSPACE, &bytes, sizeof bytes);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, 5, &a, sizeof a);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, 6, &x, sizeof x);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, 7, &c, sizeof c);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, 8, &d, sizeof d);
    return st;
}

static void plan_make(at_cuda *g, const problem *p, plan *out)
{
    const at_cublaslt *lt = g->lt;
    int32_t trans = LT_OP_T, epilogue = p->epilogue, bias_type = p->out_type;
    void *pref = NULL;
    at_lt_choice choice;
    int found = 0;
    int st = lt->MatmulDescCreate(&out->desc, LT_COMPUTE_32F, LT_R_32F);
    if (!st) st = lt->MatmulDescSetAttribute(out->desc, LT_DESC_TRANSA, &trans, sizeof trans);
    if (!st)
        st = lt->MatmulDescSetAttribute(out->desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!st && (epilogue & LT_EPILOGUE_BIAS))
        st = lt->MatmulDescSetAttribute(out->desc, LT_DESC_BIAS_DATA_TYPE, &bias_type,
                                        sizeof bias_type);
    if (!st) st = layout(lt, &out->w, p->type, p->k, p->n, p->k, p->batch, 0);
    if (!st) st = layout(lt, &out->x, p->type, p->k, p->m, p->ldx, p->batch, p->xb);
    if (!st) st = layout(lt, &out->d, p->out_type, p->n, p->m, p->ldo, p->batch, p->ob);
    if (!st)
        st = p->residual ? layout(lt, &out->c, p->res_type, p->n, p->m, p->ldr, p->batch, p->rb)
                         : layout(lt, &out->c, p->out_type, p->n, p->m, p->ldo, p->batch, p->ob);
    if (!st) st = preferences(lt, g, p, &pref);
    if (!st)
        st = lt->MatmulAlgoGetHeuristic(g->lt_handle, out->desc, out->w, out->x, out->c, out->d,
                                        pref, 1, &choice, &found);
    if (pref) lt->MatmulPreferenceDestroy(pref);
    snprintf(out->name, sizeof out->name, "cublasLt %s%s%s%s",
             p->type == LT_R_32F   ? "f32"
             : p->type == LT_R_16F ? "f16"
                                   : "bf16",
             epilogue & LT_EPILOGUE_BIAS ? " bias" : "", epilogue & LT_EPILOGUE_GELU ? " gelu" : "",
             p->residual ? " residual" : "");
    out->works = !st && found > 0 && choice.state == 0;
    if (out->works) out->algo = choice.algo;
}

static at_status plan_of(at_cuda *g, const problem *p, plan **out)
{
    *out = at_cuda_plans_find(g->linear_plans, p, sizeof *p);
    if (*out) return AT_OK;
    plan *fresh = at_calloc(1, sizeof *fresh);
    if (!fresh) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
    plan_make(g, p, fresh);
    *out = fresh;
    return at_cuda_plans_add(g->linear_plans, p, sizeof *p, fresh);
}

// What a call works on once everything is on the device and in one format.
typedef struct call {
    at_view x, w, out, residual; // residual data NULL: none
    const void *bias;            // in the output's format, or NULL
    float scale;
    bool gelu;
} call;

// Batches that lie behind each other are one.
static bool joins(const at_view *v)
{
    return v->shape[0] == 1 || v->stride[0] == v->shape[1] * v->stride[1];
}

static at_status run_lt(at_cuda *g, const call *c, bool *done)
{
    bool one = joins(&c->x) && joins(&c->out) && (!c->residual.data || joins(&c->residual));
    int64_t b = c->x.shape[0], t = c->x.shape[1];
    problem p;
    memset(&p, 0, sizeof p); // padding is part of the key
    p.m = one ? b * t : t;
    p.batch = one ? 1 : b;
    p.n = c->w.shape[0];
    p.k = c->w.shape[1];
    p.ldx = c->x.stride[1];
    p.ldo = c->out.stride[1];
    p.xb = c->x.stride[0];
    p.ob = c->out.stride[0];
    if (p.ldx < p.k) p.ldx = p.k; // one token: its stride says nothing
    if (p.ldo < p.n) p.ldo = p.n;
    p.type = lt_type(c->x.dtype);
    p.out_type = lt_type(c->out.dtype);
    p.align_x = alignment(c->x.data, p.ldx | p.xb, at_cuda_size(c->x.dtype));
    p.align_o = p.align_r = alignment(c->out.data, p.ldo | p.ob, at_cuda_size(c->out.dtype));
    p.epilogue = LT_EPILOGUE_DEFAULT;
    if (c->gelu) p.epilogue = LT_EPILOGUE_GELU;
    if (c->bias) p.epilogue = c->gelu ? LT_EPILOGUE_GELU | LT_EPILOGUE_BIAS : LT_EPILOGUE_BIAS;
    if (c->residual.data) {
        p.residual = 1;
        p.res_type = lt_type(c->residual.dtype);
        p.ldr = c->residual.stride[1] < p.n ? p.n : c->residual.stride[1];
        p.rb = c->residual.stride[0];
        p.align_r = alignment(c->residual.data, p.ldr | p.rb, at_cuda_size(c->residual.dtype));
    }
    plan *chosen = NULL;
    at_status st = plan_of(g, &p, &chosen);
    *done = false;
    if (st != AT_OK || !chosen->works) return st;
    float alpha = c->scale, beta = c->residual.data ? 1.0f : 0.0f;
    int e = 0;
    if (c->bias)
        e = g->lt->MatmulDescSetAttribute(chosen->desc, LT_DESC_BIAS_POINTER, &c->bias,
                                          sizeof c->bias);
    if (!e)
        e = g->lt->Matmul(g->lt_handle, chosen->desc, &alpha, c->w.data, chosen->w, c->x.data,
                          chosen->x, &beta, c->residual.data ? c->residual.data : c->out.data,
                          chosen->c, c->out.data, chosen->d, &chosen->algo, g->workspace,
                          g->workspace_bytes, g->stream);
    *done = e == 0;
    if (*done) at_cuda_served(chosen->name);
    chosen->works = *done;
    return AT_OK;
}

// The output without activation, gate and residual by our own kernel, for what cublasLt refuses.
static at_status run_plain(at_cuda *g, const at_view *x, const at_wview *w, const at_wview *bias,
                           const at_view *out)
{
    at_status st = AT_OK;
    at_view dw;
    const void *db = NULL;
    at_cuda_served("own linear");
    void *own_w = NULL, *own_b = NULL;
    AT_TRY(at_cuda_weight(g, w, AT_DTYPE_COUNT, false, &dw, &own_w));
    AT_TRY(at_cuda_vector(g, bias, AT_F32, &db, &own_b));
    AT_TRY(at_cuda_check(g, at_k_linear(g->stream, x, &dw, w->scale, db, out), "linear"));
out:
    at_cuda_free(g, own_w);
    at_cuda_free(g, own_b);
    return st;
}

// x in the arithmetic's format; *scratch is what the caller frees.
static at_status meet(at_cuda *g, const at_view *x, at_dtype dtype, at_view *out, void **scratch)
{
    *out = *x;
    if (x->dtype == dtype && x->stride[2] == 1) return AT_OK;
    at_status st = at_cuda_alloc(g, (size_t)at_cuda_count(x) * at_cuda_size(dtype), scratch);
    if (st != AT_OK) return st;
    *out = at_cuda_view(*scratch, dtype, 3, x->shape);
    return at_cuda_check(g, at_k_copy(g->stream, x, out), "linear: converting x");
}

at_status at_cuda_linear(void *stream, const at_linear_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    void *sx = NULL, *so = NULL, *own_w = NULL, *own_b = NULL;
    at_dtype math = a->x.dtype;
    // What the epilogue cannot do is one more kernel, over a sum in f32.
    bool later = a->gate.data || (a->act != AT_ACT_NONE && a->act != AT_ACT_GELU_TANH) ||
                 (a->act != AT_ACT_NONE && a->residual.data) ||
                 (math == AT_F32 && a->out.dtype != AT_F32) ||
                 (math != AT_F32 && a->out.dtype != AT_F32 && a->out.dtype != math) ||
                 (a->residual.data && a->residual.dtype != a->out.dtype);
    call c = {.scale = a->w.scale, .gelu = a->act == AT_ACT_GELU_TANH && !later, .out = a->out};
    bool done = false;

    if (at_cuda_count(&a->out) == 0) return AT_OK;
    cudaSetDevice(g->ordinal);
    bool plain = !g->lt || a->w.v.shape[1] == 0;
    if (plain) later = a->act != AT_ACT_NONE || a->gate.data || a->residual.data;
    if (later) {
        AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * sizeof(float), &so));
        c.out = at_cuda_view(so, AT_F32, 3, a->out.shape);
    }
    if (!plain) {
        AT_TRY(meet(g, &a->x, math, &c.x, &sx));
        AT_TRY(at_cuda_weight(g, &a->w, math, false, &c.w, &own_w));
        AT_TRY(at_cuda_vector(g, &a->bias, c.out.dtype, &c.bias, &own_b));
        if (!later) c.residual = a->residual;
        AT_TRY(run_lt(g, &c, &done));
    }
    if (!done) {
        if (!later && (a->act != AT_ACT_NONE || a->residual.data)) {
            later = true;
            AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * sizeof(float), &so));
            c.out = at_cuda_view(so, AT_F32, 3, a->out.shape);
        }
        AT_TRY(run_plain(g, &a->x, &a->w, &a->bias, &c.out));
    }
    if (later) at_cuda_served("own epilogue");
    if (later)
        AT_TRY(at_cuda_check(
            g, at_k_gate_add(g->stream, &a->residual, &c.out, &a->gate, &a->out, (int)a->act),
            "linear"));
out:
    at_cuda_free(g, sx);
    at_cuda_free(g, so);
    at_cuda_free(g, own_w);
    at_cuda_free(g, own_b);
    return st;
}

at_status at_cuda_geglu(void *stream, const at_geglu_args *a)
{
    at_cuda *g = stream;
    at_status st = AT_OK;
    void *wide = NULL;
    int64_t shape[] = {a->out.shape[0], a->out.shape[1], a->w.v.shape[0]};

    if (at_cuda_count(&a->out) == 0) return AT_OK;
    // Both halves stay in f32 until they have met.
    AT_TRY(at_cuda_alloc(g, (size_t)(shape[0] * shape[1] * shape[2]) * sizeof(float), &wide));
    at_linear_args l = {
        .x = a->x, .out = at_cuda_view(wide, AT_F32, 3, shape), .w = a->w, .bias = a->bias};
    AT_TRY(at_cuda_linear(stream, &l));
    at_cuda_served("own geglu");
    AT_TRY(at_cuda_check(g, at_k_geglu(g->stream, &l.out, &a->out, (int)a->act), "geglu"));
out:
    at_cuda_free(g, wide);
    return st;
}
