// SPDX-License-Identifier: Apache-2.0
// bench_ranks.c - see bench_ranks.h.
// Easy to get wrong: after a vote that failed the others have gone, and nobody may be waited for.
#include "engine/bench_ranks.h"

#include <math.h>
#include <pthread.h>

#include "base/mem.h"
#include "engine/trace_merge.h"
#include "engine/world.h"
#include "tensor/device_trace.h"

enum { STOP = -1, TRACE_SPANS = -2, TRACE_OPS = -3, TRACE_END = -4 };

typedef struct member {
    at_bench_team *team;
    pthread_t thread;
    bool started;
    int rank;
} member;

struct at_bench_team {
    at_bench_options options;
    at_ops_config like;
    at_store *store;
    at_bench_subject *first;
    at_comm *comm[AT_BENCH_RANKS];
    member members[AT_BENCH_RANKS];
    at_mesh mesh; // of rank 0
    bool over;    // the others have been told, or have gone
    int here;     // ranks of this process
};

// What rank 0 wants next; STOP also where it can not be heard any more.
static int announced(at_comm *c, int mine)
{
    int all[AT_BENCH_RANKS];

    return c->ops->tell(c, &mine, all, sizeof mine) == AT_OK ? all[0] : STOP;
}

static at_status rank_step(at_ops *o, at_bench_subject *u, int i)
{
    double began = at_trace_begin();
    at_status st = at_bench_forward(o, u, i, NULL, 0);

    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    st = at_ops_vote(o);
    at_trace_end(began, "step", "step %d", i + 1);
    return st;
}

at_status at_bench_step(at_ops *o, at_bench_subject *u, int i)
{
    at_bench_team *t = u->team;
    at_status st;

    if (!t) return at_bench_forward(o, u, i, NULL, 0);
    if (t->over || announced(t->comm[0], i) != i)
        return at_fail(AT_EINTERNAL, "bench: the other ranks have gone");
    st = rank_step(o, u, i);
    if (st != AT_OK) t->over = true;
    return st;
}

// --- the others --------------------------------------------------------------------------------
static at_status stop_trace(at_bench_team *t, const char *path, at_trace_rank_row *rows, int *n)
{
    at_status st = at_device_trace_stop();

    if (st == AT_OK) st = at_trace_write_world(t->options.world, path, rows, n);
    return st;
}

// What rank 0 says about traces. Ops keep the table that they were opened with: one by one they need new ones.
static at_status follow_trace(at_bench_team *t, int word, const at_ops_config *config, at_ops *o,
                              at_ops **traced)
{
    at_trace_rank_row rows[AT_TRACE_RANKS];
    bool process = t->options.world != NULL;
    at_status st = AT_OK;
    int n;

    if (word == TRACE_END) {
        at_ops_free(*traced);
        *traced = NULL;
        return process ? stop_trace(t, t->options.trace, rows, &n) : AT_OK;
    }
    if (process) at_device_trace_start(word == TRACE_OPS ? AT_TRACE_OPS : AT_TRACE_SPANS);
    if (word == TRACE_OPS) st = at_ops_new(config, traced);
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    return AT_OK; // the vote of the next step says it
}

static at_status follow(member *m, at_mesh *mesh)
{
    at_bench_team *t = m->team;
    at_comm *c = t->comm[m->rank];
    at_bench_subject own = {0}, *u = t->options.world ? t->first : &own;
    at_ops_config config = t->like;
    at_ops *o = NULL, *traced = NULL;
    at_status st = AT_OK;
    int i = announced(c, 0);

    config.device = t->options.devices[m->rank];
    config.mesh = mesh;
    if (i != STOP) {
        u->model = t->first->model;
        u->vae = t->first->vae;
        u->encoder = t->first->encoder;
        st = at_ops_new(&config, &o);
        if (st == AT_OK) st = at_bench_prepare(&t->options, o, t->store, u);
        if (st != AT_OK && o) at_ops_poison(o, st, "%s", at_error_text());
        if (!o) c->ops->abort(c, (int)st);
    }
    for (; i != STOP && o; i = announced(c, 0)) {
        if (i <= TRACE_SPANS)
            st = follow_trace(t, i, &config, o, &traced);
        else
            st = rank_step(traced ? traced : o, u, i);
        if (st != AT_OK) break;
    }
    at_ops_free(traced);
    at_ops_free(o);
    at_free(own.ids);
    return st;
}

static void *member_main(void *arg)
{
    at_trace_set_rank(((member *)arg)->rank);

    member *m = arg;
    at_comm *c = m->team->comm[m->rank];
    at_mesh mesh = {0};

    if (at_mesh_open(c, &m->team->options.degrees, &mesh) == AT_OK)
        (void)follow(m, &mesh); // rank 0 hears of it in the vote
    else
        c->ops->abort(c, AT_EINTERNAL);
    at_mesh_close(&mesh);
    return NULL;
}

// --- making ------------------------------------------------------------------------------------
static at_status open_comms(at_bench_team *t)
{
    const at_bench_options *b = &t->options;

    if (!b->world) return at_world_within(b->comm, b->ranks, b->devices, t->comm);
    t->comm[0] = b->world;
    return AT_OK;
}

at_status at_bench_team_start(const at_bench_options *b, const at_ops_config *like, at_store *s,
                              at_bench_subject *first, at_bench_team **out)
{
    at_status st = AT_OK;
    at_bench_team *t = at_calloc(1, sizeof *t);
    int cfg = b->degrees.of[AT_AXIS_CFG];

    *out = NULL;
    if (!t) return at_fail(AT_ENOMEM, "bench: no memory for %d ranks", b->ranks);
    t->options = *b;
    t->like = *like;
    t->store = s;
    t->first = first;
    t->here = b->world ? 1 : b->ranks;
    if (cfg > 1 && b->batch % cfg)
        AT_TRY(
            at_fail(AT_EINVAL, "bench: a batch of %d on %d ranks; give a multiple", b->batch, cfg));
    if (b->shape->part == AT_PART_TEXT && b->ranks > 1 && b->degrees.of[AT_AXIS_TP] != b->ranks)
        AT_TRY(
            at_fail(AT_EUNSUPPORTED, "bench: ranks share a text encoder by tp=%d alone", b->ranks));
    AT_TRY(open_comms(t));
    for (int i = 1; i < t->here; i++) {
        t->members[i] = (member){.team = t, .rank = i};
        if (pthread_create(&t->members[i].thread, NULL, member_main, &t->members[i]) != 0)
            AT_TRY(at_fail(AT_ENOMEM, "bench: no thread for rank %d", i));
        t->members[i].started = true;
    }
    AT_TRY(at_mesh_open(t->comm[0], &t->options.degrees, &t->mesh));
    *out = t;
    t = NULL;
out:
    if (t && t->comm[0]) t->comm[0]->ops->abort(t->comm[0], AT_ECANCELLED);
    at_bench_team_end(t);
    return st;
}

at_status at_bench_follow(at_bench_team *t)
{
    member m = {.team = t};

    t->over = true; // it is rank 0 that ends it
    return follow(&m, &t->mesh);
}

const at_mesh *at_bench_team_mesh(const at_bench_team *t)
{
    return &t->mesh;
}

// The others wait for word from this rank, and do nothing with their devices meanwhile.
void at_bench_team_spent(at_bench_team *t, at_wire_spent out[AT_BENCH_RANKS])
{
    for (int i = 0; i < t->here; i++) {
        at_comm *c = t->comm[i];

        if (!c->ops->spent || c->ops->spent(c, &out[i]) != AT_OK) out[i] = (at_wire_spent){0};
    }
}

// --- traces ------------------------------------------------------------------------------------
at_status at_bench_team_trace_begin(at_bench_team *t, bool ops)
{
    int word = ops ? TRACE_OPS : TRACE_SPANS;

    at_device_trace_start(ops ? AT_TRACE_OPS : AT_TRACE_SPANS);
    if (!t->over && announced(t->comm[0], word) == word) return AT_OK;
    return at_fail(AT_EINTERNAL, "bench: the other ranks have gone");
}

at_status at_bench_team_trace_end(at_bench_team *t, const char *path,
                                  at_trace_rank_row rows[AT_TRACE_RANKS], int *n)
{
    if (!t->over && announced(t->comm[0], TRACE_END) == TRACE_END)
        return stop_trace(t, path, rows, n);
    (void)at_device_trace_stop();
    return at_fail(AT_EINTERNAL, "bench: the other ranks have gone");
}

void at_bench_team_end(at_bench_team *t)
{
    if (!t) return;
    if (!t->over && t->comm[0] && t->comm[0]->rank == 0) (void)announced(t->comm[0], STOP);
    for (int i = 1; i < t->here; i++)
        if (t->members[i].started) pthread_join(t->members[i].thread, NULL);
    at_mesh_close(&t->mesh);
    for (int i = 0; i < t->here && !t->options.world; i++)
        at_comm_free(t->comm[i]);
    at_free(t);
}

// --- the same as one rank? -----------------------------------------------------------------------
static double distance(const float *a, const float *b, size_t n)
{
    double sum = 0, all = 0;

    for (size_t i = 0; i < n; i++) {
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    return all > 0 ? sqrt(sum / all) : sqrt(sum);
}

at_status at_bench_team_compare(at_bench_team *t, at_ops *o, double *difference)
{
    at_status st = AT_OK;
    at_bench_subject *u = t->first;
    at_ops_config alone = t->like;
    at_ops *one = NULL;
    size_t n = (size_t)u->result;
    float *several = at_calloc(n, sizeof *several), *single = at_calloc(n, sizeof *single);

    *difference = 0;
    if (!n || t->over) goto out;
    if (!several || !single) AT_TRY(at_fail(AT_ENOMEM, "bench: no memory to compare"));
    if (announced(t->comm[0], 0) != 0) AT_TRY(at_fail(AT_EINTERNAL, "bench: the ranks have gone"));
    st = at_bench_forward(o, u, 0, several, n * sizeof *several);
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    st = at_ops_vote(o);
    t->over = st != AT_OK;
    AT_TRY(st);
    AT_TRY(at_ops_new(&alone, &one));
    AT_TRY(at_bench_forward(one, u, 0, single, n * sizeof *single));
    *difference = distance(several, single, n);
out:
    at_ops_free(one);
    at_free(several);
    at_free(single);
    return st;
}
