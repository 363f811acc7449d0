// SPDX-License-Identifier: Apache-2.0
// device_trace_test.c - wrapped slots: what is written down, and that nothing stays behind.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/device_trace.h"

// A device whose clock ticks a second a mark, and whose linear fails when k is 13.
static int g_clock, g_times[4096], g_synced, g_ahead;

static at_status fake_mark(at_device *d, int i, bool ahead)
{
    (void)d;
    g_times[i] = g_clock++;
    g_ahead += ahead;
    return AT_OK;
}
static at_status fake_elapsed(at_device *d, int from, int to, double *seconds)
{
    (void)d;
    *seconds = g_times[to] - g_times[from];
    return AT_OK;
}
static at_status fake_synchronize(at_device *d)
{
    (void)d;
    g_synced++;
    return AT_OK;
}
static at_status fake_linear(void *stream, const at_linear_args *a)
{
    (void)stream;
    return a->x.shape[2] == 13 ? at_fail(AT_EINVAL, "thirteen") : AT_OK;
}
static const char *fake_kernel_name(const char *slot)
{
    return strcmp(slot, "linear") == 0 ? "fake rows" : NULL;
}

static const at_backend fake_backend = {
    .abi = AT_BACKEND_ABI, .name = "fake", .linear = fake_linear, .kernel_name = fake_kernel_name};
static const at_device_ops fake_ops = {
    .synchronize = fake_synchronize, .mark = fake_mark, .elapsed = fake_elapsed};
static at_device fake = {
    .name = "fake:0", .ops = &fake_ops, .backend = &fake_backend, .stream = &fake};

static at_linear_args layer(int64_t k)
{
    static float x[64], w[64], out[64];

    return (at_linear_args){
        .x = {.data = x, .dtype = AT_F32, .rank = 3, .shape = {1, 2, k}, .stride = {2 * k, k, 1}},
        .w = {.v = {.data = w, .dtype = AT_BF16, .rank = 2, .shape = {3, k}, .stride = {k, 1}},
              .name = "a.weight"},
        .out = {.data = out, .dtype = AT_F32, .rank = 3, .shape = {1, 2, 3}, .stride = {6, 3, 1}}};
}

static void a_call_becomes_a_slice_with_its_work_and_device_time(void **state)
{
    at_linear_args a = layer(5);

    (void)state;
    at_device_trace_start(AT_TRACE_OPS);
    assert_ptr_not_equal(fake.backend, &fake_backend);
    assert_null(fake.backend->norm); // empty slots stay empty
    assert_int_equal(fake.backend->linear(fake.stream, &a), AT_OK);
    assert_int_equal(fake.backend->linear(fake.stream, &a), AT_OK);
    assert_int_equal(at_device_trace_stop(), AT_OK);
    assert_ptr_equal(fake.backend, &fake_backend);
    assert_ptr_equal(fake.ops, &fake_ops);
    assert_int_equal(at_trace_count(), 2);
    const at_trace_slice *s = at_trace_at(1);
    assert_string_equal(s->name, "linear a.weight");
    assert_string_equal(s->kernel, "fake rows");
    assert_string_equal(s->detail, "f32 [1, 2, 5] x bf16 [3, 5]");
    assert_true(s->flops == 2.0 * 2 * 3 * 5);
    assert_true(s->bytes == 4.0 * 10 + 2.0 * 15 + 4.0 * 6);
    assert_true(s->device_seconds == 1.0);
    assert_true(s->device_began - at_trace_at(0)->device_began == 2.0);
    assert_true(g_synced > 0);
    assert_int_equal(g_ahead, 2);
}

static void a_failure_passes_through(void **state)
{
    at_linear_args a = layer(13);

    (void)state;
    at_device_trace_start(AT_TRACE_OPS);
    assert_int_equal(fake.backend->linear(fake.stream, &a), AT_EINVAL);
    assert_string_equal(at_error_text(), "thirteen");
    assert_int_equal(at_device_trace_stop(), AT_OK);
}

static void many_calls_reuse_the_marks(void **state)
{
    at_linear_args a = layer(5);

    (void)state;
    at_device_trace_start(AT_TRACE_OPS);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(fake.backend->linear(fake.stream, &a), AT_OK);
    assert_int_equal(at_device_trace_stop(), AT_OK);
    assert_int_equal(at_trace_count(), 5000);
    for (size_t i = 0; i < 5000; i++)
        assert_true(at_trace_at(i)->device_seconds == 1.0);
}

static void spans_alone_leave_ops_out(void **state)
{
    at_linear_args a = layer(5);
    at_device_span s;

    (void)state;
    s = at_device_span_begin(&fake); // off: nothing
    at_device_span_end(&s, "replay", "never");
    at_device_trace_start(AT_TRACE_SPANS);
    assert_int_equal(fake.backend->linear(fake.stream, &a), AT_OK);
    s = at_device_span_begin(&fake);
    at_device_span_end(&s, "replay", "step graph");
    at_trace_end(at_trace_begin(), "node", "KSampler %d", 7);
    assert_int_equal(at_device_trace_stop(), AT_OK);
    at_trace_end(at_trace_begin(), "node", "late");
    assert_int_equal(at_trace_count(), 2);
    assert_string_equal(at_trace_at(0)->name, "step graph");
    assert_true(at_trace_at(0)->device_seconds == 1.0);
    assert_string_equal(at_trace_at(1)->name, "KSampler 7");
    assert_true(at_trace_at(1)->device_seconds < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_becomes_a_slice_with_its_work_and_device_time),
        cmocka_unit_test(a_failure_passes_through),
        cmocka_unit_test(many_calls_reuse_the_marks),
        cmocka_unit_test(spans_alone_leave_ops_out),
    };

    if (at_device_register(&fake) != AT_OK) return 1;
    return cmocka_run_group_tests_name("tensor.device_trace", tests, NULL, NULL);
}
