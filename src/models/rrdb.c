// SPDX-License-Identifier: Apache-2.0
// rrdb.c - ESRGAN and Real-ESRGAN: residual in residual dense blocks (Wang et al. 2018, arXiv:1809.00219;
// 2021, arXiv:2107.10833) in three layouts of keys.
// Idea: one network; a layout is a table of names, and where numbers stand in for names (the oldest one) they
// follow from how often the network doubles.
// Easy to get wrong:
//   - a dense block's result and a whole block's count 0.2 of what they say
//   - networks for 2x and 1x see squares of 2 x 2 or 4 x 4 pixels as channels and still double twice
//   - leaky rectifiers have a slope of 0.2
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>
#include <string.h>

#include "models/arch.h"
#include "models/upscaler.h"

enum { MAX_BLOCKS = 64, MAX_UPS = 5, DENSE = 3, CONVS = 5 };

typedef struct rrdb_config {
    int64_t in, out, width, growth, blocks, ups, scale, stack;
} rrdb_config;

typedef struct rrdb_weights {
    at_lin first, trunk, up[MAX_UPS], hr, last;
    at_lin block[MAX_BLOCKS][DENSE][CONVS];
} rrdb_weights;

// Names by layout; %d: block, dense block from 1, convolution from 1.
typedef struct layout {
    const char *first, *dense, *trunk, *hr, *last;
    const char *up; // %d from 1; NULL: numbered layers, see numbered()
} layout;
static const layout layouts[] = {
    {"conv_first", "body.%d.rdb%d.conv%d", "conv_body", "conv_hr", "conv_last", "conv_up%d"},
    {"conv_first", "RRDB_trunk.%d.RDB%d.conv%d", "trunk_conv", "HRconv", "conv_last", "upconv%d"},
    {"model.0", "model.1.sub.%d.RDB%d.conv%d.0", NULL, NULL, NULL, NULL},
};
enum { NEW, MIDDLE, OLD };

// --- names -------------------------------------------------------------------------------------
static const at_weight *weight_of(at_store *s, const char *prefix, const char *base)
{
    return at_store_findf(s, "%s%s.weight", prefix, base);
}

static int layout_of(at_store *s, const char *prefix)
{
    char name[96];
    for (int i = 0; i <= OLD; i++) {
        snprintf(name, sizeof name, layouts[i].dense, 0, 1, 1);
        if (weight_of(s, prefix, name)) return i;
    }
    return -1;
}

typedef enum place { TRUNK, UP, HR, LAST } place;

// The base name of a convolution behind the blocks. In the oldest layout each doubling takes three layers:
// enlarging, convolution, rectifier.
static void name_of(char out[96], int kind, place p, int64_t blocks, int64_t ups, int64_t i)
{
    const layout *l = &layouts[kind];
    if (kind != OLD) {
        const char *text = p == TRUNK ? l->trunk : p == HR ? l->hr : p == LAST ? l->last : l->up;
        snprintf(out, 96, text, (int)i + 1);
        return;
    }
    if (p == TRUNK)
        snprintf(out, 96, "model.1.sub.%d", (int)blocks);
    else
        snprintf(out, 96, "model.%d", (int)(p == UP ? 3 + 3 * i : 3 * ups + (p == HR ? 2 : 4)));
}

// --- sizes -------------------------------------------------------------------------------------
static const char *measure(at_store *s, const char *prefix, void *config)
{
    rrdb_config *c = config;
    char name[96];
    int kind = layout_of(s, prefix);
    const at_weight *first, *last = NULL, *dense;

    if (kind < 0) return "it has no dense block";
    snprintf(name, sizeof name, layouts[kind].dense, 0, 1, 1);
    dense = weight_of(s, prefix, name);
    first = weight_of(s, prefix, layouts[kind].first);
    for (c->blocks = 0; c->blocks <= MAX_BLOCKS; c->blocks++) {
        snprintf(name, sizeof name, layouts[kind].dense, (int)c->blocks, 1, 1);
        if (!weight_of(s, prefix, name)) break;
    }
    for (c->ups = kind == OLD ? MAX_UPS : 0; c->ups >= 0; c->ups--) {
        name_of(name, kind, LAST, c->blocks, c->ups, 0);
        if ((last = weight_of(s, prefix, name))) break;
    }
    for (c->ups = kind == OLD ? c->ups : 0; kind != OLD && c->ups < MAX_UPS; c->ups++) {
        name_of(name, kind, UP, c->blocks, c->ups, c->ups);
        if (!weight_of(s, prefix, name)) break;
    }
    if (!first || !last || first->rank != 4 || last->rank != 4 || dense->rank != 4)
        return "its first or last convolution is missing";
    c->in = first->shape[1], c->width = first->shape[0];
    c->out = last->shape[0], c->growth = dense->shape[0];
    return NULL;
}

static const char *derive(void *config)
{
    rrdb_config *c = config;
    c->scale = (int64_t)1 << c->ups;
    c->stack = c->in == c->out ? 1 : c->in == 4 * c->out ? 2 : c->in == 16 * c->out ? 4 : 0;
    if (c->blocks > MAX_BLOCKS) return "it has more than 64 blocks";
    if (c->stack == 0) return "its channels are no squares of pixels";
    if (c->scale < c->stack) return "it makes pictures smaller";
    if (c->width > 4096 || c->growth > 4096 || c->out > 16) return "it is too wide";
    c->scale /= c->stack;
    return NULL;
}

// --- binding -----------------------------------------------------------------------------------
typedef struct io_size {
    int64_t in, out;
} io_size;
static const at_bind_row rows_conv[] = {
    {.key = "weight",
     .offset = offsetof(at_lin, w),
     .rank = 4,
     .dim = {AT_FIELD(io_size, out), AT_FIELD(io_size, in)}},
    {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1, .dim = {AT_FIELD(io_size, out)}},
};

static void bind_conv(at_binder *b, const char *name, int64_t in, int64_t out, at_lin *l)
{
    io_size size = {in, out};
    char base[128];
    snprintf(base, sizeof base, "%s.", name);
    at_bind_rows(b, base, rows_conv, AT_LEN(rows_conv), &size, l);
}

static void bind(at_binder *b, const void *config, void *weights)
{
    const rrdb_config *c = config;
    rrdb_weights *w = weights;
    int kind = layout_of(b->store, b->prefix);
    char name[96];

    bind_conv(b, layouts[kind].first, c->in, c->width, &w->first);
    for (int i = 0; i < (int)c->blocks; i++)
        for (int d = 0; d < DENSE; d++)
            for (int k = 0; k < CONVS; k++) {
                snprintf(name, sizeof name, layouts[kind].dense, i, d + 1, k + 1);
                bind_conv(b, name, c->width + k * c->growth, k == CONVS - 1 ? c->width : c->growth,
                          &w->block[i][d][k]);
            }
    name_of(name, kind, TRUNK, c->blocks, c->ups, 0);
    bind_conv(b, name, c->width, c->width, &w->trunk);
    for (int i = 0; i < (int)c->ups; i++) {
        name_of(name, kind, UP, c->blocks, c->ups, i);
        bind_conv(b, name, c->width, c->width, &w->up[i]);
    }
    name_of(name, kind, HR, c->blocks, c->ups, 0);
    bind_conv(b, name, c->width, c->width, &w->hr);
    name_of(name, kind, LAST, c->blocks, c->ups, 0);
    bind_conv(b, name, c->width, c->out, &w->last);
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *conv(at_ops *o, const at_tensor *x, at_lin l, bool upsample,
                       const at_tensor *residual)
{
    at_conv_spec spec = {.pad_top = 1,
                         .pad_left = 1,
                         .pad_bottom = 1,
                         .pad_right = 1,
                         .upsample2x = upsample,
                         .residual = residual};
    return at_conv2d(o, x, l.w, l.b, &spec);
}

// max(x, 0.2 x) = relu(0.8 x) + 0.2 x
static at_tensor *leaky(at_ops *o, const at_tensor *x)
{
    at_tensor *a = at_affine(o, x, 0.8f, 0);
    return at_binary(at_into(o, a), AT_ADD, a, at_affine(o, x, 0.2f, 0), AT_ACT_RELU);
}

static at_tensor *dense(at_ops *o, const at_lin w[CONVS], const at_tensor *x)
{
    const at_tensor *parts[CONVS] = {x};
    at_scope_begin(o);
    for (int k = 1; k < CONVS; k++)
        parts[k] = leaky(o, conv(o, k == 1 ? x : at_concat(o, 3, k, parts), w[k - 1], false, NULL));
    at_tensor *y = conv(o, at_concat(o, 3, CONVS, parts), w[CONVS - 1], false, NULL);
    return at_scope_end(o, at_add(o, at_affine(o, y, 0.2f, 0), x));
}

static at_tensor *block(at_ops *o, const at_lin w[DENSE][CONVS], const at_tensor *x)
{
    at_scope_begin(o);
    at_tensor *y = dense(o, w[0], x);
    y = dense(o, w[1], y);
    y = dense(o, w[2], y);
    return at_scope_end(o, at_add(o, at_affine(o, y, 0.2f, 0), x));
}

static at_tensor *forward(at_ops *o, const at_bound *bound, const at_tensor *x)
{
    const rrdb_config *c = bound->config;
    const rrdb_weights *w = bound->weights;

    at_tensor *first = conv(o, x, w->first, false, NULL);
    at_tensor *h = at_ops_keep(o, first);
    for (int64_t i = 0; i < c->blocks; i++) { // one feature map lives between blocks
        at_scope_begin(o);
        at_tensor *y = at_ops_keep(o, block(o, w->block[i], h));
        at_scope_end(o, NULL);
        at_tensor_release(&h);
        h = y;
    }
    at_tensor *y = conv(o, h, w->trunk, false, first);
    at_tensor_release(&h);
    for (int64_t i = 0; i < c->ups; i++)
        y = leaky(o, conv(o, y, w->up[i], true, NULL));
    return conv(o, leaky(o, conv(o, y, w->hr, false, NULL)), w->last, false, NULL);
}

static void facts(const void *config, at_upscaler_facts *out)
{
    const rrdb_config *c = config;
    *out = (at_upscaler_facts){
        .channels = (int)c->out, .scale = (int)c->scale, .stack = (int)c->stack, .unstack = 1};
}

// --- descriptors -------------------------------------------------------------------------------
#define SIZE(field)                                                                                \
    {                                                                                              \
        .name = #field, .offset = offsetof(rrdb_config, field), .how = AT_SIZE_MEASURED            \
    }
static const at_size_row sizes[] = {SIZE(in),     SIZE(out),    SIZE(width),
                                    SIZE(growth), SIZE(blocks), SIZE(ups)};
static const at_upscaler_ops ops = {.forward = forward, .facts = facts};

#define RRDB(name_, title_, probes_)                                                               \
    const at_arch at_arch_##name_ = {.name = #name_,                                               \
                                     .title = title_,                                              \
                                     .part = AT_PART_UPSCALER,                                     \
                                     .probes = probes_,                                            \
                                     .n_probes = AT_LEN(probes_),                                  \
                                     .sizes = sizes,                                               \
                                     .n_sizes = AT_LEN(sizes),                                     \
                                     .config_size = sizeof(rrdb_config),                           \
                                     .measure = measure,                                           \
                                     .derive = derive,                                             \
                                     .weights_size = sizeof(rrdb_weights),                         \
                                     .bind = bind,                                                 \
                                     .upscaler = &ops}

static const at_probe new_probes[] = {{.key = "conv_first.weight"},
                                      {.key = "body.0.rdb1.conv1.weight"}};
static const at_probe middle_probes[] = {{.key = "conv_first.weight"},
                                         {.key = "RRDB_trunk.0.RDB1.conv1.weight"}};
static const at_probe old_probes[] = {{.key = "model.0.weight"},
                                      {.key = "model.1.sub.0.RDB1.conv1.0.weight"}};
RRDB(rrdb, "Real-ESRGAN", new_probes);
RRDB(rrdb_trunk, "ESRGAN (named layers)", middle_probes);
RRDB(rrdb_numbered, "ESRGAN", old_probes);
