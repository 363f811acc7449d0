// SPDX-License-Identifier: Apache-2.0
// resize.h - pictures, masks and latents at another size, as ComfyUI's common_upscale.
// Idea: one door for every layout: channels may lie last (IMAGE), first (LATENT) or be one (MASK), and the
// input may be any strided view; the result is contiguous in the same layout.
// Easy to get wrong: positions are computed in f32 as torch does, so that no pixel moves by one; lanczos goes
// through 8 bits as in Pillow, and Pillow multiplies colours by their alpha on the way.
// Sources: torch.nn.functional.interpolate (align_corners false), Pillow's Resample.c, ComfyUI 0.3.64.
// Owns: results are the caller's.
#ifndef AT_IMAGE_RESIZE_H
#define AT_IMAGE_RESIZE_H

#include "tensor/tensor.h"

typedef enum at_resize_how {
    AT_RESIZE_NEAREST, // "nearest-exact"
    AT_RESIZE_BILINEAR,
    AT_RESIZE_AREA,
    AT_RESIZE_BICUBIC,
    AT_RESIZE_LANCZOS, // 2 (grey, alpha), 3 or 4 channels
    AT_RESIZE_BISLERP  // latents: turns vectors along their angle
} at_resize_how;

// The method that ComfyUI calls `name`: AT_EINVAL if there is none.
at_status at_resize_how_of(const char *name, at_resize_how *out);

typedef enum at_pixel_order {
    AT_ORDER_NHWC, // [b, h, w, c]
    AT_ORDER_NCHW, // [b, c, h, w]
    AT_ORDER_NHW   // [b, h, w]
} at_pixel_order;

// f32 on the host in and out. `centre`: first cut the input to the new proportions around its middle
// (ComfyUI's crop "center"). AT_EINVAL for another rank or dtype, for a side below 1 or above
// 16384 * 8, or if nothing is left of the input; AT_EUNSUPPORTED for channels that lanczos cannot do.
at_status at_resize(const at_tensor *in, at_pixel_order order, int64_t width, int64_t height,
                    at_resize_how how, bool centre, at_tensor **out);

// f32 [b, h, w, c] contiguous on the host, in and out: bicubic whose filter grows with the reduction,
// as torch's interpolate(mode="bicubic", antialias=True). AT_EINVAL as above.
at_status at_resize_antialias(const at_tensor *in, int64_t width, int64_t height, at_tensor **out);

#endif
