// SPDX-License-Identifier: Apache-2.0
// unet_blocks.c - the forwards of a UNet's parts.
// Easy to get wrong:
//   - GroupNorm's epsilon is 1e-5 in residual blocks and 1e-6 before a transformer; LayerNorm's 1e-5
//   - the gate of the feed-forward is the second half of its product, through the exact GELU
//   - a block's input may be kept as a skip: only what a part made itself is changed in place
//   - the upsampler goes to the size of the next skip, which is odd where a side was odd
// Owns nothing: tensors belong to op scopes.
#include "models/unet_blocks.h"

#include <string.h>

#include "base/mem.h"

enum { GROUPS = 32 };
static const float res_eps = 1e-5f, transformer_eps = 1e-6f, layer_eps = 1e-5f;

// --- embeddings and pixels ---------------------------------------------------------------------
static at_tensor *linear(at_ops *o, const at_tensor *x, at_lin l, const at_linear_extra *extra)
{
    return at_linear(o, x, l.w, l.b, extra);
}

at_tensor *at_unet_embed(at_ops *o, const at_unet_embedding *e, const at_unet_shape *s,
                         const float *timestep, const at_tensor *y, const at_tensor *more,
                         int64_t batch)
{
    const at_linear_extra silu = {.act = AT_ACT_SILU};
    at_tensor *t = at_timestep_embedding(o, timestep, batch, (int)s->channels, 10000.0, true);
    at_tensor *emb = linear(o, linear(o, t, e->time1, &silu), e->time2, NULL);
    if (e->label1.w) {
        if (!y || y->rank != 2 || y->shape[0] != batch || y->shape[1] != s->adm)
            return at_ops_poison(
                o, AT_EINVAL,
                "the network takes a vector [%lld, %lld] beside the text (pooled text "
                "and sizes) and got %s%lld values; use the text encoders that belong to it",
                (long long)batch, (long long)s->adm,
                y ? "" : "none: ", (long long)(y ? y->shape[y->rank - 1] : 0));
        at_tensor *label = linear(o, linear(o, y, e->label1, &silu), e->label2, NULL);
        emb = at_add(o, emb, label);
    }
    if (more) emb = at_add(o, emb, more);
    return at_unary(o, emb, AT_ACT_SILU);
}

at_tensor *at_unet_pixels(at_ops *o, const at_tensor *x, const at_tensor *behind)
{
    if (behind) x = at_concat(o, 1, 2, (const at_tensor *[]){x, behind});
    return at_cast(o, at_contiguous(o, at_permute(o, x, (int[]){0, 2, 3, 1})), at_ops_compute(o));
}

// --- residual blocks ---------------------------------------------------------------------------
static at_conv_spec padded(int pad)
{
    return (at_conv_spec){.pad_top = pad, .pad_left = pad, .pad_bottom = pad, .pad_right = pad};
}

at_tensor *at_unet_conv(at_ops *o, const at_tensor *x, at_lin l, int stride)
{
    at_conv_spec spec = padded(1);
    spec.stride = stride;
    return at_conv2d(o, x, l.w, l.b, &spec);
}

// The block's own term of the embedding [b, channels].
static at_tensor *term(at_ops *o, const at_unet_res *w, at_unet_pass *p)
{
    if (!p->terms) return linear(o, p->emb, w->emb, NULL);
    int64_t n = w->emb.w->shape[0], at = p->next_term;
    p->next_term += n;
    return at_narrow(o, p->terms, 1, at, n);
}

at_tensor *at_unet_res_forward(at_ops *o, const at_unet_res *w, at_unet_pass *p, const at_tensor *x)
{
    at_conv_spec point = padded(0), last = padded(1);
    at_tensor *h = at_group_norm(o, x, w->norm1.w, w->norm1.b, GROUPS, res_eps, AT_ACT_SILU);
    h = at_unet_conv(o, h, w->conv1, 1);
    h = at_add_group_norm(o, h, term(o, w, p), w->norm2.w, w->norm2.b, GROUPS, res_eps,
                          AT_ACT_SILU);
    last.residual = w->skip.w ? at_conv2d(o, x, w->skip.w, w->skip.b, &point) : x;
    return at_conv2d(o, h, w->conv2.w, w->conv2.b, &last);
}

// --- transformers ------------------------------------------------------------------------------
// Ranks along tp have some of the site's heads each.
static at_tensor *heads_of(at_ops *o, const at_site *s, const at_tensor *x, const at_weight *w)
{
    at_tensor *y = at_linear(o, x, w, NULL, NULL);
    if (!y) return NULL;
    return at_reshape(o, y, 4, (int64_t[]){y->shape[0], y->shape[1], y->shape[2] / s->dim, s->dim});
}

// The next keys or values of the text [b, t, heads, dim] that were made ahead.
static at_tensor *made_heads(at_ops *o, at_unet_pass *p, const at_site *s)
{
    int64_t shape[] = {p->context->shape[0], p->context->shape[1], at_ops_own_heads(o, s->heads),
                       s->dim};
    int64_t n = shape[0] * shape[1] * shape[2] * shape[3], at = p->next_text;
    p->next_text += n;
    return at_reshape(o, at_narrow(o, p->text, 0, at, n), 4, shape);
}

// q, k and v of the same tokens, in one layer.
static void self_heads(at_ops *o, const at_unet_attention *w, const at_site *s, const at_tensor *n,
                       at_tensor *out[3])
{
    const at_weight *parts[] = {w->q, w->k, w->v};
    at_tensor *qkv = at_linear_beside(o, n, 3, parts);
    int64_t heads = at_ops_own_heads(o, s->heads), width = heads * s->dim;
    for (int i = 0; i < 3; i++) {
        at_tensor *y = at_narrow(o, qkv, 2, i * width, width);
        out[i] =
            y ? at_reshape(o, y, 4, (int64_t[]){y->shape[0], y->shape[1], heads, s->dim}) : NULL;
    }
}

// Attention from the normalised tokens n to `to`, added to x in place.
static void attend(at_ops *o, const at_unet_attention *w, at_unet_pass *p, const at_site *s,
                   const at_tensor *n, const at_tensor *to, at_tensor *x)
{
    const at_patches *set = p->in->patches;
    const at_tensor *q = n, *k = to, *v = to;
    bool made = s->cross && p->text && p->context;

    if (at_patches_count(set)) at_patch_attn_in(o, set, s, &q, &k, &v);
    at_tensor *h[3];
    if (q == k && k == v) {
        self_heads(o, w, s, q, h);
    } else {
        h[0] = heads_of(o, s, q, w->q);
        h[1] = made ? made_heads(o, p, s) : heads_of(o, s, k, w->k);
        h[2] = made ? made_heads(o, p, s) : heads_of(o, s, v, w->v);
    }
    at_tensor *y = at_patch_attn(o, set, s, h[0], h[1], h[2]);
    if (!at_patches_count(set)) {
        linear(at_into(o, x), y, w->out, &(at_linear_extra){.residual = x});
        return;
    }
    y = at_patch_attn_out(o, set, s, linear(o, y, w->out, NULL));
    at_add(at_into(o, x), x, y);
}

static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin n)
{
    return at_norm(o, x, &(at_norm_spec){.weight = n.w, .bias = n.b, .eps = layer_eps});
}

// One layer; gives x, changed in place, or what a patch put in its place.
static at_tensor *layer(at_ops *o, const at_unet_layer *w, at_unet_pass *p, at_site *s,
                        at_tensor *x)
{
    at_tensor *n = norm(o, x, w->norm1);
    s->cross = false;
    attend(o, &w->self, p, s, n, n, x);
    if (at_patches_count(p->in->patches)) x = at_patch_between(o, p->in->patches, s, x);
    s->cross = true;
    attend(o, &w->cross, p, s, norm(o, x, w->norm2), p->context, x);
    n = at_geglu(o, norm(o, x, w->norm3), w->ff_in.w, w->ff_in.b, AT_ACT_GELU_ERF);
    return linear(at_into(o, x), n, w->ff_out, &(at_linear_extra){.residual = x});
}

at_tensor *at_unet_transform(at_ops *o, const at_unet_transformer *w, at_unet_pass *p,
                             const at_tensor *x)
{
    if (!x) return NULL;
    int64_t c = x->shape[3], tokens[] = {x->shape[0], x->shape[1] * x->shape[2], c};
    at_site s = p->site;
    s.in = p->in;
    s.heads = (int)w->heads;
    s.dim = (int)(c / w->heads);
    s.h = x->shape[1];
    s.w = x->shape[2];

    at_tensor *h = at_group_norm(o, x, w->norm.w, w->norm.b, GROUPS, transformer_eps, AT_ACT_NONE);
    h = linear(o, at_reshape(o, h, 3, tokens), w->proj_in, NULL);
    for (int64_t i = 0; i < w->depth && h; i++) {
        s.depth = (int)i;
        at_scope_begin(o);
        h = at_scope_end(o, layer(o, &w->layers[i], p, &s, h));
    }
    p->site.index++;
    at_linear_extra add = {.residual = at_reshape(o, x, 3, tokens)};
    return at_reshape(o, linear(o, h, w->proj_out, &add), 4, x->shape);
}

at_tensor *at_unet_block_forward(at_ops *o, const at_unet_block *w, at_unet_kind kind,
                                 at_unet_pass *p, const at_tensor *x)
{
    switch (kind) {
    case AT_UNET_CONV: return at_unet_conv(o, x, w->conv, 1);
    case AT_UNET_DOWN: return at_unet_conv(o, x, w->conv, 2);
    case AT_UNET_RES: break;
    }
    at_tensor *h = at_unet_res_forward(o, &w->res, p, x);
    return w->transformer.norm.w ? at_unet_transform(o, &w->transformer, p, h) : h;
}

// --- sizes -------------------------------------------------------------------------------------
// Nearest along one dimension: index i comes from floor(i * old / new), as torch has it in f32.
static at_tensor *stretch(at_ops *o, const at_tensor *x, int dim, int64_t size)
{
    if (!x || x->shape[dim] == size) return (at_tensor *)x;
    if (size < 1 || size > INT32_MAX) return at_ops_poison(o, AT_EINVAL, "no size to upsample to");
    int64_t n = x->shape[dim];
    float scale = (float)n / (float)size;
    const at_tensor **parts = at_alloc((size_t)size * sizeof *parts);
    if (!parts) return at_ops_poison(o, AT_ENOMEM, "no memory to resize a feature map");
    for (int64_t i = 0; i < size; i++) {
        int64_t from = (int64_t)((float)i * scale);
        parts[i] = at_narrow(o, x, dim, from < n ? from : n - 1, 1);
    }
    at_tensor *out = at_concat(o, dim, (int)size, parts);
    at_free(parts);
    return out;
}

at_tensor *at_unet_upsample(at_ops *o, at_lin l, const at_tensor *x, int64_t h, int64_t w)
{
    if (!x) return NULL;
    if (h == 2 * at_map_rows(x) && w == 2 * x->shape[2]) {
        at_conv_spec spec = padded(1);
        spec.upsample2x = true;
        return at_conv2d(o, x, l.w, l.b, &spec);
    }
    bool split = x->run.rows != 0; // rows repeat unevenly: a rank's own would need others'
    at_tensor *all = stretch(o, stretch(o, at_gather_rows(o, x), 1, h), 2, w);
    return at_unet_conv(o, split ? at_split_rows(o, all) : all, l, 1);
}

// --- cost --------------------------------------------------------------------------------------
double at_unet_layer_flops(const at_unet_shape *s, const at_unet_block_shape *b, double pixels,
                           double text_tokens)
{
    double out = (double)b->out, text = (double)s->context;
    // q, k, v and out of self attention, q and out of cross attention, 8c and 4c of the feed-forward
    return 2 * pixels * out * out * (4 + 2 + 8 + 4) +
           2 * 2 * text_tokens * text * out +             // k and v of the text
           2 * 2 * pixels * (pixels + text_tokens) * out; // both products of attention
}

double at_unet_block_flops(const at_unet_shape *s, const at_unet_block_shape *b, double pixels,
                           double text_tokens, double *peak)
{
    double in = (double)b->in, out = (double)b->out;
    double conv = 2 * 9 * in * out * pixels;

    *peak = pixels * (in + out);
    if (b->kind != AT_UNET_RES) return conv;
    double flops = conv + 2 * 9 * out * out * pixels + 2 * (double)s->emb * out;
    if (b->in != b->out) flops += 2 * in * out * pixels;
    *peak = pixels * (2 * in + 2 * out);
    if (b->depth < 0) return flops;
    flops += 2 * 2 * pixels * out * out + // proj_in, proj_out
             (double)b->depth * at_unet_layer_flops(s, b, pixels, text_tokens);
    if (*peak < 7 * pixels * out) *peak = 7 * pixels * out; // x, tokens, n, gated 4c
    return flops;
}
