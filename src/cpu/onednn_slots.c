// SPDX-License-Identifier: Apache-2.0
// onednn_slots.c - linear and convolution whose sums oneDNN brings.
// Idea: a task is a block of the output; oneDNN leaves f32 sums in scratch that is still in the
// cache when our own end of the layer (gemm.h, gemm_conv.h) reads it. Weights are packed once, in
// column blocks of equal shape, and kept in at_packed within a share of the machine's memory.
// Owns: packed weights belong to the at_packed; scratch lives for one range.
#ifdef AT_HAVE_DNNL
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm.h"
#include "cpu/gemm_conv.h"
#include "cpu/onednn.h"

enum {
    FEW_ROWS = 16,        // up to here our own dot products and tiles are faster
    ROWS = 256,           // of a linear task
    COLUMNS = 1024,       // of one packed block of w
    BAND_FLOATS = 1 << 18 // sums of one convolution task
};

typedef struct packed {
    at_cpu_packed head;
    int layout;
    size_t block_bytes, blocks;
    _Alignas(AT_ALIGN) char data[];
} packed;

static const char owner; // its address marks our packed blocks

static void free_packed(at_cpu_packed *p)
{
    const packed *w = (const packed *)(void *)p;
    at_cpu_packed_give_back(w->block_bytes * w->blocks);
    at_free(p);
}

typedef struct pack_job {
    const at_dnnl_kernel *k;
    const char *from;
    size_t step; // bytes between blocks as stored
    packed *to;
    atomic_bool failed;
} pack_job;

static void pack_range(void *ctx, int64_t begin, int64_t end)
{
    pack_job *j = ctx;
    bool ok = at_dnnl_ready();

    for (int64_t i = begin; ok && i < end; i++)
        ok = at_dnnl_pack(j->k, j->from + (size_t)i * j->step,
                          j->to->data + (size_t)i * j->to->block_bytes);
    if (!ok) atomic_store(&j->failed, true);
}

// Pack a weight for kernel k and publish it. NULL if there is no place to keep it, or it fails:
// then our own kernels, which need no copy, do the work.
static const packed *pack(const at_dnnl_kernel *k, const at_wview *w, size_t step, size_t blocks)
{
    size_t bytes = (at_dnnl_weight_bytes(k) + AT_ALIGN - 1) / AT_ALIGN * AT_ALIGN;
    pack_job j = {.k = k, .from = w->v.data, .step = step};
    packed *p;

    if (!w->packed || atomic_load(&w->packed->data)) return NULL;
    if (!at_cpu_packed_take(bytes * blocks)) return NULL;
    p = at_alloc(sizeof *p + bytes * blocks);
    if (p) {
        *p = (packed){.head = {&owner, free_packed},
                      .layout = k->layout,
                      .block_bytes = bytes,
                      .blocks = blocks};
        j.to = p;
        at_parallel_for((int64_t)blocks, 1, pack_range, &j);
        if (!atomic_load(&j.failed) && at_cpu_packed_put(w->packed, &p->head)) return p;
    }
    at_cpu_packed_give_back(bytes * blocks);
    at_free(p);
    return at_cpu_packed_get(w->packed, &owner); // somebody else may have been first
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

// --- linear -------------------------------------------------------------------------------------
typedef struct linear_job {
    gemm *g;
    at_dnnl_kernel full, tail; // a task of all rows, and what is left of a batch entry
    const packed *w;
    int64_t rows, columns, tasks; // rows and columns of a task; row tasks of a batch entry
    size_t sums, scratch;         // bytes of a task
    atomic_bool failed;
} linear_job;

static void linear_task(linear_job *j, int64_t task, float *sums, void *scratch)
{
    gemm *g = j->g;
    int64_t blocks = (int64_t)j->w->blocks, row = task / blocks, block = task % blocks;
    int64_t t = row % j->tasks * j->rows, m = row / j->tasks * g->tokens + t;
    int64_t rows = at_most(j->rows, g->tokens - t), n0 = block * j->columns;

    if (!at_dnnl_run(rows == j->rows ? &j->full : &j->tail,
                     at_cpu_at(&g->x, row_offset(&g->x, m, g->tokens)),
                     j->w->data + (size_t)block * j->w->block_bytes, sums, scratch)) {
        atomic_store(&j->failed, true);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < j->columns; c += GEMM_NC)
            at_cpu_gemm_finish_row(g, sums + i * j->columns + c, m + i, n0 + c,
                                   at_most(GEMM_NC, j->columns - c));
}

static void linear_range(void *ctx, int64_t begin, int64_t end)
{
    linear_job *j = ctx;
    char *scratch = at_cpu_scratch(&j->g->oom, at_alloc(j->sums + j->scratch));

    if (!scratch) return;
    if (!at_dnnl_ready()) atomic_store(&j->failed, true);
    for (int64_t i = begin; i < end && !atomic_load(&j->failed); i++)
        linear_task(j, i, (float *)(void *)scratch, scratch + j->sums);
    at_free(scratch);
}

// The largest number of equal column blocks of at most COLUMNS, whole vectors wide; else one block.
static int64_t column_blocks(int64_t n)
{
    for (int64_t blocks = (n + COLUMNS - 1) / COLUMNS; blocks <= n / 64; blocks++)
        if (n % blocks == 0 && n / blocks % 32 == 0) return blocks;
    return 1;
}

// Kernels and packed weight of a job; false if our own code should serve.
static bool prepare_linear(linear_job *j, const at_linear_args *a)
{
    gemm *g = j->g;
    int64_t blocks = column_blocks(g->n);
    at_dnnl_shape s = {.oh = j->rows,
                       .ic = g->kk,
                       .oc = g->n / blocks,
                       .sx = at_cpu_step(&g->x, 1),
                       .bf16 = g->x.dtype == AT_BF16};
    size_t step = (size_t)(s.oc * s.ic) * at_cpu_dtype_bytes(g->w.dtype);

    j->columns = s.oc;
    if (s.sx < s.ic) s.sx = s.ic; // one row: its stride does not matter
    j->w = at_cpu_packed_get(a->w.packed, &owner);
    if (j->w) s.layout = j->w->layout;
    if (!at_dnnl_kernel_get(&s, &j->full)) return false;
    if (!j->w) j->w = pack(&j->full, &a->w, step, (size_t)blocks);
    if (!j->w || (int64_t)j->w->blocks != blocks) return false;
    s.layout = j->w->layout;
    if (j->full.layout != s.layout && !at_dnnl_kernel_get(&s, &j->full)) return false;
    s.oh = g->tokens % j->rows;
    return !s.oh || at_dnnl_kernel_get(&s, &j->tail);
}

// x and w alike, in a dtype that the library multiplies.
static bool same_float(const at_view *x, const at_wview *w, bool f32_too)
{
    return x->dtype == w->v.dtype && (x->dtype == AT_BF16 || (f32_too && x->dtype == AT_F32));
}

static at_status linear(const at_linear_args *a, bool f32_too)
{
    const at_cpu_kernels *k = at_cpu_table();
    linear_job j = {0};
    at_status st = AT_OK;
    gemm g;

    if (!k) return at_cpu_ref_linear(NULL, a);
    if (!same_float(&a->x, &a->w, f32_too)) return at_cpu_gemm_linear(k, a);
    AT_TRY(at_cpu_gemm_open(&g, k, a));
    j.g = &g;
    j.rows = at_most(ROWS, round_up((g.m + 4 * at_threads() - 1) / (4 * at_threads()), 32));
    j.rows = at_most(j.rows, g.tokens);
    if (g.m <= FEW_ROWS || !g.n || !g.kk || !at_dnnl_ready() || !prepare_linear(&j, a)) {
        at_cpu_gemm_close(&g);
        return at_cpu_gemm_linear(k, a);
    }
    j.tasks = (g.tokens + j.rows - 1) / j.rows;
    j.sums = (size_t)round_up(j.rows * j.columns * (int64_t)sizeof(float), AT_ALIGN);
    j.scratch = larger(j.full.scratch, j.tail.scratch) + AT_ALIGN;
    at_parallel_for(g.m / g.tokens * j.tasks * (int64_t)j.w->blocks, 1, linear_range, &j);
    AT_TRY(at_cpu_oom_status(&g.oom, "linear"));
    if (atomic_load(&j.failed)) AT_TRY(at_fail(AT_EINTERNAL, "linear: oneDNN failed to run"));
out:
    at_cpu_gemm_close(&g);
    return st;
}

// --- convolution --------------------------------------------------------------------------------
typedef struct conv_job {
    conv *c;
    const packed *w;
    int layout;
    atomic_bool failed, missing;
} conv_job;

// The part of the input under output rows [oy0, oy0 + rows), and the padding that is left.
static at_dnnl_shape band_shape(const conv *c, int64_t oy0, int64_t rows, int64_t *iy)
{
    const at_conv2d_args *a = c->a;
    int64_t y0 = oy0 * a->stride - a->pad_top, y1 = y0 + (rows - 1) * a->stride + c->kh;
    at_dnnl_shape s = {.iw = c->iw,
                       .ic = c->cin,
                       .oh = rows,
                       .ow = c->ow,
                       .oc = c->cout,
                       .kh = c->kh,
                       .kw = c->kw,
                       .sy = a->x.stride[1],
                       .sx = a->x.stride[2],
                       .stride = a->stride,
                       .left = a->pad_left,
                       .conv = 1,
                       .bf16 = a->x.dtype == AT_BF16};

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

static void conv_range(void *ctx, int64_t begin, int64_t end)
{
    conv_job *j = ctx;
    conv *c = j->c;

    if (!at_dnnl_ready()) atomic_store(&j->failed, true);
    for (int64_t i = begin; i < end && !atomic_load(&j->failed); i++) {
        int64_t b = i / c->bands, oy0 = i % c->bands * c->band,
                rows = at_most(c->band, c->oh - oy0), iy;
        at_dnnl_shape s = band_shape(c, oy0, rows, &iy);
        size_t sums = (size_t)round_up(rows * c->ow * c->cout * 4, AT_ALIGN);
        at_dnnl_kernel k = {0};
        char *scratch;
        s.layout = j->layout;
        if (!at_dnnl_kernel_get(&s, &k)) {
            atomic_store(&j->failed, true);
            return;
        }
        scratch = at_cpu_scratch(&c->oom, at_alloc(sums + k.scratch + AT_ALIGN));
        if (!scratch) return;
        if (at_dnnl_run(&k, at_cpu_at(&c->a->x, b * c->a->x.stride[0] + iy * c->a->x.stride[1]),
                        j->w->data, scratch, scratch + sums)) {
            for (int64_t n = 0; n < c->cout; n += CONV_NC)
                at_cpu_conv_finish(c, b, oy0, rows, n, at_most(CONV_NC, c->cout - n),
                                   (float *)(void *)scratch + n, c->cout);
        } else {
            atomic_store(&j->failed, true);
        }
        at_free(scratch);
    }
}

// True if every band of the picture has a kernel, and the weight is packed.
static bool prepare_conv(conv_job *j)
{
    conv *c = j->c;
    int64_t even = (c->a->out.shape[0] * c->oh + 4 * at_threads() - 1) / (4 * at_threads()), iy;

    c->band = at_most(at_most(BAND_FLOATS / (c->ow * c->cout) + 1, even), c->oh);
    c->bands = (c->oh + c->band - 1) / c->band;
    j->w = at_cpu_packed_get(c->a->w.packed, &owner);
    if (j->w) j->layout = j->w->layout;
    for (int64_t i = 0; i < c->bands; i++) {
        int64_t oy0 = i * c->band;
        at_dnnl_shape s = band_shape(c, oy0, at_most(c->band, c->oh - oy0), &iy);
        at_dnnl_kernel k;
        s.layout = j->layout;
        if (s.ih <= 0 || s.iw <= 0 || !at_dnnl_kernel_get(&s, &k)) return false;
        if (!j->w) j->w = pack(&k, &c->a->w, 0, 1);
        if (!j->w) return false;
        j->layout = j->w->layout;
    }
    return true;
}

static at_status conv2d(const at_conv2d_args *a, bool f32_too)
{
    const at_cpu_kernels *k = at_cpu_table();
    conv_job j = {0};
    at_status st = AT_OK;
    conv c;

    if (!k || !at_cpu_conv_supported(a)) return at_cpu_ref_conv2d(NULL, a);
    if (!same_float(&a->x, &a->w, f32_too) || a->upsample2x) return at_cpu_gemm_conv2d(k, a);
    AT_TRY(at_cpu_conv_open(&c, k, a));
    j.c = &c;
    if (!a->out.shape[0] || !c.oh || !c.ow || !c.cout || !at_dnnl_ready() || !prepare_conv(&j)) {
        at_cpu_conv_close(&c);
        return at_cpu_gemm_conv2d(k, a);
    }
    at_parallel_for(a->out.shape[0] * c.bands, 1, conv_range, &j);
    AT_TRY(at_cpu_oom_status(&c.oom, "conv2d"));
    if (atomic_load(&j.failed)) AT_TRY(at_fail(AT_EINTERNAL, "conv2d: oneDNN failed to run"));
out:
    at_cpu_conv_close(&c);
    return st;
}

// --- slots --------------------------------------------------------------------------------------
static at_status linear_bf16(void *stream, const at_linear_args *a)
{
    (void)stream;
    return linear(a, false);
}
static at_status linear_all(void *stream, const at_linear_args *a)
{
    (void)stream;
    return linear(a, true);
}
static at_status conv2d_bf16(void *stream, const at_conv2d_args *a)
{
    (void)stream;
    return conv2d(a, false);
}
static at_status conv2d_all(void *stream, const at_conv2d_args *a)
{
    (void)stream;
    return conv2d(a, true);
}

void at_cpu_use_onednn(at_backend *b)
{
    b->linear = linear_bf16;
    b->conv2d = conv2d_bf16;
}

void at_cpu_use_onednn_all(at_backend *b)
{
    b->linear = linear_all;
    b->conv2d = conv2d_all;
}
#endif
