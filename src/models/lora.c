// SPDX-License-Identifier: Apache-2.0
// lora.c - names of layers that follow from the keys alone, and which network has more of them.
// Easy to get wrong: names of trainers write '_' for '.', so they cannot be turned back into keys;
// every key is turned into all its names instead.
// Owns nothing.
#include "models/lora.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "models/arch.h"

enum { MAX_KEY = 384 };

static void underscores(char *s)
{
    for (; *s; s++)
        if (*s == '.') *s = '_';
}

// `key` below the prefix, without its ".weight".
static void plain_names(const at_weight *w, const char *key, at_lora_names *out)
{
    at_lora_target to = {.record = w->name};
    char stem[MAX_KEY];
    size_t n = strlen(key);

    if (n >= sizeof stem) return;
    if (!at_ends_with(key, ".weight")) {
        at_lora_names_addf(out, &to, "diffusion_model.%s", key);
        return;
    }
    snprintf(stem, sizeof stem, "%.*s", (int)(n - strlen(".weight")), key);
    at_lora_names_addf(out, &to, "diffusion_model.%s", stem);
    underscores(stem);
    at_lora_names_addf(out, &to, "lora_unet_%s", stem);
}

at_status at_model_lora_names(const at_model *m, at_lora_names *out)
{
    static const struct {
        const char *key;
        void (*names)(at_store *s, const char *prefix, at_lora_names *out);
    } kinds[] = {
        {"double_blocks.0.img_attn.qkv.weight", at_flux_lora_names},
        {"input_blocks.0.0.weight", at_unet_lora_names},
    };
    at_store *s = at_model_store(m);
    const char *prefix = at_model_prefix(m);
    size_t n = strlen(prefix);

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (strncmp(w->name, prefix, n) == 0) plain_names(w, w->name + n, out);
    }
    for (size_t i = 0; i < AT_LEN(kinds); i++)
        if (at_store_findf(s, "%s%s", prefix, kinds[i].key)) kinds[i].names(s, prefix, out);
    return AT_OK;
}

// --- text encoders ---------------------------------------------------------------------------------
static const char *const clip_layers[] = {"mlp.fc1",          "mlp.fc2",
                                          "self_attn.k_proj", "self_attn.q_proj",
                                          "self_attn.v_proj", "self_attn.out_proj"};

// What files call the layers of a CLIP encoder: prefixes before "text_model_encoder_layers_.." (with
// underscores) and before "text_model.encoder.layers." (with dots); and its text projection.
typedef struct clip_place {
    const char *place; // "clip_l"
    const char *flat[3], *dotted[2], *projection[2];
} clip_place;
static const clip_place place_l = {
    "clip_l", {"lora_te_", "lora_te1_"}, {"text_encoder."}, {"lora_te1_text_projection"}};
static const clip_place place_h = {"clip_h", {"lora_te_", "lora_te1_"}, {"text_encoder."}, {0}};
static const clip_place place_g_beside_l = {
    "clip_g",
    {"lora_te2_"},
    {"text_encoder_2."},
    {"lora_prior_te_text_projection", "lora_te2_text_projection"}};
static const clip_place place_g_alone = {
    "clip_g",
    {"lora_te_", "lora_prior_te_"},
    {"text_encoder."},
    {"lora_prior_te_text_projection", "lora_te2_text_projection"}};

static void layer_names(const clip_place *p, const at_lora_target *to, int block, const char *layer,
                        at_lora_names *out)
{
    char flat[64];

    snprintf(flat, sizeof flat, "%s", layer);
    underscores(flat);
    for (size_t i = 0; i < AT_LEN(p->flat) && p->flat[i]; i++)
        at_lora_names_addf(out, to, "%stext_model_encoder_layers_%d_%s", p->flat[i], block, flat);
    for (size_t i = 0; i < AT_LEN(p->dotted) && p->dotted[i]; i++)
        at_lora_names_addf(out, to, "%stext_model.encoder.layers.%d.%s", p->dotted[i], block,
                           layer);
}

static void clip_names(const clip_place *p, at_store *s, const char *prefix, at_lora_names *out)
{
    enum { MAX_LAYERS = 32 };

    for (int b = 0; b < MAX_LAYERS; b++)
        for (size_t c = 0; c < AT_LEN(clip_layers); c++) {
            const at_weight *w = at_store_findf(s, "%stext_model.encoder.layers.%d.%s.weight",
                                                prefix, b, clip_layers[c]);
            if (w) layer_names(p, &(at_lora_target){.record = w->name}, b, clip_layers[c], out);
        }
    const at_weight *w = at_store_findf(s, "%stext_projection.weight", prefix);
    for (size_t i = 0; w && i < AT_LEN(p->projection) && p->projection[i]; i++)
        at_lora_names_add(out, &(at_lora_target){.record = w->name}, p->projection[i]);
}

// OneTrainer counts the encoders: T5 comes behind those that are there, and with CLIP-L alone it goes
// by two numbers.
static void t5_names(const at_lora_encoders *all, const at_weight *w, const char *key,
                     at_lora_names *out)
{
    at_lora_target to = {.record = w->name};
    int index = 1 + (all->g != NULL) + (all->l != NULL);
    char stem[MAX_KEY];
    size_t n = strlen(key);

    if (!at_ends_with(key, ".weight") || n >= sizeof stem) return;
    snprintf(stem, sizeof stem, "%.*s", (int)(n - strlen(".weight")), key);
    underscores(stem);
    if (all->l && index == 2) at_lora_names_addf(out, &to, "lora_te%d_%s", index++, stem);
    at_lora_names_addf(out, &to, "lora_te%d_%s", index, stem);
}

at_status at_encoder_lora_names(const at_lora_encoders *all, const at_encoder *which,
                                at_lora_names *out)
{
    at_store *s = at_encoder_store(which);
    const char *prefix = at_encoder_prefix(which);
    const clip_place *p = which == all->l    ? &place_l
                          : which == all->h  ? &place_h
                          : which == all->t5 ? NULL
                          : all->l           ? &place_g_beside_l
                                             : &place_g_alone;
    const char *place = p ? p->place : "t5xxl";
    size_t skip = strlen(prefix);

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        const char *key = w->name + skip;
        if (strncmp(w->name, prefix, skip) != 0 || !at_ends_with(key, ".weight")) continue;
        at_lora_names_addf(out, &(at_lora_target){.record = w->name},
                           "text_encoders.%s.transformer.%.*s", place,
                           (int)(strlen(key) - strlen(".weight")), key);
        if (!p) t5_names(all, w, key, out);
    }
    if (p) clip_names(p, s, prefix, out);
    return AT_OK;
}
