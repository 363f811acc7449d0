// SPDX-License-Identifier: Apache-2.0
// lora_unet.c - diffusers' names of a latent-diffusion UNet's layers, as LoRA files use them.
// Idea: our input_blocks count through all levels, diffusers' down_blocks count levels and, inside one,
// residual blocks; a walk over the blocks that are there gives both numbers.
// Source: ComfyUI 0.3.64 comfy/utils.py unet_to_diffusers, comfy/lora.py (facts).
// Easy to get wrong: an attention carries the number of its residual block; the upsampler of a level
// stands behind its last residual block as .1 or, behind an attention, as .2.
// Owns nothing.
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "models/arch.h"
#include "models/lora.h"

enum { MAX_BLOCKS = 256, NAME = 192 };

typedef struct name_row {
    const char *from, *to;
} name_row;

static const name_row resnet[] = {
    {"conv1", "in_layers.2"},  {"time_emb_proj", "emb_layers.1"},
    {"conv2", "out_layers.3"}, {"conv_shortcut", "skip_connection"},
    {"norm1", "in_layers.0"},  {"norm2", "out_layers.0"},
};
static const name_row outer[] = {
    {"proj_in", "proj_in"}, {"proj_out", "proj_out"}, {"norm", "norm"}};
static const char *const transformer[] = {
    "norm1",          "norm2",          "norm3",      "attn1.to_q", "attn1.to_k",
    "attn1.to_v",     "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
    "attn2.to_out.0", "ff.net.0.proj",  "ff.net.2",
};
static const name_row basic[] = {
    {"class_embedding.linear_1", "label_emb.0.0"},
    {"class_embedding.linear_2", "label_emb.0.2"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
    {"conv_in", "input_blocks.0.0"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"},
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
};

typedef struct walk {
    at_store *s;
    const char *prefix;
    at_lora_names *out;
} walk;

static const at_weight *layer(const walk *f, const char *key)
{
    return at_store_findf(f->s, "%s%s.weight", f->prefix, key);
}

// "attentions.0.to_q" as peft's attention processors say it: ".processor.to_q"; "to_out.0" is "to_out".
static void processor_name(const char *name, char out[2 * NAME])
{
    const char *to = strstr(name, ".to_");
    size_t n;

    if (!to)
        snprintf(out, 2 * NAME, "%s", name);
    else
        snprintf(out, 2 * NAME, "%.*s.processor%s", (int)(to - name), name, to);
    n = strlen(out);
    if (at_ends_with(out, ".to_out.0")) out[n - 2] = '\0';
}

// Our layer `key` and its diffusers name, both without ".weight".
static void add(const walk *f, const char *key, const char *name)
{
    const at_weight *w = layer(f, key);
    char flat[NAME], processor[2 * NAME];

    if (!w) return;
    at_lora_target to = {.record = w->name};
    snprintf(flat, sizeof flat, "%s", name);
    for (char *p = flat; *p; p++)
        if (*p == '.') *p = '_';
    processor_name(name, processor);
    at_lora_names_addf(f->out, &to, "lora_unet_%s", flat);
    at_lora_names_addf(f->out, &to, "lycoris_%s", flat);
    at_lora_names_add(f->out, &to, processor);
    at_lora_names_addf(f->out, &to, "unet.%s", processor);
}

static void add_rows(const walk *f, const char *key, const char *name, const name_row *rows,
                     size_t n)
{
    char k[NAME], d[NAME];

    for (size_t i = 0; i < n; i++) {
        snprintf(k, sizeof k, "%s%s", key, rows[i].to);
        snprintf(d, sizeof d, "%s%s", name, rows[i].from);
        add(f, k, d);
    }
}

// A spatial transformer: key "input_blocks.1.1.", name "down_blocks.0.attentions.0.".
static void add_attention(const walk *f, const char *key, const char *name)
{
    char k[NAME], d[NAME];

    add_rows(f, key, name, outer, AT_LEN(outer));
    for (int t = 0; t < MAX_BLOCKS; t++) {
        if (!at_store_findf(f->s, "%s%stransformer_blocks.%d.norm1.weight", f->prefix, key, t))
            return;
        for (size_t i = 0; i < AT_LEN(transformer); i++) {
            snprintf(k, sizeof k, "%stransformer_blocks.%d.%s", key, t, transformer[i]);
            snprintf(d, sizeof d, "%stransformer_blocks.%d.%s", name, t, transformer[i]);
            add(f, k, d);
        }
    }
}

// Residual block and attention number `i` of level `level`, our block `key` ("input_blocks.1.").
static void add_block(const walk *f, const char *key, const char *side, int level, int i)
{
    char k[64], d[64];

    snprintf(k, sizeof k, "%s0.", key);
    snprintf(d, sizeof d, "%s.%d.resnets.%d.", side, level, i);
    add_rows(f, k, d, resnet, AT_LEN(resnet));
    snprintf(k, sizeof k, "%s1.", key);
    snprintf(d, sizeof d, "%s.%d.attentions.%d.", side, level, i);
    add_attention(f, k, d);
}

static void add_input(const walk *f)
{
    int level = 0, i = 0;
    char key[48], k[64], d[64];

    for (int n = 1; n < MAX_BLOCKS; n++) {
        snprintf(key, sizeof key, "input_blocks.%d.", n);
        snprintf(k, sizeof k, "%s0.op", key);
        if (layer(f, k)) {
            snprintf(d, sizeof d, "down_blocks.%d.downsamplers.0.conv", level++);
            add(f, k, d);
            i = 0;
            continue;
        }
        snprintf(k, sizeof k, "%s0.in_layers.0", key);
        if (!layer(f, k)) return;
        add_block(f, key, "down_blocks", level, i++);
    }
}

static void add_output(const walk *f)
{
    int level = 0, i = 0;
    char key[48], k[64], d[64];

    for (int n = 0; n < MAX_BLOCKS; n++) {
        snprintf(key, sizeof key, "output_blocks.%d.", n);
        snprintf(k, sizeof k, "%s0.in_layers.0", key);
        if (!layer(f, k)) return;
        add_block(f, key, "up_blocks", level, i++);
        for (int at = 1; at <= 2; at++) {
            snprintf(k, sizeof k, "%s%d.conv", key, at);
            if (!layer(f, k)) continue;
            snprintf(d, sizeof d, "up_blocks.%d.upsamplers.0.conv", level++);
            add(f, k, d);
            i = 0;
        }
    }
}

void at_unet_lora_names(at_store *s, const char *prefix, at_lora_names *out)
{
    walk f = {s, prefix, out};

    add_input(&f);
    add_attention(&f, "middle_block.1.", "mid_block.attentions.0.");
    add_rows(&f, "middle_block.0.", "mid_block.resnets.0.", resnet, AT_LEN(resnet));
    add_rows(&f, "middle_block.2.", "mid_block.resnets.1.", resnet, AT_LEN(resnet));
    add_output(&f);
    add_rows(&f, "", "", basic, AT_LEN(basic));
}
