// SPDX-License-Identifier: Apache-2.0
// encoder.c - text encoders as objects.
// Idea: the architecture row holds the forward; this file holds the counted handle.
// Owns: an at_encoder owns one reference to its at_bound.
#include <stdatomic.h>

#include "base/mem.h"
#include "models/arch.h"
#include "models/session.h"

struct at_encoder {
    atomic_int refs;
    at_bound *bound;
};

static at_status encoder_new(const at_arch *arch, at_store *s, const char *prefix, at_encoder **out)
{
    at_status st = AT_OK;
    at_encoder *e = at_calloc(1, sizeof *e);

    if (!e) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a text encoder", at_store_path(s)));
    atomic_init(&e->refs, 1);
    AT_TRY(at_bound_new(arch, s, prefix, &e->bound));
    *out = e;
    e = NULL;
out:
    at_free(e);
    return st;
}

at_status at_encoder_load(at_store *s, const at_found *where, at_encoder **out)
{
    if (where->part != AT_PART_TEXT)
        return at_fail(AT_EINVAL, "%s: %s is no text encoder", at_store_path(s),
                       where->arch->title);
    return encoder_new(where->arch, s, where->prefix, out);
}

at_status at_encoder_with_store(const at_encoder *e, at_store *s, at_encoder **out)
{
    return encoder_new(e->bound->arch, s, e->bound->prefix, out);
}

at_store *at_encoder_store(const at_encoder *e)
{
    return e->bound->store;
}

const char *at_encoder_prefix(const at_encoder *e)
{
    return e->bound->prefix;
}

at_encoder *at_encoder_retain(at_encoder *e)
{
    if (e) atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void at_encoder_release(at_encoder **e)
{
    if (*e && atomic_fetch_sub_explicit(&(*e)->refs, 1, memory_order_acq_rel) == 1) {
        at_bound_release(&(*e)->bound);
        at_free(*e);
    }
    *e = NULL;
}

const at_arch *at_encoder_arch(const at_encoder *e)
{
    return e->bound->arch;
}

int64_t at_encoder_vocab(const at_encoder *e)
{
    return at_size_at(e->bound->config, e->bound->arch->encoder->vocab);
}

int64_t at_encoder_width(const at_encoder *e)
{
    return at_size_at(e->bound->config, e->bound->arch->encoder->width);
}

int64_t at_encoder_layers(const at_encoder *e)
{
    return at_size_at(e->bound->config, e->bound->arch->encoder->layers);
}

int64_t at_encoder_max_tokens(const at_encoder *e)
{
    return at_size_at(e->bound->config, e->bound->arch->encoder->max_tokens);
}

at_tensor *at_encode_put_rows(at_ops *o, at_tensor *x, const at_encode_in *in)
{
    for (size_t i = 0; x && i < in->n_rows; i++) {
        const at_encode_row *r = &in->rows[i];
        if (r->at < 0 || r->at >= x->shape[1])
            return at_ops_poison(o, AT_EINVAL, "an embedding for token %lld of %lld",
                                 (long long)r->at, (long long)x->shape[1]);
        at_tensor *row = at_from_host(o, AT_F32, 3, (int64_t[]){1, 1, x->shape[2]}, r->values);
        at_unary(at_into(o, at_narrow(o, x, 1, r->at, 1)), row, AT_ACT_NONE);
    }
    return x;
}

at_encoded at_encoder_forward(at_ops *o, at_encoder *e, const at_encode_in *in)
{
    at_encoded none = {0};
    const at_arch *a = e->bound->arch;
    int64_t most = at_encoder_max_tokens(e);

    if (in->batch < 1 || in->tokens < 1 || (most && in->tokens > most)) {
        at_ops_poison(o, AT_EINVAL, "%s: %lld x %lld tokens; a row has 1 to %lld", a->title,
                      (long long)in->batch, (long long)in->tokens,
                      (long long)(most ? most : INT32_MAX));
        return none;
    }
    // The results outlive the forward's scope one by one.
    at_scope_begin(o);
    at_tensor *x = a->encoder->embed(o, e->bound, in), *out[2] = {0};
    if (x) at_session_encode(o, e->bound, in, x, out);
    at_encoded r = {.hidden = out[0]};
    if (out[1] && a->encoder->pool) a->encoder->pool(o, e->bound, in, out[1], &r);
    at_tensor *hidden = at_ops_keep(o, r.hidden), *pooled = at_ops_keep(o, r.pooled);
    at_tensor *projected = at_ops_keep(o, r.pooled_projected);
    at_scope_end(o, NULL);
    none.hidden = hidden ? at_ops_adopt(o, hidden) : NULL;
    none.pooled = pooled ? at_ops_adopt(o, pooled) : NULL;
    none.pooled_projected = projected ? at_ops_adopt(o, projected) : NULL;
    return none;
}
