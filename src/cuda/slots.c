// SPDX-License-Identifier: Apache-2.0
// slots.c - the remaining slots of backend.h: each makes its weights resident and launches one kernel.
#include "cuda/cuda.h"
#include "cuda/ropes.h"
#include "cuda/rows8.h"

static at_cuda *of(void *stream)
{
    at_cuda *g = stream;
    cudaSetDevice(g->ordinal);
    return g;
}

static at_status slot_copy(void *stream, const at_view *src, const at_view *dst)
{
    at_cuda *g = of(stream);
    return at_cuda_check(g, at_k_copy(g->stream, src, dst), "copy");
}

static at_status slot_fill(void *stream, const at_view *dst, double value)
{
    at_cuda *g = of(stream);
    return at_cuda_check(g, at_k_fill(g->stream, dst, value), "fill");
}

static at_status slot_unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    at_cuda *g = of(stream);
    return at_cuda_check(g, at_k_unary(g->stream, x, out, (int)act), "unary");
}

static at_status slot_binary(void *stream, const at_binary_args *a)
{
    at_cuda *g = of(stream);
    return at_cuda_check(
        g, at_k_binary(g->stream, &a->a, &a->b, &a->out, (int)a->op, (int)a->act_a), "binary");
}

static at_status slot_gate_add(void *stream, const at_gate_add_args *a)
{
    at_cuda *g = of(stream);
    return at_cuda_check(g, at_k_gate_add(g->stream, &a->x, &a->y, &a->gate, &a->out, AT_ACT_NONE),
                         "gate_add");
}

static at_status slot_lincomb(void *stream, const at_lincomb_args *a)
{
    at_cuda *g = of(stream);
    at_k_lincomb_in in = {.n = a->n, .out = a->out};
    for (int i = 0; i < a->n; i++) {
        in.coef[i] = a->coef[i];
        in.in[i] = a->in[i];
    }
    return at_cuda_check(g, at_k_lincomb(g->stream, &in), "lincomb");
}

static at_status slot_norm(void *stream, const at_norm_args *a)
{
    at_cuda *g = of(stream);
    at_status st = AT_OK;
    const void *w = NULL, *b = NULL;
    void *own_w = NULL, *own_b = NULL;
    AT_TRY(at_cuda_vector(g, &a->weight, AT_F32, &w, &own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &b, &own_b));
    at_k_norm_in in = {.x = a->x,
                       .out = a->out,
                       .mod_scale = a->mod_scale,
                       .mod_shift = a->mod_shift,
                       .weight = w,
                       .bias = b,
                       .eps = a->eps,
                       .rms = a->rms,
                       .y = a->y,
                       .gate = a->gate,
                       .scales = a->out_scale.data};
    AT_TRY(at_cuda_check(g, at_k_norm(g->stream, &in), "norm"));
out:
    at_cuda_free(g, own_w);
    at_cuda_free(g, own_b);
    return st;
}

static at_status group_norm(at_cuda *g, const at_group_norm_args *a, const char *name,
                            cudaError_t (*kernel)(cudaStream_t, const at_k_group_norm_in *))
{
    at_status st = AT_OK;
    const void *w = NULL, *b = NULL;
    void *own_w = NULL, *own_b = NULL, *partial = NULL;
    if (a->parts.data && a->parts.shape[0] > AT_K_GROUP_PARTS)
        AT_TRY(at_fail(AT_EUNSUPPORTED, "%s over %lld parts; %d are the most", name,
                       (long long)a->parts.shape[0], AT_K_GROUP_PARTS));
    AT_TRY(at_cuda_vector(g, &a->weight, AT_F32, &w, &own_w));
    AT_TRY(at_cuda_vector(g, &a->bias, AT_F32, &b, &own_b));
    AT_TRY(at_cuda_alloc(
        g, at_k_group_norm_scratch(a->x.shape[0], a->x.shape[1], a->x.shape[2], a->groups),
        &partial));
    at_k_group_norm_in in = {.x = a->x,
                             .add = a->add,
                             .out = a->out,
                             .weight = w,
                             .bias = b,
                             .partial = partial,
                             .groups = a->groups,
                             .act = (int)a->act,
                             .eps = a->eps,
                             .parts = a->parts,
                             .part_pixels = a->part_pixels};
    in.held = kernel == at_k_group_norm && at_cuda_group_norm_holds(g, &in);
    AT_TRY(at_cuda_check(g, kernel(g->stream, &in), name));
out:
    at_cuda_free(g, own_w);
    at_cuda_free(g, own_b);
    at_cuda_free(g, partial);
    return st;
}

static at_status slot_group_norm(void *stream, const at_group_norm_args *a)
{
    return group_norm(of(stream), a, "group_norm", at_k_group_norm);
}

static at_status slot_group_stats(void *stream, const at_group_norm_args *a)
{
    return group_norm(of(stream), a, "group_stats", at_k_group_stats);
}

static at_status slot_rope(void *stream, const at_rope_args *a)
{
    return at_cuda_ropes(stream, a, 1);
}

static at_status slot_attention_merge(void *stream, const at_attention_merge_args *a)
{
    at_cuda *g = of(stream);
    at_k_merge_in in = {a->a, a->b, a->out, a->a_lse.data, a->b_lse.data, a->out_lse.data};
    return at_cuda_check(g, at_k_attention_merge(g->stream, &in), "attention_merge");
}

static at_status slot_embedding(void *stream, const at_embedding_args *a)
{
    at_cuda *g = of(stream);
    at_status st = AT_OK;
    at_view table;
    void *own = NULL;
    AT_TRY(at_cuda_weight(g, &a->table, AT_DTYPE_COUNT, false, &table, &own));
    AT_TRY(at_cuda_check(g, at_k_embedding(g->stream, &table, a->table.scale, &a->ids, &a->out),
                         "embedding"));
out:
    at_cuda_free(g, own);
    return st;
}

const at_backend at_cuda_backend = {
    .abi = AT_BACKEND_ABI,
    .name = "cuda",
    .copy = slot_copy,
    .fill = slot_fill,
    .unary = slot_unary,
    .binary = slot_binary,
    .gate_add = slot_gate_add,
    .lincomb = slot_lincomb,
    .linear = at_cuda_linear,
    .splits = true,
    .joins = true,
    .fp8_rows = at_cuda_fp8_rows,
    .geglu = at_cuda_geglu,
    .attention = at_cuda_attention,
    .attention_merge = slot_attention_merge,
    .norm = slot_norm,
    .adds = true,
    .pieces = true,
    .turns = true,
    .group_norm = slot_group_norm,
    .group_stats = slot_group_stats,
    .rope = slot_rope,
    .ropes = at_cuda_ropes,
    .conv2d = at_cuda_conv2d,
    .embedding = slot_embedding,
    .kernel_name = at_cuda_kernel_name,
};
