// SPDX-License-Identifier: Apache-2.0
// resize_lanczos.c - Lanczos with three lobes on 8-bit pixels, bit for bit as Pillow's Image.resize.
// Idea: two passes (along x, then along y) of integer sums; coefficients are fixed point with 22 bits.
// Easy to get wrong: a picture with alpha is multiplied by it before and divided after, but not where the size
// stays; a side that keeps its length has no pass.
// The order is along x first, as Pillow up to 12 has it; Pillow 13 turns it round for some sizes, which moves
// some values by 1/255.
// Source: Pillow's Resample.c and Convert.c (MULDIV255, CLIP8) as facts; ComfyUI's lanczos for the 8 bits.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "image/resize_impl.h"

#define BITS  22 // 32 - 8 bits of pixel - 2 bits of head room
#define LOBES 3.0
#define PI    3.14159265358979323846

typedef struct coeffs {
    int size;               // weights reserved per output place
    int64_t *first, *count; // input places
    int32_t *weight;        // [out][size]
} coeffs;

static double sinc(double x)
{
    if (x == 0.0) return 1.0;
    x *= PI;
    return sin(x) / x;
}
static double lanczos(double x)
{
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0.0;
}

static void coeffs_free(coeffs *k)
{
    at_free(k->first);
    at_free(k->count);
    at_free(k->weight);
}

static void coeffs_at(coeffs *k, double *w, int64_t in, int64_t out, int64_t i)
{
    double scale = (double)in / (double)out, filter = scale < 1.0 ? 1.0 : scale;
    double support = LOBES * filter, centre = ((double)i + 0.5) * scale, sum = 0.0;
    double step = 1.0 / filter; // Pillow multiplies by it, which rounds differently
    int64_t lo = (int64_t)(centre - support + 0.5), hi = (int64_t)(centre + support + 0.5);

    if (lo < 0) lo = 0;
    if (hi > in) hi = in;
    k->first[i] = lo;
    k->count[i] = hi - lo;
    for (int64_t x = 0; x < hi - lo; x++) {
        w[x] = lanczos(((double)(x + lo) - centre + 0.5) * step);
        sum += w[x];
    }
    for (int64_t x = 0; x < hi - lo; x++) {
        double v = (sum != 0.0 ? w[x] / sum : w[x]) * (double)(1 << BITS);
        k->weight[i * k->size + x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
}

static at_status coeffs_make(int64_t in, int64_t out, coeffs *k)
{
    double scale = (double)in / (double)out;
    size_t n;

    k->size = (int)ceil(LOBES * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    if (!at_mul_size((size_t)out * sizeof *k->weight, (size_t)k->size, &n))
        return at_fail(AT_ENOMEM, "no memory for lanczos tables");
    k->first = at_alloc((size_t)out * sizeof *k->first);
    k->count = at_alloc((size_t)out * sizeof *k->count);
    k->weight = at_alloc(n);
    double *w = at_alloc((size_t)k->size * sizeof *w);
    bool ok = k->first && k->count && k->weight && w;
    for (int64_t i = 0; ok && i < out; i++)
        coeffs_at(k, w, in, out, i);
    at_free(w);
    return ok ? AT_OK : at_fail(AT_ENOMEM, "no memory for lanczos tables");
}

// --- passes ------------------------------------------------------------------------------------------
typedef struct pass {
    const uint8_t *in;
    uint8_t *out;
    int64_t in_w, out_w, c; // of the along-x pass; along y in_w = out_w
    coeffs k;
} pass;

static inline uint8_t clip8(int32_t v)
{
    v >>= BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void along_x(void *ctx, int64_t begin, int64_t end)
{
    const pass *p = ctx;
    for (int64_t y = begin; y < end; y++)
        for (int64_t x = 0; x < p->out_w; x++) {
            const int32_t *k = p->k.weight + x * p->k.size;
            const uint8_t *in = p->in + (y * p->in_w + p->k.first[x]) * p->c;
            for (int64_t c = 0; c < p->c; c++) {
                int32_t sum = 1 << (BITS - 1);
                for (int64_t i = 0; i < p->k.count[x]; i++)
                    sum += in[i * p->c + c] * k[i];
                p->out[(y * p->out_w + x) * p->c + c] = clip8(sum);
            }
        }
}

static void along_y(void *ctx, int64_t begin, int64_t end)
{
    const pass *p = ctx;
    int64_t row = p->out_w * p->c;
    for (int64_t y = begin; y < end; y++) {
        const int32_t *k = p->k.weight + y * p->k.size;
        const uint8_t *in = p->in + p->k.first[y] * row;
        for (int64_t x = 0; x < row; x++) {
            int32_t sum = 1 << (BITS - 1);
            for (int64_t i = 0; i < p->k.count[y]; i++)
                sum += in[i * row + x] * k[i];
            p->out[y * row + x] = clip8(sum);
        }
    }
}

// Run one pass from *pixels into fresh memory, which replaces it.
static at_status run_pass(uint8_t **pixels, bool x, int64_t w, int64_t h, int64_t c, int64_t to)
{
    at_status st = AT_OK;
    pass p = {.in = *pixels, .in_w = w, .out_w = x ? to : w, .c = c};
    int64_t rows = x ? h : to;

    AT_TRY(coeffs_make(x ? w : h, to, &p.k));
    p.out = at_alloc((size_t)(rows * p.out_w * c));
    if (!p.out)
        AT_TRY(at_fail(AT_ENOMEM, "no memory for %lld x %lld pixels", (long long)p.out_w,
                       (long long)rows));
    at_parallel_for(rows, 8, x ? along_x : along_y, &p);
    at_free(*pixels);
    *pixels = p.out;
out:
    coeffs_free(&p.k);
    return st;
}

// --- alpha -------------------------------------------------------------------------------------------
static void premultiply(uint8_t *p, int64_t pixels, int64_t c)
{
    for (; pixels--; p += c)
        for (int64_t i = 0; i < c - 1; i++) {
            unsigned v = p[i] * (unsigned)p[c - 1] + 128;
            p[i] = (uint8_t)(((v >> 8) + v) >> 8);
        }
}
static void unpremultiply(uint8_t *p, int64_t pixels, int64_t c)
{
    for (; pixels--; p += c) {
        unsigned a = p[c - 1];
        for (int64_t i = 0; i < c - 1 && a != 0 && a != 255; i++) {
            unsigned v = 255 * (unsigned)p[i] / a;
            p[i] = (uint8_t)(v > 255 ? 255 : v);
        }
    }
}

// --- whole pictures ----------------------------------------------------------------------------------
static uint8_t *to_bytes(const at_planes *in, int64_t n)
{
    uint8_t *bytes = at_alloc((size_t)(in->h * in->w * in->c)), *q = bytes;
    if (!bytes) return NULL;
    for (int64_t y = 0; y < in->h; y++)
        for (int64_t x = 0; x < in->w; x++)
            for (int64_t c = 0; c < in->c; c++) {
                float v = 255.0f * in->data[n * in->sn + y * in->sh + x * in->sw + c * in->sc];
                *q++ = (uint8_t)(v > 255.0f ? 255.0f : v > 0.0f ? v : 0.0f); // NaN: 0
            }
    return bytes;
}

static void from_bytes(const uint8_t *p, const at_planes *out, int64_t n)
{
    for (int64_t y = 0; y < out->h; y++)
        for (int64_t x = 0; x < out->w; x++)
            for (int64_t c = 0; c < out->c; c++)
                out->data[n * out->sn + y * out->sh + x * out->sw + c * out->sc] =
                    (float)*p++ / 255.0f;
}

at_status at_resize_lanczos(const at_planes *in, const at_planes *out)
{
    at_status st = AT_OK;
    uint8_t *bytes = NULL;
    bool x = in->w != out->w, y = in->h != out->h;
    bool alpha = (x || y) && in->c != 3;

    if (in->c < 2 || in->c > 4)
        AT_TRY(at_fail(AT_EUNSUPPORTED,
                       "lanczos resizes pictures of 2, 3 or 4 channels, not %lld: take bilinear "
                       "or bicubic",
                       (long long)in->c));
    for (int64_t n = 0; n < in->n; n++) {
        bytes = to_bytes(in, n);
        if (!bytes)
            AT_TRY(at_fail(AT_ENOMEM, "no memory for %lld x %lld pixels", (long long)in->w,
                           (long long)in->h));
        if (alpha) premultiply(bytes, in->h * in->w, in->c);
        if (x) AT_TRY(run_pass(&bytes, true, in->w, in->h, in->c, out->w));
        if (y) AT_TRY(run_pass(&bytes, false, out->w, in->h, in->c, out->h));
        if (alpha) unpremultiply(bytes, out->h * out->w, in->c);
        from_bytes(bytes, out, n);
        at_free(bytes);
        bytes = NULL;
    }
out:
    at_free(bytes);
    return st;
}
