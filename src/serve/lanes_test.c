// SPDX-License-Identifier: Apache-2.0
// lanes_test.c - who gets which devices: a table of cases, and that no order of jobs gives one device to two.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/rng.h"
#include "serve/lanes.h"

static at_lanes lanes(int devices, int wanted, int most)
{
    at_lanes l;
    assert_int_equal(at_lanes_open(devices, wanted, most, false, &l), AT_OK);
    return l;
}

static void how_many_there_are(void **state)
{
    (void)state;
    static const struct {
        int devices, wanted, most;
        bool host;
        int slots, unit; // slots 0: refused
    } rows[] = {
        {1, 1, 0, false, 1, 1}, {2, 1, 0, false, 2, 1}, {8, 1, 0, false, 8, 1},
        {4, 2, 0, false, 2, 2}, {4, 3, 0, false, 1, 4}, {4, 1, 0, true, 1, 4},
        {4, 1, 2, true, 2, 2},  {5, 1, 2, false, 2, 2}, {4, 1, 1, false, 1, 4},
        {2, 1, 3, false, 0, 0}, {4, 4, 2, false, 0, 0}, {20, 1, 0, false, 16, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at_lanes l = {0};
        at_status st =
            at_lanes_open(rows[i].devices, rows[i].wanted, rows[i].most, rows[i].host, &l);
        assert_int_equal(st, rows[i].slots ? AT_OK : AT_EUSAGE);
        assert_int_equal(l.slots, rows[i].slots);
        assert_int_equal(l.unit, rows[i].unit);
    }
}

static void who_gets_what(void **state)
{
    (void)state;
    static const struct {
        int devices, least;
        unsigned taken, up;
        size_t waiting;
        int lane, slots; // lane -1: nobody
    } rows[] = {
        {2, 1, 0, 3, 1, 0, 2},  // alone: all
        {2, 1, 0, 3, 2, 0, 1},  // two: one each
        {2, 1, 1, 3, 1, 1, 1},  // beside one that runs: what is left
        {2, 1, 0, 1, 9, 0, 2},  // the other engine is not there yet
        {2, 1, 3, 3, 9, -1, 0}, // nothing is free
        {2, 1, 1, 1, 9, -1, 0}, // nobody for what is free
        {2, 2, 0, 3, 9, 0, 2},  // too large for one device
        {2, 2, 2, 3, 9, -1, 0}, // the same, and one is taken
        {4, 1, 0, 15, 1, 0, 4},      {4, 1, 0, 15, 2, 0, 2},
        {4, 1, 3, 15, 1, 2, 2},      {4, 1, 0, 15, 3, 0, 1},
        {4, 1, 1, 15, 2, 1, 1},      {4, 1, 3, 15, 1, 2, 2}, // the third of three
        {4, 1, 5, 15, 1, 1, 1},                              // no two that lie together
        {4, 2, 0, 15, 9, 0, 2},      {4, 2, 1, 15, 9, 2, 2},
        {4, 2, 5, 15, 9, -1, 0}, // least stands
        {3, 1, 0, 7, 1, 0, 3},       {3, 1, 0, 7, 2, 0, 1},
        {3, 1, 1, 7, 1, 1, 1},       {8, 1, 0, 255, 2, 0, 4},
        {8, 1, 15, 255, 1, 4, 4},    {8, 1, 0, 255, 100, 0, 1},
        {8, 1, 127, 255, 100, 7, 1}, {6, 1, 15, 63, 1, 4, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at_lanes l = lanes(rows[i].devices, 1, 0);
        int slots = 0;
        l.least = rows[i].least;
        l.taken = rows[i].taken;
        int lane = at_lanes_place(&l, rows[i].up, rows[i].waiting, &slots);
        if (lane != rows[i].lane || slots != rows[i].slots)
            fail_msg("row %zu: lane %d with %d slots, wanted %d with %d", i, lane, slots,
                     rows[i].lane, rows[i].slots);
    }
}

static void engines_that_are_started(void **state)
{
    (void)state;
    at_lanes l = lanes(4, 1, 0);
    assert_int_equal(at_lanes_wanted(&l, 1), 1);
    assert_int_equal(at_lanes_wanted(&l, 2), 5); // 0 and 2, two devices each
    assert_int_equal(at_lanes_wanted(&l, 3), 15);
    assert_int_equal(at_lanes_wanted(&l, 99), 15);
    at_lanes_learn(&l, 2);
    assert_int_equal(at_lanes_wanted(&l, 99), 5);
    at_lanes_learn(&l, 3);
    assert_int_equal(at_lanes_wanted(&l, 99), 1);
    at_lanes_learn(&l, 0); // nothing is said
    assert_int_equal(l.least, 4);
    at_lanes_learn(&l, 1);
    assert_int_equal(l.least, 1);
    l = lanes(8, 2, 0);
    at_lanes_learn(&l, 4);
    assert_int_equal(l.least, 2);
    assert_int_equal(at_lanes_reach(&l, 0), 4);
    assert_int_equal(at_lanes_reach(&l, 1), 1);
    assert_int_equal(at_lanes_reach(&l, 2), 2);
    assert_int_equal(at_lanes_ranks(&l, 2), 4);
    assert_int_equal(at_lanes_ranks(&l, 4), 0); // all, those beside the slots too
}

// A job always lies within what its lane holds, on slots that nobody has; with all engines there nothing that is free
// is refused.
static void no_device_has_two_jobs(void **state)
{
    (void)state;
    at_mt19937 r;
    at_mt_seed(&r, 5);
    for (int devices = 1; devices <= 16; devices++) {
        at_lanes l = lanes(devices, 1, 0);
        for (int turn = 0; turn < 2000; turn++) {
            int lane = (int)(at_mt_u32(&r) % (unsigned)devices), slots = 0;
            if (l.held[lane]) {
                at_lanes_leave(&l, lane);
                continue;
            }
            unsigned all = (1u << l.slots) - 1;
            lane = at_lanes_place(&l, all, 1 + at_mt_u32(&r) % 20, &slots);
            if (lane < 0) {
                assert_int_equal(l.taken, all);
                continue;
            }
            assert_true(slots >= 1 && slots <= at_lanes_reach(&l, lane));
            assert_int_equal(l.taken & ((1u << slots) - 1) << lane, 0);
            assert_int_equal(l.held[lane], 0);
            at_lanes_take(&l, lane, slots);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_many_there_are),
        cmocka_unit_test(who_gets_what),
        cmocka_unit_test(engines_that_are_started),
        cmocka_unit_test(no_device_has_two_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
