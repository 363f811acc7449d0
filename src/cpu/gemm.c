// SPDX-License-Identifier: Apache-2.0
// gemm.c - the linear layer over a table of leaves: blocking, packing, parallelism, epilogue.
// Idea (Goto & van de Geijn 2008): a block of w columns, all of K, is converted to f32 panels that
// stay in the last cache; each task then takes some rows of x (second cache), walks K in pieces
// whose panel stays in the first cache, and finishes its rows while they are still near. Weights of
// any dtype become f32 only while they are packed: there is no dequantised copy of the model. Few
// rows take another way: dot products that read w in place.
// Owns nothing; scratch lives for one call or range.
#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm.h"

// Measured on Zen 3 (docs/bench/cpu.md): w panels of kc * 16 floats take half of the first cache,
// rows and sums of a task (MC * (kc + GEMM_NC) floats) nearly fill the second.
enum {
    DOT_ROWS = 24,                // up to here dots beat packing
    DOT_COLS = 64,                // columns of one dots call
    MC = 144,                     // rows of a task
    PANEL_BYTES = 6 * 1024 * 1024 // packed w at a time
};

void at_cpu_gemm_finish_row(const gemm *g, float *c, int64_t m, int64_t n, int64_t count)
{
    const at_linear_args *a = g->a;
    float gate[GEMM_NC], residual[GEMM_NC], *y;
    int64_t to;
    at_cpu_finish f = {.scale = a->w.scale, .bias = g->bias ? g->bias + n : NULL, .act = a->act};

    if (g->gate.data)
        f.gate = at_cpu_row(g->k, gate, g->gate.data, g->gate.dtype,
                            m / g->tokens * at_cpu_step(&g->gate, 0) + n * g->gate.stride[1],
                            g->gate.stride[1], count);
    if (g->residual.data)
        f.residual = at_cpu_row(g->k, residual, g->residual.data, g->residual.dtype,
                                row_offset(&g->residual, m, g->tokens) + n, 1, count);
    to = row_offset(&g->out, m, g->tokens) + n;
    y = g->out.dtype == AT_F32 ? (float *)g->out.data + to : c;
    g->k->finish(y, c, count, &f);
    if (y == c) g->k->store(g->out.data, g->out.dtype, to, 1, c, count);
}

void at_cpu_gemm_finish_glu(const gemm *g, float *c, float *d, int64_t m, int64_t n, int64_t count)
{
    const at_linear_args *a = g->a;
    int64_t to = row_offset(&g->out, m, g->tokens) + n;
    float *y = g->out.dtype == AT_F32 ? (float *)g->out.data + to : c;
    at_cpu_finish gate = {
        .scale = a->w.scale, .bias = g->bias ? g->bias + g->n + n : NULL, .act = a->act};
    at_cpu_finish value = {.scale = a->w.scale, .bias = g->bias ? g->bias + n : NULL, .gate = d};

    g->k->finish(d, d, count, &gate);
    g->k->finish(y, c, count, &value);
    if (y == c) g->k->store(g->out.data, g->out.dtype, to, 1, c, count);
}

// --- many rows ----------------------------------------------------------------------------------
static void pack_range(void *ctx, int64_t begin, int64_t end)
{
    gemm *g = ctx;
    int64_t nr = g->k->nr, half = (g->columns + nr - 1) / nr;

    for (int64_t p = begin; p < end; p++) {
        int64_t n = g->n0 + p % half * nr, row = n + (p >= half ? g->n : 0);
        int count = (int)at_most(nr, g->n - n);
        if (g->q_w) {
            g->k->int8_pack(g->panels + p * nr * g->kk, g->q_w + row * 2 * g->kk, 2 * g->kk, count,
                            g->kk);
        } else {
            g->k->pack(g->panels + p * nr * g->kk, g->w.data, g->w.dtype, row * g->kk, g->kk, count,
                       g->kk);
        }
    }
}

// Rows [m, m + rows), K from k0, as f32 with `stride` floats between rows.
static void load_rows(const gemm *g, float *dst, int64_t stride, int64_t m, int64_t rows,
                      int64_t k0, int64_t len)
{
    for (int64_t i = 0; i < rows; i++)
        g->k->load(dst + i * stride, g->x.data, g->x.dtype,
                   row_offset(&g->x, m + i, g->tokens) + k0, 1, len);
}

static void multiply(const gemm *g, const float *a, int64_t lda, int64_t rows, int64_t k0,
                     int64_t len, int64_t p0, int64_t panels, float *c, int64_t ldc)
{
    int mr = g->k->mr, nr = g->k->nr;

    for (int64_t p = 0; p < panels; p++) {
        const float *b = g->panels + (p0 + p) * nr * g->kk + k0 * nr;
        for (int64_t i = 0; i < rows; i += mr) {
            if (p + 1 < panels)
                at_cpu_fetch_ahead(b + nr * g->kk, len * nr, i / mr, (rows + mr - 1) / mr);
            g->tile((int)at_most(mr, rows - i), 1, NULL, len, a + i * lda, lda, b,
                    c + i * ldc + p * nr, ldc, k0 > 0);
        }
    }
}

// Rows that are f32, of one batch entry and short enough for one piece are read where they lie.
static const float *rows_in_place(const gemm *g, int64_t m, int64_t rows, int64_t pieces)
{
    if (g->x.dtype != AT_F32 || pieces > 1 || m / g->tokens != (m + rows - 1) / g->tokens)
        return NULL;
    return (const float *)g->x.data + row_offset(&g->x, m, g->tokens);
}

static void from_int8(const gemm *g, float *c, int64_t m, int64_t row_of_w, int64_t count)
{
    g->k->from_s32(c, (const int32_t *)(const void *)c, g->q_rows[m], g->q_columns + row_of_w,
                   count);
}

// The finished rows of a task.
static void give_rows(const gemm *g, float *c, int64_t ldc, int64_t m, int64_t rows, int64_t n,
                      int64_t cols)
{
    int64_t count = at_most(cols, g->n - n);

    for (int64_t i = 0; i < rows; i++) {
        float *sums = c + i * ldc, *gate = sums + g->nc;
        if (g->q_w) from_int8(g, sums, m + i, n, count);
        if (g->q_w && g->glu) from_int8(g, gate, m + i, g->n + n, count);
        if (g->glu) {
            at_cpu_gemm_finish_glu(g, sums, gate, m + i, n, count);
        } else {
            at_cpu_gemm_finish_row(g, sums, m + i, n, count);
        }
    }
}

static void gemm_task(gemm *g, int64_t task, float *a, float *c)
{
    int64_t m = task % g->m_tasks * g->mc, n = task / g->m_tasks * g->nc, nr = g->k->nr;
    int64_t rows = at_most(g->mc, g->m - m), cols = at_most(g->nc, g->columns - n);
    int64_t panels = (cols + nr - 1) / nr, half = (g->columns + nr - 1) / nr;
    int64_t ldc = g->nc * (g->glu ? 2 : 1) + GEMM_PAD,
            pieces = g->kk > g->k->kc ? (g->kk + g->k->kc - 1) / g->k->kc : 1;
    int64_t kc = round_up((g->kk + pieces - 1) / pieces, 8), lda = kc + GEMM_PAD;

    for (int64_t k0 = 0; k0 == 0 || k0 < g->kk; k0 += kc) {
        int64_t len = at_most(kc, g->kk - k0);
        const float *from = rows_in_place(g, m, rows, pieces);
        if (from) {
            lda = at_cpu_step(&g->x, 1);
        } else {
            load_rows(g, a, lda, m, rows, k0, len);
            from = a;
        }
        multiply(g, from, lda, rows, k0, len, n / nr, panels, c, ldc);
        if (g->glu) multiply(g, from, lda, rows, k0, len, half + n / nr, panels, c + g->nc, ldc);
        if (kc == 0) break;
    }
    give_rows(g, c, ldc, m, rows, g->n0 + n, cols);
}

static void gemm_range(void *ctx, int64_t begin, int64_t end)
{
    gemm *g = ctx;
    size_t floats_a = (size_t)(g->mc * (g->k->kc + 8 + GEMM_PAD)),
           floats_c = (size_t)(g->mc * (g->nc * (g->glu ? 2 : 1) + GEMM_PAD));
    float *scratch = at_cpu_scratch(&g->oom, at_alloc((floats_a + floats_c) * sizeof *scratch));

    if (!scratch) return;
    for (int64_t t = begin; t < end && !at_cancelled(); t++)
        gemm_task(g, t, scratch, scratch + floats_a);
    at_free(scratch);
}

// Split `total` into equal parts of at most `most`, each a multiple of `unit`.
static int64_t even_parts(int64_t total, int64_t most, int64_t unit)
{
    int64_t parts = (total + most - 1) / most;
    return round_up((total + parts - 1) / parts, unit);
}

at_status at_cpu_gemm_many(gemm *g)
{
    int nr = g->k->nr, halves = g->glu ? 2 : 1;
    int64_t most = round_up(at_most(g->n, PANEL_BYTES / 4 / (g->kk + 1) / halves + nr), nr);
    int64_t columns = even_parts(g->n, most, nr);

    g->panels = at_alloc((size_t)(columns * halves * g->kk) * sizeof(float));
    if (!g->panels)
        return at_fail(AT_ENOMEM, "linear: no memory for %lld columns of %lld weights",
                       (long long)columns, (long long)g->kk);
    g->mc = even_parts(g->m, MC, g->k->mr);
    for (g->n0 = 0; g->n0 < g->n && !at_cancelled(); g->n0 += columns) {
        g->columns = at_most(columns, g->n - g->n0);
        g->nc = even_parts(g->columns, GEMM_NC / halves, nr);
        g->m_tasks = (g->m + g->mc - 1) / g->mc;
        at_parallel_for((g->columns + nr - 1) / nr * halves, 1 + 8192 / (g->kk * nr + 1),
                        pack_range, g);
        at_parallel_for(g->m_tasks * ((g->columns + g->nc - 1) / g->nc), 1, gemm_range, g);
    }
    at_free(g->panels);
    return at_cpu_oom_status(&g->oom, "linear");
}

// --- few rows -----------------------------------------------------------------------------------
static void dots_range(void *ctx, int64_t begin, int64_t end)
{
    gemm *g = ctx;
    float sums[6 * DOT_COLS];

    for (int64_t n = begin * DOT_COLS; n < at_most(end * DOT_COLS, g->n); n += DOT_COLS) {
        int64_t count = at_most(DOT_COLS, g->n - n);
        for (int64_t m = 0; m < g->m; m += 6) {
            int rows = (int)at_most(6, g->m - m);
            g->k->dots(sums, DOT_COLS, g->few + m * g->few_stride, g->few_stride, rows, g->w.data,
                       g->w.dtype, n * g->kk, g->kk, count, g->kk);
            for (int i = 0; i < rows; i++)
                at_cpu_gemm_finish_row(g, sums + i * DOT_COLS, m + i, n, count);
        }
    }
}

static at_status gemm_few(gemm *g)
{
    int64_t stride = round_up(g->kk, 16) + GEMM_PAD;
    float *rows = at_alloc((size_t)(g->m * stride) * sizeof *rows);

    if (!rows)
        return at_fail(AT_ENOMEM, "linear: no memory for %lld rows of %lld", (long long)g->m,
                       (long long)g->kk);
    load_rows(g, rows, stride, 0, g->m, 0, g->kk);
    g->few = rows;
    g->few_stride = stride;
    at_parallel_for((g->n + DOT_COLS - 1) / DOT_COLS, 1 + 32768 / (g->m * g->kk * DOT_COLS + 1),
                    dots_range, g);
    at_free(rows);
    return AT_OK;
}

// bf16 times bf16, where the table can: look at x and w as rows of pairs.
static void use_pairs(gemm *g)
{
    at_view *v[] = {&g->x, &g->w};

    if (!g->k->pair_tile || g->x.dtype != AT_BF16 || g->w.dtype != AT_BF16 || g->kk % 2) return;
    if (g->x.stride[0] % 2 || g->x.stride[1] % 2) return;
    if (((uintptr_t)g->x.data | (uintptr_t)g->w.data) % 4) return;
    for (int i = 0; i < 2; i++) {
        v[i]->dtype = AT_F32; // loads and packing move 32 bits, unconverted
        for (int d = 0; d < v[i]->rank - 1; d++)
            v[i]->stride[d] /= 2;
    }
    g->kk /= 2;
    g->tile = g->k->pair_tile;
}

bool at_cpu_gemm_dtype(at_dtype t)
{
    return t == AT_F32 || t == AT_F16 || t == AT_BF16 || t == AT_F8E4M3 || t == AT_F8E5M2;
}

at_status at_cpu_gemm_open(gemm *g, const at_cpu_kernels *k, const at_linear_args *a)
{
    float *bias;
    int64_t n;

    *g = (gemm){.k = k,
                .a = a,
                .w = a->w.v,
                .tile = k->tile,
                .x = at_cpu_rank(&a->x, 3),
                .out = at_cpu_rank(&a->out, 3),
                .residual = at_cpu_rank(&a->residual, 3),
                .gate = at_cpu_rank(&a->gate, 2)};
    g->tokens = g->out.shape[1];
    g->m = g->out.shape[0] * g->tokens;
    g->n = g->out.shape[2];
    g->kk = g->x.shape[2];
    if (!a->bias.v.data) return AT_OK;
    n = a->w.v.shape[0];
    bias = at_alloc((size_t)n * sizeof *bias);
    if (!bias) return at_fail(AT_ENOMEM, "linear: no memory for a bias of %lld", (long long)n);
    k->load(bias, a->bias.v.data, a->bias.v.dtype, 0, 1, n);
    if (a->bias.scale != 1.0f) k->scale(bias, a->bias.scale, n);
    g->bias = bias;
    return AT_OK;
}

void at_cpu_gemm_close(gemm *g)
{
    at_free((void *)g->bias);
    g->bias = NULL;
}

at_status at_cpu_gemm_linear(const at_cpu_kernels *k, const at_linear_args *a)
{
    at_status st = AT_OK;
    gemm g;

    if (!at_cpu_gemm_dtype(a->w.v.dtype)) return at_cpu_ref_linear(NULL, a);
    AT_TRY(at_cpu_gemm_open(&g, k, a));
    if (!g.m || !g.n) goto out;
    if (at_cpu_int8_pays(k, a)) {
        AT_TRY(at_cpu_int8_linear(&g, a));
        goto out;
    }
    if (g.m > DOT_ROWS) use_pairs(&g);
    AT_TRY(g.m <= DOT_ROWS ? gemm_few(&g) : at_cpu_gemm_many(&g));
out:
    at_cpu_gemm_close(&g);
    return st;
}

at_linear_args at_cpu_glu_linear(const at_geglu_args *a)
{
    return (at_linear_args){
        .x = a->x, .out = a->out, .w = a->w, .bias = a->bias, .act = a->act, .int8 = a->int8};
}

at_status at_cpu_gemm_geglu(const at_cpu_kernels *k, const at_geglu_args *a)
{
    at_linear_args l = at_cpu_glu_linear(a);
    at_status st = AT_OK;
    gemm g;

    if (!at_cpu_gemm_dtype(a->w.v.dtype)) return at_cpu_ref_geglu(NULL, a);
    AT_TRY(at_cpu_gemm_open(&g, k, &l));
    g.glu = true;
    if (!g.m || !g.n) goto out;
    if (at_cpu_int8_pays(k, &l)) {
        AT_TRY(at_cpu_int8_linear(&g, &l));
        goto out;
    }
    use_pairs(&g);
    AT_TRY(at_cpu_gemm_many(&g));
out:
    at_cpu_gemm_close(&g);
    return st;
}
