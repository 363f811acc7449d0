// SPDX-License-Identifier: Apache-2.0
// flux.c - Flux.1 (dev and schnell): text and image tokens side by side, then as one stream.
// Idea: a rectified-flow transformer (Esser et al. 2024, arXiv:2403.03206; Black Forest Labs' flux
// key layout). Double blocks give text and image their own weights and one joint attention; single
// blocks run attention and MLP in parallel on the joined tokens. Every size comes from the file.
// Easy to get wrong (more of it in flux_blocks.c):
//   - the final layer sees image tokens only; its modulation chunks are shift, scale
//   - odd latent sides are padded by wrapping round, and cropped after
//   - the order of a call's arguments is free in C: beside at_into(...) no other argument may pass
//     a door, or that door takes what was meant for the outer one (and refuses it)
// Owns nothing: tensors belong to op scopes.
#include "models/flux_blocks.h"

// --- tables ------------------------------------------------------------------------------------
#define F(field) AT_FIELD(at_flux_config, field)

static const at_size_row sizes[] = {
    AT_FLUX_SIZES,
    AT_FLUX_SIZE(patch_out, AT_SIZE_DIM, "final_layer.linear.weight", .dim = 0),
};

#define LIN(field, key_, out, in)                                                                  \
    {.key = key_ ".weight",                                                                        \
     .offset = offsetof(at_flux_weights, field.w),                                                 \
     .rank = 2,                                                                                    \
     .dim = {F(out), F(in)}},                                                                      \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(at_flux_weights, field.b), .rank = 1, .dim = {     \
            F(out)                                                                                 \
        }                                                                                          \
    }
static const at_bind_row rows_final[] = {
    LIN(final_mod, "final_layer.adaLN_modulation.1", mod2, hidden),
    LIN(final, "final_layer.linear", patch_out, hidden),
};

#define ENDS                                                                                       \
    {.base = "", .rows = at_flux_rows_ends, .n_rows = AT_FLUX_ROWS_ENDS},                          \
    {                                                                                              \
        .base = "", .rows = rows_final, .n_rows = AT_LEN(rows_final)                               \
    }
static const at_bind_group groups_dev[] = {
    ENDS,
    {.base = "", .rows = at_flux_rows_guidance, .n_rows = AT_FLUX_ROWS_GUIDANCE},
    AT_FLUX_BLOCKS,
};
static const at_bind_group groups_schnell[] = {ENDS, AT_FLUX_BLOCKS};

static const char *derive(void *config)
{
    at_flux_config *c = config;
    if (c->patch_out % 4) return "the final layer does not give 2x2 patches";
    return at_flux_derive(c);
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *linear(at_ops *o, const at_tensor *x, at_lin l, const at_linear_extra *extra)
{
    return at_linear(o, x, l.w, l.b, extra);
}

static at_tensor *to_image(at_ops *o, const at_flux_state *s, const at_tensor *t)
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

// Tokens of x (with what stands behind it along channels), then of every reference latent.
static at_tensor *picture_tokens(at_ops *o, const at_tensor *x, const at_model_in *in)
{
    enum { MOST = 65 };
    const at_tensor *part[MOST] = {at_flux_tokens(o, at_flux_pad_even(o, x))};
    if (in->n_refs >= MOST)
        return at_ops_poison(o, AT_EINVAL, "%zu reference latents; %d are the most", in->n_refs,
                             MOST - 1);
    for (size_t i = 0; i < in->n_refs; i++)
        part[i + 1] = at_flux_tokens(o, at_flux_pad_even(o, in->refs[i]));
    const at_tensor *all = in->n_refs ? at_concat(o, 1, (int)in->n_refs + 1, part) : part[0];
    return at_cast(o, all, at_ops_compute(o));
}

static at_tensor *prologue(at_ops *o, const at_bound *m, void *state, const at_model_in *in)
{
    const at_flux_config *c = m->config;
    const at_flux_weights *w = m->weights;
    at_flux_state *s = state;
    at_model_in all = *in;

    if (in->concat) all.x = at_concat(o, 1, 2, (const at_tensor *[]){in->x, in->concat});
    if (!all.x || !at_flux_begin(o, m->arch, c, w, s, &all, 0)) return NULL;
    s->in = in;
    at_tensor *img = picture_tokens(o, all.x, in);
    at_tensor *txt = at_split_tokens(o, at_cast(o, in->context, at_ops_compute(o)));
    img = at_split_tokens(o, img);
    if (!img || !txt) return NULL;
    s->text = txt->shape[1];
    s->image = img->shape[1];
    // One buffer for both streams: the single blocks need no join.
    at_tensor *h =
        at_empty(o, at_ops_compute(o), 3, (int64_t[]){s->batch, s->text + s->image, c->hidden});
    at_tensor *txt_part = at_narrow(o, h, 1, 0, s->text);
    at_tensor *img_part = at_narrow(o, h, 1, s->text, s->image);
    linear(at_into(o, txt_part), txt, w->txt_in, &(at_linear_extra){.precise = true});
    linear(at_into(o, img_part), img, w->img_in, &(at_linear_extra){.precise = true});
    at_flux_leave_sums(o, c, s);
    return h;
}

static int64_t fixed(const void *state)
{
    const at_flux_state *s = state;
    return s->text;
}

// Text stands before the picture, and goes with the first piece.
static void part(at_ops *o, const void *state, int64_t first, int64_t n, void *out)
{
    const at_flux_state *s = state;
    at_flux_state *p = out;
    int64_t before = first ? first - s->text : 0;

    *p = *s;
    p->text = first ? 0 : s->text;
    p->image = n - p->text;
    p->rope_text.cos = at_narrow(o, s->rope_text.cos, 0, 0, p->text);
    p->rope_text.sin = at_narrow(o, s->rope_text.sin, 0, 0, p->text);
    p->rope_image.cos = at_narrow(o, s->rope_image.cos, 0, before, p->image);
    p->rope_image.sin = at_narrow(o, s->rope_image.sin, 0, before, p->image);
    p->rope.cos = at_narrow(o, s->rope.cos, 0, first, n);
    p->rope.sin = at_narrow(o, s->rope.sin, 0, first, n);
}

static at_tensor *block(at_ops *o, const at_bound *m, void *state, int i, at_tensor *h)
{
    const at_flux_config *c = m->config;
    const at_flux_weights *w = m->weights;
    if (i < c->depth) return at_flux_double_block(o, c, &w->doubles[i], state, i, h);
    i -= (int)c->depth;
    return at_flux_single_block(o, c, &w->singles[i], state, i, h);
}

static at_tensor *epilogue(at_ops *o, const at_bound *m, void *state, at_tensor *h)
{
    const at_flux_config *c = m->config;
    const at_flux_weights *w = m->weights;
    const at_flux_state *s = state;

    int64_t own = s->rows * s->cols;
    at_tensor *img = at_narrow(o, h, 1, s->text, at_ops_token_ranks(o) == 1 ? own : s->image);
    at_tensor *mod = at_flux_modulation(o, c, s, w->final_mod, at_flux_mods_final(c), c->mod2);
    img = at_flux_enter(o, c, s, img, s->text, AT_FLUX_PICTURE, mod, 0, NULL);
    img = linear(o, img, w->final, NULL);
    if (at_ops_token_ranks(o) > 1)
        img = at_narrow(o, at_gather_tokens(o, img, s->all_image), 1, 0, own);
    return at_cast(o, at_contiguous(o, to_image(o, s, img)), AT_F32);
}

static int blocks(const void *config)
{
    const at_flux_config *c = config;
    return (int)(c->depth + c->single);
}

// Multiply and add are two. Activations: the widest moment, a single block's linear1 and linear2
// inputs.
static void cost(const void *config, int64_t batch, int64_t latent_h, int64_t latent_w,
                 int64_t text_tokens, at_dtype compute, at_model_cost *out)
{
    const at_flux_config *c = config;
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
        (double)batch * n * (7 * h + 2 * (h + mlp)) * (double)at_dtype_size(compute);
    double stream = n * h * (double)at_dtype_size(compute);
    out->share = (at_share_hints){.axes = 1u << AT_AXIS_RING | 1u << AT_AXIS_ULYSSES |
                                          1u << AT_AXIS_TP | 1u << AT_AXIS_PIPE,
                                  .tokens = (int64_t)n,
                                  .heads = c->heads,
                                  .attention_flops = attention,
                                  .attentions = (int)(c->depth + c->single),
                                  .ops = (int)(20 * c->depth + 8 * c->single),
                                  .sequence_bytes = stream,
                                  .tp_meetings = (int)(4 * c->depth + c->single),
                                  .tp_bytes = (double)(2 * c->depth + c->single) * stream,
                                  .tp_flops = attention + blocks_flops};
}

static at_tensor *prepare(at_ops *o, const at_bound *m, const at_model_in *in, int64_t n)
{
    return at_flux_mods(o, m->config, m->weights, in, n);
}

static void tables(at_ops *o, const at_bound *m, const at_model_in *in,
                   at_tensor *out[AT_MADE_TABLES])
{
    at_flux_tables(o, m->config, in, out);
}

// --- descriptors -------------------------------------------------------------------------------
static const at_denoiser_ops ops = {
    .state_size = sizeof(at_flux_state),
    .channels = AT_FIELD(at_flux_config, channels),
    .context = AT_FIELD(at_flux_config, context),
    .vector = AT_FIELD(at_flux_config, vec),
    .blocks = blocks,
    .prepare = prepare,
    .tables = tables,
    .prologue = prologue,
    .block = block,
    .epilogue = epilogue,
    .fixed = fixed,
    .part = part,
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
const at_latent_format at_latent_flux = {
    .name = "flux",
    .channels = 16,
    .downscale = 8,
    .scale = 0.3611f,
    .shift = 0.1159f,
    .rgb = latent_rgb,
    .rgb_bias = latent_rgb_bias,
    .tiny = "taef1",
};

const at_arch at_arch_flux1_dev = {
    .name = "flux1",
    .title = "Flux.1 dev",
    .part = AT_PART_DENOISER,
    .probes = probes_dev,
    .n_probes = AT_LEN(probes_dev),
    .sizes = sizes,
    .n_sizes = AT_LEN(sizes),
    .config_size = sizeof(at_flux_config),
    .derive = derive,
    .groups = groups_dev,
    .n_groups = AT_LEN(groups_dev),
    .weights_size = sizeof(at_flux_weights),
    .latent = &at_latent_flux,
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
    .config_size = sizeof(at_flux_config),
    .derive = derive,
    .groups = groups_schnell,
    .n_groups = AT_LEN(groups_schnell),
    .weights_size = sizeof(at_flux_weights),
    .latent = &at_latent_flux,
    .sampling = {.prediction = AT_PRED_CONST,
                 .kind = AT_SIGMA_DISCRETE_FLOW,
                 .shift = 1,
                 .multiplier = 1},
    .denoiser = &ops,
};
