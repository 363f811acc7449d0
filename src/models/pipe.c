// SPDX-License-Identifier: Apache-2.0
// pipe.c - PipeFusion (Fang et al. 2024, arXiv:2405.14430): blocks shared out, pieces of the picture flow through them.
// Idea: each rank holds a run of the blocks, and their weights alone. In tick k rank r works on piece k - r of the
// tokens and hands it on, so that all ranks are busy with different pieces; attention takes the other pieces' keys
// and values as this rank last saw them (ops/ops_held.c): of this forward where they have passed already, else of the
// one before. An exact forward is the same with one piece, and nobody works at the same time.
// Every rank makes the prologue (it is small, and knows the tables and modulations) and the epilogue, the last one's
// result is everybody's.
// Easy to get wrong: all ranks take part in the hand-over of every tick, those too that have nothing to give.
// What is simpler than in the paper: the pipe drains at the end of each step, because a solver wants the whole
// estimate; with M pieces and n ranks a step takes (M + n - 1) / (M n) of one rank's time.
// Owns: the states of the pieces, for a forward.
#include "models/pipe.h"

#include "base/mem.h"
#include "models/denoiser.h"

typedef struct pipe {
    at_ops *o;
    const at_bound *m;
    char *states; // of the pieces
    int rank, ranks, pieces;
    int first, blocks; // of this rank
    int64_t fixed, tokens;
    at_tensor *h; // all tokens
} pipe;

// Tokens of piece i: the fixed ones go with the first.
static void span(const pipe *p, int i, int64_t *first, int64_t *n)
{
    int64_t rest = p->tokens - p->fixed;
    int64_t lo = rest * i / p->pieces, hi = rest * (i + 1) / p->pieces;

    *first = i ? p->fixed + lo : 0;
    *n = hi - lo + (i ? 0 : p->fixed);
}

static at_tensor *piece(const pipe *p, int i)
{
    int64_t first, n;

    if (i < 0 || i >= p->pieces) return NULL;
    span(p, i, &first, &n);
    return at_narrow(p->o, p->h, 1, first, n);
}

// This rank's blocks over piece i, in place.
static void work(const pipe *p, int i)
{
    at_ops *o = p->o;
    const at_denoiser_ops *d = p->m->arch->denoiser;
    void *state = p->states + (size_t)i * d->state_size;
    int64_t first, n;

    span(p, i, &first, &n);
    at_scope_begin(o);
    at_tensor *x = piece(p, i), *h = at_ops_keep(o, x);
    at_ops_hold_part(o, first, p->tokens);
    for (int k = p->first; k < p->first + p->blocks && at_ops_status(o) == AT_OK; k++) {
        if (at_sink_cancelled(at_ops_sink(o)))
            at_ops_poison(o, AT_ECANCELLED, "interrupted before block %d", k);
        else
            h = at_denoiser_block(o, p->m, state, k, h);
    }
    at_ops_hold_part(o, 0, 0);
    if (h && x && at_tensor_data(h) != at_tensor_data(x)) at_unary(at_into(o, x), h, AT_ACT_NONE);
    at_scope_end(o, NULL);
    at_tensor_release(&h);
}

static void flow(const pipe *p)
{
    at_ops *o = p->o;
    int ticks = p->pieces + p->ranks - 1;

    for (int k = 0; k < ticks && at_ops_status(o) == AT_OK; k++) {
        int mine = k - p->rank;
        bool busy = mine >= 0 && mine < p->pieces;

        if (busy) work(p, mine);
        at_scope_begin(o);
        at_tensor *give = p->rank + 1 < p->ranks ? piece(p, mine) : NULL;
        at_tensor *take = p->rank ? piece(p, mine + 1) : NULL;
        at_pass_on(o, give, take);
        at_scope_end(o, NULL);
    }
}

static bool begin(pipe *p, const at_model_in *in, void *state)
{
    at_ops *o = p->o;
    const at_denoiser_ops *d = p->m->arch->denoiser;
    const at_mesh *mesh = at_ops_mesh(o);
    at_comm *c = mesh->axis[AT_AXIS_PIPE];

    p->rank = c->rank;
    p->ranks = c->size;
    p->h = d->prologue(o, p->m, state, in);
    if (!p->h) return false;
    p->tokens = p->h->shape[1];
    p->fixed = d->fixed(state);
    p->pieces = at_ops_displaced(o) ? at_degrees_patches(&mesh->degrees) : 1;
    if (p->pieces > p->tokens - p->fixed) p->pieces = (int)(p->tokens - p->fixed);
    if (p->pieces < 1) p->pieces = 1;
    at_ops_own_blocks(o, d->blocks(p->m->config), &p->first, &p->blocks);
    p->states = at_calloc((size_t)p->pieces, d->state_size);
    if (!p->states) {
        at_ops_poison(o, AT_ENOMEM, "%s: no memory for %d pieces", p->m->arch->title, p->pieces);
        return false;
    }
    for (int i = 0; i < p->pieces; i++) {
        int64_t first, n;
        span(p, i, &first, &n);
        d->part(o, state, first, n, p->states + (size_t)i * d->state_size);
    }
    return at_ops_status(o) == AT_OK;
}

at_tensor *at_pipe_run(at_ops *o, const at_bound *m, const at_model_in *in)
{
    const at_denoiser_ops *d = m->arch->denoiser;
    pipe p = {.o = o, .m = m};
    at_tensor *out = NULL;

    if (!d->part)
        return at_ops_poison(o, AT_EUNSUPPORTED,
                             "%s cannot be shared by pipefusion: its blocks are not one sequence "
                             "of tokens; try patch=N, stale=N or auto",
                             m->arch->title);
    void *state = at_calloc(1, d->state_size);
    if (!state)
        return at_ops_poison(o, AT_ENOMEM, "%s: no memory for %zu bytes", m->arch->title,
                             d->state_size);
    at_scope_begin(o);
    if (begin(&p, in, state)) {
        flow(&p);
        out = d->epilogue(o, m, state, p.h);
        at_from_last(o, out);
        if (at_ops_status(o) != AT_OK) out = NULL;
    }
    out = at_scope_end(o, out);
    if (d->finish) d->finish(state);
    at_free(p.states);
    at_free(state);
    return out;
}
