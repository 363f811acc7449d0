// SPDX-License-Identifier: Apache-2.0
// patch_unet.h - the patches of models/patch.h that ComfyUI's nodes put into a UNet.
// Idea: each is a struct of its numbers, filled by a node, and one table of hooks. Those that
// remember something between two sites (how tokens were cut, what attention looked at) keep it in
// the same struct, so each sampling run has its own (nodes/hooks.h: at_hook_ops.patch).
// Ownership: FreeU's struct belongs to its patch; those with a state belong to the run, which also
// calls at_*_clear.
#ifndef AT_MODELS_PATCH_UNET_H
#define AT_MODELS_PATCH_UNET_H

#include "base/rng.h"
#include "models/patch.h"

// FreeU (Si et al. 2023, arXiv:2309.11497): where the output half meets a skip, half the channels
// are scaled by b and the skip's lowest frequencies by s; version 2 scales more where the map is
// bright.
typedef struct at_freeu {
    int64_t channels;  // the network's base width: acts where 4 (1) and 2 (2) times as many are
    double b[2], s[2]; // of 4 times, of 2 times
    bool v2;
} at_freeu;
extern const at_patch_ops at_patch_freeu;

// HyperTile (github.com/tfernd/HyperTile): self attention within tiles of random sizes.
typedef struct at_hypertile {
    int64_t tile, swap, depth; // tile: in latent cells; levels 0 .. depth are cut
    bool scale_depth;
    at_mt19937 random;
    int64_t tiles_h, tiles_w, h, w; // of the attention that is under way; tiles_h 0: not cut
} at_hypertile;
extern const at_patch_ops at_patch_hypertile;

// Token merging (Bolya and Hoffman 2023, arXiv:2303.17604): on the first level, similar queries of
// self attention become one.
typedef struct at_tome {
    double ratio;
    at_mt19937 random;
    int32_t
        *row; // [batch, tokens] of the attention under way: where each token went; NULL: not merged
    int64_t batch, tokens, rows;
} at_tome;
extern const at_patch_ops at_patch_tome;
void at_tome_clear(at_tome *t);

// Perturbed attention: in the middle block every token looks at itself alone. Takes no struct
// (NULL).
extern const at_patch_ops at_patch_self_only;

// What the middle's first self attention looked at under the negative prompt.
typedef struct at_attention_map {
    float *
        seen; // [batch, tokens]: attention that a token got, summed over queries, mean of the heads
    int64_t batch, tokens;
} at_attention_map;
extern const at_patch_ops at_patch_attention_map;
void at_attention_map_clear(at_attention_map *m);

// A hypernetwork (AUTOMATIC1111's .pt files): small networks that change what keys and values are
// projected from, one pair for each width. *self goes to at_patches_add; it keeps the store. NULL
// in *self: an activation that ComfyUI does not know either; it says so and changes nothing.
// AT_EFORMAT: a layer lacks its bias or fits nowhere.
at_status at_hypernet_open(at_store *s, double strength, void **self);
extern const at_patch_ops at_patch_hypernet;

#endif
