// SPDX-License-Identifier: Apache-2.0
// unet_shape.c - what a latent-diffusion UNet looks like, read off the names and shapes of a file.
// Idea: blocks are counted, and channels are followed through them as the forward will: what a block
// gives must be what the next one takes, and skips must fit. So SD1, SD2, SDXL, the refiner and the
// pruned nets (SSD-1B, Vega, KOALA) need no table of sizes. Source of the facts: ComfyUI 0.3.64
// comfy/model_detection.py.
// Easy to get wrong:
//   - a transformer of depth 0 exists (projections only), and so does a middle of one block or none
//   - without a transformer an upsampler is part 1 of its block, with one it is part 2
// Owns nothing.
#include <stdio.h>

#include "models/unet_blocks.h"

// The tensor prefix + base + key if it has that rank.
static const at_weight *find(at_store *s, const char *prefix, const char *base, const char *key,
                             int rank)
{
    const at_weight *w = at_store_findf(s, "%s%s%s", prefix, base, key);
    return w && w->rank == rank ? w : NULL;
}

int64_t at_unet_heads(const at_unet_shape *s, int64_t width)
{
    return s->linear ? width / 64 : 8;
}

// Layers of the transformer at base ("input_blocks.1.1."), -1 if there is none.
static int64_t depth_of(at_store *store, const char *prefix, const char *base, at_unet_shape *s)
{
    if (!at_store_findf(store, "%s%snorm.weight", prefix, base)) return -1;
    int64_t n = 0;
    while (n < AT_UNET_LAYERS &&
           at_store_findf(store, "%s%stransformer_blocks.%d.norm1.weight", prefix, base, (int)n))
        n++;
    const at_weight *k = find(store, prefix, base, "transformer_blocks.0.attn2.to_k.weight", 2);
    if (k && !s->context) s->context = k->shape[1];
    if (find(store, prefix, base, "proj_in.weight", 2)) s->linear = 1;
    s->layers += n;
    return n;
}

// Input block i of the file, or false behind the last one.
static bool input_block(at_store *store, const char *prefix, int i, at_unet_shape *s)
{
    at_unet_block_shape *b = &s->input[i];
    char base[64];
    const at_weight *w;

    *b = (at_unet_block_shape){.depth = -1};
    snprintf(base, sizeof base, "input_blocks.%d.", i);
    if (i == 0 && (w = find(store, prefix, base, "0.weight", 4)) != NULL) {
        b->kind = AT_UNET_CONV;
    } else if ((w = find(store, prefix, base, "0.op.weight", 4)) != NULL) {
        b->kind = AT_UNET_DOWN;
    } else if ((w = find(store, prefix, base, "0.in_layers.2.weight", 4)) != NULL) {
        b->kind = AT_UNET_RES;
        snprintf(base, sizeof base, "input_blocks.%d.1.", i);
        b->depth = depth_of(store, prefix, base, s);
    } else {
        return false;
    }
    b->out = w->shape[0];
    b->in = w->shape[1];
    return true;
}

static bool usable(int64_t width)
{
    return width > 0 && width % 32 == 0 && width <= 1 << 16;
}

static const char *check_block(const at_unet_shape *s, const at_unet_block_shape *b)
{
    if (!usable(b->out)) return "a block's width is no multiple of 32";
    if (b->depth < 0) return NULL;
    if (b->out % (s->linear ? 64 : 8)) return "a transformer's width does not split into heads";
    return NULL;
}

static const char *measure_middle(at_store *store, const char *prefix, at_unet_shape *s)
{
    s->middle = -2;
    if (!at_store_findf(store, "%smiddle_block.0.in_layers.2.weight", prefix)) return NULL;
    s->middle = depth_of(store, prefix, "middle_block.1.", s);
    at_unet_block_shape b = {.kind = AT_UNET_RES, .out = s->width, .depth = s->middle};
    return check_block(s, &b);
}

static const char *measure_embedding(at_store *store, const char *prefix, at_unet_shape *s)
{
    const at_weight *time = find(store, prefix, "", "time_embed.0.weight", 2);
    const at_weight *label = find(store, prefix, "", "label_emb.0.0.weight", 2);
    if (!time) return "there is no time_embed.0.weight";
    s->emb = time->shape[0];
    s->adm = label ? label->shape[1] : 0;
    if (!usable(s->emb)) return "the time embedding's width is no multiple of 32";
    return NULL;
}

const char *at_unet_measure_input(at_store *store, const char *prefix, at_unet_shape *s)
{
    const char *why = measure_embedding(store, prefix, s);
    if (why) return why;

    s->levels = 1;
    for (; s->blocks < AT_UNET_BLOCKS && input_block(store, prefix, (int)s->blocks, s); s->blocks++)
        s->levels += s->input[s->blocks].kind == AT_UNET_DOWN;
    if (s->blocks == AT_UNET_BLOCKS) return "there are too many input blocks";
    if (s->blocks < 2 || s->input[0].kind != AT_UNET_CONV) return "there are no input blocks";

    s->in = s->input[0].in;
    s->width = s->channels = s->input[0].out;
    for (int i = 0; i < s->blocks; i++) {
        if (i > 0 && s->input[i].in != s->width)
            return "an input block does not fit the one before";
        if ((why = check_block(s, &s->input[i])) != NULL) return why;
        s->width = s->input[i].out;
    }
    if (s->channels > 4096) return "there are too many model channels";
    if ((why = measure_middle(store, prefix, s)) != NULL) return why;
    if (s->layers > AT_UNET_LAYERS) return "there are too many transformer layers";
    return NULL;
}

static bool output_block(at_store *store, const char *prefix, int i, at_unet_shape *s)
{
    at_unet_block_shape *b = &s->output[i];
    char base[64];

    *b = (at_unet_block_shape){.kind = AT_UNET_RES, .depth = -1};
    snprintf(base, sizeof base, "output_blocks.%d.", i);
    const at_weight *w = find(store, prefix, base, "0.in_layers.2.weight", 4);
    if (!w) return false;
    b->out = w->shape[0];
    b->in = w->shape[1];
    b->up = find(store, prefix, base, "1.conv.weight", 4) != NULL ||
            find(store, prefix, base, "2.conv.weight", 4) != NULL;
    snprintf(base, sizeof base, "output_blocks.%d.1.", i);
    b->depth = depth_of(store, prefix, base, s);
    return true;
}

const char *at_unet_measure_output(at_store *store, const char *prefix, at_unet_shape *s)
{
    const at_weight *out = find(store, prefix, "", "out.2.weight", 4);
    int64_t width = s->width;
    const char *why;

    if (!out) return "there is no out.2.weight";
    s->out = out->shape[0];
    if (s->out < 1 || s->out > 1 << 16) return "out.2.weight has no usable number of channels";
    for (int i = 0; i < s->blocks; i++) {
        at_unet_block_shape *b = &s->output[i];
        if (!output_block(store, prefix, i, s)) return "there are fewer output than input blocks";
        if (b->in != width + s->input[s->blocks - 1 - i].out)
            return "an output block does not fit the one before and its skip";
        if ((why = check_block(s, b)) != NULL) return why;
        width = b->out;
    }
    if (width != s->channels) return "the last output block does not fit the output layer";
    if (s->layers > AT_UNET_LAYERS) return "there are too many transformer layers";
    return NULL;
}
