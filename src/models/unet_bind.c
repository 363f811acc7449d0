// SPDX-License-Identifier: Apache-2.0
// unet_bind.c - a UNet's tensors put into structs, each checked against the measured shape.
// Idea: rows per part (residual block, attention, transformer) over a small struct of sizes, so that
// one table serves blocks of all widths.
// Easy to get wrong: proj_in and proj_out are 1x1 convolutions in SD1 and matrices later; q, k and v
// have no bias.
// Owns nothing.
#include <stdio.h>

#include "models/unet_blocks.h"

// Widths that rows point at.
typedef struct part_size {
    int64_t in, out, emb, text, ff, ff2, head;
} part_size;

#define F(field) AT_FIELD(part_size, field)
#define VEC(type, field, key_, size)                                                               \
    {                                                                                              \
        .key = key_, .offset = offsetof(type, field), .rank = 1, .dim = { F(size) }                \
    }
#define NORM(type, field, key_, size)                                                              \
    VEC(type, field.w, key_ ".weight", size), VEC(type, field.b, key_ ".bias", size)
#define CONV(type, field, key_, out_, in_)                                                         \
    {.key = key_ ".weight",                                                                        \
     .offset = offsetof(type, field.w),                                                            \
     .rank = 4,                                                                                    \
     .dim = {F(out_), F(in_)}},                                                                    \
        VEC(type, field.b, key_ ".bias", out_)
#define MAT(type, field, key_, out_, in_)                                                          \
    {                                                                                              \
        .key = key_ ".weight", .offset = offsetof(type, field), .rank = 2, .dim = {                \
            F(out_),                                                                               \
            F(in_)                                                                                 \
        }                                                                                          \
    }
#define LIN(type, field, key_, out_, in_)                                                          \
    MAT(type, field.w, key_, out_, in_), VEC(type, field.b, key_ ".bias", out_)

static const at_bind_row rows_conv[] = {CONV(at_unet_block, conv, "", out, in)};

static const at_bind_row rows_res[] = {
    NORM(at_unet_res, norm1, "in_layers.0", in),
    CONV(at_unet_res, conv1, "in_layers.2", out, in),
    LIN(at_unet_res, emb, "emb_layers.1", out, emb),
    NORM(at_unet_res, norm2, "out_layers.0", out),
    CONV(at_unet_res, conv2, "out_layers.3", out, out),
};
static const at_bind_row rows_skip[] = {CONV(at_unet_res, skip, "skip_connection", out, in)};

static const at_bind_row rows_outer[] = {NORM(at_unet_transformer, norm, "norm", out)};
static const at_bind_row rows_point[] = {
    CONV(at_unet_transformer, proj_in, "proj_in", out, out),
    CONV(at_unet_transformer, proj_out, "proj_out", out, out),
};
static const at_bind_row rows_linear[] = {
    LIN(at_unet_transformer, proj_in, "proj_in", out, out),
    LIN(at_unet_transformer, proj_out, "proj_out", out, out),
};

// Shares of ranks: heads and the feed-forward's units.
static const at_bind_cut cut_heads = {.run = {{F(out), F(head), 1}}},
                         cut_out = {.columns = true, .run = {{F(out), F(head), 1}}},
                         cut_halves = {.run = {{F(ff), 0, 2}}},
                         cut_ff = {.columns = true, .run = {{F(ff), 0, 1}}};
#define MAT_CUT(type, field, key_, out_, in_, cut_)                                                \
    {                                                                                              \
        .key = key_ ".weight", .offset = offsetof(type, field), .rank = 2,                         \
        .dim = {F(out_), F(in_)}, .cut = &cut_                                                     \
    }

#define ATTENTION(field, key_, text_)                                                              \
    MAT_CUT(at_unet_layer, field.q, key_ ".to_q", out, out, cut_heads),                            \
        MAT_CUT(at_unet_layer, field.k, key_ ".to_k", out, text_, cut_heads),                      \
        MAT_CUT(at_unet_layer, field.v, key_ ".to_v", out, text_, cut_heads),                      \
        MAT_CUT(at_unet_layer, field.out.w, key_ ".to_out.0", out, out, cut_out),                  \
        VEC(at_unet_layer, field.out.b, key_ ".to_out.0.bias", out)

static const at_bind_row rows_layer[] = {
    NORM(at_unet_layer, norm1, "norm1", out),
    ATTENTION(self, "attn1", out),
    NORM(at_unet_layer, norm2, "norm2", out),
    ATTENTION(cross, "attn2", text),
    NORM(at_unet_layer, norm3, "norm3", out),
    MAT_CUT(at_unet_layer, ff_in.w, "ff.net.0.proj", ff2, out, cut_halves),
    {.key = "ff.net.0.proj.bias",
     .offset = offsetof(at_unet_layer, ff_in.b),
     .rank = 1,
     .dim = {F(ff2)},
     .cut = &cut_halves},
    MAT_CUT(at_unet_layer, ff_out.w, "ff.net.2", out, ff, cut_ff),
    VEC(at_unet_layer, ff_out.b, "ff.net.2.bias", out),
};

static const at_bind_row rows_time[] = {
    LIN(at_unet_embedding, time1, "time_embed.0", emb, in),
    LIN(at_unet_embedding, time2, "time_embed.2", emb, emb),
};
static const at_bind_row rows_label[] = {
    LIN(at_unet_embedding, label1, "label_emb.0.0", emb, text),
    LIN(at_unet_embedding, label2, "label_emb.0.2", emb, emb),
};

void at_unet_bind_embedding(at_binder *b, const at_unet_shape *s, at_unet_embedding *e)
{
    part_size size = {.in = s->channels, .emb = s->emb, .text = s->adm};
    at_bind_rows(b, "", rows_time, AT_LEN(rows_time), &size, e);
    if (s->adm) at_bind_rows(b, "", rows_label, AT_LEN(rows_label), &size, e);
}

void at_unet_bind_res(at_binder *b, const char *base, int64_t in, int64_t out, int64_t emb,
                      at_unet_res *r)
{
    part_size size = {.in = in, .out = out, .emb = emb};
    at_bind_rows(b, base, rows_res, AT_LEN(rows_res), &size, r);
    if (in != out) at_bind_rows(b, base, rows_skip, AT_LEN(rows_skip), &size, r);
}

// The feed-forward width is free: what ff.net.2 takes.
static int64_t ff_width(at_binder *b, const char *base)
{
    const at_weight *w = at_store_findf(b->store, "%s%sff.net.2.weight", b->prefix, base);
    return w && w->rank == 2 ? w->shape[1] : 0;
}

void at_unet_bind_transformer(at_binder *b, const char *base, const at_unet_shape *s, int64_t width,
                              int64_t depth, at_unet_pool *pool, at_unet_transformer *t)
{
    part_size size = {.out = width, .text = s->context};
    char key[160];

    at_bind_rows(b, base, rows_outer, AT_LEN(rows_outer), &size, t);
    at_bind_rows(b, base, s->linear ? rows_linear : rows_point, AT_LEN(rows_point), &size, t);
    t->layers = pool->items + pool->used;
    t->depth = depth;
    t->heads = at_unet_heads(s, width);
    size.head = t->heads > 0 ? width / t->heads : 0;
    for (int64_t i = 0; i < depth && pool->used < AT_UNET_LAYERS; i++, pool->used++) {
        snprintf(key, sizeof key, "%stransformer_blocks.%d.", base, (int)i);
        size.ff = ff_width(b, key);
        size.ff2 = 2 * size.ff;
        at_bind_rows(b, key, rows_layer, AT_LEN(rows_layer), &size, &pool->items[pool->used]);
    }
}

// The one convolution of a part: "input_blocks.3.0.op".
static void bind_conv(at_binder *b, const char *base, int64_t in, int64_t out, at_lin *l)
{
    part_size size = {.in = in, .out = out};
    at_unet_block one = {0};
    at_bind_rows(b, base, rows_conv, AT_LEN(rows_conv), &size, &one);
    *l = one.conv;
}

void at_unet_bind_block(at_binder *b, const at_unet_shape *s, bool output, int i,
                        at_unet_pool *pool, at_unet_block *block)
{
    const at_unet_block_shape *shape = output ? &s->output[i] : &s->input[i];
    const char *half = output ? "output_blocks" : "input_blocks";
    char base[64];

    if (shape->kind == AT_UNET_CONV || shape->kind == AT_UNET_DOWN) {
        snprintf(base, sizeof base, "%s.%d.0%s", half, i, shape->kind == AT_UNET_DOWN ? ".op" : "");
        bind_conv(b, base, shape->in, shape->out, &block->conv);
        return;
    }
    snprintf(base, sizeof base, "%s.%d.0.", half, i);
    at_unet_bind_res(b, base, shape->in, shape->out, s->emb, &block->res);
    snprintf(base, sizeof base, "%s.%d.1.", half, i);
    if (shape->depth >= 0)
        at_unet_bind_transformer(b, base, s, shape->out, shape->depth, pool, &block->transformer);
    snprintf(base, sizeof base, "%s.%d.%d.conv", half, i, shape->depth >= 0 ? 2 : 1);
    if (shape->up) bind_conv(b, base, shape->out, shape->out, &block->up);
}

void at_unet_bind_middle(at_binder *b, const at_unet_shape *s, at_unet_pool *pool,
                         at_unet_block *first, at_unet_res *last)
{
    if (s->middle < -1) return;
    at_unet_bind_res(b, "middle_block.0.", s->width, s->width, s->emb, &first->res);
    if (s->middle < 0) return;
    at_unet_bind_transformer(b, "middle_block.1.", s, s->width, s->middle, pool,
                             &first->transformer);
    at_unet_bind_res(b, "middle_block.2.", s->width, s->width, s->emb, last);
}
