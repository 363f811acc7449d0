// SPDX-License-Identifier: Apache-2.0
// vae_encode.h - pixels through a VAE object into a latent's samples, for the nodes that encode.
#ifndef AT_NODES_VAE_ENCODE_H
#define AT_NODES_VAE_ENCODE_H

#include "nodes/env.h"
#include "nodes/objects.h"

// pixels [b, h, w, c] on the host -> *out [b, c, h, w] f32 on the host, contiguous, the caller's. tile 0:
// whole; else tile and overlap in pixels. vae may be NULL, which is refused.
at_status at_vae_to_latent(at_node_ctx *c, const at_object *vae, const at_tensor *pixels, int tile,
                           int overlap, at_tensor **out);

// A LATENT as an IMAGE in *out; tile and overlap as above.
at_status at_vae_to_image(at_node_ctx *c, const at_object *vae, const at_object *samples, int tile,
                          int overlap, at_value *out);

#endif
