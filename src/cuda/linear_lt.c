// SPDX-License-Identifier: Apache-2.0
// linear_lt.c - one product by cublasLt, with bias, GELU and residual in its epilogue.
// Idea: out[m, n] row-major is [n, m] column-major, so the weight is the left operand (transposed)
// and x the right one: no copies, any row strides. What the library chose for a problem (and which of its
// proposals was fastest) is found once.
// Easy to get wrong: partial sums must not be added up in 16 bits, so reductions in the output's format
// are masked out; fp8 wants both operands K-major, k and n multiples of 16 and 16-byte addresses.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/linear.h"
#include "cuda/linear_own.h"

typedef struct plan {
    void *desc, *w, *x, *c, *d;
    at_lt_algo algo;
    bool works;
    char name[48]; // for traces
} plan;

static int lt_type(at_dtype t)
{
    switch (t) {
    case AT_F32: return LT_R_32F;
    case AT_BF16: return LT_R_16BF;
    case AT_F8E4M3: return LT_R_8F_E4M3;
    case AT_F8E5M2: return LT_R_8F_E5M2;
    default: return LT_R_16F;
    }
}

static const char *type_name(int type)
{
    return type == LT_R_32F ? "f32" : type == LT_R_16F ? "f16" : type == LT_R_16BF ? "bf16" : "fp8";
}

static int alignment(const void *p, int64_t stride, size_t size)
{
    uintptr_t bits = (uintptr_t)p | (uintptr_t)stride * size;
    int a = 16;
    while (a > 1 && bits % (unsigned)a)
        a /= 2;
    return a;
}

// --- a problem -------------------------------------------------------------------------------
// Batches that lie behind each other are one.
static bool joins(const at_view *v)
{
    return v->shape[0] == 1 || v->stride[0] == v->shape[1] * v->stride[1];
}

static void problem_of(const at_cuda_product *c, at_cuda_problem *p)
{
    bool one = joins(&c->x) && joins(&c->out) && (!c->residual.data || joins(&c->residual));
    int64_t b = c->x.shape[0], t = c->x.shape[1];

    memset(p, 0, sizeof *p);
    p->m = one ? b * t : t;
    p->batch = one ? 1 : b;
    p->n = c->w.shape[0];
    p->k = c->w.shape[1];
    p->ldx = c->x.stride[1];
    p->ldo = c->out.stride[1];
    p->xb = one ? 0 : c->x.stride[0];
    p->ob = one ? 0 : c->out.stride[0];
    if (p->ldx < p->k) p->ldx = p->k; // one token: its stride says nothing
    if (p->ldo < p->n) p->ldo = p->n;
    p->x_type = lt_type(c->x.dtype);
    p->w_type = lt_type(c->w.dtype);
    p->out_type = lt_type(c->out.dtype);
    p->rows_scaled = c->x_rows != NULL;
    p->fp8 = c->x.dtype == AT_F8E4M3;
    p->align_x = alignment(c->x.data, p->ldx | p->xb, at_cuda_size(c->x.dtype));
    p->align_o = p->align_r = alignment(c->out.data, p->ldo | p->ob, at_cuda_size(c->out.dtype));
    p->align_b = c->bias ? alignment(c->bias, 0, 1) : 0;
    p->epilogue = LT_EPILOGUE_DEFAULT;
    if (c->gelu) p->epilogue = LT_EPILOGUE_GELU;
    if (c->bias) p->epilogue = c->gelu ? LT_EPILOGUE_GELU | LT_EPILOGUE_BIAS : LT_EPILOGUE_BIAS;
    if (!c->residual.data) return;
    p->residual = 1;
    p->res_type = lt_type(c->residual.dtype);
    p->ldr = c->residual.stride[1] < p->n ? p->n : c->residual.stride[1];
    p->rb = one ? 0 : c->residual.stride[0];
    p->align_r = alignment(c->residual.data, p->ldr | p->rb, at_cuda_size(c->residual.dtype));
}

// --- a plan ------------------------------------------------------------------------------------
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

static int set(const at_cublaslt *lt, void *desc, int attribute, int32_t value)
{
    return lt->MatmulDescSetAttribute(desc, attribute, &value, sizeof value);
}

// The addresses that change from call to call.
static int point(const at_cublaslt *lt, void *desc, const at_cuda_product *c)
{
    int st = 0;
    if (c->bias)
        st = lt->MatmulDescSetAttribute(desc, LT_DESC_BIAS_POINTER, &c->bias, sizeof c->bias);
    if (!st && c->x_rows)
        st =
            lt->MatmulDescSetAttribute(desc, LT_DESC_A_SCALE_POINTER, &c->w_rows, sizeof c->w_rows);
    if (!st && c->x_rows)
        st =
            lt->MatmulDescSetAttribute(desc, LT_DESC_B_SCALE_POINTER, &c->x_rows, sizeof c->x_rows);
    return st;
}

static int describe(const at_cublaslt *lt, const at_cuda_problem *p, plan *out)
{
    int8_t fast = 1; // sums in what Hopper's units keep: backend.h allows it for fp8
    int st = lt->MatmulDescCreate(&out->desc, LT_COMPUTE_32F, LT_R_32F);
    if (!st) st = set(lt, out->desc, LT_DESC_TRANSA, LT_OP_T);
    if (!st) st = set(lt, out->desc, LT_DESC_EPILOGUE, p->epilogue);
    if (!st && (p->epilogue & LT_EPILOGUE_BIAS))
        st = set(lt, out->desc, LT_DESC_BIAS_DATA_TYPE, p->out_type);
    if (!st && p->fp8)
        st = lt->MatmulDescSetAttribute(out->desc, LT_DESC_FAST_ACCUM, &fast, sizeof fast);
    if (!st && p->rows_scaled) st = set(lt, out->desc, LT_DESC_A_SCALE_MODE, LT_SCALE_OUTER_VEC);
    if (!st && p->rows_scaled) st = set(lt, out->desc, LT_DESC_B_SCALE_MODE, LT_SCALE_OUTER_VEC);
    if (!st) st = layout(lt, &out->w, p->w_type, p->k, p->n, p->k, p->batch, 0);
    if (!st) st = layout(lt, &out->x, p->x_type, p->k, p->m, p->ldx, p->batch, p->xb);
    if (!st) st = layout(lt, &out->d, p->out_type, p->n, p->m, p->ldo, p->batch, p->ob);
    if (!st)
        st = p->residual ? layout(lt, &out->c, p->res_type, p->n, p->m, p->ldr, p->batch, p->rb)
                         : layout(lt, &out->c, p->out_type, p->n, p->m, p->ldo, p->batch, p->ob);
    return st;
}

// Alignments that the heuristic may count on, and reductions that keep f32.
static int preferences(const at_cublaslt *lt, const at_cuda *g, const at_cuda_problem *p,
                       void **out)
{
    const struct {
        int attribute;
        uint32_t value;
    } rows[] = {{LT_PREF_REDUCTION, LT_REDUCTION_COMPUTE_TYPE},
                {LT_PREF_ALIGN_A, 16},
                {LT_PREF_ALIGN_B, (uint32_t)p->align_x},
                {LT_PREF_ALIGN_C, (uint32_t)p->align_r},
                {LT_PREF_ALIGN_D, (uint32_t)p->align_o}};
    size_t bytes = g->workspace_bytes;
    int st = lt->MatmulPreferenceCreate(out);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, LT_PREF_WORKSPACE, &bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !st; i++)
        st = lt->MatmulPreferenceSetAttribute(*out, rows[i].attribute, &rows[i].value,
                                              sizeof rows[i].value);
    return st;
}

// A call with its plan, for the tuner.
typedef struct attempt {
    at_cuda *g;
    const at_cuda_product *c;
    const plan *p;
} attempt;

static int run(void *self, const at_lt_algo *algo, void *d)
{
    const attempt *a = self;
    const at_cuda_product *c = a->c;
    at_cuda *g = a->g;
    if (at_cuda_own_marked(algo)) return at_cuda_own_run(g, c, d);
    float alpha = c->scale, beta = c->residual.data ? 1.0f : 0.0f;
    return g->lt->Matmul(g->lt_handle, a->p->desc, &alpha, c->w.data, a->p->w, c->x.data, a->p->x,
                         &beta, c->residual.data ? c->residual.data : d, a->p->c, d, a->p->d, algo,
                         g->workspace, g->workspace_bytes, g->stream);
}

// A kernel that the library does not propose.
typedef struct form {
    int32_t tile;
    uint16_t cluster;
    int32_t custom;
} form;

// Behind the n algorithms, if the library can do it and it is none of them: one more, else n.
static int add_form(at_cuda *g, const plan *of, const form *f, at_lt_algo *algos, int n)
{
    const at_cublaslt *lt = g->lt;
    at_lt_algo own = algos[0];
    at_lt_choice what = {0};
    int st = lt->MatmulAlgoConfigSetAttribute(&own, LT_ALGO_TILE, &f->tile, sizeof f->tile);

    if (!st)
        st =
            lt->MatmulAlgoConfigSetAttribute(&own, LT_ALGO_CLUSTER, &f->cluster, sizeof f->cluster);
    if (!st)
        st = lt->MatmulAlgoConfigSetAttribute(&own, LT_ALGO_CUSTOM, &f->custom, sizeof f->custom);
    for (int k = 0; k < n && !st; k++)
        if (!memcmp(&algos[k], &own, sizeof own)) return n;
    if (!st)
        st = lt->MatmulAlgoCheck(g->lt_handle, of->desc, of->w, of->x, of->c, of->d, &own, &what);
    if (st || what.workspace > g->workspace_bytes) return n;
    algos[n] = own;
    return n + 1;
}

// 16-bit products on Hopper are also tried with kernels that the heuristic does not propose; the library is asked
// whether it can. Large ones: a smaller tile of a kernel that finishes one tile while it multiplies the next, so
// that GELU hides behind the products (4608 x 12288 x 3072, H200 at its power limit: 515 us instead of 550).
// Others: tiles that make whole waves (linear_tiles.c), each in at most two kinds.
static int add_own(at_cuda *g, const at_cuda_problem *p, const plan *of, at_lt_algo *algos, int n)
{
    static const form large = {LT_TILE_128X160, LT_CLUSTER_2X1,
                               1}; // other kinds of it: never better
    static const form kinds[] = {{0, LT_CLUSTER_2X1, 1}, {0, LT_CLUSTER_1X1, 1},
                                 {0, LT_CLUSTER_1X2, 7}, {0, LT_CLUSTER_2X1, 5},
                                 {0, LT_CLUSTER_1X2, 6}, {0, LT_CLUSTER_1X1, 3}};
    bool half = p->x_type == LT_R_16BF || p->x_type == LT_R_16F;
    int32_t tiles[AT_CUDA_TILES];
    int sms = 0, most = n + AT_CUDA_OWN;

    if (!n || !half || g->capability != 90) return n;
    if (at_cuda_large(p)) return add_form(g, of, &large, algos, n);
    if (cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, g->ordinal) != cudaSuccess)
        return n;
    int count = at_cuda_tiles(p, sms, AT_CUDA_TILES, tiles);
    for (int t = 0; t < count && n < most; t++)
        for (size_t k = 0, begin = (size_t)n; k < sizeof kinds / sizeof *kinds; k++) {
            form f = kinds[k];
            f.tile = tiles[t];
            if (n < most && (size_t)n < begin + 2) n = add_form(g, of, &f, algos, n);
        }
    return n;
}

static void plan_make(at_cuda *g, const at_cuda_problem *p, const at_cuda_product *c, plan *out)
{
    const at_cublaslt *lt = g->lt;
    void *pref = NULL;
    at_lt_choice choices[AT_CUDA_PROPOSALS];
    at_lt_algo algos[AT_CUDA_CANDIDATES];
    int found = 0, good = 0;
    int st = describe(lt, p, out);

    if (!st) st = point(lt, out->desc, c);
    if (!st) st = preferences(lt, g, p, &pref);
    if (!st)
        st = lt->MatmulAlgoGetHeuristic(g->lt_handle, out->desc, out->w, out->x, out->c, out->d,
                                        pref, AT_CUDA_PROPOSALS, choices, &found);
    if (pref) lt->MatmulPreferenceDestroy(pref);
    snprintf(out->name, sizeof out->name, "cublasLt %s%s%s%s", type_name(p->x_type),
             p->epilogue & LT_EPILOGUE_BIAS ? " bias" : "",
             p->epilogue & LT_EPILOGUE_GELU ? " gelu" : "", p->residual ? " residual" : "");
    for (int i = 0; i < found && !st; i++)
        if (choices[i].state == 0) algos[good++] = choices[i].algo;
    out->works = good > 0;
    if (!out->works) return;
    good = add_own(g, p, out, algos, good);
    bool own = at_cuda_own_product(g, c, &algos[good]);
    good += own;
    size_t bytes =
        (size_t)((p->batch - 1) * p->ob + (p->m - 1) * p->ldo + p->n) * at_cuda_size(c->out.dtype);
    attempt self = {g, c, out};
    out->algo = own && at_cuda_own_forced() ? algos[good - 1]
                                            : at_cuda_tune(g, p, algos, good, bytes, run, &self);
    if (at_cuda_own_marked(&out->algo))
        snprintf(out->name, sizeof out->name, "own few tiles%s", p->residual ? " residual" : "");
}

static at_status plan_of(at_cuda *g, const at_cuda_problem *p, const at_cuda_product *c, plan **out)
{
    *out = at_cuda_plans_find(g->linear_plans, p, sizeof *p);
    if (*out) return AT_OK;
    plan *fresh = at_calloc(1, sizeof *fresh);
    if (!fresh) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
    plan_make(g, p, c, fresh);
    *out = fresh;
    return at_cuda_plans_add(g->linear_plans, p, sizeof *p, fresh);
}

static at_view batch_of(const at_view *v, int64_t i)
{
    at_view one = *v;
    if (!v->data) return one;
    one.data = (char *)v->data + i * v->stride[0] * (int64_t)at_cuda_size(v->dtype);
    one.shape[0] = 1;
    return one;
}

// The library knows no scales a row for several matrices: one after the other.
static at_status batches(at_cuda *g, const at_cuda_product *c, bool *done)
{
    at_status st = AT_OK;
    *done = true;
    for (int64_t i = 0; i < c->x.shape[0] && st == AT_OK && *done; i++) {
        at_cuda_product one = *c;
        one.x = batch_of(&c->x, i);
        one.out = batch_of(&c->out, i);
        one.residual = batch_of(&c->residual, i);
        one.x_rows = c->x_rows + i * c->x.shape[1];
        st = at_cuda_product_run(g, &one, done);
    }
    return st;
}

at_status at_cuda_product_run(at_cuda *g, const at_cuda_product *c, bool *done)
{
    at_cuda_problem p;
    plan *chosen = NULL;

    *done = false;
    problem_of(c, &p);
    if (c->x_rows && p.batch > 1) return batches(g, c, done);
    at_status st = plan_of(g, &p, c, &chosen);
    if (st != AT_OK || !chosen->works) return st;
    attempt self = {g, c, chosen};
    int e = point(g->lt, chosen->desc, c);
    if (!e) e = run(&self, &chosen->algo, c->out.data);
    *done = e == 0;
    if (*done) at_cuda_served(chosen->name);
    chosen->works = *done;
    return AT_OK;
}
