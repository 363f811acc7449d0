// SPDX-License-Identifier: Apache-2.0
// latent_format.h - a VAE's latents as a network wants them, and back (ComfyUI's process_in, process_out).
// Ownership: results belong to the op scope, inputs are borrowed. All tensors f32 [b, c, h, w].
#ifndef AT_MODELS_LATENT_FORMAT_H
#define AT_MODELS_LATENT_FORMAT_H

#include "models/models.h"

// (z - shift) * scale, or by channel (z - mean) * scale / std.
at_tensor *at_latent_to_model(at_ops *o, const at_latent_format *f, const at_tensor *z);
at_tensor *at_latent_from_model(at_ops *o, const at_latent_format *f, const at_tensor *x);
// The same on the host, in place: contiguous f32 [b, c, ...].
void at_latent_to_model_host(const at_latent_format *f, at_tensor *z);

// The format that a known network is trained on ("playground25"); NULL if there is no such network.
const at_latent_format *at_latent_format_of(const char *arch);

#endif
