// SPDX-License-Identifier: Apache-2.0
// half_test.c - every code of the small formats, both ways, against their arithmetic definition.
// Idea: a format is described by exponent bits, mantissa bits, bias and whether it has infinities; the
// definition decodes with ldexp and encodes by looking for the nearest of its neighbours in double.
#include "base/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"

typedef struct format {
    const char *name;
    int ebits, mbits, bias;
    int has_inf;       // else the top exponent is ordinary, and only mantissa "all ones" is NaN
    uint32_t max_code; // largest finite
    float (*wide)(uint32_t code);
    uint32_t (*narrow)(float f);
} format;

static float wide_f16(uint32_t c)
{
    return at_f16_to_f32((uint16_t)c);
}
static uint32_t narrow_f16(float f)
{
    return at_f32_to_f16(f);
}
static float wide_bf16(uint32_t c)
{
    return at_bf16_to_f32((uint16_t)c);
}
static uint32_t narrow_bf16(float f)
{
    return at_f32_to_bf16(f);
}
static float wide_e4m3(uint32_t c)
{
    return at_f8e4m3_to_f32((uint8_t)c);
}
static uint32_t narrow_e4m3(float f)
{
    return at_f32_to_f8e4m3(f);
}
static float wide_e5m2(uint32_t c)
{
    return at_f8e5m2_to_f32((uint8_t)c);
}
static uint32_t narrow_e5m2(float f)
{
    return at_f32_to_f8e5m2(f);
}

static const format formats[] = {
    {"f16", 5, 10, 15, 1, 0x7bff, wide_f16, narrow_f16},
    {"bf16", 8, 7, 127, 1, 0x7f7f, wide_bf16, narrow_bf16},
    {"e4m3", 4, 3, 7, 0, 0x7e, wide_e4m3, narrow_e4m3},
    {"e5m2", 5, 2, 15, 1, 0x7b, wide_e5m2, narrow_e5m2},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static uint32_t sign_bit(const format *f)
{
    return 1u << (f->ebits + f->mbits);
}

// Value of the positive code c, as if the exponent range had no end.
static double define(const format *f, uint32_t c)
{
    uint32_t exp = c >> f->mbits, man = c & ((1u << f->mbits) - 1);

    if (exp == 0) return ldexp(man, 1 - f->bias - f->mbits);
    return ldexp((1u << f->mbits) + man, (int)exp - f->bias - f->mbits);
}

static int code_is_nan(const format *f, uint32_t c)
{
    c &= sign_bit(f) - 1;
    return f->has_inf ? c > f->max_code + 1 : c > f->max_code;
}

// Round |x| to nearest even by bisection over the codes. Beyond the largest code: infinity or NaN.
static uint32_t define_narrow(const format *f, double x)
{
    uint32_t low = 0, high = f->max_code + 1; // high stands for what overflow gives
    double middle;

    if (x >= define(f, high)) return high;
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;

        if (define(f, mid) <= x) {
            low = mid;
        } else {
            high = mid;
        }
    }
    middle = (define(f, low) + define(f, high)) / 2;
    if (x > middle || (x == middle && (low & 1))) return high;
    return low;
}

static void every_code_widens_to_its_value(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const format *f = &formats[i];

        for (uint32_t c = 0; c < 2 * sign_bit(f); c++) {
            float got = f->wide(c);
            uint32_t mag = c & (sign_bit(f) - 1);

            assert_int_equal(signbit(got) != 0, (c & sign_bit(f)) != 0);
            if (code_is_nan(f, c)) {
                assert_true(isnan(got));
            } else if (f->has_inf && mag == f->max_code + 1) {
                assert_true(isinf(got));
            } else {
                assert_true((double)fabsf(got) == define(f, mag));
            }
        }
    }
}

static void every_code_survives_the_way_there_and_back(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const format *f = &formats[i];

        for (uint32_t c = 0; c < 2 * sign_bit(f); c++) {
            if (code_is_nan(f, c)) {
                assert_true(code_is_nan(f, f->narrow(f->wide(c))));
            } else {
                assert_int_equal(f->narrow(f->wide(c)), c);
            }
        }
    }
}

static void check_narrow(const format *f, float x)
{
    uint32_t want = define_narrow(f, fabs((double)x)) | (signbit(x) ? sign_bit(f) : 0);
    uint32_t got = f->narrow(x);

    if (got != want) fail_msg("%s(%a): 0x%x, defined as 0x%x", f->name, (double)x, got, want);
}

// The three floats around every point where rounding changes its mind, and around every value.
static void rounding_is_to_nearest_even_at_every_border(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const format *f = &formats[i];

        for (uint32_t c = 0; c <= f->max_code; c++) {
            double low = define(f, c), high = define(f, c + 1);
            float points[2] = {(float)low, (float)((low + high) / 2)};

            for (int k = 0; k < 2; k++) {
                check_narrow(f, points[k]);
                check_narrow(f, -points[k]);
                check_narrow(f, nextafterf(points[k], INFINITY));
                check_narrow(f, nextafterf(points[k], -INFINITY));
            }
        }
    }
}

static void random_bits_round_as_defined(void **state)
{
    at_mt19937 r;

    (void)state;
    at_mt_seed(&r, 1);
    for (int n = 0; n < 300000; n++) {
        float x = at_float_of(at_mt_u32(&r));

        if (isnan(x)) continue;
        for (int i = 0; i < FORMATS; i++) {
            // Infinity is "beyond every code" too.
            check_narrow(&formats[i], x);
        }
    }
}

static void what_is_too_large_overflows_as_torch_does(void **state)
{
    (void)state;
    assert_int_equal(at_f32_to_f8e4m3(464.0f), 0x7e); // tie, 448 is even
    assert_int_equal(at_f32_to_f8e4m3(464.1f), 0x7f);
    assert_int_equal(at_f32_to_f8e4m3(-1e9f), 0xff);
    assert_int_equal(at_f32_to_f8e4m3(INFINITY), 0x7f);
    assert_int_equal(at_f32_to_f8e5m2(61439.0f), 0x7b);
    assert_int_equal(at_f32_to_f8e5m2(61440.0f), 0x7c); // tie, infinity is even
    assert_int_equal(at_f32_to_f8e5m2(-INFINITY), 0xfc);
    assert_int_equal(at_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(at_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(at_f32_to_bf16(3.4e38f), 0x7f80);
}

static void nan_stays_nan_with_its_sign(void **state)
{
    static const uint32_t bits[] = {0x7fc00000u, 0x7f800001u, 0xffffffffu, 0xff800001u,
                                    0x7fa00000u};

    (void)state;
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        float x = at_float_of(bits[i]);
        uint32_t sign = bits[i] >> 31;

        assert_true(isnan(at_f16_to_f32(at_f32_to_f16(x))));
        assert_true(isnan(at_bf16_to_f32(at_f32_to_bf16(x))));
        assert_int_equal(at_f32_to_f8e4m3(x), (sign << 7) | 0x7f);
        assert_int_equal(at_f32_to_f8e5m2(x), (sign << 7) | 0x7f);
        assert_int_equal(at_f32_to_f16(x) >> 15, sign);
        assert_int_equal(at_f32_to_f16(x) & 0x200, 0x200); // quiet
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_widens_to_its_value),
        cmocka_unit_test(every_code_survives_the_way_there_and_back),
        cmocka_unit_test(rounding_is_to_nearest_even_at_every_border),
        cmocka_unit_test(random_bits_round_as_defined),
        cmocka_unit_test(what_is_too_large_overflows_as_torch_does),
        cmocka_unit_test(nan_stays_nan_with_its_sign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
