// SPDX-License-Identifier: Apache-2.0
// fuzz_png.c - bytes as a picture.
// Promises: values lie in 0..1; a decoded picture can be saved and decodes to the same pixels again.
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "image/image.h"

#define MAX_PIXELS (1 << 16) // larger ones cost the fuzzer too much time

static bool small_enough(const uint8_t *p, size_t n)
{
    uint64_t side[2] = {0, 0};

    if (n < 24) return true;
    for (int i = 0; i < 8; i++)
        side[i / 4] = side[i / 4] << 8 | p[16 + i];
    return side[0] > 65535 || side[1] > 65535 || side[0] * side[1] <= MAX_PIXELS;
}

static void round_trip(const at_picture *p)
{
    uint8_t *bytes;
    size_t n, count = (size_t)(p->width * p->height);
    at_picture again;

    FUZZ_CHECK(at_png_encode(p->rgb, p->width, p->height, 3, 0, NULL, 0, &bytes, &n) == AT_OK);
    FUZZ_CHECK(at_png_decode("again", bytes, n, &again) == AT_OK);
    FUZZ_CHECK(again.width == p->width && again.height == p->height && !again.alpha);
    FUZZ_CHECK(!memcmp(again.rgb, p->rgb, count * 3 * sizeof *p->rgb));
    at_picture_free(&again);
    at_free(bytes);
}

static uint32_t checksum(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffff;

    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
    }
    return ~c;
}

// Give every chunk the checksum that its bytes ask for, or the fuzzer never gets behind the first.
static void mend(uint8_t *p, size_t size)
{
    for (size_t at = 8; size - at >= 12;) {
        uint64_t n = (uint64_t)p[at] << 24 | p[at + 1] << 16 | p[at + 2] << 8 | p[at + 3];
        if (n > size - at - 12) return;
        uint32_t c = checksum(p + at + 4, (size_t)n + 4);
        for (int i = 0; i < 4; i++)
            p[at + 8 + n + (size_t)i] = (uint8_t)(c >> (24 - 8 * i));
        at += (size_t)n + 12;
    }
}

static void run(const uint8_t *data, size_t size)
{
    at_picture p;

    if (at_png_decode("fuzz", data, size, &p) != AT_OK) return;
    for (int64_t i = 0; i < p.width * p.height * 3; i++)
        FUZZ_CHECK(p.rgb[i] >= 0 && p.rgb[i] <= 1);
    for (size_t i = 0; i < p.text_count; i++)
        FUZZ_CHECK(*p.text[i].key && p.text[i].value);
    round_trip(&p);
    at_picture_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    if (!small_enough(data, size)) return 0;
    run(data, size);
    if (size < 20) return 0;
    copy = malloc(size);
    FUZZ_CHECK(copy);
    memcpy(copy, data, size);
    mend(copy, size);
    run(copy, size);
    free(copy);
    return 0;
}
