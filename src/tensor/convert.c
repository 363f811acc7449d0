// SPDX-License-Identifier: Apache-2.0
// convert.c - tensor elements to host bytes of any dtype: the slow, sure way.
// Idea: each element goes through a double (exact for every type but large i64, which are copied
// when the dtype stays). For results, small tables and tests; ops/ converts through the backend.
// Owns nothing.
#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"

static double load(at_dtype t, const unsigned char *p)
{
    union {
        float f32;
        double f64;
        uint16_t u16;
        int16_t i16;
        int32_t i32;
        int64_t i64;
    } v;

    memcpy(&v, p, at_dtype_size(t));
    switch (t) {
    case AT_F32: return v.f32;
    case AT_F64: return v.f64;
    case AT_F16: return at_f16_to_f32(v.u16);
    case AT_BF16: return at_bf16_to_f32(v.u16);
    case AT_F8E4M3: return at_f8e4m3_to_f32(p[0]);
    case AT_F8E5M2: return at_f8e5m2_to_f32(p[0]);
    case AT_I8: return (signed char)p[0];
    case AT_U8: return p[0];
    case AT_I16: return v.i16;
    case AT_I32: return v.i32;
    case AT_I64: return (double)v.i64;
    case AT_BOOL: return p[0] != 0;
    default: return 0;
    }
}

// Truncate into [low, high]; NaN gives 0.
static int64_t to_integer(double x, double low, double high)
{
    if (isnan(x)) return 0;
    if (x <= low) return (int64_t)low;
    if (x >= high) return high >= 0x1p63 ? INT64_MAX : (int64_t)high;
    return (int64_t)x;
}

static void store(at_dtype t, unsigned char *p, double x)
{
    union {
        float f32;
        double f64;
        uint16_t u16;
        uint8_t u8;
        int8_t i8;
        int16_t i16;
        int32_t i32;
        int64_t i64;
    } v = {.i64 = 0};

    switch (t) {
    case AT_F32: v.f32 = (float)x; break;
    case AT_F64: v.f64 = x; break;
    case AT_F16: v.u16 = at_f32_to_f16((float)x); break;
    case AT_BF16: v.u16 = at_f32_to_bf16((float)x); break;
    case AT_F8E4M3: v.u8 = at_f32_to_f8e4m3((float)x); break;
    case AT_F8E5M2: v.u8 = at_f32_to_f8e5m2((float)x); break;
    case AT_I8: v.i8 = (int8_t)to_integer(x, -128, 127); break;
    case AT_U8: v.u8 = (uint8_t)to_integer(x, 0, 255); break;
    case AT_I16: v.i16 = (int16_t)to_integer(x, -32768, 32767); break;
    case AT_I32: v.i32 = (int32_t)to_integer(x, -0x1p31, 0x1p31 - 1); break;
    case AT_I64: v.i64 = to_integer(x, -0x1p63, 0x1p63); break;
    case AT_BOOL: v.u8 = x != 0; break;
    default: break;
    }
    memcpy(p, &v, at_dtype_size(t));
}

// Walk the elements of `t` in order with host bytes at `base` (the window's first element).
static void convert_all(const at_tensor *t, const unsigned char *base, at_dtype dtype,
                        unsigned char *dst)
{
    int64_t at[AT_MAX_RANK] = {0}, n = at_tensor_count(t), off = 0;
    size_t from = at_dtype_size(t->dtype), to = at_dtype_size(dtype);

    for (int64_t i = 0; i < n; i++) {
        const unsigned char *p = base + off * (int64_t)from;

        if (t->dtype == dtype) {
            memcpy(dst, p, to);
        } else {
            store(dtype, dst, load(t->dtype, p));
        }
        dst += to;
        for (int d = t->rank - 1; d >= 0; d--) {
            off += t->stride[d];
            if (++at[d] < t->shape[d]) break;
            off -= at[d] * t->stride[d];
            at[d] = 0;
        }
    }
}

at_status at_tensor_to_host(const at_tensor *t, at_dtype dtype, void *dst, size_t bytes)
{
    at_device *dev = at_tensor_device(t);
    at_status st = AT_OK;
    unsigned char *staged = NULL;
    const unsigned char *base = at_tensor_data(t);
    int64_t low = 0, high = 0, size = (int64_t)at_dtype_size(t->dtype);
    char text[128];

    if (bytes != (size_t)at_tensor_count(t) * at_dtype_size(dtype)) {
        return at_fail(AT_EINVAL, "%s as %s does not fill %zu bytes",
                       at_shape_text(t->dtype, t->rank, t->shape, text), at_dtype_name(dtype),
                       bytes);
    }
    if (bytes == 0) return AT_OK;
    if (dtype == t->dtype && at_tensor_contiguous(t)) {
        return dev->ops->to_host(dev, dst, base, bytes);
    }
    for (int i = 0; i < t->rank; i++) {
        int64_t reach = (t->shape[i] - 1) * t->stride[i];

        *(reach < 0 ? &low : &high) += reach;
    }
    if (dev->host) {
        AT_TRY(dev->ops->synchronize(dev));
    } else {
        size_t span = (size_t)((high - low + 1) * size);

        staged = at_alloc(span);
        if (!staged)
            AT_TRY(at_fail(AT_ENOMEM, "%s: no host memory for %zu bytes",
                           at_shape_text(t->dtype, t->rank, t->shape, text), span));
        AT_TRY(dev->ops->to_host(dev, staged, base + low * size, span));
        base = staged - low * size;
    }
    convert_all(t, base, dtype, dst);
out:
    at_free(staged);
    return st;
}

at_status at_tensor_bring(at_device *d, at_tensor **t)
{
    at_status st = AT_OK;
    at_tensor *host = NULL, *there = NULL, *from = *t;

    if (!from || at_tensor_device(from) == d) return AT_OK;
    AT_TRY(at_tensor_new(at_device_cpu(), from->dtype, from->rank, from->shape, &host));
    AT_TRY(at_tensor_to_host(from, from->dtype, at_tensor_data(host), at_tensor_bytes(host)));
    if (d == at_device_cpu()) {
        there = host;
        host = NULL;
    } else {
        AT_TRY(at_tensor_from_host(d, from->dtype, from->rank, from->shape, at_tensor_data(host),
                                   &there));
    }
    at_tensor_release(t);
    *t = there;
out:
    at_tensor_release(&host);
    return st;
}
