// SPDX-License-Identifier: Apache-2.0
// rates_test.c - the named rates of an H200 against kernels that were timed on one (docs/bench/cuda.md), and against sense.
#include "tensor/rates.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

// Timed one by one, marks around each: that much more than in a recording.
static const double marks = 2.6e-6;

typedef struct product {
    double m, n, k, seconds, share; // share of the highest clock at which it ran
    bool gated;
} product;

// Flux.1 at the power limit, SDXL and SD1.5 near the highest clock; the larger ones are what a step consists of.
static const product products[] = {
    {4608, 3072, 15360, 617.8e-6, 0.78, false}, {4096, 3072, 12288, 426.0e-6, 0.78, false},
    {4096, 12288, 3072, 424.5e-6, 0.78, false}, {4096, 9216, 3072, 333.9e-6, 0.78, false},
    {4096, 3072, 3072, 119.2e-6, 0.78, false},  {512, 12288, 3072, 68.3e-6, 0.78, false},
    {512, 3072, 12288, 63.2e-6, 0.78, false},   {512, 9216, 3072, 51.6e-6, 0.78, false},
    {512, 3072, 3072, 22.8e-6, 0.78, false},    {2048, 10240, 1280, 98.6e-6, 0.975, true},
    {2048, 1280, 5120, 42.8e-6, 0.975, false},  {2048, 1280, 1280, 16.8e-6, 0.975, false},
    {2048, 3840, 1280, 34.3e-6, 0.975, false},  {8192, 640, 2560, 42.4e-6, 0.975, false},
    {8192, 1920, 640, 34.5e-6, 0.975, false},   {8192, 320, 320, 11.7e-6, 1, false},
    {2048, 640, 640, 10.4e-6, 1, false},        {512, 1280, 1280, 10.3e-6, 1, false},
};

static void products_take_what_they_took(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        const product *p = &products[i];
        at_cost c = at_rates_linear(&at_rates_h200, p->m, p->n, p->k, false, p->gated);
        double t = at_rates_seconds(&at_rates_h200, &c, p->share) + marks * (p->gated ? 2 : 1);
        if (fabs(t / p->seconds - 1) > 0.11)
            fail_msg("%g x %g x %g: %.1f us, and it took %.1f", p->m, p->n, p->k, 1e6 * t,
                     1e6 * p->seconds);
    }
}

// Bursts of one kernel at the highest clock: waves show (432 tiles on 132 units take four, not 3.3).
static void attention_takes_what_it_took(void **state)
{
    static const struct {
        double heads, tq, tk, channels, seconds;
    } rows[] = {{24, 4608, 4608, 128, 396e-6},   {24, 2304, 4608, 128, 229.8e-6},
                {12, 4608, 4608, 128, 228.0e-6}, {24, 2304, 2304, 128, 120.6e-6},
                {20, 4096, 4096, 64, 191.4e-6},  {40, 1024, 1024, 64, 36.0e-6}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at_cost c = at_rates_attention(&at_rates_h200, rows[i].heads, rows[i].tq, rows[i].tk,
                                       rows[i].channels, false);
        double t = at_rates_seconds(&at_rates_h200, &c, 1);
        if (fabs(t / rows[i].seconds - 1) > 0.12)
            fail_msg("row %zu: %.1f us, and it took %.1f", i, 1e6 * t, 1e6 * rows[i].seconds);
    }
}

// More work never takes less: along every side, for every kind.
static void more_work_never_takes_less(void **state)
{
    const at_rates *r = &at_rates_h200;
    double before[4] = {0};

    (void)state;
    for (double m = 1; m < 20000; m += 37) {
        at_cost c[] = {at_rates_linear(r, m, 3072, 3072, false, false),
                       at_rates_linear(r, m, 3072, 3072, true, false),
                       at_rates_attention(r, 24, m, 4608, 128, false),
                       at_rates_conv(r, m, 320, 2880)};
        for (int i = 0; i < 4; i++) {
            double t = at_rates_seconds(r, &c[i], 0.8);
            assert_true(isfinite(t) && t > 0);
            assert_true(t >= before[i] * 0.97); // a larger tile may come in
            assert_true(at_rates_joules(r, &c[i], 0.8) > 0);
            before[i] = t;
        }
    }
}

static void nothing_takes_nothing(void **state)
{
    const at_rates *r = &at_rates_h200;

    (void)state;
    at_cost c[] = {at_rates_linear(r, 0, 3072, 3072, false, false),
                   at_rates_attention(r, 0, 100, 100, 128, false),
                   at_rates_attention(r, 24, 100, 0, 128, false), at_rates_conv(r, 0, 320, 2880),
                   at_rates_pass(r, 0)};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        assert_true(at_rates_seconds(r, &c[i], 1) == 0 && at_rates_joules(r, &c[i], 1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_take_what_they_took),
        cmocka_unit_test(attention_takes_what_it_took),
        cmocka_unit_test(more_work_never_takes_less),
        cmocka_unit_test(nothing_takes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
