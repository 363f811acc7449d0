// SPDX-License-Identifier: Apache-2.0
// resize_bislerp.c - two passes of spherical interpolation between neighbouring channel vectors.
// Idea: length is blended linearly, direction along the great circle; where two directions agree or are
// opposite the circle is not defined, and ComfyUI takes the first vector or the straight line.
// Easy to get wrong: places come from f32 sums and are cut to integers, so the last place is reached a little
// early or late exactly as the rounding has it.
// Source: ComfyUI 0.3.64, comfy/utils.py bislerp, as behaviour.
#include <math.h>

#include "base/mem.h"
#include "base/thread.h"
#include "image/resize_impl.h"

typedef struct slerp_tap {
    int64_t a, b;
    float r;
} slerp_tap;

// One pass along an axis: `lines` lines of vectors, the axis' steps in elements.
typedef struct pass {
    const at_planes *in, *out;
    bool x;
    slerp_tap *taps;
} pass;

static slerp_tap slerp_tap_at(int64_t in, int64_t out, int64_t i)
{
    at_linear_tap t = at_linear_tap_at(in, out, i);
    int64_t last = in - 1;
    float first = (float)t.lo * t.w_lo + (float)t.hi * t.w_hi;
    float lo = (float)(t.lo < last ? t.lo + 1 : last), hi = (float)(t.hi < last ? t.hi + 1 : last);
    float next = lo * t.w_lo + hi * t.w_hi;
    return (slerp_tap){(int64_t)first, (int64_t)next, first - floorf(first)};
}

static float length_of(const float *p, int64_t step, int64_t c)
{
    float sum = 0;
    for (int64_t i = 0; i < c; i++)
        sum += p[i * step] * p[i * step];
    return sqrtf(sum);
}

static float unit(float v, float length)
{
    return length == 0.0f ? 0.0f : v / length;
}

static void slerp(const float *a, const float *b, int64_t step, float r, float *out,
                  int64_t out_step, int64_t c)
{
    float la = length_of(a, step, c), lb = length_of(b, step, c), dot = 0;
    for (int64_t i = 0; i < c; i++)
        dot += unit(a[i * step], la) * unit(b[i * step], lb);
    if (dot > 1 - 1e-5f) {
        for (int64_t i = 0; i < c; i++)
            out[i * out_step] = a[i * step];
        return;
    }
    if (dot < 1e-5f - 1) {
        for (int64_t i = 0; i < c; i++)
            out[i * out_step] = a[i * step] * (1.0f - r) + b[i * step] * r;
        return;
    }
    float omega = acosf(dot), so = sinf(omega), length = la * (1.0f - r) + lb * r;
    float wa = sinf((1.0f - r) * omega) / so, wb = sinf(r * omega) / so;
    for (int64_t i = 0; i < c; i++)
        out[i * out_step] = (wa * unit(a[i * step], la) + wb * unit(b[i * step], lb)) * length;
}

static void rows(void *ctx, int64_t begin, int64_t end)
{
    const pass *p = ctx;
    const at_planes *in = p->in, *out = p->out;
    for (int64_t line = begin; line < end; line++) {
        int64_t n = line / out->h, y = line % out->h;
        for (int64_t x = 0; x < out->w; x++) {
            const slerp_tap *t = &p->taps[p->x ? x : y];
            const float *from = in->data + n * in->sn + (p->x ? y * in->sh : x * in->sw);
            int64_t step = p->x ? in->sw : in->sh;
            slerp(from + t->a * step, from + t->b * step, in->sc, t->r,
                  out->data + n * out->sn + y * out->sh + x * out->sw, out->sc, in->c);
        }
    }
}

static at_status run_pass(const at_planes *in, const at_planes *out, bool x)
{
    int64_t from = x ? in->w : in->h, to = x ? out->w : out->h;
    pass p = {.in = in, .out = out, .x = x, .taps = at_alloc((size_t)to * sizeof(slerp_tap))};
    if (!p.taps) return at_fail(AT_ENOMEM, "no memory for a resize table of %lld", (long long)to);
    for (int64_t i = 0; i < to; i++)
        p.taps[i] = slerp_tap_at(from, to, i);
    at_parallel_for(out->n * out->h, 4, rows, &p);
    at_free(p.taps);
    return AT_OK;
}

at_status at_resize_bislerp(const at_planes *in, const at_planes *out)
{
    at_status st = AT_OK;
    at_planes mid = {.n = in->n, .h = in->h, .w = out->w, .c = in->c};
    size_t count;

    if (!at_mul_size((size_t)(mid.n * mid.h), (size_t)(mid.w * mid.c), &count) ||
        !(mid.data = at_calloc(count, sizeof(float))))
        return at_fail(AT_ENOMEM, "no memory for %lld x %lld latents", (long long)mid.w,
                       (long long)mid.h);
    mid.sc = 1, mid.sw = mid.c, mid.sh = mid.w * mid.sw, mid.sn = mid.h * mid.sh;
    AT_TRY(run_pass(in, &mid, true));
    AT_TRY(run_pass(&mid, out, false));
out:
    at_free(mid.data);
    return st;
}
