// SPDX-License-Identifier: Apache-2.0
// bench_unet.c - true shapes of latent-diffusion UNets for bench.
// Source: the public configs of Stable Diffusion 1.5, 2.1, XL base and XL refiner.
#include <stdio.h>

#include "engine/bench_fill.h"

enum { LEVELS = 4 };

typedef struct unet_plan {
    int64_t channels, context, vector;
    int levels, mult[LEVELS], depth[LEVELS], middle; // depth 0: no transformer
    bool linear;
} unet_plan;

static const unet_plan sd15 = {320, 768, 0, 4, {1, 2, 4, 4}, {1, 1, 1, 0}, 1, false};
static const unet_plan sd21 = {320, 1024, 0, 4, {1, 2, 4, 4}, {1, 1, 1, 0}, 1, true};
static const unet_plan sdxl = {320, 2048, 2816, 3, {1, 2, 4}, {0, 2, 10}, 10, true};
static const unet_plan refiner = {384, 1280, 2560, 4, {1, 2, 4, 4}, {0, 4, 4, 0}, 4, true};

static void res(at_filler *f, const unet_plan *p, const char *base, int64_t in, int64_t out)
{
    snprintf(f->prefix, sizeof f->prefix, "%s", base);
    at_fill_affine(f, "in_layers.0", in);
    at_fill_conv(f, "in_layers.2", out, in, 3);
    at_fill_linear(f, "emb_layers.1", out, 4 * p->channels);
    at_fill_affine(f, "out_layers.0", out);
    at_fill_conv(f, "out_layers.3", out, out, 3);
    if (in != out) at_fill_conv(f, "skip_connection", out, in, 1);
}

static void attention(at_filler *f, const char *name, int64_t d, int64_t text)
{
    char key[64];
#define PART(suffix) (snprintf(key, sizeof key, "%s." suffix, name), key)
    at_fill_matrix(f, PART("to_q.weight"), d, d);
    at_fill_matrix(f, PART("to_k.weight"), d, text);
    at_fill_matrix(f, PART("to_v.weight"), d, text);
    at_fill_linear(f, PART("to_out.0"), d, d);
#undef PART
}

static void transformer(at_filler *f, const unet_plan *p, const char *base, int64_t d, int depth)
{
    snprintf(f->prefix, sizeof f->prefix, "%s", base);
    at_fill_affine(f, "norm", d);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "proj_out" : "proj_in";
        if (p->linear)
            at_fill_linear(f, name, d, d);
        else
            at_fill_conv(f, name, d, d, 1);
    }
    for (int i = 0; i < depth; i++) {
        snprintf(f->prefix, sizeof f->prefix, "%stransformer_blocks.%d.", base, i);
        at_fill_affine(f, "norm1", d);
        attention(f, "attn1", d, d);
        at_fill_affine(f, "norm2", d);
        attention(f, "attn2", d, p->context);
        at_fill_affine(f, "norm3", d);
        at_fill_linear(f, "ff.net.0.proj", 8 * d, d);
        at_fill_linear(f, "ff.net.2", d, 4 * d);
    }
}

// A residual block and its transformer; returns the block's number in *n and counts on.
static void block(at_filler *f, const unet_plan *p, const char *half, int n, int64_t in,
                  int64_t out, int depth)
{
    char base[48];
    snprintf(base, sizeof base, "%s.%d.0.", half, n);
    res(f, p, base, in, out);
    snprintf(base, sizeof base, "%s.%d.1.", half, n);
    if (depth) transformer(f, p, base, out, depth);
}

// Widths of the skips go to `skips`; returns how many.
static int input_half(at_filler *f, const unet_plan *p, int64_t *skips)
{
    int n = 1;
    char name[48];

    f->prefix[0] = 0;
    at_fill_conv(f, "input_blocks.0.0", p->channels, 4, 3);
    skips[0] = p->channels;
    for (int level = 0; level < p->levels; level++) {
        int64_t out = p->mult[level] * p->channels;
        for (int i = 0; i < 2; i++, n++) {
            block(f, p, "input_blocks", n, skips[n - 1], out, p->depth[level]);
            skips[n] = out;
        }
        if (level + 1 == p->levels) break;
        f->prefix[0] = 0;
        snprintf(name, sizeof name, "input_blocks.%d.0.op", n);
        at_fill_conv(f, name, out, out, 3);
        skips[n++] = out;
    }
    return n;
}

static void output_half(at_filler *f, const unet_plan *p, const int64_t *skips, int n)
{
    int64_t width = skips[n - 1];
    char name[48];

    for (int level = p->levels - 1, i = 0; level >= 0; level--)
        for (int j = 0; j < 3; j++, i++) {
            int64_t out = p->mult[level] * p->channels;
            block(f, p, "output_blocks", i, width + skips[--n], out, p->depth[level]);
            width = out;
            if (j < 2 || level == 0) continue;
            f->prefix[0] = 0;
            snprintf(name, sizeof name, "output_blocks.%d.%d.conv", i, p->depth[level] ? 2 : 1);
            at_fill_conv(f, name, out, out, 3);
        }
}

static at_status fill_unet(at_store *s, at_fill_as as, const unet_plan *p)
{
    at_filler f = at_fill_start(s, as);
    int64_t skips[3 * LEVELS + 1], emb = 4 * p->channels;

    at_fill_linear(&f, "time_embed.0", emb, p->channels);
    at_fill_linear(&f, "time_embed.2", emb, emb);
    if (p->vector) {
        at_fill_linear(&f, "label_emb.0.0", emb, p->vector);
        at_fill_linear(&f, "label_emb.0.2", emb, emb);
    }
    int n = input_half(&f, p, skips);
    res(&f, p, "middle_block.0.", skips[n - 1], skips[n - 1]);
    transformer(&f, p, "middle_block.1.", skips[n - 1], p->middle);
    res(&f, p, "middle_block.2.", skips[n - 1], skips[n - 1]);
    output_half(&f, p, skips, n);
    f.prefix[0] = 0;
    at_fill_affine(&f, "out.0", p->channels);
    at_fill_conv(&f, "out.2", 4, p->channels, 3);
    return f.st;
}

#define FILL(name, plan)                                                                           \
    at_status at_fill_##name(at_store *s, at_fill_as as, int doubles, int singles)                 \
    {                                                                                              \
        (void)doubles, (void)singles;                                                              \
        return fill_unet(s, as, &plan);                                                            \
    }
FILL(sd15, sd15)
FILL(sd21, sd21)
FILL(sdxl, sdxl)
FILL(sdxl_refiner, refiner)
