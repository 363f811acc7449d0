// SPDX-License-Identifier: Apache-2.0
// trace_table_test.c - slices summed by class and kernel, and the floors they are measured against.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/trace_table.h"

// 100 FLOP/s of products (1000 in fp8, 10 and 5 of attention, 50 of convolution), 10 bytes/s.
static const at_ceilings machine = {.linear = 100,
                                    .linear_fp8 = 1000,
                                    .attention_wide = 10,
                                    .attention_narrow = 5,
                                    .conv = 50,
                                    .copy = 10};

static at_trace_slice op(const char *slot, const char *kernel, const char *detail, double flops,
                         double bytes, double host, double device)
{
    at_trace_slice s = {.category = "op",
                        .slot = slot,
                        .flops = flops,
                        .bytes = bytes,
                        .seconds = host,
                        .device_seconds = device};

    snprintf(s.kernel, sizeof s.kernel, "%s", kernel);
    snprintf(s.detail, sizeof s.detail, "%s", detail);
    return s;
}

static void record(void)
{
    const at_trace_slice slices[] = {
        op("linear", "lib bf16", "a", 200, 1, 0.1, 4),
        op("linear", "lib bf16", "b", 100, 1, 0.1, 2),
        op("linear", "lib bf16", "a", 200, 1, 0.2, 6),
        op("geglu", "lib bf16", "a", 100, 1, 0.1, 1),
        op("norm", "own norm", "a", 0, 30, 0.1, 5),
        op("copy", "own copy", "a", 0, 10, 0.5, -1),
        {.category = "node", .seconds = 100, .device_seconds = -1},
    };

    at_trace_start(AT_TRACE_OPS);
    for (size_t i = 0; i < sizeof slices / sizeof *slices; i++)
        at_trace_add(&slices[i]);
    at_trace_stop();
}

static void classes_sum_ops_alone(void **state)
{
    at_trace_sum c[AT_CLASSES];

    (void)state;
    record();
    at_trace_by_class(&machine, false, c);
    assert_true(c[AT_CLASS_LINEAR].calls == 4 && c[AT_CLASS_LINEAR].seconds == 13);
    assert_true(c[AT_CLASS_LINEAR].flops == 600);
    assert_true(c[AT_CLASS_LINEAR].floor == 6 && c[AT_CLASS_LINEAR].products == 6);
    assert_true(c[AT_CLASS_NORM].floor == 3 && c[AT_CLASS_NORM].products == 0);
    assert_true(c[AT_CLASS_COPY].seconds == 0.5); // no device time: the host's
    assert_true(c[AT_CLASS_OTHER].calls == 0);
    at_trace_by_class(NULL, true, c);
    assert_true(c[AT_CLASS_LINEAR].seconds == 0.5 && c[AT_CLASS_LINEAR].floor == 0);
}

static void kernels_are_told_apart_by_slot_name_and_shapes(void **state)
{
    at_trace_sum k[10];

    (void)state;
    record();
    assert_int_equal(at_trace_by_kernel(&machine, false, k, 10), 5);
    assert_string_equal(k[0].detail, "a"); // the dearest first: 4 + 6 seconds
    assert_true(k[0].calls == 2 && k[0].seconds == 10 && k[0].floor == 4);
    assert_string_equal(k[1].slot, "norm");
    assert_string_equal(k[2].detail, "b");
    assert_int_equal(at_trace_by_kernel(&machine, false, k, 2), 2);
    assert_true(k[0].seconds == 10 && k[1].seconds == 8.5); // nothing is lost
    assert_string_equal(k[1].detail, "and others");
}

static void floors_take_the_ceiling_of_the_kind(void **state)
{
    at_trace_slice s = op("linear", "lib fp8 rows", "", 1000, 1, 0, 0);

    (void)state;
    assert_true(at_ceilings_floor(&machine, &s) == 1);
    s = op("linear", "lib bf16", "", 1000, 1000, 0, 0);
    assert_true(at_ceilings_floor(&machine, &s) == 100); // its bytes take longer
    s = op("conv2d", "lib", "", 100, 1, 0, 0);
    assert_true(at_ceilings_floor(&machine, &s) == 2);
    s = op("attention", "lib", "", 100, 1, 0, 0);
    s.head = 128;
    assert_true(at_ceilings_floor(&machine, &s) == 10);
    s.head = 64;
    assert_true(at_ceilings_floor(&machine, &s) == 20);
    s = (at_trace_slice){.category = "node", .bytes = 5};
    assert_true(at_ceilings_floor(&machine, &s) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_sum_ops_alone),
        cmocka_unit_test(kernels_are_told_apart_by_slot_name_and_shapes),
        cmocka_unit_test(floors_take_the_ceiling_of_the_kind),
    };

    return cmocka_run_group_tests_name("engine.trace_table", tests, NULL, NULL);
}
