// SPDX-License-Identifier: Apache-2.0
// attention_matmul.c - attention as matmul, softmax, matmul: f32, and heads too wide for a fused kernel.
// Idea: scores of a chunk of queries of some heads lie in scratch as f32, become probabilities where
// they lie (softmax.cu), and meet v. The heads of one batch are a strided batch for cublasLt, so q, k, v
// and out are used where they are. The middle attention of a VAE (one head of 512) is made for this.
// Easy to get wrong: row-major [m, n] is column-major [n, m], so the first operand of a product is k or
// v, the second q or the probabilities. Probabilities of f16 travel times 4096, or the small ones of many
// keys would drop below its normal numbers; the second product's alpha takes that away.
// Scratch is at most SCRATCH bytes as long as one row of one head fits; owned for the call.
#include <string.h>

#include "base/mem.h"
#include "cuda/cuda.h"

enum { SCRATCH = 256 << 20, WANTED_ROWS = 512 };

// out[m, n] = alpha * sum_k a[m, k] * b, for `batch` heads. turned: b is [n, k] (keys), else [k, n] (values).
typedef struct problem {
    int64_t m, n, k, batch, lda, ldb, ldo, sa, sb, so;
    int type, out_type, turned;
    int align_a, align_b, align_o;
} problem;

typedef struct plan {
    void *desc, *a, *b, *o;
    at_lt_algo algo;
    bool works;
} plan;

static int lt_type(at_dtype t)
{
    return t == AT_F32 ? LT_R_32F : t == AT_BF16 ? LT_R_16BF : LT_R_16F;
}

static int layout(const at_cublaslt *lt, void **out, int type, int64_t rows, int64_t cols,
                  int64_t ld, int64_t batch, int64_t stride)
{
    int32_t count = (int32_t)batch;
    int st = lt->MatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)cols, ld);
    if (!st) st = lt->MatrixLayoutSetAttribute(*out, LT_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (!st)
        st = lt->MatrixLayoutSetAttribute(*out, LT_LAYOUT_BATCH_STRIDE, &stride, sizeof stride);
    return st;
}

static int preferences(const at_cublaslt *lt, const at_cuda *g, const problem *p, void **out)
{
    uint32_t align[] = {(uint32_t)p->align_b, (uint32_t)p->align_a, (uint32_t)p->align_o,
                        (uint32_t)p->align_o};
    size_t bytes = g->workspace_bytes;
    int st = lt->MatmulPreferenceCreate(out);
    if (!st) st = lt->MatmulPreferenceSetAttribute(*out, LT_PREF_WORKSPACE, &bytes, sizeof bytes);
    for (int i = 0; i < 4 && !st; i++) // of the operands, of C and of D
        st = lt->MatmulPreferenceSetAttribute(*out, 5 + i, &align[i], sizeof align[i]);
    return st;
}

static void plan_make(at_cuda *g, const problem *p, plan *out)
{
    const at_cublaslt *lt = g->lt;
    int32_t trans = LT_OP_T;
    void *pref = NULL;
    at_lt_choice choice;
    int found = 0;
    int st = lt->MatmulDescCreate(&out->desc, LT_COMPUTE_32F, LT_R_32F);
    if (!st && p->turned)
        st = lt->MatmulDescSetAttribute(out->desc, LT_DESC_TRANSA, &trans, sizeof trans);
    if (!st)
        st = p->turned ? layout(lt, &out->b, p->type, p->k, p->n, p->ldb, p->batch, p->sb)
                       : layout(lt, &out->b, p->type, p->n, p->k, p->ldb, p->batch, p->sb);
    if (!st) st = layout(lt, &out->a, p->type, p->k, p->m, p->lda, p->batch, p->sa);
    if (!st) st = layout(lt, &out->o, p->out_type, p->n, p->m, p->ldo, p->batch, p->so);
    if (!st) st = preferences(lt, g, p, &pref);
    if (!st)
        st = lt->MatmulAlgoGetHeuristic(g->lt_handle, out->desc, out->b, out->a, out->o, out->o,
                                        pref, 1, &choice, &found);
    if (pref) lt->MatmulPreferenceDestroy(pref);
    out->works = !st && found > 0 && choice.state == 0;
    if (out->works) out->algo = choice.algo;
}

static at_status plan_of(at_cuda *g, const problem *p, plan **out)
{
    *out = at_cuda_plans_find(g->attention_plans, p, sizeof *p);
    if (*out) return AT_OK;
    plan *fresh = at_calloc(1, sizeof *fresh);
    if (!fresh) return at_fail(AT_ENOMEM, "cuda: no memory for a plan");
    plan_make(g, p, fresh);
    *out = fresh;
    return at_cuda_plans_add(g->attention_plans, p, sizeof *p, fresh);
}

// A matrix for each head: rows `ld` elements apart, heads `stride`.
typedef struct heads {
    void *data;
    at_dtype dtype;
    int64_t ld, stride;
} heads;

static int alignment(const heads *x)
{
    int64_t size = (int64_t)at_cuda_size(x->dtype);
    uintptr_t bits = (uintptr_t)x->data | (uintptr_t)(x->ld * size) | (uintptr_t)(x->stride * size);
    int a = 16;
    while (a > 1 && bits % (unsigned)a)
        a /= 2;
    return a;
}

// m, n, k and batch of `p` are set; *done: cublasLt took it.
static at_status multiply(at_cuda *g, problem p, const heads *a, const heads *b, const heads *o,
                          float alpha, bool *done)
{
    plan *chosen = NULL;
    float beta = 0;
    p.lda = a->ld;
    p.ldb = b->ld;
    p.ldo = o->ld;
    p.sa = a->stride;
    p.sb = b->stride;
    p.so = o->stride;
    p.type = lt_type(a->dtype);
    p.out_type = lt_type(o->dtype);
    p.align_a = alignment(a);
    p.align_b = alignment(b);
    p.align_o = alignment(o);
    at_status st = plan_of(g, &p, &chosen);
    *done = false;
    if (st != AT_OK || !chosen->works) return st;
    int e = g->lt->Matmul(g->lt_handle, chosen->desc, &alpha, b->data, chosen->b, a->data,
                          chosen->a, &beta, o->data, chosen->o, o->data, chosen->o, &chosen->algo,
                          g->workspace, g->workspace_bytes, g->stream);
    *done = chosen->works = e == 0;
    return AT_OK;
}

// Head `h` of batch `b` from token `t` on.
static heads part(const at_view *v, int64_t b, int64_t t, int64_t h)
{
    int64_t at = b * v->stride[0] + t * v->stride[1] + h * v->stride[2];
    heads x = {(char *)v->data + at * (int64_t)at_cuda_size(v->dtype), v->dtype, v->stride[1],
               v->stride[2]};
    // the stride of a dimension of one says nothing, but cublasLt wants it sound
    if (v->shape[1] == 1) x.ld = v->shape[3];
    if (v->shape[2] == 1) x.stride = 0;
    return x;
}

static int64_t bias_stride(const at_view *v, int d)
{
    return v->shape[d] == 1 ? 0 : v->stride[d];
}

// `rows` queries from `t` on, `n` heads from `h` on.
static at_status chunk(at_cuda *g, const at_attention_args *a, int64_t b, int64_t h, int64_t n,
                       int64_t t, int64_t rows, void *scratch, bool *done)
{
    int64_t tq = a->q.shape[1], tk = a->k.shape[1], d = a->q.shape[3];
    int64_t pitch = (tk + 7) / 8 * 8;
    heads q = part(&a->q, b, t, h), k = part(&a->k, b, 0, h), v = part(&a->v, b, 0, h),
          out = part(&a->out, b, t, h);
    heads s = {scratch, AT_F32, pitch, rows * pitch}, p = s;
    at_k_softmax_in soft = {.scores = scratch,
                            .rows = rows,
                            .heads = n,
                            .keys = tk,
                            .pitch = s.ld,
                            .head_pitch = s.stride,
                            .seen = tk - tq + t + 1,
                            .times = a->q.dtype == AT_F16 ? 4096 : 1,
                            .dtype = a->q.dtype,
                            .causal = a->causal};
    if (a->bias.data) {
        for (int i = 0; i < 3; i++)
            soft.bias_stride[i] = bias_stride(&a->bias, i + 1);
        soft.bias = (const float *)a->bias.data + b * bias_stride(&a->bias, 0) +
                    h * soft.bias_stride[0] + t * soft.bias_stride[1];
    }
    if (a->lse.data) {
        soft.lse_stride = tq;
        soft.lse = (float *)a->lse.data + (b * a->q.shape[2] + h) * tq + t;
    }
    problem one;
    memset(&one, 0, sizeof one); // padding is part of the key
    one.batch = n;
    one.m = rows;
    one.n = tk;
    one.k = d;
    one.turned = 1;
    at_status st = multiply(g, one, &q, &k, &s, a->scale, done);
    if (st != AT_OK || !*done) return st;
    st = at_cuda_check(g, at_k_softmax(g->stream, &soft), "attention: softmax");
    if (st != AT_OK) return st;
    p.dtype = a->q.dtype;
    if (p.dtype != AT_F32) {
        p.ld *= 2;
        p.stride *= 2;
    }
    one.n = d;
    one.k = tk;
    one.turned = 0;
    return multiply(g, one, &p, &v, &out, 1 / soft.times, done);
}

// At most `most` of `all` rows at once (but one), in whole tiles of 128 and chunks of about one size.
static int64_t even(int64_t all, int64_t most)
{
    if (most >= 128) most -= most % 128;
    if (most < 1) most = 1;
    if (most >= all) return all;
    int64_t chunks = (all + most - 1) / most, each = (all + chunks - 1) / chunks;
    return most < 128 ? each : (each + 127) / 128 * 128;
}

// q, k and v share a format and out is f32 or has it too.
static at_status in_chunks(at_cuda *g, const at_attention_args *a, bool *done)
{
    at_status st = AT_OK;
    void *scratch = NULL;
    int64_t b = a->q.shape[0], tq = a->q.shape[1], h = a->q.shape[2], tk = a->k.shape[1];
    int64_t row_bytes = (tk + 7) / 8 * 8 * 4, wanted = tq < WANTED_ROWS ? tq : WANTED_ROWS;
    int64_t heads_at_once = SCRATCH / (row_bytes * wanted);
    if (heads_at_once > h) heads_at_once = h;
    if (heads_at_once < 1) heads_at_once = 1;
    int64_t rows = even(tq, SCRATCH / (row_bytes * heads_at_once));

    AT_TRY(at_cuda_alloc(g, (size_t)(row_bytes * heads_at_once * rows), &scratch));
    for (int64_t i = 0; i < b; i++)
        for (int64_t at = 0; at < h; at += heads_at_once)
            for (int64_t t = 0; t < tq; t += rows) {
                int64_t n = h - at < heads_at_once ? h - at : heads_at_once;
                AT_TRY(chunk(g, a, i, at, n, t, tq - t < rows ? tq - t : rows, scratch, done));
                if (!*done) goto out;
            }
out:
    at_cuda_free(g, scratch);
    return st;
}

// The view in `dtype`; *own is what the caller frees.
static at_status meet(at_cuda *g, at_view *v, at_dtype dtype, void **own)
{
    if (v->dtype == dtype) return AT_OK;
    at_status st = at_cuda_alloc(g, (size_t)at_cuda_count(v) * at_cuda_size(dtype), own);
    if (st != AT_OK) return st;
    at_view from = *v;
    *v = at_cuda_view(*own, dtype, 4, from.shape);
    return at_cuda_check(g, at_k_copy(g->stream, &from, v), "attention: converting");
}

at_status at_cuda_attention_matmul(at_cuda *g, const at_attention_args *a, bool *done)
{
    at_status st = AT_OK;
    at_attention_args in = *a;
    void *own[4] = {NULL};
    at_dtype t = a->q.dtype;

    *done = false;
    if (!g->lt) return AT_OK;
    if (a->k.dtype != t || a->v.dtype != t) t = AT_F32;
    AT_TRY(meet(g, &in.q, t, &own[0]));
    AT_TRY(meet(g, &in.k, t, &own[1]));
    AT_TRY(meet(g, &in.v, t, &own[2]));
    if (a->out.dtype != AT_F32 && a->out.dtype != t) {
        AT_TRY(at_cuda_alloc(g, (size_t)at_cuda_count(&a->out) * sizeof(float), &own[3]));
        in.out = at_cuda_view(own[3], AT_F32, 4, a->out.shape);
    }
    AT_TRY(in_chunks(g, &in, done));
    if (own[3] && *done)
        AT_TRY(at_cuda_check(g, at_k_copy(g->stream, &in.out, &a->out), "attention: converting"));
out:
    for (int i = 0; i < 4; i++)
        at_cuda_free(g, own[i]);
    return st;
}
