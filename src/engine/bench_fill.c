// SPDX-License-Identifier: Apache-2.0
// bench_fill.c - weights of noise for bench: about normal, so that layers time like trained ones.
// Owns nothing: records belong to the store.
#include "engine/bench_fill.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/thread.h"

// About normal (sum of four uniforms): shapes time like trained weights, zeros would not.
static float draw(at_noise *n)
{
    uint64_t x = n->state;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    n->state = x;
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)((x >> (16 * i)) & 0xffff) * (1.0f / 65536.0f);
    return (sum - 2.0f) * 1.7320508f * n->scale + n->shift;
}

static void draw_values(at_noise *n, uint8_t *p, size_t count)
{
    size_t width = at_dtype_size(n->dtype);
    for (size_t i = 0; i < count * width; i += width) {
        float v = draw(n);
        switch (n->dtype) {
        case AT_F32: memcpy(p + i, &v, 4); break;
        case AT_BF16: memcpy(p + i, &(uint16_t){at_f32_to_bf16(v)}, 2); break;
        case AT_F16: memcpy(p + i, &(uint16_t){at_f32_to_f16(v)}, 2); break;
        case AT_F8E4M3: p[i] = at_f32_to_f8e4m3(v); break;
        case AT_F8E5M2: p[i] = at_f32_to_f8e5m2(v); break;
        default: break;
        }
    }
}

typedef struct repeated {
    uint8_t *bytes;
    int64_t period; // in bytes; bytes[0, period) are there
} repeated;

static void repeat(void *ctx, int64_t begin, int64_t end)
{
    const repeated *r = ctx;
    while (begin < end) {
        int64_t from = begin % r->period;
        int64_t n = r->period - from < end - begin ? r->period - from : end - begin;
        memcpy(r->bytes + r->period + begin, r->bytes + from, (size_t)n);
        begin += n;
    }
}

// Twelve thousand million draws would take a minute: a tensor is its first PERIOD values over and over.
// The period is prime, so that no two rows of a matrix begin alike.
static void fill_noise(void *ctx, void *bytes, size_t size)
{
    enum { PERIOD = 262139 };
    at_noise *n = ctx;
    size_t width = at_dtype_size(n->dtype), count = size / width;
    repeated r = {bytes, (int64_t)(PERIOD * width)};

    draw_values(n, bytes, count < PERIOD ? count : PERIOD);
    if (count > PERIOD) at_parallel_for((int64_t)size - r.period, 1 << 20, repeat, &r);
}

static void add(at_filler *f, const char *name, int rank, const int64_t *shape, float scale,
                float shift)
{
    char key[192];
    if (f->st != AT_OK) return;
    snprintf(key, sizeof key, "%s%s", f->prefix, name);
    f->n.dtype = f->dtype;
    f->n.scale = scale;
    f->n.shift = shift;
    f->st = f->zeros ? at_store_add_zeros(f->store, key, f->dtype, rank, shape)
                     : at_store_add(f->store, key, f->dtype, rank, shape, fill_noise, &f->n);
}
void at_fill_matrix(at_filler *f, const char *name, int64_t rows, int64_t cols)
{
    add(f, name, 2, (int64_t[]){rows, cols}, 0.02f, 0.0f);
}
void at_fill_vector(at_filler *f, const char *name, int64_t n, float shift)
{
    add(f, name, 1, &n, 0.02f, shift);
}
void at_fill_linear(at_filler *f, const char *name, int64_t rows, int64_t cols)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    at_fill_matrix(f, key, rows, cols);
    snprintf(key, sizeof key, "%s.bias", name);
    at_fill_vector(f, key, rows, 0.0f);
}
void at_fill_affine(at_filler *f, const char *name, int64_t n)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    at_fill_vector(f, key, n, 1.0f);
    snprintf(key, sizeof key, "%s.bias", name);
    at_fill_vector(f, key, n, 0.0f);
}
void at_fill_conv(at_filler *f, const char *name, int64_t out, int64_t in, int64_t k)
{
    char key[128];
    snprintf(key, sizeof key, "%s.weight", name);
    add(f, key, 4, (int64_t[]){out, in, k, k}, 0.02f, 0.0f);
    snprintf(key, sizeof key, "%s.bias", name);
    at_fill_vector(f, key, out, 0.0f);
}
at_filler at_fill_start(at_store *s, at_fill_as as)
{
    return (at_filler){
        .store = s, .dtype = as.dtype, .zeros = as.zeros, .n = {.state = 0x9e3779b97f4a7c15u}};
}
