// SPDX-License-Identifier: Apache-2.0
// winograd.c - 3x3 convolutions of stride 1 with a quarter of the multiplications.
// Idea: Winograd's F(4x4, 3x3) (Lavin & Gray 2015, arXiv:1509.09308): a 6x6 patch of the input and the filter are
// transformed to 36 places, multiplied there channel by channel (36 matrix products over the same register tile as
// everything else), and transformed back to 4x4 output pixels. Weights are transformed in blocks of columns that stay
// in the last cache and are forgotten: a kept copy would be four times the weight in f32.
// Easy to get wrong: errors are relative to the largest value of a patch, not of a pixel; the points were chosen for
// f32 (x86/winograd_avx2.c), and tests/check holds it to the tolerance of the direct form.
// Owns nothing: scratch lives for one call or range.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm_conv.h"

enum {
    PLACES = 36,
    SIDE = 4,                      // output pixels of a patch, each way
    PATCHES = 48,                  // of a task, at most
    COLUMNS = 128,                 // output channels that are multiplied at a time
    BLOCK_BYTES = 8 * 1024 * 1024, // transformed weights at a time
    CHANNELS = 32,                 // input channels that are packed at a time
    FEW_PATCHES = 8                // below: transforming the weight costs more than is saved
};

typedef struct wino {
    conv *c;
    int64_t down, across, patches, each; // patches in an image (each way), in all, and of a task
    int64_t n0, columns, panels;         // the block of output channels that is transformed
    int64_t lda;                         // floats between rows of v
    // Floats between places. Never multiples of 4096 bytes: 36 streams would meet in one set of the cache.
    int64_t u_step, v_step, m_step;
    float *u;           // [36][panels][cin][nr]
    const float *zeros; // [cin]
} wino;

// --- the weight ---------------------------------------------------------------------------------
static void filter_range(void *ctx, int64_t begin, int64_t end)
{
    const wino *w = ctx;
    const conv *c = w->c;
    const at_view *f = &c->a->w.v;
    int64_t nr = c->k->nr, steps = (c->cin + CHANNELS - 1) / CHANNELS;
    float *g = at_cpu_scratch(&w->c->oom, at_alloc((size_t)(CHANNELS * 9 * nr) * sizeof *g));

    if (!g) return;
    for (int64_t i = begin; i < end; i++) {
        int64_t panel = i / steps, c0 = i % steps * CHANNELS, n = at_most(CHANNELS, c->cin - c0);
        int64_t o = w->n0 + panel * nr;
        float *to = w->u + (panel * c->cin + c0) * nr;
        c->k->pack(g, f->data, f->dtype, (o * c->cin + c0) * 9, c->cin * 9,
                   (int)at_most(nr, c->cout - o), n * 9);
        for (int64_t j = 0; j < n; j++)
            c->k->wino_filter(to + j * nr, w->u_step, g + j * 9 * nr, (int)nr);
    }
    at_free(g);
}

// --- the input ----------------------------------------------------------------------------------
// Where the 36 pixels under a patch lie as f32: in x, in `zeros`, or converted into buf.
static void find_pixels(const wino *w, int64_t patch, const float *px[PLACES], float *buf)
{
    const conv *c = w->c;
    const at_conv2d_args *a = c->a;
    const at_view *x = &a->x;
    int64_t per = w->down * w->across, b = patch / per;
    int64_t y0 = patch % per / w->across * SIDE - a->pad_top;
    int64_t x0 = patch % w->across * SIDE - a->pad_left;
    int up = a->upsample2x ? 2 : 1;

    for (int i = 0; i < PLACES; i++) {
        int64_t iy = y0 + i / 6, ix = x0 + i % 6;
        if (iy < 0 || ix < 0 || iy >= c->ih || ix >= c->iw) {
            px[i] = w->zeros;
        } else {
            px[i] = at_cpu_row(c->k, buf + i * c->cin, x->data, x->dtype,
                               b * x->stride[0] + iy / up * x->stride[1] + ix / up * x->stride[2],
                               1, c->cin);
        }
    }
}

// --- one task -----------------------------------------------------------------------------------
// Products of `rows` patches with channels [n, n + columns) of the block, into m [36][each][ldm].
static void multiply(const wino *w, const float *v, int64_t rows, int64_t n, int64_t columns,
                     float *m, int64_t ldm)
{
    const at_cpu_kernels *k = w->c->k;
    int64_t nr = k->nr, cin = w->c->cin, pieces = (cin + k->kc - 1) / k->kc;
    int64_t len = round_up((cin + pieces - 1) / pieces, 8);

    for (int64_t p = 0; p < PLACES; p++) {
        const float *u = w->u + p * w->u_step + n * cin;
        for (int64_t k0 = 0; k0 < cin; k0 += len)
            for (int64_t j = 0; j < columns; j += nr) {
                const float *panel = u + j * cin + k0 * nr;
                for (int64_t i = 0; i < rows; i += k->mr) {
                    if (j + nr < columns)
                        at_cpu_fetch_ahead(panel + nr * cin, at_most(len, cin - k0) * nr, i / k->mr,
                                           (rows + k->mr - 1) / k->mr);
                    k->tile((int)at_most(k->mr, rows - i), 1, NULL, at_most(len, cin - k0),
                            v + p * w->v_step + i * w->lda + k0, w->lda, panel,
                            m + p * w->m_step + i * ldm + j, ldm, k0 > 0);
                }
            }
    }
}

// Channels [n, n + count) of the block, from products m to finished pixels.
static void give_pixels(const wino *w, int64_t first, int64_t rows, int64_t n, int64_t count,
                        const float *m, int64_t ldm)
{
    conv *c = w->c;
    float pixels[SIDE * SIDE * COLUMNS];

    for (int64_t i = 0; i < rows; i++) {
        int64_t per = w->down * w->across, b = (first + i) / per;
        int64_t y = (first + i) % per / w->across * SIDE, x = (first + i) % w->across * SIDE;
        c->k->wino_output(pixels, COLUMNS, m + i * ldm, w->m_step, count);
        for (int64_t p = 0; p < SIDE * SIDE; p++) {
            if (y + p / SIDE >= c->oh || x + p % SIDE >= c->ow) continue;
            at_cpu_conv_finish_pixel(c, b, y + p / SIDE, x + p % SIDE, w->n0 + n, count,
                                     pixels + p * COLUMNS);
        }
    }
}

static void task_range(void *ctx, int64_t begin, int64_t end)
{
    const wino *w = ctx;
    conv *c = w->c;
    int64_t ldm = COLUMNS + CONV_PAD;
    size_t v_floats = (size_t)(PLACES * w->v_step), m_floats = (size_t)(PLACES * w->m_step);
    size_t buf = c->a->x.dtype == AT_F32 ? 0 : (size_t)(PLACES * c->cin);
    float *v = at_cpu_scratch(&c->oom, at_alloc((v_floats + m_floats + buf) * sizeof *v));

    if (!v) return;
    for (int64_t task = begin; task < end && !at_cancelled(); task++) {
        int64_t first = task * w->each, rows = at_most(w->each, w->patches - first);
        const float *px[PLACES];
        for (int64_t i = 0; i < rows; i++) {
            find_pixels(w, first + i, px, v + v_floats + m_floats);
            c->k->wino_input(v + i * w->lda, w->v_step, px, c->cin);
        }
        for (int64_t n = 0; n < w->columns; n += COLUMNS) {
            int64_t count = at_most(COLUMNS, w->columns - n);
            multiply(w, v, rows, n, count, v + v_floats, ldm);
            give_pixels(w, first, rows, n, at_most(count, c->cout - w->n0 - n), v + v_floats, ldm);
        }
    }
    at_free(v);
}

// --- the whole ----------------------------------------------------------------------------------
bool at_cpu_winograd_pays(const at_cpu_kernels *k, const at_conv2d_args *a)
{
    int64_t oh = a->out.shape[1], ow = a->out.shape[2];
    int64_t patches = a->out.shape[0] * ((oh + SIDE - 1) / SIDE) * ((ow + SIDE - 1) / SIDE);

    return k->wino_input && a->w.v.shape[2] == 3 && a->w.v.shape[3] == 3 && a->stride == 1 &&
           a->w.v.shape[1] >= 16 && patches >= FEW_PATCHES &&
           a->out.shape[0] * oh * ow * 2 > patches * SIDE * SIDE;
}

// Channels of a block of transformed weights: whole panels, equal blocks.
static int64_t block_columns(const conv *c)
{
    int64_t nr = c->k->nr, most = BLOCK_BYTES / 4 / (PLACES * c->cin), parts;

    if (most < COLUMNS) most = COLUMNS;
    parts = (c->cout + most - 1) / most;
    return round_up((c->cout + parts - 1) / parts, nr);
}

at_status at_cpu_winograd_run(conv *c)
{
    int64_t nr = c->k->nr, columns = block_columns(c), tasks = (c->cin + CHANNELS - 1) / CHANNELS;
    wino w = {.c = c, .down = (c->oh + SIDE - 1) / SIDE, .across = (c->ow + SIDE - 1) / SIDE};
    float *block = at_alloc(
        (size_t)(round_up(c->cin, 16) + PLACES * (columns * c->cin + CONV_PAD)) * sizeof *block);

    if (!block)
        return at_fail(AT_ENOMEM, "conv2d: no memory for %lld transformed weights",
                       (long long)(PLACES * columns * c->cin));
    w.patches = c->a->out.shape[0] * w.down * w.across;
    w.each = (w.patches + at_threads() - 1) / at_threads();
    w.each = round_up(at_most(w.each, round_up(PATCHES, c->k->mr)), c->k->mr);
    w.lda = c->cin + CONV_PAD;
    w.v_step = w.each * w.lda + CONV_PAD;
    w.m_step = w.each * (COLUMNS + CONV_PAD) + CONV_PAD;
    w.u_step = columns * c->cin + CONV_PAD;
    memset(block, 0, (size_t)c->cin * sizeof *block);
    w.zeros = block;
    w.u = block + round_up(c->cin, 16);
    for (w.n0 = 0; w.n0 < c->cout && !at_cancelled(); w.n0 += columns) {
        w.columns = at_most(columns, round_up(c->cout - w.n0, nr));
        w.panels = w.columns / nr;
        at_parallel_for(w.panels * tasks, 4, filter_range, &w);
        at_parallel_for((w.patches + w.each - 1) / w.each, 1, task_range, &w);
    }
    at_free(block);
    return at_cpu_oom_status(&c->oom, "conv2d");
}
