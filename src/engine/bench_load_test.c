// SPDX-License-Identifier: Apache-2.0
// bench_load_test.c - clock and power as a device tells them, and devices that tell nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/file.h"
#include "engine/bench_load.h"

static double g_start;
static int g_asked;

// 500 W, shown by a counter that moves every 40 ms; the clock falls once.
static at_status usage(at_device *d, at_device_usage *out)
{
    double steps = (double)(int64_t)((at_now() - g_start) / 0.04);

    (void)d;
    *out = (at_device_usage){.mhz = g_asked < 3 ? 1900 : 1500,
                             .max_mhz = 1980,
                             .limit_watts = 700,
                             .joules = 1e6 + steps * 0.04 * 500,
                             .limits = g_asked > 3 ? AT_LIMIT_POWER : 0};
    g_asked++;
    return AT_OK;
}

static at_status silent(at_device *d, at_device_usage *out)
{
    (void)out;
    return at_fail(AT_EUNSUPPORTED, "%s: nothing is known", d->name);
}

static void rest(double seconds)
{
    const struct timespec t = {.tv_nsec = (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

static void power_is_the_slope_of_the_counters_moves(void **state)
{
    static const at_device_ops ops = {.usage = usage};
    at_device d = {.name = "fake", .ops = &ops};

    (void)state;
    g_start = at_now();
    at_load_watch *w = at_load_start(&d);
    assert_non_null(w);
    rest(0.6);
    at_load l = at_load_stop(w);
    assert_true(l.samples >= 4);
    assert_true(l.first_mhz == 1900 && l.least_mhz == 1500 && l.max_mhz == 1980);
    assert_true(l.mean_mhz > 1500 && l.mean_mhz < 1900);
    assert_true(l.limits == AT_LIMIT_POWER && l.limit_watts == 700);
    // Moves are seen at most some pauses late; a busy machine may see few of them.
    if (l.watts > 0) assert_true(l.watts > 350 && l.watts < 650);
}

static void a_device_that_tells_nothing_gives_no_samples(void **state)
{
    static const at_device_ops none = {.usage = NULL}, mute = {.usage = silent};
    at_device d = {.name = "fake", .ops = &none};

    (void)state;
    assert_null(at_load_start(&d));
    assert_int_equal(at_load_stop(NULL).samples, 0);
    d.ops = &mute;
    at_load_watch *w = at_load_start(&d);
    rest(0.05);
    at_load l = at_load_stop(w);
    assert_int_equal(l.samples, 0);
    assert_true(l.mean_mhz == 0 && l.watts == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_is_the_slope_of_the_counters_moves),
        cmocka_unit_test(a_device_that_tells_nothing_gives_no_samples),
    };

    return cmocka_run_group_tests_name("engine.bench_load", tests, NULL, NULL);
}
