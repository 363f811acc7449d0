// SPDX-License-Identifier: Apache-2.0
// cuda_nccl_test.c - the comm of GPUs that talk through NCCL (comm_nccl.c over cuda/channel.c), over a played library
// and a fake CUDA runtime: what every carrier promises, within one process and with words over TCP; failures.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../par/comm_suite.h"
#include "base/mem.h"
#include "cuda/cuda.h"
#include "fake_cudart.h"
#include "fake_nccl.h"
#include "par/comm_nccl.h"
#include "par/comm_tcp.h"
#include "par/tcp.h"

enum { MOST = 4, ROUNDS = 20 };
static at_cuda gpus[MOST];

static at_status idle(at_device *d)
{
    (void)d;
    return AT_OK;
}
static const at_device_ops ops = {.channel = &at_cuda_channel_ops, .synchronize = idle};

static int open_gpus(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i++) {
        snprintf(gpus[i].dev.name, sizeof gpus[i].dev.name, "cuda:%d", i);
        gpus[i].dev.ops = &ops;
        gpus[i].ordinal = i;
    }
    return 0;
}

static int within(int size, suite_fn *fn)
{
    at_comm *comm[MOST];
    at_device *devices[MOST];

    for (int i = 0; i < size; i++)
        devices[i] = &gpus[i].dev;
    if (at_comm_nccl_threads(size, devices, comm) != AT_OK) return -1;
    return suite_threads(size, comm, fn);
}

// --- as processes: words over TCP, everybody makes and frees its own --------------------------------------
typedef struct seat {
    at_comm_tcp_config config;
    at_device *device;
    suite_fn *fn;
    atomic_int *wrong;
} seat;

static void *seat_main(void *arg)
{
    seat *s = arg;
    suite_rank r = {.wrong = s->wrong};
    at_comm *control = NULL;

    if (at_comm_tcp(&s->config, &control) != AT_OK ||
        at_comm_nccl(control, s->device, &r.comm) != AT_OK) {
        fprintf(stderr, "%s\n", at_error_text());
        atomic_fetch_add(s->wrong, 1000);
        return NULL;
    }
    s->fn(&r);
    at_comm_free(r.comm);
    return NULL;
}

static int across(int size, suite_fn *fn)
{
    seat s[MOST];
    pthread_t id[MOST];
    atomic_int wrong = 0;
    int listener = -1, port = 0;
    char address[64];

    if (at_tcp_listen("127.0.0.1:0", &listener, &port) != AT_OK) return -1;
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    for (int i = 0; i < size; i++) {
        s[i] = (seat){.config = {.rank = i,
                                 .ranks = size,
                                 .rendezvous = address,
                                 .listener = i ? 0 : listener,
                                 .connect_seconds = 20,
                                 .wait_seconds = 20},
                      .device = &gpus[i].dev,
                      .fn = fn,
                      .wrong = &wrong};
        assert_int_equal(pthread_create(&id[i], NULL, seat_main, &s[i]), 0);
    }
    for (int i = 0; i < size; i++)
        pthread_join(id[i], NULL);
    return wrong;
}

static void keep_the_promises(const char *name, int (*run)(int size, suite_fn *fn))
{
    const suite_carrier c = {
        .name = name, .most = MOST, .rounds = ROUNDS, .any_order = true, .run = run};

    suite_run(&c);
    assert_int_equal(fake_nccl.live, 0); // every communicator has been ended
    assert_int_equal(fake_nccl.crimes, 0);
    assert_true(fake_nccl.made > 0);
}

static void threads_of_a_process_keep_the_promises(void **state)
{
    (void)state;
    keep_the_promises("nccl, threads", within);
}

static void processes_keep_the_promises(void **state)
{
    (void)state;
    keep_the_promises("nccl, processes", across);
}

// --- failures ----------------------------------------------------------------------------------
// The library fails once, on one rank: all hear of it, and after the vote all goes on.
static void once_wrong(suite_rank *r)
{
    at_comm *c = r->comm;
    int mine = c->rank, all[MOST], result = 0;
    at_status st = c->ops->all_gather(c, &mine, all, sizeof mine);

    SUITE_EXPECT(r, c->ops->vote(c, (int)st, &result) == AT_OK);
    SUITE_EXPECT(r, result == AT_EDEVICE);
    SUITE_EXPECT(r, c->ops->all_gather(c, &mine, all, sizeof mine) == AT_OK);
    for (int i = 0; i < c->size; i++)
        SUITE_EXPECT(r, all[i] == i);
    SUITE_EXPECT(r, c->ops->vote(c, 0, &result) == AT_OK && result == AT_OK);
}

static void a_failure_of_the_library_is_everybodys(void **state)
{
    (void)state;
    for (int n = 1; n <= 3; n++) {
        unsigned long moved = atomic_load(&gpus[0].dev.moved);

        fake_nccl.fail_at = n;
        assert_int_equal(within(3, once_wrong), 0);
        fake_nccl.fail_at = n;
        assert_int_equal(across(3, once_wrong), 0);
        assert_true(atomic_load(&gpus[0].dev.moved) > moved); // recordings over it are dropped
    }
    fake_nccl.fail_at = 0;
    assert_int_equal(fake_nccl.live, 0);
    assert_int_equal(fake_nccl.crimes, 0);
}

// Rank 1 gives up while the others are in the library, with their words elsewhere.
static void one_never_comes(suite_rank *r)
{
    at_comm *c = r->comm;
    int mine = c->rank, all[MOST], result = 0;
    at_status st = c->ops->all_gather(c, &mine, all, sizeof mine);
    double began = at_tcp_now();

    SUITE_EXPECT(r, st == AT_OK);
    if (c->rank == 1) {
        (void)usleep(50000);
        c->ops->abort(c, AT_ENOMEM);
        st = AT_ENOMEM;
    } else {
        st = c->ops->all_gather(c, &mine, all, sizeof mine);
        SUITE_EXPECT(r, st == AT_ENOMEM && strstr(at_error_text(), "rank 1 gave up"));
    }
    SUITE_EXPECT(r, c->ops->vote(c, (int)st, &result) == AT_OK && result == AT_ENOMEM);
    SUITE_EXPECT(r, c->ops->all_gather(c, &mine, all, sizeof mine) == AT_OK);
    SUITE_EXPECT(r, at_tcp_now() - began < 10);
}

static void who_waits_in_the_library_is_freed(void **state)
{
    (void)state;
    assert_int_equal(within(3, one_never_comes), 0);
    assert_int_equal(across(3, one_never_comes), 0);
    assert_int_equal(fake_nccl.crimes, 0);
}

static void what_cannot_be_is_said(void **state)
{
    at_device *devices[] = {&gpus[0].dev, &gpus[0].dev};
    at_device cpu = {.ops = &(at_device_ops){0}, .name = "cpu"};
    at_device *mixed[] = {&gpus[0].dev, &cpu};
    at_comm *comm[2];
    size_t live = at_mem_get_stats().live_bytes;

    (void)state;
    assert_int_equal(at_comm_nccl_threads(2, devices, comm), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "cuda:0 is rank 0 and rank 1"));
    assert_int_equal(at_comm_nccl_threads(2, mixed, comm), AT_EUNSUPPORTED);
    devices[1] = &gpus[1].dev;
    fake_nccl.version = 21500;
    assert_int_equal(at_comm_nccl_threads(2, devices, comm), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "NCCL 2.15 is too old"));
    fake_nccl.version = 22803;
    for (uint64_t n = 1; n <= 12; n++) {
        at_mem_fail_at(n, false);
        at_status st = at_comm_nccl_threads(2, devices, comm);
        at_mem_fail_at(0, false);
        if (st == AT_OK) {
            at_comm_free(comm[0]);
            at_comm_free(comm[1]);
        } else {
            assert_int_equal(st, AT_ENOMEM);
            assert_null(comm[0]);
        }
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
    assert_int_equal(fake_nccl.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_of_a_process_keep_the_promises),
        cmocka_unit_test(processes_keep_the_promises),
        cmocka_unit_test(a_failure_of_the_library_is_everybodys),
        cmocka_unit_test(who_waits_in_the_library_is_freed),
        cmocka_unit_test(what_cannot_be_is_said),
    };

    return cmocka_run_group_tests(tests, open_gpus, NULL);
}
