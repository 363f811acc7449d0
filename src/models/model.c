// SPDX-License-Identifier: Apache-2.0
// model.c - denoisers as objects: loaded, cloned with other sampling facts, evaluated.
// Idea: a clone shares the bound weights; what differs is a value (at_model_sampling).
// Owns: an at_model owns its label and one reference to its at_bound.
#include <limits.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "models/session.h"
#include "models/unbuilt.h"

struct at_model {
    atomic_int refs;
    char *label;
    at_bound *bound;
    at_model_sampling sampling;
    const at_latent_format *latent; // the architecture's, or what a node put in its place
    at_dtype compute;               // AT_DTYPE_COUNT: the device's best
    bool fp8;
};

static void model_free(at_model *m)
{
    if (!m) return;
    at_bound_release(&m->bound);
    at_free(m->label);
    at_free(m);
}

// Takes the reference `bound` on success only.
static at_status model_new(at_bound *bound, const char *label, const at_model_sampling *sampling,
                           at_model **out)
{
    at_model *m = at_calloc(1, sizeof *m);
    char *copy = at_strdup(label);
    if (!m || !copy) {
        at_free(m);
        at_free(copy);
        return at_fail(AT_ENOMEM, "%s: no memory for a model", label);
    }
    atomic_init(&m->refs, 1);
    m->label = copy;
    m->bound = bound;
    m->sampling = *sampling;
    m->latent = bound->arch->latent;
    m->compute = AT_DTYPE_COUNT;
    *out = m;
    return AT_OK;
}

at_status at_model_load(at_store *s, const char *label, at_model **out)
{
    at_status st = AT_OK;
    at_found found[8];
    at_bound *bound = NULL;
    const at_found *f = NULL;
    size_t n = at_detect(s, found, AT_LEN(found));

    for (size_t i = 0; i < n && !f; i++)
        if (found[i].part == AT_PART_DENOISER) f = &found[i];
    if (!f) AT_TRY(at_fail_no_denoiser(s));
    AT_TRY(at_bound_new(f->arch, s, f->prefix, &bound));
    at_model_sampling ms;
    at_arch_sampling(bound->arch, bound->store, bound->prefix, &ms);
    AT_TRY(model_new(bound, label, &ms, out));
    bound = NULL;
out:
    at_bound_release(&bound);
    return st;
}

// The clone of m over other weights (taken, also on failure): what nodes changed stays changed.
static at_status model_clone(const at_model *m, at_bound *bound, at_model **out)
{
    at_status st = model_new(bound, m->label, &m->sampling, out);
    if (st != AT_OK) {
        at_bound_release(&bound);
        return st;
    }
    (*out)->latent = m->latent;
    (*out)->compute = m->compute;
    (*out)->fp8 = m->fp8;
    return AT_OK;
}

at_status at_model_with_sampling(const at_model *m, const at_model_sampling *ms, at_model **out)
{
    at_status st = model_clone(m, at_bound_retain(m->bound), out);
    if (st == AT_OK) (*out)->sampling = *ms;
    return st;
}

at_status at_model_with_latent(const at_model *m, const at_latent_format *f, at_model **out)
{
    at_status st = model_clone(m, at_bound_retain(m->bound), out);
    if (st == AT_OK) (*out)->latent = f;
    return st;
}

at_status at_model_with_compute(const at_model *m, at_dtype compute, at_model **out)
{
    at_status st = model_clone(m, at_bound_retain(m->bound), out);
    if (st == AT_OK) (*out)->compute = compute;
    return st;
}

at_status at_model_with_fp8(const at_model *m, at_model **out)
{
    at_status st = model_clone(m, at_bound_retain(m->bound), out);
    if (st == AT_OK) (*out)->fp8 = true;
    return st;
}

bool at_model_fp8(const at_model *m)
{
    return m->fp8;
}

bool at_model_stored_fp8(const at_model *m)
{
    size_t in_fp8 = 0, all = 0;
    for (size_t i = 0; i < at_store_count(m->bound->store); i++) {
        const at_weight *w = at_store_at(m->bound->store, i);
        if (!at_starts_with(w->name, m->bound->prefix)) continue;
        all += w->bytes;
        if (w->dtype == AT_F8E4M3 || w->dtype == AT_F8E5M2) in_fp8 += w->bytes;
    }
    return in_fp8 > all / 2;
}

at_status at_model_with_store(const at_model *m, at_store *s, at_model **out)
{
    at_status st = AT_OK;
    at_bound *bound = NULL;

    AT_TRY(at_bound_new(m->bound->arch, s, m->bound->prefix, &bound));
    AT_TRY(model_clone(m, bound, out));
out:
    return st;
}

at_store *at_model_store(const at_model *m)
{
    return m->bound->store;
}

const char *at_model_prefix(const at_model *m)
{
    return m->bound->prefix;
}

at_model *at_model_retain(at_model *m)
{
    if (m) atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void at_model_release(at_model **m)
{
    if (*m && atomic_fetch_sub_explicit(&(*m)->refs, 1, memory_order_acq_rel) == 1) model_free(*m);
    *m = NULL;
}

const at_model_sampling *at_model_get_sampling(const at_model *m)
{
    return &m->sampling;
}

const at_latent_format *at_model_latent(const at_model *m)
{
    return m->latent;
}

at_dtype at_model_compute(const at_model *m)
{
    return m->compute;
}

const char *at_model_label(const at_model *m)
{
    return m->label;
}

const at_arch *at_model_arch(const at_model *m)
{
    return m->bound->arch;
}

int at_model_blocks(const at_model *m)
{
    return m->bound->arch->denoiser->blocks(m->bound->config);
}

at_concat_kind at_model_concat(const at_model *m)
{
    return m->bound->arch->concat;
}

int at_model_channels(const at_model *m)
{
    const at_arch *a = m->bound->arch;
    int64_t n = at_size_at(m->bound->config, a->denoiser->channels);
    return n > 0 && n < INT_MAX ? (int)n : a->latent->channels;
}

int64_t at_model_text_width(const at_model *m)
{
    return at_size_at(m->bound->config, m->bound->arch->denoiser->context);
}

int64_t at_model_vector_width(const at_model *m)
{
    return at_size_at(m->bound->config, m->bound->arch->denoiser->vector);
}

bool at_model_text_repeats(const at_model *m)
{
    return m->bound->arch->denoiser->text_repeats;
}

at_tensor *at_model_vector(at_ops *o, const at_model *m, const at_vector_in *in)
{
    const at_arch *a = m->bound->arch;
    return a->vector ? a->vector(o, m->bound, in) : (at_tensor *)in->pooled;
}

at_tensor *at_model_forward(at_ops *o, at_model *m, const at_model_in *in)
{
    if (!in->x || !in->context) return NULL; // poison of the caller
    if (in->x->rank < 4 || in->x->dtype != AT_F32 || in->context->rank != 3)
        return at_ops_poison(o, AT_EINVAL,
                             "%s: x is f32 [b, c, h, w] and context [b, t, d]; got rank %d and %d",
                             m->label, in->x->rank, in->context->rank);
    return at_session_forward(o, m->bound, in);
}

void at_model_forget(at_model *m)
{
    at_sessions_drop(m->bound);
}

at_model_cost at_model_estimate(const at_model *m, int64_t batch, int64_t latent_h,
                                int64_t latent_w, int64_t text_tokens, at_dtype compute)
{
    at_model_cost c = {0};
    at_store *s = m->bound->store;
    double cut = 0;

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (!at_starts_with(w->name, m->bound->prefix)) continue;
        c.weight_bytes += (double)w->bytes;
        if (at_weight_how_cut(w)) cut += (double)w->bytes;
    }
    m->bound->arch->denoiser->cost(m->bound->config, batch, latent_h, latent_w, text_tokens,
                                   compute, &c);
    c.share.tp_weights = cut;
    return c;
}
