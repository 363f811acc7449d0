// SPDX-License-Identifier: Apache-2.0
// paste.c - see paste.h.
// Easy to get wrong: positions are cut by the units before they are divided, so that a negative one moves
// the visible part by units and not by elements; slices are Python's.
#include "image/paste.h"

#include "base/mem.h"

// Strides of batch, channel, row and column, and sizes, of either order.
typedef struct grid {
    int64_t b, c, h, w, sb, sc, sh, sw;
} grid;

static grid grid_of(const at_tensor *t, at_pixel_order order)
{
    const int64_t *n = t->shape, *s = t->stride;
    if (order == AT_ORDER_NCHW) return (grid){n[0], n[1], n[2], n[3], s[0], s[1], s[2], s[3]};
    return (grid){n[0], n[3], n[1], n[2], s[0], s[3], s[1], s[2]};
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

// Python's [start : stop] of n.
static int64_t slice(int64_t start, int64_t stop, int64_t n, int64_t *first)
{
    *first = clamp(start < 0 ? start + n : start, 0, n);
    return clamp(stop < 0 ? stop + n : stop, *first, n) - *first;
}

// One side: where the source of n elements lands in the target's `total`. *count elements go to *first.
static at_status side(int64_t at, int64_t unit, int64_t n, int64_t total, int64_t *first,
                      int64_t *count)
{
    int64_t zero;
    at = clamp(at, -n * unit, total * unit);
    int64_t left = (at - (at % unit + unit) % unit) / unit;
    int64_t visible = slice(0, total - left + (at < 0 ? at : 0), n, &zero);
    *count = slice(left, left + n, total, first);
    if (visible == *count || visible == 1) return AT_OK;
    return at_fail(AT_EINVAL, "composite: %lld elements of the source meet %lld of the target",
                   (long long)visible, (long long)*count);
}

// The mask at the source's size; NULL stays NULL.
static at_status fit_mask(const at_tensor *mask, const grid *source, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *flat = NULL;
    if (!mask) return AT_OK;
    int64_t h = mask->shape[mask->rank - 2], w = mask->shape[mask->rank - 1];
    int64_t n = h * w > 0 ? at_tensor_count(mask) / (h * w) : 0;
    AT_TRY(at_tensor_reshape(mask, 3, (int64_t[]){n, h, w}, &flat));
    st = at_resize(flat, AT_ORDER_NHW, source->w, source->h, AT_RESIZE_BILINEAR, false, out);
out:
    at_tensor_release(&flat);
    return st;
}

static void mix(float *to, const grid *t, const float *from, const grid *f, const at_tensor *mask,
                const int64_t place[4])
{
    int64_t x0 = place[0], y0 = place[1], w = place[2], h = place[3];
    for (int64_t i = 0; i < t->b * t->c; i++) {
        int64_t b = i / t->c, c = i % t->c, fb = b % f->b, fc = f->c == 1 ? 0 : c;
        const float *m = NULL;
        if (mask) m = (const float *)at_tensor_data(mask) + b % mask->shape[0] * f->h * f->w;
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                float *p = &to[b * t->sb + c * t->sc + (y0 + y) * t->sh + (x0 + x) * t->sw];
                float v = from[fb * f->sb + fc * f->sc + y * f->sh + x * f->sw];
                float k = m ? m[y * f->w + x] : 1.0f;
                *p = k * v + (1.0f - k) * *p;
            }
    }
}

static at_status check(const at_tensor *to, const at_tensor *from, at_pixel_order order)
{
    if (to->rank != 4 || from->rank != 4)
        return at_fail(AT_EINVAL, "composite: %d and %d dimensions, expected 4", to->rank,
                       from->rank);
    grid t = grid_of(to, order), f = grid_of(from, order);
    if (f.c != t.c && f.c != 1)
        return at_fail(AT_EINVAL, "composite: a source of %lld channels and a target of %lld",
                       (long long)f.c, (long long)t.c);
    return AT_OK;
}

at_status at_paste(const at_tensor *to, const at_tensor *from, at_pixel_order order,
                   const at_paste_spec *how, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *sized = NULL, *mask = NULL, *r = NULL;
    int64_t place[4]; // x, y, width, height in the target

    AT_TRY(check(to, from, order));
    grid t = grid_of(to, order);
    if (how->resize)
        AT_TRY(at_resize(from, order, t.w, t.h, AT_RESIZE_BILINEAR, false, &sized));
    else
        sized = at_tensor_retain(from);
    grid f = grid_of(sized, order);
    AT_TRY(fit_mask(how->mask, &f, &mask));
    AT_TRY(side(how->x, how->unit, f.w, t.w, &place[0], &place[2]));
    AT_TRY(side(how->y, how->unit, f.h, t.h, &place[1], &place[3]));
    AT_TRY(
        at_tensor_from_host(at_device_cpu(), AT_F32, to->rank, to->shape, at_tensor_data(to), &r));
    t = grid_of(r, order);
    mix(at_tensor_data(r), &t, at_tensor_data(sized), &f, mask, place);
    *out = r;
    r = NULL;
out:
    at_tensor_release(&sized);
    at_tensor_release(&mask);
    at_tensor_release(&r);
    return st;
}
