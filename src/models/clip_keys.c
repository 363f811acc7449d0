// SPDX-License-Identifier: Apache-2.0
// clip_keys.c - CLIP in other key layouts: OpenCLIP's text encoders (SD2, SDXL and refiner
// checkpoints) and picture encoders (unCLIP checkpoints), and SD1's without "text_model.".
// Source: ComfyUI 0.3.64 comfy/utils.py (clip_text_transformers_convert), supported_models.py.
// Easy to get wrong:
//   - OpenCLIP keeps q, k and v in one in_proj: rows 0, w, 2w
//   - its projections are multiplied from the right, so they are turned on their side; the turned
//     copy is made when it is first wanted
//   - bare files are told apart by their depth, in checkpoints the place says which encoder it is
// Owns nothing.
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "models/convert.h"

extern const at_arch at_arch_clip_g, at_arch_clip_h, at_arch_clip_l;

typedef struct name_row {
    const char *open, *usual;
} name_row;

static const name_row outer_names[] = {
    {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
    {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
    {"ln_final.weight", "text_model.final_layer_norm.weight"},
    {"ln_final.bias", "text_model.final_layer_norm.bias"},
    {"text_projection.weight", "text_projection.weight"},
};
static const name_row picture_names[] = {
    {"class_embedding", "vision_model.embeddings.class_embedding"},
    {"conv1.weight", "vision_model.embeddings.patch_embedding.weight"},
    {"positional_embedding", "vision_model.embeddings.position_embedding.weight"},
    {"ln_pre.weight", "vision_model.pre_layrnorm.weight"},
    {"ln_pre.bias", "vision_model.pre_layrnorm.bias"},
    {"ln_post.weight", "vision_model.post_layernorm.weight"},
    {"ln_post.bias", "vision_model.post_layernorm.bias"},
};
static const name_row layer_names[] = {
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
    {"attn.out_proj.", "self_attn.out_proj."},
};

// The two halves of OpenCLIP.
typedef struct half {
    const char *model, *from, *projection; // usual word; the projection's open and usual name
    const name_row *outer;
    size_t n_outer;
} half;
static const half text_half = {"text_model", "text_projection", "text_projection.weight",
                               outer_names, AT_LEN(outer_names)};
static const half picture_half = {"vision_model", "proj", "visual_projection.weight", picture_names,
                                  AT_LEN(picture_names)};

// --- OpenCLIP ----------------------------------------------------------------------------------
// in_proj_weight and in_proj_bias: three runs of rows.
static size_t split_qkv(const half *h, int layer, const at_weight *w, const char *kind,
                        at_alias_row *rows)
{
    static const char parts[] = {'q', 'k', 'v'};
    if (w->rank < 1 || w->shape[0] < 3 || w->shape[0] % 3) return 0;
    for (int i = 0; i < 3; i++) {
        snprintf(rows[i].name, sizeof rows[i].name, "%s.encoder.layers.%d.self_attn.%c_proj.%s",
                 h->model, layer, parts[i], kind);
        rows[i].rows = w->shape[0] / 3;
        rows[i].first = i * rows[i].rows;
    }
    return 3;
}

static size_t rename_open(const void *ctx, const at_weight *w, const char *name, at_alias_row *rows)
{
    const half *h = ctx;
    int layer, end = -1;
    for (size_t i = 0; i < h->n_outer; i++) {
        if (strcmp(name, h->outer[i].open) != 0) continue;
        snprintf(rows->name, sizeof rows->name, "%s", h->outer[i].usual);
        return 1;
    }
    if (sscanf(name, "transformer.resblocks.%d.%n", &layer, &end) < 1 || end < 0 || layer < 0)
        return 0;
    const char *rest = name + end;
    if (strcmp(rest, "attn.in_proj_weight") == 0) return split_qkv(h, layer, w, "weight", rows);
    if (strcmp(rest, "attn.in_proj_bias") == 0) return split_qkv(h, layer, w, "bias", rows);
    for (size_t i = 0; i < AT_LEN(layer_names); i++) {
        size_t len = strlen(layer_names[i].open);
        if (strncmp(rest, layer_names[i].open, len) != 0 || strlen(rest + len) > 16) continue;
        snprintf(rows->name, sizeof rows->name, "%s.encoder.layers.%d.%s%s", h->model, layer,
                 layer_names[i].usual, rest + len);
        return 1;
    }
    return 0;
}

static at_status convert_half(at_store *s, const char *prefix, const half *h, at_store **out)
{
    at_status st = AT_OK;
    at_store *as = NULL;
    const at_weight *projection = at_store_findf(s, "%s%s", prefix, h->from);

    *out = NULL;
    AT_TRY(at_convert_names(s, prefix, rename_open, h, &as));
    if (projection) AT_TRY(at_convert_turned(&as, h->projection, s, projection));
    *out = as;
    as = NULL;
out:
    at_store_release(&as);
    return st;
}

static at_status convert_open(at_store *s, const char *prefix, at_store **out)
{
    return convert_half(s, prefix, &text_half, out);
}

static at_status convert_picture(at_store *s, const char *prefix, at_store **out)
{
    return convert_half(s, prefix, &picture_half, out);
}

// --- SD1 without "text_model." -----------------------------------------------------------------
static size_t rename_short(const void *ctx, const at_weight *w, const char *name,
                           at_alias_row *rows)
{
    (void)ctx, (void)w;
    int n = snprintf(rows->name, sizeof rows->name, "%s%s",
                     at_starts_with(name, "text_projection") ? "" : "text_model.", name);
    return n > 0 && (size_t)n < sizeof rows->name;
}

static at_status convert_short(at_store *s, const char *prefix, at_store **out)
{
    return at_convert_names(s, prefix, rename_short, NULL, out);
}

// --- rows --------------------------------------------------------------------------------------
static bool has_layer(at_store *s, const char *prefix, int layer)
{
    return at_store_findf(s, "%stransformer.resblocks.%d.ln_1.weight", prefix, layer) != NULL;
}

static bool is_open_g(at_store *s, const char *prefix)
{
    return has_layer(s, prefix, 30) || strcmp(prefix, "conditioner.embedders.1.model.") == 0;
}

static bool is_open_h(at_store *s, const char *prefix)
{
    return has_layer(s, prefix, 22) || strcmp(prefix, "cond_stage_model.model.") == 0;
}

// A picture encoder has these blocks too, but no table of tokens.
static const at_probe probes_open[] = {{.key = "transformer.resblocks.0.ln_1.weight"},
                                       {.key = "token_embedding.weight"}};
static const at_probe probes_short[] = {{.key = "encoder.layers.0.mlp.fc1.weight"},
                                        {.key = "embeddings.token_embedding.weight"}};

#define LAYOUT(id, name_, title_, probes_, match_, convert_)                                       \
    const at_arch at_arch_##id = {.name = #name_,                                                  \
                                  .title = title_,                                                 \
                                  .part = AT_PART_TEXT,                                            \
                                  .probes = probes_,                                               \
                                  .n_probes = AT_LEN(probes_),                                     \
                                  .match = match_,                                                 \
                                  .convert = convert_,                                             \
                                  .as = &at_arch_##name_}

LAYOUT(open_clip_g, clip_g, "CLIP-G in OpenCLIP's layout", probes_open, is_open_g, convert_open);
LAYOUT(open_clip_h, clip_h, "CLIP-H in OpenCLIP's layout", probes_open, is_open_h, convert_open);
LAYOUT(open_clip_l, clip_l, "CLIP-L in OpenCLIP's layout", probes_open, NULL, convert_open);
LAYOUT(clip_l_short, clip_l, "CLIP-L without \"text_model\"", probes_short, NULL, convert_short);

static const at_probe probes_picture[] = {{.key = "transformer.resblocks.0.ln_1.weight"},
                                          {.key = "class_embedding"},
                                          {.key = "conv1.weight"}};
const at_arch at_arch_open_clip_vision = {.name = "clip_vision",
                                          .title = "CLIP picture encoder in OpenCLIP's layout",
                                          .part = AT_PART_VISION,
                                          .probes = probes_picture,
                                          .n_probes = AT_LEN(probes_picture),
                                          .convert = convert_picture};
