// SPDX-License-Identifier: Apache-2.0
// comm_test.c - the comm of one rank, and groups that do not come to be. What carriers promise: tests/par/comm_suite.c.
#include "par/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"

static void the_single_rank_copies(void **state)
{
    at_comm *c = at_comm_self();
    float x = 3;
    int in = 5, out = 0, result = 0;

    (void)state;
    assert_int_equal(c->size, 1);
    assert_int_equal(c->rank, 0);
    assert_int_equal(c->ops->all_gather(c, &in, &out, sizeof in), AT_OK);
    assert_int_equal(out, 5);
    assert_int_equal(c->ops->all_to_all(c, &in, &in, sizeof in), AT_OK);
    assert_int_equal(c->ops->all_reduce_sum(c, &x, 1), AT_OK);
    assert_true(x == 3);
    assert_int_equal(c->ops->vote(c, 8, &result), AT_OK);
    assert_int_equal(result, 8);
    c->ops->abort(c, 8);
    at_comm_free(c);
    at_comm_free(NULL);
}

static void groups_are_made_whole_or_not_at_all(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    at_comm *comm[4];

    (void)state;
    assert_int_equal(at_comm_threads(0, comm), AT_EINVAL);
    assert_int_equal(at_comm_threads(100000, comm), AT_EINVAL);
    for (uint64_t n = 1; n <= 5; n++) {
        at_mem_fail_at(n, false);
        assert_int_equal(at_comm_threads(4, comm), AT_ENOMEM);
        at_mem_fail_at(0, false);
        for (int i = 0; i < 4; i++)
            assert_null(comm[i]);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_single_rank_copies),
        cmocka_unit_test(groups_are_made_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
