// SPDX-License-Identifier: Apache-2.0
// any.cuh - one element of any dtype, read and written as a double.
// Idea: for what is rare or small. As on the CPU: floats are truncated to integers and kept within
// their range, integers keep their low bits, and a bool says whether there was anything.
#ifndef AT_CUDA_ANY_CUH
#define AT_CUDA_ANY_CUH

#include "cuda/dtype.cuh"

__device__ inline double any_load(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AT_F32: return ((const float *)p)[i];
    case AT_F16: return to_f32(((const f16 *)p)[i]);
    case AT_BF16: return to_f32(((const bf16 *)p)[i]);
    case AT_F8E4M3: return to_f32(((const e4m3 *)p)[i]);
    case AT_F8E5M2: return to_f32(((const e5m2 *)p)[i]);
    case AT_F64: return ((const double *)p)[i];
    case AT_I8: return ((const int8_t *)p)[i];
    case AT_U8: return ((const uint8_t *)p)[i];
    case AT_I16: return ((const int16_t *)p)[i];
    case AT_I32: return ((const int32_t *)p)[i];
    case AT_I64: return (double)((const int64_t *)p)[i];
    default: return ((const uint8_t *)p)[i] != 0;
    }
}

// Truncated towards zero and kept within the type, as on the CPU; NaN becomes 0.
__device__ inline int64_t to_int(double x, double least, double most)
{
    if (isnan(x)) return 0;
    return (int64_t)(x < least ? least : x > most ? most : x);
}

__device__ inline void any_store(void *p, int dtype, int64_t i, double x)
{
    switch (dtype) {
    case AT_F32: ((float *)p)[i] = (float)x; break;
    case AT_F16: ((f16 *)p)[i] = __double2half(x); break;
    case AT_BF16: ((bf16 *)p)[i] = __double2bfloat16(x); break;
    case AT_F8E4M3: {
        e4m3 y;
        y.__x = __nv_cvt_double_to_fp8(x, __NV_NOSAT, __NV_E4M3);
        ((e4m3 *)p)[i] = y;
        break;
    }
    case AT_F8E5M2: {
        e5m2 y;
        y.__x = __nv_cvt_double_to_fp8(x, __NV_NOSAT, __NV_E5M2);
        ((e5m2 *)p)[i] = y;
        break;
    }
    case AT_F64: ((double *)p)[i] = x; break;
    case AT_I8: ((int8_t *)p)[i] = (int8_t)to_int(x, -128.0, 127.0); break;
    case AT_U8: ((uint8_t *)p)[i] = (uint8_t)to_int(x, 0.0, 255.0); break;
    case AT_I16: ((int16_t *)p)[i] = (int16_t)to_int(x, -32768.0, 32767.0); break;
    case AT_I32: ((int32_t *)p)[i] = (int32_t)to_int(x, -2147483648.0, 2147483647.0); break;
    case AT_I64: ((int64_t *)p)[i] = (int64_t)x; break;
    default: ((uint8_t *)p)[i] = x != 0; break;
    }
}

__device__ inline int64_t int_load(const void *p, int dtype, int64_t i)
{
    switch (dtype) {
    case AT_I8: return ((const int8_t *)p)[i];
    case AT_U8: return ((const uint8_t *)p)[i];
    case AT_I16: return ((const int16_t *)p)[i];
    case AT_I32: return ((const int32_t *)p)[i];
    case AT_I64: return ((const int64_t *)p)[i];
    default: return ((const uint8_t *)p)[i] != 0;
    }
}

__device__ inline void int_store(void *p, int dtype, int64_t i, int64_t x)
{
    switch (dtype) {
    case AT_I8:
    case AT_U8: ((uint8_t *)p)[i] = (uint8_t)x; break;
    case AT_I16: ((uint16_t *)p)[i] = (uint16_t)x; break;
    case AT_I32: ((uint32_t *)p)[i] = (uint32_t)x; break;
    case AT_I64: ((int64_t *)p)[i] = x; break;
    default: ((uint8_t *)p)[i] = x != 0; break;
    }
}

#endif
