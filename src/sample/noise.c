// SPDX-License-Identifier: Apache-2.0
// noise.c - torch's CPU randn, ComfyUI's prepare_noise and torch's CUDA randn.
// Idea: fill with uniforms, then transform blocks of 16 in place; a ragged end is drawn again
// whole. Source: comfyui-contract section 5.7; Salmon et al. 2011 (Philox). Owns nothing.
#include <math.h>
#include <string.h>

#include "atelier/types.h"
#include "base/mem.h"
#include "sample/noise.h"
#include "sample/normal.h"

void at_generator_seed(at_generator *g, uint64_t seed)
{
    at_mt_seed(&g->mt, seed);
    g->carry = 0;
    g->has_carry = false;
}

// Fewer than 16 values: double Box-Muller, the sine kept for the next call.
static float one_normal(at_generator *g)
{
    if (g->has_carry) {
        g->has_carry = false;
        return (float)g->carry;
    }
    double u1 = at_mt_f64(&g->mt), u2 = at_mt_f64(&g->mt);
    double r = sqrt(-2.0 * log1p(-u2)), theta = 2.0 * M_PI * u1;
    g->carry = r * sin(theta);
    g->has_carry = true;
    return (float)(r * cos(theta));
}

static void transform(float *u, int64_t blocks)
{
    if (at_normal_avx2_usable())
        at_normal_blocks_avx2(u, blocks);
    else
        at_normal_blocks_portable(u, blocks);
}

void at_generator_randn(at_generator *g, float *out, int64_t n)
{
    if (n < 16) {
        for (int64_t i = 0; i < n; i++)
            out[i] = one_normal(g);
        return;
    }
    at_mt_fill_f32(&g->mt, out, n);
    transform(out, n / 16);
    if (n % 16) { // the last 16 places are drawn anew, over the end of the last whole block
        float *tail = out + n - 16;
        at_mt_fill_f32(&g->mt, tail, 16);
        transform(tail, 1);
    }
}

void at_randn(uint64_t seed, float *out, int64_t n)
{
    at_generator g;

    at_generator_seed(&g, seed);
    at_generator_randn(&g, out, n);
}

// Every distinct draw up to the largest index is made, in order; items take the one they name.
static at_status indexed_noise(at_generator *g, int64_t batch, int64_t item, const int64_t *index,
                               float *out)
{
    at_status st = AT_OK;
    int64_t last = 0;
    float *draw = NULL;

    for (int64_t b = 0; b < batch; b++) {
        if (index[b] < 0 || index[b] > 1000000)
            AT_TRY(at_fail(AT_EINVAL, "batch_index: item %lld is %lld, expected 0..1000000",
                           (long long)b, (long long)index[b]));
        if (index[b] > last) last = index[b];
    }
    draw = at_calloc((size_t)item, sizeof *draw);
    if (!draw) AT_TRY(at_fail(AT_ENOMEM, "noise: no memory for %lld values", (long long)item));
    for (int64_t i = 0; i <= last; i++) {
        at_generator_randn(g, draw, item);
        for (int64_t b = 0; b < batch; b++)
            if (index[b] == i) memcpy(out + b * item, draw, (size_t)item * sizeof *draw);
    }
out:
    at_free(draw);
    return st;
}

at_status at_prepare_noise(uint64_t seed, int rank, const int64_t *shape,
                           const int64_t *batch_index, float *out)
{
    at_generator g;
    int64_t item = 1, total;

    if (rank < 1 || rank > AT_MAX_RANK)
        return at_fail(AT_EINVAL, "noise: rank %d, expected 1..%d", rank, AT_MAX_RANK);
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 1)
            return at_fail(AT_EINVAL, "noise: dimension %d is %lld", i, (long long)shape[i]);
        if (i && __builtin_mul_overflow(item, shape[i], &item))
            return at_fail(AT_EINVAL, "noise: shape is too large");
    }
    if (__builtin_mul_overflow(item, shape[0], &total) || total > INT64_MAX / 8)
        return at_fail(AT_EINVAL, "noise: shape is too large");
    at_generator_seed(&g, seed);
    if (batch_index) return indexed_noise(&g, shape[0], item, batch_index, out);
    at_generator_randn(&g, out, total);
    return AT_OK;
}

// --- Philox --------------------------------------------------------------------------------------
static void philox4x32_10(uint32_t c[4], uint64_t seed)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c[0], p1 = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

static void philox_pair(uint32_t x, uint32_t y, float z[2])
{
    float u = (float)x * 0x1p-32f + 0x1p-33f;
    float v = ((float)y * 0x1p-32f + 0x1p-33f) * AT_TWO_PI;
    float s = sqrtf(-2.0f * logf(u));

    z[0] = s * sinf(v);
    z[1] = s * cosf(v);
}

void at_philox_randn(uint64_t seed, uint64_t *offset, int64_t max_threads, float *out, int64_t n)
{
    if (n <= 0) return;
    int64_t blocks = (n + 255) / 256, most = max_threads / 256 > 0 ? max_threads / 256 : 1;
    int64_t threads = 256 * (blocks < most ? blocks : most);
    int64_t passes = (n - 1) / (4 * threads) + 1;

    for (int64_t k = 0; k < passes; k++) {
        uint64_t count = *offset / 4 + (uint64_t)k;
        for (int64_t t = 0; t < threads && 4 * threads * k + t < n; t++) {
            uint32_t c[4] = {(uint32_t)count, (uint32_t)(count >> 32), (uint32_t)t,
                             (uint32_t)((uint64_t)t >> 32)};
            float z[4];
            philox4x32_10(c, seed);
            philox_pair(c[0], c[1], z);
            philox_pair(c[2], c[3], z + 2);
            for (int j = 0; j < 4; j++) {
                int64_t at = 4 * threads * k + j * threads + t;
                if (at < n) out[at] = z[j];
            }
        }
    }
    *offset += 4 * (uint64_t)passes;
}
