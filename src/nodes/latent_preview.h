// SPDX-License-Identifier: Apache-2.0
// latent_preview.h - a rough picture of what a sampler has so far.
// Owns nothing.
#ifndef AT_NODES_LATENT_PREVIEW_H
#define AT_NODES_LATENT_PREVIEW_H

#include "nodes/env.h"

// ComfyUI's latent2rgb: the format's linear map from a latent to colours, shown by at_node_preview. x0 is the network's
// estimate of the finished latent, f32 [b, c, h, w] on any device; its first picture is shown. Does nothing where
// previews are off or the format has no map; a failure is logged, for a preview must not end a run.
void at_latent_preview(at_node_ctx *c, const at_latent_format *f, const at_tensor *x0);

#endif
