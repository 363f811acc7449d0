// SPDX-License-Identifier: Apache-2.0
// weight.c - one record: its count, its view for a backend, its numbers as f32.
// Owns nothing.
#include <assert.h>
#include <string.h>

#include "base/half.h"
#include "tensor/dtype.h"
#include "weight/store.h"

int64_t at_weight_elements(const at_weight *w)
{
    return (int64_t)(w->bytes / at_dtype_size(w->dtype));
}

at_wview at_weight_view(const at_weight *w)
{
    at_wview v = {.scale = 1};
    int64_t stride = 1;

    if (!w) return v;
    v.v.data = (void *)(uintptr_t)w->data; // views carry no const; slots only read weights
    v.v.dtype = w->dtype;
    v.v.rank = w->rank;
    for (int i = w->rank - 1; i >= 0; i--) {
        v.v.shape[i] = w->shape[i];
        v.v.stride[i] = stride;
        stride *= w->shape[i] > 0 ? w->shape[i] : 1;
    }
    v.scale = w->scale;
    v.packed = w->packed;
    v.mapped = w->mapped;
    v.name = w->name;
    return v;
}

static float element(at_dtype t, const uint8_t *p)
{
    union {
        uint16_t u16;
        int16_t i16;
        int32_t i32;
        int64_t i64;
        float f32;
        double f64;
    } v;

    memcpy(&v, p, at_dtype_size(t)); // p may be unaligned
    switch (t) {
    case AT_F32: return v.f32;
    case AT_F16: return at_f16_to_f32(v.u16);
    case AT_BF16: return at_bf16_to_f32(v.u16);
    case AT_F8E4M3: return at_f8e4m3_to_f32(*p);
    case AT_F8E5M2: return at_f8e5m2_to_f32(*p);
    case AT_F64: return (float)v.f64;
    case AT_I8: return (int8_t)*p;
    case AT_U8: return *p;
    case AT_I16: return v.i16;
    case AT_I32: return (float)v.i32;
    case AT_I64: return (float)v.i64;
    case AT_BOOL: return *p != 0;
    case AT_DTYPE_COUNT: break;
    }
    return 0;
}

void at_weight_read_f32(const at_weight *w, int64_t first, int64_t n, float *out)
{
    size_t size = at_dtype_size(w->dtype);
    const uint8_t *p = w->data;

    assert(first >= 0 && n >= 0 && first <= at_weight_elements(w) - n);
    assert(p || n == 0);
    for (int64_t i = 0; i < n; i++)
        out[i] = element(w->dtype, p + (size_t)(first + i) * size) * w->scale;
}
