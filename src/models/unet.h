// SPDX-License-Identifier: Apache-2.0
// unet.h - what the rows of UNet families (unet_arch.c) share: one config, one set of weights, one
// forward.
#ifndef AT_MODELS_UNET_H
#define AT_MODELS_UNET_H

#include "models/unet_blocks.h"

// Weights point into the store; the pool is part of the struct.
typedef struct at_unet_weights {
    at_unet_embedding embedding;
    at_unet_block input[AT_UNET_BLOCKS], middle, output[AT_UNET_BLOCKS];
    at_unet_res middle_last;
    at_lin norm, out;
    at_unet_pool pool;
} at_unet_weights;

// config: an at_unet_shape. NULL, or why no UNet can look so.
const char *at_unet_measure(at_store *s, const char *prefix, void *config);
// config: an at_unet_shape, weights: an at_unet_weights.
void at_unet_bind(at_binder *b, const void *config, void *weights);
extern const at_denoiser_ops at_unet_ops;

#endif
