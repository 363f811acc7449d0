// SPDX-License-Identifier: Apache-2.0
// onednn_linear.c - the linear layer and the gated unit whose sums oneDNN brings.
// Idea: a task is a block of rows and columns; oneDNN leaves its sums in scratch that is still in the cache when our
// own end of the layer (gemm.h) reads it. In int8 all rows of x are rounded first, each with its scale.
// Owns nothing; scratch lives for one call or range.
#ifdef AT_HAVE_DNNL
#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm.h"
#include "cpu/int8.h"
#include "cpu/onednn_pack.h"

enum {
    FEW_ROWS = 16, // up to here our own dot products and tiles are faster
    ROWS = 256,    // of a task
    COLUMNS = 1024 // of one packed block of w
};

typedef struct linear_job {
    gemm *g;
    at_dnnl_type type;
    at_dnnl_kernel full, tail; // a task of all rows, and what is left of a batch entry
    const at_dnnl_packed *w;
    int64_t rows, columns, tasks; // rows and columns of a task; row tasks of a batch entry
    size_t sums, scratch;         // bytes of a task
    int8_t *q;                    // s8: x [m][k], and its scales
    float *q_scales;
    atomic_bool failed;
} linear_job;

// --- int8 rows of x -----------------------------------------------------------------------------
static void quantise_range(void *ctx, int64_t begin, int64_t end)
{
    const linear_job *j = ctx;
    gemm *g = j->g;

    for (int64_t m = begin; m < end; m++)
        if (!at_cpu_q8_rows(g->k, AT_Q8_BYTES, j->q + m * g->kk, j->q_scales + m, g->x.data,
                            g->x.dtype, row_offset(&g->x, m, g->tokens), g->kk, 1, g->kk))
            atomic_store(&g->oom.hit, true);
}

static at_status quantise(linear_job *j)
{
    gemm *g = j->g;
    size_t bytes = (size_t)round_up(g->m * g->kk, AT_ALIGN);

    j->q = at_alloc(bytes + (size_t)g->m * sizeof(float));
    if (!j->q)
        return at_fail(AT_ENOMEM, "linear: no memory for %lld rows of %lld bytes", (long long)g->m,
                       (long long)g->kk);
    j->q_scales = (float *)(void *)(j->q + bytes);
    at_parallel_for(g->m, 1 + 16384 / (g->kk + 1), quantise_range, j);
    return AT_OK;
}

// --- tasks --------------------------------------------------------------------------------------
// Sums of rows [m, m + rows) with one block of w.
static bool run_block(linear_job *j, int64_t m, int64_t rows, int64_t block, float *sums,
                      void *scratch)
{
    gemm *g = j->g;
    const void *x =
        j->q ? (const void *)(j->q + m * g->kk) : at_cpu_at(&g->x, row_offset(&g->x, m, g->tokens));

    if (!at_dnnl_run(rows == j->rows ? &j->full : &j->tail, x,
                     j->w->data + (size_t)block * j->w->block_bytes, sums, scratch))
        return false;
    for (int64_t i = 0; j->q && i < rows; i++)
        g->k->from_s32(sums + i * j->columns, (const int32_t *)(const void *)sums + i * j->columns,
                       j->q_scales[m + i], j->w->scales + block * j->columns, j->columns);
    return true;
}

static void linear_task(linear_job *j, int64_t task, float *sums, void *scratch)
{
    gemm *g = j->g;
    int64_t blocks = (int64_t)j->w->blocks / (g->glu ? 2 : 1), row = task / blocks;
    int64_t block = task % blocks, n0 = block * j->columns;
    int64_t t = row % j->tasks * j->rows, m = row / j->tasks * g->tokens + t;
    int64_t rows = at_most(j->rows, g->tokens - t);
    float *gate = sums + j->rows * j->columns;

    if (!run_block(j, m, rows, block, sums, scratch) ||
        (g->glu && !run_block(j, m, rows, blocks + block, gate, scratch))) {
        atomic_store(&j->failed, true);
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < j->columns; c += GEMM_NC) {
            int64_t at = i * j->columns + c, n = at_most(GEMM_NC, j->columns - c);
            if (g->glu) {
                at_cpu_gemm_finish_glu(g, sums + at, gate + at, m + i, n0 + c, n);
            } else {
                at_cpu_gemm_finish_row(g, sums + at, m + i, n0 + c, n);
            }
        }
    }
}

static void linear_range(void *ctx, int64_t begin, int64_t end)
{
    linear_job *j = ctx;
    char *scratch = at_cpu_scratch(&j->g->oom, at_alloc(j->sums + j->scratch));

    if (!scratch) return;
    if (!at_dnnl_ready()) atomic_store(&j->failed, true);
    for (int64_t i = begin; i < end && !atomic_load(&j->failed) && !at_cancelled(); i++)
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
static bool prepare(linear_job *j, const at_linear_args *a)
{
    gemm *g = j->g;
    int64_t blocks = column_blocks(g->n);
    at_dnnl_shape s = {.oh = j->rows,
                       .ic = g->kk,
                       .oc = g->n / blocks,
                       .sx = j->type == AT_DNNL_S8 ? g->kk : at_cpu_step(&g->x, 1),
                       .type = (int)j->type};

    if (g->glu) blocks *= 2;
    j->columns = s.oc;
    if (s.sx < s.ic) s.sx = s.ic; // one row: its stride does not matter
    j->w = at_dnnl_packed_get(a->w.packed, j->type);
    if (j->w) s.layout = j->w->layout;
    if (!at_dnnl_kernel_get(&s, &j->full)) return false;
    if (!j->w) j->w = at_dnnl_pack_weight(g->k, &j->full, j->type, &a->w, (size_t)blocks);
    if (!j->w || (int64_t)j->w->blocks != blocks) return false;
    s.layout = j->w->layout;
    if (j->full.layout != s.layout && !at_dnnl_kernel_get(&s, &j->full)) return false;
    s.oh = g->tokens % j->rows;
    return !s.oh || at_dnnl_kernel_get(&s, &j->tail);
}

// Do the work in g; *served false if our own code should.
static at_status run(gemm *g, at_dnnl_type type, const at_linear_args *a, bool *served)
{
    linear_job j = {.g = g, .type = type};
    at_status st = AT_OK;
    int64_t parts = 4 * at_threads(), halves = g->glu ? 2 : 1;

    j.rows = at_most(ROWS / halves, round_up((g->m + parts - 1) / parts, 32));
    j.rows = at_most(j.rows, g->tokens);
    *served = g->m > FEW_ROWS && g->n && g->kk && at_dnnl_ready() && prepare(&j, a);
    if (!*served) return AT_OK;
    if (type == AT_DNNL_S8) AT_TRY(quantise(&j));
    j.tasks = (g->tokens + j.rows - 1) / j.rows;
    j.sums = (size_t)round_up(halves * j.rows * j.columns * (int64_t)sizeof(float), AT_ALIGN);
    j.scratch =
        (j.full.scratch > j.tail.scratch ? j.full.scratch : j.tail.scratch) + (size_t)AT_ALIGN;
    at_parallel_for(g->m / g->tokens * j.tasks * (int64_t)j.w->blocks / halves, 1, linear_range,
                    &j);
    AT_TRY(at_cpu_oom_status(&g->oom, "linear"));
    if (atomic_load(&j.failed)) AT_TRY(at_fail(AT_EINTERNAL, "linear: oneDNN failed to run"));
out:
    at_free(j.q);
    return st;
}

at_status at_dnnl_linear(const at_linear_args *a, bool f32_too)
{
    const at_cpu_kernels *k = at_cpu_table();
    bool served = false;
    at_dnnl_type type;
    at_status st;
    gemm g;

    if (!k) return at_cpu_ref_linear(NULL, a);
    if (at_dnnl_choose(a->x.dtype, &a->w, a->int8, f32_too, &type)) {
        st = at_cpu_gemm_open(&g, k, a);
        if (st == AT_OK) st = run(&g, type, a, &served);
        at_cpu_gemm_close(&g);
        if (served || st != AT_OK) return st;
    }
    return at_cpu_gemm_linear(k, a);
}

at_status at_dnnl_geglu(const at_geglu_args *a, bool f32_too)
{
    const at_cpu_kernels *k = at_cpu_table();
    at_linear_args l = at_cpu_glu_linear(a);
    bool served = false;
    at_dnnl_type type;
    at_status st;
    gemm g;

    if (!k) return at_cpu_ref_geglu(NULL, a);
    if (at_dnnl_choose(a->x.dtype, &a->w, a->int8, f32_too, &type)) {
        st = at_cpu_gemm_open(&g, k, &l);
        g.glu = true;
        if (st == AT_OK) st = run(&g, type, &l, &served);
        at_cpu_gemm_close(&g);
        if (served || st != AT_OK) return st;
    }
    return at_cpu_gemm_geglu(k, a);
}
#endif
