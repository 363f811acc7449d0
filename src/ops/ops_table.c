// SPDX-License-Identifier: Apache-2.0
// ops_table.c - tables that are computed on the host: rotary angles and sinusoidal embeddings.
// Idea: rotary angles are products in double and lose bits only as cos and sin (FLUX's position
// code does the same); sinusoids take float32 frequencies and angles, as every implementation of
// DDPM's embedding does, because at t = 1000 the last bits of the angle are visible. Owns: see
// ops.h.
#include "ops/ops_private.h"

#include <math.h>

#include "base/mem.h"

static void fill_rope(float *cos_out, float *sin_out, int64_t tokens, int n_axes, const int *axes,
                      const float *ids, double theta)
{
    int64_t at = 0;

    for (int64_t t = 0; t < tokens; t++) {
        for (int i = 0; i < n_axes; i++) {
            for (int j = 0; j < axes[i] / 2; j++, at++) {
                double omega = 1.0 / pow(theta, 2.0 * j / axes[i]);
                double angle = (double)ids[t * n_axes + i] * omega;

                cos_out[at] = (float)cos(angle);
                sin_out[at] = (float)sin(angle);
            }
        }
    }
}

at_rope_table at_rope_make(at_ops *o, int64_t tokens, int n_axes, const int *axes, const float *ids,
                           double theta)
{
    at_status st = AT_OK;
    at_rope_table table = {0};
    int64_t shape[2] = {tokens, 0}, count;
    float *values = NULL;
    op_pass p;

    if (!op_enter(&p, o, "rope_make", &o->stats.seconds_other)) return table;
    if (tokens < 0 || n_axes < 1) {
        AT_TRY(at_fail(AT_EINVAL, "%lld tokens on %d axes", (long long)tokens, n_axes));
    }
    for (int i = 0; i < n_axes; i++) {
        if (axes[i] < 0 || axes[i] % 2) {
            AT_TRY(at_fail(AT_EINVAL, "axis %d has %d channels; an even number is wanted", i,
                           axes[i]));
        }
        shape[1] += axes[i] / 2;
    }
    if (__builtin_mul_overflow(tokens, shape[1], &count)) {
        AT_TRY(at_fail(AT_EINVAL, "%lld tokens are too many", (long long)tokens));
    }
    values = at_calloc((size_t)count, 2 * sizeof *values);
    if (!values) AT_TRY(at_fail(AT_ENOMEM, "no memory for %lld angles", (long long)count));
    fill_rope(values, values + count, tokens, n_axes, axes, ids, theta);
    AT_TRY(at_tensor_from_host(o->dev, AT_F32, 2, shape, values, &table.cos));
    AT_TRY(op_own(o, table.cos));
    AT_TRY(at_tensor_from_host(o->dev, AT_F32, 2, shape, values + count, &table.sin));
    AT_TRY(op_own(o, table.sin));
out:
    at_free(values);
    op_leave(&p, st, NULL);
    return st == AT_OK ? table : (at_rope_table){0};
}

at_tensor *at_timestep_embedding(at_ops *o, const float *t, int64_t b, int dim, double max_period,
                                 bool cos_first)
{
    at_status st = AT_OK;
    at_tensor *out = NULL;
    float *values = NULL;
    int half = dim / 2;
    op_pass p;

    if (!op_enter(&p, o, "timestep_embedding", &o->stats.seconds_other)) return NULL;
    if (b < 0 || dim < 2 || dim % 2) {
        AT_TRY(at_fail(AT_EINVAL, "%lld rows of %d; an even width is wanted", (long long)b, dim));
    }
    values = at_calloc((size_t)b, (size_t)dim * sizeof *values);
    if (!values) AT_TRY(at_fail(AT_ENOMEM, "no memory for [%lld, %d]", (long long)b, dim));
    for (int64_t i = 0; i < b; i++) {
        float *cosines = values + i * dim + (cos_first ? 0 : half);
        float *sines = values + i * dim + (cos_first ? half : 0);

        for (int j = 0; j < half; j++) {
            float exponent = (float)-log(max_period) * (float)j / (float)half;
            float angle = t[i] * (float)exp((double)exponent);

            cosines[j] = (float)cos((double)angle);
            sines[j] = (float)sin((double)angle);
        }
    }
    AT_TRY(at_tensor_from_host(o->dev, AT_F32, 2, (int64_t[]){b, dim}, values, &out));
    AT_TRY(op_own(o, out));
out:
    at_free(values);
    return op_leave(&p, st, out);
}
