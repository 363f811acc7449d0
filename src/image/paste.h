// SPDX-License-Identifier: Apache-2.0
// paste.h - one picture, mask or latent laid over another through a mask, as ComfyUI's `composite`.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_mask.py (LatentCompositeMasked,
// ImageCompositeMasked).
// Owns: the result is the caller's.
#ifndef AT_IMAGE_PASTE_H
#define AT_IMAGE_PASTE_H

#include "image/resize.h"

typedef struct at_paste_spec {
    int64_t x, y; // where the source's corner goes, in units; cut off at the target's edges
    int64_t unit; // units per element: 8 for latents, 1 for pictures
    const at_tensor *mask; // [b, h, w] or [b, 1, h, w], any size, 1 = source; or NULL
    bool resize;           // first bring the source to the target's size
} at_paste_spec;

// *out: `to` with `from` over it. f32 on the host, contiguous, both in `order` (NHWC or NCHW). The source
// is cut or repeated to the target's batch. AT_EINVAL if channels or ranks do not fit.
at_status at_paste(const at_tensor *to, const at_tensor *from, at_pixel_order order,
                   const at_paste_spec *how, at_tensor **out);

#endif
