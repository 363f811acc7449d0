// SPDX-License-Identifier: Apache-2.0
// lora.h - the names by which adapter files call the layers of our networks.
// Source: comfyui-contract section 7.7; ComfyUI 0.3.64 comfy/lora.py model_lora_keys_unet and _clip,
// comfy/utils.py unet_to_diffusers and flux_to_diffusers (facts).
// Owns nothing: names are added to the caller's list.
#ifndef AT_MODELS_LORA_H
#define AT_MODELS_LORA_H

#include "models/models.h"
#include "weight/lora.h"

// Every name of every layer of a denoiser.
at_status at_model_lora_names(const at_model *m, at_lora_names *out);

// The encoders that work together; NULL: absent. Which index a name carries depends on all of them.
typedef struct at_lora_encoders {
    const at_encoder *l, *g, *h, *t5;
} at_lora_encoders;
// Names of the layers of one of them, `which`.
at_status at_encoder_lora_names(const at_lora_encoders *all, const at_encoder *which,
                                at_lora_names *out);

// --- one network's own names (lora_flux.c, lora_unet.c) ----------------------------------------------
void at_flux_lora_names(at_store *s, const char *prefix, at_lora_names *out);
void at_unet_lora_names(at_store *s, const char *prefix, at_lora_names *out);

#endif
