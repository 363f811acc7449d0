// SPDX-License-Identifier: Apache-2.0
// bind_test.c - weights are sent for once by each device, also where the ranks of one picture ask at the same time.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "cpu/cpu.h"
#include "models/arch.h"
#include "models/models.h"

enum { RANKS = 4, ROUNDS = 200 };

typedef struct gpu {
    at_device dev; // first
    atomic_int asked;
    size_t weights;
} gpu;

static gpu gpus[RANKS];
static at_device_ops ops;
static at_bound *bound;

static at_status count(at_device *d, const at_wview *list, size_t n)
{
    gpu *g = (gpu *)d;
    (void)list;
    atomic_fetch_add(&g->asked, 1);
    g->weights = n;
    return AT_OK;
}

static void *rank(void *arg)
{
    gpu *g = arg;
    for (int i = 0; i < ROUNDS; i++)
        at_bound_prefetch(bound, &g->dev, 0, 1);
    return NULL;
}

static int open_network(void **state)
{
    at_store *s = NULL;
    at_found f;

    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    ops = *at_device_cpu()->ops;
    ops.prefetch = count;
    for (int i = 0; i < RANKS; i++) {
        gpus[i].dev.ops = &ops;
        gpus[i].dev.backend = at_cpu_backend();
    }
    assert_int_equal(at_store_open(AT_SOURCE_DIR "/tests/golden/flux_dev/model.safetensors", &s),
                     AT_OK);
    assert_int_equal(at_detect(s, &f, 1), 1);
    assert_int_equal(at_bound_new(f.arch, s, f.prefix, &bound), AT_OK);
    at_store_release(&s);
    *state = NULL;
    return 0;
}

static int close_network(void **state)
{
    (void)state;
    at_bound_release(&bound);
    return 0;
}

static void ranks_send_for_their_weights_once(void **state)
{
    (void)state;
    pthread_t threads[RANKS];
    for (int i = 0; i < RANKS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, rank, &gpus[i]), 0);
    for (int i = 0; i < RANKS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < RANKS; i++) {
        assert_int_equal(gpus[i].asked, 1);
        assert_true(gpus[i].weights > 50);
    }
}

static void what_has_left_or_is_anothers_share_comes_again(void **state)
{
    (void)state;
    int before = gpus[1].asked;
    at_bound_prefetch(bound, &gpus[1].dev, 0, 1);
    assert_int_equal(gpus[1].asked, before);
    atomic_fetch_add(&gpus[1].dev.moved, 1);
    at_bound_prefetch(bound, &gpus[1].dev, 0, 1);
    at_bound_prefetch(bound, &gpus[1].dev, 0, 1);
    assert_int_equal(gpus[1].asked, before + 1);
    at_bound_prefetch(bound, &gpus[1].dev, 1, 2);
    assert_int_equal(gpus[1].asked, before + 2);
    at_bound_prefetch(bound, &gpus[0].dev, 0, 1); // the others' stand
    assert_int_equal(gpus[0].asked, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_send_for_their_weights_once),
        cmocka_unit_test(what_has_left_or_is_anothers_share_comes_again),
    };
    return cmocka_run_group_tests(tests, open_network, close_network);
}
