// SPDX-License-Identifier: Apache-2.0
// cpu_linear.c - the linear layer and the gated unit in plain C: dot products of rows, with the whole epilogue.
// Idea: 64 rows of x become f32 once; every weight row is then converted once and meets all of
// them. Owns nothing; the scratch for x lives for one call.
#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"

enum { M_BLOCK = 64, K_BLOCK = 1024 };

typedef struct linear_job {
    const at_linear_args *a;
    at_view x, out, residual, gate;
    const float *xf; // [rows, k]
    int64_t m0, rows, k;
} linear_job;

// Sixteen partial sums, so that the compiler may use vectors without reordering a single sum.
static float dot(const float *a, const float *b, int64_t n)
{
    float acc[16] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            acc[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (int j = 0; j < 16; j++)
        sum += acc[j];
    return sum;
}

static int64_t row_offset(const at_view *v, int64_t m, int64_t tokens)
{
    return m / tokens * at_cpu_step(v, 0) + m % tokens * at_cpu_step(v, 1);
}

static float finish(const linear_job *j, int64_t m, int64_t n, float sum)
{
    const at_linear_args *a = j->a;
    int64_t tokens = j->out.shape[1];
    float v = sum * a->w.scale;

    if (a->bias.v.data) v += at_cpu_get(&a->bias.v, n) * a->bias.scale;
    v = at_cpu_apply(v, a->act);
    if (j->gate.data)
        v *= at_cpu_get(&j->gate, m / tokens * at_cpu_step(&j->gate, 0) + n * j->gate.stride[1]);
    if (j->residual.data) v += at_cpu_get(&j->residual, row_offset(&j->residual, m, tokens) + n);
    return v;
}

static void linear_range(void *ctx, int64_t begin, int64_t end)
{
    const linear_job *j = ctx;
    const at_view *w = &j->a->w.v;
    float wf[K_BLOCK], sum[M_BLOCK];

    for (int64_t n = begin; n < end && !at_cancelled(); n++) {
        for (int64_t i = 0; i < j->rows; i++)
            sum[i] = 0;
        for (int64_t k = 0; k < j->k; k += K_BLOCK) {
            int64_t kn = j->k - k < K_BLOCK ? j->k - k : K_BLOCK;
            at_cpu_load(wf, w->data, w->dtype, n * j->k + k, 1, kn);
            for (int64_t i = 0; i < j->rows; i++)
                sum[i] += dot(j->xf + i * j->k + k, wf, kn);
        }
        for (int64_t i = 0; i < j->rows; i++) {
            float v = finish(j, j->m0 + i, n, sum[i]);
            at_cpu_store(j->out.data, j->out.dtype,
                         row_offset(&j->out, j->m0 + i, j->out.shape[1]) + n, 1, &v, 1);
        }
    }
}

at_status at_cpu_ref_linear(void *stream, const at_linear_args *a)
{
    linear_job j = {.a = a,
                    .x = at_cpu_rank(&a->x, 3),
                    .out = at_cpu_rank(&a->out, 3),
                    .residual = at_cpu_rank(&a->residual, 3),
                    .gate = at_cpu_rank(&a->gate, 2)};
    int64_t m = j.out.shape[0] * j.out.shape[1], n = j.out.shape[2];
    float *xf;

    (void)stream;
    j.k = j.x.shape[2];
    if (!m || !n) return AT_OK;
    xf = at_alloc((size_t)(M_BLOCK * j.k) * sizeof *xf);
    if (!xf)
        return at_fail(AT_ENOMEM, "linear: no memory for %d rows of %lld", M_BLOCK, (long long)j.k);
    j.xf = xf;
    for (j.m0 = 0; j.m0 < m; j.m0 += M_BLOCK) {
        j.rows = m - j.m0 < M_BLOCK ? m - j.m0 : M_BLOCK;
        for (int64_t i = 0; i < j.rows; i++)
            at_cpu_load(xf + i * j.k, j.x.data, j.x.dtype,
                        row_offset(&j.x, j.m0 + i, j.out.shape[1]), 1, j.k);
        at_parallel_for(n, 1 + 20000 / (j.rows * j.k + 1), linear_range, &j);
    }
    at_free(xf);
    return AT_OK;
}

at_status at_cpu_ref_geglu(void *stream, const at_geglu_args *a)
{
    at_view out = at_cpu_rank(&a->out, 3);
    int64_t m = out.shape[0] * out.shape[1], n = out.shape[2];
    at_linear_args l = {.x = a->x, .w = a->w, .bias = a->bias};
    at_status st = AT_OK;
    float *both;

    if (!m || !n) return AT_OK;
    both = at_alloc((size_t)(m * 2 * n) * sizeof *both);
    if (!both)
        return at_fail(AT_ENOMEM, "geglu: no memory for %lld rows of %lld", (long long)m,
                       (long long)(2 * n));
    l.out = (at_view){.data = both,
                      .dtype = AT_F32,
                      .rank = 3,
                      .shape = {out.shape[0], out.shape[1], 2 * n},
                      .stride = {out.shape[1] * 2 * n, 2 * n, 1}};
    AT_TRY(at_cpu_ref_linear(stream, &l));
    for (int64_t i = 0; i < m; i++) {
        float *value = both + i * 2 * n;
        for (int64_t j = 0; j < n; j++)
            value[j] *= at_cpu_apply(value[n + j], a->act);
        at_cpu_store(out.data, out.dtype, row_offset(&out, i, out.shape[1]), 1, value, n);
    }
out:
    at_free(both);
    return st;
}
