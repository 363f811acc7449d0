// SPDX-License-Identifier: Apache-2.0
// latent_preview.h - a rough picture of what a sampler has so far.
// Owns: a previewer is a run's; at_previewer_close.
#ifndef AT_NODES_LATENT_PREVIEW_H
#define AT_NODES_LATENT_PREVIEW_H

#include "nodes/env.h"

typedef struct at_previewer {
    at_node_ctx *node;
    const at_latent_format *format;
    at_vae *tiny; // NULL: the format's linear map
    at_ops *o;    // for it
} at_previewer;

// By the env's method: nothing, ComfyUI's latent2rgb (the format's linear map from a latent to colours), or a tiny
// autoencoder where its file is there (latent2rgb with a warning where it is not).
void at_previewer_open(at_node_ctx *c, const at_latent_format *f, at_previewer *out);
void at_previewer_close(at_previewer *p);
// Shows x0 by at_node_preview: the network's estimate of the finished latent, f32 [b, c, h, w] on any device; its first
// picture is shown. Does nothing where previews are off or the format has no map; a failure is logged, for a preview
// must not end a run.
void at_previewer_show(at_previewer *p, const at_tensor *x0);

#endif
