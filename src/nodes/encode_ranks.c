// SPDX-License-Identifier: Apache-2.0
// encode_ranks.c - see encode_ranks.h.
// Easy to get wrong: ranks are the env's devices from the first on; an encoder that was put on another device stays
// there alone. Every rank makes the same result; rank 0's is kept before its op context goes.
#include "nodes/encode_ranks.h"

#include "base/str.h"
#include "nodes/team.h"

typedef struct shared {
    at_encoder *e;
    const at_encode_in *in;
    at_tensor *hidden, *pooled, *projected; // counted, of rank 0
} shared;

static double weight_bytes(at_encoder *e)
{
    at_store *s = at_encoder_store(e);
    double sum = 0;

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (at_starts_with(w->name, at_encoder_prefix(e))) sum += (double)w->bytes;
    }
    return sum;
}

static at_degrees degrees_of(const at_env *env, const at_ops *o, at_encoder *e)
{
    static const double usable = 0.8; // of a device's memory
    const at_env_ranks *r = env ? &env->ranks : NULL;
    at_degrees d = {0};

    if (!r || r->n < 2 || r->device[0] != at_ops_device(o) || at_ops_comm(o)->size > 1) return d;
    if (!r->automatic) {
        d.of[AT_AXIS_TP] = r->degrees.of[AT_AXIS_TP];
    } else if (r->site.memory > 0) {
        double devices = weight_bytes(e) / (usable * r->site.memory);
        while (d.of[AT_AXIS_TP] < devices && d.of[AT_AXIS_TP] < r->n)
            d.of[AT_AXIS_TP]++;
    }
    return d;
}

static at_status on_rank(void *ctx, int rank, at_ops *o)
{
    shared *k = ctx;
    at_encoded r = at_encoder_forward(o, k->e, k->in);
    at_status st = at_ops_vote(o);

    if (st != AT_OK || rank) return st;
    k->hidden = at_ops_keep(o, r.hidden);
    k->pooled = at_ops_keep(o, r.pooled);
    k->projected = at_ops_keep(o, r.pooled_projected);
    return AT_OK;
}

at_encoded at_encode_forward(at_env *env, at_ops *o, at_encoder *e, const at_encode_in *in)
{
    at_encoded out = {0};
    shared k = {.e = e, .in = in};
    at_degrees d = degrees_of(env, o, e);
    int leave = at_ops_leave(o);
    at_ops_config like = {.device = at_ops_device(o),
                          .compute = at_ops_compute(o),
                          .sink = at_ops_sink(o),
                          .int8 = leave & 1,
                          .fp8 = leave & 2,
                          .weights8 = leave & 4};

    if (at_degrees_ranks(&d) == 1 || at_ops_status(o) != AT_OK) return at_encoder_forward(o, e, in);
    at_status st = at_team_run_in(env, &like, &d, on_rank, &k);
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    out.hidden = at_ops_adopt(o, k.hidden);
    out.pooled = at_ops_adopt(o, k.pooled);
    out.pooled_projected = at_ops_adopt(o, k.projected);
    return st == AT_OK ? out : (at_encoded){0};
}
