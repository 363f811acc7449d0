// SPDX-License-Identifier: Apache-2.0
// unet_keys.c - see unet_keys.h; and the row for UNets that lie in diffusers' layout.
// Easy to get wrong: diffusers' up_blocks count from the smallest level; an upsampler is part 2 of
// its block, part 1 where that block has no transformer.
// Owns nothing.
#include "models/unet_keys.h"

#include <stdio.h>
#include <string.h>

#include "models/convert.h"

typedef struct name_row {
    const char *diffusers, *original;
} name_row;

static const name_row outer_names[] = {
    {"conv_in.", "input_blocks.0.0."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"class_embedding.linear_1.", "label_emb.0.0."},
    {"class_embedding.linear_2.", "label_emb.0.2."},
    {"add_embedding.linear_1.", "label_emb.0.0."},
    {"add_embedding.linear_2.", "label_emb.0.2."},
    {"mid_block.attentions.0.", "middle_block.1."},
};
static const name_row res_names[] = {
    {"norm1.", "in_layers.0."},          {"conv1.", "in_layers.2."},
    {"time_emb_proj.", "emb_layers.1."}, {"norm2.", "out_layers.0."},
    {"conv2.", "out_layers.3."},         {"conv_shortcut.", "skip_connection."},
};

// --- levels ------------------------------------------------------------------------------------
static int count_res(at_store *s, const char *prefix, const char *half, int level)
{
    int n = 0;
    while (n < AT_UNET_BLOCKS &&
           at_store_findf(s, "%s%s.%d.resnets.%d.conv1.weight", prefix, half, level, n))
        n++;
    return n;
}

void at_unet_levels_read(at_store *s, const char *prefix, at_unet_levels *l)
{
    *l = (at_unet_levels){0};
    for (int i = 0; i < AT_UNET_LEVELS; i++) {
        l->down[i] = count_res(s, prefix, "down_blocks", i);
        l->up[i] = count_res(s, prefix, "up_blocks", i);
        if (!l->down[i] && !l->up[i]) break;
        l->up_attention[i] = at_store_findf(s, "%sup_blocks.%d.attentions.%d.norm.weight", prefix,
                                            i, l->up[i] - 1) != NULL;
        l->count++;
    }
}

void at_unet_levels_of(const at_unet_shape *shape, at_unet_levels *l)
{
    *l = (at_unet_levels){0};
    for (int i = 1; i < shape->blocks && l->count < AT_UNET_LEVELS; i++)
        if (shape->input[i].kind == AT_UNET_DOWN)
            l->count++;
        else
            l->down[l->count]++;
    int level = 0;
    for (int i = 0; i < shape->blocks && level < AT_UNET_LEVELS; i++) {
        l->up[level]++;
        l->up_attention[level] = shape->output[i].depth >= 0;
        if (shape->output[i].up) level++;
    }
    if (l->count < AT_UNET_LEVELS) l->count++;
}

// --- names -------------------------------------------------------------------------------------
// If name begins with `head` (one or two %d, the last thing of it a dot): the numbers and the rest.
static const char *after(const char *name, const char *head, int *level, int *block)
{
    int end = -1;
    char format[64];
    snprintf(format, sizeof format, "%s%%n", head);
    if (sscanf(name, format, level, block, &end) < 2 || end < 0) return NULL;
    return name + end;
}

static const char *after_one(const char *name, const char *head, int *level)
{
    int end = -1;
    char format[64];
    snprintf(format, sizeof format, "%s%%n", head);
    if (sscanf(name, format, level, &end) < 1 || end < 0) return NULL;
    return name + end;
}

static bool put(char *out, size_t size, const char *base, const char *rest)
{
    int n = snprintf(out, size, "%s%s", base, rest);
    return n > 0 && (size_t)n < size;
}

// The table's row that `name` begins with, its rest behind the other layout's word.
static bool put_row(const name_row *rows, size_t n, const char *name, const char *base, char *out,
                    size_t size)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(rows[i].diffusers);
        if (strncmp(name, rows[i].diffusers, len) != 0) continue;
        char head[128];
        return put(head, sizeof head, base, rows[i].original) && put(out, size, head, name + len);
    }
    return false;
}

static bool put_res(const char *rest, const char *base, char *out, size_t size)
{
    return put_row(res_names, AT_LEN(res_names), rest, base, out, size);
}

static int sum(const int *counts, int n, int more)
{
    int s = 0;
    for (int i = 0; i < n; i++)
        s += counts[i] + more;
    return s;
}

static bool in_level(const at_unet_levels *l, const int *counts, int level, int block)
{
    return level >= 0 && level < l->count && block >= 0 && block < counts[level];
}

static bool down_key(const at_unet_levels *l, const char *name, char *out, size_t size)
{
    int level, block;
    char base[64];
    const char *rest;

    if ((rest = after(name, "down_blocks.%d.resnets.%d.", &level, &block)) != NULL) {
        if (!in_level(l, l->down, level, block)) return false;
        snprintf(base, sizeof base, "input_blocks.%d.0.", 1 + sum(l->down, level, 1) + block);
        return put_res(rest, base, out, size);
    }
    if ((rest = after(name, "down_blocks.%d.attentions.%d.", &level, &block)) != NULL) {
        if (!in_level(l, l->down, level, block)) return false;
        snprintf(base, sizeof base, "input_blocks.%d.1.", 1 + sum(l->down, level, 1) + block);
        return put(out, size, base, rest);
    }
    if ((rest = after_one(name, "down_blocks.%d.downsamplers.0.conv.", &level)) != NULL) {
        if (!in_level(l, l->down, level, 0)) return false;
        snprintf(base, sizeof base, "input_blocks.%d.0.op.", sum(l->down, level + 1, 1));
        return put(out, size, base, rest);
    }
    return false;
}

static bool up_key(const at_unet_levels *l, const char *name, char *out, size_t size)
{
    int level, block;
    char base[64];
    const char *rest;

    if ((rest = after(name, "up_blocks.%d.resnets.%d.", &level, &block)) != NULL) {
        if (!in_level(l, l->up, level, block)) return false;
        snprintf(base, sizeof base, "output_blocks.%d.0.", sum(l->up, level, 0) + block);
        return put_res(rest, base, out, size);
    }
    if ((rest = after(name, "up_blocks.%d.attentions.%d.", &level, &block)) != NULL) {
        if (!in_level(l, l->up, level, block)) return false;
        snprintf(base, sizeof base, "output_blocks.%d.1.", sum(l->up, level, 0) + block);
        return put(out, size, base, rest);
    }
    if ((rest = after_one(name, "up_blocks.%d.upsamplers.0.conv.", &level)) != NULL) {
        if (!in_level(l, l->up, level, 0)) return false;
        snprintf(base, sizeof base, "output_blocks.%d.%d.conv.", sum(l->up, level + 1, 0) - 1,
                 l->up_attention[level] ? 2 : 1);
        return put(out, size, base, rest);
    }
    return false;
}

bool at_unet_original_key(const at_unet_levels *l, const char *name, char *out, size_t size)
{
    int block;
    const char *rest = after_one(name, "mid_block.resnets.%d.", &block);

    if (rest && block >= 0 && block < 2)
        return put_res(rest, block ? "middle_block.2." : "middle_block.0.", out, size);
    return put_row(outer_names, AT_LEN(outer_names), name, "", out, size) ||
           down_key(l, name, out, size) || up_key(l, name, out, size);
}

// --- a store in diffusers' layout --------------------------------------------------------------
static size_t rename_one(const void *ctx, const at_weight *w, const char *name, at_alias_row *rows)
{
    (void)w;
    return at_unet_original_key(ctx, name, rows->name, sizeof rows->name);
}

static at_status convert(at_store *s, const char *prefix, at_store **out)
{
    at_unet_levels levels;
    at_unet_levels_read(s, prefix, &levels);
    return at_convert_names(s, prefix, rename_one, &levels, out);
}

static const at_probe probes[] = {
    {.key = "conv_in.weight"},
    {.key = "time_embedding.linear_1.weight"},
    {.key = "down_blocks.0.resnets.0.conv1.weight"},
    {.key = "up_blocks.0.resnets.0.conv1.weight"},
};

const at_arch at_arch_unet_diffusers = {
    .name = "unet_diffusers",
    .title = "UNet in diffusers' layout",
    .part = AT_PART_DENOISER,
    .probes = probes,
    .n_probes = AT_LEN(probes),
    .convert = convert,
};
