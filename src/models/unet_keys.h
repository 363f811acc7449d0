// SPDX-License-Identifier: Apache-2.0
// unet_keys.h - diffusers' names of a UNet's tensors, and the original ones that atelier knows.
// Idea: diffusers counts levels and blocks inside them, the original layout counts blocks through
// all levels; with the number of blocks per level one name follows from the other.
// Source: ComfyUI 0.3.64 comfy/utils.py, unet_to_diffusers.
#ifndef AT_MODELS_UNET_KEYS_H
#define AT_MODELS_UNET_KEYS_H

#include "models/unet_blocks.h"

enum { AT_UNET_LEVELS = 8 };
typedef struct at_unet_levels {
    int count;
    int down[AT_UNET_LEVELS], up[AT_UNET_LEVELS]; // residual blocks of diffusers' level i
    bool up_attention[AT_UNET_LEVELS];            // the last block of up level i has a transformer
} at_unet_levels;

// Of a store in diffusers' layout, and of a net in the original one.
void at_unet_levels_read(at_store *s, const char *prefix, at_unet_levels *l);
void at_unet_levels_of(const at_unet_shape *shape, at_unet_levels *l);
// "down_blocks.0.attentions.1.norm.weight" -> "input_blocks.2.1.norm.weight". False: no name of a
// UNet of these levels (or longer than size).
bool at_unet_original_key(const at_unet_levels *l, const char *name, char *out, size_t size);

#endif
