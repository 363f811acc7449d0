// SPDX-License-Identifier: Apache-2.0
// srvgg.c - Real-ESRGAN's compact network (SRVGGNetCompact: realesr-general, animevideo and many others).
// Source: Wang et al. 2021, arXiv:2107.10833, and the keys of its published files.
// Idea: a row of 3 x 3 convolutions with a rectifier of its own slope for each channel; the last one gives
// squares of pixels, which the enlarged input is added to (upscaler.c).
// Easy to get wrong: convolutions and slopes share one numbering, so body.2k is a convolution and body.2k+1
// its slopes.
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>

#include "models/arch.h"
#include "models/upscaler.h"

enum { MAX_CONVS = 130 };

typedef struct vgg_config {
    int64_t in, width, convs, last, scale; // convs: with slopes behind them
} vgg_config;

typedef struct vgg_weights {
    at_lin conv[MAX_CONVS + 1];
    const at_weight *slope[MAX_CONVS];
} vgg_weights;

static bool match(at_store *s, const char *prefix)
{
    const at_weight *conv = at_store_findf(s, "%sbody.0.weight", prefix);
    const at_weight *slope = at_store_findf(s, "%sbody.1.weight", prefix);
    return conv->rank == 4 && slope->rank == 1;
}

static const char *measure(at_store *s, const char *prefix, void *config)
{
    vgg_config *c = config;
    const at_weight *first = at_store_findf(s, "%sbody.0.weight", prefix), *last;

    while (c->convs <= MAX_CONVS &&
           at_store_findf(s, "%sbody.%d.weight", prefix, 2 * (int)c->convs + 1))
        c->convs++;
    last = at_store_findf(s, "%sbody.%d.weight", prefix, 2 * (int)c->convs);
    if (!first || !last || first->rank != 4 || last->rank != 4)
        return "its first or last convolution is missing";
    c->in = first->shape[1], c->width = first->shape[0], c->last = last->shape[0];
    return NULL;
}

static const char *derive(void *config)
{
    vgg_config *c = config;
    if (c->convs > MAX_CONVS) return "it has more than 130 convolutions";
    if (c->in < 1 || c->in > 16 || c->width > 4096 || c->last > 4096) return "it is too wide";
    for (c->scale = 1; c->scale <= 16; c->scale++)
        if (c->scale * c->scale * c->in == c->last) return NULL;
    return "its last convolution gives no squares of pixels";
}

// --- binding -----------------------------------------------------------------------------------
typedef struct io_size {
    int64_t in, out;
} io_size;
#define OUT AT_FIELD(io_size, out)
static const at_bind_row rows_conv[] = {
    {.key = "weight",
     .offset = offsetof(at_lin, w),
     .rank = 4,
     .dim = {OUT, AT_FIELD(io_size, in)}},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = {OUT}},
};
static const at_bind_row row_slope = {.key = "weight", .rank = 1, .dim = {OUT}};

static void bind(at_binder *b, const void *config, void *weights)
{
    const vgg_config *c = config;
    vgg_weights *w = weights;
    char base[32];
    for (int i = 0; i <= (int)c->convs; i++) {
        io_size size = {i ? c->width : c->in, i < c->convs ? c->width : c->last};
        snprintf(base, sizeof base, "body.%d.", 2 * i);
        at_bind_rows(b, base, rows_conv, AT_LEN(rows_conv), &size, &w->conv[i]);
        if (i == c->convs) break;
        snprintf(base, sizeof base, "body.%d.", 2 * i + 1);
        w->slope[i] = at_bind_one(b, base, &row_slope, &size);
    }
}

// --- forward -----------------------------------------------------------------------------------
// x above 0, slope * x below: (1 - slope) * relu(x) + slope * x with the slope of each channel.
static at_tensor *rectify(at_ops *o, const at_tensor *x, const at_weight *slope)
{
    at_tensor *a = at_weight_tensor(o, slope, at_ops_compute(o));
    at_tensor *up = at_binary(o, AT_MUL, x, at_affine(o, a, -1, 1), AT_ACT_RELU);
    return at_add(o, up, at_mul(o, x, a));
}

static at_tensor *forward(at_ops *o, const at_bound *bound, const at_tensor *x)
{
    const vgg_config *c = bound->config;
    const vgg_weights *w = bound->weights;
    at_conv_spec spec = {.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    at_tensor *h = at_ops_keep(o, (at_tensor *)x);

    for (int64_t i = 0; i < c->convs; i++) {
        at_scope_begin(o);
        at_tensor *y = at_conv2d(o, h, w->conv[i].w, w->conv[i].b, &spec);
        y = at_ops_keep(o, rectify(o, y, w->slope[i]));
        at_scope_end(o, NULL);
        at_tensor_release(&h);
        h = y;
    }
    at_tensor *out = at_conv2d(o, h, w->conv[c->convs].w, w->conv[c->convs].b, &spec);
    at_tensor_release(&h);
    return out;
}

static void facts(const void *config, at_upscaler_facts *out)
{
    const vgg_config *c = config;
    *out = (at_upscaler_facts){.channels = (int)c->in,
                               .scale = (int)c->scale,
                               .stack = 1,
                               .unstack = (int)c->scale,
                               .add = true};
}

#define SIZE(field)                                                                                \
    {                                                                                              \
        .name = #field, .offset = offsetof(vgg_config, field), .how = AT_SIZE_MEASURED             \
    }
static const at_size_row sizes[] = {SIZE(in), SIZE(width), SIZE(convs), SIZE(last)};
static const at_probe probes[] = {{.key = "body.0.weight"},
                                  {.key = "body.1.weight"},
                                  {.key = "conv_first.weight", .absent = true}};
static const at_upscaler_ops ops = {.forward = forward, .facts = facts};
const at_arch at_arch_srvgg = {.name = "srvgg",
                               .title = "Real-ESRGAN, compact",
                               .part = AT_PART_UPSCALER,
                               .probes = probes,
                               .n_probes = AT_LEN(probes),
                               .match = match,
                               .sizes = sizes,
                               .n_sizes = AT_LEN(sizes),
                               .config_size = sizeof(vgg_config),
                               .measure = measure,
                               .derive = derive,
                               .weights_size = sizeof(vgg_weights),
                               .bind = bind,
                               .upscaler = &ops};
