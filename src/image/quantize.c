// SPDX-License-Identifier: Apache-2.0
// quantize.c - median cut, and mapping onto a palette.
// Idea: boxes are runs of one array of distinct colours; a cut sorts a run into bright and dark at a value of one
// channel, so that the runs in the array's order are the palette's order.
// Easy to get wrong (all of it shows in the result):
//   - the box with the most pixels is cut next; which of equals depends on how the heap moves them
//   - the channel is the one with the widest range times its share of luminance
//   - above 65536 distinct colours, low bits are dropped for the cuts, but not for the averages
//   - what an error leaves behind the end of a row is blue's for every channel
//   - the nearest colour is looked up for the pixel with its two low bits cleared; the first of equals wins
// Source: Pillow 11.3's Quant.c, QuantHeap.c, Palette.c and Convert.c, as behaviour; Heckbert 1982.
#include "image/quantize.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_DISTINCT = 65536, MAX_BOXES = 256 };

// --- distinct colours --------------------------------------------------------------------------------
typedef struct shade {
    uint8_t v[3];
    uint32_t key; // of v
    uint32_t count;
} shade;

typedef struct cut {
    shade *shades;
    int64_t n;
    int shift;
    struct box {
        int64_t begin, end, pixels;
        uint8_t low[3], high[3];
    } box[MAX_BOXES];
    int boxes;
    int heap[MAX_BOXES + 1], heap_count; // from 1; box numbers
} cut;

static uint32_t key_of(const uint8_t *p, int shift)
{
    return (uint32_t)(p[0] >> shift) << 16 | (uint32_t)(p[1] >> shift) << 8 |
           (uint32_t)(p[2] >> shift);
}

static int by_key(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

// Sorted keys and how many of them are distinct.
static int64_t sorted_keys(const uint8_t *rgb, int64_t n, int shift, uint32_t *keys)
{
    int64_t distinct = 0;
    for (int64_t i = 0; i < n; i++)
        keys[i] = key_of(rgb + 3 * i, shift);
    qsort(keys, (size_t)n, sizeof *keys, by_key);
    for (int64_t i = 0; i < n; i++)
        distinct += i == 0 || keys[i] != keys[i - 1];
    return distinct;
}

static at_status find_shades(const uint8_t *rgb, int64_t n, cut *c)
{
    uint32_t *keys = at_alloc((size_t)n * sizeof *keys);
    int64_t distinct, k = -1;

    if (!keys) return at_fail(AT_ENOMEM, "no memory for the colours of %lld pixels", (long long)n);
    while ((distinct = sorted_keys(rgb, n, c->shift, keys)) > MAX_DISTINCT)
        c->shift++;
    c->shades = at_calloc((size_t)distinct, sizeof *c->shades);
    for (int64_t i = 0; c->shades && i < n; i++) {
        if (i == 0 || keys[i] != keys[i - 1]) {
            shade *s = &c->shades[++k];
            s->key = keys[i];
            for (int j = 0; j < 3; j++)
                s->v[j] = (uint8_t)(keys[i] >> (16 - 8 * j));
        }
        c->shades[k].count++;
    }
    c->n = distinct;
    at_free(keys);
    return c->shades ? AT_OK
                     : at_fail(AT_ENOMEM, "no memory for %lld colours", (long long)distinct);
}

// --- cutting -----------------------------------------------------------------------------------------
static void measure(cut *c, struct box *b)
{
    memset(b->low, 255, 3);
    memset(b->high, 0, 3);
    b->pixels = 0;
    for (int64_t i = b->begin; i < b->end; i++) {
        const shade *s = &c->shades[i];
        b->pixels += s->count;
        for (int j = 0; j < 3; j++) {
            if (s->v[j] < b->low[j]) b->low[j] = s->v[j];
            if (s->v[j] > b->high[j]) b->high[j] = s->v[j];
        }
    }
}

static void heap_add(cut *c, int box)
{
    int k = ++c->heap_count;
    for (; k > 1 && c->box[box].pixels > c->box[c->heap[k / 2]].pixels; k /= 2)
        c->heap[k] = c->heap[k / 2];
    c->heap[k] = box;
}

// The box with the most pixels, or -1.
static int heap_take(cut *c)
{
    if (!c->heap_count) return -1;
    int top = c->heap[1], last = c->heap[c->heap_count--], k = 1;
    while (2 * k <= c->heap_count) {
        int child = 2 * k;
        if (child < c->heap_count &&
            c->box[c->heap[child]].pixels < c->box[c->heap[child + 1]].pixels)
            child++;
        if (c->box[last].pixels > c->box[c->heap[child]].pixels) break;
        c->heap[k] = c->heap[child];
        k = child;
    }
    c->heap[k] = last;
    return top;
}

static bool single(const struct box *b)
{
    return memcmp(b->low, b->high, 3) == 0;
}

// The least value of the bright half: from the top down until more than half of the pixels are in it; all of
// a box may not be.
static int threshold(const cut *c, const struct box *b, int axis)
{
    int64_t count[256] = {0}, sum = 0;
    int v = b->high[axis];
    for (int64_t i = b->begin; i < b->end; i++)
        count[c->shades[i].v[axis]] += c->shades[i].count;
    for (; v > b->low[axis]; v--) {
        sum += count[v];
        if (2 * sum > b->pixels) break;
    }
    if (v > b->low[axis]) return v;
    for (v = b->low[axis] + 1; !count[v]; v++)
        ;
    return v;
}

static void split(cut *c, int number)
{
    static const int share[3] = {77, 150, 29};
    struct box *b = &c->box[number], *dark = &c->box[c->boxes];
    int axis = 0, best = -1;
    for (int j = 0; j < 3; j++) {
        int spread = (b->high[j] - b->low[j]) * share[j];
        if (spread > best) best = spread, axis = j;
    }
    int v = threshold(c, b, axis);
    int64_t i = b->begin, k = b->end;
    while (i < k) { // bright ones to the front
        if (c->shades[i].v[axis] >= v) {
            i++;
        } else {
            shade s = c->shades[--k];
            c->shades[k] = c->shades[i];
            c->shades[i] = s;
        }
    }
    *dark = (struct box){.begin = i, .end = b->end};
    b->end = i;
    measure(c, b);
    measure(c, dark);
    heap_add(c, number);
    heap_add(c, c->boxes++);
}

static void cut_boxes(cut *c, int colors)
{
    c->box[0] = (struct box){.begin = 0, .end = c->n};
    c->boxes = 1;
    measure(c, &c->box[0]);
    heap_add(c, 0);
    while (--colors) {
        int next;
        while ((next = heap_take(c)) >= 0 && single(&c->box[next]))
            ;
        if (next < 0) return;
        split(c, next);
    }
}

// --- averages ----------------------------------------------------------------------------------------
static int by_begin(const void *a, const void *b)
{
    int64_t x = ((const struct box *)a)->begin, y = ((const struct box *)b)->begin;
    return x < y ? -1 : x > y;
}

static int by_shade(const void *a, const void *b)
{
    uint32_t x = ((const shade *)a)->key, y = ((const shade *)b)->key;
    return x < y ? -1 : x > y;
}

static void average(cut *c, const uint8_t *rgb, int64_t n, at_palette *out)
{
    uint64_t sum[MAX_BOXES][3] = {{0}}, count[MAX_BOXES] = {0};

    qsort(c->box, (size_t)c->boxes, sizeof *c->box, by_begin);
    for (int b = 0; b < c->boxes; b++)
        for (int64_t i = c->box[b].begin; i < c->box[b].end; i++)
            c->shades[i].count = (uint32_t)b;
    qsort(c->shades, (size_t)c->n, sizeof *c->shades, by_shade);
    for (int64_t i = 0; i < n; i++) {
        shade want = {.key = key_of(rgb + 3 * i, c->shift)};
        const shade *s = bsearch(&want, c->shades, (size_t)c->n, sizeof *s, by_shade);
        for (int j = 0; j < 3; j++)
            sum[s->count][j] += rgb[3 * i + j];
        count[s->count]++;
    }
    out->count = c->boxes;
    for (int b = 0; b < c->boxes; b++)
        for (int j = 0; j < 3; j++)
            out->color[b][j] = (uint8_t)(0.5 + (double)sum[b][j] / (double)count[b]);
}

at_status at_palette_make(const uint8_t *rgb, int64_t n, int colors, at_palette *out)
{
    at_status st = AT_OK;
    cut *c = at_calloc(1, sizeof *c);

    *out = (at_palette){0};
    if (!c) AT_TRY(at_fail(AT_ENOMEM, "no memory for a palette"));
    if (colors < 1 || colors > MAX_BOXES || n < 1 || n > UINT32_MAX)
        AT_TRY(at_fail(AT_EINVAL, "%d colours of %lld pixels: 1 to %d can be", colors, (long long)n,
                       MAX_BOXES));
    AT_TRY(find_shades(rgb, n, c));
    cut_boxes(c, colors);
    average(c, rgb, n, out);
out:
    if (c) at_free(c->shades);
    at_free(c);
    return st;
}

// --- mapping -----------------------------------------------------------------------------------------
enum { SLOTS = 64, EMPTY = -1 };

static int nearest(const at_palette *p, int16_t *cache, const int rgb[3])
{
    int16_t *slot = &cache[((rgb[0] >> 2) * SLOTS + (rgb[1] >> 2)) * SLOTS + (rgb[2] >> 2)];
    int best = INT32_MAX;
    for (int i = 0; *slot == EMPTY || best != INT32_MAX; i++) {
        if (i == p->count) break;
        int d = 0;
        for (int j = 0; j < 3; j++) {
            int by = (rgb[j] & ~3) - p->color[i][j];
            d += by * by;
        }
        if (d < best) best = d, *slot = (int16_t)i;
    }
    return *slot;
}

static int clip8(int v)
{
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

// One row. carry[c]: what goes to the right, in sixteenths; below: what the row above sent down to each place
// and its right neighbour, overwritten with what this row sends.
static void diffuse_row(const at_palette *p, int16_t *cache, uint8_t *row, int64_t width,
                        int *below)
{
    int carry[3] = {0}, under[3] = {0}, right[3] = {0};
    for (int64_t x = 0; x < width; x++, row += 3, below += 3) {
        int rgb[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = clip8(row[c] + (carry[c] + below[3 + c]) / 16);
        int i = nearest(p, cache, rgb);
        for (int c = 0; c < 3; c++) {
            int e = rgb[c] - p->color[i][c];
            below[c] = 3 * e + under[c];
            under[c] = 5 * e + right[c];
            right[c] = e;
            carry[c] = 7 * e;
            row[c] = p->color[i][c];
        }
    }
    // Behind the last place Pillow leaves its three numbers of blue, for all channels.
    below[0] = under[2];
    below[1] = right[2];
    below[2] = right[2];
}

at_status at_palette_apply(const at_palette *p, uint8_t *rgb, int64_t width, int64_t height,
                           bool diffuse)
{
    size_t slots = (size_t)SLOTS * SLOTS * SLOTS;
    int16_t *cache = at_alloc(slots * sizeof *cache);
    int *below = at_calloc((size_t)width + 1, 3 * sizeof *below);
    bool ok = cache && below;

    if (ok) memset(cache, 0xff, slots * sizeof *cache); // EMPTY
    for (int64_t y = 0; ok && y < height; y++, rgb += 3 * width) {
        if (diffuse) {
            diffuse_row(p, cache, rgb, width, below);
            continue;
        }
        for (int64_t x = 0; x < width; x++) {
            int v[3] = {rgb[3 * x], rgb[3 * x + 1], rgb[3 * x + 2]};
            memcpy(rgb + 3 * x, p->color[nearest(p, cache, v)], 3);
        }
    }
    at_free(cache);
    at_free(below);
    return ok ? AT_OK
              : at_fail(AT_ENOMEM, "no memory to map %lld pixels", (long long)width * height);
}
