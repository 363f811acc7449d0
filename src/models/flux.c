// SPDX-License-Identifier: Apache-2.0
// flux.c - Flux.1 (dev and schnell): text and image tokens side by side, then as one stream.
// Idea: a rectified-flow transformer (Esser et al. 2024, arXiv:2403.03206; Black Forest Labs' flux
// key layout). Double blocks give text and image their own weights and one joint attention; single
// blocks run attention and MLP in parallel on the joined tokens. Every size comes from the file.
// Easy to get wrong:
//   - joint order is text first, then image; the final layer sees image tokens only
//   - a patch is packed channel slowest: token feature = c * 4 + row * 2 + column
//   - modulation chunks are shift, scale, gate; the final layer's are shift, scale
//   - rotary pairs are neighbours (0,1)(2,3); the axes share the head as d/8, 7d/16, 7d/16
//   - guidance and timestep are multiplied by 1000 before the sinusoid
//   - odd latent sides are padded by wrapping round, and cropped after
//   - the order of a call's arguments is free in C: beside at_into(...) no other argument may pass
//     a door, or that door takes what was meant for the outer one (and refuses it)
// Owns nothing: tensors belong to op scopes.
#include "models/arch.h"

typedef struct flux_config {
    int64_t hidden, patch_in, channels, patch_out, head_dim, heads, context, vec, depth, single,
        mlp;
    int64_t guidance, time;
    int64_t qkv, mod6, mod3, mod2, lin1, lin2; // derived: widths of the fused layers
} flux_config;

typedef struct flux_stream {
    at_lin mod, qkv, proj, fc1, fc2;
    const at_weight *q_norm, *k_norm;
} flux_stream;

typedef struct flux_double {
    flux_stream img, txt;
} flux_double;

typedef struct flux_single {
    at_lin mod, lin1, lin2;
    const at_weight *q_norm, *k_norm;
} flux_single;

typedef struct flux_embedder {
    at_lin in, out;
} flux_embedder;

typedef struct flux_weights {
    at_lin img_in, txt_in, final_mod, final;
    flux_embedder time, vec, guidance;
    flux_double *doubles;
    flux_single *singles;
} flux_weights;

typedef struct flux_state {
    int64_t batch, text, image; // tokens of this rank
    int64_t height, width;      // of the latent
    int64_t rows, cols;         // of patches
    at_tensor *vec;             // silu(time + guidance + pooled) [b, hidden]
    at_rope_table rope, rope_text, rope_image;
} flux_state;

enum { MAX_BATCH = 512 };
static const double rope_theta = 10000.0;
static const float norm_eps = 1e-6f;

// --- tables ------------------------------------------------------------------------------------
#define SIZE(field_, how_, key_, ...)                                                              \
    {                                                                                              \
        .name = #field_, .offset = offsetof(flux_config, field_), .how = how_, .key = key_,        \
        __VA_ARGS__                                                                                \
    }
#define F(field) AT_FIELD(flux_config, field)
#define LIN(type, field, key_, out, in)                                                            \
    {.key = key_ ".weight", .offset = offsetof(type, field.w), .rank = 2, .dim = {F(out), F(in)}}, \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field.b), .rank = 1, .dim = { F(out) }       \
    }
#define VEC(type, field, key_, size)                                                               \
    {                                                                                              \
        .key = key_, .offset = offsetof(type, field), .rank = 1, .dim = { F(size) }                \
    }

static const at_size_row sizes[] = {
    SIZE(hidden, AT_SIZE_DIM, "img_in.weight", .dim = 0),
    SIZE(patch_in, AT_SIZE_DIM, "img_in.weight", .dim = 1),
    SIZE(channels, AT_SIZE_DIM, "img_in.weight", .dim = 1, .by = 4),
    SIZE(patch_out, AT_SIZE_DIM, "final_layer.linear.weight", .dim = 0),
    SIZE(head_dim, AT_SIZE_DIM, "double_blocks.0.img_attn.norm.key_norm.scale", .dim = 0),
    SIZE(heads, AT_SIZE_DIM, "img_in.weight", .dim = 0, .by_field = F(head_dim)),
    SIZE(context, AT_SIZE_DIM, "txt_in.weight", .dim = 1),
    SIZE(vec, AT_SIZE_DIM, "vector_in.in_layer.weight", .dim = 1),
    SIZE(depth, AT_SIZE_COUNT, "double_blocks.%d.img_attn.qkv.weight"),
    SIZE(single, AT_SIZE_COUNT, "single_blocks.%d.linear1.weight"),
    SIZE(mlp, AT_SIZE_DIM, "double_blocks.0.img_mlp.0.weight", .dim = 0),
    SIZE(guidance, AT_SIZE_HAS, "guidance_in.in_layer.weight"),
    SIZE(time, AT_SIZE_DIM, "time_in.in_layer.weight", .dim = 1),
};

static const at_bind_row rows_outer[] = {
    LIN(flux_weights, img_in, "img_in", hidden, patch_in),
    LIN(flux_weights, txt_in, "txt_in", hidden, context),
    LIN(flux_weights, time.in, "time_in.in_layer", hidden, time),
    LIN(flux_weights, time.out, "time_in.out_layer", hidden, hidden),
    LIN(flux_weights, vec.in, "vector_in.in_layer", hidden, vec),
    LIN(flux_weights, vec.out, "vector_in.out_layer", hidden, hidden),
    LIN(flux_weights, final_mod, "final_layer.adaLN_modulation.1", mod2, hidden),
    LIN(flux_weights, final, "final_layer.linear", patch_out, hidden),
};

static const at_bind_row rows_guidance[] = {
    LIN(flux_weights, guidance.in, "guidance_in.in_layer", hidden, time),
    LIN(flux_weights, guidance.out, "guidance_in.out_layer", hidden, hidden),
};

#define STREAM(s)                                                                                  \
    LIN(flux_double, s.mod, #s "_mod.lin", mod6, hidden),                                          \
        LIN(flux_double, s.qkv, #s "_attn.qkv", qkv, hidden),                                      \
        LIN(flux_double, s.proj, #s "_attn.proj", hidden, hidden),                                 \
        LIN(flux_double, s.fc1, #s "_mlp.0", mlp, hidden),                                         \
        LIN(flux_double, s.fc2, #s "_mlp.2", hidden, mlp),                                         \
        VEC(flux_double, s.q_norm, #s "_attn.norm.query_norm.scale", head_dim),                    \
        VEC(flux_double, s.k_norm, #s "_attn.norm.key_norm.scale", head_dim)

static const at_bind_row rows_double[] = {STREAM(img), STREAM(txt)};

static const at_bind_row rows_single[] = {
    LIN(flux_single, mod, "modulation.lin", mod3, hidden),
    LIN(flux_single, lin1, "linear1", lin1, hidden),
    LIN(flux_single, lin2, "linear2", hidden, lin2),
    VEC(flux_single, q_norm, "norm.query_norm.scale", head_dim),
    VEC(flux_single, k_norm, "norm.key_norm.scale", head_dim),
};

#define BLOCKS                                                                                     \
    {.base = "double_blocks.%d.",                                                                  \
     .rows = rows_double,                                                                          \
     .n_rows = AT_LEN(rows_double),                                                                \
     .count = F(depth),                                                                            \
     .array = offsetof(flux_weights, doubles),                                                     \
     .size = sizeof(flux_double)},                                                                 \
    {                                                                                              \
        .base = "single_blocks.%d.", .rows = rows_single, .n_rows = AT_LEN(rows_single),           \
        .count = F(single), .array = offsetof(flux_weights, singles), .size = sizeof(flux_single)  \
    }

static const at_bind_group groups_dev[] = {
    {.base = "", .rows = rows_outer, .n_rows = AT_LEN(rows_outer)},
    {.base = "", .rows = rows_guidance, .n_rows = AT_LEN(rows_guidance)},
    BLOCKS,
};
static const at_bind_group groups_schnell[] = {
    {.base = "", .rows = rows_outer, .n_rows = AT_LEN(rows_outer)},
    BLOCKS,
};

static const char *derive(void *config)
{
    flux_config *c = config;
    c->qkv = 3 * c->hidden;
    c->mod6 = 6 * c->hidden;
    c->mod3 = 3 * c->hidden;
    c->mod2 = 2 * c->hidden;
    c->lin1 = 3 * c->hidden + c->mlp;
    c->lin2 = c->hidden + c->mlp;
    if (c->head_dim % 32 || c->head_dim > 1024)
        return "the head size is no multiple of 32, so rotary axes do not fit";
    if (c->patch_out % 4) return "the final layer does not give 2x2 patches";
    if (c->time % 2) return "the time embedding has an odd size";
    if (c->depth < 1) return "there are no double blocks";
    return NULL;
}

// --- prologue ----------------------------------------------------------------------------------
static at_tensor *linear(at_ops *o, const at_tensor *x, at_lin l, const at_linear_extra *extra)
{
    return at_linear(o, x, l.w, l.b, extra);
}

static at_tensor *embed(at_ops *o, const at_tensor *x, const flux_embedder *e)
{
    at_tensor *h = linear(o, x, e->in, &(at_linear_extra){.act = AT_ACT_SILU});
    return linear(o, h, e->out, NULL);
}

// Sinusoid of 1000 * t, through its embedder.
static at_tensor *embed_scalar(at_ops *o, const flux_config *c, const float *t, int64_t b,
                               const flux_embedder *e)
{
    float scaled[MAX_BATCH];
    if (b > (int64_t)AT_LEN(scaled))
        return at_ops_poison(o, AT_EINVAL, "a batch of %lld is more than %d", (long long)b,
                             (int)AT_LEN(scaled));
    for (int64_t i = 0; i < b; i++)
        scaled[i] = 1000.0f * t[i];
    return embed(o, at_timestep_embedding(o, scaled, b, (int)c->time, 10000.0, true), e);
}

// silu(time + guidance + pooled): what every modulation starts from.
static at_tensor *condition(at_ops *o, const flux_config *c, const flux_weights *w,
                            const at_model_in *in, int64_t b)
{
    at_tensor *vec = embed_scalar(o, c, in->timestep, b, &w->time);
    if (c->guidance) {
        float usual[MAX_BATCH];
        for (size_t i = 0; i < AT_LEN(usual); i++)
            usual[i] = 3.5f;
        vec = at_add(o, vec,
                     embed_scalar(o, c, in->guidance ? in->guidance : usual, b, &w->guidance));
    }
    const at_tensor *pooled = in->pooled;
    if (!pooled) pooled = at_zeros(o, at_ops_compute(o), 2, (int64_t[]){b, c->vec});
    if (pooled && pooled->rank == 2 && pooled->shape[1] > c->vec)
        pooled = at_narrow(o, pooled, 1, 0, c->vec); // ComfyUI cuts longer ones
    vec = at_add(o, vec, embed(o, pooled, &w->vec));
    return at_unary(o, vec, AT_ACT_SILU);
}

// One more row and column that repeat the first ones, where a side is odd.
static const at_tensor *pad_even(at_ops *o, const at_tensor *x)
{
    for (int dim = 2; x && dim < 4; dim++) {
        if (x->shape[dim] % 2 == 0) continue;
        const at_tensor *parts[] = {x, at_narrow(o, x, dim, 0, 1)};
        x = at_concat(o, dim, 2, parts);
    }
    return x;
}

// [b, c, h, w] -> [b, h/2 * w/2, c * 4]
static at_tensor *to_tokens(at_ops *o, const at_tensor *x)
{
    if (!x) return NULL;
    int64_t b = x->shape[0], c = x->shape[1], h = x->shape[2] / 2, w = x->shape[3] / 2;
    at_tensor *t = at_reshape(o, x, 6, (int64_t[]){b, c, h, 2, w, 2});
    t = at_permute(o, t, (int[]){0, 2, 4, 1, 3, 5});
    return at_reshape(o, t, 3, (int64_t[]){b, h * w, c * 4});
}

static at_tensor *to_image(at_ops *o, const flux_state *s, const at_tensor *t)
{
    if (!t) return NULL;
    int64_t c = t->shape[2] / 4;
    at_tensor *x = at_reshape(o, t, 6, (int64_t[]){s->batch, s->rows, s->cols, c, 2, 2});
    x = at_permute(o, x, (int[]){0, 3, 1, 4, 2, 5});
    x = at_reshape(o, x, 4, (int64_t[]){s->batch, c, s->rows * 2, s->cols * 2});
    if (s->height != s->rows * 2) x = at_narrow(o, x, 2, 0, s->height);
    if (s->width != s->cols * 2) x = at_narrow(o, x, 3, 0, s->width);
    return x;
}

// Positions are (0, row, column) for image tokens and zero for text.
static at_rope_table rope_for(at_ops *o, const flux_config *c, const flux_state *s, int64_t text)
{
    int64_t n = text + s->rows * s->cols, shape[] = {n, 3};
    at_tensor *ids = NULL;
    at_rope_table none = {0};
    int d = (int)c->head_dim, axes[] = {d / 8, 7 * d / 16, 7 * d / 16};

    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 2, shape, &ids);
    if (st != AT_OK) {
        at_ops_poison(o, st, "positions of %lld tokens: %s", (long long)n, at_error_text());
        return none;
    }
    float *p = at_tensor_data(ids);
    for (int64_t i = 0; i < n; i++) {
        int64_t j = i - text, row = j < 0 ? 0 : j / s->cols, col = j < 0 ? 0 : j % s->cols;
        p[3 * i] = 0;
        p[3 * i + 1] = (float)row;
        p[3 * i + 2] = (float)col;
    }
    at_rope_table t = at_rope_make(o, n, 3, axes, p, rope_theta);
    at_tensor_release(&ids);
    return t;
}

static at_rope_table rope_part(at_ops *o, at_rope_table t, int64_t start, int64_t n)
{
    return (at_rope_table){at_narrow(o, t.cos, 0, start, n), at_narrow(o, t.sin, 0, start, n)};
}

// This rank's tokens of a table: the split is over dimension 1.
static at_tensor *split_table(at_ops *o, const at_tensor *t)
{
    if (!t || at_ops_comm(o)->size == 1) return (at_tensor *)t;
    int64_t n = t->shape[0], d = t->shape[1];
    at_tensor *s = at_split_tokens(o, at_reshape(o, t, 3, (int64_t[]){1, n, d}));
    return s ? at_reshape(o, s, 2, (int64_t[]){s->shape[1], d}) : NULL;
}

static void make_rope(at_ops *o, const flux_config *c, flux_state *s, int64_t text)
{
    at_rope_table all = rope_for(o, c, s, text);
    at_rope_table txt = rope_part(o, all, 0, text);
    at_rope_table img = rope_part(o, all, text, s->rows * s->cols);
    s->rope_text = (at_rope_table){split_table(o, txt.cos), split_table(o, txt.sin)};
    s->rope_image = (at_rope_table){split_table(o, img.cos), split_table(o, img.sin)};
    s->rope = all;
    if (at_ops_comm(o)->size == 1) return;
    s->rope.cos = at_concat(o, 0, 2, (const at_tensor *[]){s->rope_text.cos, s->rope_image.cos});
    s->rope.sin = at_concat(o, 0, 2, (const at_tensor *[]){s->rope_text.sin, s->rope_image.sin});
}

static at_tensor *prologue(at_ops *o, const at_bound *m, void *state, const at_model_in *in)
{
    const flux_config *c = m->config;
    const flux_weights *w = m->weights;
    flux_state *s = state;

    if (in->x->rank != 4 || in->x->shape[1] != c->channels)
        return at_ops_poison(o, AT_EINVAL, "%s takes latents of %lld channels, not %lld",
                             m->arch->title, (long long)c->channels, (long long)in->x->shape[1]);
    if (in->context->shape[2] != c->context || in->context->shape[0] != in->x->shape[0])
        return at_ops_poison(o, AT_EINVAL,
                             "%s takes text of width %lld and batch %lld, not %lld and %lld",
                             m->arch->title, (long long)c->context, (long long)in->x->shape[0],
                             (long long)in->context->shape[2], (long long)in->context->shape[0]);
    s->batch = in->x->shape[0];
    s->height = in->x->shape[2];
    s->width = in->x->shape[3];
    s->rows = (s->height + 1) / 2;
    s->cols = (s->width + 1) / 2;
    s->vec = condition(o, c, w, in, s->batch);
    make_rope(o, c, s, in->context->shape[1]);

    at_tensor *img = at_cast(o, to_tokens(o, pad_even(o, in->x)), at_ops_compute(o));
    at_tensor *txt = at_split_tokens(o, in->context);
    img = at_split_tokens(o, img);
    if (!img || !txt) return NULL;
    s->text = txt->shape[1];
    s->image = img->shape[1];
    // One buffer for both streams: the single blocks need no join.
    at_tensor *h =
        at_empty(o, at_ops_compute(o), 3, (int64_t[]){s->batch, s->text + s->image, c->hidden});
    at_tensor *txt_part = at_narrow(o, h, 1, 0, s->text);
    at_tensor *img_part = at_narrow(o, h, 1, s->text, s->image);
    linear(at_into(o, txt_part), txt, w->txt_in, NULL);
    linear(at_into(o, img_part), img, w->img_in, NULL);
    return h;
}

// --- blocks ------------------------------------------------------------------------------------
// A block's modulation [b, n * hidden]. It depends on the step alone, not on the tokens.
static at_tensor *modulation(at_ops *o, const flux_state *s, at_lin l)
{
    return linear(o, s->vec, l, NULL);
}

// Chunk i of a modulation.
static at_tensor *chunk(at_ops *o, const flux_config *c, const at_tensor *mod, int i)
{
    return at_narrow(o, mod, 1, i * c->hidden, c->hidden);
}

// LayerNorm without weights, then y * (1 + scale) + shift; chunks `first` and `first` + 1.
static at_tensor *modulate(at_ops *o, const flux_config *c, const at_tensor *x,
                           const at_tensor *mod, int first)
{
    at_norm_spec spec = {.mod_shift = chunk(o, c, mod, first),
                         .mod_scale = chunk(o, c, mod, first + 1),
                         .eps = norm_eps};
    return at_norm(o, x, &spec);
}

// Head view [b, t, heads, dim] of part 0 (q), 1 (k) or 2 (v) of a fused qkv [b, t, 3 * hidden ..].
static at_tensor *heads_of(at_ops *o, const flux_config *c, const at_tensor *qkv, int part)
{
    at_tensor *one = at_narrow(o, qkv, 2, part * c->hidden, c->hidden);
    if (!one) return NULL;
    return at_reshape(o, one, 4, (int64_t[]){one->shape[0], one->shape[1], c->heads, c->head_dim});
}

// Normalise and rotate q and k where they lie.
static void rotate_in_place(at_ops *o, const flux_config *c, const at_tensor *qkv,
                            const at_weight *q_norm, const at_weight *k_norm,
                            const at_rope_table *rope)
{
    at_tensor *q = heads_of(o, c, qkv, 0), *k = heads_of(o, c, qkv, 1);
    at_rope(at_into(o, q), q, q_norm, norm_eps, rope, false);
    at_rope(at_into(o, k), k, k_norm, norm_eps, rope, false);
}

// q, k and v are read from the one buffer by strides.
static at_tensor *attend(at_ops *o, const flux_config *c, const at_tensor *qkv, at_tensor *into)
{
    at_tensor *q = heads_of(o, c, qkv, 0), *k = heads_of(o, c, qkv, 1), *v = heads_of(o, c, qkv, 2);
    return at_attention(at_into(o, into), q, k, v, NULL, 0, false);
}

// First half of a double block for one stream: its rows of the joint qkv.
static void stream_in(at_ops *o, const flux_config *c, const flux_stream *w, const at_tensor *x,
                      const at_tensor *mod, const at_rope_table *rope, at_tensor *qkv)
{
    at_tensor *y = modulate(o, c, x, mod, 0);
    linear(at_into(o, qkv), y, w->qkv, NULL);
    rotate_in_place(o, c, qkv, w->q_norm, w->k_norm, rope);
}

// Second half: projection, then MLP, both added to the stream x in place.
static void stream_out(at_ops *o, const flux_config *c, const flux_stream *w, at_tensor *x,
                       const at_tensor *attended, const at_tensor *mod)
{
    at_linear_extra add = {.residual = x, .gate = chunk(o, c, mod, 2)};
    linear(at_into(o, x), attended, w->proj, &add);
    at_tensor *h = modulate(o, c, x, mod, 3);
    h = linear(o, h, w->fc1, &(at_linear_extra){.act = AT_ACT_GELU_TANH});
    add.gate = chunk(o, c, mod, 5);
    linear(at_into(o, x), h, w->fc2, &add);
}

static at_tensor *double_block(at_ops *o, const flux_config *c, const flux_double *w,
                               const flux_state *s, at_tensor *h)
{
    at_tensor *txt = at_narrow(o, h, 1, 0, s->text), *img = at_narrow(o, h, 1, s->text, s->image);
    at_tensor *txt_mod = modulation(o, s, w->txt.mod);
    at_tensor *img_mod = modulation(o, s, w->img.mod);
    at_tensor *qkv =
        at_empty(o, at_ops_compute(o), 3, (int64_t[]){s->batch, s->text + s->image, c->qkv});

    stream_in(o, c, &w->txt, txt, txt_mod, &s->rope_text, at_narrow(o, qkv, 1, 0, s->text));
    stream_in(o, c, &w->img, img, img_mod, &s->rope_image, at_narrow(o, qkv, 1, s->text, s->image));
    at_tensor *y = attend(o, c, qkv, NULL);
    stream_out(o, c, &w->txt, txt, at_narrow(o, y, 1, 0, s->text), txt_mod);
    stream_out(o, c, &w->img, img, at_narrow(o, y, 1, s->text, s->image), img_mod);
    return h;
}

// Attention and MLP read the same normalised tokens and write side by side; linear2 joins them.
static at_tensor *single_block(at_ops *o, const flux_config *c, const flux_single *w,
                               const flux_state *s, at_tensor *h)
{
    int64_t tokens = s->text + s->image;
    at_tensor *mod = modulation(o, s, w->mod);
    at_tensor *y = linear(o, modulate(o, c, h, mod, 0), w->lin1, NULL); // q, k, v, mlp
    at_tensor *both = at_empty(o, at_ops_compute(o), 3, (int64_t[]){s->batch, tokens, c->lin2});
    at_tensor *mlp_in = at_narrow(o, y, 2, c->qkv, c->mlp);
    at_tensor *mlp_out = at_narrow(o, both, 2, c->hidden, c->mlp);
    at_linear_extra add = {.residual = h, .gate = chunk(o, c, mod, 2)};

    rotate_in_place(o, c, y, w->q_norm, w->k_norm, &s->rope);
    attend(o, c, y, at_narrow(o, both, 2, 0, c->hidden));
    at_unary(at_into(o, mlp_out), mlp_in, AT_ACT_GELU_TANH);
    return linear(at_into(o, h), both, w->lin2, &add);
}

static at_tensor *block(at_ops *o, const at_bound *m, void *state, int i, at_tensor *h)
{
    const flux_config *c = m->config;
    const flux_weights *w = m->weights;
    if (i < c->depth) return double_block(o, c, &w->doubles[i], state, h);
    return single_block(o, c, &w->singles[i - c->depth], state, h);
}

static at_tensor *epilogue(at_ops *o, const at_bound *m, void *state, at_tensor *h)
{
    const flux_config *c = m->config;
    const flux_weights *w = m->weights;
    const flux_state *s = state;

    at_tensor *img = at_narrow(o, h, 1, s->text, s->image);
    at_tensor *mod = modulation(o, s, w->final_mod);
    img = linear(o, modulate(o, c, img, mod, 0), w->final, NULL);
    img = at_gather_tokens(o, img, s->rows * s->cols);
    return at_cast(o, at_contiguous(o, to_image(o, s, img)), AT_F32);
}

static int blocks(const void *config)
{
    const flux_config *c = config;
    return (int)(c->depth + c->single);
}

// Multiply and add are two. Activations: the widest moment, a single block's linear1 and linear2
// inputs.
static void cost(const void *config, int64_t batch, int64_t latent_h, int64_t latent_w,
                 int64_t text_tokens, at_dtype compute, at_model_cost *out)
{
    const flux_config *c = config;
    int64_t rows = (latent_h + 1) / 2, cols = (latent_w + 1) / 2;
    double img = (double)rows * (double)cols;
    double n = img + (double)text_tokens, h = (double)c->hidden, mlp = (double)c->mlp;
    double per_token = h * (3 * h + h + 2 * mlp);
    double attention = 2 * 2 * n * n * h * (double)(c->depth + c->single);
    double blocks_flops = 2 * n * per_token * (double)(c->depth + c->single);
    double ends = 2 * img * h * (double)(c->patch_in + c->patch_out) +
                  2 * (double)text_tokens * h * (double)c->context;
    out->flops = (double)batch * (attention + blocks_flops + ends);
    out->activation_bytes =
        (double)batch * n * (6 * h + 2 * (h + mlp)) * (double)at_dtype_size(compute);
}

// --- descriptors -------------------------------------------------------------------------------
static const at_denoiser_ops ops = {
    .state_size = sizeof(flux_state),
    .blocks = blocks,
    .prologue = prologue,
    .block = block,
    .epilogue = epilogue,
    .cost = cost,
};

static const at_probe probes_dev[] = {
    {.key = "double_blocks.0.img_attn.norm.key_norm.scale"},
    {.key = "img_in.weight"},
    {.key = "guidance_in.in_layer.weight"},
    {.key = "distilled_guidance_layer.norms.0.scale", .absent = true},  // Chroma
    {.key = "double_stream_modulation_img.lin.weight", .absent = true}, // Flux.2
};
static const at_probe probes_schnell[] = {
    {.key = "double_blocks.0.img_attn.norm.key_norm.scale"},
    {.key = "img_in.weight"},
    {.key = "guidance_in.in_layer.weight", .absent = true},
    {.key = "distilled_guidance_layer.norms.0.scale", .absent = true},
    {.key = "double_stream_modulation_img.lin.weight", .absent = true},
};

// Latent format: numbers of ComfyUI 0.3.64 (comfy/latent_formats.py, class Flux); rgb is the linear
// map from a latent to a rough picture.
static const float latent_rgb[16 * 3] = {
    -0.0346f, 0.0244f,  0.0681f,  0.0034f,  0.0210f,  0.0687f,  0.0275f,  -0.0668f,
    -0.0433f, -0.0174f, 0.0160f,  0.0617f,  0.0859f,  0.0721f,  0.0329f,  0.0004f,
    0.0383f,  0.0115f,  0.0405f,  0.0861f,  0.0915f,  -0.0236f, -0.0185f, -0.0259f,
    -0.0245f, 0.0250f,  0.1180f,  0.1008f,  0.0755f,  -0.0421f, -0.0515f, 0.0201f,
    0.0011f,  0.0428f,  -0.0012f, -0.0036f, 0.0817f,  0.0765f,  0.0749f,  -0.1264f,
    -0.0522f, -0.1103f, -0.0280f, -0.0881f, -0.0499f, -0.1262f, -0.0982f, -0.0778f,
};
static const float latent_rgb_bias[3] = {-0.0329f, -0.0718f, -0.0851f};
static const at_latent_format latent_flux = {
    .name = "flux",
    .channels = 16,
    .downscale = 8,
    .scale = 0.3611f,
    .shift = 0.1159f,
    .rgb = latent_rgb,
    .rgb_bias = latent_rgb_bias,
};

const at_arch at_arch_flux1_dev = {
    .name = "flux1",
    .title = "Flux.1 dev",
    .part = AT_PART_DENOISER,
    .probes = probes_dev,
    .n_probes = AT_LEN(probes_dev),
    .sizes = sizes,
    .n_sizes = AT_LEN(sizes),
    .config_size = sizeof(flux_config),
    .derive = derive,
    .groups = groups_dev,
    .n_groups = AT_LEN(groups_dev),
    .weights_size = sizeof(flux_weights),
    .latent = &latent_flux,
    .sampling = {.prediction = AT_PRED_CONST,
                 .kind = AT_SIGMA_FLUX,
                 .shift = 1.15,
                 .multiplier = 1},
    .denoiser = &ops,
};

const at_arch at_arch_flux1_schnell = {
    .name = "flux1_schnell",
    .title = "Flux.1 schnell",
    .part = AT_PART_DENOISER,
    .probes = probes_schnell,
    .n_probes = AT_LEN(probes_schnell),
    .sizes = sizes,
    .n_sizes = AT_LEN(sizes),
    .config_size = sizeof(flux_config),
    .derive = derive,
    .groups = groups_schnell,
    .n_groups = AT_LEN(groups_schnell),
    .weights_size = sizeof(flux_weights),
    .latent = &latent_flux,
    .sampling = {.prediction = AT_PRED_CONST,
                 .kind = AT_SIGMA_DISCRETE_FLOW,
                 .shift = 1,
                 .multiplier = 1},
    .denoiser = &ops,
};
