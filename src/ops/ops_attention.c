// SPDX-License-Identifier: Apache-2.0
// ops_attention.c - the attention door. What it does with tokens that are split over ranks is in
// ops_attention_ranks.c. Owns: see ops.h.
#include "ops/ops_private.h"

#include <math.h>
#include <string.h>

at_status op_attention_slot(const op_pass *p, at_attention_args *a)
{
    at_status st = op_has(p, p->o->be->attention != NULL);
    double tq = (double)a->q.shape[1], tk = (double)a->k.shape[1], pairs = tq * tk;

    if (st != AT_OK || at_view_count(&a->out) == 0) return st;
    if (a->causal && tq <= tk) pairs -= tq * (tq - 1) / 2;
    st = p->o->be->attention(p->o->dev->stream, a);
    p->o->stats.flops_attention +=
        4.0 * (double)a->q.shape[0] * (double)a->q.shape[2] * (double)a->q.shape[3] * pairs;
    return st;
}

// --- the door --------------------------------------------------------------------------------
static at_status check(const op_pass *p, const at_tensor *q, const at_tensor *k, const at_tensor *v,
                       const at_tensor *bias)
{
    at_status st = AT_OK;
    char tq[128], tk[128], tv[128];

    AT_TRY(op_takes(p, "q", q));
    AT_TRY(op_takes(p, "k", k));
    AT_TRY(op_takes(p, "v", v));
    if (q->rank != 4 || k->rank != 4 || v->rank != 4 || q->shape[0] != k->shape[0] ||
        q->shape[2] != k->shape[2] || q->shape[3] != k->shape[3] || q->shape[3] < 1 ||
        memcmp(k->shape, v->shape, 4 * sizeof *k->shape) != 0) {
        AT_TRY(at_fail(AT_EINVAL, "q %s, k %s, v %s must be [b, tq, h, d], [b, tk, h, d] twice",
                       at_shape_text(q->dtype, q->rank, q->shape, tq),
                       at_shape_text(k->dtype, k->rank, k->shape, tk),
                       at_shape_text(v->dtype, v->rank, v->shape, tv)));
    }
    if (!bias) goto out;
    AT_TRY(op_takes(p, "bias", bias));
    if (bias->dtype != AT_F32 || bias->rank != 4 ||
        (bias->shape[0] != 1 && bias->shape[0] != q->shape[0]) || bias->shape[1] != q->shape[2] ||
        bias->shape[2] != q->shape[1] || bias->shape[3] != k->shape[1]) {
        AT_TRY(at_fail(AT_EINVAL, "bias %s does not fit q %s, k %s: f32 [1 or b, h, tq, tk]",
                       at_shape_text(bias->dtype, bias->rank, bias->shape, tv),
                       at_shape_text(q->dtype, q->rank, q->shape, tq),
                       at_shape_text(k->dtype, k->rank, k->shape, tk)));
    }
out:
    return st;
}

// What stands before the slot: jobs NULL for none.
typedef struct before {
    const at_rope_job *jobs;
    int n;
    float eps;
    bool halves;
    const at_weight *then; // of the layers behind
} before;

// [b, tq, h * d]; behind turns and before layers in fp8 as such rows, where one sample's tokens are all there is.
static at_status result(op_pass *p, const at_tensor *q, const before *turn, at_attention_args *a,
                        at_tensor **out)
{
    at_status st = AT_OK;
    int64_t shape[] = {q->shape[0], q->shape[1], q->shape[2] * q->shape[3]};
    at_view like = {.dtype = p->o->compute, .rank = 3, .shape = {shape[0], shape[1], shape[2]}};

    if (!turn || p->into || shape[0] != 1 || !op_gives_rows8(p->o, &like, turn->then))
        return op_result(p, p->o->compute, 3, shape, out);
    AT_TRY(at_tensor_new_rows8(p->o->dev, 3, shape, out));
    AT_TRY(op_own(p->o, *out));
    a->out_scale = at_tensor_as_view((*out)->row_scale);
out:
    return st;
}

static at_tensor *attention(at_ops *o, const at_tensor *q, const at_tensor *k, const at_tensor *v,
                            const at_tensor *bias, float scale, bool causal, const before *turn)
{
    at_attention_args a = {.scale = scale, .causal = causal};
    at_rope_args turns[AT_ROPES];
    at_status st = AT_OK;
    at_tensor *out = NULL;
    const at_tensor *part;
    op_pass p;

    if (!op_enter(&p, o, "attention", &o->stats.seconds_attention)) return NULL;
    AT_TRY(check(&p, q, k, v, bias));
    if (turn)
        AT_TRY(op_rope_jobs(&p, turn->n, turn->jobs, turn->eps, turn->halves, turns, &a.n_turns));
    a.turns = turns;
    AT_TRY(result(&p, q, turn, &a, &out));
    a.fp8 = o->fp8;
    at_scope_begin(o);
    if (scale == 0) a.scale = (float)(1.0 / sqrt((double)q->shape[3]));
    a.out = at_tensor_as_view(q); // its shape; a given result may be part of a wider one
    a.out.data = at_tensor_data(out);
    a.out.dtype = out->dtype;
    memcpy(a.out.stride, (int64_t[]){out->stride[0], out->stride[1], q->shape[3], 1},
           4 * sizeof *a.out.stride);
    st = op_inner_contiguous(o, q, &part);
    if (st == AT_OK) a.q = at_tensor_as_view(part);
    if (st == AT_OK) st = op_inner_contiguous(o, k, &part);
    if (st == AT_OK) a.k = at_tensor_as_view(part);
    if (st == AT_OK) st = op_inner_contiguous(o, v, &part);
    if (st == AT_OK) a.v = at_tensor_as_view(part);
    if (st == AT_OK && bias) a.bias = at_tensor_as_view(bias);
    op_like(out, q);
    if (st == AT_OK && k->run.rows && !q->run.rows) {
        st = at_fail(AT_EUNSUPPORTED, "a whole q over some rows of a map: gather them first");
    } else if (st == AT_OK && (k->run.rows || o->split.open)) {
        st = o->mesh.degrees.stale ? op_attention_stale(&p, &a, &k->run)
                                   : op_attention_split(&p, &a, &k->run);
    } else if (st == AT_OK && o->held.total) {
        st = op_attention_part(&p, &a);
    } else if (st == AT_OK) {
        st = op_attention_slot(&p, &a);
    }
    at_scope_end(o, NULL);
out:
    return op_leave(&p, st, out);
}

bool at_ops_goes_ahead(const at_ops *o)
{
    const at_comm *c = o->mesh.tokens;
    return o->split.open && c->size > 1 && c->ops->scatter_begin != NULL && !o->late &&
           !o->mesh.degrees.stale;
}

bool at_ops_queries_later(const at_ops *o)
{
    return at_ops_goes_ahead(o) && o->mesh.axis[AT_AXIS_ULYSSES]->size == 1 && o->be->splits;
}

void at_attention_ahead(at_ops *o, const at_tensor *q, const at_tensor *k, const at_tensor *v)
{
    at_status st = AT_OK;
    at_attention_args a = {0};
    op_pass p;

    if (!op_enter(&p, o, "attention", &o->stats.seconds_attention)) return;
    AT_TRY(check(&p, q, k, v, NULL));
    a.q = at_tensor_as_view(q);
    a.k = at_tensor_as_view(k);
    a.v = at_tensor_as_view(v);
    if (a.q.dtype == a.k.dtype && a.k.dtype == a.v.dtype && a.q.stride[3] == 1)
        AT_TRY(op_attention_ahead(&p, &a));
out:
    (void)op_leave(&p, st, NULL);
}

at_tensor *at_attention(at_ops *o, const at_tensor *q, const at_tensor *k, const at_tensor *v,
                        const at_tensor *bias, float scale, bool causal)
{
    return attention(o, q, k, v, bias, scale, causal, NULL);
}

static bool inner_contiguous(const at_tensor *t)
{
    return t && t->rank == 4 && (t->shape[3] == 1 || t->stride[3] == 1);
}

at_tensor *at_attention_turned(at_ops *o, int n, const at_rope_job *jobs, float eps, bool halves,
                               const at_tensor *q, const at_tensor *k, const at_tensor *v,
                               const at_weight *then)
{
    const before turn = {jobs, n, eps, halves, then};
    at_tensor *into = o->into; // the attention's, not the turns'

    if (o->be->turns && o->fp8 && o->comm->size == 1 && inner_contiguous(q) && inner_contiguous(k))
        return attention(o, q, k, v, NULL, 0, false, &turn);
    o->into = NULL;
    at_rope_all(o, n, jobs, eps, halves);
    o->into = into;
    return attention(o, q, k, v, NULL, 0, false, NULL);
}
