// SPDX-License-Identifier: Apache-2.0
// clip_vision.c - CLIP's picture encoders (ViT-L, H, G) and SigLIP's, in the transformers key
// layout.
// Idea: patches become tokens (Dosovitskiy et al. 2021, arXiv:2010.11929; Zhai et al. 2023,
// arXiv:2303.15343 for SigLIP), then the same pre-norm transformer as CLIP's text side, not causal.
// Easy to get wrong:
//   - all of them have 16 heads; LayerNorm's epsilon is 1e-5, SigLIP's too in ComfyUI
//   - L uses x * sigmoid(1.702 x), H and G the exact GELU, SigLIP the tanh one
//   - CLIP has a norm before its layers ("pre_layrnorm", misspelt in every file) and pools the
//     class token after the last norm; SigLIP has neither, and its last norm goes over all tokens
//   - SigLIP's 384 pixels are no multiple of its patch: the last ones are left out
// Source: ComfyUI 0.3.64 comfy/clip_model.py, clip_vision.py and its JSON files.
// Owns nothing: tensors belong to op scopes.
#include "models/arch.h"
#include "models/vision.h"

enum { HEADS = 16 };
static const float norm_eps = 1e-5f;

typedef struct see_config {
    int64_t width, mlp, patch, layers, positions;
    int64_t classed; // has a class token
    int64_t side;    // derived: patches along a side
} see_config;

typedef struct see_layer {
    at_lin norm1, norm2, q, k, v, out, fc1, fc2;
} see_layer;

typedef struct see_weights {
    at_lin patch, before, after;
    const at_weight *class_token, *positions, *projection;
    see_layer *layers;
} see_weights;

// --- tables ------------------------------------------------------------------------------------
#define F(field)   AT_FIELD(see_config, field)
#define OFF(field) offsetof(see_weights, field)
#define M          "vision_model."
#define SIZE(field_, how_, key_, dim_)                                                             \
    {                                                                                              \
        .name = #field_, .offset = offsetof(see_config, field_), .how = how_, .key = key_,         \
        .dim = dim_                                                                                \
    }
#define NORM(type, field, key_)                                                                    \
    {.key = key_ ".weight", .offset = offsetof(type, field.w), .rank = 1, .dim = {F(width)}},      \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field.b), .rank = 1, .dim = { F(width) }     \
    }
#define LIN(field, key_, out_, in_)                                                                \
    {.key = key_ ".weight",                                                                        \
     .offset = offsetof(see_layer, field.w),                                                       \
     .rank = 2,                                                                                    \
     .dim = {F(out_), F(in_)}},                                                                    \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(see_layer, field.b), .rank = 1, .dim = { F(out_) } \
    }

static const at_size_row sizes[] = {
    SIZE(width, AT_SIZE_DIM, M "embeddings.patch_embedding.weight", 0),
    SIZE(patch, AT_SIZE_DIM, M "embeddings.patch_embedding.weight", 2),
    SIZE(positions, AT_SIZE_DIM, M "embeddings.position_embedding.weight", 0),
    SIZE(classed, AT_SIZE_HAS, M "embeddings.class_embedding", 0),
    SIZE(layers, AT_SIZE_COUNT, M "encoder.layers.%d.layer_norm1.weight", 0),
    SIZE(mlp, AT_SIZE_DIM, M "encoder.layers.0.mlp.fc1.weight", 0),
};

#define PATCHES                                                                                    \
    {.key = M "embeddings.patch_embedding.weight",                                                 \
     .offset = OFF(patch.w),                                                                       \
     .rank = 4,                                                                                    \
     .dim = {F(width), 0, F(patch), F(patch)}},                                                    \
        {.key = M "embeddings.position_embedding.weight",                                          \
         .offset = OFF(positions),                                                                 \
         .rank = 2,                                                                                \
         .dim = {F(positions), F(width)}},                                                         \
        NORM(see_weights, after, M "post_layernorm")
static const at_bind_row rows_clip[] = {
    PATCHES,
    {.key = M "embeddings.class_embedding",
     .offset = OFF(class_token),
     .rank = 1,
     .dim = {F(width)}},
    NORM(see_weights, before, M "pre_layrnorm"),
    {.key = "visual_projection.weight", .offset = OFF(projection), .rank = 2, .dim = {0, F(width)}},
};
static const at_bind_row rows_siglip[] = {
    PATCHES,
    {.key = M "embeddings.patch_embedding.bias",
     .offset = OFF(patch.b),
     .rank = 1,
     .dim = {F(width)}},
};
static const at_bind_row rows_layer[] = {
    NORM(see_layer, norm1, "layer_norm1"),
    LIN(q, "self_attn.q_proj", width, width),
    LIN(k, "self_attn.k_proj", width, width),
    LIN(v, "self_attn.v_proj", width, width),
    LIN(out, "self_attn.out_proj", width, width),
    NORM(see_layer, norm2, "layer_norm2"),
    LIN(fc1, "mlp.fc1", mlp, width),
    LIN(fc2, "mlp.fc2", width, mlp),
};
#define GROUPS(rows_)                                                                              \
    {.base = "", .rows = rows_, .n_rows = AT_LEN(rows_)},                                          \
    {                                                                                              \
        .base = M "encoder.layers.%d.", .rows = rows_layer, .n_rows = AT_LEN(rows_layer),          \
        .count = F(layers), .array = OFF(layers), .size = sizeof(see_layer)                        \
    }
static const at_bind_group groups_clip[] = {GROUPS(rows_clip)};
static const at_bind_group groups_siglip[] = {GROUPS(rows_siglip)};

static const char *derive(void *config)
{
    see_config *c = config;
    if (c->width % HEADS) return "the width does not split into 16 heads";
    if (c->patch > 64) return "its patches are too large";
    if (c->layers < 2) return "there are no two layers";
    while (c->side * c->side < c->positions - c->classed && c->side < 4096)
        c->side++;
    if (c->side < 1 || c->side * c->side != c->positions - c->classed)
        return "its positions are no square of patches";
    return NULL;
}

// --- forward -----------------------------------------------------------------------------------
// x f32; the result has `dtype`.
static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin n, at_dtype dtype)
{
    at_norm_spec spec = {.weight = n.w, .bias = n.b, .eps = norm_eps};
    at_tensor *y = x ? at_empty(o, dtype, 3, x->shape) : NULL;
    return at_norm(at_into(o, y), x, &spec);
}

// Tokens of the patches, the class token first where there is one, with positions: f32.
static at_tensor *embed(at_ops *o, const see_config *c, const see_weights *w,
                        const at_tensor *pixels)
{
    int64_t b = pixels->shape[0], n = c->side * c->side;
    at_conv_spec spec = {.stride = (int)c->patch};
    at_tensor *x = at_contiguous(o, at_permute(o, pixels, (int[]){0, 2, 3, 1}));
    x = at_conv2d(o, x, w->patch.w, w->patch.b, &spec);
    x = at_cast(o, at_reshape(o, x, 3, (int64_t[]){b, n, c->width}), AT_F32);
    if (c->classed) {
        at_tensor *one = at_weight_tensor(o, w->class_token, AT_F32), *all;
        one = at_reshape(o, one, 3, (int64_t[]){1, 1, c->width});
        all = at_zeros(o, AT_F32, 3, (int64_t[]){b, 1, c->width});
        x = at_concat(o, 1, 2, (const at_tensor *[]){at_add(o, all, one), x});
    }
    return at_add(o, x, at_weight_tensor(o, w->positions, AT_F32));
}

static at_tensor *heads(at_ops *o, const see_config *c, const at_tensor *x, at_lin l)
{
    at_tensor *y = at_linear(o, x, l.w, l.b, NULL);
    if (!y) return NULL;
    return at_reshape(o, y, 4, (int64_t[]){y->shape[0], y->shape[1], HEADS, c->width / HEADS});
}

// Adds to x in place; x stays f32.
static void layer(at_ops *o, const see_config *c, const see_layer *w, at_act act, at_tensor *x)
{
    const at_linear_extra add = {.residual = x}, with_act = {.act = act};
    at_dtype compute = at_ops_compute(o);
    at_tensor *h = norm(o, x, w->norm1, compute);
    at_tensor *q = heads(o, c, h, w->q), *k = heads(o, c, h, w->k), *v = heads(o, c, h, w->v);
    h = at_attention(o, q, k, v, NULL, 0, false);
    at_linear(at_into(o, x), h, w->out.w, w->out.b, &add);
    h = at_linear(o, norm(o, x, w->norm2, compute), w->fc1.w, w->fc1.b, &with_act);
    at_linear(at_into(o, x), h, w->fc2.w, w->fc2.b, &add);
}

static at_seen look(at_ops *o, const at_bound *m, const at_tensor *pixels, at_act act)
{
    const see_config *c = m->config;
    const see_weights *w = m->weights;
    at_seen r = {0};

    at_tensor *x = embed(o, c, w, pixels);
    if (w->before.w) x = norm(o, x, w->before, AT_F32);
    for (int64_t i = 0; i < c->layers; i++) {
        at_scope_begin(o);
        layer(o, c, &w->layers[i], act, x);
        at_scope_end(o, NULL);
        if (i == c->layers - 2) r.penultimate = at_unary(o, x, AT_ACT_NONE);
    }
    if (!c->classed) {
        r.last = r.embeds = norm(o, x, w->after, AT_F32);
        return r;
    }
    int64_t b = pixels->shape[0];
    r.last = x;
    at_tensor *pooled = norm(o, at_contiguous(o, at_narrow(o, x, 1, 0, 1)), w->after, AT_F32);
    r.pooled = at_reshape(o, pooled, 2, (int64_t[]){b, c->width});
    pooled = at_cast(o, at_linear(o, pooled, w->projection, NULL, NULL), AT_F32);
    r.embeds = at_reshape(o, pooled, 2, (int64_t[]){b, pooled ? pooled->shape[2] : 0});
    return r;
}

static at_seen look_quick(at_ops *o, const at_bound *m, const at_tensor *pixels)
{
    return look(o, m, pixels, AT_ACT_QUICK_GELU);
}
static at_seen look_gelu(at_ops *o, const at_bound *m, const at_tensor *pixels)
{
    return look(o, m, pixels, AT_ACT_GELU_ERF);
}
static at_seen look_tanh(at_ops *o, const at_bound *m, const at_tensor *pixels)
{
    return look(o, m, pixels, AT_ACT_GELU_TANH);
}

static void facts_clip(const at_bound *m, at_vision_facts *f)
{
    const see_config *c = m->config;
    *f = (at_vision_facts){.size = (int)(c->side * c->patch),
                           .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                           .deviation = {0.26862954f, 0.26130258f, 0.27577711f}};
}
static void facts_siglip(const at_bound *m, at_vision_facts *f)
{
    const see_config *c = m->config;
    // 27 patches of 14 pixels: the picture has 384, of which 6 are left over.
    int size = (int)(c->side * c->patch);
    *f = (at_vision_facts){.size = size == 378 ? 384 : size,
                           .mean = {0.5f, 0.5f, 0.5f},
                           .deviation = {0.5f, 0.5f, 0.5f}};
}

// --- descriptors -------------------------------------------------------------------------------
static const at_vision_ops ops_l = {.look = look_quick, .facts = facts_clip};
static const at_vision_ops ops_h = {.look = look_gelu, .facts = facts_clip};
static const at_vision_ops ops_siglip = {.look = look_tanh, .facts = facts_siglip};

// The depth tells the sizes apart, as for the text side.
static const at_probe probes_g[] = {{.key = M "encoder.layers.47.layer_norm1.weight"}};
static const at_probe probes_h[] = {{.key = M "encoder.layers.30.layer_norm1.weight"}};
static const at_probe probes_l[] = {{.key = M "encoder.layers.22.layer_norm1.weight"}};
static const at_probe probes_siglip[] = {
    {.key = M "encoder.layers.22.layer_norm1.weight"},
    {.key = M "embeddings.class_embedding", .absent = true},
};

#define ROW(id, name_, title_, probes_, groups_, ops_)                                             \
    const at_arch at_arch_##id = {.name = name_,                                                   \
                                  .title = title_,                                                 \
                                  .part = AT_PART_VISION,                                          \
                                  .probes = probes_,                                               \
                                  .n_probes = AT_LEN(probes_),                                     \
                                  .sizes = sizes,                                                  \
                                  .n_sizes = AT_LEN(sizes),                                        \
                                  .config_size = sizeof(see_config),                               \
                                  .derive = derive,                                                \
                                  .groups = groups_,                                               \
                                  .n_groups = AT_LEN(groups_),                                     \
                                  .weights_size = sizeof(see_weights),                             \
                                  .vision = &ops_}
ROW(clip_vision_g, "clip_vision_g", "CLIP ViT-G picture encoder", probes_g, groups_clip, ops_h);
ROW(clip_vision_h, "clip_vision_h", "CLIP ViT-H picture encoder", probes_h, groups_clip, ops_h);
ROW(clip_vision_l, "clip_vision_l", "CLIP ViT-L picture encoder", probes_l, groups_clip, ops_l);
ROW(siglip_vision, "siglip", "SigLIP picture encoder", probes_siglip, groups_siglip, ops_siglip);
