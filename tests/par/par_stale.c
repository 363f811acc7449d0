// SPDX-License-Identifier: Apache-2.0
// par_stale.c - stale keys and values, and pipes of blocks: what is approximate about them, and nothing else.
// Idea: keys and values of the evaluation before are exact if the input is the same again: then a displaced
// evaluation must give what one rank gives, whatever is shared and cut. With another input it must not, by an amount
// that is bounded, the same each time, and gone with the next run.
#include "models/models.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "atelier/node.h"
#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/wave_test.h"
#include "par/ranks.h"

enum { MOST = 8, EVALUATIONS = 4 };
#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

typedef struct net {
    const char *model;
    unsigned axes;
    int64_t channels, context, vector; // vector 0: none
    float t;
} net;
static const net flux = {
    GOLDEN "flux_dev/model.safetensors", 1u << AT_AXIS_RING | 1u << AT_AXIS_PIPE, 16, 40, 24, 0.8f};
static const net sd15 = {GOLDEN "unet_sd15/model.safetensors", 1u << AT_AXIS_PATCH, 4, 24, 0, 500};

typedef struct evaluation {
    float phase; // of x
    uint64_t key;
    int64_t batch;
} evaluation;

typedef struct job {
    const net *net;
    at_model *model;
    at_degrees degrees;
    at_comm *world[MOST];
    int n;
    evaluation e[EVALUATIONS];
    float *out[MOST][EVALUATIONS];
    int64_t count[EVALUATIONS];
} job;

static at_tensor *forward(at_ops *o, const job *j, const evaluation *e)
{
    const net *n = j->net;
    float t[] = {n->t, n->t}, g[] = {3.5f, 3.5f};
    at_model_in in = {.x = wave(o, 4, (int64_t[]){e->batch, n->channels, 10, 14}, e->phase),
                      .timestep = t,
                      .context = wave(o, 3, (int64_t[]){e->batch, 7, n->context}, 1),
                      .guidance = g,
                      .key = e->key};
    if (n->vector) in.pooled = wave(o, 2, (int64_t[]){e->batch, n->vector}, 2);
    return at_model_forward(o, j->model, &in);
}

static at_status run_rank(void *ctx, int rank)
{
    job *j = ctx;
    at_mesh mesh = {0};
    at_ops *o = NULL;
    at_status st = at_mesh_open(j->world[rank], &j->degrees, &mesh);

    if (st == AT_OK) st = at_ops_new(&(at_ops_config){.compute = AT_F32, .mesh = &mesh}, &o);
    for (int i = 0; i < j->n && st == AT_OK; i++) {
        at_scope_begin(o);
        at_tensor *x = forward(o, j, &j->e[i]);
        st = at_ops_vote(o);
        if (st == AT_OK) {
            size_t bytes = at_tensor_bytes(x);
            j->out[rank][i] = at_alloc(bytes);
            if (rank == 0) j->count[i] = at_tensor_count(x);
            assert_non_null(j->out[rank][i]);
            memcpy(j->out[rank][i], at_tensor_data(x), bytes);
        }
        at_scope_end(o, NULL);
    }
    at_ops_free(o);
    at_mesh_close(&mesh);
    return st;
}

static void close_job(job *j)
{
    for (int r = 0; r < MOST; r++)
        for (int i = 0; i < EVALUATIONS; i++)
            at_free(j->out[r][i]);
}

// The evaluations under a plan ("none": on one rank).
static job run(const net *n, at_model *m, const char *plan, const evaluation *e, int count)
{
    job j = {.net = n, .model = m, .n = count};

    memcpy(j.e, e, sizeof *e * (size_t)count);
    assert_int_equal(at_degrees_parse(plan, &j.degrees), AT_OK);
    at_degrees_fit(&j.degrees, n->axes);
    int ranks = at_degrees_ranks(&j.degrees);
    assert_int_equal(at_comm_threads(ranks, j.world), AT_OK);
    at_status st = at_ranks_run(ranks, run_rank, &j);
    if (st != AT_OK) fail_msg("%s: %s", plan, at_error_text());
    for (int r = 1; r < ranks; r++) // all ranks have the same bits
        for (int i = 0; i < count; i++)
            assert_memory_equal(j.out[r][i], j.out[0][i], (size_t)j.count[i] * sizeof(float));
    for (int r = 0; r < ranks; r++)
        at_comm_free(j.world[r]);
    return j;
}

// ||a - b|| / ||b|| of evaluations i and k.
static double apart(const job *a, int i, const job *b, int k)
{
    double d = 0, all = 0;

    assert_true(a->count[i] == b->count[k] && a->count[i] > 0);
    for (int64_t e = 0; e < a->count[i]; e++) {
        double x = a->out[0][i][e], y = b->out[0][k][e];
        d += (x - y) * (x - y);
        all += y * y;
    }
    return sqrt(d / all);
}

static double distance(const job *a, const job *b, int i)
{
    return apart(a, i, b, i);
}

static at_model *open_net(const net *n)
{
    at_store *s = NULL;
    at_model *m = NULL;

    assert_int_equal(at_store_open(n->model, &s), AT_OK);
    assert_int_equal(at_model_load(s, "golden", &m), AT_OK);
    at_store_release(&s);
    return m;
}

static const char *const flux_plans[] = {
    "stale=2,warmup=1",       "stale=3,warmup=1",        "stale=8,warmup=1",      "pipefusion=2",
    "pipefusion=3,patches=1", "pipefusion=2,patches=35", "pipefusion=4,patches=3"};
static const char *const unet_plans[] = {"stale=2,warmup=1", "stale=3,warmup=1"};

static void same_input(const net *n, const char *const *plans, size_t count, int64_t batch)
{
    const evaluation e[] = {{0, 1, batch}, {0, 1, batch}, {0, 1, batch}};
    at_model *m = open_net(n);
    job one = run(n, m, "none", e, 3);

    for (size_t i = 0; i < count; i++) {
        job many = run(n, m, plans[i], e, 3);
        for (int k = 0; k < 3; k++) {
            double d = distance(&many, &one, k);
            if (!(d <= 1e-5)) fail_msg("%s: evaluation %d is off by %g", plans[i], k, d);
        }
        close_job(&many);
        at_model_forget(m);
    }
    close_job(&one);
    at_model_release(&m);
}

static void the_same_input_again_is_exact(void **state)
{
    (void)state;
    same_input(&flux, flux_plans, AT_COUNT(flux_plans), 1);
    same_input(&flux, flux_plans, AT_COUNT(flux_plans), 2);
    same_input(&sd15, unet_plans, AT_COUNT(unet_plans), 1);
}

// x moves by a fiftieth of a wave: what is stale shows, and is less than what the move itself does to the result.
static void other_input(const net *n, const char *const *plans, size_t count)
{
    const evaluation e[] = {{0, 1, 1}, {0.02f, 1, 1}, {0.02f, 2, 1}};
    at_model *m = open_net(n);
    job one = run(n, m, "none", e, 3);

    double moved = apart(&one, 0, &one, 1);
    for (size_t i = 0; i < count; i++) {
        job first = run(n, m, plans[i], e, 3), again;
        at_model_forget(m);
        again = run(n, m, plans[i], e, 3);
        double exact = distance(&first, &one, 0), displaced = distance(&first, &one, 1);
        double anew = distance(&first, &one, 2);
        bool cut = first.degrees.patches != 1; // a single piece is never stale
        if (!(exact <= 1e-5) || !(anew <= 1e-5))
            fail_msg("%s: exact evaluations are off by %g and %g", plans[i], exact, anew);
        if ((cut && !(displaced > 1e-6)) || !(displaced <= moved))
            fail_msg("%s: the displaced evaluation is off by %g, the results by %g", plans[i],
                     displaced, moved);
        print_message("%s: %g of %g\n", plans[i], displaced, moved);
        for (int k = 0; k < 3; k++)
            assert_memory_equal(first.out[0][k], again.out[0][k],
                                (size_t)first.count[k] * sizeof(float));
        close_job(&first);
        close_job(&again);
        at_model_forget(m);
    }
    close_job(&one);
    at_model_release(&m);
}

static void another_input_is_nearly_exact_and_the_same_each_time(void **state)
{
    (void)state;
    other_input(&flux, flux_plans, AT_COUNT(flux_plans));
    other_input(&sd15, unet_plans, AT_COUNT(unet_plans));
}

// Two conditionings of a run in turn keep their own; warm-up counts for each.
static void conditionings_keep_apart(void **state)
{
    const evaluation e[] = {{0, 1, 1}, {1.5f, 2, 1}, {0, 1, 1}, {1.5f, 2, 1}};
    at_model *m = open_net(&flux);
    job one = run(&flux, m, "none", e, 4);

    (void)state;
    for (size_t i = 0; i < AT_COUNT(flux_plans); i++) {
        job many = run(&flux, m, flux_plans[i], e, 4);
        for (int k = 0; k < 4; k++)
            assert_true(distance(&many, &one, k) <= 1e-5);
        close_job(&many);
        at_model_forget(m);
    }
    close_job(&one);
    at_model_release(&m);
}

static void words_and_what_is_refused(void **state)
{
    static const char *const wrong[] = {
        "stale=2,ring=2", "stale=2,ulysses=2", "patches=4",           "pipefusion=2,tp=2",
        "warmup=3",       "stale=2,patches=4", "stale=2,pipefusion=2"};
    at_degrees d;
    char text[96];

    (void)state;
    for (size_t i = 0; i < AT_COUNT(wrong); i++)
        if (at_degrees_parse(wrong[i], &d) != AT_EINVAL) fail_msg("%s is taken", wrong[i]);
    assert_int_equal(at_degrees_parse("cfg=2,stale=4,warmup=2", &d), AT_OK);
    assert_int_equal(at_degrees_ranks(&d), 8);
    assert_string_equal(at_degrees_text(&d, text), "cfg=2,stale=4,warmup=2");
    assert_non_null(strstr(at_degrees_approximation(&d), "stale"));
    at_degrees_fit(&d, 1u << AT_AXIS_PATCH);
    assert_int_equal(d.of[AT_AXIS_PATCH], 4);
    assert_string_equal(at_degrees_text(&d, text), "cfg=2,stale=4,warmup=2");
    assert_int_equal(at_degrees_parse("pipefusion=2,patches=8", &d), AT_OK);
    assert_string_equal(at_degrees_text(&d, text), "pipefusion=2,patches=8");
    assert_non_null(at_degrees_approximation(&d));
    assert_int_equal(at_degrees_parse("ring=2", &d), AT_OK);
    assert_null(at_degrees_approximation(&d));
}

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_input_again_is_exact),
        cmocka_unit_test(another_input_is_nearly_exact_and_the_same_each_time),
        cmocka_unit_test(conditionings_keep_apart),
        cmocka_unit_test(words_and_what_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
