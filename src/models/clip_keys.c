// SPDX-License-Identifier: Apache-2.0
// clip_keys.c - CLIP text encoders in other key layouts: OpenCLIP's (SD2, SDXL and refiner
// checkpoints), and SD1's without "text_model.".
// Source: ComfyUI 0.3.64 comfy/utils.py (clip_text_transformers_convert), supported_models.py.
// Easy to get wrong:
//   - OpenCLIP keeps q, k and v in one in_proj: rows 0, w, 2w
//   - its text_projection is multiplied from the right, so it is turned on its side; the turned copy
//     is made when it is first wanted
//   - bare files are told apart by their depth, in checkpoints the place says which encoder it is
// Owns nothing; the turned projection belongs to its overlay.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "models/convert.h"
#include "weight/overlay.h"

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
static const name_row layer_names[] = {
    {"ln_1.", "layer_norm1."},
    {"ln_2.", "layer_norm2."},
    {"mlp.c_fc.", "mlp.fc1."},
    {"mlp.c_proj.", "mlp.fc2."},
    {"attn.out_proj.", "self_attn.out_proj."},
};

// --- OpenCLIP ----------------------------------------------------------------------------------
// in_proj_weight and in_proj_bias: three runs of rows.
static size_t split_qkv(int layer, const at_weight *w, const char *kind, at_alias_row *rows)
{
    static const char parts[] = {'q', 'k', 'v'};
    if (w->rank < 1 || w->shape[0] < 3 || w->shape[0] % 3) return 0;
    for (int i = 0; i < 3; i++) {
        snprintf(rows[i].name, sizeof rows[i].name,
                 "text_model.encoder.layers.%d.self_attn.%c_proj.%s", layer, parts[i], kind);
        rows[i].rows = w->shape[0] / 3;
        rows[i].first = i * rows[i].rows;
    }
    return 3;
}

static size_t rename_open(const void *ctx, const at_weight *w, const char *name, at_alias_row *rows)
{
    int layer, end = -1;
    (void)ctx;
    for (size_t i = 0; i < AT_LEN(outer_names); i++) {
        if (strcmp(name, outer_names[i].open) != 0) continue;
        snprintf(rows->name, sizeof rows->name, "%s", outer_names[i].usual);
        return 1;
    }
    if (sscanf(name, "transformer.resblocks.%d.%n", &layer, &end) < 1 || end < 0 || layer < 0)
        return 0;
    const char *rest = name + end;
    if (strcmp(rest, "attn.in_proj_weight") == 0) return split_qkv(layer, w, "weight", rows);
    if (strcmp(rest, "attn.in_proj_bias") == 0) return split_qkv(layer, w, "bias", rows);
    for (size_t i = 0; i < AT_LEN(layer_names); i++) {
        size_t len = strlen(layer_names[i].open);
        if (strncmp(rest, layer_names[i].open, len) != 0 || strlen(rest + len) > 16) continue;
        snprintf(rows->name, sizeof rows->name, "text_model.encoder.layers.%d.%s%s", layer,
                 layer_names[i].usual, rest + len);
        return 1;
    }
    return 0;
}

// --- the projection on its side ----------------------------------------------------------------
typedef struct turned {
    at_store *store; // counted
    const at_weight *from;
} turned;

static at_status turn(void *ctx, size_t row, const at_weight *w, void *bytes)
{
    const at_weight *from = ((turned *)ctx)->from;
    size_t size = at_dtype_size(w->dtype);
    int64_t rows = w->shape[0], cols = w->shape[1];
    at_status st = AT_OK;

    (void)row;
    AT_TRY(at_weight_ready(from));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            memcpy((char *)bytes + (size_t)(i * cols + j) * size,
                   (const char *)from->data + (size_t)(j * rows + i) * size, size);
out:
    return st;
}

static void free_turned(void *ctx)
{
    at_store_release(&((turned *)ctx)->store);
    at_free(ctx);
}

// *s with text_projection.weight, the turned `from`, laid over it.
static at_status add_projection(at_store **s, at_store *base, const at_weight *from)
{
    at_status st = AT_OK;
    at_overlay_row row = {.name = "text_projection.weight",
                          .dtype = from->dtype,
                          .rank = 2,
                          .shape = {from->shape[1], from->shape[0]}};
    turned *t = at_calloc(1, sizeof *t);
    at_store *over = NULL;

    if (!t) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a projection", at_store_path(base)));
    *t = (turned){at_store_retain(base), from};
    at_overlay_maker maker = {turn, free_turned, t};
    AT_TRY(at_store_overlay(*s, &row, 1, &maker, &over));
    at_store_release(s);
    *s = over;
out:
    return st;
}

static at_status convert_open(at_store *s, const char *prefix, at_store **out)
{
    at_status st = AT_OK;
    at_store *as = NULL;
    const at_weight *projection = at_store_findf(s, "%stext_projection", prefix);

    *out = NULL;
    AT_TRY(at_convert_names(s, prefix, rename_open, NULL, &as));
    if (projection && projection->rank == 2 && (projection->data || projection->lazy))
        AT_TRY(add_projection(&as, s, projection));
    *out = as;
    as = NULL;
out:
    at_store_release(&as);
    return st;
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
