// SPDX-License-Identifier: Apache-2.0
// cuda_wire_test.c - the comm of several GPUs (comm_peer.c over cuda/wire.c) over a fake CUDA runtime: what every carrier
// promises, by stores and by copies; scattered parts, pushes in halves, sums of 16 bits, links.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/half.h"
#include "../par/comm_suite.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/trace.h"
#include "cuda/cuda.h"
#include "fake_cudart.h"
#include "par/comm.h"

enum { MOST = 5, ROUNDS = 20 };
static at_cuda gpus[MOST];

static at_status idle(at_device *d)
{
    (void)d;
    return AT_OK;
}
static const at_device_ops ops = {.wire = &at_cuda_wire_ops, .synchronize = idle};

static int open_gpus(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i++) {
        snprintf(gpus[i].dev.name, sizeof gpus[i].dev.name, "cuda:%d", i);
        gpus[i].dev.ops = &ops;
        gpus[i].ordinal = i;
        assert_int_equal(at_cuda_pool_new(&gpus[i].pool), AT_OK);
    }
    return 0;
}

static int over_wire(int size, suite_fn *fn)
{
    at_comm *comm[MOST];
    at_device *devices[MOST];

    for (int i = 0; i < size; i++)
        devices[i] = &gpus[i].dev;
    if (at_comm_peer(size, devices, comm) != AT_OK) return -1;
    return suite_threads(size, comm, fn);
}

static void both_ways(int size, suite_fn *fn)
{
    assert_int_equal(over_wire(size, fn), 0);
    setenv("AT_OFF", "stores", 1);
    assert_int_equal(over_wire(size, fn), 0);
    unsetenv("AT_OFF");
}

// In two halves; every rank's number to all others in the columns of a square.
static void in_halves(suite_rank *r)
{
    at_comm *c = r->comm;
    int32_t mine[3] = {0}, all[3][MOST] = {{0}};
    at_view send[MOST], recv[MOST];

    for (int round = 0; round < ROUNDS; round++) {
        for (int k = 0; k < 3; k++)
            mine[k] = 100 * round + 10 * k + c->rank;
        for (int i = 0; i < c->size; i++) {
            send[i] = (at_view){mine, AT_I32, 2, {3, 1}, {1, 1}};
            recv[i] = (at_view){&all[0][i], AT_I32, 2, {3, 1}, {MOST, 1}};
        }
        SUITE_EXPECT(r, c->ops->scatter_begin(c, send, recv) == AT_OK);
        SUITE_EXPECT(r, c->ops->scatter_end(c) == AT_OK);
        for (int i = 0; i < c->size; i++)
            for (int k = 0; k < 3; k++)
                SUITE_EXPECT(r, all[k][i] == 100 * round + 10 * k + i);
        SUITE_EXPECT(r, c->ops->scatter(c, send, recv) == AT_OK);
    }
}

static void wires_keep_the_promises(void **state)
{
    static const suite_carrier c = {.name = "wire", .most = 4, .rounds = ROUNDS, .run = over_wire};

    (void)state;
    suite_run(&c);
    setenv("AT_OFF", "stores", 1);
    suite_run(&c);
    unsetenv("AT_OFF");
    fake.apart = true;
    assert_int_equal(over_wire(2, in_halves), 0);
    fake.apart = false;
}

static void a_push_may_have_two_halves(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++)
        both_ways(size, in_halves);
}

static void sum_halves(suite_rank *r)
{
    at_comm *c = r->comm;
    uint16_t x[300];

    for (size_t count = 1; count <= 300; count += 23) {
        for (size_t i = 0; i < count; i++)
            x[i] = at_f32_to_bf16((float)((int)(i % 7) + 10 * c->rank));
        SUITE_EXPECT(r, c->ops->sum(c, AT_BF16, x, count) == AT_OK);
        for (size_t i = 0; i < count; i++)
            SUITE_EXPECT(r, at_bf16_to_f32(x[i]) ==
                                (float)(c->size * (int)(i % 7) + 5 * c->size * (c->size - 1)));
    }
}

static void sums_of_halves_run_in_f32(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++)
        both_ways(size, sum_halves);
}

// [3][2][4] of 6 bytes each, out of a larger array into another one, to the next rank.
static void scattered(suite_rank *r)
{
    enum { N = 3 * 40 };
    static uint16_t mine[MOST][N], theirs[MOST][N];
    at_wire *w = NULL;
    at_device *devices[2] = {&gpus[0].dev, &gpus[1].dev};

    SUITE_EXPECT(r, at_cuda_wire_ops.open(devices, 2, &w) == AT_OK);
    for (int i = 0; i < N; i++)
        mine[0][i] = (uint16_t)i;
    at_wire_part part = {
        .rank = 0,
        .from = {mine[0], AT_BF16, 4, {3, 2, 4, 3}, {40, 20, 4, 1}},
        .to = {theirs[0], AT_BF16, 4, {3, 2, 4, 3}, {24, 3, 6, 1}},
    };
    SUITE_EXPECT(r, at_cuda_wire_ops.push(w, 0, &part, 1) == AT_OK);
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 2; b++)
            for (int k = 0; k < 4; k++)
                for (int e = 0; e < 3; e++)
                    SUITE_EXPECT(r, theirs[0][a * 24 + b * 3 + k * 6 + e] ==
                                        a * 40 + b * 20 + k * 4 + e);
    at_cuda_wire_ops.free(w);
}

static void scattered_parts_go_straight_to_their_place(void **state)
{
    (void)state;
    both_ways(1, scattered);
}

static void wires_are_made_whole_or_not_at_all(void **state)
{
    at_device *devices[] = {&gpus[0].dev, &gpus[1].dev, &gpus[0].dev};
    at_device cpu = {.ops = &(at_device_ops){0}, .name = "cpu"};
    at_device *mixed[] = {&gpus[0].dev, &cpu};
    at_comm *comm[3];
    size_t taken = fake.taken, live = at_mem_get_stats().live_bytes;

    (void)state;
    assert_int_equal(at_comm_peer(3, devices, comm), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "cuda:0 is rank 0 and rank 2"));
    assert_int_equal(at_comm_peer(2, mixed, comm), AT_EUNSUPPORTED);
    fake.room = fake.taken + 100; // counters do not fit
    assert_int_equal(at_comm_peer(2, devices, comm), AT_ENOMEM);
    fake.room = (size_t)1 << 40;
    for (uint64_t n = 1; n <= 8; n++) {
        at_mem_fail_at(n, false);
        assert_int_equal(at_comm_peer(2, devices, comm), AT_ENOMEM);
        at_mem_fail_at(0, false);
        assert_null(comm[0]);
        assert_null(comm[1]);
    }
    assert_int_equal(fake.taken, taken);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

// Pushes in one and in two, whose times are asked for behind all of them by one rank.
static void timed(suite_rank *r)
{
    at_comm *c = r->comm;
    int32_t mine[3] = {0}, all[3][MOST] = {{0}};
    at_view send[MOST], recv[MOST];
    char byte = 0, bytes[MOST];

    for (int i = 0; i < c->size; i++) {
        send[i] = (at_view){mine, AT_I32, 2, {3, 1}, {1, 1}};
        recv[i] = (at_view){&all[0][i], AT_I32, 2, {3, 1}, {MOST, 1}};
    }
    if (c->rank == 0) at_trace_start(AT_TRACE_SPANS);
    SUITE_EXPECT(r, c->ops->tell(c, &byte, bytes, 1) == AT_OK);
    for (int i = 0; i < ROUNDS; i++) {
        SUITE_EXPECT(r, c->ops->scatter(c, send, recv) == AT_OK);
        SUITE_EXPECT(r, c->ops->scatter_begin(c, send, recv) == AT_OK);
        SUITE_EXPECT(r, c->ops->scatter_end(c) == AT_OK);
    }
    SUITE_EXPECT(r, c->ops->tell(c, &byte, bytes, 1) == AT_OK);
    if (c->rank) return;
    at_trace_sources_collect();
    at_trace_stop();
}

// Slices of each rank on the host's clock, one behind the other, that say who waited for whom.
static void times_of_pushes_are_traced(void **state)
{
    double began = at_now(), waited[2] = {0}, reached[2] = {0}, bytes = 0;

    (void)state;
    at_trace_expect(true);
    fake_wire_late = 1000;
    assert_int_equal(over_wire(2, timed), 0);
    fake_wire_late = 0;
    at_trace_expect(false);
    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);

        if (strcmp(s->category, "clock") == 0) {
            assert_non_null(strstr(s->name, "0 exchanges not noted"));
            continue;
        }
        assert_true(s->device_only && s->rank < 2);
        assert_string_equal(s->device, gpus[s->rank].dev.name);
        // The fake clock is FAKE_WIRE_AHEAD before the host's, and both are known within the time of a call.
        assert_true(s->began > began - 1e-3 && s->began + s->seconds < at_now() + 1e-3);
        if (strcmp(s->category, "send") == 0) bytes += s->bytes;
        if (s->beside) continue;
        assert_true(s->began > reached[s->rank] - 1e-9);
        reached[s->rank] = s->began + s->seconds;
        if (strcmp(s->category, "wait") == 0) waited[s->rank] += s->seconds;
    }
    assert_true(bytes == 2.0 * ROUNDS * 2 * 3 * sizeof(int32_t));
    assert_true(waited[0] > 0.8 * ROUNDS * 1e-3);
    assert_true(waited[1] < waited[0]);
}

// A child measures; this process finds what it has kept, until the file is of another machine.
static void links_are_measured_once(void **state)
{
    char folder[] = "/tmp/at_links_XXXXXX", command[64];
    at_wire_link link, again;
    int code = 0, mallocs = fake.mallocs;

    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    fake_wire_waits = false;
    pid_t child = fork();
    if (child == 0) _exit(at_cuda_link(&gpus[1].dev, &gpus[0].dev, &link) != AT_OK);
    waitpid(child, &code, 0);
    assert_int_equal(code, 0);
    assert_int_equal(at_cuda_link(&gpus[0].dev, &gpus[1].dev, &link), AT_OK);
    assert_int_equal(fake.mallocs, mallocs);
    assert_true(link.bandwidth > 1e6 && link.seconds > 0);
    assert_int_equal(at_cuda_link(&gpus[0].dev, &gpus[2].dev, &again), AT_OK);
    assert_true(fake.mallocs > mallocs && fabs(again.bandwidth / link.bandwidth - 1) < 1e-5);
    assert_int_equal(at_cuda_link(&gpus[2].dev, &gpus[2].dev, &again), AT_EINVAL);
    fake_wire_waits = true;
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wires_keep_the_promises),
        cmocka_unit_test(a_push_may_have_two_halves),
        cmocka_unit_test(sums_of_halves_run_in_f32),
        cmocka_unit_test(scattered_parts_go_straight_to_their_place),
        cmocka_unit_test(wires_are_made_whole_or_not_at_all),
        cmocka_unit_test(links_are_measured_once),
        cmocka_unit_test(times_of_pushes_are_traced),
    };

    return cmocka_run_group_tests(tests, open_gpus, NULL);
}
