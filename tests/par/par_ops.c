// SPDX-License-Identifier: Apache-2.0
// par_ops.c - n ranks give what one rank gives, for a small transformer of every op that exchanges.
// Idea: one forward of two streams (text and image, joined for attention as in FLUX) runs on 1 to 5 ranks
// over threads. A single stream on the plain C backend must give the same bits; two streams change the
// order in which keys are summed, and faster kernels the order of everything, so those may differ by
// rounding. Then the same forward with any allocation failing, any op cancelled, and one rank failing:
// all ranks end, agree on the reason and leave no bytes.
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "cpu/cpu.h"
#include "ops/ops.h"

enum { MOST_RANKS = 5, HEAD = 4, BLOCKS = 2 };

// One case: sizes, weights and inputs. Weights are made once per case.
typedef struct problem {
    int64_t batch, text, image; // tokens; text 0: a single stream
    int heads;
    int64_t dim;
    at_store *store;
    float *x_text, *x_image;
} problem;

typedef struct rank_run {
    const problem *p;
    at_comm *comm;
    const at_sink *sink;
    int fail_rank, fail_at; // this rank poisons itself before block fail_at; -1: none
    at_status st;
    char text[256];
    float *out; // [batch, image, dim] or NULL
} rank_run;

// --- the forward -----------------------------------------------------------------------------
static const at_weight *w(const rank_run *r, int block, const char *name)
{
    return at_store_findf(r->p->store, "%d.%s", block, name);
}

static at_tensor *heads_of(at_ops *o, const at_tensor *qkv, int part, int heads)
{
    int64_t d = qkv->shape[2] / 3;
    at_tensor *t = at_narrow(o, qkv, 2, part * d, d);

    return at_reshape(o, t, 4, (int64_t[]){qkv->shape[0], qkv->shape[1], heads, d / heads});
}

static at_tensor *block(at_ops *o, const rank_run *r, int i, at_tensor *x)
{
    at_tensor *h = at_norm(o, x, &(at_norm_spec){.weight = w(r, i, "norm"), .eps = 1e-6f});
    at_tensor *qkv = at_linear(o, h, w(r, i, "qkv"), NULL, NULL), *q, *k, *v, *a;

    if (!qkv) return at_attention(o, NULL, NULL, NULL, NULL, 0, false);
    q = at_rope(o, heads_of(o, qkv, 0, r->p->heads), w(r, i, "qnorm"), 1e-6f, NULL, false);
    k = at_rope(o, heads_of(o, qkv, 1, r->p->heads), w(r, i, "qnorm"), 1e-6f, NULL, false);
    v = heads_of(o, qkv, 2, r->p->heads);
    a = at_attention(o, q, k, v, NULL, 0, false);
    x = at_linear(o, a, w(r, i, "proj"), NULL, &(at_linear_extra){.residual = x});
    h = at_norm(o, x, &(at_norm_spec){.weight = w(r, i, "norm"), .eps = 1e-6f, .rms = true});
    h = at_linear(o, h, w(r, i, "up"), NULL, &(at_linear_extra){.act = AT_ACT_GELU_TANH});
    return at_linear(o, h, w(r, i, "down"), NULL, &(at_linear_extra){.residual = x});
}

static at_tensor *forward(at_ops *o, const rank_run *r)
{
    const problem *p = r->p;
    at_tensor *image, *text = NULL, *x;
    int64_t own_text = 0;

    image = at_from_host(o, AT_F32, 3, (int64_t[]){p->batch, p->image, p->dim}, p->x_image);
    image = x = at_split_tokens(o, image);
    if (p->text) {
        text = at_from_host(o, AT_F32, 3, (int64_t[]){p->batch, p->text, p->dim}, p->x_text);
        text = at_split_tokens(o, text);
        if (text) own_text = text->shape[1];
        x = at_concat(o, 1, 2, (const at_tensor *[]){text, image});
    }
    for (int i = 0; i < BLOCKS; i++) {
        at_scope_begin(o);
        if (r->comm->rank == r->fail_rank && i == r->fail_at) {
            at_ops_poison(o, AT_EDEVICE, "the card of rank %d fell out", r->comm->rank);
        }
        x = at_scope_end(o, block(o, r, i, x));
    }
    if (x && p->text) x = at_narrow(o, x, 1, own_text, x->shape[1] - own_text);
    return at_gather_tokens(o, x, p->image);
}

static void *rank_main(void *arg)
{
    rank_run *r = arg;
    at_ops_config config = {.compute = AT_F32, .comm = r->comm, .sink = r->sink};
    at_ops *o = NULL;
    at_tensor *out;
    int vote = 0;

    // A rank that cannot even begin must still take part in the votes.
    r->st = at_ops_new(&config, &o);
    if (r->st != AT_OK) r->comm->ops->abort(r->comm, (int)r->st);
    r->comm->ops->vote(r->comm, (int)r->st, &vote);
    if (vote != AT_OK) {
        r->st = (at_status)vote;
        at_ops_free(o);
        return NULL;
    }
    out = forward(o, r);
    r->st = at_ops_vote(o);
    if (r->st != AT_OK) strncpy(r->text, at_error_text(), sizeof r->text - 1);
    if (r->st == AT_OK) {
        r->out = at_calloc((size_t)at_tensor_count(out), sizeof *r->out);
        if (!r->out) r->st = AT_ENOMEM;
        if (r->out) r->st = at_tensor_to_host(out, AT_F32, r->out, at_tensor_bytes(out));
    }
    at_ops_free(o);
    return NULL;
}

// --- running ---------------------------------------------------------------------------------
typedef struct ranks {
    int n;
    rank_run run[MOST_RANKS];
} ranks;

static at_status run_ranks(const problem *p, int n, ranks *rs, const rank_run *like)
{
    at_comm *comm[MOST_RANKS] = {0};
    pthread_t id[MOST_RANKS];
    at_status st = at_comm_threads(n, comm);

    rs->n = n;
    for (int i = 0; i < n; i++) {
        rs->run[i] = *like;
        rs->run[i].p = p;
        rs->run[i].comm = comm[i];
        rs->run[i].st = st;
    }
    if (st != AT_OK) return st;
    for (int i = 0; i < n; i++) {
        assert_int_equal(pthread_create(&id[i], NULL, rank_main, &rs->run[i]), 0);
    }
    for (int i = 0; i < n; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < n; i++)
        at_comm_free(comm[i]);
    return AT_OK;
}

static void free_ranks(ranks *rs)
{
    for (int i = 0; i < rs->n; i++)
        at_free(rs->run[i].out);
}

static const rank_run plain_run = {.fail_rank = -1};

// --- problems --------------------------------------------------------------------------------
static float *random_values(at_mt19937 *rng, int64_t n, float scale)
{
    float *v = at_calloc((size_t)n + 1, sizeof *v);

    for (int64_t i = 0; i < n; i++)
        v[i] = scale * (2 * at_mt_f32(rng) - 1);
    return v;
}

static void fill(void *ctx, void *bytes, size_t n)
{
    memcpy(bytes, ctx, n);
}

static void add_weight(problem *p, at_mt19937 *rng, int i, const char *what, int64_t rows,
                       int64_t columns)
{
    int64_t shape[2] = {rows, columns};
    float *v = random_values(rng, rows * columns, columns > 1 ? 0.4f : 1);
    char name[32];

    snprintf(name, sizeof name, "%d.%s", i, what);
    assert_int_equal(at_store_add(p->store, name, AT_F32, columns > 1 ? 2 : 1, shape, fill, v),
                     AT_OK);
    at_free(v);
}

static problem make_problem(int64_t batch, int64_t text, int64_t image, int heads)
{
    problem p = {.batch = batch, .text = text, .image = image, .heads = heads, .dim = heads * HEAD};
    at_mt19937 rng;

    at_mt_seed(&rng, (uint64_t)(image * 31 + text * 7 + heads));
    assert_int_equal(at_store_new("par", &p.store), AT_OK);
    for (int i = 0; i < BLOCKS; i++) {
        add_weight(&p, &rng, i, "norm", p.dim, 1);
        add_weight(&p, &rng, i, "qnorm", HEAD, 1);
        add_weight(&p, &rng, i, "qkv", 3 * p.dim, p.dim);
        add_weight(&p, &rng, i, "proj", p.dim, p.dim);
        add_weight(&p, &rng, i, "up", 2 * p.dim, p.dim);
        add_weight(&p, &rng, i, "down", p.dim, 2 * p.dim);
    }
    p.x_image = random_values(&rng, batch * image * p.dim, 1);
    p.x_text = random_values(&rng, batch * text * p.dim, 1);
    return p;
}

static void free_problem(problem *p)
{
    at_store_release(&p->store);
    at_free(p->x_image);
    at_free(p->x_text);
}

// All ranks' results against those of one; the largest difference relative to the largest value.
static double worst_difference(const problem *p, int n)
{
    size_t count = (size_t)(p->batch * p->image * p->dim);
    double worst = 0, largest = 0;
    ranks one, many;

    assert_int_equal(run_ranks(p, 1, &one, &plain_run), AT_OK);
    assert_int_equal(run_ranks(p, n, &many, &plain_run), AT_OK);
    assert_int_equal(one.run[0].st, AT_OK);
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(one.run[0].out[i]));
    assert_true(largest > 0.1 && isfinite(largest));
    for (int r = 0; r < n; r++) {
        if (many.run[r].st != AT_OK) fail_msg("rank %d of %d: %s", r, n, many.run[r].text);
        for (size_t i = 0; i < count; i++) {
            worst = fmax(worst, fabs((double)many.run[r].out[i] - one.run[0].out[i]));
        }
    }
    free_ranks(&one);
    free_ranks(&many);
    return worst / largest;
}

static void compare(int64_t batch, int64_t text, int64_t image, int heads, double tolerance)
{
    problem p = make_problem(batch, text, image, heads);

    for (int n = 2; n <= MOST_RANKS; n++) {
        double d = worst_difference(&p, n);

        if (!(d <= tolerance)) {
            fail_msg("%d ranks, batch %d, %d + %d tokens, %d heads: off by %g", n, (int)batch,
                     (int)text, (int)image, heads, d);
        }
    }
    free_problem(&p);
}

// --- equality --------------------------------------------------------------------------------
// 12 heads: 2, 3 and 4 ranks exchange heads, 5 gather keys. Rows are independent in plain C and one
// stream keeps its order, so not a bit may change.
static void one_stream_gives_the_same_bits(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    compare(1, 0, 24, 12, 0); // divides
    compare(1, 0, 23, 12, 0); // does not
    compare(2, 0, 13, 12, 0);
    compare(1, 0, 7, 1, 0); // fewer heads than ranks
}

static void fewer_tokens_than_ranks_work(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    compare(1, 0, 3, 12, 0); // some ranks hold nothing
    compare(2, 0, 1, 4, 0);
}

// Joined streams stand in another order on several ranks: sums over keys round differently.
static void two_streams_agree_but_for_rounding(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    compare(1, 5, 16, 12, 2e-6);
    compare(2, 7, 9, 12, 2e-6);
    compare(1, 3, 11, 2, 2e-6);
}

static void the_fastest_kernels_agree_too(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    compare(1, 5, 31, 12, 5e-6);
    compare(2, 0, 17, 12, 5e-6);
}

// --- failure ---------------------------------------------------------------------------------
static void a_failing_rank_ends_all_with_its_words(void **state)
{
    problem p = make_problem(1, 3, 9, 4);

    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    for (int n = 1; n <= 4; n++) {
        for (int at = 0; at < BLOCKS; at++) {
            rank_run like = {.fail_rank = n - 1, .fail_at = at};
            size_t live = at_mem_get_stats().live_bytes;
            ranks rs;

            assert_int_equal(run_ranks(&p, n, &rs, &like), AT_OK);
            for (int r = 0; r < n; r++) {
                assert_int_equal(rs.run[r].st, AT_EDEVICE);
                assert_null(rs.run[r].out);
                assert_non_null(strstr(rs.run[r].text, "the card of rank"));
            }
            assert_int_equal(at_mem_get_stats().live_bytes, live);
        }
    }
    free_problem(&p);
}

static void every_failed_allocation_ends_all_ranks(void **state)
{
    problem p = make_problem(1, 2, 5, 2);
    int ended = 0;

    (void)state;
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    for (uint64_t n = 1; n < 5000; n++) {
        size_t live = at_mem_get_stats().live_bytes;
        at_status first;
        ranks rs;
        bool hit;

        at_mem_fail_at(n, false);
        run_ranks(&p, 3, &rs, &plain_run);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        first = rs.run[0].st;
        for (int r = 0; r < 3; r++) {
            at_status st = rs.run[r].st;

            // After the vote each rank stands alone: only the copy of its result may fail there.
            assert_true(st == AT_OK || st == AT_ENOMEM);
            if (rs.run[r].text[0]) assert_int_equal(st, first);
        }
        free_ranks(&rs);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
        if (!hit) break;
        ended++;
    }
    assert_true(ended > 100);
    free_problem(&p);
}

// A backend whose norm raises the cancel flag at its k-th call.
static atomic_bool g_cancel;
static atomic_int g_left;

static at_status cancelling_norm(void *stream, const at_norm_args *a)
{
    if (atomic_fetch_sub(&g_left, 1) == 1) atomic_store(&g_cancel, true);
    return at_cpu_reference()->norm(stream, a);
}

static void cancel_at_any_point_ends_all_ranks(void **state)
{
    problem p = make_problem(1, 0, 9, 4);
    at_sink sink = {.cancel = &g_cancel};
    rank_run like = {.fail_rank = -1, .sink = &sink};
    at_backend b = *at_cpu_reference();
    size_t live = at_mem_get_stats().live_bytes;

    (void)state;
    b.norm = cancelling_norm;
    at_device_set_cpu_backend(&b, "cancels");
    for (int k = 1; k <= 3 * 2 * BLOCKS; k++) {
        ranks rs;

        atomic_store(&g_cancel, false);
        atomic_store(&g_left, k);
        assert_int_equal(run_ranks(&p, 3, &rs, &like), AT_OK);
        for (int r = 0; r < 3; r++)
            assert_int_equal(rs.run[r].st, AT_ECANCELLED);
        free_ranks(&rs);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
    at_device_set_cpu_backend(at_cpu_reference(), "plain C");
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_stream_gives_the_same_bits),
        cmocka_unit_test(fewer_tokens_than_ranks_work),
        cmocka_unit_test(two_streams_agree_but_for_rounding),
        cmocka_unit_test(the_fastest_kernels_agree_too),
        cmocka_unit_test(a_failing_rank_ends_all_with_its_words),
        cmocka_unit_test(every_failed_allocation_ends_all_ranks),
        cmocka_unit_test(cancel_at_any_point_ends_all_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
