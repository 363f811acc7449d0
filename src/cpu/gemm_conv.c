// SPDX-License-Identifier: Apache-2.0
// gemm_conv.c - 2D convolution as an implicit matrix product over a table of leaves.
// Idea: in NHWC the kw * cin inputs under one row of the filter are contiguous, so a register tile
// reads neighbouring output pixels straight from a padded band of the input, with one segment per
// filter row: no im2col, no transposed copy. A task copies its own band (as f32, padded, upsampled
// if asked), multiplies, and finishes its pixels while they are near.
// Owns: the packed weight belongs to at_packed; other scratch lives for one call or range.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm_conv.h"

enum {
    PACK_ROWS = 288, // of a panel that are transposed at a time
    KC_ALL = 320, // shorter filters are multiplied in one go, all rows at once; else parts of a row
    SUMS_BYTES = 192 * 1024, // sums of a band
};

// --- the weight ---------------------------------------------------------------------------------
typedef struct pack_job {
    const conv *c;
    void *panels;
    at_cpu_oom *oom;
} pack_job;

// Panel p: weight [cout, cin, kh, kw] as [k][nr] in its own dtype, with zeros behind the last channel.
static void pack_range(void *ctx, int64_t begin, int64_t end)
{
    const pack_job *j = ctx;
    const conv *c = j->c;
    const at_view *w = &c->a->w.v;
    int64_t nr = c->k->nr, taps = c->kh * c->kw, step = 1 + PACK_ROWS / taps;
    float *g = at_cpu_scratch(j->oom, at_alloc((size_t)(step * taps * nr) * sizeof *g));

    if (!g) return;
    for (int64_t p = begin; p < end; p++) {
        int64_t first = p * nr * c->kk, o = p * nr;
        for (int64_t i = 0; i < c->cin; i += step) {
            int64_t n = at_most(step, c->cin - i);
            c->k->pack(g, w->data, w->dtype, (o * c->cin + i) * taps, c->cin * taps,
                       (int)at_most(nr, c->cout - o), n * taps);
            for (int64_t r = 0; r < n * taps; r++)
                c->k->store(j->panels, w->dtype, first + (r % taps * c->cin + i + r / taps) * nr, 1,
                            g + r * nr, nr);
        }
    }
    at_free(g);
}

typedef struct packed_conv {
    at_cpu_packed head;
    at_dtype dtype;
    _Alignas(AT_ALIGN) char panels[];
} packed_conv;

static at_status pack_weight(conv *c, packed_conv **out)
{
    int64_t count = (c->cout + c->k->nr - 1) / c->k->nr;
    size_t elements = (size_t)(count * c->k->nr * c->kk);
    packed_conv *p = at_alloc(sizeof *p + elements * at_cpu_dtype_bytes(c->a->w.v.dtype));
    pack_job j;

    if (!p) return at_fail(AT_ENOMEM, "conv2d: no memory to pack %zu weights", elements);
    *p = (packed_conv){.head = {.owner = c->k}, .dtype = c->a->w.v.dtype};
    j = (pack_job){c, p->panels, &c->oom};
    at_parallel_for(count, 1 + 16384 / (c->kk * c->k->nr), pack_range, &j);
    *out = p;
    return at_cpu_oom_status(&c->oom, "conv2d");
}

// --- a band of the input ------------------------------------------------------------------------
static void zero(float *p, int64_t n)
{
    memset(p, 0, (size_t)n * sizeof *p);
}

// One padded row: input row iy (of the upsampled picture), from column -pad_left on.
static void fill_row(const conv *c, float *dst, int64_t b, int64_t iy)
{
    const at_conv2d_args *a = c->a;
    const at_view *x = &a->x;
    int up = a->upsample2x ? 2 : 1;
    int64_t first = b * x->stride[0] + iy / up * x->stride[1];
    int64_t left = at_most(a->pad_left, c->wide), n = at_most(c->iw, c->wide - left);

    if (iy < 0 || iy >= c->ih) {
        zero(dst, c->wide * c->cin);
        return;
    }
    zero(dst, left * c->cin);
    dst += left * c->cin;
    if (up == 1 && x->stride[2] == c->cin) {
        c->k->load(dst, x->data, x->dtype, first, 1, n * c->cin);
    } else {
        for (int64_t ix = 0; ix < n; ix++) {
            if (up == 2 && (ix & 1)) {
                memcpy(dst + ix * c->cin, dst + (ix - 1) * c->cin, (size_t)c->cin * sizeof *dst);
            } else {
                c->k->load(dst + ix * c->cin, x->data, x->dtype, first + ix / up * x->stride[2], 1,
                           c->cin);
            }
        }
    }
    zero(dst + n * c->cin, (c->wide - left - n) * c->cin);
}

static void fill_band(const conv *c, float *dst, int64_t b, int64_t oy0, int64_t rows)
{
    int64_t y0 = oy0 * c->a->stride - c->a->pad_top, n = (rows - 1) * c->a->stride + c->kh;
    bool doubled = c->a->upsample2x;

    for (int64_t r = 0; r < n; r++) {
        float *to = dst + r * c->wide * c->cin;
        int64_t iy = y0 + r;
        if (doubled && r > 0 && iy > 0 && iy < c->ih && (iy & 1)) { // the same source row again
            memcpy(to, to - c->wide * c->cin, (size_t)(c->wide * c->cin) * sizeof *to);
        } else {
            fill_row(c, to, b, iy);
        }
    }
}

// --- one task -----------------------------------------------------------------------------------
typedef struct band_view {
    const float *data;  // of the first input pixel under the first output pixel
    int64_t row, pixel; // floats to the next input row and pixel
} band_view;

// Sums of output rows [0, rows), channels [n0, n0 + panels * nr) into s [rows * ow][ld].
// `piece`: room for a part of a panel as f32.
static void multiply(const conv *c, const band_view *v, int64_t rows, int64_t n0, int64_t panels,
                     float *s, int64_t ld, float *piece)
{
    int64_t nr = c->k->nr, mr = c->k->mr, step = v->pixel * c->a->stride;
    int64_t off[CONV_MAX_K], pieces = c->kk <= KC_ALL ? 1 : (c->row + c->k->kc - 1) / c->k->kc;
    int64_t len = (c->row + pieces - 1) / pieces, sweeps = c->kk <= KC_ALL ? 1 : c->kh * pieces;

    for (int64_t i = 0; i < c->kh; i++)
        off[i] = i * v->row;
    for (int64_t sweep = 0; sweep < sweeps; sweep++) {
        int64_t ky = sweep / pieces, k0 = sweep % pieces * len, n = at_most(len, c->row - k0);
        for (int64_t p = 0; p < panels; p++) {
            int64_t first = (n0 + p * nr) * c->kk + (ky * c->row + k0) * nr;
            const float *w = at_cpu_row(c->k, piece, c->panels, c->panel_dtype, first, 1,
                                        (sweeps == 1 ? c->kk : n) * nr);
            for (int64_t y = 0; y < rows; y++) {
                const float *from = v->data + (y * c->a->stride + ky) * v->row + k0;
                float *to = s + y * c->ow * ld + p * nr;
                for (int64_t x = 0; x < c->ow; x += mr)
                    c->k->tile((int)at_most(mr, c->ow - x), sweeps == 1 ? (int)c->kh : 1, off, n,
                               from + x * step, step, w, to + x * ld, ld, sweep > 0);
            }
        }
    }
}

void at_cpu_conv_finish_pixel(const conv *c, int64_t b, int64_t y, int64_t x, int64_t n0,
                              int64_t count, float *s)
{
    const at_conv2d_args *a = c->a;
    const at_view *r = &a->residual, *o = &a->out;
    int64_t to = b * o->stride[0] + y * o->stride[1] + x * o->stride[2] + n0;
    float residual[CONV_NC], *row = o->dtype == AT_F32 ? (float *)o->data + to : s;
    at_cpu_finish f = {.scale = a->w.scale, .bias = c->bias ? c->bias + n0 : NULL, .act = a->act};

    if (r->data)
        f.residual =
            at_cpu_row(c->k, residual, r->data, r->dtype,
                       b * r->stride[0] + y * r->stride[1] + x * r->stride[2] + n0, 1, count);
    c->k->finish(row, s, count, &f);
    if (row == s) c->k->store(o->data, o->dtype, to, 1, row, count);
}

void at_cpu_conv_finish(const conv *c, int64_t b, int64_t oy0, int64_t rows, int64_t n0,
                        int64_t count, float *s, int64_t ld)
{
    for (int64_t p = 0; p < rows * c->ow; p++)
        at_cpu_conv_finish_pixel(c, b, oy0 + p / c->ow, p % c->ow, n0, count, s + p * ld);
}

static void conv_task(const conv *c, int64_t task, float *band, float *sums, float *piece)
{
    int64_t b = task / c->bands, oy0 = task % c->bands * c->band, nr = c->k->nr;
    int64_t rows = at_most(c->band, c->oh - oy0);
    const at_view *x = &c->a->x;
    band_view v = {band, c->wide * c->cin, c->cin};

    if (c->direct) {
        v = (band_view){(const float *)x->data + b * x->stride[0] +
                            oy0 * c->a->stride * x->stride[1],
                        x->stride[1], x->stride[2]};
    } else {
        fill_band(c, band, b, oy0, rows);
    }
    for (int64_t n0 = 0; n0 < c->cout; n0 += CONV_NC) {
        int64_t count = at_most(CONV_NC, c->cout - n0), ld = round_up(count, nr) + CONV_PAD;
        multiply(c, &v, rows, n0, (count + nr - 1) / nr, sums, ld, piece);
        at_cpu_conv_finish(c, b, oy0, rows, n0, count, sums, ld);
    }
}

static size_t band_floats(const conv *c)
{
    return c->direct
               ? 0
               : (size_t)(((c->band - 1) * c->a->stride + c->kh) * c->wide * c->cin + CONV_PAD);
}

static void conv_range(void *ctx, int64_t begin, int64_t end)
{
    conv *c = ctx;
    int64_t ld = round_up(at_most(CONV_NC, c->cout), c->k->nr) + CONV_PAD;
    size_t floats = (size_t)round_up((int64_t)band_floats(c), CONV_PAD);
    size_t sums = (size_t)(c->band * c->ow * ld);
    size_t piece = c->panel_dtype == AT_F32 ? 0 : (size_t)(KC_ALL + c->k->kc) * (size_t)c->k->nr;
    float *scratch = at_cpu_scratch(&c->oom, at_alloc((floats + sums + piece) * sizeof *scratch));

    if (!scratch) return;
    for (int64_t t = begin; t < end && !at_cancelled(); t++)
        conv_task(c, t, scratch + sums, scratch, scratch + sums + floats);
    at_free(scratch);
}

// Rows of a task: sums that stay in the second cache, and a few tasks for every thread.
static void choose_band(conv *c, int64_t batch)
{
    int64_t ld = round_up(at_most(CONV_NC, c->cout), c->k->nr) + CONV_PAD;
    int64_t rows = SUMS_BYTES / 4 / (ld * c->ow) + 1;
    int64_t even = (batch * c->oh + at_threads() * 4 - 1) / (at_threads() * 4);

    c->band = at_most(at_most(rows, even), c->oh);
    if (c->band < 1) c->band = 1;
    c->bands = (c->oh + c->band - 1) / c->band;
}

bool at_cpu_conv_supported(const at_conv2d_args *a)
{
    at_dtype t = a->w.v.dtype;
    bool f = t == AT_F32 || t == AT_F16 || t == AT_BF16 || t == AT_F8E4M3 || t == AT_F8E5M2;
    return f && a->w.v.shape[2] <= CONV_MAX_K && a->w.v.shape[3] <= CONV_MAX_K;
}

at_status at_cpu_conv_open(conv *c, const at_cpu_kernels *k, const at_conv2d_args *a)
{
    float *bias;
    int up = a->upsample2x ? 2 : 1;

    *c = (conv){.k = k, .a = a};
    c->ih = a->x.shape[1] * up;
    c->iw = a->x.shape[2] * up;
    c->cout = a->w.v.shape[0];
    c->cin = a->w.v.shape[1];
    c->kh = a->w.v.shape[2];
    c->kw = a->w.v.shape[3];
    c->oh = a->out.shape[1];
    c->ow = a->out.shape[2];
    c->row = c->kw * c->cin;
    c->kk = c->kh * c->row;
    c->wide = (c->ow - 1) * a->stride + c->kw;
    c->direct = a->x.dtype == AT_F32 && up == 1 && a->pad_top == 0 && a->pad_left == 0 &&
                (c->oh - 1) * a->stride + c->kh <= c->ih && c->wide <= c->iw &&
                (c->kw == 1 || a->x.stride[2] == c->cin);
    if (!a->bias.v.data) return AT_OK;
    bias = at_alloc((size_t)c->cout * sizeof *bias);
    if (!bias) return at_fail(AT_ENOMEM, "conv2d: no memory for a bias");
    k->load(bias, a->bias.v.data, a->bias.v.dtype, 0, 1, c->cout);
    if (a->bias.scale != 1.0f) k->scale(bias, a->bias.scale, c->cout);
    c->bias = bias;
    return AT_OK;
}

void at_cpu_conv_close(conv *c)
{
    at_free((void *)c->bias);
    c->bias = NULL;
}

// Rows of pixels that follow each other are one long row.
static bool flat_pixels(const at_view *v, at_view *out)
{
    if (v->data && v->shape[1] > 1 && v->stride[1] != v->shape[2] * v->stride[2]) return false;
    *out = (at_view){.data = v->data,
                     .dtype = v->dtype,
                     .rank = 3,
                     .shape = {v->shape[0], v->shape[1] * v->shape[2], v->shape[3]},
                     .stride = {v->stride[0], v->stride[2], v->stride[3]}};
    return true;
}

bool at_cpu_conv_as_linear(const at_conv2d_args *a, at_linear_args *out)
{
    bool point = a->w.v.shape[2] == 1 && a->w.v.shape[3] == 1 && a->stride == 1 && !a->upsample2x;

    *out = (at_linear_args){.w = a->w, .bias = a->bias, .act = a->act, .int8 = a->int8};
    out->w.v.rank = 2;
    out->w.v.stride[0] = a->w.v.shape[1];
    out->w.v.stride[1] = 1;
    return point && !a->pad_top && !a->pad_left && !a->pad_bottom && !a->pad_right &&
           flat_pixels(&a->x, &out->x) && flat_pixels(&a->out, &out->out) &&
           flat_pixels(&a->residual, &out->residual);
}

at_status at_cpu_gemm_conv2d(const at_cpu_kernels *k, const at_conv2d_args *a)
{
    at_linear_args linear;
    packed_conv *own = NULL;
    const packed_conv *kept;
    at_status st = AT_OK;
    conv c;

    if (!at_cpu_conv_supported(a)) return at_cpu_ref_conv2d(NULL, a);
    if (at_cpu_conv_as_linear(a, &linear)) return at_cpu_gemm_linear(k, &linear);
    AT_TRY(at_cpu_conv_open(&c, k, a));
    if (!a->out.shape[0] || !c.oh || !c.ow || !c.cout || !c.cin) goto out;
    if (at_cpu_winograd_pays(k, a)) {
        AT_TRY(at_cpu_winograd_run(&c));
        goto out;
    }
    choose_band(&c, a->out.shape[0]);
    kept = at_cpu_packed_get(a->w.packed, k);
    if (!kept) {
        AT_TRY(pack_weight(&c, &own));
        kept = own;
        if (at_cpu_packed_put(a->w.packed, &own->head)) {
            own = NULL; // moved to the weight
            at_cpu_packed_drop_source(&a->w);
        }
    }
    c.panels = kept->panels;
    c.panel_dtype = kept->dtype;
    at_parallel_for(a->out.shape[0] * c.bands, 1, conv_range, &c);
    st = at_cpu_oom_status(&c.oom, "conv2d");
out:
    at_free(own);
    at_cpu_conv_close(&c);
    return st;
}
