// SPDX-License-Identifier: Apache-2.0
// cut_test.c - shares of weights: which elements a rank gets, where their bytes lie, and who is refused.
#include "weight/cut.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tensor/pieces.h"

static at_store *store;

// A record of the numbers 0, 1, 2 ...
static void count_up(void *ctx, void *bytes, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n / sizeof(float); i++)
        ((float *)bytes)[i] = (float)i;
}

static const at_weight *record(const char *name, int rank, const int64_t *shape)
{
    assert_int_equal(at_store_add(store, name, AT_F32, rank, shape, count_up, NULL), AT_OK);
    return at_store_find(store, name);
}

static int open_store(void **state)
{
    (void)state;
    return at_store_new("test", &store) == AT_OK ? 0 : -1;
}

static int close_store(void **state)
{
    (void)state;
    at_store_release(&store);
    return 0;
}

static void units_stay_whole_and_all_are_given(void **state)
{
    (void)state;
    static const at_cut_run runs[] = {{24, 1}, {100, 64}, {7, 3}, {0, 5}, {5, 0}, {64, 64}};

    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        for (int size = 1; size < 9; size++) {
            int64_t at = 0;
            for (int r = 0; r < size; r++) {
                int64_t first, n = at_cut_share(runs[i], r, size, &first);
                assert_int_equal(first, at); // behind each other
                assert_true(n >= 0);
                at += n;
                if (runs[i].unit > 1 && at < runs[i].length) assert_int_equal(at % runs[i].unit, 0);
            }
            assert_int_equal(at, runs[i].length);
        }
}

static void rows_in_one_piece_are_shown_where_they_are(void **state)
{
    (void)state;
    const at_weight *w = record("w", 2, (int64_t[]){6, 4}), *s;

    assert_int_equal(at_weight_cut(w, &(at_cutting){.n = 1, .run = {{6, 2}}}), AT_OK);
    assert_int_equal(at_weight_share(w, 1, 2, &s), AT_OK);
    assert_int_equal(s->shape[0], 2); // units 0 and 1 are rank 0's
    assert_int_equal(s->shape[1], 4);
    assert_int_equal(s->bytes, 2 * 4 * sizeof(float));
    assert_ptr_equal(s->data, (const float *)w->data + 16);
    assert_ptr_not_equal(s->packed, w->packed);
    const at_weight *again;
    assert_int_equal(at_weight_share(w, 1, 2, &again), AT_OK);
    assert_ptr_equal(s, again);
    assert_int_equal(at_weight_share(w, 0, 1, &again), AT_OK);
    assert_ptr_equal(again, w);
}

static void runs_and_columns_are_gathered(void **state)
{
    (void)state;
    const at_weight *qkv = record("qkv", 2, (int64_t[]){6, 2}), *b = record("b", 1, (int64_t[]){6});
    const at_weight *out = record("out", 2, (int64_t[]){2, 5}), *s;
    const at_cutting rows = {.n = 3, .run = {{2, 1}, {2, 1}, {2, 1}}};

    assert_int_equal(at_weight_cut(qkv, &rows), AT_OK);
    assert_int_equal(at_weight_cut(b, &rows), AT_OK);
    assert_int_equal(at_weight_share(qkv, 1, 2, &s), AT_OK);
    assert_memory_equal(s->data, ((float[]){2, 3, 6, 7, 10, 11}), 6 * sizeof(float));
    assert_int_equal(at_weight_share(b, 1, 2, &s), AT_OK);
    assert_memory_equal(s->data, ((float[]){1, 3, 5}), 3 * sizeof(float));
    assert_int_equal(
        at_weight_cut(out, &(at_cutting){.columns = true, .n = 2, .run = {{2, 1}, {3, 2}}}), AT_OK);
    assert_int_equal(at_weight_share(out, 0, 2, &s), AT_OK);
    assert_int_equal(s->shape[1], 3);
    assert_memory_equal(s->data, ((float[]){0, 2, 3, 5, 7, 8}), 6 * sizeof(float));
    assert_int_equal(at_weight_share(out, 1, 2, &s), AT_OK);
    assert_memory_equal(s->data, ((float[]){1, 4, 6, 9}), 4 * sizeof(float));
    assert_int_equal(at_weight_share(out, 3, 4, &s), AT_OK); // nothing is left for it
    assert_int_equal(s->shape[1], 0);
    assert_int_equal(s->bytes, 0);
    assert_non_null(s->data);
}

// Whoever reads piece by piece, in steps of any size, has what was gathered.
static void what_lies_apart_is_read_in_any_steps(void **state)
{
    (void)state;
    const at_weight *w = record("w", 2, (int64_t[]){3, 9}), *s;
    at_wview v;
    float got[12];

    assert_int_equal(
        at_weight_cut(w, &(at_cutting){.columns = true, .n = 2, .run = {{4, 1}, {5, 3}}}), AT_OK);
    assert_int_equal(at_weight_share_view(w, 1, 2, true, &v), AT_OK);
    assert_non_null(v.apart);
    assert_ptr_equal(v.v.data, w->data);
    assert_int_equal(v.v.shape[1], 4); // 2 of 4, and the shorter unit of 3 and 2
    assert_int_equal(at_weight_share(w, 1, 2, &s), AT_OK);
    assert_memory_equal(s->data, ((float[]){2, 3, 7, 8, 11, 12, 16, 17, 20, 21, 25, 26}),
                        sizeof got);
    for (size_t step = 1; step <= sizeof got; step++) {
        memset(got, 0, sizeof got);
        for (size_t at = 0; at < sizeof got; at += step) {
            size_t n = sizeof got - at < step ? sizeof got - at : step;
            at_pieces_copy(v.apart, v.v.data, at, n, (char *)got + at);
        }
        assert_memory_equal(got, s->data, sizeof got);
    }
    assert_int_equal(at_weight_share_view(w, 1, 2, false, &v), AT_OK);
    assert_null(v.apart);
    assert_ptr_equal(v.v.data, s->data);
    assert_ptr_equal(v.packed, s->packed);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const at_weight *w = record("w", 2, (int64_t[]){6, 4});

    assert_int_equal(at_weight_cut(w, &(at_cutting){.n = 1, .run = {{4, 1}}}), AT_EINVAL);
    assert_int_equal(at_weight_cut(w, &(at_cutting){.n = 0}), AT_EINVAL);
    assert_null(at_weight_how_cut(w));
    assert_int_equal(at_weight_cut(w, &(at_cutting){.n = 1, .run = {{6, 1}}}), AT_OK);
    assert_int_equal(at_weight_cut(w, &(at_cutting){.n = 1, .run = {{6, 1}}}), AT_OK);
    assert_int_equal(at_weight_cut(w, &(at_cutting){.n = 1, .run = {{6, 3}}}), AT_EINTERNAL);
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    const at_weight *w = record("w", 2, (int64_t[]){4, 4}), *s;
    bool hit = true;

    assert_int_equal(at_weight_cut(w, &(at_cutting){.columns = true, .n = 1, .run = {{4, 1}}}),
                     AT_OK);
    for (uint64_t n = 1; hit; n++) {
        at_mem_fail_at(n, false);
        at_status st = at_weight_share(w, 1, 2, &s);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
    }
    assert_memory_equal(s->data, ((float[]){2, 3, 6, 7, 10, 11, 14, 15}), 8 * sizeof(float));
}

#define T(name) cmocka_unit_test_setup_teardown(name, open_store, close_store)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(units_stay_whole_and_all_are_given),   T(rows_in_one_piece_are_shown_where_they_are),
        T(runs_and_columns_are_gathered),        T(what_does_not_fit_is_refused),
        T(what_lies_apart_is_read_in_any_steps), T(failed_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
