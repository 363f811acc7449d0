// SPDX-License-Identifier: Apache-2.0
// fuzz_picture.c - bytes as a JPEG or WebP, stills and animations.
// Promises: values lie in 0..1; a decoded picture can be saved as a lossless WebP and comes back the same.
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "image/image.h"

#define MAX_PIXELS (1 << 16) // larger ones cost the fuzzer too much time

// The largest size that a JPEG's frames or a WebP's chunks speak of: good enough to leave the slow ones out.
static bool small_enough(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i + 9 < n; i++) {
        bool frame = p[i] == 0xff && p[i + 1] >= 0xc0 && p[i + 1] <= 0xcf;
        int64_t h = p[i + 5] << 8 | p[i + 6], w = p[i + 7] << 8 | p[i + 8];
        if (frame && h * w > MAX_PIXELS) return false;
    }
    if (n >= 30 && !memcmp(p + 12, "VP8X", 4))
        return (p[24] | p[25] << 8) < 256 && (p[27] | p[28] << 8) < 256 && !p[26] && !p[29];
    if (n >= 30 && !memcmp(p + 12, "VP8 ", 4)) return !(p[27] & 0x3f) && !(p[29] & 0x3f);
    if (n >= 25 && !memcmp(p + 12, "VP8L", 4)) {
        uint32_t size =
            (uint32_t)p[21] | (uint32_t)p[22] << 8 | (uint32_t)p[23] << 16 | (uint32_t)p[24] << 24;
        return (size & 0x3fff) < 256 && (size >> 14 & 0x3fff) < 256;
    }
    return true;
}

static void round_trip(const at_picture *p)
{
    at_frames f = {p->rgb, 1, p->width, p->height, 3, 0};
    at_webp_how how = {.lossless = true, .quality = 0, .method = 0};
    uint8_t *bytes;
    size_t n;
    at_picture again;

    if (p->width > 16383 || p->height > 16383) return;
    FUZZ_CHECK(at_webp_encode(&f, &how, &bytes, &n) == AT_OK);
    FUZZ_CHECK(at_picture_decode("again", bytes, n, &again) == AT_OK);
    FUZZ_CHECK(again.width == p->width && again.height == p->height && again.frames == 1);
    FUZZ_CHECK(!memcmp(again.rgb, p->rgb, (size_t)(p->width * p->height) * 3 * sizeof *p->rgb));
    at_picture_free(&again);
    at_free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at_picture p;

    if (!small_enough(data, size)) return 0;
    if (at_picture_decode("fuzz", data, size, &p) != AT_OK) return 0;
    int64_t n = p.width * p.height * p.frames;
    FUZZ_CHECK(p.frames >= 1);
    for (int64_t i = 0; i < 3 * n; i++)
        FUZZ_CHECK(p.rgb[i] >= 0 && p.rgb[i] <= 1);
    for (int64_t i = 0; p.alpha && i < n; i++)
        FUZZ_CHECK(p.alpha[i] >= 0 && p.alpha[i] <= 1);
    round_trip(&p);
    at_picture_free(&p);
    return 0;
}
