// SPDX-License-Identifier: Apache-2.0
// dtype.c - one row of facts per element type.
// Owns nothing.
#include "tensor/dtype.h"

#include <string.h>

#include "base/str.h"

typedef struct facts {
    size_t size;
    bool is_float;
    const char *name, *st_name;
    const char *aliases[3]; // torch's and ComfyUI's spellings
} facts;

static const facts table[AT_DTYPE_COUNT] = {
    [AT_F32] = {4, true, "f32", "F32", {"float32", "fp32", "float"}},
    [AT_F16] = {2, true, "f16", "F16", {"float16", "fp16", "half"}},
    [AT_BF16] = {2, true, "bf16", "BF16", {"bfloat16"}},
    [AT_F8E4M3] = {1, true, "f8e4m3", "F8_E4M3", {"fp8_e4m3fn", "float8_e4m3fn", "fp8_e4m3"}},
    [AT_F8E5M2] = {1, true, "f8e5m2", "F8_E5M2", {"fp8_e5m2", "float8_e5m2"}},
    [AT_F64] = {8, true, "f64", "F64", {"float64", "fp64", "double"}},
    [AT_I8] = {1, false, "i8", "I8", {"int8"}},
    [AT_U8] = {1, false, "u8", "U8", {"uint8"}},
    [AT_I16] = {2, false, "i16", "I16", {"int16"}},
    [AT_I32] = {4, false, "i32", "I32", {"int32"}},
    [AT_I64] = {8, false, "i64", "I64", {"int64"}},
    [AT_BOOL] = {1, false, "bool", "BOOL", {NULL}},
};

static bool known(at_dtype t)
{
    return (unsigned)t < AT_DTYPE_COUNT;
}

size_t at_dtype_size(at_dtype t)
{
    return known(t) ? table[t].size : 0;
}

const char *at_dtype_name(at_dtype t)
{
    return known(t) ? table[t].name : "?";
}

const char *at_dtype_st_name(at_dtype t)
{
    return known(t) ? table[t].st_name : "?";
}

bool at_dtype_parse(const char *s, at_dtype *out)
{
    for (int t = 0; t < AT_DTYPE_COUNT; t++) {
        const facts *f = &table[t];
        bool match = at_equal_nocase(s, f->name) || at_equal_nocase(s, f->st_name);

        for (int i = 0; i < 3 && f->aliases[i]; i++)
            match |= at_equal_nocase(s, f->aliases[i]);
        if (match) {
            *out = (at_dtype)t;
            return true;
        }
    }
    return false;
}

bool at_dtype_is_float(at_dtype t)
{
    return known(t) && table[t].is_float;
}
