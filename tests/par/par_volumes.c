// SPDX-License-Identifier: Apache-2.0
// par_volumes.c - what forecasts say that ranks exchange is what ranks exchange, to the byte.
// Idea: the same forward runs twice: on threads over comms that count what passes, and as one rank alone over a device
// that computes nothing (par/comm_alone.h). Number and bytes of the exchanges of every rank must be equal, along every
// axis, at sizes that do not divide. It is the assumption of docs/bench/several-gpus.md's forecasts that needs no GPU.
#include "par/comm_alone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "atelier/node.h"
#include "cpu/cpu.h"
#include "models/models.h"
#include "models/wave_test.h"
#include "par/ranks.h"
#include "tensor/priced.h"

enum { MOST = 8 };
#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

typedef struct volume {
    double out, in;
    int exchanges;
} volume;

// --- a comm that counts ------------------------------------------------------------------------
typedef struct counted {
    at_comm base;
    at_comm *inner;
    volume *to;
} counted;

static at_comm *inner(at_comm *c)
{
    return ((counted *)c)->inner;
}

static void count(at_comm *c, double out, double in)
{
    volume *v = ((counted *)c)->to;

    if (out <= 0 && in <= 0) return;
    v->out += out;
    v->in += in;
    v->exchanges++;
}

static at_status all_gather(at_comm *c, const void *send, void *recv, size_t bytes)
{
    count(c, (double)bytes * (c->size - 1), (double)bytes * (c->size - 1));
    return inner(c)->ops->all_gather(inner(c), send, recv, bytes);
}

static at_status exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    double out = 0, in = 0;

    for (int i = 0; i < c->size; i++) {
        out += i == c->rank ? 0 : (double)send[i].bytes;
        in += i == c->rank ? 0 : (double)recv[i].bytes;
    }
    count(c, out, in);
    return inner(c)->ops->exchange(inner(c), send, recv);
}

static double bytes_of(const at_view *v)
{
    return v->data ? (double)at_view_count(v) * (double)at_dtype_size(v->dtype) : 0;
}

static at_status scatter(at_comm *c, const at_view *send, const at_view *recv)
{
    double out = 0, in = 0;

    for (int i = 0; i < c->size; i++) {
        out += i == c->rank ? 0 : bytes_of(&send[i]);
        in += i == c->rank ? 0 : bytes_of(&recv[i]);
    }
    count(c, out, in);
    return inner(c)->ops->scatter(inner(c), send, recv);
}

static at_status scatter_end(at_comm *c)
{
    return inner(c)->ops->scatter_end(inner(c));
}

static at_status vote(at_comm *c, int mine, int *result)
{
    return inner(c)->ops->vote(inner(c), mine, result);
}

static at_status tell(at_comm *c, const void *send, void *recv, size_t bytes)
{
    return inner(c)->ops->tell(inner(c), send, recv, bytes);
}

static void give_up(at_comm *c, int code)
{
    inner(c)->ops->abort(inner(c), code);
}

static const at_comm_ops counting = {.all_gather = all_gather,
                                     .exchange = exchange,
                                     .scatter = scatter,
                                     .scatter_begin = scatter,
                                     .scatter_end = scatter_end,
                                     .vote = vote,
                                     .tell = tell,
                                     .abort = give_up};

static void wrap(at_comm **slot, counted *room, volume *to)
{
    if ((*slot)->size == 1) return;
    *room = (counted){.base = {.ops = &counting, .rank = (*slot)->rank, .size = (*slot)->size},
                      .inner = *slot,
                      .to = to};
    *slot = &room->base;
}

// --- one forward -----------------------------------------------------------------------------------
typedef struct net {
    const char *model;
    int64_t channels, context, vector; // vector 0: none
    float t;
} net;

typedef struct job {
    const net *net;
    at_model *model;
    at_degrees degrees;
    int64_t batch, h, w;
    at_comm *world[MOST];
    volume seen[MOST];
} job;

static void forward(at_ops *o, const job *j)
{
    const net *n = j->net;
    float t[] = {n->t, n->t}, g[] = {3.5f, 3.5f};

    at_scope_begin(o);
    at_model_in in = {.x = wave(o, 4, (int64_t[]){j->batch, n->channels, j->h, j->w}, 0),
                      .timestep = t,
                      .context = wave(o, 3, (int64_t[]){j->batch, 7, n->context}, 1),
                      .guidance = g,
                      .key = 1};
    if (n->vector) in.pooled = wave(o, 2, (int64_t[]){j->batch, n->vector}, 2);
    at_model_forward(o, j->model, &in);
    at_scope_end(o, NULL);
}

static at_status run_rank(void *ctx, int rank)
{
    job *j = ctx;
    at_mesh mesh = {0}, seen;
    at_ops *o = NULL;
    counted room[AT_AXES + 2];
    at_status st = at_mesh_open(j->world[rank], &j->degrees, &mesh);

    if (st != AT_OK) return st;
    seen = mesh;
    for (int i = 0; i < AT_AXES; i++)
        wrap(&seen.axis[i], &room[i], &j->seen[rank]);
    wrap(&seen.tokens, &room[AT_AXES], &j->seen[rank]);
    wrap(&seen.world, &room[AT_AXES + 1], &j->seen[rank]);
    st = at_ops_new(&(at_ops_config){.compute = AT_F32, .mesh = &seen}, &o);
    if (st == AT_OK) {
        forward(o, j);
        st = at_ops_vote(o);
    }
    at_ops_free(o);
    at_mesh_close(&mesh);
    return st;
}

static void heard(void *ctx, const at_alone_exchange *e)
{
    volume *v = ctx;

    v->out += e->out;
    v->in += e->in;
    v->exchanges += e->when != AT_ALONE_END;
}

static volume alone(const job *j, int rank, bool sums)
{
    volume v = {0};
    at_mesh mesh;
    at_ops *o = NULL;
    at_priced *p = NULL;

    assert_int_equal(at_priced_new(&at_rates_h200, &p), AT_OK);
    assert_int_equal(at_mesh_alone(&j->degrees, rank, sums, heard, &v, &mesh), AT_OK);
    at_ops_config config = {.device = at_priced_device(p), .compute = AT_F32, .mesh = &mesh};
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    forward(o, j);
    if (at_ops_status(o) != AT_OK) fail_msg("rank %d alone: %s", rank, at_error_text());
    at_ops_free(o);
    at_model_forget(j->model);
    at_mesh_alone_free(&mesh);
    at_priced_free(p);
    return v;
}

static void equal(const char *plan, int rank, const volume *a, const volume *b)
{
    if (a->out != b->out || a->in != b->in || a->exchanges != b->exchanges)
        fail_msg("%s, rank %d: %d exchanges, %.0f bytes out, %.0f in were foreseen; there were %d, "
                 "%.0f, %.0f",
                 plan, rank, a->exchanges, a->out, a->in, b->exchanges, b->out, b->in);
}

static void plan(const net *n, at_model *m, const char *text, int64_t batch, int64_t h, int64_t w)
{
    job j = {.net = n, .model = m, .batch = batch, .h = h, .w = w};
    double all = 0;

    assert_int_equal(at_degrees_parse(text, &j.degrees), AT_OK);
    int ranks = at_degrees_ranks(&j.degrees);
    assert_int_equal(at_comm_threads(ranks, j.world), AT_OK);
    at_status st = at_ranks_run(ranks, run_rank, &j);
    if (st != AT_OK) fail_msg("%s: %s", text, at_error_text());
    for (int r = 0; r < ranks; r++) {
        at_comm_free(j.world[r]);
        volume plain = alone(&j, r, false), sums = alone(&j, r, true);
        equal(text, r, &plain, &j.seen[r]);
        if (j.degrees.of[AT_AXIS_TP] < 2) equal(text, r, &sums, &plain);
        all += plain.out - plain.in;
        assert_true(plain.out > 0 && sums.out > 0);
    }
    assert_true(all == 0); // what is sent is received
}

static void plans(const net *n, const char *const *list, size_t count_of, int64_t h, int64_t w)
{
    at_store *s = NULL;
    at_model *m = NULL;

    assert_int_equal(at_store_open(n->model, &s), AT_OK);
    assert_int_equal(at_model_load(s, "golden", &m), AT_OK);
    at_store_release(&s);
    for (size_t i = 0; i < count_of; i++)
        plan(n, m, list[i], i % 2 ? 2 : 1, h, w);
    at_model_release(&m);
}

static void flux_exchanges_what_was_foreseen(void **state)
{
    static const net flux = {GOLDEN "flux_dev/model.safetensors", 16, 40, 24, 0.8f};
    static const char *const list[] = {"ulysses=2",
                                       "ring=2",
                                       "ulysses=3",
                                       "ring=3",
                                       "ring=2,ulysses=2",
                                       "tp=2",
                                       "tp=2",
                                       "tp=3",
                                       "tp=8",
                                       "ulysses=8",
                                       "ring=4,ulysses=2",
                                       "ring=2,ulysses=4",
                                       "ring=8",
                                       "tp=2,ulysses=4",
                                       "tp=2,ring=4",
                                       "tp=4,ring=2"};

    (void)state;
    plans(&flux, list, AT_COUNT(list), 10, 14);
    plans(&flux, list, AT_COUNT(list), 9, 7);
}

static void unets_exchange_what_was_foreseen(void **state)
{
    static const net sd15 = {GOLDEN "unet_sd15/model.safetensors", 4, 24, 0, 500};
    static const char *const list[] = {"patch=2", "patch=3",      "tp=2",
                                       "patch=8", "tp=2,patch=2", "tp=2,patch=4"};

    (void)state;
    plans(&sd15, list, AT_COUNT(list), 16, 8);
    plans(&sd15, list, AT_COUNT(list), 9, 13);
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
        cmocka_unit_test(flux_exchanges_what_was_foreseen),
        cmocka_unit_test(unets_exchange_what_was_foreseen),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
