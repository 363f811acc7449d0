// SPDX-License-Identifier: Apache-2.0
// denoiser.c - the block runner.
// Idea: keep the hidden tensor by a reference of our own, open a scope around each block, drop the
// old hidden tensor when the block has returned a new one.
// Easy to get wrong: a block may return the tensor it was given (in place); tensors that the
// prologue made must stay alive until the epilogue, so the prologue's scope closes last.
// Owns: the times of the last forward, one small table per thread (documented in models.h).
#include "models/denoiser.h"

#include "base/file.h"
#include "base/mem.h"
#include "models/pipe.h"

enum { MAX_TIMED = 256 };
static _Thread_local double block_seconds[MAX_TIMED];
static _Thread_local size_t block_count;

size_t at_model_block_seconds(double *out, size_t max)
{
    size_t n = block_count < max ? block_count : max;
    for (size_t i = 0; i < n; i++)
        out[i] = block_seconds[i];
    return n;
}

at_tensor *at_denoiser_block(at_ops *o, const at_bound *m, void *state, int i, at_tensor *h)
{
    at_scope_begin(o);
    at_tensor *next = at_ops_keep(o, m->arch->denoiser->block(o, m, state, i, h));
    at_scope_end(o, NULL);
    at_tensor_release(&h);
    return next;
}

at_tensor *at_denoiser_run(at_ops *o, const at_bound *m, const at_model_in *in)
{
    const at_denoiser_ops *d = m->arch->denoiser;
    int n = d->blocks(m->config);

    at_ops_hold_first(o);
    if (at_ops_mesh(o)->axis[AT_AXIS_PIPE]->size > 1) return at_pipe_run(o, m, in);
    void *state = at_calloc(1, d->state_size);

    if (!state)
        return at_ops_poison(o, AT_ENOMEM, "%s: no memory for %zu bytes", m->arch->title,
                             d->state_size);
    block_count = n < MAX_TIMED ? (size_t)n : MAX_TIMED;
    for (size_t i = 0; i < block_count; i++)
        block_seconds[i] = 0;

    at_scope_begin(o);
    at_tensor *h = at_ops_keep(o, d->prologue(o, m, state, in));
    for (int i = 0; i < n && at_ops_status(o) == AT_OK; i++) {
        if (at_sink_cancelled(at_ops_sink(o))) {
            at_ops_poison(o, AT_ECANCELLED, "interrupted before block %d of %d", i, n);
            break;
        }
        double start = at_now();
        h = at_denoiser_block(o, m, state, i, h);
        if (i < MAX_TIMED) block_seconds[i] = at_now() - start;
    }
    at_tensor *out = at_ops_status(o) == AT_OK ? d->epilogue(o, m, state, h) : NULL;
    out = at_scope_end(o, out);
    at_tensor_release(&h);
    if (d->finish) d->finish(state);
    at_free(state);
    return out;
}
