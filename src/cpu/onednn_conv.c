// SPDX-License-Identifier: Apache-2.0
// onednn_conv.c - the convolution whose sums oneDNN brings.
// Idea: a task is a band of output rows of one image. oneDNN reads the rows under it where they lie if it can; if the
// picture is upsampled or rounded to int8 (one scale for a band), the task first makes its own copy of them.
// Owns nothing; scratch lives for one task.
#ifdef AT_HAVE_DNNL
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm_conv.h"
#include "cpu/int8.h"
#include "cpu/onednn_pack.h"

enum {
    BAND_FLOATS = 1 << 18,    // sums of one task
    HEAVY_BYTES = 4 * 1 << 20 // weights that leave the cache before the next task reads them again
};

typedef struct conv_job {
    conv *c;
    at_dnnl_type type;
    bool staged; // tasks copy their rows of x
    size_t element;
    const at_dnnl_packed *w;
    int layout;
    atomic_bool failed;
} conv_job;

// The part of the input under output rows [oy0, oy0 + rows), and the padding that is left.
static at_dnnl_shape band_shape(const conv_job *j, int64_t oy0, int64_t rows, int64_t *iy)
{
    const conv *c = j->c;
    const at_conv2d_args *a = c->a;
    int64_t y0 = oy0 * a->stride - a->pad_top, y1 = y0 + (rows - 1) * a->stride + c->kh;
    at_dnnl_shape s = {.iw = c->iw,
                       .ic = c->cin,
                       .oh = rows,
                       .ow = c->ow,
                       .oc = c->cout,
                       .kh = c->kh,
                       .kw = c->kw,
                       .sy = j->staged ? c->iw * c->cin : a->x.stride[1],
                       .sx = j->staged ? c->cin : a->x.stride[2],
                       .stride = a->stride,
                       .left = a->pad_left,
                       .conv = 1,
                       .type = (int)j->type};

    s.top = y0 < 0 ? -y0 : 0;
    s.bottom = y1 > c->ih ? y1 - c->ih : 0;
    *iy = y0 + s.top;
    s.ih = y1 - s.bottom - *iy;
    s.right = c->wide - c->iw - s.left;
    if (s.right < 0) { // the filter does not reach the last columns
        s.iw += s.right;
        s.right = 0;
    }
    return s;
}

// --- a copy of the rows -------------------------------------------------------------------------
// Pixels of source row y of image b as f32.
static void load_row(const conv *c, float *dst, int64_t b, int64_t y)
{
    const at_view *x = &c->a->x;
    int64_t first = b * x->stride[0] + y * x->stride[1];

    if (x->stride[2] == c->cin) {
        c->k->load(dst, x->data, x->dtype, first, 1, x->shape[2] * c->cin);
        return;
    }
    for (int64_t i = 0; i < x->shape[2]; i++)
        c->k->load(dst + i * c->cin, x->data, x->dtype, first + i * x->stride[2], 1, c->cin);
}

// The largest magnitude in source rows [y0, y1].
static float largest(const conv *c, float *row, int64_t b, int64_t y0, int64_t y1)
{
    float most = 0;
    for (int64_t y = y0; y <= y1; y++) {
        float m;
        load_row(c, row, b, y);
        m = c->k->absmax(row, c->a->x.shape[2] * c->cin);
        if (!(m <= most)) most = m; // NaN stays
    }
    return most;
}

// Rows [iy, iy + rows) as read (after upsampling) into dst [rows][iw][cin] of the job's type. `row`: a source row of
// f32. Returns the scale.
static float stage(const conv_job *j, char *dst, float *row, int64_t b, int64_t iy, int64_t rows)
{
    const conv *c = j->c;
    int64_t up = c->a->upsample2x ? 2 : 1, n = c->a->x.shape[2] * c->cin, last = -1;
    size_t pixel = (size_t)c->cin * j->element, line = (size_t)c->iw * pixel;
    float most = j->type == AT_DNNL_S8 ? largest(c, row, b, iy / up, (iy + rows - 1) / up) : 0;
    float inverse = at_cpu_q8_inverse(most);

    for (int64_t r = 0; r < rows; r++, dst += line) {
        int64_t y = (iy + r) / up;
        if (y == last) { // the same source row again
            memcpy(dst, dst - line, line);
            continue;
        }
        last = y;
        load_row(c, row, b, y);
        if (j->type == AT_DNNL_S8) {
            c->k->quantise((int8_t *)dst, row, inverse, n);
        } else {
            c->k->store(dst, j->type == AT_DNNL_BF16 ? AT_BF16 : AT_F32, 0, 1, row, n);
        }
        for (int64_t x = c->iw - 1; up == 2 && x > 0;
             x--) // from the end: the source is not overwritten
            memcpy(dst + (size_t)x * pixel, dst + (size_t)(x / 2) * pixel, pixel);
    }
    return most / 127.0f;
}

// --- tasks --------------------------------------------------------------------------------------
static bool conv_task(conv_job *j, int64_t task)
{
    conv *c = j->c;
    int64_t b = task / c->bands, oy0 = task % c->bands * c->band,
            rows = at_most(c->band, c->oh - oy0), iy;
    at_dnnl_shape s = band_shape(j, oy0, rows, &iy);
    size_t sums = (size_t)round_up(rows * c->ow * c->cout * 4, AT_ALIGN), copy = 0, row = 0;
    at_dnnl_kernel k = {0};
    const void *x = at_cpu_at(&c->a->x, b * c->a->x.stride[0] + iy * c->a->x.stride[1]);
    float scale = 1, *out;
    char *scratch;
    bool ok;

    s.layout = j->layout;
    if (!at_dnnl_kernel_get(&s, &k)) return false;
    if (j->staged) {
        copy = (size_t)round_up(s.ih * c->iw * c->cin * (int64_t)j->element, AT_ALIGN);
        row = (size_t)round_up(c->a->x.shape[2] * c->cin * 4, AT_ALIGN);
    }
    scratch = at_cpu_scratch(&c->oom, at_alloc(sums + copy + row + k.scratch + AT_ALIGN));
    if (!scratch) return true;
    if (j->staged) {
        scale = stage(j, scratch + sums, (float *)(void *)(scratch + sums + copy), b, iy, s.ih);
        x = scratch + sums;
    }
    out = (float *)(void *)scratch;
    ok = at_dnnl_run(&k, x, j->w->data, out, scratch + sums + copy + row);
    for (int64_t p = 0; ok && j->type == AT_DNNL_S8 && p < rows * c->ow; p++)
        c->k->from_s32(out + p * c->cout, (const int32_t *)(const void *)out + p * c->cout, scale,
                       j->w->scales, c->cout);
    for (int64_t n = 0; ok && n < c->cout; n += CONV_NC)
        at_cpu_conv_finish(c, b, oy0, rows, n, at_most(CONV_NC, c->cout - n), out + n, c->cout);
    at_free(scratch);
    return ok;
}

static void conv_range(void *ctx, int64_t begin, int64_t end)
{
    conv_job *j = ctx;

    if (!at_dnnl_ready()) atomic_store(&j->failed, true);
    for (int64_t i = begin; i < end && !atomic_load(&j->failed) && !at_cancelled(); i++)
        if (!conv_task(j, i)) atomic_store(&j->failed, true);
}

// True if every band of the picture has a kernel, and the weight is packed.
static bool prepare(conv_job *j)
{
    conv *c = j->c;
    bool heavy = c->kk * c->cout * (int64_t)j->element > HEAVY_BYTES;
    int64_t parts = (heavy ? 1 : 4) * at_threads(), iy;
    int64_t even = (c->a->out.shape[0] * c->oh + parts - 1) / parts;

    c->band = at_most(at_most(BAND_FLOATS / (c->ow * c->cout) + 1, even), c->oh);
    c->bands = (c->oh + c->band - 1) / c->band;
    j->w = at_dnnl_packed_get(c->a->w.packed, j->type);
    if (j->w) j->layout = j->w->layout;
    for (int64_t i = 0; i < c->bands; i++) {
        int64_t oy0 = i * c->band;
        at_dnnl_shape s = band_shape(j, oy0, at_most(c->band, c->oh - oy0), &iy);
        at_dnnl_kernel k;
        s.layout = j->layout;
        if (s.ih <= 0 || s.iw <= 0 || !at_dnnl_kernel_get(&s, &k)) return false;
        if (!j->w) j->w = at_dnnl_pack_weight(c->k, &k, j->type, &c->a->w, 1);
        if (!j->w) return false;
        j->layout = j->w->layout;
    }
    return true;
}

// *served false if our own code should do it.
static at_status run(conv *c, at_dnnl_type type, bool *served)
{
    conv_job j = {.c = c, .type = type};
    at_status st = AT_OK;

    j.staged = c->a->upsample2x || type == AT_DNNL_S8;
    j.element = type == AT_DNNL_S8 ? 1 : type == AT_DNNL_BF16 ? 2 : 4;
    *served =
        c->a->out.shape[0] && c->oh && c->ow && c->cout && c->cin && at_dnnl_ready() && prepare(&j);
    if (!*served) return AT_OK;
    at_parallel_for(c->a->out.shape[0] * c->bands, 1, conv_range, &j);
    AT_TRY(at_cpu_oom_status(&c->oom, "conv2d"));
    if (atomic_load(&j.failed)) AT_TRY(at_fail(AT_EINTERNAL, "conv2d: oneDNN failed to run"));
out:
    return st;
}

at_status at_dnnl_conv2d(const at_conv2d_args *a, bool f32_too)
{
    const at_cpu_kernels *k = at_cpu_table();
    at_linear_args linear;
    bool served = false;
    at_dnnl_type type;
    at_status st;
    conv c;

    if (!k || !at_cpu_conv_supported(a)) return at_cpu_ref_conv2d(NULL, a);
    if (at_cpu_conv_as_linear(a, &linear)) return at_dnnl_linear(&linear, f32_too);
    if (at_dnnl_choose(a->x.dtype, &a->w, a->int8, f32_too, &type)) {
        st = at_cpu_conv_open(&c, k, a);
        if (st == AT_OK) st = run(&c, type, &served);
        at_cpu_conv_close(&c);
        if (served || st != AT_OK) return st;
    }
    return at_cpu_gemm_conv2d(k, a);
}
#endif
