// SPDX-License-Identifier: Apache-2.0
// rng_test.c - the Mersenne Twister against its published first outputs, and torch's reading of it.
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

// mt19937ar.out's generator seeded with init_genrand(5489), the C++ standard's default; the standard
// (rand.predef) gives the 10000th output.
static void seed_5489_gives_the_published_words(void **state)
{
    static const uint32_t first[] = {3499211612u, 581869302u, 3890346734u, 3586334585u, 545404204u};
    at_mt19937 r;
    uint32_t last = 0;

    (void)state;
    at_mt_seed(&r, 5489);
    for (int i = 0; i < 10000; i++) {
        last = at_mt_u32(&r);
        if (i < 5) assert_int_equal(last, first[i]);
    }
    assert_int_equal(last, 4123659995u);
}

static void only_the_low_word_of_a_seed_matters(void **state)
{
    at_mt19937 a, b;

    (void)state;
    at_mt_seed(&a, 42);
    at_mt_seed(&b, 42 + ((uint64_t)7 << 32));
    for (int i = 0; i < 1300; i++)
        assert_int_equal(at_mt_u32(&a), at_mt_u32(&b));
}

static void floats_take_the_low_24_bits(void **state)
{
    at_mt19937 a, b;

    (void)state;
    at_mt_seed(&a, 0);
    at_mt_seed(&b, 0);
    for (int i = 0; i < 2000; i++) {
        float f = at_mt_f32(&a);

        assert_true(f == (float)(at_mt_u32(&b) & 0xffffff) / 16777216.0f);
        assert_true(f >= 0.0f && f < 1.0f);
    }
}

static void filling_is_drawing_one_by_one(void **state)
{
    static const int lengths[] = {1, 622, 1, 1, 623, 624, 625, 0, 16, 2000, 3};
    at_mt19937 a, b;
    float out[2000];

    (void)state;
    at_mt_seed(&a, 9);
    at_mt_seed(&b, 9);
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        at_mt_fill_f32(&a, out, lengths[k]);
        for (int i = 0; i < lengths[k]; i++)
            assert_true(out[i] == at_mt_f32(&b));
        assert_int_equal(at_mt_u32(&a), at_mt_u32(&b));
    }
}

static void doubles_take_two_words_high_first(void **state)
{
    at_mt19937 a, b;

    (void)state;
    at_mt_seed(&a, 0);
    at_mt_seed(&b, 0);
    for (int i = 0; i < 2000; i++) {
        uint64_t high = at_mt_u32(&b), low = at_mt_u32(&b);
        double d = at_mt_f64(&a);

        assert_true(d == (double)(((high << 32) | low) & ((1ull << 53) - 1)) / 9007199254740992.0);
        assert_true(d >= 0.0 && d < 1.0);
    }
}

// torch.manual_seed(0); torch.rand(3) prints 0.4963, 0.7682, 0.0885 on the CPU.
static void seed_0_gives_torch_rand(void **state)
{
    at_mt19937 r;

    (void)state;
    at_mt_seed(&r, 0);
    assert_float_equal(at_mt_f32(&r), 0.4963f, 5e-5);
    assert_float_equal(at_mt_f32(&r), 0.7682f, 5e-5);
    assert_float_equal(at_mt_f32(&r), 0.0885f, 5e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seed_5489_gives_the_published_words),
        cmocka_unit_test(only_the_low_word_of_a_seed_matters),
        cmocka_unit_test(floats_take_the_low_24_bits),
        cmocka_unit_test(filling_is_drawing_one_by_one),
        cmocka_unit_test(doubles_take_two_words_high_first),
        cmocka_unit_test(seed_0_gives_torch_rand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
