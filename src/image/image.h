// SPDX-License-Identifier: Apache-2.0
// image.h - pictures as bytes on disk and as floats in memory.
// Idea: the engine's IMAGE is f32 [batch, height, width, channels] in 0..1 on the host, as ComfyUI's.
// Owns: results are the caller's.
#ifndef AT_IMAGE_IMAGE_H
#define AT_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// Key and value of a PNG text chunk (tEXt, zTXt, iTXt in; tEXt out, latin-1 safe because JSON is ASCII).
typedef struct at_text_chunk {
    const char *key, *value;
} at_text_chunk;

typedef struct at_picture {
    float *rgb;   // [height, width, 3], 0..1, after EXIF orientation; palettes and grey become RGB
    float *alpha; // [height, width] 0..1, NULL if the file has none
    int64_t width, height;
    at_text_chunk *text; // strings owned by the picture
    size_t text_count;
} at_picture;

// Any size up to 65535 a side and 1 GiB of pixels; 8/16 bit, grey, palette, alpha, interlaced.
at_status at_png_decode(const char *label, const void *bytes, size_t n, at_picture *out);
at_status at_png_load(const char *path, at_picture *out);
void at_picture_free(at_picture *p);

// Encode f32 [height, width, channels] (3 or 4), clipped to 0..1 and truncated to 8 bits as ComfyUI does
// (uint8(clip(255 * x, 0, 255))). compress_level 0..9. Result bytes are the caller's (at_free).
at_status at_png_encode(const float *pixels, int64_t width, int64_t height, int channels,
                        int compress_level, const at_text_chunk *text, size_t text_count,
                        uint8_t **out, size_t *n);
// Encode and write atomically.
at_status at_png_save(const char *path, const float *pixels, int64_t width, int64_t height,
                      int channels, int compress_level, const at_text_chunk *text,
                      size_t text_count);

// ComfyUI's output naming (contract section 3.7): the folder below `root` and the next counter for
// `prefix`, %width% and the date words filled in, folders made; a prefix that leaves root is refused.
typedef struct at_save_path {
    char *folder;    // absolute, at_free
    char *filename;  // prefix without folders
    char *subfolder; // below root, "" if none
    int counter;     // of the first image; +1 per image
} at_save_path;
at_status at_save_path_next(const char *root, const char *prefix, int64_t width, int64_t height,
                            at_save_path *out);
void at_save_path_free(at_save_path *p);

#endif
