// SPDX-License-Identifier: Apache-2.0
// png_pack.c - filtering and deflating in strips, one thread each.
// Idea: a deflate stream may be cut at any byte boundary that a flush makes, and checksums of parts
// combine, so strips of rows are packed side by side and laid behind each other: one valid stream,
// whatever reads it. A filter is chosen for each row by the least sum of absolute differences.
// Easy to get wrong: a strip's first row is filtered against the last row of the strip before; only
// the last strip ends the stream. Strips are cut by size, not by threads: the bytes stay the same.
// Source: PNG specification (filters, heuristic), RFC 1950 (header, Adler-32). Owns nothing.
#include "image/png_pack.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "base/thread.h"
#include "image/image.h"

enum { STRIP_BYTES = 64 << 10, FILTERS = 5 };

typedef struct strip {
    uint8_t *bytes;
    size_t n;
    uLong sum; // Adler-32 of what went in
    size_t raw;
    bool failed; // no memory
} strip;

typedef struct work {
    const float *pixels;
    int64_t height, stride, rows; // stride: samples in a row; rows: in a strip
    int bpp, level;
    strip *strips;
} work;

static void to_bytes(const work *w, int64_t y, uint8_t *out)
{
    const float *in = w->pixels + y * w->stride;
    for (int64_t i = 0; i < w->stride; i++)
        out[i] = at_pixel_byte(in[i]);
}

static uint8_t paeth(int a, int b, int c)
{
    int pa = abs(b - c), pb = abs(a - c), pc = abs(a + b - 2 * c);
    if (pa <= pb && pa <= pc) return (uint8_t)a;
    return (uint8_t)(pb <= pc ? b : c);
}

// Row x (with `bpp` zeros before it, as `up` has) through a filter; what it costs by the heuristic.
static uint64_t filtered(int kind, const uint8_t *x, const uint8_t *up, int64_t n, int bpp,
                         uint8_t *out)
{
    uint64_t cost = 0;
    switch (kind) {
    case 0: memcpy(out, x, (size_t)n); break;
    case 1:
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint8_t)(x[i] - x[i - bpp]);
        break;
    case 2:
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint8_t)(x[i] - up[i]);
        break;
    case 3:
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint8_t)(x[i] - ((x[i - bpp] + up[i]) >> 1));
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint8_t)(x[i] - paeth(x[i - bpp], up[i], up[i - bpp]));
    }
    for (int64_t i = 0; i < n; i++)
        cost += (uint64_t)(out[i] < 128 ? out[i] : 256 - out[i]);
    return cost;
}

// Rows y0 .. y1, each behind the number of its filter. rows: three rows with bpp zeros before each.
static void filter_rows(const work *w, int64_t y0, int64_t y1, uint8_t *rows, uint8_t *out)
{
    int64_t n = w->stride, pitch = n + w->bpp;
    uint8_t *up = rows + w->bpp, *x = rows + pitch + w->bpp, *trial = rows + 2 * pitch;
    if (y0 > 0) to_bytes(w, y0 - 1, up);
    for (int64_t y = y0; y < y1; y++, out += n + 1) {
        uint64_t least = UINT64_MAX;
        to_bytes(w, y, x);
        for (int kind = 0; kind < (w->level ? FILTERS : 1); kind++) {
            uint64_t cost = filtered(kind, x, up, n, w->bpp, trial);
            if (cost >= least) continue;
            least = cost;
            out[0] = (uint8_t)kind;
            memcpy(out + 1, trial, (size_t)n);
        }
        uint8_t *t = up;
        up = x;
        x = t;
    }
}

static voidpf z_alloc(voidpf opaque, uInt items, uInt size)
{
    (void)opaque;
    return at_calloc(items, size);
}

static void z_free(voidpf opaque, voidpf p)
{
    (void)opaque;
    at_free(p);
}

// Deflates `raw` into s->bytes; `last` ends the stream.
static bool deflate_strip(const work *w, const uint8_t *raw, bool last, strip *s)
{
    z_stream z = {.zalloc = z_alloc, .zfree = z_free};
    // Filtered pixels of a photograph hold runs and no phrases: looking for runs alone is 2.5 times as
    // fast as level 4's search and loses nothing there. Who asks for the smallest file gets it all.
    int strategy = w->level <= 4 ? Z_RLE : Z_FILTERED;
    if (deflateInit2(&z, w->level, Z_DEFLATED, -15, 9, strategy) != Z_OK) return false;
    size_t most = deflateBound(&z, (uLong)s->raw) + 64;
    s->bytes = at_alloc(most);
    z.next_in = (Bytef *)(uintptr_t)raw;
    z.avail_in = (uInt)s->raw;
    z.next_out = s->bytes;
    z.avail_out = (uInt)most;
    int end = s->bytes ? deflate(&z, last ? Z_FINISH : Z_SYNC_FLUSH) : Z_MEM_ERROR;
    s->n = most - z.avail_out;
    (void)deflateEnd(&z);
    return end == (last ? Z_STREAM_END : Z_OK);
}

static void pack_strips(void *ctx, int64_t begin, int64_t end)
{
    const work *w = ctx;
    size_t pitch = (size_t)(w->stride + w->bpp), row = (size_t)w->stride + 1;
    uint8_t *rows = at_calloc(3, pitch);
    uint8_t *raw = at_alloc((size_t)w->rows * row);
    for (int64_t i = begin; i < end; i++) {
        strip *s = &w->strips[i];
        int64_t y0 = i * w->rows, y1 = y0 + w->rows < w->height ? y0 + w->rows : w->height;
        s->failed = !rows || !raw;
        if (s->failed) continue;
        memset(rows, 0, 3 * pitch);
        filter_rows(w, y0, y1, rows, raw);
        s->raw = (size_t)(y1 - y0) * row;
        s->sum = adler32(adler32(0, NULL, 0), raw, (uInt)s->raw);
        s->failed = !deflate_strip(w, raw, y1 == w->height, s);
    }
    at_free(rows);
    at_free(raw);
}

// Header, strips, checksum.
static at_status join(const work *w, int64_t strips, uint8_t **out, size_t *n)
{
    static const uint8_t levels[] = {0x01, 0x01, 0x5e, 0x5e, 0x5e, 0x5e, 0x9c, 0xda, 0xda, 0xda};
    size_t total = 6, at = 0;
    uLong sum = adler32(0, NULL, 0);
    for (int64_t i = 0; i < strips; i++)
        total += w->strips[i].n;
    uint8_t *all = at_alloc(total);
    if (!all) return at_fail(AT_ENOMEM, "PNG: no memory for %zu bytes", total);
    all[at++] = 0x78;
    all[at++] = levels[w->level];
    for (int64_t i = 0; i < strips; i++) {
        const strip *s = &w->strips[i];
        memcpy(all + at, s->bytes, s->n);
        at += s->n;
        sum = adler32_combine(sum, s->sum, (z_off_t)s->raw);
    }
    for (int shift = 24; shift >= 0; shift -= 8)
        all[at++] = (uint8_t)(sum >> shift);
    *out = all;
    *n = total;
    return AT_OK;
}

at_status at_png_pack(const float *pixels, int64_t width, int64_t height, int channels, int level,
                      uint8_t **out, size_t *n)
{
    at_status st = AT_OK;
    work w = {.pixels = pixels,
              .height = height,
              .stride = width * channels,
              .bpp = channels,
              .level = level};
    w.rows = STRIP_BYTES / (w.stride + 1) + 1;
    int64_t strips = (height + w.rows - 1) / w.rows;

    *out = NULL;
    *n = 0;
    w.strips = at_calloc((size_t)strips, sizeof *w.strips);
    if (!w.strips) return at_fail(AT_ENOMEM, "PNG: no memory");
    at_parallel_for(strips, 1, pack_strips, &w);
    for (int64_t i = 0; i < strips; i++)
        if (w.strips[i].failed) AT_TRY(at_fail(AT_ENOMEM, "PNG: no memory to pack rows"));
    AT_TRY(join(&w, strips, out, n));
out:
    for (int64_t i = 0; i < strips; i++)
        at_free(w.strips[i].bytes);
    at_free(w.strips);
    return st;
}
