// SPDX-License-Identifier: Apache-2.0
// par_fault.c - one step on a mesh of ranks, with one rank failing at each of its ops in turn.
// Idea: a backend whose slots count, on the rank that is to fail, down to the one that fails. Whichever op it is, every
// rank must come to the vote, return the same error with the failing rank's words, and leave no bytes; the next step
// over the same comms must work. SIGALRM ends a step that hangs. The same for every allocation of a step.
#include "models/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/wave_test.h"
#include "par/ranks.h"

enum { MOST = 8, WATCHDOG = 10 };
// Under a sanitizer every 7th op: the release build fails at each.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { STRIDE = 7 };
#else
enum { STRIDE = 1 };
#endif
#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

// --- the backend that fails ----------------------------------------------------------------------
static _Thread_local int g_left; // slots until this rank fails; 0: it does not
static atomic_int g_fell;        // it did

static bool falls(void)
{
    if (!g_left || --g_left) return false;
    atomic_store(&g_fell, 1);
    at_fail(AT_EDEVICE, "the card fell out");
    return true;
}

static const at_backend *real(void)
{
    return at_cpu_backend();
}

#define SLOT(name, type)                                                                           \
    static at_status failing_##name(void *stream, const type *a)                                   \
    {                                                                                              \
        return falls() ? AT_EDEVICE : real()->name(stream, a);                                     \
    }
SLOT(binary, at_binary_args)
SLOT(gate_add, at_gate_add_args)
SLOT(linear, at_linear_args)
SLOT(attention, at_attention_args)
SLOT(attention_merge, at_attention_merge_args)
SLOT(norm, at_norm_args)
SLOT(group_norm, at_group_norm_args)
SLOT(group_stats, at_group_norm_args)
SLOT(rope, at_rope_args)
SLOT(conv2d, at_conv2d_args)
SLOT(geglu, at_geglu_args)
SLOT(lincomb, at_lincomb_args)

static at_status failing_copy(void *stream, const at_view *from, const at_view *to)
{
    return falls() ? AT_EDEVICE : real()->copy(stream, from, to);
}

static at_status failing_fill(void *stream, const at_view *to, double value)
{
    return falls() ? AT_EDEVICE : real()->fill(stream, to, value);
}

static at_status failing_unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    return falls() ? AT_EDEVICE : real()->unary(stream, x, out, act);
}

static at_backend g_backend;

// The CPU has no second stream: this one tells whether work that went aside has ended and is joined, in this order and
// on every rank, whatever failed.
static _Thread_local int t_step = -1;
static atomic_int g_asides, g_out_of_order;
static at_device_ops g_ops;

static at_status count_aside(at_device *d, at_aside step)
{
    (void)d;
    if ((int)step != t_step + 1) atomic_fetch_add(&g_out_of_order, 1);
    t_step = step == AT_ASIDE_JOIN ? -1 : (int)step;
    if (step == AT_ASIDE_BEGIN) atomic_fetch_add(&g_asides, 1);
    if (!falls()) return AT_OK;
    if (step == AT_ASIDE_BEGIN) t_step = -1; // what has not begun does not end
    return AT_EDEVICE;
}

// --- a step --------------------------------------------------------------------------------------
typedef struct net {
    const char *model;
    int64_t channels, context, tokens, vector; // vector 0: none
} net;
static const net flux = {GOLDEN "flux_dev/model.safetensors", 16, 40, 7, 24};
static const net sd15 = {GOLDEN "unet_sd15/model.safetensors", 4, 24, 7, 0};

typedef struct step {
    const net *net;
    at_model *model;
    at_degrees degrees;
    at_comm *world[MOST];
    int fail_rank, fail_at; // fail_at 0: nobody
    at_status st[MOST];
    char text[MOST][256];
    double sum[MOST]; // of the result
} step;

static at_tensor *forward(at_ops *o, const step *s)
{
    static const float t[] = {0.8f}, g[] = {3.5f};
    const net *n = s->net;
    at_model_in in = {.x = wave(o, 4, (int64_t[]){1, n->channels, 9, 5}, 0),
                      .timestep = t,
                      .context = wave(o, 3, (int64_t[]){1, n->tokens, n->context}, 1),
                      .guidance = g,
                      .key = at_degrees_approximation(&s->degrees) ? 7 : 0}; // steps of one run
    if (n->vector) in.pooled = wave(o, 2, (int64_t[]){1, n->vector}, 2);
    return at_model_forward(o, s->model, &in);
}

// What a denoiser does in a step: this rank's forward, then everybody's estimates.
static at_tensor *estimates(at_ops *o, const step *s)
{
    at_comm *c = at_ops_mesh(o)->axis[AT_AXIS_CFG];
    int64_t lengths[MOST], each;
    at_tensor *x = forward(o, s);

    if (!x) return NULL;
    each = at_tensor_count(x);
    for (int i = 0; i < c->size; i++)
        lengths[i] = each;
    at_tensor *all = at_empty(o, AT_F32, 1, (int64_t[]){each * c->size});
    at_tensor *mine = at_narrow(o, all, 0, each * c->rank, each);
    at_unary(at_into(o, mine), at_reshape(o, x, 1, &each), AT_ACT_NONE);
    return at_gather_runs(o, AT_AXIS_CFG, all, lengths);
}

static at_status run_rank(void *ctx, int rank)
{
    step *s = ctx;
    at_comm *world = s->world[rank];
    at_mesh mesh = {0};
    at_ops *o = NULL;
    int vote = 0;
    at_status st = at_mesh_open(world, &s->degrees, &mesh);

    if (st == AT_OK) st = at_ops_new(&(at_ops_config){.compute = AT_F32, .mesh = &mesh}, &o);
    if (st != AT_OK) world->ops->abort(world, (int)st);
    world->ops->vote(world, (int)st, &vote);
    if (vote == AT_OK) {
        g_left = rank == s->fail_rank ? s->fail_at : 0;
        at_tensor *all = estimates(o, s);
        g_left = 0;
        st = at_ops_vote(o);
        if (st != AT_OK) snprintf(s->text[rank], sizeof s->text[rank], "%s", at_error_text());
        for (int64_t i = 0; st == AT_OK && i < at_tensor_count(all); i++)
            s->sum[rank] += (double)((const float *)at_tensor_data(all))[i] * (double)(i % 7 + 1);
    } else {
        st = (at_status)vote;
    }
    s->st[rank] = st;
    if (t_step != -1) atomic_fetch_add(&g_out_of_order, 1);
    at_ops_free(o);
    at_mesh_close(&mesh);
    return AT_OK;
}

static void run(step *s)
{
    memset(s->st, 0, sizeof s->st);
    memset(s->text, 0, sizeof s->text);
    memset(s->sum, 0, sizeof s->sum);
    atomic_store(&g_fell, 0);
    alarm(WATCHDOG);
    at_status st = at_ranks_run(at_degrees_ranks(&s->degrees), run_rank, s);
    alarm(0);
    if (st != AT_OK)
        for (int i = 0; i < MOST; i++)
            s->st[i] = st;
}

static step open_step(const net *n, const char *plan)
{
    step s = {.net = n};
    at_store *store = NULL;

    at_device_set_cpu_backend(&g_backend, "falls out");
    assert_int_equal(at_degrees_parse(plan, &s.degrees), AT_OK);
    at_degrees_fit(&s.degrees, n->vector ? 1u << AT_AXIS_RING : 1u << AT_AXIS_PATCH);
    assert_int_equal(at_store_open(n->model, &store), AT_OK);
    assert_int_equal(at_model_load(store, "golden", &s.model), AT_OK);
    at_store_release(&store);
    assert_int_equal(at_comm_threads(at_degrees_ranks(&s.degrees), s.world), AT_OK);
    run(&s); // packs weights, once
    for (int i = 0; i < at_degrees_ranks(&s.degrees); i++)
        assert_int_equal(s.st[i], AT_OK);
    return s;
}

static void close_step(step *s)
{
    for (int i = 0; i < MOST; i++)
        at_comm_free(s->world[i]);
    at_model_release(&s->model);
}

static void all_went_well(const step *s)
{
    for (int i = 0; i < at_degrees_ranks(&s->degrees); i++) {
        if (s->st[i] != AT_OK) fail_msg("rank %d: %s", i, s->text[i]);
        assert_true(s->sum[i] == s->sum[0] && s->sum[i] != 0); // the same bits everywhere
    }
}

// An approximate step stands behind an exact one, and a failed step begins anew.
static void prepare_to_fail(step *s)
{
    int at = s->fail_at;

    if (!at_degrees_approximation(&s->degrees)) return;
    s->fail_at = 0;
    run(s);
    all_went_well(s);
    s->fail_at = at;
}

static void every_op_of_each_rank(const net *n, const char *plan)
{
    step s = open_step(n, plan);
    int ranks = at_degrees_ranks(&s.degrees), ops = 0;

    for (s.fail_rank = 0; s.fail_rank < ranks; s.fail_rank++)
        for (s.fail_at = 1;; s.fail_at += STRIDE) {
            prepare_to_fail(&s);
            size_t live = at_mem_get_stats().live_bytes;
            run(&s);
            assert_int_equal(at_mem_get_stats().live_bytes, live);
            if (!atomic_load(&g_fell)) break; // it had no more ops
            ops++;
            for (int i = 0; i < ranks; i++) {
                if (s.st[i] != AT_EDEVICE || !strstr(s.text[i], "the card fell out"))
                    fail_msg("%s: rank %d at op %d: rank %d has %d, \"%s\"", plan, s.fail_rank,
                             s.fail_at, i, (int)s.st[i], s.text[i]);
            }
            if (ops % 50 == 0) { // the comms go on
                int at = s.fail_at;
                s.fail_at = 0;
                run(&s);
                all_went_well(&s);
                s.fail_at = at;
            }
        }
    assert_true(ops > 100 / STRIDE);
    s.fail_at = 0;
    run(&s);
    all_went_well(&s);
    close_step(&s);
}

static void a_transformer_rank_fails_at_any_op(void **state)
{
    (void)state;
    every_op_of_each_rank(&flux, "cfg=2,ulysses=2");
    every_op_of_each_rank(&flux, "ring=3");
    every_op_of_each_rank(&flux, "tp=3");
    assert_true(g_asides > 0);
    assert_int_equal(g_out_of_order, 0);
}

// Keys go round, two blocks of them are attended beside each other.
static void a_ring_fails_at_any_op(void **state)
{
    (void)state;
    assert_int_equal(setenv("AT_OFF", "gather", 1), 0);
    every_op_of_each_rank(&flux, "ring=3");
    every_op_of_each_rank(&flux, "ring=2,ulysses=2");
    assert_int_equal(g_out_of_order, 0);
    assert_int_equal(unsetenv("AT_OFF"), 0);
}

static void an_approximate_step_fails_at_any_op(void **state)
{
    (void)state;
    every_op_of_each_rank(&flux, "stale=2,warmup=1");
    every_op_of_each_rank(&flux, "pipefusion=2,patches=2");
    assert_int_equal(g_out_of_order, 0);
}

static void a_unet_rank_fails_at_any_op(void **state)
{
    (void)state;
    every_op_of_each_rank(&sd15, "cfg=2,patch=2");
    every_op_of_each_rank(&sd15, "tp=2");
    every_op_of_each_rank(&sd15, "stale=2,warmup=1");
}

static void every_allocation(const net *n, const char *plan)
{
    step s = open_step(n, plan);
    int ranks = at_degrees_ranks(&s.degrees), ended = 0;
    bool hit = true;

    // Every 7th: what lies between is of the same kinds.
    for (uint64_t k = 1; hit; k += 7 * STRIDE) {
        at_mem_fail_at(k, false);
        run(&s);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        for (int i = 0; i < ranks; i++) {
            assert_int_equal(s.st[i], s.st[0]);
            assert_true(s.st[i] == AT_OK || s.st[i] == AT_ENOMEM);
        }
        ended += s.st[0] != AT_OK;
        at_model_forget(s.model); // a failed session's entry
    }
    assert_true(ended > 20 / STRIDE);
    run(&s);
    all_went_well(&s);
    close_step(&s);
}

static void any_allocation_fails(void **state)
{
    (void)state;
    every_allocation(&flux, "cfg=2,ulysses=2");
    every_allocation(&sd15, "patch=3");
    every_allocation(&flux, "tp=2");
    every_allocation(&flux, "stale=2,warmup=1");
    every_allocation(&flux, "pipefusion=2");
}

static int set_up(void **state)
{
    (void)state;
    g_backend = *real();
    g_backend.copy = failing_copy;
    g_backend.fill = failing_fill;
    g_backend.unary = failing_unary;
    g_backend.binary = failing_binary;
    g_backend.gate_add = failing_gate_add;
    g_backend.linear = failing_linear;
    g_backend.attention = failing_attention;
    g_backend.attention_merge = failing_attention_merge;
    g_backend.norm = failing_norm;
    g_backend.lincomb = failing_lincomb;
    g_backend.group_norm = failing_group_norm;
    if (g_backend.group_stats) g_backend.group_stats = failing_group_stats;
    g_backend.rope = failing_rope;
    g_backend.ropes = NULL; // one after the other
    g_backend.conv2d = failing_conv2d;
    if (g_backend.geglu) g_backend.geglu = failing_geglu;
    g_ops = *at_device_cpu()->ops;
    g_ops.aside = count_aside;
    at_device_cpu()->ops = &g_ops;
    return 0;
}

int main(void)
{
    setenv("AT_ON", "aside-stream,aside-mlp", 1); // also what is off by default
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transformer_rank_fails_at_any_op),
        cmocka_unit_test(a_ring_fails_at_any_op),
        cmocka_unit_test(an_approximate_step_fails_at_any_op),
        cmocka_unit_test(a_unet_rank_fails_at_any_op),
        cmocka_unit_test(any_allocation_fails),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
