// SPDX-License-Identifier: Apache-2.0
// quantize.h - a picture in few colours, bit for bit as Pillow's Image.quantize does it.
// Owns nothing: palettes are the caller's values.
#ifndef AT_IMAGE_QUANTIZE_H
#define AT_IMAGE_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct at_palette {
    int count; // 1 to 256
    uint8_t color[256][3];
} at_palette;

// Median cut of n pixels (rgb bytes) into at most `colors` (1 to 256) averages. AT_EINVAL, AT_ENOMEM.
at_status at_palette_make(const uint8_t *rgb, int64_t n, int colors, at_palette *out);

// Each pixel becomes the palette's nearest colour, in place; with `diffuse` the error goes on to the
// neighbours (Floyd and Steinberg 1976).
at_status at_palette_apply(const at_palette *p, uint8_t *rgb, int64_t width, int64_t height,
                           bool diffuse);

#endif
