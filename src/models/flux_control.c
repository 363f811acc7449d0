// SPDX-License-Identifier: Apache-2.0
// flux_control.c - ControlNets for Flux.1: InstantX' and Shakker's (also union and inpainting),
// XLabs' and MistoLine's.
// Idea: Flux with fewer blocks and no final layer; after each block a linear of the image tokens is
// a residual. The hint is a latent (InstantX) or a picture that a few convolutions bring to the
// latent's size (XLabs, MistoLine), and is added to the image tokens at the start.
// Easy to get wrong:
//   - few residuals stand for many blocks: a latent net's are each repeated in place (0 0 0 1 1 1),
//     a picture net's list is repeated as a whole (0 1 0 1), both cut at 19 and 38
//   - a union net's mode is one more text token, before the text
//   - MistoLine's residuals pass a SiLU
//   - ranks share the tokens as the network does that is steered: its image tokens must be these, and no others
// Source: ComfyUI 0.3.64 comfy/ldm/flux/controlnet.py; the papers of flux.c.
// Owns nothing: tensors belong to op scopes.
#include "models/flux_blocks.h"

enum { MAX_CONVS = 10, MAIN_DOUBLES = 19, MAIN_SINGLES = 38 };

typedef struct control_config {
    at_flux_config flux;
    int64_t hint; // features of a hint's patch
    int64_t modes;
} control_config;

typedef struct control_weights {
    at_flux_weights flux;
    at_lin hint_in, convs[MAX_CONVS];
    const at_weight *modes;
    at_lin *doubles, *singles;
} control_weights;

// --- tables ------------------------------------------------------------------------------------
#define C(field)   AT_FIELD(control_config, field)
#define HIDDEN     AT_FIELD(at_flux_config, hidden)
#define OFF(field) offsetof(control_weights, field)
#define SIZE(field_, how_, key_, ...)                                                              \
    {                                                                                              \
        .name = #field_, .offset = offsetof(control_config, field_), .how = how_, .key = key_,     \
        __VA_ARGS__                                                                                \
    }
#define HINT(key_)                                                                                 \
    {.key = key_ ".weight", .offset = OFF(hint_in.w), .rank = 2, .dim = {HIDDEN, C(hint)}},        \
    {                                                                                              \
        .key = key_ ".bias", .offset = OFF(hint_in.b), .rank = 1, .dim = { HIDDEN }                \
    }
#define CONV(i, key_)                                                                              \
    {.key = key_ ".weight", .offset = OFF(convs[i].w), .rank = 4},                                 \
    {                                                                                              \
        .key = key_ ".bias", .offset = OFF(convs[i].b), .rank = 1                                  \
    }

static const at_size_row sizes_instantx[] = {
    AT_FLUX_SIZES_SPLIT,
    SIZE(hint, AT_SIZE_DIM, "controlnet_x_embedder.weight", .dim = 1),
};
static const at_size_row sizes_union[] = {
    AT_FLUX_SIZES_SPLIT,
    SIZE(hint, AT_SIZE_DIM, "controlnet_x_embedder.weight", .dim = 1),
    SIZE(modes, AT_SIZE_DIM, "controlnet_mode_embedder.weight", .dim = 0),
};
static const at_size_row sizes_picture[] = {
    AT_FLUX_SIZES,
    SIZE(hint, AT_SIZE_DIM, "pos_embed_input.weight", .dim = 1),
};

static const at_bind_row rows_instantx[] = {HINT("controlnet_x_embedder")};
static const at_bind_row rows_union[] = {
    HINT("controlnet_x_embedder"),
    {.key = "controlnet_mode_embedder.weight",
     .offset = OFF(modes),
     .rank = 2,
     .dim = {C(modes), HIDDEN}},
};
#define XLABS(i, n) CONV(i, "input_hint_block." #n)
static const at_bind_row rows_xlabs[] = {
    HINT("pos_embed_input"),
    XLABS(0, 0),
    XLABS(1, 2),
    XLABS(2, 4),
    XLABS(3, 6),
    XLABS(4, 8),
    XLABS(5, 10),
    XLABS(6, 12),
    XLABS(7, 14),
};
#define MISTO(i, n) CONV(i, "input_cond_block.encoder." #n)
static const at_bind_row rows_mistoline[] = {
    HINT("pos_embed_input"),
    MISTO(0, 0),
    MISTO(1, 2),
    MISTO(2, 4),
    MISTO(3, 6),
    MISTO(4, 8),
    MISTO(5, 10),
    MISTO(6, 12),
    MISTO(7, 14),
    MISTO(8, 16),
    MISTO(9, 18),
};

// The linear after a block.
#define AFTER(key_)                                                                                \
    {                                                                                              \
        {.key = key_ "weight", .offset = offsetof(at_lin, w), .rank = 2, .dim = {HIDDEN, HIDDEN}}, \
        {                                                                                          \
            .key = key_ "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = { HIDDEN }        \
        }                                                                                          \
    }
static const at_bind_row rows_after[] = AFTER("");
static const at_bind_row rows_after_misto[] = AFTER("linear.");
#define AFTER_GROUP(base_, rows_, count_, array_)                                                  \
    {                                                                                              \
        .base = base_, .rows = rows_, .n_rows = 2, .count = AT_FIELD(at_flux_config, count_),      \
        .array = OFF(array_), .size = sizeof(at_lin)                                               \
    }
#define GROUP(rows_, n_)                                                                           \
    {                                                                                              \
        .base = "", .rows = rows_, .n_rows = n_                                                    \
    }

// guidance rows are bound where the file has them: their keys are optional as a group.
#define SPLIT_GROUPS(rows_)                                                                        \
    GROUP(at_flux_rows_ends_split, AT_FLUX_ROWS_ENDS), GROUP(rows_, AT_LEN(rows_)),                \
        AT_FLUX_BLOCKS_SPLIT, AFTER_GROUP("controlnet_blocks.%d.", rows_after, depth, doubles),    \
        AFTER_GROUP("controlnet_single_blocks.%d.", rows_after, single, singles)
static const at_bind_group groups_instantx[] = {SPLIT_GROUPS(rows_instantx)};
static const at_bind_group groups_union[] = {SPLIT_GROUPS(rows_union)};
static const at_bind_group groups_xlabs[] = {
    GROUP(at_flux_rows_ends, AT_FLUX_ROWS_ENDS),
    GROUP(rows_xlabs, AT_LEN(rows_xlabs)),
    AT_FLUX_BLOCKS,
    AFTER_GROUP("controlnet_blocks.%d.", rows_after, depth, doubles),
    AFTER_GROUP("controlnet_single_blocks.%d.", rows_after, single, singles),
};
static const at_bind_group groups_mistoline[] = {
    GROUP(at_flux_rows_ends, AT_FLUX_ROWS_ENDS),
    GROUP(rows_mistoline, AT_LEN(rows_mistoline)),
    AT_FLUX_BLOCKS,
    AFTER_GROUP("controlnet_blocks.%d.", rows_after_misto, depth, doubles),
    AFTER_GROUP("single_controlnet_blocks.%d.", rows_after_misto, single, singles),
};

static const char *derive(void *config)
{
    control_config *c = config;
    if (c->hint % 4) return "the hint's embedding does not take 2x2 patches";
    if (c->flux.depth > MAIN_DOUBLES || c->flux.single > MAIN_SINGLES)
        return "it has more blocks than Flux.1";
    return at_flux_derive(&c->flux);
}

static void bind_guidance(at_binder *b, const void *config, void *weights, const at_bind_row *rows)
{
    const control_config *c = config;
    if (c->flux.guidance) at_bind_rows(b, "", rows, AT_FLUX_ROWS_GUIDANCE, config, weights);
}
static void bind_split(at_binder *b, const void *config, void *weights)
{
    bind_guidance(b, config, weights, at_flux_rows_guidance_split);
}
static void bind_whole(at_binder *b, const void *config, void *weights)
{
    bind_guidance(b, config, weights, at_flux_rows_guidance);
}

// --- the hint ----------------------------------------------------------------------------------
static bool is_mistoline(const at_bound *m)
{
    return ((const control_weights *)m->weights)->convs[MAX_CONVS - 1].w != NULL;
}
static bool takes_latents(const at_bound *m)
{
    return ((const control_weights *)m->weights)->convs[0].w == NULL;
}

// A picture 0..1 [b, 3, 8h, 8w] through the convolutions: [b, c, h, w].
static at_tensor *shrink(at_ops *o, const at_bound *m, const at_tensor *hint)
{
    const control_weights *w = m->weights;
    // Which of them halve the sides.
    const char *strides = is_mistoline(m) ? "1112121211" : "11212121";
    at_tensor *x = at_permute(o, at_affine(o, hint, 2.0f, -1.0f), (int[]){0, 2, 3, 1});
    x = at_cast(o, at_contiguous(o, x), at_ops_compute(o));
    for (int i = 0; strides[i]; i++) {
        int pad = (int)w->convs[i].w->shape[2] / 2;
        at_conv_spec spec = {.stride = strides[i] - '0',
                             .pad_top = pad,
                             .pad_left = pad,
                             .pad_bottom = pad,
                             .pad_right = pad,
                             .act = strides[i + 1] ? AT_ACT_SILU : AT_ACT_NONE};
        x = at_conv2d(o, x, w->convs[i].w, w->convs[i].b, &spec);
    }
    return at_permute(o, x, (int[]){0, 3, 1, 2});
}

// The hint's tokens [b or 1, image tokens, hidden].
static at_tensor *hint_tokens(at_ops *o, const at_bound *m, const at_flux_state *s,
                              const at_tensor *hint)
{
    const control_config *c = m->config;
    const control_weights *w = m->weights;
    const at_tensor *x = takes_latents(m) ? at_flux_pad_even(o, hint) : shrink(o, m, hint);
    if (!x) return NULL;
    if (x->shape[1] * 4 != c->hint || x->shape[2] != 2 * s->rows || x->shape[3] != 2 * s->cols)
        return at_ops_poison(
            o, AT_EINVAL,
            "%s: the hint has %lld channels and %lldx%lld cells; %lld and %lldx%lld "
            "are wanted (sides of the picture must be multiples of 16)",
            m->arch->title, (long long)x->shape[1], (long long)x->shape[2], (long long)x->shape[3],
            (long long)c->hint / 4, (long long)(2 * s->rows), (long long)(2 * s->cols));
    at_tensor *t = at_cast(o, at_flux_tokens(o, x), at_ops_compute(o));
    return at_linear(o, t, w->hint_in.w, w->hint_in.b, NULL);
}

// --- forward -----------------------------------------------------------------------------------
// Text tokens, with the mode's token before them where a union net was told one.
static at_tensor *text_tokens(at_ops *o, const at_bound *m, const at_control_in *in, bool moded)
{
    const control_config *c = m->config;
    const control_weights *w = m->weights;
    int64_t b = in->context->shape[0], t = in->context->shape[1], n = moded ? 1 : 0;
    at_tensor *out = at_empty(o, at_ops_compute(o), 3, (int64_t[]){b, t + n, c->flux.hidden});
    at_tensor *text = at_narrow(o, out, 1, n, t);
    at_linear(at_into(o, text), in->context, w->flux.txt_in.w, w->flux.txt_in.b, NULL);
    for (int64_t i = 0; moded && i < b; i++) {
        at_tensor *row = at_narrow(o, at_narrow(o, out, 0, i, 1), 1, 0, 1);
        int32_t mode = in->type;
        at_embedding(at_into(o, row), w->modes, &mode, 1);
    }
    return out;
}

// Text and image tokens in one buffer, the hint added to the image's.
static at_tensor *begin(at_ops *o, const at_bound *m, at_flux_state *s, const at_control_in *in)
{
    const control_config *c = m->config;
    const control_weights *w = m->weights;
    bool moded = c->modes && in->type >= 0;
    at_model_in mi = *in->model;

    mi.context = in->context;
    mi.control = NULL;
    if (moded && in->type >= c->modes)
        return at_ops_poison(o, AT_EINVAL, "%s: kind of hint %d; this file knows 0 to %lld",
                             m->arch->title, in->type, (long long)c->modes - 1);
    if (!at_flux_begin(o, m->arch, &c->flux, &w->flux, s, &mi, moded ? 1 : 0)) return NULL;
    at_tensor *img = at_cast(o, at_flux_tokens(o, at_flux_pad_even(o, mi.x)), at_ops_compute(o));
    img = at_linear(o, img, w->flux.img_in.w, w->flux.img_in.b, NULL);
    at_tensor *hint = hint_tokens(o, m, s, in->hint), *text = text_tokens(o, m, in, moded);
    img = at_add(at_into(o, img), img, hint);
    text = at_split_tokens(o, text);
    img = at_split_tokens(o, img);
    if (!img || !text) return NULL;
    s->text = text->shape[1];
    s->image = img->shape[1];
    return at_concat(o, 1, 2, (const at_tensor *[]){text, img});
}

static at_tensor *residual(at_ops *o, const at_bound *m, const at_flux_state *s, at_lin l,
                           at_tensor *h)
{
    at_tensor *img = at_narrow(o, h, 1, s->text, s->image);
    at_linear_extra extra = {.act = is_mistoline(m) ? AT_ACT_SILU : AT_ACT_NONE};
    return at_linear(o, img, l.w, l.b, &extra);
}

// n residuals over `places` blocks of the network that is steered.
static void spread(at_ops *o, const at_bound *m, const at_flux_state *s, bool whole,
                   at_tensor **from, int64_t n, int places, const at_tensor **to)
{
    if (!n) return;
    int64_t repeat = (places + n - 1) / n;
    for (int64_t i = 0; i < n && whole; i++)
        from[i] = at_gather_tokens(o, from[i], s->rows * s->cols);
    for (int64_t i = 0; i < places; i++)
        to[i] = from[takes_latents(m) ? i / repeat : i % n];
}

static void forward(at_ops *o, const at_bound *m, const at_control_in *in, at_control *out)
{
    const control_config *c = m->config;
    const control_weights *w = m->weights;
    at_flux_state s = {0};
    at_tensor *doubles[MAIN_DOUBLES], *singles[MAIN_SINGLES];

    at_tensor *h = begin(o, m, &s, in);
    for (int i = 0; h && i < c->flux.depth; i++) {
        at_scope_begin(o);
        at_flux_double_block(o, &c->flux, &w->flux.doubles[i], &s, i, h);
        doubles[i] = at_scope_end(o, residual(o, m, &s, w->doubles[i], h));
    }
    for (int i = 0; h && i < c->flux.single; i++) {
        at_scope_begin(o);
        at_flux_single_block(o, &c->flux, &w->flux.singles[i], &s, i, h);
        singles[i] = at_scope_end(o, residual(o, m, &s, w->singles[i], h));
    }
    at_end_tokens(o);
    if (!h || at_ops_status(o) != AT_OK) return;
    spread(o, m, &s, in->whole, doubles, c->flux.depth, MAIN_DOUBLES, out->doubles);
    spread(o, m, &s, in->whole, singles, c->flux.single, MAIN_SINGLES, out->singles);
    out->shared = !in->whole;
}

static void facts(const at_bound *m, at_control_facts *f)
{
    const control_config *c = m->config;
    f->types = (int)c->modes;
    if (!takes_latents(m)) return;
    f->latent = &at_latent_flux;
    f->channels = (int)c->hint / 4;
    f->concat_mask = f->channels == at_latent_flux.channels + 1;
}

// --- descriptors -------------------------------------------------------------------------------
static const at_control_ops ops = {.forward = forward, .facts = facts};

static const at_probe probes_union[] = {{.key = "controlnet_blocks.0.weight"},
                                        {.key = "controlnet_x_embedder.weight"},
                                        {.key = "controlnet_mode_embedder.weight"},
                                        {.key = "transformer_blocks.0.attn.to_q.weight"}};
static const at_probe probes_instantx[] = {{.key = "controlnet_blocks.0.weight"},
                                           {.key = "controlnet_x_embedder.weight"},
                                           {.key = "transformer_blocks.0.attn.to_q.weight"}};
static const at_probe probes_xlabs[] = {{.key = "controlnet_blocks.0.weight"},
                                        {.key = "double_blocks.0.img_attn.norm.key_norm.scale"}};
static const at_probe probes_mistoline[] = {
    {.key = "controlnet_blocks.0.linear.weight"},
    {.key = "double_blocks.0.img_attn.norm.key_norm.scale"}};

#define ROW(id, title_, sizes_, bind_)                                                             \
    const at_arch at_arch_flux_control_##id = {.name = "flux_control_" #id,                        \
                                               .title = title_,                                    \
                                               .part = AT_PART_CONTROL,                            \
                                               .probes = probes_##id,                              \
                                               .n_probes = AT_LEN(probes_##id),                    \
                                               .sizes = sizes_,                                    \
                                               .n_sizes = AT_LEN(sizes_),                          \
                                               .config_size = sizeof(control_config),              \
                                               .derive = derive,                                   \
                                               .groups = groups_##id,                              \
                                               .n_groups = AT_LEN(groups_##id),                    \
                                               .weights_size = sizeof(control_weights),            \
                                               .bind = bind_,                                      \
                                               .control = &ops}
ROW(union, "Flux.1 union ControlNet", sizes_union, bind_split);
ROW(instantx, "Flux.1 ControlNet", sizes_instantx, bind_split);
ROW(xlabs, "Flux.1 ControlNet (XLabs)", sizes_picture, bind_whole);
ROW(mistoline, "Flux.1 ControlNet (MistoLine)", sizes_picture, bind_whole);
