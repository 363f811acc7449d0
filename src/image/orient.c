// SPDX-License-Identifier: Apache-2.0
// orient.c - see orient.h.
#include "image/orient.h"

#include <string.h>

#include "base/mem.h"

static uint32_t tiff_number(const uint8_t *p, int n, bool little)
{
    uint32_t v = 0;

    for (int i = 0; i < n; i++)
        v = v << 8 | p[little ? n - 1 - i : i];
    return v;
}

int at_exif_orientation(const uint8_t *e, size_t n)
{
    bool little;
    uint32_t dir, count;

    if (n < 8 || (memcmp(e, "II*", 4) != 0 && memcmp(e, "MM\0*", 4) != 0)) return 1;
    little = e[0] == 'I';
    dir = tiff_number(e + 4, 4, little);
    if (dir > n - 2) return 1;
    count = tiff_number(e + dir, 2, little);
    for (size_t at = dir + 2; count-- && at + 12 <= n; at += 12) {
        if (tiff_number(e + at, 2, little) != 0x0112) continue;
        uint32_t v = tiff_number(e + at + 8, 2, little);
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

// Values 5 to 8 swap the sides; then each is a pair of flips.
static float *turned(const float *in, int64_t w, int64_t h, int64_t frames, int channels,
                     int orientation)
{
    bool swap = orientation >= 5;
    bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    int64_t ow = swap ? h : w, oh = swap ? w : h;
    float *out = at_alloc((size_t)(frames * w * h * channels) * sizeof *out);

    if (!out) return NULL;
    for (int64_t f = 0; f < frames; f++)
        for (int64_t y = 0; y < oh; y++)
            for (int64_t x = 0; x < ow; x++) {
                int64_t sx = swap ? y : x, sy = swap ? x : y;
                if (flip_x) sx = w - 1 - sx;
                if (flip_y) sy = h - 1 - sy;
                memcpy(out + ((f * oh + y) * ow + x) * channels,
                       in + ((f * h + sy) * w + sx) * channels, (size_t)channels * sizeof *out);
            }
    return out;
}

at_status at_picture_turn(const char *label, at_picture *p, int orientation)
{
    float *rgb, *alpha = NULL;
    int64_t w = p->width, frames = p->frames;

    if (orientation <= 1 || orientation > 8) return AT_OK;
    rgb = turned(p->rgb, p->width, p->height, frames, 3, orientation);
    if (p->alpha) alpha = turned(p->alpha, p->width, p->height, frames, 1, orientation);
    if (!rgb || (p->alpha && !alpha)) {
        at_free(rgb);
        at_free(alpha);
        return at_fail(AT_ENOMEM, "%s: no memory to turn the picture", label);
    }
    at_free(p->rgb);
    at_free(p->alpha);
    p->rgb = rgb;
    p->alpha = alpha;
    if (orientation >= 5) {
        p->width = p->height;
        p->height = w;
    }
    return AT_OK;
}
