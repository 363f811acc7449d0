// SPDX-License-Identifier: Apache-2.0
// clip.c - CLIP's text transformer (L, H and G), in the transformers key layout.
// Idea: Radford et al. 2021 (arXiv:2103.00020): a causal pre-norm transformer, at most 77 tokens.
// Easy to get wrong:
//   - L uses x * sigmoid(1.702 x), H and G the exact GELU; heads are 64 wide in all of them
//   - LayerNorm's epsilon is 1e-5
//   - "pooled" is the last layer after the final norm at the first EOS token, even if a prompt has
//     several (the padding of L is EOS), whatever layer was asked for
//   - text_projection applies to pooled only; Flux and SD3 take L's pooled without it
// Owns nothing: tensors belong to op scopes.
#include "models/arch.h"

typedef struct clip_config {
    int64_t vocab, positions, width, layers, mlp;
    int64_t projection; // derived: rows of text_projection are free
    int64_t head_dim;   // derived
} clip_config;

typedef struct clip_norm {
    const at_weight *w, *b;
} clip_norm;

typedef struct clip_layer {
    at_lin q, k, v, out, fc1, fc2;
    clip_norm norm1, norm2;
} clip_layer;

typedef struct clip_weights {
    const at_weight *tokens, *positions, *projection;
    clip_norm final;
    clip_layer *layers;
} clip_weights;

enum { HEAD_DIM = 64 };
static const float norm_eps = 1e-5f;

#define SIZE(field_, how_, key_, dim_)                                                             \
    {                                                                                              \
        .name = #field_, .offset = offsetof(clip_config, field_), .how = how_, .key = key_,        \
        .dim = dim_                                                                                \
    }
#define F(field) AT_FIELD(clip_config, field)
// Shares of ranks: heads and the MLP's units.
static const at_bind_cut cut_heads = {.run = {{F(width), F(head_dim), 1}}},
                         cut_out = {.columns = true, .run = {{F(width), F(head_dim), 1}}},
                         cut_fc1 = {.run = {{F(mlp), 0, 1}}},
                         cut_fc2 = {.columns = true, .run = {{F(mlp), 0, 1}}};
#define LIN_CUT(field, key_, out, in, cut_, bias_cut_)                                             \
    {.key = key_ ".weight",                                                                        \
     .offset = offsetof(clip_layer, field.w),                                                      \
     .rank = 2,                                                                                    \
     .dim = {F(out), F(in)},                                                                       \
     .cut = cut_},                                                                                 \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(clip_layer, field.b), .rank = 1, .dim = {F(out)},  \
        .cut = bias_cut_                                                                           \
    }
#define NORM(type, field, key_)                                                                    \
    {.key = key_ ".weight", .offset = offsetof(type, field.w), .rank = 1, .dim = {F(width)}},      \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field.b), .rank = 1, .dim = { F(width) }     \
    }

static const at_size_row sizes[] = {
    SIZE(vocab, AT_SIZE_DIM, "text_model.embeddings.token_embedding.weight", 0),
    SIZE(positions, AT_SIZE_DIM, "text_model.embeddings.position_embedding.weight", 0),
    SIZE(width, AT_SIZE_DIM, "text_model.embeddings.token_embedding.weight", 1),
    SIZE(layers, AT_SIZE_COUNT, "text_model.encoder.layers.%d.mlp.fc1.weight", 0),
    SIZE(mlp, AT_SIZE_DIM, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
};

static const at_bind_row rows_outer[] = {
    {.key = "text_model.embeddings.token_embedding.weight",
     .offset = offsetof(clip_weights, tokens),
     .rank = 2,
     .dim = {F(vocab), F(width)}},
    {.key = "text_model.embeddings.position_embedding.weight",
     .offset = offsetof(clip_weights, positions),
     .rank = 2,
     .dim = {F(positions), F(width)}},
    {.key = "text_projection.weight",
     .offset = offsetof(clip_weights, projection),
     .optional = true,
     .rank = 2,
     .dim = {0, F(width)}},
    NORM(clip_weights, final, "text_model.final_layer_norm"),
};

static const at_bind_row rows_layer[] = {
    NORM(clip_layer, norm1, "layer_norm1"),
    LIN_CUT(q, "self_attn.q_proj", width, width, &cut_heads, &cut_heads),
    LIN_CUT(k, "self_attn.k_proj", width, width, &cut_heads, &cut_heads),
    LIN_CUT(v, "self_attn.v_proj", width, width, &cut_heads, &cut_heads),
    LIN_CUT(out, "self_attn.out_proj", width, width, &cut_out, NULL),
    NORM(clip_layer, norm2, "layer_norm2"),
    LIN_CUT(fc1, "mlp.fc1", mlp, width, &cut_fc1, &cut_fc1),
    LIN_CUT(fc2, "mlp.fc2", width, mlp, &cut_fc2, NULL),
};

static const at_bind_group groups[] = {
    {.base = "", .rows = rows_outer, .n_rows = AT_LEN(rows_outer)},
    {.base = "text_model.encoder.layers.%d.",
     .rows = rows_layer,
     .n_rows = AT_LEN(rows_layer),
     .count = F(layers),
     .array = offsetof(clip_weights, layers),
     .size = sizeof(clip_layer)},
};

static const char *derive(void *config)
{
    clip_config *c = config;
    if (c->width % HEAD_DIM) return "the width is no multiple of the head size 64";
    c->head_dim = HEAD_DIM;
    return NULL;
}

// --- forward -----------------------------------------------------------------------------------
// x f32; the result has `dtype`.
static at_tensor *norm(at_ops *o, const at_tensor *x, clip_norm n, at_dtype dtype)
{
    at_norm_spec spec = {.weight = n.w, .bias = n.b, .eps = norm_eps};
    at_tensor *y = x ? at_empty(o, dtype, 3, x->shape) : NULL;
    return at_norm(at_into(o, y), x, &spec);
}

// This rank's heads.
static at_tensor *heads(at_ops *o, const at_tensor *x, at_lin l)
{
    at_tensor *y = at_linear(o, x, l.w, l.b, NULL);
    if (!y) return NULL;
    return at_reshape(o, y, 4,
                      (int64_t[]){y->shape[0], y->shape[1], y->shape[2] / HEAD_DIM, HEAD_DIM});
}

// Adds to x, which is f32 (a text encoder is small, and its errors go into every step), in place.
static void layer(at_ops *o, const clip_layer *w, at_act act, at_tensor *x)
{
    const at_linear_extra add = {.residual = x}, with_act = {.act = act};
    at_dtype compute = at_ops_compute(o);
    at_tensor *h = norm(o, x, w->norm1, compute);
    at_tensor *q = heads(o, h, w->q), *k = heads(o, h, w->k), *v = heads(o, h, w->v);
    h = at_attention(o, q, k, v, NULL, 0, true);
    at_linear(at_into(o, x), h, w->out.w, w->out.b, &add);
    h = at_linear(o, norm(o, x, w->norm2, compute), w->fc1.w, w->fc1.b, &with_act);
    at_linear(at_into(o, x), h, w->fc2.w, w->fc2.b, &add);
}

// Token plus position embeddings, f32 [b, t, width].
static at_tensor *embed(at_ops *o, const at_bound *e, const at_encode_in *in)
{
    const clip_config *c = e->config;
    const clip_weights *w = e->weights;
    int64_t n = in->batch * in->tokens;
    at_tensor *x = at_empty(o, AT_F32, 3, (int64_t[]){1, n, c->width});
    at_embedding(at_into(o, x), w->tokens, in->ids, n);
    x = at_encode_put_rows(o, x, in);
    x = at_reshape(o, x, 3, (int64_t[]){in->batch, in->tokens, c->width});
    at_tensor *p = at_narrow(o, at_weight_tensor(o, w->positions, AT_F32), 0, 0, in->tokens);
    return at_add(at_into(o, x), x, p);
}

// Row of each batch entry at its first EOS (the first token if there is none, as argmax gives).
static at_tensor *eos_rows(at_ops *o, const at_encode_in *in, const at_tensor *last)
{
    at_tensor *all = NULL;
    for (int64_t b = 0; b < in->batch; b++) {
        int64_t at = 0;
        for (int64_t t = in->tokens - 1; t >= 0; t--)
            if (in->ids[b * in->tokens + t] == in->eos) at = t;
        at_tensor *row = at_narrow(o, at_narrow(o, last, 0, b, 1), 1, at, 1);
        all = all ? at_concat(o, 0, 2, (const at_tensor *[]){all, row}) : row;
        if (!all) return NULL;
    }
    return at_reshape(o, all, 2, (int64_t[]){in->batch, last->shape[2]});
}

static void run(at_ops *o, const at_bound *e, const at_encode_in *in, const at_tensor *shared,
                at_tensor *x, at_tensor *out[2])
{
    const clip_config *c = e->config;
    const clip_weights *w = e->weights;
    int64_t want = in->layer < 0 ? c->layers + in->layer : c->layers - 1;

    if (want < 0) {
        at_ops_poison(o, AT_EINVAL, "%s: layer %d of %lld", e->arch->title, in->layer,
                      (long long)c->layers);
        return;
    }
    (void)shared;
    bool last = in->layer == 0, pooling = in->eos >= 0;
    at_tensor *hidden = NULL;
    for (int64_t i = 0; i < c->layers && (i <= want || pooling); i++) {
        at_scope_begin(o);
        layer(o, &w->layers[i], e->arch->encoder->act, x);
        at_scope_end(o, NULL);
        if (i != want) continue; // later layers go on in x: take what is wanted out of it
        hidden =
            last || in->final_norm ? norm(o, x, w->final, AT_F32) : at_unary(o, x, AT_ACT_NONE);
    }
    out[0] = hidden;
    if (pooling) out[1] = norm(o, x, w->final, AT_F32);
}

static void pool(at_ops *o, const at_bound *e, const at_encode_in *in, const at_tensor *last,
                 at_encoded *r)
{
    const clip_weights *w = e->weights;
    r->pooled = eos_rows(o, in, last);
    if (w->projection)
        r->pooled_projected =
            at_cast(o, at_linear(o, r->pooled, w->projection, NULL, NULL), AT_F32);
}

// --- descriptors -------------------------------------------------------------------------------
#define ENCODER(act_)                                                                              \
    {                                                                                              \
        .embed = embed, .run = run, .pool = pool, .vocab = F(vocab), .width = F(width),            \
        .max_tokens = F(positions), .layers = F(layers), .act = act_                               \
    }
static const at_encoder_ops ops_quick = ENCODER(AT_ACT_QUICK_GELU);
static const at_encoder_ops ops_gelu = ENCODER(AT_ACT_GELU_ERF);

// The depth tells the sizes apart: L has 12 layers, H 24 (one is often left out), G 32.
static const at_probe probes_g[] = {{.key = "text_model.encoder.layers.30.mlp.fc1.weight"},
                                    {.key = "text_model.embeddings.token_embedding.weight"}};
static const at_probe probes_h[] = {{.key = "text_model.encoder.layers.22.mlp.fc1.weight"},
                                    {.key = "text_model.embeddings.token_embedding.weight"}};
static const at_probe probes_l[] = {{.key = "text_model.encoder.layers.0.mlp.fc1.weight"},
                                    {.key = "text_model.embeddings.token_embedding.weight"}};

#define CLIP(letter, title_, ops_)                                                                 \
    const at_arch at_arch_clip_##letter = {                                                        \
        .name = "clip_" #letter,                                                                   \
        .title = title_,                                                                           \
        .part = AT_PART_TEXT,                                                                      \
        .f16 = true,                                                                               \
        .probes = probes_##letter,                                                                 \
        .n_probes = AT_LEN(probes_##letter),                                                       \
        .sizes = sizes,                                                                            \
        .n_sizes = AT_LEN(sizes),                                                                  \
        .config_size = sizeof(clip_config),                                                        \
        .derive = derive,                                                                          \
        .groups = groups,                                                                          \
        .n_groups = AT_LEN(groups),                                                                \
        .weights_size = sizeof(clip_weights),                                                      \
        .encoder = &ops_,                                                                          \
    }
CLIP(l, "CLIP-L text encoder", ops_quick);
CLIP(h, "CLIP-H text encoder", ops_gelu);
CLIP(g, "CLIP-G text encoder", ops_gelu);
