// SPDX-License-Identifier: Apache-2.0
// stores_test.c - files are mapped once, and again when they changed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/stores.h"
#include "weight/safetensors.h"

static char path[] = "/tmp/atelier_stores_XXXXXX";

static void write_model(int64_t n)
{
    static const float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    at_st_out row = {.name = "w", .dtype = AT_F32, .rank = 1, .shape = {n}, .data = values};
    assert_int_equal(at_st_write(path, &row, 1, NULL, 0), AT_OK);
}

static void an_open_file_is_shared_until_it_changes(void **state)
{
    (void)state;
    at_stores *s = NULL;
    at_store *first = NULL, *again = NULL, *fresh = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_model(4);
    assert_int_equal(at_stores_new(&s), AT_OK);
    assert_int_equal(at_stores_open(s, path, &first), AT_OK);
    assert_int_equal(at_stores_open(s, path, &again), AT_OK);
    assert_ptr_equal(first, again);
    assert_false(at_stores_refresh(s));

    write_model(8); // replaced by rename: who holds the old one keeps it
    assert_true(at_stores_refresh(s));
    assert_false(at_stores_refresh(s));
    assert_int_equal(at_stores_open(s, path, &fresh), AT_OK);
    assert_int_equal(at_store_find(fresh, "w")->shape[0], 8);
    assert_int_equal(at_store_find(first, "w")->shape[0], 4);

    assert_int_equal(unlink(path), 0);
    assert_true(at_stores_refresh(s)); // gone is changed, too
    at_store_release(&first);
    at_store_release(&again);
    at_store_release(&fresh);
    at_stores_free(s);
}

static int g_freed;
static void count_freed(void *data)
{
    (void)data;
    g_freed++;
}

// As a device keeps its form of a weight.
static void pack(at_store *s)
{
    static char form;
    at_packed *p = at_store_find(s, "w")->packed;
    assert_non_null(p);
    p->free = count_freed;
    atomic_store(&p->data, &form);
}

// /free: what a device made of weights goes with the file, unless somebody still uses it.
static void what_is_forgotten_leaves_the_devices(void **state)
{
    (void)state;
    at_stores *s = NULL;
    at_store *store = NULL, *again = NULL;
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    write_model(4);
    g_freed = 0;
    assert_int_equal(at_stores_new(&s), AT_OK);
    assert_int_equal(at_stores_open(s, path, &store), AT_OK);
    pack(store);
    at_store_release(&store);
    assert_int_equal(g_freed, 0); // the next job finds it
    at_stores_forget(s);
    assert_int_equal(g_freed, 1);

    assert_int_equal(at_stores_open(s, path, &store), AT_OK);
    pack(store);
    at_stores_forget(s);
    assert_int_equal(g_freed, 1);
    assert_int_equal(at_stores_open(s, path, &again), AT_OK);
    assert_ptr_not_equal(again, store);
    at_store_release(&store);
    assert_int_equal(g_freed, 2);
    at_store_release(&again);
    at_stores_free(s);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_file_is_shared_until_it_changes),
        cmocka_unit_test(what_is_forgotten_leaves_the_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
