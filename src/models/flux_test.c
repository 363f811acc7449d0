// SPDX-License-Identifier: Apache-2.0
// flux_test.c - the block runner and Flux on the golden model: ranks, batches, cancel, failures.
#include "models/models.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/wave_test.h"

#define MODEL AT_SOURCE_DIR "/tests/golden/flux_dev/model.safetensors"
enum { CONTEXT = 40, POOLED = 24, CHANNELS = 16 };

static at_model *model;

static int set_up(void **state)
{
    (void)state;
    at_store *s = NULL;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    if (at_store_open(MODEL, &s) != AT_OK || at_model_load(s, "flux", &model) != AT_OK) return -1;
    at_store_release(&s);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    at_model_release(&model);
    return 0;
}

// One forward; the picture lies at element `first` of a larger batch of waves.
static at_tensor *forward(at_ops *o, int64_t b, int64_t h, int64_t w, int64_t tokens)
{
    static const float t[] = {0.8f, 0.3f}, g[] = {3.5f, 2.0f};
    at_model_in in = {.x = wave(o, 4, (int64_t[]){b, CHANNELS, h, w}, 0),
                      .timestep = t,
                      .context = wave(o, 3, (int64_t[]){b, tokens, CONTEXT}, 1),
                      .pooled = wave(o, 2, (int64_t[]){b, POOLED}, 2),
                      .guidance = g};
    return at_model_forward(o, model, &in);
}

static at_ops *new_ops(at_comm *comm, const at_sink *sink)
{
    at_ops *o = NULL;
    assert_int_equal(
        at_ops_new(&(at_ops_config){.compute = AT_F32, .comm = comm, .sink = sink}, &o), AT_OK);
    return o;
}

// --- ranks --------------------------------------------------------------------------------------
typedef struct rank_job {
    at_comm *comm;
    int64_t h, w, tokens;
    float *out;
    at_status st;
} rank_job;

static void *run_rank(void *arg)
{
    rank_job *j = arg;
    at_ops *o = NULL;
    j->st = at_ops_new(&(at_ops_config){.compute = AT_F32, .comm = j->comm}, &o);
    if (j->st != AT_OK) return NULL;
    at_tensor *t = forward(o, 1, j->h, j->w, j->tokens);
    j->st = at_ops_vote(o);
    if (t && j->st == AT_OK)
        j->st = at_tensor_to_host(t, AT_F32, j->out, (size_t)at_tensor_bytes(t));
    at_ops_free(o);
    return NULL;
}

static void compare_ranks(int ranks, int64_t h, int64_t w, int64_t tokens)
{
    at_ops *o = new_ops(NULL, NULL);
    at_tensor *want = forward(o, 1, h, w, tokens);
    assert_non_null(want);
    int64_t n = at_tensor_count(want);
    const float *a = at_tensor_data(want);
    at_comm *comms[4];
    rank_job jobs[4];
    pthread_t threads[4];

    assert_int_equal(at_comm_threads(ranks, comms), AT_OK);
    for (int r = 0; r < ranks; r++) {
        jobs[r] = (rank_job){.comm = comms[r],
                             .h = h,
                             .w = w,
                             .tokens = tokens,
                             .out = at_calloc((size_t)n, sizeof(float))};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < ranks; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < ranks; r++) {
        assert_int_equal(jobs[r].st, AT_OK);
        double diff = 0, norm = 0;
        for (int64_t i = 0; i < n; i++) {
            diff += pow((double)jobs[r].out[i] - (double)a[i], 2);
            norm += pow((double)a[i], 2);
        }
        assert_true(norm > 0 && sqrt(diff / norm) < 1e-5); // sums in another order
        at_free(jobs[r].out);
        at_comm_free(comms[r]);
    }
    at_ops_free(o);
}

static void two_ranks_give_the_picture_of_one(void **state)
{
    (void)state;
    compare_ranks(2, 8, 6, 12);
    compare_ranks(2, 7, 5, 9); // 12 image tokens and 9 text tokens: uneven shares
}

static void three_ranks_share_two_heads(void **state)
{
    (void)state;
    compare_ranks(3, 6, 10, 7);
}

// --- one rank ----------------------------------------------------------------------------------
static void entries_of_a_batch_do_not_see_each_other(void **state)
{
    (void)state;
    at_ops *o = new_ops(NULL, NULL);
    at_tensor *both = forward(o, 2, 4, 6, 5), *one = forward(o, 1, 4, 6, 5);
    assert_non_null(both);
    assert_non_null(one);
    const float *a = at_tensor_data(both), *b = at_tensor_data(one);
    for (int64_t i = 0; i < at_tensor_count(one); i++)
        assert_true(fabsf(a[i] - b[i]) < 1e-4f);
    at_ops_free(o);
}

static void absent_pooled_and_guidance_have_defaults(void **state)
{
    (void)state;
    at_ops *o = new_ops(NULL, NULL);
    float t = 0.5f, g = 3.5f;
    at_model_in in = {.x = wave(o, 4, (int64_t[]){1, CHANNELS, 4, 4}, 0),
                      .timestep = &t,
                      .context = wave(o, 3, (int64_t[]){1, 3, CONTEXT}, 1)};
    at_tensor *a = at_model_forward(o, model, &in);
    in.guidance = &g;
    in.pooled = at_zeros(o, AT_F32, 2, (int64_t[]){1, POOLED});
    at_tensor *b = at_model_forward(o, model, &in);
    assert_non_null(a);
    assert_memory_equal(at_tensor_data(a), at_tensor_data(b), at_tensor_bytes(a));
    at_ops_free(o);
}

static void a_forward_leaves_its_result_and_nothing_else(void **state)
{
    (void)state;
    at_ops *o = new_ops(NULL, NULL);
    at_device *cpu = at_device_cpu();
    at_scope_begin(o);
    forward(o, 1, 8, 8, 6); // packs weights once
    at_scope_end(o, NULL);
    at_scope_begin(o);
    at_tensor *x = wave(o, 4, (int64_t[]){1, CHANNELS, 8, 8}, 0);
    at_tensor *context = wave(o, 3, (int64_t[]){1, 6, CONTEXT}, 1);
    size_t before = atomic_load(&cpu->live_bytes);
    float t = 0.5f;
    at_tensor *out =
        at_model_forward(o, model, &(at_model_in){.x = x, .timestep = &t, .context = context});
    assert_non_null(out);
    assert_int_equal(atomic_load(&cpu->live_bytes) - before, at_tensor_bytes(out));
    at_scope_end(o, NULL);
    double seconds[64];
    assert_int_equal(at_model_block_seconds(seconds, 64), 5);
    for (int i = 0; i < 5; i++)
        assert_true(seconds[i] > 0);
    assert_int_equal(at_model_block_seconds(seconds, 2), 2);
    at_ops_free(o);
}

static void a_cancelled_job_stops_before_the_next_block(void **state)
{
    (void)state;
    atomic_bool cancel = false;
    at_sink sink = {.cancel = &cancel};
    at_ops *o = new_ops(NULL, &sink);
    at_tensor *x = wave(o, 4, (int64_t[]){1, CHANNELS, 4, 4}, 0);
    at_tensor *context = wave(o, 3, (int64_t[]){1, 3, CONTEXT}, 1);
    float t = 0.5f;
    atomic_store(&cancel, true);
    assert_null(
        at_model_forward(o, model, &(at_model_in){.x = x, .timestep = &t, .context = context}));
    assert_int_equal(at_ops_status(o), AT_ECANCELLED);
    at_ops_free(o);
}

static void inputs_of_another_model_are_refused(void **state)
{
    (void)state;
    at_ops *o = new_ops(NULL, NULL);
    float t = 0.5f;
    at_tensor *x = wave(o, 4, (int64_t[]){1, CHANNELS, 4, 4}, 0);
    at_tensor *context = wave(o, 3, (int64_t[]){1, 3, CONTEXT}, 1);
    at_tensor *four = wave(o, 4, (int64_t[]){1, 4, 4, 4}, 0);
    at_tensor *narrow = wave(o, 3, (int64_t[]){1, 3, CONTEXT - 1}, 1);
    at_tensor *two = wave(o, 3, (int64_t[]){2, 3, CONTEXT}, 1);
    const at_model_in bad[] = {{.x = four, .timestep = &t, .context = context},
                               {.x = x, .timestep = &t, .context = narrow},
                               {.x = x, .timestep = &t, .context = two},
                               {.x = context, .timestep = &t, .context = context}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_null(at_model_forward(o, model, &bad[i]));
        assert_int_equal(at_ops_clear(o), AT_EINVAL);
        assert_true(strlen(at_error_text()) > 20);
    }
    at_ops_free(o);
}

static void every_failed_allocation_gives_all_memory_back(void **state)
{
    (void)state;
    at_ops *warm = new_ops(NULL, NULL);
    assert_non_null(forward(warm, 1, 3, 4, 3));
    at_ops_free(warm);
    size_t before = at_mem_get_stats().live_bytes;
    bool hit = true;
    // every third allocation: the same code paths in a third of the time
    for (uint64_t n = 1; hit && n < 20000; n += 3) {
        at_ops *o = NULL;
        at_mem_fail_at(n, false);
        at_status st = at_ops_new(&(at_ops_config){.compute = AT_F32}, &o);
        if (st == AT_OK) {
            at_tensor *out = forward(o, 1, 3, 4, 3);
            st = at_ops_status(o);
            assert_true((out != NULL) == (st == AT_OK));
        }
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        at_ops_free(o);
        if (!hit) assert_int_equal(st, AT_OK);
        if (st != AT_OK) assert_int_equal(st, AT_ENOMEM);
        assert_int_equal(at_mem_get_stats().live_bytes, before);
    }
    assert_false(hit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_give_the_picture_of_one),
        cmocka_unit_test(three_ranks_share_two_heads),
        cmocka_unit_test(entries_of_a_batch_do_not_see_each_other),
        cmocka_unit_test(absent_pooled_and_guidance_have_defaults),
        cmocka_unit_test(a_forward_leaves_its_result_and_nothing_else),
        cmocka_unit_test(a_cancelled_job_stops_before_the_next_block),
        cmocka_unit_test(inputs_of_another_model_are_refused),
        cmocka_unit_test(every_failed_allocation_gives_all_memory_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
