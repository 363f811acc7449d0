// SPDX-License-Identifier: Apache-2.0
// par_team.c - comms stay between runs that went well, and go with one that failed.
#include "nodes/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "tensor/device.h"

static int opened;

static at_status open_comms(at_env *e, int n, at_comm **out)
{
    (void)e;
    opened++;
    return at_comm_threads(n, out);
}

// Each rank votes and is told the numbers of all.
static at_status meet(void *ctx, int rank, at_ops *o)
{
    at_comm *c = at_ops_comm(o);
    int all[AT_ENV_RANKS] = {0};
    at_status st = AT_OK;

    if (ctx && rank == 1) at_ops_poison(o, AT_EIO, "rank 1 fails");
    AT_TRY(at_ops_vote(o));
    AT_TRY(c->ops->tell(c, &rank, all, sizeof rank));
    for (int i = 0; i < c->size; i++)
        assert_int_equal(all[i], i);
out:
    return st;
}

static at_status run(at_env *e, int n, bool fails)
{
    at_degrees d = {{n}};
    at_ops_config like = {.device = at_device_cpu(), .compute = AT_F32};

    return at_team_run_in(e, &like, &d, meet, fails ? e : NULL);
}

static void comms_stay_between_runs_that_went_well(void **state)
{
    size_t before = at_mem_get_stats().live_bytes;
    at_env e = {.device = at_device_cpu(), .open_comms = open_comms, .ranks = {.n = 4}};

    (void)state;
    for (int i = 0; i < 4; i++)
        e.ranks.device[i] = at_device_cpu();
    assert_int_equal(run(&e, 2, false), AT_OK); // nobody keeps them
    assert_int_equal(run(&e, 2, false), AT_OK);
    assert_int_equal(opened, 2);
    e.ranks.kept = at_calloc(1, sizeof *e.ranks.kept);
    opened = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run(&e, 2, false), AT_OK);
    assert_int_equal(opened, 1);
    assert_int_equal(run(&e, 4, false), AT_OK);
    assert_int_equal(run(&e, 2, false), AT_OK);
    assert_int_equal(run(&e, 4, false), AT_OK);
    assert_int_equal(opened, 2);
    assert_int_equal(run(&e, 2, true), AT_EIO);
    assert_int_equal(run(&e, 2, false), AT_OK);
    assert_int_equal(opened, 3);
    at_team_comms_free(e.ranks.kept);
    at_team_comms_free(NULL);
    assert_int_equal(at_mem_get_stats().live_bytes, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comms_stay_between_runs_that_went_well),
    };
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return cmocka_run_group_tests_name("par.team", tests, NULL, NULL);
}
