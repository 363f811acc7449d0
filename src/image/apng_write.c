// SPDX-License-Identifier: Apache-2.0
// apng_write.c - several pictures as one animated PNG.
// Idea: each frame is encoded as a PNG of its own by at_png_encode; its IDAT chunks become the animation's
// first IDAT or fdAT chunks. A later frame is the smallest rectangle that holds all that changed.
// Easy to get wrong: fcTL and fdAT share one sequence; a picture that equals the one before only makes that
// one stay longer.
// Source: PNG specification (third edition), APNG chunks; Pillow's choices for rectangles and blending.
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "image/image.h"

typedef struct animation {
    const at_frames *f;
    int level;
    at_str out;
    uint32_t sequence;
    float *part; // a cut-out picture
} animation;

static uint32_t crc(const uint8_t *p, size_t n, uint32_t c)
{
    static const uint32_t nibble[16] = {// of the polynomial edb88320
                                        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                        0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    while (n--) {
        c ^= *p++;
        c = c >> 4 ^ nibble[c & 15];
        c = c >> 4 ^ nibble[c & 15];
    }
    return c;
}

static void big(uint8_t *p, uint32_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}
static uint32_t big_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

// A chunk of up to two parts.
static void chunk(at_str *s, const char *name, const void *a, size_t na, const void *b, size_t nb)
{
    uint8_t head[8], tail[4];
    big(head, (uint32_t)(na + nb), 4);
    memcpy(head + 4, name, 4);
    uint32_t c = crc(head + 4, 4, 0xffffffff);
    if (na) c = crc(a, na, c);
    if (nb) c = crc(b, nb, c);
    big(tail, ~c, 4);
    at_str_append_n(s, head, 8);
    if (na) at_str_append_n(s, a, na);
    if (nb) at_str_append_n(s, b, nb);
    at_str_append_n(s, tail, 4);
}

typedef struct box {
    int64_t x, y, w, h;
} box;

// What differs between two pictures in 8 bits; w 0: nothing.
static box changed(const at_frames *f, int64_t a, int64_t b)
{
    int64_t x0 = f->width, y0 = f->height, x1 = -1, y1 = -1, row = f->width * f->channels;
    const float *p = f->pixels + a * f->height * row, *q = f->pixels + b * f->height * row;
    for (int64_t y = 0; y < f->height; y++)
        for (int64_t i = 0; i < row; i++) {
            if (at_pixel_byte(p[y * row + i]) == at_pixel_byte(q[y * row + i])) continue;
            int64_t x = i / f->channels;
            if (x < x0) x0 = x;
            if (x > x1) x1 = x;
            if (y < y0) y0 = y;
            y1 = y;
        }
    if (x1 < 0) return (box){0};
    return (box){x0, y0, x1 - x0 + 1, y1 - y0 + 1};
}

static void frame_control(animation *a, const box *r, int64_t ms)
{
    uint8_t d[26] = {0}; // the last two: keep what is there, replace
    big(d, a->sequence++, 4);
    big(d + 4, (uint32_t)r->w, 4);
    big(d + 8, (uint32_t)r->h, 4);
    big(d + 12, (uint32_t)r->x, 4);
    big(d + 16, (uint32_t)r->y, 4);
    big(d + 20, (uint32_t)ms, 2);
    big(d + 22, 1000, 2);
    chunk(&a->out, "fcTL", d, sizeof d, NULL, 0);
}

// The IDAT chunks of a PNG as they are, or as fdAT.
static void frame_data(animation *a, const uint8_t *png, size_t n, bool first)
{
    for (size_t at = 8; at + 12 <= n;) {
        size_t bytes = big_at(png + at);
        if (memcmp(png + at + 4, "IDAT", 4) == 0) {
            uint8_t number[4];
            if (!first) big(number, a->sequence++, 4);
            chunk(&a->out, first ? "IDAT" : "fdAT", number, first ? 0 : 4, png + at + 8, bytes);
        }
        at += 12 + bytes;
    }
}

static at_status frame(animation *a, int64_t i, const box *r, int64_t ms, bool first)
{
    at_status st = AT_OK;
    const at_frames *f = a->f;
    uint8_t *png = NULL;
    size_t n;

    for (int64_t y = 0; y < r->h; y++)
        memcpy(a->part + y * r->w * f->channels,
               f->pixels + ((i * f->height + r->y + y) * f->width + r->x) * f->channels,
               (size_t)(r->w * f->channels) * sizeof *a->part);
    AT_TRY(at_png_encode(a->part, r->w, r->h, f->channels, a->level, NULL, 0, &png, &n));
    if (ms > UINT16_MAX)
        AT_TRY(at_fail(AT_EINVAL, "APNG: a picture shown for %lld ms: 65535 is the most",
                       (long long)ms));
    if (first) at_str_append_n(&a->out, png, 8 + 25); // signature and IHDR
    frame_control(a, r, ms);
    frame_data(a, png, n, first);
out:
    at_free(png);
    return st;
}

// Picture i and those equal to it; *next is the first that differs, or the end.
static void run_of(const at_frames *f, int64_t i, int64_t *next)
{
    *next = i + 1;
    while (*next < f->count && changed(f, i, *next).w == 0)
        ++*next;
}

static at_status write_frames(animation *a, uint32_t *shown)
{
    at_status st = AT_OK;
    const at_frames *f = a->f;
    box all = {0, 0, f->width, f->height};
    int64_t next = 0, before = -1;

    for (int64_t i = 0; i < f->count; i = next) {
        run_of(f, i, &next);
        box r = before < 0 ? all : changed(f, before, i);
        AT_TRY(frame(a, i, &r, (next - i) * f->ms, before < 0));
        before = i;
        ++*shown;
    }
out:
    return st;
}

static at_status check(const at_frames *f)
{
    if (f->count < 1 || f->count > INT32_MAX || f->ms < 0)
        return at_fail(AT_EINVAL, "APNG of %lld pictures, %d ms each", (long long)f->count, f->ms);
    return AT_OK; // sizes: at_png_encode
}

// acTL goes between IHDR and the first fcTL, and is left out of a still with its fcTL.
static void assemble(const animation *a, uint32_t shown, const at_text_chunk *chunks, size_t count,
                     at_str *s)
{
    const uint8_t *p = (const uint8_t *)a->out.data;
    uint8_t control[8] = {0}; // for ever
    big(control, shown, 4);
    at_str_append_n(s, p, 33);
    if (shown > 1) chunk(s, "acTL", control, 8, NULL, 0);
    size_t at = shown > 1 ? 33 : 33 + 38;
    at_str_append_n(s, p + at, a->out.len - at);
    for (size_t i = 0; i < count; i++)
        chunk(s, "comf", chunks[i].key, strlen(chunks[i].key) + 1, chunks[i].value,
              strlen(chunks[i].value));
    chunk(s, "IEND", NULL, 0, NULL, 0);
}

at_status at_apng_encode(const at_frames *f, int compress_level, const at_text_chunk *chunks,
                         size_t count, uint8_t **out, size_t *n)
{
    at_status st = AT_OK;
    animation a = {.f = f, .level = compress_level};
    at_str s = {0};
    uint32_t shown = 0;
    size_t bytes = 0;

    *out = NULL;
    AT_TRY(check(f));
    if (f->width > 0 && f->height > 0 && f->width <= AT_PICTURE_SIDE && f->channels > 0 &&
        at_mul_size((size_t)(f->width * f->height), (size_t)f->channels * sizeof(float), &bytes))
        a.part = at_alloc(bytes);
    if (!a.part)
        AT_TRY(at_fail(bytes ? AT_ENOMEM : AT_EINVAL, "APNG of %lld x %lld pixels: no memory",
                       (long long)f->width, (long long)f->height));
    AT_TRY(write_frames(&a, &shown));
    if (!a.out.failed) assemble(&a, shown, chunks, count, &s);
    *n = s.len;
    *out = a.out.failed ? NULL : (uint8_t *)at_str_take(&s);
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "APNG: no memory for the file"));
out:
    at_str_free(&s);
    at_str_free(&a.out);
    at_free(a.part);
    return st;
}
