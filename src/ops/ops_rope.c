// SPDX-License-Identifier: Apache-2.0
// ops_rope.c - the door of rotary embeddings with their norm.
// Idea: angles come as tables over tokens; a head may be normalised first.
// Owns: see ops.h.
#include "ops/ops_private.h"

static const char *shape_of(const at_tensor *t, char out[128])
{
    return at_shape_text(t->dtype, t->rank, t->shape, out);
}

// cos or sin: [t or b * t, d / 2] f32 contiguous.
static at_status rope_half(const op_pass *p, const char *what, const at_tensor *t,
                           const at_tensor *x, at_view *out)
{
    at_status st = AT_OK;
    char text[128], want[128];

    AT_TRY(op_takes(p, what, t));
    if (t->dtype != AT_F32 || t->rank != 2 || !at_tensor_contiguous(t) || x->shape[3] % 2 != 0 ||
        t->shape[1] != x->shape[3] / 2 ||
        (t->shape[0] != x->shape[1] && t->shape[0] != x->shape[0] * x->shape[1])) {
        AT_TRY(at_fail(AT_EINVAL,
                       "%s %s does not fit x %s: contiguous f32 [t or b * t, d / 2] is wanted",
                       what, shape_of(t, text), shape_of(x, want)));
    }
    *out = at_tensor_as_view(t);
out:
    return st;
}

// x may be what the result is written into.
static at_status rope_args(const op_pass *p, const at_tensor *x, const at_weight *weight,
                           const at_rope_table *table, at_rope_args *a)
{
    at_status st = AT_OK;
    char text[128];

    AT_TRY(op_takes(p, "x", x));
    if (x->rank != 4) AT_TRY(at_fail(AT_EINVAL, "x %s must be [b, t, h, d]", shape_of(x, text)));
    AT_TRY(op_takes_vector(p, "weight", weight, x->shape[3], &a->weight));
    if (!table) return AT_OK;
    AT_TRY(rope_half(p, "cos", table->cos, x, &a->cos));
    AT_TRY(rope_half(p, "sin", table->sin, x, &a->sin));
    if (a->cos.shape[0] != a->sin.shape[0]) {
        AT_TRY(at_fail(AT_EINVAL, "cos has %lld rows, sin %lld", (long long)a->cos.shape[0],
                       (long long)a->sin.shape[0]));
    }
out:
    return st;
}

at_tensor *at_rope(at_ops *o, const at_tensor *x, const at_weight *weight, float eps,
                   const at_rope_table *table, bool halves)
{
    at_status st = AT_OK;
    at_rope_args a = {.eps = eps, .halves = halves};
    at_tensor *out = NULL;
    const at_tensor *inner;
    op_pass p;

    if (!op_enter(&p, o, "rope", &o->stats.seconds_other)) return NULL;
    AT_TRY(rope_args(&p, x, weight, table, &a));
    AT_TRY(op_inner_contiguous(o, x, &inner));
    AT_TRY(op_result(&p, x->dtype, 4, x->shape, &out));
    a.x = at_tensor_as_view(inner);
    a.out = at_tensor_as_view(out);
    AT_TRY(op_has(&p, o->be->rope != NULL));
    if (at_tensor_count(x) > 0) AT_TRY(o->be->rope(o->dev->stream, &a));
out:
    return op_leave(&p, st, out);
}

at_status op_rope_jobs(const op_pass *p, int n, const at_rope_job *jobs, float eps, bool halves,
                       at_rope_args *a, int *many)
{
    at_status st = AT_OK;
    char text[128];

    *many = 0;
    if (n < 1 || n > AT_ROPES)
        AT_TRY(at_fail(AT_EINVAL, "of %d tensors; 1 to %d are possible", n, AT_ROPES));
    for (int i = 0; i < n; i++) {
        at_rope_args *one = &a[*many];
        at_tensor *x = jobs[i].x;

        *one = (at_rope_args){.eps = eps, .halves = halves};
        AT_TRY(rope_args(p, x, jobs[i].weight, jobs[i].table, one));
        if (x->shape[3] != jobs[0].x->shape[3] || (x->shape[3] > 1 && x->stride[3] != 1))
            AT_TRY(at_fail(AT_EINVAL, "x %s: one head size and contiguous heads are wanted",
                           shape_of(x, text)));
        one->x = one->out = at_tensor_as_view(x);
        if (at_tensor_count(x) > 0) ++*many;
    }
out:
    return st;
}

void at_rope_all(at_ops *o, int n, const at_rope_job *jobs, float eps, bool halves)
{
    at_status st = AT_OK;
    at_rope_args a[AT_ROPES];
    int many = 0;
    op_pass p;

    if (!op_enter(&p, o, "rope", &o->stats.seconds_other)) return;
    AT_TRY(op_rope_jobs(&p, n, jobs, eps, halves, a, &many));
    AT_TRY(op_has(&p, o->be->rope != NULL));
    if (many > 1 && o->be->ropes) {
        AT_TRY(o->be->ropes(o->dev->stream, a, many));
    } else {
        for (int i = 0; i < many; i++)
            AT_TRY(o->be->rope(o->dev->stream, &a[i]));
    }
out:
    op_leave(&p, st, st == AT_OK ? jobs[0].x : NULL);
}
