// SPDX-License-Identifier: Apache-2.0
// vae_kl.c - the KL autoencoder of latent diffusion (SD, SDXL, SD3, Flux), both key layouts.
// Idea: Rombach et al. 2022 (arXiv:2112.10752): residual blocks per level, one attention in the
// middle; inside, pixels are [b, h, w, c]. Levels, blocks and widths are counted from the keys.
// Easy to get wrong:
//   - the decoder's `up.0` is the last level to run (full size); diffusers counts from the start
//   - the encoder pads its stride-2 convolutions by one zero column right and one zero row below
//   - group norm: 32 groups, epsilon 1e-6; the middle attention has one head, as wide as the level
//   - the encoder gives mean and log variance; the latent is the mean
//   - post_quant_conv / quant_conv exist in SD's files and not in Flux's
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>

#include "models/arch.h"

enum { MAX_LEVELS = 8, MAX_BLOCKS = 8, GROUPS = 32, FEW_CHANNELS = 32 };
static const float norm_eps = 1e-6f;

typedef struct vae_config {
    int64_t z, top, base, levels, blocks, down_levels, down_blocks, encoder;
} vae_config;

// Widths of one convolution or norm, for its bind rows.
typedef struct io_size {
    int64_t in, out;
} io_size;

typedef struct vae_res {
    at_lin norm1, conv1, norm2, conv2, shortcut;
} vae_res;

typedef struct vae_mid {
    vae_res first, second;
    at_lin norm, q, k, v, out;
} vae_mid;

typedef struct vae_level {
    vae_res blocks[MAX_BLOCKS];
    at_lin resample; // upsample or downsample; w NULL at the last level
} vae_level;

typedef struct vae_half {
    at_lin conv_in, norm_out, conv_out, quant;
    vae_mid mid;
    vae_level level[MAX_LEVELS]; // in the order in which they run
} vae_half;

typedef struct vae_weights {
    vae_half decoder, encoder;
} vae_weights;

// --- keys of the two layouts -------------------------------------------------------------------
typedef struct vae_layout {
    const char *up_res, *up_sample, *down_res, *down_sample; // %d level (and %d block)
    bool up_reversed;                                        // up.0 runs last
    const char *mid1, *mid2, *attn, *norm, *q, *k, *v, *out, *norm_out, *shortcut;
} vae_layout;

static const vae_layout original = {
    .up_res = "decoder.up.%d.block.%d.",
    .up_sample = "decoder.up.%d.upsample.conv.",
    .down_res = "encoder.down.%d.block.%d.",
    .down_sample = "encoder.down.%d.downsample.conv.",
    .up_reversed = true,
    .mid1 = "mid.block_1.",
    .mid2 = "mid.block_2.",
    .attn = "mid.attn_1.",
    .norm = "norm.",
    .q = "q.",
    .k = "k.",
    .v = "v.",
    .out = "proj_out.",
    .norm_out = "norm_out.",
    .shortcut = "nin_shortcut.",
};

static const vae_layout diffusers = {
    .up_res = "decoder.up_blocks.%d.resnets.%d.",
    .up_sample = "decoder.up_blocks.%d.upsamplers.0.conv.",
    .down_res = "encoder.down_blocks.%d.resnets.%d.",
    .down_sample = "encoder.down_blocks.%d.downsamplers.0.conv.",
    .mid1 = "mid_block.resnets.0.",
    .mid2 = "mid_block.resnets.1.",
    .attn = "mid_block.attentions.0.",
    .norm = "group_norm.",
    .q = "to_q.",
    .k = "to_k.",
    .v = "to_v.",
    .out = "to_out.0.",
    .norm_out = "conv_norm_out.",
    .shortcut = "conv_shortcut.",
};

// --- binding -----------------------------------------------------------------------------------
#define IN  AT_FIELD(io_size, in)
#define OUT AT_FIELD(io_size, out)
static const at_bind_row rows_conv[] = {
    {.key = "weight", .offset = offsetof(at_lin, w), .rank = 4, .dim = {OUT, IN}},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = {OUT}},
};
static const at_bind_row rows_norm[] = {
    {.key = "weight", .offset = offsetof(at_lin, w), .rank = 1, .dim = {OUT}},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = {OUT}},
};
// The attention's 1x1 layers are convolutions in one layout and matrices in the other.
static const at_bind_row rows_point[] = {
    {.key = "weight", .offset = offsetof(at_lin, w)},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = {OUT}},
};

static void bind_pair(at_binder *b, const at_bind_row *rows, const char *base, const char *name,
                      int64_t in, int64_t out, at_lin *l)
{
    char key[160];
    io_size size = {in, out};
    snprintf(key, sizeof key, "%s%s", base, name);
    at_bind_rows(b, key, rows, 2, &size, l);
}

static void bind_res(at_binder *b, const vae_layout *k, const char *base, int64_t in, int64_t out,
                     vae_res *r)
{
    bind_pair(b, rows_norm, base, "norm1.", in, in, &r->norm1);
    bind_pair(b, rows_conv, base, "conv1.", in, out, &r->conv1);
    bind_pair(b, rows_norm, base, "norm2.", out, out, &r->norm2);
    bind_pair(b, rows_conv, base, "conv2.", out, out, &r->conv2);
    if (in != out) bind_pair(b, rows_conv, base, k->shortcut, in, out, &r->shortcut);
}

static void bind_mid(at_binder *b, const vae_layout *k, const char *half, int64_t c, vae_mid *m)
{
    char base[160];
    snprintf(base, sizeof base, "%s%s", half, k->mid1);
    bind_res(b, k, base, c, c, &m->first);
    snprintf(base, sizeof base, "%s%s", half, k->mid2);
    bind_res(b, k, base, c, c, &m->second);
    snprintf(base, sizeof base, "%s%s", half, k->attn);
    bind_pair(b, rows_norm, base, k->norm, c, c, &m->norm);
    bind_pair(b, rows_point, base, k->q, c, c, &m->q);
    bind_pair(b, rows_point, base, k->k, c, c, &m->k);
    bind_pair(b, rows_point, base, k->v, c, c, &m->v);
    bind_pair(b, rows_point, base, k->out, c, c, &m->out);
}

// Width of a level: what its first block's first convolution gives. 0 if that tensor is missing.
static int64_t level_width(at_binder *b, const char *res_key, int level)
{
    char key[160];
    snprintf(key, sizeof key, res_key, level, 0);
    const at_weight *w = at_store_findf(b->store, "%s%sconv1.weight", b->prefix, key);
    return w && w->rank == 4 ? w->shape[0] : 0;
}

// The levels of one half, in running order; returns the width after the last.
static int64_t bind_levels(at_binder *b, const vae_layout *k, bool up, int levels, int blocks,
                           int64_t width, vae_half *half)
{
    char base[160];
    const char *res = up ? k->up_res : k->down_res, *sample = up ? k->up_sample : k->down_sample;
    for (int i = 0; i < levels; i++) {
        int at = up && k->up_reversed ? levels - 1 - i : i;
        int64_t out = level_width(b, res, at);
        for (int j = 0; j < blocks; j++) {
            snprintf(base, sizeof base, res, at, j);
            bind_res(b, k, base, width, out, &half->level[i].blocks[j]);
            width = out;
        }
        if (i == levels - 1) break;
        snprintf(base, sizeof base, sample, at);
        bind_pair(b, rows_conv, base, "", out, out, &half->level[i].resample);
    }
    return width;
}

static void bind_quant(at_binder *b, const char *key, int64_t size, at_lin *l)
{
    if (at_store_findf(b->store, "%s%sweight", b->prefix, key))
        bind_pair(b, rows_conv, key, "", size, size, l);
}

static void bind_all(at_binder *b, const vae_layout *k, const vae_config *c, vae_weights *w)
{
    vae_half *d = &w->decoder, *e = &w->encoder;

    bind_quant(b, "post_quant_conv.", c->z, &d->quant);
    bind_pair(b, rows_conv, "decoder.", "conv_in.", c->z, c->top, &d->conv_in);
    bind_mid(b, k, "decoder.", c->top, &d->mid);
    int64_t width = bind_levels(b, k, true, (int)c->levels, (int)c->blocks, c->top, d);
    bind_pair(b, rows_norm, "decoder.", k->norm_out, width, width, &d->norm_out);
    bind_pair(b, rows_conv, "decoder.", "conv_out.", width, 3, &d->conv_out);
    if (!c->encoder) return;

    const at_weight *in = at_store_findf(b->store, "%sencoder.conv_in.weight", b->prefix);
    width = in && in->rank == 4 ? in->shape[0] : 0;
    bind_pair(b, rows_conv, "encoder.", "conv_in.", 3, width, &e->conv_in);
    width = bind_levels(b, k, false, (int)c->down_levels, (int)c->down_blocks, width, e);
    bind_mid(b, k, "encoder.", width, &e->mid);
    bind_pair(b, rows_norm, "encoder.", k->norm_out, width, width, &e->norm_out);
    bind_pair(b, rows_conv, "encoder.", "conv_out.", width, 2 * c->z, &e->conv_out);
    bind_quant(b, "quant_conv.", 2 * c->z, &e->quant);
}

static void bind_original(at_binder *b, const void *config, void *weights)
{
    bind_all(b, &original, config, weights);
}

static void bind_diffusers(at_binder *b, const void *config, void *weights)
{
    bind_all(b, &diffusers, config, weights);
}

static const char *derive(void *config)
{
    vae_config *c = config;
    if (c->levels < 1 || c->levels > MAX_LEVELS) return "it has no levels, or more than 8";
    if (c->blocks < 1 || c->blocks > MAX_BLOCKS) return "a level has no blocks, or more than 8";
    if (c->encoder &&
        (c->down_levels != c->levels || c->down_blocks > MAX_BLOCKS || !c->down_blocks))
        return "encoder and decoder differ in their levels";
    if (c->top % GROUPS || c->base % GROUPS) return "a level's width is no multiple of 32";
    return NULL;
}

// --- forward -----------------------------------------------------------------------------------
// The feature map between steps stays f32 on a CPU also when layers compute in bf16: what a residual adds
// would otherwise be rounded at each of some thirty additions. A GPU is bound by its bytes there and
// keeps it in the compute type, as ComfyUI does. Inside a step the compute type rules.
static at_dtype stream(at_ops *o)
{
    return at_ops_device(o)->host ? AT_F32 : at_ops_compute(o);
}

static at_tensor *conv(at_ops *o, const at_tensor *x, at_lin l, const at_conv_spec *spec,
                       bool to_stream)
{
    int64_t shape[4];
    if (!at_conv2d_shape(o, x, l.w, spec, shape)) return NULL;
    // Pixels, latents and moments have few channels: exact, and no work worth saving.
    at_tensor *in = x->shape[3] <= FEW_CHANNELS ? (at_tensor *)x : at_cast(o, x, at_ops_compute(o));
    // ... and what is no more than pixels or moments stays f32.
    at_dtype type = l.w->shape[0] <= FEW_CHANNELS ? AT_F32 : stream(o);
    at_tensor *out = to_stream ? at_empty_rows(o, type, shape, x) : NULL;
    return at_conv2d(at_into(o, out), in, l.w, l.b, spec);
}

static at_conv_spec padded(int pad, const at_tensor *residual)
{
    return (at_conv_spec){
        .pad_top = pad, .pad_left = pad, .pad_bottom = pad, .pad_right = pad, .residual = residual};
}

static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin l, at_act act)
{
    if (!x) return NULL;
    at_tensor *out = at_empty_rows(o, at_ops_compute(o), x->shape, x);
    return at_group_norm(at_into(o, out), x, l.w, l.b, GROUPS, norm_eps, act);
}

static at_tensor *res_block(at_ops *o, const vae_res *r, const at_tensor *x)
{
    at_conv_spec point = padded(0, NULL), inner = padded(1, NULL);
    at_tensor *h = conv(o, norm(o, x, r->norm1, AT_ACT_SILU), r->conv1, &inner, true);
    at_conv_spec last =
        padded(1, r->shortcut.w ? conv(o, x, r->shortcut, &point, true) : (at_tensor *)x);
    return conv(o, norm(o, h, r->norm2, AT_ACT_SILU), r->conv2, &last, true);
}

// A 1x1 layer on [b, h, w, c]: a convolution or a matrix. With a residual it feeds the stream.
static at_tensor *point(at_ops *o, const at_tensor *x, at_lin l, const at_tensor *residual)
{
    at_conv_spec spec = padded(0, residual);
    if (!x || l.w->rank == 4) return conv(o, x, l, &spec, residual != NULL);
    int64_t c = x->shape[3], flat[] = {x->shape[0], x->shape[1] * x->shape[2], c};
    at_linear_extra extra = {.residual = residual ? at_reshape(o, residual, 3, flat) : NULL};
    at_tensor *in = at_reshape(o, x, 3, flat);
    at_tensor *out = residual ? at_empty(o, stream(o), 3, flat) : NULL;
    at_tensor *y = at_linear(at_into(o, out), in, l.w, l.b, &extra);
    return at_reshape(o, y, 4, x->shape);
}

static at_tensor *attention(at_ops *o, const vae_mid *m, const at_tensor *x)
{
    if (!x) return NULL;
    int64_t heads[] = {x->shape[0], x->shape[1] * x->shape[2], 1, x->shape[3]};
    at_tensor *h = norm(o, x, m->norm, AT_ACT_NONE);
    at_tensor *q = at_reshape(o, point(o, h, m->q, NULL), 4, heads);
    at_tensor *k = at_reshape(o, point(o, h, m->k, NULL), 4, heads);
    at_tensor *v = at_reshape(o, point(o, h, m->v, NULL), 4, heads);
    h = at_reshape(o, at_attention(o, q, k, v, NULL, 0, false), 4, x->shape);
    return point(o, h, m->out, x);
}

// One step in its own scope: takes the reference x, gives one back, so that only one feature map
// lives between steps.
typedef at_tensor *vae_step(at_ops *o, const void *w, const at_tensor *x);

static at_tensor *run(at_ops *o, vae_step *step, const void *w, at_tensor *x)
{
    at_scope_begin(o);
    at_tensor *y = at_ops_keep(o, step(o, w, x));
    at_scope_end(o, NULL);
    at_tensor_release(&x);
    return y;
}

static at_tensor *step_res(at_ops *o, const void *w, const at_tensor *x)
{
    return res_block(o, w, x);
}

static at_tensor *step_attention(at_ops *o, const void *w, const at_tensor *x)
{
    return attention(o, w, x);
}

static at_tensor *step_up(at_ops *o, const void *w, const at_tensor *x)
{
    at_conv_spec spec = padded(1, NULL);
    spec.upsample2x = true;
    return conv(o, x, *(const at_lin *)w, &spec, true);
}

static at_tensor *step_down(at_ops *o, const void *w, const at_tensor *x)
{
    at_conv_spec spec = {.stride = 2, .pad_bottom = 1, .pad_right = 1};
    return conv(o, x, *(const at_lin *)w, &spec, true);
}

// Norm, SiLU, conv_out (and quant_conv in the encoder).
static at_tensor *step_out(at_ops *o, const void *w, const at_tensor *x)
{
    const vae_half *h = w;
    at_conv_spec spec = padded(1, NULL);
    return conv(o, norm(o, x, h->norm_out, AT_ACT_SILU), h->conv_out, &spec, true);
}

static at_tensor *run_mid(at_ops *o, const vae_mid *m, at_tensor *x)
{
    x = run(o, step_res, &m->first, x);
    x = run(o, step_attention, m, x);
    return run(o, step_res, &m->second, x);
}

static at_tensor *run_levels(at_ops *o, const vae_half *half, int levels, int blocks,
                             vae_step *sample, at_tensor *x)
{
    for (int i = 0; i < levels; i++) {
        for (int j = 0; j < blocks; j++)
            x = run(o, step_res, &half->level[i].blocks[j], x);
        if (i < levels - 1) x = run(o, sample, &half->level[i].resample, x);
    }
    return x;
}

static at_tensor *to_nhwc(at_ops *o, const at_tensor *x)
{
    return at_contiguous(o, at_permute(o, x, (int[]){0, 2, 3, 1}));
}

static at_tensor *to_nchw(at_ops *o, const at_tensor *x)
{
    return at_cast(o, at_contiguous(o, at_permute(o, x, (int[]){0, 3, 1, 2})), AT_F32);
}

static at_tensor *decode(at_ops *o, const at_bound *v, const at_tensor *z)
{
    const vae_config *c = v->config;
    const vae_weights *w = v->weights;
    const vae_half *d = &w->decoder;

    if (z && (z->rank != 4 || z->shape[1] != c->z))
        return at_ops_poison(o, AT_EINVAL, "%s: takes latents [b, %lld, h, w], not %lld channels",
                             v->arch->title, (long long)c->z, (long long)z->shape[1]);
    at_scope_begin(o);
    at_conv_spec point_spec = padded(0, NULL), spec = padded(1, NULL);
    at_tensor *x = at_split_rows(o, to_nhwc(o, z));
    if (d->quant.w) x = conv(o, x, d->quant, &point_spec, true);
    x = at_ops_keep(o, conv(o, x, d->conv_in, &spec, true));
    x = run_mid(o, &d->mid, x);
    x = run_levels(o, d, (int)c->levels, (int)c->blocks, step_up, x);
    x = run(o, step_out, d, x);
    at_tensor *out = to_nchw(o, at_gather_rows(o, x));
    at_tensor_release(&x);
    return at_scope_end(o, out);
}

static at_tensor *encode(at_ops *o, const at_bound *v, const at_tensor *x)
{
    const vae_config *c = v->config;
    const vae_weights *w = v->weights;
    const vae_half *e = &w->encoder;

    if (!c->encoder)
        return at_ops_poison(o, AT_EINVAL, "%s: this VAE has a decoder only",
                             at_store_path(v->store));
    at_scope_begin(o);
    at_conv_spec point_spec = padded(0, NULL), spec = padded(1, NULL);
    at_tensor *h = at_split_rows(o, to_nhwc(o, x));
    h = at_ops_keep(o, conv(o, h, e->conv_in, &spec, true));
    h = run_levels(o, e, (int)c->down_levels, (int)c->down_blocks, step_down, h);
    h = run_mid(o, &e->mid, h);
    h = run(o, step_out, e, h);
    at_tensor *moments = e->quant.w ? conv(o, h, e->quant, &point_spec, true) : h;
    moments = at_gather_rows(o, moments);
    at_tensor *out = to_nchw(o, at_narrow(o, moments, 3, 0, c->z));
    at_tensor_release(&h);
    return at_scope_end(o, out);
}

static int channels(const void *config)
{
    return (int)((const vae_config *)config)->z;
}

static int downscale(const void *config)
{
    return 1 << (((const vae_config *)config)->levels - 1);
}

// --- descriptors -------------------------------------------------------------------------------
static const at_vae_ops ops = {
    .decode = decode, .encode = encode, .channels = channels, .downscale = downscale};

#define SIZE(field_, how_, key_, dim_)                                                             \
    {                                                                                              \
        .name = #field_, .offset = offsetof(vae_config, field_), .how = how_, .key = key_,         \
        .dim = dim_                                                                                \
    }
#define SIZES(up, up_block, down, down_block)                                                      \
    SIZE(z, AT_SIZE_DIM, "decoder.conv_in.weight", 1),                                             \
        SIZE(top, AT_SIZE_DIM, "decoder.conv_in.weight", 0),                                       \
        SIZE(base, AT_SIZE_DIM, "decoder.conv_out.weight", 1), SIZE(levels, AT_SIZE_COUNT, up, 0), \
        SIZE(blocks, AT_SIZE_COUNT, up_block, 0), SIZE(down_levels, AT_SIZE_COUNT, down, 0),       \
        SIZE(down_blocks, AT_SIZE_COUNT, down_block, 0),                                           \
        SIZE(encoder, AT_SIZE_HAS, "encoder.conv_in.weight", 0)

static const at_size_row sizes_original[] = {
    SIZES("decoder.up.%d.block.0.conv1.weight", "decoder.up.0.block.%d.conv1.weight",
          "encoder.down.%d.block.0.conv1.weight", "encoder.down.0.block.%d.conv1.weight")};
static const at_size_row sizes_diffusers[] = {SIZES(
    "decoder.up_blocks.%d.resnets.0.conv1.weight", "decoder.up_blocks.0.resnets.%d.conv1.weight",
    "encoder.down_blocks.%d.resnets.0.conv1.weight",
    "encoder.down_blocks.0.resnets.%d.conv1.weight")};

static const at_probe probes_original[] = {
    {.key = "decoder.conv_in.weight"},
    {.key = "decoder.mid.block_1.conv1.weight"},
    {.key = "decoder.up.0.block.0.conv1.weight"},
    {.key = "decoder.mid.block_1.mix_factor", .absent = true}, // SVD's temporal decoder
};
static const at_probe probes_diffusers[] = {
    {.key = "decoder.conv_in.weight"},
    {.key = "decoder.mid_block.resnets.0.conv1.weight"},
    {.key = "decoder.up_blocks.0.resnets.0.conv1.weight"},
};

#define VAE(name_, title_, layout)                                                                 \
    {                                                                                              \
        .name = name_, .title = title_, .part = AT_PART_VAE, .probes = probes_##layout,            \
        .n_probes = AT_LEN(probes_##layout), .sizes = sizes_##layout,                              \
        .n_sizes = AT_LEN(sizes_##layout), .config_size = sizeof(vae_config), .derive = derive,    \
        .weights_size = sizeof(vae_weights), .bind = bind_##layout, .vae = &ops                    \
    }

const at_arch at_arch_kl_vae = VAE("kl_vae", "KL autoencoder", original);
const at_arch at_arch_kl_vae_diffusers =
    VAE("kl_vae_diffusers", "KL autoencoder (diffusers keys)", diffusers);
