// SPDX-License-Identifier: Apache-2.0
// half.h - scalar conversions between f32 and the small floating point formats.
// Idea: the reference for every kernel; vector twins must agree bit for bit.
// Rounding is to nearest even. fp8: OCP FP8 (arXiv:2209.05433), as torch.float8_e4m3fn (no infinity,
// overflow gives NaN) and torch.float8_e5m2 (IEEE-like).
// Owns nothing. Any thread.
#ifndef AT_BASE_HALF_H
#define AT_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t at_bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float at_float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline float at_bf16_to_f32(uint16_t h)
{
    return at_float_of((uint32_t)h << 16);
}
static inline uint16_t at_f32_to_bf16(float f)
{
    uint32_t u = at_bits_of(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40); // keep NaN a NaN
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float at_f16_to_f32(uint16_t h);
uint16_t at_f32_to_f16(float f);
float at_f8e4m3_to_f32(uint8_t v);
uint8_t at_f32_to_f8e4m3(float f);
float at_f8e5m2_to_f32(uint8_t v);
uint8_t at_f32_to_f8e5m2(float f);

#endif
