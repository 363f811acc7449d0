// SPDX-License-Identifier: Apache-2.0
// int8.c - the linear layer and the gated unit in int8 over a table that has a tile for it.
// Idea: the weight is rounded once, row by row, and kept as bytes (a quarter of f32; its mapped source is given
// back); rows of x are rounded in each call. The driver of gemm.c then runs unchanged over pairs of 16-bit words,
// and a row of 32-bit sums becomes floats before it is finished.
// Owns: the kept bytes belong to the at_packed; rounded rows live for one call.
#include "cpu/int8.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/gemm.h"

enum {
    PIECE = 1024,
    FEW_ROWS = 24,  // up to here the dots of gemm.c read the weight in place
    LEAST_K = 32,   // shorter rows are not worth rounding
    MOST_K = 131072 // 127 * 127 * K < 2^31
};

static void quantise(const at_cpu_kernels *t, at_q8_form form, void *dst, int64_t at,
                     const float *x, float inverse, int64_t n)
{
    if (form == AT_Q8_BYTES) {
        t->quantise((int8_t *)dst + at, x, inverse, n);
    } else {
        t->quantise_words((int16_t *)dst + at, x, inverse, n);
    }
}

bool at_cpu_q8_rows(const at_cpu_kernels *t, at_q8_form form, void *dst, float *scales,
                    const void *base, at_dtype dtype, int64_t first, int64_t ld, int64_t rows,
                    int64_t k)
{
    float piece[PIECE], *long_row = k > PIECE ? at_alloc((size_t)k * sizeof *long_row) : piece;

    if (!long_row) return false;
    for (int64_t r = 0; r < rows; r++) {
        const float *x = at_cpu_row(t, long_row, base, dtype, first + r * ld, 1, k);
        float most = t->absmax(x, k);
        quantise(t, form, dst, r * k, x, at_cpu_q8_inverse(most), k);
        scales[r] = most / 127.0f;
    }
    if (long_row != piece) at_free(long_row);
    return true;
}

// --- the weight ---------------------------------------------------------------------------------
typedef struct packed_q8 {
    at_cpu_packed head;
    size_t bytes;
    float *scales; // [rows]
    _Alignas(AT_ALIGN) int8_t data[];
} packed_q8;

static const char owner;

static void free_q8(at_cpu_packed *p)
{
    at_cpu_packed_give_back(((packed_q8 *)(void *)p)->bytes);
    at_free(p);
}

typedef struct q8_job {
    gemm *g;
    const at_wview *w;
    packed_q8 *to;
    int16_t *x; // [m][k], k even
    float *x_scales;
} q8_job;

static void weight_range(void *ctx, int64_t begin, int64_t end)
{
    const q8_job *j = ctx;
    int64_t k = j->w->v.shape[1];

    if (!at_cpu_q8_rows(j->g->k, AT_Q8_BYTES, j->to->data + begin * k, j->to->scales + begin,
                        j->w->v.data, j->w->v.dtype, begin * k, k, end - begin, k))
        atomic_store(&j->g->oom.hit, true);
}

// The rounded weight: the kept one, or one for this call (then *own is it too).
static at_status weight(q8_job *j, packed_q8 **own)
{
    int64_t rows = j->w->v.shape[0], k = j->w->v.shape[1];
    size_t bytes = (size_t)round_up(rows * k, AT_ALIGN);

    *own = NULL;
    j->to = at_cpu_packed_get(j->w->packed, &owner);
    if (j->to) return AT_OK;
    j->to = *own = at_alloc(sizeof *j->to + bytes + (size_t)rows * sizeof(float));
    if (!j->to)
        return at_fail(AT_ENOMEM, "linear: no memory for %lld rows of %lld int8 weights",
                       (long long)rows, (long long)k);
    *j->to = (packed_q8){.head = {&owner, free_q8}, .bytes = bytes};
    j->to->scales = (float *)(void *)(j->to->data + bytes);
    at_parallel_for(rows, 1 + 16384 / k, weight_range, j);
    if (atomic_load(&j->g->oom.hit) || !at_cpu_packed_take(bytes)) return AT_OK;
    if (at_cpu_packed_put(j->w->packed, &j->to->head)) {
        *own = NULL; // moved to the weight
        at_cpu_packed_drop_source(j->w);
    } else {
        at_cpu_packed_give_back(bytes);
    }
    return AT_OK;
}

// --- the rows of x ------------------------------------------------------------------------------
static void x_range(void *ctx, int64_t begin, int64_t end)
{
    const q8_job *j = ctx;
    const gemm *g = j->g;

    for (int64_t m = begin; m < end; m++)
        if (!at_cpu_q8_rows(g->k, AT_Q8_WORDS, j->x + m * g->kk, j->x_scales + m, g->x.data,
                            g->x.dtype, row_offset(&g->x, m, g->tokens), g->kk, 1, g->kk))
            atomic_store(&j->g->oom.hit, true);
}

static at_status rows_of_x(q8_job *j)
{
    gemm *g = j->g;
    size_t bytes = (size_t)round_up(g->m * g->kk * (int64_t)sizeof *j->x, AT_ALIGN);

    j->x = at_alloc(bytes + (size_t)g->m * sizeof(float));
    if (!j->x)
        return at_fail(AT_ENOMEM, "linear: no memory for %lld rows of %lld", (long long)g->m,
                       (long long)g->kk);
    j->x_scales = (float *)(void *)((char *)j->x + bytes);
    at_parallel_for(g->m, 1 + 16384 / g->kk, x_range, j);
    return AT_OK;
}

// --- the layer ----------------------------------------------------------------------------------
bool at_cpu_int8_pays(const at_cpu_kernels *k, const at_linear_args *a)
{
    at_view out = at_cpu_rank(&a->out, 3);
    int64_t kk = a->w.v.shape[1];

    return a->int8 && k->int8_tile && a->w.packed && kk % 2 == 0 && kk >= LEAST_K && kk <= MOST_K &&
           out.shape[0] * out.shape[1] > FEW_ROWS;
}

at_status at_cpu_int8_linear(gemm *g, const at_linear_args *a)
{
    q8_job j = {.g = g, .w = &a->w};
    packed_q8 *own = NULL;
    at_status st = AT_OK;

    AT_TRY(weight(&j, &own));
    AT_TRY(rows_of_x(&j));
    AT_TRY(at_cpu_oom_status(&g->oom, "linear"));
    g->kk /= 2; // pairs, which the driver moves as if they were floats
    g->x = (at_view){.data = j.x,
                     .dtype = AT_F32,
                     .rank = 3,
                     .shape = {g->m / g->tokens, g->tokens, g->kk},
                     .stride = {g->tokens * g->kk, g->kk, 1}};
    g->tile = g->k->int8_tile;
    g->q_w = j.to->data;
    g->q_columns = j.to->scales;
    g->q_rows = j.x_scales;
    AT_TRY(at_cpu_gemm_many(g));
out:
    at_free(j.x);
    at_free(own);
    return st;
}
