// SPDX-License-Identifier: Apache-2.0
// ops_testing.h - what the unit tests of this floor share: an op context on the CPU, tensors and weights
// from literal numbers, and comparison. Include in one .c of a cmocka program.
// Owns: a bench owns its ops and its store, until bench_close.
#ifndef AT_OPS_OPS_TESTING_H
#define AT_OPS_OPS_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "cpu/cpu.h"
#include "ops/ops.h"

typedef struct bench {
    at_ops *o;
    at_store *store;
    at_mt19937 rng;
    int weights;
    size_t live; // bytes before
} bench;

static inline bench bench_on(at_device *dev, at_dtype compute)
{
    bench b = {.live = at_mem_get_stats().live_bytes};
    at_ops_config config = {.device = dev, .compute = compute};

    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    at_mt_seed(&b.rng, 7);
    assert_int_equal(at_ops_new(&config, &b.o), AT_OK);
    assert_int_equal(at_store_new("test", &b.store), AT_OK);
    return b;
}

static inline bench bench_open(void)
{
    return bench_on(NULL, AT_F32);
}

static inline void bench_close(bench *b)
{
    at_ops_free(b->o);
    at_store_release(&b->store);
}

#define SHAPE(...)                                                                                 \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[])                         \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static inline at_tensor *tensor_of(bench *b, const float *values, int rank, const int64_t *shape)
{
    return at_from_host(b->o, AT_F32, rank, shape, values);
}

static inline int64_t count_shape(int rank, const int64_t *shape)
{
    int64_t n = 1;

    for (int i = 0; i < rank; i++)
        n *= shape[i];
    return n;
}

static inline at_tensor *random_tensor(bench *b, int rank, const int64_t *shape)
{
    int64_t n = count_shape(rank, shape);
    float *v = at_calloc((size_t)n + 1, sizeof *v);
    at_tensor *t;

    for (int64_t i = 0; i < n; i++)
        v[i] = 2 * at_mt_f32(&b->rng) - 1;
    t = tensor_of(b, v, rank, shape);
    at_free(v);
    return t;
}

static inline void fill_bytes(void *ctx, void *bytes, size_t n)
{
    memcpy(bytes, ctx, n);
}

static inline at_weight *weight_of(bench *b, const float *values, int rank, const int64_t *shape)
{
    char name[32];

    snprintf(name, sizeof name, "block.%d.weight", b->weights++);
    assert_int_equal(
        at_store_add(b->store, name, AT_F32, rank, shape, fill_bytes, (void *)(uintptr_t)values),
        AT_OK);
    return at_store_find(b->store, name);
}

static inline at_weight *random_weight(bench *b, int rank, const int64_t *shape)
{
    int64_t n = count_shape(rank, shape);
    float *v = at_calloc((size_t)n + 1, sizeof *v);
    at_weight *w;

    for (int64_t i = 0; i < n; i++)
        v[i] = 2 * at_mt_f32(&b->rng) - 1;
    w = weight_of(b, v, rank, shape);
    at_free(v);
    return w;
}

// The tensor's elements in order; at_free.
static inline float *values_of(const at_tensor *t)
{
    size_t n = (size_t)at_tensor_count(t);
    float *v = at_calloc(n + 1, sizeof *v);

    assert_int_equal(at_tensor_to_host(t, AT_F32, v, n * sizeof *v), AT_OK);
    return v;
}

static inline void assert_near(const at_tensor *t, const double *want, int64_t n, double tolerance)
{
    float *v;

    assert_non_null(t);
    assert_int_equal(at_tensor_count(t), n);
    v = values_of(t);
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs(v[i] - want[i]) <= tolerance)) {
            fail_msg("element %d is %g, not %g", (int)i, (double)v[i], want[i]);
        }
    }
    at_free(v);
}

static inline void assert_shape(const at_tensor *t, int rank, const int64_t *shape)
{
    assert_non_null(t);
    assert_int_equal(t->rank, rank);
    for (int i = 0; i < rank; i++)
        assert_int_equal(t->shape[i], shape[i]);
}

// The door refused, and its words hold all of `words` (NULL-terminated). The ops are usable again after.
static inline void assert_refused(bench *b, const at_tensor *result, at_status st,
                                  const char *const *words)
{
    assert_null(result);
    assert_int_equal(at_ops_clear(b->o), st);
    for (; *words; words++) {
        if (!strstr(at_error_text(), *words)) {
            fail_msg("'%s' is not in '%s'", *words, at_error_text());
        }
    }
}
#define REFUSED(b, call, st, ...)                                                                  \
    assert_refused(b, call, st, (const char *const[]){__VA_ARGS__, NULL})

#endif
