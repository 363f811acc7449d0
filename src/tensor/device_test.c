// SPDX-License-Identifier: Apache-2.0
// device_test.c - the registry, and bytes counted through it.
#include "tensor/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static void the_cpu_is_always_there(void **state)
{
    at_device *cpu = at_device_cpu();
    uint64_t rest = 0, total = 0;

    (void)state;
    assert_true(at_device_count() >= 1);
    assert_ptr_equal(at_device_at(0), cpu);
    assert_ptr_equal(at_device_find("cpu"), cpu);
    assert_null(at_device_find("cuda:9"));
    assert_null(at_device_at(-1));
    assert_null(at_device_at(1000));
    assert_true(cpu->host);
    assert_int_equal(cpu->ops->memory(cpu, &rest, &total), AT_OK);
    assert_true(rest > 0 && rest <= total);
}

static void bytes_are_counted_with_their_peak(void **state)
{
    at_device *cpu = at_device_cpu();
    size_t live = cpu->live_bytes;
    void *a = NULL, *b = NULL;

    (void)state;
    at_device_reset_peak(cpu);
    assert_int_equal(at_device_alloc(cpu, 1000, &a), AT_OK);
    assert_int_equal(at_device_alloc(cpu, 24, &b), AT_OK);
    assert_int_equal((uintptr_t)a % AT_ALIGN, 0);
    assert_int_equal(cpu->live_bytes - live, 1024);
    at_device_free(cpu, a, 1000);
    assert_int_equal(cpu->live_bytes - live, 24);
    assert_int_equal(cpu->peak_bytes - live, 1024);
    at_device_free(cpu, b, 24);
    at_device_free(cpu, NULL, 7);
    assert_int_equal(cpu->live_bytes, live);
}

static void out_of_memory_names_the_device_and_the_numbers(void **state)
{
    void *p = NULL;

    (void)state;
    at_mem_fail_at(1, false);
    assert_int_equal(at_device_alloc(at_device_cpu(), 3 << 20, &p), AT_ENOMEM);
    at_mem_fail_at(0, false);
    assert_non_null(strstr(at_error_text(), "cpu"));
    assert_non_null(strstr(at_error_text(), "3.0 MiB"));
    assert_int_equal(at_device_cpu()->live_bytes, 0);
}

static void names_are_unique_and_abi_is_checked(void **state)
{
    static at_device second = {.name = "cpu:1", .host = true};
    static at_device twin = {.name = "cpu:1"};
    static const at_backend old = {.abi = AT_BACKEND_ABI - 1, .name = "old"};
    static at_device stale = {.name = "old:0", .backend = &old};
    int n = at_device_count();

    (void)state;
    second.ops = twin.ops = stale.ops = at_device_cpu()->ops;
    assert_int_equal(at_device_register(&second), AT_OK);
    assert_int_equal(at_device_count(), n + 1);
    assert_ptr_equal(at_device_find("cpu:1"), &second);
    assert_int_equal(at_device_register(&twin), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "cpu:1"));
    assert_int_equal(at_device_register(&stale), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "ABI"));
    assert_int_equal(at_device_count(), n + 1);
}

static void the_backend_can_be_put_in(void **state)
{
    static const at_backend b = {.abi = AT_BACKEND_ABI, .name = "cpu"};

    (void)state;
    at_device_set_cpu_backend(&b, "a CPU");
    assert_ptr_equal(at_device_cpu()->backend, &b);
    assert_string_equal(at_device_cpu()->description, "a CPU");
    at_device_set_cpu_backend(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cpu_is_always_there),
        cmocka_unit_test(bytes_are_counted_with_their_peak),
        cmocka_unit_test(out_of_memory_names_the_device_and_the_numbers),
        cmocka_unit_test(names_are_unique_and_abi_is_checked),
        cmocka_unit_test(the_backend_can_be_put_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
