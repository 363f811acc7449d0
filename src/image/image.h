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
    int64_t frames;      // pictures of one size behind each other in rgb and alpha; 1 for stills
    at_text_chunk *text; // strings owned by the picture
    size_t text_count;
} at_picture;

// Any size up to 65535 a side and 1 GiB of pixels as RGBA in all, frames included.
#define AT_PICTURE_SIDE   65535
#define AT_PICTURE_PIXELS ((uint64_t)1 << 28)

// A picture of a kind that its first bytes tell: PNG, JPEG or WebP (stills and animations).
// AT_EUNSUPPORTED names other known kinds, AT_EFORMAT what is broken. Turned as EXIF says; colour profiles
// are ignored, as Pillow does.
at_status at_picture_decode(const char *label, const void *bytes, size_t n, at_picture *out);
at_status at_picture_load(const char *path, at_picture *out);
void at_picture_free(at_picture *p);
// AT_EFORMAT with the numbers if a side is 0 or a limit is passed.
at_status at_picture_check_size(const char *label, uint64_t width, uint64_t height);

// 8/16 bit, grey, palette, alpha, interlaced.
at_status at_png_decode(const char *label, const void *bytes, size_t n, at_picture *out);
at_status at_png_load(const char *path, at_picture *out);
// Baseline and progressive; grey, YCbCr, RGB, CMYK and YCCK (taken for Adobe's inverted ones, as Pillow).
at_status at_jpeg_decode(const char *label, const void *bytes, size_t n, at_picture *out);
// Lossy, lossless, alpha; all frames of an animation.
at_status at_webp_decode(const char *label, const void *bytes, size_t n, at_picture *out);

// Encode f32 [height, width, channels] (3 or 4), clipped to 0..1 and truncated to 8 bits as ComfyUI does
// (uint8(clip(255 * x, 0, 255))). compress_level 0..9. Result bytes are the caller's (at_free).
at_status at_png_encode(const float *pixels, int64_t width, int64_t height, int channels,
                        int compress_level, const at_text_chunk *text, size_t text_count,
                        uint8_t **out, size_t *n);
// Encode and write atomically.
at_status at_png_save(const char *path, const float *pixels, int64_t width, int64_t height,
                      int channels, int compress_level, const at_text_chunk *text,
                      size_t text_count);

// Several pictures as one animation, or a still if there is but one. f32 [count, height, width, channels] (3
// or 4), clipped and truncated as above; each is shown for `ms` milliseconds, for ever in turn. Equal
// neighbours become one that stays longer.
typedef struct at_frames {
    const float *pixels;
    int64_t count, width, height;
    int channels, ms;
} at_frames;
// APNG. Chunks are written behind the pictures as "comf": key, 0, value. AT_EINVAL for more than 65 s.
at_status at_apng_encode(const at_frames *f, int compress_level, const at_text_chunk *chunks,
                         size_t count, uint8_t **out, size_t *n);
// WebP: quality 0..100, method 0 (fast) to 6; exif is a TIFF block or NULL. Sides up to 16383.
typedef struct at_webp_how {
    bool lossless;
    int quality, method;
    const uint8_t *exif;
    size_t exif_bytes;
} at_webp_how;
at_status at_webp_encode(const at_frames *f, const at_webp_how *how, uint8_t **out, size_t *n);
// One picture (3 channels; a fourth is left out) as JPEG; quality 1..100.
at_status at_jpeg_encode(const float *pixels, int64_t width, int64_t height, int channels,
                         int quality, uint8_t **out, size_t *n);
// Texts by EXIF tag as a TIFF block with one directory, in the order of tags. at_free.
typedef struct at_exif_text {
    uint16_t tag;
    const char *text; // ASCII; other bytes become "?"
} at_exif_text;
at_status at_exif_encode(const at_exif_text *texts, size_t count, uint8_t **out, size_t *n);
// uint8(clip(255 * v, 0, 255)); NaN gives 0.
static inline uint8_t at_pixel_byte(float v)
{
    v *= 255.0f;
    return (uint8_t)(v > 255.0f ? 255.0f : v > 0.0f ? v : 0.0f);
}

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
