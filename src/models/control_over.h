// SPDX-License-Identifier: Apache-2.0
// control_over.h - ControlNet files that are no network by themselves: low rank or differences.
// Idea: both become an overlay whose records are made of the base model's when they are wanted.
// Source: ComfyUI 0.3.64 comfy/controlnet.py (ControlLora.pre_run, the "difference" branch).
// Ownership: results keep both files' stores alive.
#ifndef AT_MODELS_CONTROL_OVER_H
#define AT_MODELS_CONTROL_OVER_H

#include "models/models.h"

bool at_control_is_lora(at_store *s);
bool at_control_is_difference(at_store *s);

// The base's weights, changed by `lora` and joined by what only it has, under the keys of a bare
// ControlNet. AT_EINVAL if the base is no UNet.
at_status at_control_lora_over(at_store *lora, const at_model *base, at_store **out);
// Every "control_model." record plus the base's of the same name.
at_status at_control_add_base(at_store *difference, const at_model *base, at_store **out);

#endif
