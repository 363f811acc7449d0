// SPDX-License-Identifier: Apache-2.0
// team.c - comms, meshes and op contexts around a function on all ranks. See team.h.
#include "nodes/team.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "par/ranks.h"

typedef struct team {
    at_ops_config like;
    const at_env_ranks *env;
    const at_degrees *degrees;
    at_comm *world[AT_ENV_RANKS];
    at_team_fn *fn;
    void *ctx;
} team;

// The op context of a rank that has one, or the failure of any rank.
static at_status begin(team *t, int rank, at_mesh *mesh, at_ops **o)
{
    at_comm *world = t->world[rank];
    at_ops_config config = t->like;
    char text[512];
    int result = 0;

    at_status st = at_mesh_open(world, t->degrees, mesh);
    config.device = t->env->device[rank];
    config.comm = world;
    config.mesh = mesh;
    if (st == AT_OK) st = at_ops_new(&config, o);
    if (st != AT_OK) {
        snprintf(text, sizeof text, "%s", at_error_text());
        world->ops->abort(world, (int)st);
    }
    at_status vote = world->ops->vote(world, (int)st, &result);
    if (st != AT_OK) return at_fail(st, "rank %d: %s", world->rank, text);
    if (vote != AT_OK || result == AT_OK) return vote;
    return at_fail((at_status)result, "another rank could not begin");
}

static at_status run_rank(void *ctx, int rank)
{
    team *t = ctx;
    at_mesh mesh = {0};
    at_ops *o = NULL;
    at_status st = begin(t, rank, &mesh, &o);

    if (st == AT_OK) st = t->fn(t->ctx, rank, o);
    at_ops_free(o);
    at_mesh_close(&mesh);
    return st;
}

// The other ranks run the same in processes of their own. Here this one is the first: it hands out to its own node.
static at_status run_in_world(team *t, at_comm *world)
{
    char text[96];

    if (at_degrees_ranks(t->degrees) != world->size)
        return at_fail(AT_EINVAL, "%s is for %d ranks, and there are %d processes",
                       at_degrees_text(t->degrees, text), at_degrees_ranks(t->degrees),
                       world->size);
    t->world[0] = world;
    return run_rank(t, 0);
}

static at_status run_alone(const at_ops_config *like, at_team_fn *fn, void *ctx)
{
    at_ops *o = NULL;
    at_status st = at_ops_new(like, &o);

    if (st == AT_OK) st = fn(ctx, 0, o);
    at_ops_free(o);
    return st;
}

static void free_comms(int n, at_comm **c)
{
    for (int i = 0; i < n; i++)
        at_comm_free(c[i]);
}

static at_status take_comms(at_env *e, int n, at_comm **out)
{
    at_comm **kept = e->ranks.kept ? e->ranks.kept->of[n] : NULL;

    if (!kept || !kept[0]) return e->open_comms(e, n, out);
    memcpy(out, kept, (size_t)n * sizeof *out);
    kept[0] = NULL;
    return AT_OK;
}

// well: every rank came to its end, so that all have said the same number of things.
static void leave_comms(at_env *e, int n, at_comm **c, bool well)
{
    at_comm **kept = e->ranks.kept ? e->ranks.kept->of[n] : NULL;

    if (!kept || !well || kept[0])
        free_comms(n, c);
    else
        memcpy(kept, c, (size_t)n * sizeof *c);
}

void at_team_comms_free(at_team_comms *k)
{
    if (!k) return;
    for (int n = 0; n <= AT_ENV_RANKS; n++)
        if (k->of[n][0]) free_comms(n, k->of[n]);
    at_free(k);
}

at_status at_team_run(const at_node_ctx *c, const at_ops_config *like, const at_degrees *degrees,
                      at_team_fn *fn, void *ctx)
{
    return at_team_run_in(at_env_of(c), like, degrees, fn, ctx);
}

at_status at_team_run_in(at_env *e, const at_ops_config *like, const at_degrees *degrees,
                         at_team_fn *fn, void *ctx)
{
    at_status st = AT_OK;
    int n = at_degrees_ranks(degrees);
    team t = {.like = *like, .env = &e->ranks, .degrees = degrees, .fn = fn, .ctx = ctx};
    char text[96];

    if (n == 1) return run_alone(like, fn, ctx);
    if (e->ranks.world) return run_in_world(&t, e->ranks.world);
    if (n > e->ranks.n || !e->open_comms)
        return at_fail(AT_EINVAL, "%s needs %d devices, and there are %d",
                       at_degrees_text(degrees, text), n, e->ranks.n);
    st = take_comms(e, n, t.world);
    if (st == AT_EUNSUPPORTED && e->ranks.automatic) { // nobody asked for it
        at_log(AT_WARN, "PARALLEL-NO", "%s: one device works alone", at_error_text());
        return run_alone(like, fn, ctx);
    }
    if (st != AT_OK) return st;
    st = at_ranks_run(n, run_rank, &t);
    leave_comms(e, n, t.world, st == AT_OK);
    return st;
}
