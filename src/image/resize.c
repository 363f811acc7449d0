// SPDX-License-Identifier: Apache-2.0
// resize.c - nearest, bilinear, bicubic and area; the crop, and the door to lanczos and bislerp.
// Idea: nearest, bilinear and bicubic are the same sum over K taps a side; only the tables of places and
// weights differ, and they are made once per axis.
// Source: ATen/native/UpSample.h (source index, cubic coefficients with A = -0.75), AdaptiveAveragePooling.
#include "image/resize.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "image/resize_impl.h"

#define MAX_SIDE (16384 * 8)
#define MAX_TAPS 4
#define GRAIN    8 // rows

static const char *const names[] = {"nearest-exact", "bilinear", "area",
                                    "bicubic",       "lanczos",  "bislerp"};

at_status at_resize_how_of(const char *name, at_resize_how *out)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (name && !strcmp(name, names[i])) {
            *out = (at_resize_how)i;
            return AT_OK;
        }
    return at_fail(AT_EINVAL,
                   "\"%s\" is no way to resize (nearest-exact, bilinear, area, bicubic, "
                   "lanczos, bislerp)",
                   name ? name : "");
}

// --- tables ----------------------------------------------------------------------------------------
// Places (elements from the row's or column's start) and weights of every output place.
typedef struct taps {
    int k;
    int64_t *at;   // [out][k]
    float *weight; // [out][k]
} taps;

static float source_of(int64_t in, int64_t out, int64_t i)
{
    float scale = (float)in / (float)out;
    return fmaf(scale, (float)i + 0.5f, -0.5f); // one rounding, as torch's AVX2 build
}

at_linear_tap at_linear_tap_at(int64_t in, int64_t out, int64_t i)
{
    if (in == out) return (at_linear_tap){i, i, 1.0f, 0.0f};
    float x = source_of(in, out, i);
    if (x < 0.0f) x = 0.0f;
    int64_t lo = (int64_t)x;
    if (lo > in - 1) lo = in - 1;
    float t = x - (float)lo;
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    return (at_linear_tap){lo, lo < in - 1 ? lo + 1 : lo, 1.0f - t, t};
}

static void nearest_tap(int64_t in, int64_t out, int64_t i, int64_t *at, float *weight)
{
    float scale = (float)in / (float)out;
    int64_t p = (int64_t)floorf((float)(((double)i + 0.5) * (double)scale));
    *at = p < in - 1 ? p : in - 1;
    *weight = 1.0f;
}

static float cubic_near(float x) // |x| <= 1
{
    const float a = -0.75f;
    return ((a + 2) * x - (a + 3)) * x * x + 1;
}
static float cubic_far(float x) // 1 < |x| < 2
{
    const float a = -0.75f;
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
}

static void cubic_tap(int64_t in, int64_t out, int64_t i, int64_t at[4], float weight[4])
{
    float x = in == out ? (float)i : source_of(in, out, i);
    int64_t base = (int64_t)floorf(x);
    if (base > in - 1) base = in - 1;
    float t = x - (float)base;
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    weight[0] = cubic_far(t + 1.0f);
    weight[1] = cubic_near(t);
    weight[2] = cubic_near(1.0f - t);
    weight[3] = cubic_far(1.0f - t + 1.0f);
    for (int k = 0; k < 4; k++) {
        int64_t p = base - 1 + k;
        at[k] = p < 0 ? 0 : p > in - 1 ? in - 1 : p;
    }
}

static void taps_free(taps *t)
{
    at_free(t->at);
    at_free(t->weight);
}

static at_status taps_make(at_resize_how how, int64_t in, int64_t out, int64_t stride, taps *t)
{
    t->k = how == AT_RESIZE_NEAREST ? 1 : how == AT_RESIZE_BILINEAR ? 2 : 4;
    size_t n = (size_t)out * (size_t)t->k;
    t->at = at_alloc(n * sizeof *t->at);
    t->weight = at_alloc(n * sizeof *t->weight);
    if (!t->at || !t->weight) return at_fail(AT_ENOMEM, "no memory for a resize table of %zu", n);
    for (int64_t i = 0; i < out; i++) {
        int64_t *at = t->at + i * t->k;
        float *weight = t->weight + i * t->k;
        if (how == AT_RESIZE_NEAREST) {
            nearest_tap(in, out, i, at, weight);
        } else if (how == AT_RESIZE_BILINEAR) {
            at_linear_tap p = at_linear_tap_at(in, out, i);
            at[0] = p.lo, at[1] = p.hi;
            weight[0] = p.w_lo, weight[1] = p.w_hi;
        } else {
            cubic_tap(in, out, i, at, weight);
        }
        for (int k = 0; k < t->k; k++)
            at[k] *= stride;
    }
    return AT_OK;
}

// --- the sums ----------------------------------------------------------------------------------------
typedef struct job {
    const at_planes *in, *out;
    taps x, y;
} job;

// One output value: rows of taps summed along x, then along y, as torch orders it.
static inline float tap_sum(const job *j, const float *src, const int64_t *ax, const float *wx,
                            const int64_t *ay, const float *wy)
{
    float sum = 0;
    for (int b = 0; b < j->y.k; b++) {
        const float *row = src + ay[b];
        float line = row[ax[0]] * wx[0];
        for (int a = 1; a < j->x.k; a++)
            line += row[ax[a]] * wx[a];
        sum = b ? sum + line * wy[b] : line * wy[b];
    }
    return sum;
}

static void tap_rows(void *ctx, int64_t begin, int64_t end)
{
    const job *j = ctx;
    const at_planes *in = j->in, *out = j->out;
    for (int64_t r = begin; r < end; r++) {
        int64_t n = r / out->h, y = r % out->h;
        const float *src = in->data + n * in->sn;
        float *dst = out->data + n * out->sn + y * out->sh;
        const int64_t *ay = j->y.at + y * j->y.k;
        const float *wy = j->y.weight + y * j->y.k;
        for (int64_t x = 0; x < out->w; x++)
            for (int64_t c = 0; c < out->c; c++)
                dst[x * out->sw + c * out->sc] = tap_sum(j, src + c * in->sc, j->x.at + x * j->x.k,
                                                         j->x.weight + x * j->x.k, ay, wy);
    }
}

// The mean of the input places that an output place covers, at least in part.
static void area_rows(void *ctx, int64_t begin, int64_t end)
{
    const job *j = ctx;
    const at_planes *in = j->in, *out = j->out;
    for (int64_t r = begin; r < end; r++) {
        int64_t n = r / out->h, y = r % out->h;
        int64_t y0 = y * in->h / out->h, y1 = ((y + 1) * in->h + out->h - 1) / out->h;
        for (int64_t x = 0; x < out->w; x++) {
            int64_t x0 = x * in->w / out->w, x1 = ((x + 1) * in->w + out->w - 1) / out->w;
            for (int64_t c = 0; c < out->c; c++) {
                const float *src = in->data + n * in->sn + c * in->sc;
                float sum = 0;
                for (int64_t v = y0; v < y1; v++)
                    for (int64_t u = x0; u < x1; u++)
                        sum += src[v * in->sh + u * in->sw];
                out->data[n * out->sn + y * out->sh + x * out->sw + c * out->sc] =
                    sum / (float)(y1 - y0) / (float)(x1 - x0);
            }
        }
    }
}

static at_status resize_planes(const at_planes *in, const at_planes *out, at_resize_how how)
{
    at_status st = AT_OK;
    job j = {.in = in, .out = out};

    if (how == AT_RESIZE_LANCZOS) return at_resize_lanczos(in, out);
    if (how == AT_RESIZE_BISLERP) return at_resize_bislerp(in, out);
    if (how == AT_RESIZE_AREA) {
        at_parallel_for(out->n * out->h, GRAIN, area_rows, &j);
        return AT_OK;
    }
    AT_TRY(taps_make(how, in->w, out->w, in->sw, &j.x));
    AT_TRY(taps_make(how, in->h, out->h, in->sh, &j.y));
    at_parallel_for(out->n * out->h, GRAIN, tap_rows, &j);
out:
    taps_free(&j.x);
    taps_free(&j.y);
    return st;
}

// --- the door ----------------------------------------------------------------------------------------
static at_planes planes_of(const at_tensor *t, at_pixel_order order)
{
    static const int axes[3][3] = {{1, 2, 3}, {2, 3, 1}, {1, 2, -1}}; // h, w, c
    const int *a = axes[order];
    return (at_planes){.data = at_tensor_data(t),
                       .n = t->shape[0],
                       .h = t->shape[a[0]],
                       .w = t->shape[a[1]],
                       .c = a[2] < 0 ? 1 : t->shape[a[2]],
                       .sn = t->stride[0],
                       .sh = t->stride[a[0]],
                       .sw = t->stride[a[1]],
                       .sc = a[2] < 0 ? 0 : t->stride[a[2]]};
}

// What must go on each side so that the proportions become width : height; halves to even, as Python.
static at_status crop_centre(at_planes *p, int64_t width, int64_t height)
{
    double was = (double)p->w / (double)p->h, want = (double)width / (double)height;
    int64_t x = 0, y = 0;
    if (was > want)
        x = (int64_t)rint(((double)p->w - (double)p->w * (want / was)) / 2);
    else if (was < want)
        y = (int64_t)rint(((double)p->h - (double)p->h * (was / want)) / 2);
    if (p->w - 2 * x < 1 || p->h - 2 * y < 1)
        return at_fail(AT_EINVAL,
                       "nothing is left of a %lld x %lld picture cut to the proportions of "
                       "%lld x %lld",
                       (long long)p->w, (long long)p->h, (long long)width, (long long)height);
    p->data += y * p->sh + x * p->sw;
    p->h -= 2 * y;
    p->w -= 2 * x;
    return AT_OK;
}

static at_status check(const at_tensor *in, at_pixel_order order, int64_t width, int64_t height)
{
    char text[128];
    if (in->rank != (order == AT_ORDER_NHW ? 3 : 4) || in->dtype != AT_F32 ||
        !at_tensor_device(in)->host || at_tensor_count(in) == 0)
        return at_fail(AT_EINVAL, "a picture to resize must be f32 of rank %d and not empty: %s",
                       order == AT_ORDER_NHW ? 3 : 4,
                       at_shape_text(in->dtype, in->rank, in->shape, text));
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE)
        return at_fail(AT_EINVAL, "cannot resize to %lld x %lld: sides are 1 to %d",
                       (long long)width, (long long)height, MAX_SIDE);
    return AT_OK;
}

at_status at_resize(const at_tensor *in, at_pixel_order order, int64_t width, int64_t height,
                    at_resize_how how, bool centre, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *t = NULL;
    at_planes src, dst;

    *out = NULL;
    AT_TRY(check(in, order, width, height));
    src = planes_of(in, order);
    if (centre) AT_TRY(crop_centre(&src, width, height));
    int64_t shape[3][4] = {
        {src.n, height, width, src.c}, {src.n, src.c, height, width}, {src.n, height, width, 1}};
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, in->rank, shape[order], &t));
    dst = planes_of(t, order);
    AT_TRY(resize_planes(&src, &dst, how));
    *out = t;
    t = NULL;
out:
    at_tensor_release(&t);
    return st;
}
