// SPDX-License-Identifier: Apache-2.0
// flash_test.c - attention over pairs of bf16 on any machine: its driver runs over a tile that is emulated here.
// Only chips with AVX512-BF16 have the real leaves (tests/check tests those there).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/thread.h"
#include "cpu/cpu.h"
#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"

static float low(uint32_t pair)
{
    float f;
    pair <<= 16;
    memcpy(&f, &pair, sizeof f);
    return f;
}
static float high(uint32_t pair)
{
    float f;
    pair &= 0xffff0000u;
    memcpy(&f, &pair, sizeof f);
    return f;
}

static void tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                 int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    (void)segments;
    (void)off;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < 16; j++) {
            float sum = add ? c[i * ldc + j] : 0;
            for (int64_t k = 0; k < k_len; k++) {
                uint32_t x, y;
                memcpy(&x, a + i * lda + k, sizeof x);
                memcpy(&y, b + k * 16 + j, sizeof y);
                sum += low(x) * low(y) + high(x) * high(y);
            }
            c[i * ldc + j] = sum;
        }
}

// The matrix registers' shape: 32 rows of 32 columns, steps of 16 pairs.
static int g_begun;
static void matrix_tile(int rows, int segments, const int64_t *off, int64_t k_len, const float *a,
                        int64_t lda, const float *b, float *c, int64_t ldc, bool add)
{
    (void)rows;
    (void)segments;
    (void)off;
    assert_true(k_len % 16 == 0);
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j++) {
            float sum = add ? c[i * ldc + j] : 0;
            for (int64_t k = 0; k < k_len; k++) {
                uint32_t x, y;
                memcpy(&x, a + i * lda + k, sizeof x);
                memcpy(&y, b + k * 32 + j, sizeof y);
                sum += low(x) * low(y) + high(x) * high(y);
            }
            c[i * ldc + j] = sum;
        }
}
static void matrix_begin(void)
{
    g_begun++;
}
static void matrix_end(void)
{
    g_begun--;
}
static void pack32(float *dst, const void *w, at_dtype t, int64_t first, int64_t ldw, int n,
                   int64_t k)
{
    const float zero = 0;

    assert_int_equal(t, AT_F32);
    for (int64_t i = 0; i < k; i++)
        for (int j = 0; j < 32; j++)
            memcpy(dst + i * 32 + j, j < n ? (const float *)w + first + j * ldw + i : &zero, 4);
}

static float exp_pairs(float *p, const float *x, float scale, float minus, int64_t n)
{
    float sum = 0, zero = 0;
    for (int64_t i = 0; i < n; i++) {
        float e = expf(x[i] * scale - minus);
        at_cpu_store(p, AT_BF16, i, 1, &e, 1);
        sum += e;
    }
    if (n % 2) at_cpu_store(p, AT_BF16, n, 1, &zero, 1);
    return sum;
}

typedef struct shape {
    int64_t b, tq, tk, h, d;
    bool causal, bias;
} shape;

static at_view view(uint16_t *data, int64_t b, int64_t t, int64_t h, int64_t d)
{
    return (at_view){.data = data,
                     .dtype = AT_BF16,
                     .rank = 4,
                     .shape = {b, t, h, d},
                     .stride = {t * h * d, h * d, d, 1}};
}

static void fill(at_view *v, uint32_t seed)
{
    int64_t n = v->shape[0] * v->shape[1] * v->shape[2] * v->shape[3];
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        float x = (float)(seed >> 8) / 8388608.0f - 1;
        at_cpu_store(v->data, AT_BF16, i, 1, &x, 1);
    }
}

// Probabilities are rounded to bf16 (2^-9 each) and so is the result: 2^-7 of the largest value is wide enough.
static void compare(const at_cpu_kernels *k, const shape *s)
{
    enum { MOST = 2 * 200 * 3 * 80 };
    static uint16_t q[MOST], key[MOST], val[MOST], got[MOST], want[MOST];
    static float bias[3 * 200 * 200];
    at_attention_args a = {.q = view(q, s->b, s->tq, s->h, s->d),
                           .k = view(key, s->b, s->tk, s->h, s->d),
                           .v = view(val, s->b, s->tk, s->h, s->d),
                           .out = view(want, s->b, s->tq, s->h, s->d),
                           .scale = 1 / sqrtf((float)s->d),
                           .causal = s->causal};

    fill(&a.q, 1);
    fill(&a.k, 2);
    fill(&a.v, 3);
    for (int64_t i = 0; i < s->h * s->tq * s->tk; i++)
        bias[i] = i % 7 == 0 ? -INFINITY : (float)(i % 5) * 0.3f;
    if (s->bias)
        a.bias = (at_view){.data = bias,
                           .dtype = AT_F32,
                           .rank = 4,
                           .shape = {1, s->h, s->tq, s->tk},
                           .stride = {s->h * s->tq * s->tk, s->tq * s->tk, s->tk, 1}};
    assert_int_equal(at_cpu_ref_attention(NULL, &a), AT_OK);
    a.out.data = got;
    memset(got, 0xff, sizeof got);
    assert_int_equal(at_cpu_flash_attention(k, &a), AT_OK);
    for (int64_t i = 0; i < s->b * s->tq * s->h * s->d; i++) {
        a.out.data = want;
        float w = at_cpu_get(&a.out, i);
        a.out.data = got;
        float g = at_cpu_get(&a.out, i);
        if (!(fabsf(g - w) <= 0x1p-7f))
            fail_msg("tq %d tk %d h %d d %d at %d: %g, not %g", (int)s->tq, (int)s->tk, (int)s->h,
                     (int)s->d, (int)i, (double)g, (double)w);
    }
}

static void pairs_attend_as_floats_do(void **state)
{
    static const shape shapes[] = {
        {1, 1, 1, 1, 2, false, false},
        {2, 33, 77, 2, 40, false, false},
        {1, 20, 31, 3, 64, true, false},
        {1, 200, 200, 1, 80, false, true},
        {2, 50, 129, 2, 34, true, true},
        {1, 9, 5, 2, 16, true, false}, // the first rows see nothing
    };
    at_cpu_kernels k;

    (void)state;
    at_threads_set(1); // g_begun is one counter
    if (!at_cpu_table()) skip();
    k = at_cpu_avx2_table;
    k.pair_tile = tile;
    k.exp_pairs = exp_pairs;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        compare(&k, &shapes[i]);
    k.nr = 32;
    k.pack = pack32;
    k.matrix_tile = matrix_tile;
    k.matrix_begin = matrix_begin;
    k.matrix_end = matrix_end;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        compare(&k, &shapes[i]);
    assert_int_equal(g_begun, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pairs_attend_as_floats_do)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
