// SPDX-License-Identifier: Apache-2.0
// bench_ranks.h - what bench runs, on one rank or on several.
// Idea: rank 0 is the thread that measures; the others do the steps that it announces. As in a job, ranks vote
// behind each step. Owns: a team owns its threads and comms; the subject stays the caller's.
#ifndef AT_ENGINE_BENCH_RANKS_H
#define AT_ENGINE_BENCH_RANKS_H

#include "engine/bench.h"
#include "engine/trace_ranks.h"

typedef struct at_bench_team at_bench_team;

// What one step needs; exactly one of model, encoder, vae is set.
typedef struct at_bench_subject {
    at_model *model;
    at_encoder *encoder;
    at_vae *vae;
    bool encode;
    at_tensor *x, *context, *pooled;
    int32_t *ids;
    int64_t tokens, batch;
    int64_t result;      // values that the last evaluation gave
    at_bench_team *team; // of rank 0; NULL: alone
} at_bench_subject;

// Inputs in o's outermost scope; a component that is there already is taken as it is.
at_status at_bench_prepare(const at_bench_options *b, at_ops *o, at_store *s, at_bench_subject *u);
void at_bench_subject_free(at_bench_subject *u); // behind the ops that prepared it
// One evaluation by this rank; its result to the host where `out` is given.
at_status at_bench_forward(at_ops *o, at_bench_subject *u, int i, float *out, size_t bytes);
// The same by all ranks of u->team, with their vote; called by rank 0.
at_status at_bench_step(at_ops *o, at_bench_subject *u, int i);

// b->ranks - 1 threads that wait for steps; they take rank 0's component when the first one is announced.
at_status at_bench_team_start(const at_bench_options *b, const at_ops_config *like, at_store *s,
                              at_bench_subject *first, at_bench_team **out);
// The others of several processes: the steps that rank 0 announces, until it has done.
at_status at_bench_follow(at_bench_team *t);
const at_mesh *at_bench_team_mesh(const at_bench_team *t); // of rank 0
// What rank 0's exchanges took since this was asked last; zeros where it is not known.
void at_bench_team_spent(at_bench_team *t, at_wire_spent out[AT_BENCH_RANKS]);
// ||several ranks - one rank|| / ||one rank|| of what they give.
// Steps from here to the end are traced, on all ranks; `ops`: each op by itself, else as they are recorded. The end
// stops the trace and writes `path`; rows as at_trace_write_world gives them. u: the steps' subject, of rank 0.
at_status at_bench_team_trace_begin(at_bench_team *t, bool ops);
at_status at_bench_team_trace_end(at_bench_team *t, const char *path,
                                  at_trace_rank_row rows[AT_TRACE_RANKS], int *n);
at_status at_bench_team_compare(at_bench_team *t, at_ops *o, double *difference);
void at_bench_team_end(at_bench_team *t); // NULL is fine

#endif
