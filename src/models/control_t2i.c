// SPDX-License-Identifier: Apache-2.0
// control_t2i.c - T2I adapters (Mou et al. 2023, arXiv:2302.08453): full, light, and SDXL's.
// Idea: the hint's pixels are folded into channels and pass four levels of residual blocks; what
// each level gives is added to the UNet's input blocks at that width and scale. It does not look at
// the latent, the text or the step, so it runs once.
// Easy to get wrong:
//   - pooling counts the border's zeros: an odd side gets one row of them and is still divided by 4
//   - SDXL's adapter folds 16x16 pixels, halves once, and its last level goes behind the middle
// Source: ComfyUI 0.3.64 comfy/t2i_adapter/adapter.py, comfy/controlnet.py (load_t2i_adapter).
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>
#include <string.h>

#include "models/convert.h"

enum { LEVELS = 4, FULL_BLOCKS = 2, LIGHT_BLOCKS = 4 };

typedef struct t2i_config {
    int64_t in;         // folded channels of the hint
    int64_t fold;       // pixels of a side that become one
    int64_t xl;         // SDXL's places
    int64_t light;      // the small form
    int64_t down_convs; // levels halve by a convolution, not by pooling
} t2i_config;

typedef struct t2i_block {
    at_lin first, conv1, conv2, down; // first.w NULL: the widths agree; down: see down_convs
} t2i_block;

typedef struct t2i_level {
    t2i_block blocks[LIGHT_BLOCKS];
    at_lin in, out; // light: around the blocks
} t2i_level;

typedef struct t2i_weights {
    at_lin in;
    t2i_level levels[LEVELS];
} t2i_weights;

// --- shape and weights -------------------------------------------------------------------------
static const char *measure(at_store *s, const char *prefix, void *config)
{
    t2i_config *c = config;
    const at_weight *light = at_store_findf(s, "%sbody.0.in_conv.weight", prefix);
    const at_weight *in = light ? light : at_store_findf(s, "%sconv_in.weight", prefix);

    if (!in || in->rank != 4) return "there is no first convolution";
    c->light = light != NULL;
    c->in = in->shape[1];
    c->xl = !light && (c->in == 256 || c->in == 768);
    c->fold = c->xl ? 16 : 8;
    if (c->in < 1 || c->in % (c->fold * c->fold)) return "the hint's channels do not fold";
    for (int i = 0; i < LEVELS * FULL_BLOCKS; i++)
        if (at_store_findf(s, "%sbody.%d.down_opt.op.weight", prefix, i)) c->down_convs = 1;
    return NULL;
}

static const at_bind_row rows_conv[] = {
    {.key = "weight", .offset = offsetof(at_lin, w), .rank = 4},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1},
};
static const at_bind_row rows_maybe[] = {
    {.key = "weight", .offset = offsetof(at_lin, w), .rank = 4, .optional = true},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .optional = true},
};

static void bind_conv(at_binder *b, const char *base, const char *name, bool optional, at_lin *l)
{
    char key[96];
    snprintf(key, sizeof key, "%s%s.", base, name);
    at_bind_rows(b, key, optional ? rows_maybe : rows_conv, 2, NULL, l);
}

static bool halves(const t2i_config *c, int level)
{
    return c->xl ? level == 2 : level > 0;
}

static void bind_full(at_binder *b, const t2i_config *c, t2i_weights *w)
{
    bind_conv(b, "", "conv_in", false, &w->in);
    for (int i = 0; i < LEVELS * FULL_BLOCKS; i++) {
        t2i_block *block = &w->levels[i / FULL_BLOCKS].blocks[i % FULL_BLOCKS];
        bool down = i % FULL_BLOCKS == 0 && halves(c, i / FULL_BLOCKS);
        char base[32];
        snprintf(base, sizeof base, "body.%d.", i);
        bind_conv(b, base, "in_conv", true, &block->first);
        bind_conv(b, base, "block1", false, &block->conv1);
        bind_conv(b, base, "block2", false, &block->conv2);
        if (down && c->down_convs) bind_conv(b, base, "down_opt.op", false, &block->down);
    }
}

static void bind_light(at_binder *b, t2i_weights *w)
{
    for (int i = 0; i < LEVELS; i++) {
        t2i_level *l = &w->levels[i];
        char base[48];
        snprintf(base, sizeof base, "body.%d.", i);
        bind_conv(b, base, "in_conv", false, &l->in);
        bind_conv(b, base, "out_conv", false, &l->out);
        for (int k = 0; k < LIGHT_BLOCKS; k++) {
            snprintf(base, sizeof base, "body.%d.body.%d.", i, k);
            bind_conv(b, base, "block1", false, &l->blocks[k].conv1);
            bind_conv(b, base, "block2", false, &l->blocks[k].conv2);
        }
    }
}

static void bind(at_binder *b, const void *config, void *weights)
{
    const t2i_config *c = config;
    if (c->light)
        bind_light(b, weights);
    else
        bind_full(b, c, weights);
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *conv(at_ops *o, const at_tensor *x, at_lin l, int stride, at_act act,
                       const at_tensor *residual)
{
    if (!x || !l.w) return NULL;
    int pad = (int)l.w->shape[2] / 2;
    at_conv_spec spec = {.stride = stride,
                         .pad_top = pad,
                         .pad_left = pad,
                         .pad_bottom = pad,
                         .pad_right = pad,
                         .act = act,
                         .residual = residual};
    return at_conv2d(o, x, l.w, l.b, &spec);
}

// One row or column of zeros before an odd side; *x is [b, h, w, c].
static at_tensor *pad_even(at_ops *o, at_tensor *x)
{
    for (int dim = 1; x && dim <= 2; dim++) {
        int64_t shape[AT_MAX_RANK];
        if (x->shape[dim] % 2 == 0) continue;
        memcpy(shape, x->shape, sizeof shape);
        shape[dim] = 1;
        x = at_concat(o, dim, 2, (const at_tensor *[]){at_zeros(o, x->dtype, 4, shape), x});
    }
    return x;
}

// Mean of 2x2 pixels.
static at_tensor *pool(at_ops *o, at_tensor *x)
{
    x = pad_even(o, x);
    if (!x) return NULL;
    int64_t b = x->shape[0], h = x->shape[1] / 2, w = x->shape[2] / 2, c = x->shape[3];
    at_tensor *rows = at_reshape(o, x, 5, (int64_t[]){b * h, 2, w, 2, c}), *sum = NULL;
    for (int i = 0; i < 4; i++) {
        at_tensor *one = at_narrow(o, at_narrow(o, rows, 1, i / 2, 1), 3, i % 2, 1);
        sum = sum ? at_add(o, sum, one) : one;
    }
    return at_reshape(o, at_affine(o, sum, 0.25f, 0), 4, (int64_t[]){b, h, w, c});
}

static at_tensor *residual_block(at_ops *o, const t2i_block *w, at_tensor *x)
{
    if (w->first.w) x = conv(o, x, w->first, 1, AT_ACT_NONE, NULL);
    return conv(o, conv(o, x, w->conv1, 1, AT_ACT_RELU, NULL), w->conv2, 1, AT_ACT_NONE, x);
}

static at_tensor *level(at_ops *o, const t2i_config *c, const t2i_level *w, int i, at_tensor *x)
{
    int n = c->light ? LIGHT_BLOCKS : FULL_BLOCKS;
    if (halves(c, i))
        x = c->down_convs ? conv(o, x, w->blocks[0].down, 2, AT_ACT_NONE, NULL) : pool(o, x);
    if (c->light) x = conv(o, x, w->in, 1, AT_ACT_NONE, NULL);
    for (int k = 0; k < n; k++)
        x = residual_block(o, &w->blocks[k], x);
    return c->light ? conv(o, x, w->out, 1, AT_ACT_NONE, NULL) : x;
}

// [b, c, fold * h, fold * w] -> [b, h, w, c * fold * fold]
static at_tensor *fold(at_ops *o, const t2i_config *c, const at_tensor *hint)
{
    int64_t f = c->fold, b = hint->shape[0], ch = hint->shape[1];
    int64_t h = hint->shape[2] / f, w = hint->shape[3] / f;
    if (ch * f * f != c->in || hint->shape[2] % f || hint->shape[3] % f)
        return at_ops_poison(o, AT_EINVAL,
                             "a T2I adapter that folds %lldx%lld pixels of %lld channels cannot "
                             "take a hint [%lld, %lld, %lld, %lld]",
                             (long long)f, (long long)f, (long long)(c->in / (f * f)), (long long)b,
                             (long long)ch, (long long)hint->shape[2], (long long)hint->shape[3]);
    at_tensor *x = at_reshape(o, hint, 6, (int64_t[]){b, ch, h, f, w, f});
    x = at_permute(o, x, (int[]){0, 2, 4, 1, 3, 5});
    return at_cast(o, at_reshape(o, x, 4, (int64_t[]){b, h, w, c->in}), at_ops_compute(o));
}

static void forward(at_ops *o, const at_bound *m, const at_control_in *in, at_control *out)
{
    const t2i_config *c = m->config;
    const t2i_weights *w = m->weights;
    static const int xl_places[LEVELS - 1] = {3, 5, 8};

    at_tensor *x = fold(o, c, in->hint);
    if (!c->light) x = conv(o, x, w->in, 1, AT_ACT_NONE, NULL);
    for (int i = 0; i < LEVELS; i++) {
        x = level(o, c, &w->levels[i], i, x);
        if (!c->xl)
            out->input[3 * i + 2] = x;
        else if (i < LEVELS - 1)
            out->input[xl_places[i]] = x;
        else
            out->middle = x;
    }
}

static void facts(const at_bound *m, at_control_facts *f)
{
    const t2i_config *c = m->config;
    f->channels = (int)(c->in / (c->fold * c->fold));
    f->step = (int)c->fold;
    f->once = true;
}

// --- diffusers' names --------------------------------------------------------------------------
// "adapter.body.1.resnets.0.block1.weight" -> "body.2.block1.weight"
static size_t rename_one(const void *ctx, const at_weight *w, const char *name, at_alias_row *rows)
{
    static const char head[] = "adapter.";
    int i, k = 0, end = -1, n;
    (void)ctx;
    (void)w;
    if (strncmp(name, head, sizeof head - 1) != 0) return 0;
    name += sizeof head - 1;
    if (sscanf(name, "body.%d.resnets.%d.%n", &i, &k, &end) != 2 || end < 0) {
        k = 0;
        end = -1;
        if (sscanf(name, "body.%d.%n", &i, &end) != 1) end = -1;
    }
    if (end < 0)
        n = snprintf(rows->name, sizeof rows->name, "%s", name);
    else
        n = snprintf(rows->name, sizeof rows->name, "body.%d.%s", FULL_BLOCKS * i + k, name + end);
    return n > 0 && n < (int)sizeof rows->name;
}

static at_status convert(at_store *s, const char *prefix, at_store **out)
{
    return at_convert_names(s, prefix, rename_one, NULL, out);
}

// --- descriptors -------------------------------------------------------------------------------
static const at_control_ops ops = {.forward = forward, .facts = facts};
#define MEASURED(name_, field_)                                                                    \
    {                                                                                              \
        .name = name_, .offset = offsetof(t2i_config, field_), .how = AT_SIZE_MEASURED             \
    }
static const at_size_row sizes[] = {MEASURED("channels", in), MEASURED("fold", fold)};
static const at_probe probes_t2i_light[] = {{.key = "body.0.in_conv.weight"},
                                            {.key = "body.3.out_conv.weight"}};
static const at_probe probes_t2i[] = {
    {.key = "conv_in.weight"}, {.key = "body.0.block2.weight"}, {.key = "body.7.block1.weight"}};
static const at_probe probes_diffusers[] = {{.key = "adapter.body.0.resnets.0.block1.weight"},
                                            {.key = "adapter.conv_in.weight"}};

#define ROW(id, title_)                                                                            \
    const at_arch at_arch_##id = {.name = #id,                                                     \
                                  .title = title_,                                                 \
                                  .part = AT_PART_CONTROL,                                         \
                                  .probes = probes_##id,                                           \
                                  .n_probes = AT_LEN(probes_##id),                                 \
                                  .sizes = sizes,                                                  \
                                  .n_sizes = AT_LEN(sizes),                                        \
                                  .config_size = sizeof(t2i_config),                               \
                                  .measure = measure,                                              \
                                  .weights_size = sizeof(t2i_weights),                             \
                                  .bind = bind,                                                    \
                                  .control = &ops}
ROW(t2i_light, "T2I adapter, light");
ROW(t2i, "T2I adapter");
const at_arch at_arch_t2i_diffusers = {.name = "t2i_diffusers",
                                       .title = "T2I adapter in diffusers' layout",
                                       .part = AT_PART_CONTROL,
                                       .probes = probes_diffusers,
                                       .n_probes = AT_LEN(probes_diffusers),
                                       .convert = convert,
                                       .as = &at_arch_t2i};
