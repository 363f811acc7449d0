// SPDX-License-Identifier: Apache-2.0
// check_util.c - tensors with guard bytes, random contents, and an independent decoder of every
// dtype.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "check.h"

enum { GUARD = 256, GUARD_BYTE = 0xA5 };

static uint64_t g_state; // splitmix64, one stream for a run

void ck_random(uint64_t seed)
{
    g_state = seed * 0x9E3779B97F4A7C15u + 1;
}

double ck_uniform(void)
{
    uint64_t z = g_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// Errors of one rounding to the dtype, relative, and of its subnormals, absolute.
static const struct {
    double store, least;
} dtype_error[AT_DTYPE_COUNT] = {
    [AT_F32] = {0x1p-24, 0x1p-140},  // 24 bits of mantissa
    [AT_F16] = {0x1p-11, 0x1p-25},   // 11 bits; subnormals end at 2^-24
    [AT_BF16] = {0x1p-8, 0x1p-134},  // 8 bits
    [AT_F8E4M3] = {0x1p-4, 0x1p-10}, // 4 bits; subnormals end at 2^-9
    [AT_F8E5M2] = {0x1p-3, 0x1p-17}, // 3 bits; subnormals end at 2^-16
    [AT_F64] = {0x1p-24, 0x1p-140},  // sums are f32
};

double ck_store_error(at_dtype t)
{
    return dtype_error[t].store;
}
double ck_least_error(at_dtype t)
{
    return dtype_error[t].least;
}

static size_t dtype_size(at_dtype t)
{
    static const size_t size[AT_DTYPE_COUNT] = {4, 2, 2, 1, 1, 8, 1, 1, 2, 4, 8, 1};
    return size[t];
}

size_t ck_size(at_dtype t)
{
    return dtype_size(t);
}

static double small_float(unsigned bits, int exp_bits, int man_bits, bool finite_only)
{
    int bias = (1 << (exp_bits - 1)) - 1, top = (1 << exp_bits) - 1;
    int man = (int)(bits & ((1u << man_bits) - 1)), e = (int)(bits >> man_bits) & top;
    double sign = bits >> (exp_bits + man_bits) & 1 ? -1 : 1;

    if (finite_only && e == top && man == (1 << man_bits) - 1) return NAN;
    if (!finite_only && e == top) return man ? NAN : sign * INFINITY;
    if (e == 0) return sign * ldexp(man, 1 - bias - man_bits);
    return sign * ldexp(man + (1 << man_bits), e - bias - man_bits);
}

double ck_value(const at_view *v, int64_t i)
{
    const uint8_t *p = (const uint8_t *)v->data + i * (int64_t)dtype_size(v->dtype);
    union {
        float f;
        double d;
        uint16_t u16;
        int16_t i16;
        int32_t i32;
        int64_t i64;
    } u;
    memcpy(&u, p, dtype_size(v->dtype));
    switch (v->dtype) {
    case AT_F32: return (double)u.f;
    case AT_F64: return u.d;
    case AT_F16: return small_float(u.u16, 5, 10, false);
    case AT_BF16: return small_float(u.u16, 8, 7, false);
    case AT_F8E4M3: return small_float(*p, 4, 3, true);
    case AT_F8E5M2: return small_float(*p, 5, 2, false);
    case AT_I8: return (int8_t)*p;
    case AT_I16: return u.i16;
    case AT_I32: return u.i32;
    case AT_I64: return (double)u.i64;
    default: return *p;
    }
}

static void put(void *base, at_dtype t, int64_t i, double d)
{
    switch (t) {
    case AT_F32: ((float *)base)[i] = (float)d; break;
    case AT_F64: ((double *)base)[i] = d; break;
    case AT_F16: ((uint16_t *)base)[i] = at_f32_to_f16((float)d); break;
    case AT_BF16: ((uint16_t *)base)[i] = at_f32_to_bf16((float)d); break;
    case AT_F8E4M3: ((uint8_t *)base)[i] = at_f32_to_f8e4m3((float)d); break;
    case AT_F8E5M2: ((uint8_t *)base)[i] = at_f32_to_f8e5m2((float)d); break;
    case AT_I8: ((int8_t *)base)[i] = (int8_t)(d * 100); break;
    case AT_U8: ((uint8_t *)base)[i] = (uint8_t)(fabs(d) * 200); break;
    case AT_I16: ((int16_t *)base)[i] = (int16_t)(d * 100); break;
    case AT_I32: ((int32_t *)base)[i] = (int32_t)(d * 100); break;
    case AT_I64: ((int64_t *)base)[i] = (int64_t)(d * 100); break;
    default: ((uint8_t *)base)[i] = d > 0; break;
    }
}

static double draw(at_dtype t, ck_fill fill)
{
    bool fp8 = t == AT_F8E4M3 || t == AT_F8E5M2, narrow = fp8 || t == AT_F16;
    double u = 2 * ck_uniform() - 1;

    switch (fill) {
    case CK_UNIT: return u;
    case CK_LARGE: return u * (fp8 ? 64 : narrow ? 100 : 1e4);
    case CK_SMALL: return u * (narrow ? 0x1p-6 : 1e-15);
    case CK_MIXED: return (u < 0 ? -1 : 1) * exp((fp8 ? 4 : 12) * (ck_uniform() - 0.5));
    case CK_OFFSET: return 100 + u;
    case CK_WIDE: return 12 * u;
    case CK_MASK: return u < 0 ? -INFINITY : 0;
    case CK_POSITIVE: return 0.5 + ck_uniform();
    }
    return u;
}

int64_t ck_count(const at_view *v)
{
    int64_t n = 1;
    for (int d = 0; d < v->rank; d++)
        n *= v->shape[d];
    return n;
}

int64_t ck_offset(const at_view *v, int64_t i)
{
    int64_t off = 0;
    for (int d = v->rank - 1; d >= 0; d--) {
        off += i % v->shape[d] * v->stride[d];
        i /= v->shape[d];
    }
    return off;
}

int64_t ck_dim(const at_view *v, int d)
{
    return v->shape[d];
}

static int64_t lay_out(at_view *v, ck_layout l)
{
    int64_t step = 1 + l.gap, extent = 1;
    for (int d = v->rank - 1; d >= 0; d--) {
        v->stride[d] = l.broadcast >> d & 1 ? 0 : step;
        if (!(l.broadcast >> d & 1)) step *= v->shape[d] > 0 ? v->shape[d] : 1;
        if (d > 0 && !(l.broadcast >> d & 1)) step += l.pad;
        if (d > 0 && d == v->rank - 2) step += l.slab;
        if (v->shape[d] > 0) extent += (v->shape[d] - 1) * v->stride[d];
    }
    return extent;
}

static void *take(size_t n)
{
    void *p = aligned_alloc(64, (n + 63) / 64 * 64 + 64);
    if (!p) {
        fprintf(stderr, "check: no memory for %zu bytes\n", n);
        exit(2);
    }
    return p;
}

at_view ck_make(ck_run *r, at_dtype dtype, int rank, const int64_t *shape, ck_layout l,
                ck_fill fill)
{
    ck_tensor *t = &r->t[r->n++];
    at_view *v = &t->v;
    size_t size = dtype_size(dtype), start = GUARD + (size_t)l.shift * size;
    int64_t extent, count;

    v->dtype = dtype;
    v->rank = rank;
    memcpy(v->shape, shape, (size_t)rank * sizeof *shape);
    extent = lay_out(v, l);
    t->bytes = start + (size_t)extent * size + GUARD;
    t->block = take(t->bytes);
    t->pristine = take(t->bytes);
    t->owned = take(t->bytes);
    memset(t->block, GUARD_BYTE, t->bytes);
    memset(t->owned, 0, t->bytes);
    v->data = t->block + start;
    count = ck_count(v);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = ck_offset(v, i);
        memset(t->owned + start + (size_t)at * size, 1, size);
        put(v->data, dtype, at, draw(dtype, fill));
    }
    memcpy(t->pristine, t->block, t->bytes);
    return *v;
}

at_view ck_make_scales(ck_run *r, int64_t rows)
{
    r->scales = ck_make(r, AT_F32, 1, &rows, (ck_layout){0}, CK_POSITIVE);
    r->t[r->n - 1].also_written = true;
    return r->scales;
}

void ck_to_rows8(const float *from, int64_t rows, int64_t k, uint8_t *to, float *scales)
{
    for (int64_t r = 0; r < rows; r++) {
        float most = 1e-30f;
        for (int64_t i = 0; i < k; i++)
            most = fmaxf(most, fabsf(from[r * k + i]));
        scales[r] = most / 448;
        for (int64_t i = 0; i < k; i++)
            to[r * k + i] = at_f32_to_f8e4m3(from[r * k + i] * (448 / most));
    }
}

at_wview ck_weight(ck_run *r, at_dtype dtype, int rank, const int64_t *shape, ck_fill fill,
                   float scale)
{
    at_wview w = {.v = ck_make(r, dtype, rank, shape, (ck_layout){.shift = 1}, fill),
                  .scale = scale};
    return w;
}

static void forget(at_packed *k)
{
    void *p = atomic_exchange(&k->data, NULL);
    if (p && k->free) k->free(p);
}

void ck_forget_packed(ck_run *r)
{
    forget(&r->packed);
    forget(&r->packed2);
}

void ck_run_free(ck_run *r)
{
    ck_forget_packed(r);
    for (int i = 0; i < r->n; i++) {
        free(r->t[i].block);
        free(r->t[i].pristine);
        free(r->t[i].owned);
    }
    free(r->truth);
    free(r->mag);
    memset(r, 0, sizeof *r);
}

double ck_act(double x, at_act act)
{
    switch (act) {
    case AT_ACT_NONE: return x;
    case AT_ACT_SILU: return x / (1 + exp(-x));
    case AT_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case AT_ACT_GELU_ERF: return 0.5 * x * erfc(-x / sqrt(2));
    case AT_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case AT_ACT_RELU: return x > 0 ? x : 0;
    case AT_ACT_TANH: return tanh(x);
    case AT_ACT_SIGMOID: return 1 / (1 + exp(-x));
    }
    return x;
}

const char *ck_dtype_name(at_dtype t)
{
    static const char *const names[AT_DTYPE_COUNT] = {"f32", "f16", "bf16", "e4m3", "e5m2", "f64"};
    return t <= AT_F64 ? names[t] : "int";
}

void ck_q8_add(ck_q8 *q, double x, double w)
{
    q->most_x = fmax(q->most_x, fabs(x));
    q->most_w = fmax(q->most_w, fabs(w));
    q->x2 += x * x;
    q->w2 += w * w;
    q->xw2 += x * x * w * w;
    q->n++;
}

double ck_q8_error(const ck_q8 *q)
{
    double sx = q->most_x / 127, sw = q->most_w / 127;
    return 6 * sqrt((sx * sx * q->w2 + sw * sw * q->x2) / 12 + q->n * sx * sx * sw * sw / 144);
}

// A rounding is uniform within 2^-4 of the value, or within 2^-10 of the scale where e4m3 is subnormal; six
// deviations of the sum. Fast sums keep 14 bits of the largest partial sum.
double ck_f8_error(const ck_q8 *q)
{
    double sx = q->most_x / 448 * 0x1p-10, sw = q->most_w / 448 * 0x1p-10;
    double rounding = 2 * 0x1p-8 * q->xw2 + sx * sx * q->w2 + sw * sw * q->x2;
    return 6 * sqrt(rounding / 3) + 0x1p-12 * sqrt(q->xw2 * (double)q->n);
}

double ck_bf16_error(const ck_q8 *q, at_dtype x, at_dtype w)
{
    bool finer = w == AT_F32 || w == AT_F16;
    return x == AT_BF16 && finer ? 6 * 0x1p-9 / sqrt(3) * sqrt(q->xw2) : 0;
}
