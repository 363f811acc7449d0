// SPDX-License-Identifier: Apache-2.0
// tiny_vae.h - the tiny autoencoders among models/vae_approx, as stores.
#ifndef AT_NODES_TINY_VAE_H
#define AT_NODES_TINY_VAE_H

#include "nodes/env.h"

// Is `name` one of them ("taesd", "taef1")?
bool at_tiny_vae_known(const char *name);
// Both halves, with the numbers that fit VAELoader's latents. AT_ENOTFOUND names the file. *out is the caller's.
at_status at_tiny_vae_open(at_env *e, const char *name, at_store **out);
// The decoder alone, for latents as a sampler has them.
at_status at_tiny_decoder_open(at_env *e, const char *name, at_store **out);

#endif
