// SPDX-License-Identifier: Apache-2.0
// half.c - f16 and fp8 conversions, one value at a time.
// Idea: all three formats are one shape: sign, E exponent bits, M mantissa bits, gradual underflow.
// Narrowing rounds the 24-bit significand at the right place with integers, so it does not depend
// on the rounding mode; a carry out of the mantissa walks into the exponent by itself. NaN: the
// payload's high bits stay and it becomes quiet, as F16C does. Sources: IEEE 754-2008; OCP FP8
// (arXiv:2209.05433); torch's c10 float8 types for overflow.
#include "base/half.h"

// |f| (sign bit cleared) to M mantissa bits, bias `bias`, round to nearest even. The result is the
// unsigned code, with no upper limit: the caller decides what lies beyond its largest finite value.
static uint32_t narrow(uint32_t mag, int mbits, int bias)
{
    int exp = (int)(mag >> 23) - 127 + bias; // exponent field of the result if it is normal
    uint32_t sig = (mag & 0x7fffffu) | 0x800000u;
    int drop = 23 - mbits;
    uint32_t kept, rest, half;

    if (exp < 1) drop += 1 - exp; // gradual underflow: the leading one moves right
    if (drop > 24) return 0;      // below half of the smallest denormal (and f32 denormals)
    kept = sig >> drop;
    rest = sig & ((1u << drop) - 1);
    half = 1u << (drop - 1);
    if (rest > half || (rest == half && (kept & 1u))) kept++;
    // A normal result has its leading one inside `kept`: it adds 1 to the exponent field.
    return exp < 1 ? kept : ((uint32_t)(exp - 1) << mbits) + kept;
}

// The value of a finite code without its sign.
static float widen(uint32_t code, int mbits, int bias)
{
    uint32_t exp = code >> mbits, man = code & ((1u << mbits) - 1);

    if (exp == 0) return (float)man * at_float_of((uint32_t)(127 + 1 - bias - mbits) << 23);
    return at_float_of(((exp + 127 - (uint32_t)bias) << 23) | (man << (23 - mbits)));
}

float at_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, code = h & 0x7fffu;

    if (code >= 0x7c00u) {
        uint32_t man = code & 0x3ffu;

        return at_float_of(sign | 0x7f800000u | (man ? 0x400000u : 0u) | (man << 13));
    }
    return at_float_of(sign | at_bits_of(widen(code, 10, 15)));
}

uint16_t at_f32_to_f16(float f)
{
    uint32_t u = at_bits_of(f), mag = u & 0x7fffffffu, sign = (u >> 16) & 0x8000u, code;

    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((mag >> 13) & 0x1ffu));
    if (mag >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); // 2^16 and more
    code = narrow(mag, 10, 15);                                // 65520 and more carry into infinity
    return (uint16_t)(sign | code);
}

float at_f8e4m3_to_f32(uint8_t v)
{
    uint32_t sign = (uint32_t)(v & 0x80u) << 24, code = v & 0x7fu;

    if (code == 0x7fu) return at_float_of(sign | 0x7fc00000u);
    return at_float_of(sign | at_bits_of(widen(code, 3, 7)));
}

uint8_t at_f32_to_f8e4m3(float f)
{
    uint32_t u = at_bits_of(f), mag = u & 0x7fffffffu, sign = (u >> 24) & 0x80u, code;

    if (mag >= 0x43f00000u) return (uint8_t)(sign | 0x7fu); // 480 and more, infinity, NaN
    code = narrow(mag, 3, 7);                               // more than 464 rounds to the NaN code
    return (uint8_t)(sign | code);
}

float at_f8e5m2_to_f32(uint8_t v)
{
    return at_f16_to_f32((uint16_t)(v << 8));
}

uint8_t at_f32_to_f8e5m2(float f)
{
    uint32_t u = at_bits_of(f), mag = u & 0x7fffffffu, sign = (u >> 24) & 0x80u, code;

    if (mag > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (mag >= 0x47800000u) return (uint8_t)(sign | 0x7cu);
    code = narrow(mag, 2, 15);
    return (uint8_t)(sign | code);
}
