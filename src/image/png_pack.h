// SPDX-License-Identifier: Apache-2.0
// png_pack.h - a picture's samples as the zlib stream of a PNG's IDAT chunks.
#ifndef AT_IMAGE_PNG_PACK_H
#define AT_IMAGE_PNG_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// pixels [height, width, channels] in 0..1, rounded as at_pixel_byte does; level 0 (stored) to 9. The
// bytes are the same on every number of threads. The caller frees *out (at_free). AT_ENOMEM.
at_status at_png_pack(const float *pixels, int64_t width, int64_t height, int channels, int level,
                      uint8_t **out, size_t *n);

#endif
