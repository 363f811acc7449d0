// SPDX-License-Identifier: Apache-2.0
// taesd.c - the tiny autoencoders of Ollin Boer Bohan (taesd, taesdxl, taesd3, taef1): small enough for
// previews, good enough for drafts. Source: github.com/madebyollin/taesd; names as ComfyUI 0.3.64 puts
// the encoder's and the decoder's file together ("taesd_encoder.", "taesd_decoder.").
// Idea: both halves are one list of numbered steps, a convolution or a block of three; the number of a
// step in the file is its place in the list, activations and upsampling included.
// Easy to get wrong:
//   - it works on what a sampler sees, so (latent - vae_shift) * vae_scale before the decoder and the
//     way back after the encoder; 3 tanh(x / 3) tames what comes in
//   - pixels are 0..1 inside; strided and upsampled convolutions have no bias
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>

#include "models/arch.h"

enum { STEPS = 20 };

typedef struct tiny_config {
    int64_t z, width, encoder;
} tiny_config;

typedef struct tiny_step {
    at_lin conv[3];
} tiny_step;

typedef struct tiny_weights {
    tiny_step decoder[STEPS], encoder[STEPS];
    const at_weight *scale, *shift;
} tiny_weights;

typedef enum step_kind {
    END,
    SKIP,   // a step without weights that the one before or behind has in itself
    FIRST,  // convolution from z or pixels; relu in the decoder
    BLOCK,  // three convolutions beside the input, then relu
    HALVE,  // stride 2
    DOUBLE, // upsampled before
    LAST    // convolution to pixels or z
} step_kind;

static const step_kind decoder_steps[STEPS] = {SKIP,   FIRST, SKIP,  BLOCK,  BLOCK, BLOCK,  SKIP,
                                               DOUBLE, BLOCK, BLOCK, BLOCK,  SKIP,  DOUBLE, BLOCK,
                                               BLOCK,  BLOCK, SKIP,  DOUBLE, BLOCK, LAST};
static const step_kind encoder_steps[STEPS] = {FIRST, BLOCK, HALVE, BLOCK, BLOCK,
                                               BLOCK, HALVE, BLOCK, BLOCK, BLOCK,
                                               HALVE, BLOCK, BLOCK, BLOCK, LAST};

// --- binding -----------------------------------------------------------------------------------
typedef struct io_size {
    int64_t in, out;
} io_size;
#define IN  AT_FIELD(io_size, in)
#define OUT AT_FIELD(io_size, out)
static const at_bind_row rows_conv[] = {
    {.key = "weight", .offset = offsetof(at_lin, w), .rank = 4, .dim = {OUT, IN}},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = {OUT}},
};

static void bind_conv(at_binder *b, const char *base, int64_t in, int64_t out, bool bias, at_lin *l)
{
    io_size size = {in, out};
    at_bind_rows(b, base, rows_conv, bias ? 2 : 1, &size, l);
}

static void bind_block(at_binder *b, const char *base, int64_t c, tiny_step *s)
{
    char key[96];
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%sconv.%d.", base, 2 * i);
        bind_conv(b, key, c, c, true, &s->conv[i]);
    }
}

static void bind_half(at_binder *b, const char *half, const step_kind *kinds, int64_t width,
                      int64_t first, int64_t last, tiny_step *steps)
{
    char base[64];
    for (int i = 0; i < STEPS && kinds[i] != END; i++) {
        snprintf(base, sizeof base, "%s.%d.", half, i);
        switch (kinds[i]) {
        case FIRST: bind_conv(b, base, first, width, true, &steps[i].conv[0]); break;
        case LAST: bind_conv(b, base, width, last, true, &steps[i].conv[0]); break;
        case HALVE:
        case DOUBLE: bind_conv(b, base, width, width, false, &steps[i].conv[0]); break;
        case BLOCK: bind_block(b, base, width, &steps[i]); break;
        case SKIP:
        case END: break;
        }
    }
}

static const at_bind_row rows_numbers[] = {
    {.key = "vae_scale", .offset = offsetof(tiny_weights, scale), .optional = true},
    {.key = "vae_shift", .offset = offsetof(tiny_weights, shift), .optional = true},
};

static void bind(at_binder *b, const void *config, void *weights)
{
    const tiny_config *c = config;
    tiny_weights *w = weights;
    bind_half(b, "taesd_decoder", decoder_steps, c->width, c->z, 3, w->decoder);
    if (c->encoder) bind_half(b, "taesd_encoder", encoder_steps, c->width, 3, c->z, w->encoder);
    at_bind_rows(b, "", rows_numbers, AT_LEN(rows_numbers), c, w);
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *conv(at_ops *o, const at_tensor *x, at_lin l, int stride, bool upsample,
                       at_act act, const at_tensor *residual)
{
    at_conv_spec spec = {.stride = stride,
                         .pad_top = 1,
                         .pad_left = 1,
                         .pad_bottom = 1,
                         .pad_right = 1,
                         .upsample2x = upsample,
                         .act = act,
                         .residual = residual};
    return at_conv2d(o, x, l.w, l.b, &spec);
}

static at_tensor *step(at_ops *o, step_kind kind, const tiny_step *w, bool decoder,
                       const at_tensor *x)
{
    at_act first = decoder ? AT_ACT_RELU : AT_ACT_NONE;
    at_tensor *h;
    switch (kind) {
    case FIRST: return conv(o, x, w->conv[0], 1, false, first, NULL);
    case LAST: return conv(o, x, w->conv[0], 1, false, AT_ACT_NONE, NULL);
    case HALVE: return conv(o, x, w->conv[0], 2, false, AT_ACT_NONE, NULL);
    case DOUBLE: return conv(o, x, w->conv[0], 1, true, AT_ACT_NONE, NULL);
    case BLOCK:
        h = conv(o, x, w->conv[0], 1, false, AT_ACT_RELU, NULL);
        h = conv(o, h, w->conv[1], 1, false, AT_ACT_RELU, NULL);
        h = conv(o, h, w->conv[2], 1, false, AT_ACT_NONE, x);
        return at_unary(at_into(o, h), h, AT_ACT_RELU);
    case SKIP:
    case END: break;
    }
    return (at_tensor *)x;
}

// Takes the reference x and gives one back: one feature map lives between steps.
static at_tensor *run(at_ops *o, const step_kind *kinds, const tiny_step *w, bool decoder,
                      at_tensor *x)
{
    for (int i = 0; i < STEPS && kinds[i] != END; i++) {
        if (kinds[i] == SKIP) continue;
        at_scope_begin(o);
        at_tensor *y = at_ops_keep(o, step(o, kinds[i], &w[i], decoder, x));
        at_scope_end(o, NULL);
        at_tensor_release(&x);
        x = y;
    }
    return x;
}

static at_tensor *to_nhwc(at_ops *o, const at_tensor *x)
{
    return at_cast(o, at_contiguous(o, at_permute(o, x, (int[]){0, 2, 3, 1})), at_ops_compute(o));
}

static at_tensor *to_nchw(at_ops *o, const at_tensor *x)
{
    return at_cast(o, at_contiguous(o, at_permute(o, x, (int[]){0, 3, 1, 2})), AT_F32);
}

// vae_scale or vae_shift; a scalar of the file.
static float number(at_ops *o, const at_weight *w, float otherwise)
{
    float v;
    if (!w || at_weight_elements(w) != 1) return otherwise;
    if (at_weight_ready(w) != AT_OK) {
        at_ops_poison(o, AT_EIO, "%s: %s", w->name, at_error_text());
        return otherwise;
    }
    at_weight_read_f32(w, 0, 1, &v);
    return v;
}

static at_tensor *decode(at_ops *o, const at_bound *v, const at_tensor *z)
{
    const tiny_weights *w = v->weights;
    float scale = number(o, w->scale, 1), shift = number(o, w->shift, 0);

    at_scope_begin(o);
    at_tensor *x = at_affine(o, z, scale / 3, -shift * scale / 3);
    x = at_affine(o, at_unary(o, x, AT_ACT_TANH), 3, 0);
    x = at_ops_keep(o, to_nhwc(o, x));
    x = run(o, decoder_steps, w->decoder, true, x);
    at_tensor *out = at_affine(o, to_nchw(o, x), 2, -1);
    at_tensor_release(&x);
    return at_scope_end(o, out);
}

static at_tensor *encode(at_ops *o, const at_bound *v, const at_tensor *x)
{
    const tiny_config *c = v->config;
    const tiny_weights *w = v->weights;
    float scale = number(o, w->scale, 1), shift = number(o, w->shift, 0);

    if (!c->encoder || scale == 0)
        return at_ops_poison(o, AT_EINVAL, "%s: this VAE has a decoder only",
                             at_store_path(v->store));
    at_scope_begin(o);
    at_tensor *h = at_ops_keep(o, to_nhwc(o, at_affine(o, x, 0.5f, 0.5f)));
    h = run(o, encoder_steps, w->encoder, false, h);
    at_tensor *out = at_affine(o, to_nchw(o, h), 1 / scale, shift);
    at_tensor_release(&h);
    return at_scope_end(o, out);
}

static int channels(const void *config)
{
    return (int)((const tiny_config *)config)->z;
}

static int downscale(const void *config)
{
    (void)config;
    return 8;
}

static const char *derive(void *config)
{
    const tiny_config *c = config;
    return c->z > 4096 || c->width > 4096 ? "it is too wide" : NULL;
}

// --- descriptor --------------------------------------------------------------------------------
static const at_size_row sizes[] = {
    {.name = "z",
     .offset = offsetof(tiny_config, z),
     .how = AT_SIZE_DIM,
     .key = "taesd_decoder.1.weight",
     .dim = 1},
    {.name = "width",
     .offset = offsetof(tiny_config, width),
     .how = AT_SIZE_DIM,
     .key = "taesd_decoder.1.weight",
     .dim = 0},
    {.name = "encoder",
     .offset = offsetof(tiny_config, encoder),
     .how = AT_SIZE_HAS,
     .key = "taesd_encoder.0.weight"},
};
static const at_probe probes[] = {{.key = "taesd_decoder.1.weight"},
                                  {.key = "taesd_decoder.3.conv.0.weight"}};
static const at_vae_ops ops = {
    .decode = decode, .encode = encode, .channels = channels, .downscale = downscale};

const at_arch at_arch_taesd = {.name = "taesd",
                               .title = "Tiny autoencoder",
                               .part = AT_PART_VAE,
                               .probes = probes,
                               .n_probes = AT_LEN(probes),
                               .sizes = sizes,
                               .n_sizes = AT_LEN(sizes),
                               .config_size = sizeof(tiny_config),
                               .derive = derive,
                               .weights_size = sizeof(tiny_weights),
                               .bind = bind,
                               .vae = &ops};
