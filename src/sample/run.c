// SPDX-License-Identifier: Apache-2.0
// run.c - one sampling run: noise in, the solver's loop, masks, noise scaling out.
// Idea: a scope and a vote per step, whatever the solver does; so memory stays bounded and no rank
// leaves the loop alone.
// Source: comfyui-contract section 5.5. Owns: what a run holds, until run_free.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/trace.h"
#include "sample/guidance.h"
#include "sample/solver.h"

// --- making a run --------------------------------------------------------------------------------
static void put(at_run *r, at_tensor **place, at_tensor *t)
{
    at_tensor *kept = t ? at_ops_keep(r->o, t) : NULL;
    at_tensor_release(place);
    *place = kept;
}

static void run_free(at_run *r)
{
    at_tensor_release(&r->x);
    for (int i = 0; i < r->past_n; i++)
        at_tensor_release(&r->past[i]);
    for (int i = 0; i < AT_RUN_SLOTS; i++)
        at_tensor_release(&r->slot[i]);
    at_tensor_release(&r->mask);
    at_tensor_release(&r->unmask);
    at_tensor_release(&r->mask_noise);
    at_tensor_release(&r->latent);
    at_brownian_free(r->tree);
    at_free(r->past);
    at_free(r->s);
    at_free(r->table);
    at_free(r->host);
    at_free(r->scratch);
}

static at_status copy_sigmas(at_run *r)
{
    const at_sample_args *a = r->args;

    if (a->n_sigmas > AT_STEPS_MAX + 1)
        return at_fail(AT_EINVAL, "%zu sigmas, expected at most %d", a->n_sigmas, AT_STEPS_MAX + 1);
    r->s = at_calloc(a->n_sigmas, sizeof *r->s);
    if (!r->s) return at_fail(AT_ENOMEM, "sampler: no memory for %zu sigmas", a->n_sigmas);
    r->n = r->rounds = (int)a->n_sigmas - 1;
    r->tree_min = INFINITY;
    for (int i = 0; i <= r->n; i++) {
        double s = r->s[i] = a->sigmas[i];
        if (!(s >= 0) || !isfinite(s))
            return at_fail(AT_EINVAL, "sigma %d of the schedule is %g, expected a number >= 0", i,
                           s);
        if (s > 0 && s < r->tree_min) r->tree_min = s;
        if (s > r->tree_max) r->tree_max = s;
    }
    return AT_OK;
}

static at_status begin(at_run *r)
{
    if (r->n > 0 && (r->solver->flags & AT_SOLVER_OFFSET) && at_run_is_flow(r) && r->s[0] >= 1)
        r->s[0] = (float)at_percent_to_sigma(r->ms, 1e-4);
    r->past_max = 4;
    if (r->solver->begin && r->n > 0) {
        at_status st = r->solver->begin(r);
        if (st != AT_OK) return st;
    }
    r->past = at_calloc((size_t)r->past_max, sizeof *r->past);
    if (!r->past) return at_fail(AT_ENOMEM, "sampler: no memory");
    return AT_OK;
}

static at_status check(const at_denoiser *d, const at_sample_args *a)
{
    const at_tensor *n = a->noise, *l = a->latent;

    if (at_sampler_find(a->sampler) < 0)
        return at_fail(AT_EINVAL, "sampler \"%s\" is unknown", a->sampler ? a->sampler : "(none)");
    if (!d || !d->call || !d->sampling) return at_fail(AT_EINVAL, "sampler: no denoiser");
    if (!n && !l) return at_fail(AT_EINVAL, "sampler: neither noise nor latent");
    if ((n && n->dtype != AT_F32) || (l && l->dtype != AT_F32))
        return at_fail(AT_EINVAL, "sampler: noise and latent must be f32");
    if (n && l &&
        (n->rank != l->rank ||
         memcmp(n->shape, l->shape, sizeof(int64_t) * (size_t)n->rank) != 0)) {
        char a_text[128], b_text[128];
        return at_fail(AT_EINVAL, "noise is %s, latent is %s: they must agree",
                       at_shape_text(n->dtype, n->rank, n->shape, a_text),
                       at_shape_text(l->dtype, l->rank, l->shape, b_text));
    }
    if (a->n_sigmas && !a->sigmas) return at_fail(AT_EINVAL, "sampler: no sigmas");
    return AT_OK;
}

// --- noise ---------------------------------------------------------------------------------------
static at_tensor *upload(at_run *r)
{
    return at_from_host(r->o, AT_F32, r->x->rank, r->x->shape, r->host);
}

static bool host_ready(at_run *r)
{
    if (at_ops_status(r->o) != AT_OK) return false;
    if (!r->host) r->host = at_calloc((size_t)r->count, sizeof *r->host);
    if (!r->host)
        at_ops_poison(r->o, AT_ENOMEM, "sampler: no memory for %lld values of noise",
                      (long long)r->count);
    return r->host != NULL;
}

at_tensor *at_run_noise(at_run *r)
{
    if (!host_ready(r)) return NULL;
    at_generator_randn(&r->noise, r->host, r->count);
    return upload(r);
}

// manual_seed(seed), then the initial noise
static bool global_ready(at_run *r)
{
    if (!host_ready(r)) return false;
    if (r->global_seeded) return true;
    at_generator_seed(&r->global, r->args->seed);
    at_generator_randn(&r->global, r->host, r->count);
    r->global_seeded = true;
    return true;
}

at_tensor *at_run_global_noise(at_run *r)
{
    if (!global_ready(r)) return NULL;
    at_generator_randn(&r->global, r->host, r->count);
    return upload(r);
}

at_tensor *at_run_global_noise_like(at_run *r, const at_tensor *t)
{
    if (!t || !global_ready(r)) return NULL;
    size_t n = (size_t)at_tensor_count(t);
    float *values = at_calloc(n ? n : 1, sizeof *values);
    if (!values)
        return at_ops_poison(r->o, AT_ENOMEM, "sampler: no memory for %zu values of noise", n);
    at_generator_randn(&r->global, values, (int64_t)n);
    at_tensor *noise = at_from_host(r->o, AT_F32, t->rank, t->shape, values);
    at_free(values);
    return noise;
}

at_tensor *at_run_path(at_run *r, double from, double to)
{
    at_status st = AT_OK;

    if (!host_ready(r)) return NULL;
    if (!r->tree) st = at_brownian_new(r->args->seed, r->tree_min, r->tree_max, r->count, &r->tree);
    if (st == AT_OK) st = at_brownian_step(r->tree, from, to, r->host);
    if (st != AT_OK) return at_ops_poison(r->o, st, "%s", at_error_text());
    return upload(r);
}

// --- asking --------------------------------------------------------------------------------------
// A mask that moves from step to step is asked for anew.
static void move_mask(at_run *r, double sigma)
{
    if (!r->mask || !r->args->mask_at || at_ops_status(r->o) != AT_OK) return;
    at_tensor *m = r->args->mask_at(r->args->mask_ctx, r->o, (float)sigma);
    if (!m) return;
    put(r, &r->mask, m);
    put(r, &r->unmask, at_affine(r->o, m, -1, 1));
}

// Outside the mask the network sees the known latent, noised to this sigma.
static at_tensor *under_mask(at_run *r, const at_tensor *x, double sigma)
{
    at_tensor *known = at_add_noise(r->o, r->ms, (float)sigma, r->mask_noise, r->latent, false);
    return at_add(r->o, at_mul(r->o, x, r->mask), at_mul(r->o, known, r->unmask));
}

at_denoised at_run_eval(at_run *r, const at_tensor *x, double sigma)
{
    at_denoised d = {0};
    bool uncond = r->solver->flags & AT_SOLVER_UNCOND;

    move_mask(r, sigma);
    if (r->mask) x = under_mask(r, x, sigma);
    if (at_ops_status(r->o) != AT_OK || !x) return d;
    d = r->model->call(r->model->ctx, r->o, x, (float)sigma, uncond);
    if (at_ops_status(r->o) == AT_OK && (!d.out || (uncond && !d.uncond)))
        at_ops_poison(r->o, AT_EINTERNAL, "the denoiser gave no %s", d.out ? "uncond" : "result");
    if (r->mask)
        d.out = at_add(r->o, at_mul(r->o, d.out, r->mask), at_mul(r->o, r->latent, r->unmask));
    return d;
}

void at_run_report(at_run *r, int i, const at_tensor *x, const at_tensor *denoised)
{
    if (r->args->on_step && x && denoised && at_ops_status(r->o) == AT_OK)
        r->args->on_step(r->args->on_step_ctx, i, r->n, denoised, x);
}

// --- memory --------------------------------------------------------------------------------------
void at_run_push(at_run *r, at_tensor *t)
{
    at_tensor *kept = t ? at_ops_keep(r->o, t) : NULL;

    if (!kept) return;
    if (r->past_n == r->past_max) at_tensor_release(&r->past[--r->past_n]);
    memmove(r->past + 1, r->past, (size_t)r->past_n * sizeof *r->past);
    r->past[0] = kept;
    r->past_n++;
}

void at_run_put(at_run *r, int slot, at_tensor *t)
{
    put(r, &r->slot[slot], t);
}

at_status at_run_table(at_run *r, size_t n)
{
    r->table = at_calloc(n ? n : 1, sizeof *r->table);
    return r->table ? AT_OK : at_fail(AT_ENOMEM, "sampler: no memory for %zu coefficients", n);
}

// --- the loop ------------------------------------------------------------------------------------
static at_tensor *zeros_like(at_run *r, const at_tensor *t)
{
    return at_zeros(r->o, AT_F32, t->rank, t->shape);
}

static void set_mask(at_run *r, const at_tensor *noise, const at_tensor *latent)
{
    const at_tensor *m = r->args->noise_mask;

    if (!m) return;
    put(r, &r->mask, at_cast(r->o, m, AT_F32));
    put(r, &r->unmask, at_affine(r->o, r->mask, -1, 1));
    put(r, &r->latent, at_mix(r->o, {1, latent}));
    if (r->solver->flags & AT_SOLVER_FRESH_MASK && host_ready(r)) {
        at_randn(r->args->seed + 1, r->host, r->count);
        put(r, &r->mask_noise, upload(r));
    } else {
        put(r, &r->mask_noise, at_mix(r->o, {1, noise}));
    }
}

static void start(at_run *r)
{
    const at_sample_args *a = r->args;
    const at_tensor *noise = a->noise ? a->noise : zeros_like(r, a->latent);
    const at_tensor *latent = a->latent ? a->latent : zeros_like(r, a->noise);
    float first = a->sigmas[0];

    put(r, &r->x, at_add_noise(r->o, r->ms, first, noise, latent, at_is_max_denoise(r->ms, first)));
    if (!r->x) return;
    r->count = at_tensor_count(r->x);
    at_generator_seed(&r->noise, a->seed);
    set_mask(r, noise, latent);
}

// After a vote that says stop, every rank stops, also one that did nothing wrong.
static bool stopped(at_run *r, int step)
{
    at_status vote = at_ops_vote(r->o);

    if (vote == AT_OK) return false;
    if (at_ops_status(r->o) == AT_OK)
        at_ops_poison(r->o, vote, "another rank stopped at step %d: %s", step, at_error_text());
    return true;
}

static void loop(at_run *r)
{
    if (stopped(r, 0)) return; // also where a rank failed to prepare
    for (int i = 0; i < r->rounds && !r->done; i++) {
        double began = at_trace_begin();
        at_scope_begin(r->o);
        if (at_ops_status(r->o) == AT_OK) put(r, &r->x, r->solver->step(r, i));
        at_scope_end(r->o, NULL);
        bool over = stopped(r, i);
        at_trace_end(began, "step", "step %d of %d", i + 1, r->rounds);
        if (over) return;
    }
}

at_tensor *at_sample(at_ops *o, const at_denoiser *d, const at_sample_args *args)
{
    at_run r = {.o = o, .model = d, .args = args};
    at_tensor *result = NULL;
    at_status st = check(d, args);

    if (at_ops_status(o) != AT_OK) return NULL;
    if (st != AT_OK) return at_ops_poison(o, st, "%s", at_error_text());
    if (args->n_sigmas == 0)
        return args->latent ? at_mix(o, {1, args->latent})
                            : at_zeros(o, AT_F32, args->noise->rank, args->noise->shape);
    r.solver = &at_solvers[at_sampler_find(args->sampler)];
    r.ms = d->sampling;
    if (args->options)
        r.opt = *args->options;
    else
        at_sampler_defaults(args->sampler, &r.opt);
    at_scope_begin(o);
    if ((st = copy_sigmas(&r)) != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    if (st == AT_OK) start(&r);
    if (at_ops_status(o) == AT_OK && (st = begin(&r)) != AT_OK)
        at_ops_poison(o, st, "%s", at_error_text());
    loop(&r);
    if (at_ops_status(o) == AT_OK) {
        assert(r.s); // without sigmas the ops are poisoned
        result = at_unscale_noise(o, r.ms, (float)r.s[r.n], at_ops_adopt(o, at_tensor_retain(r.x)));
    }
    at_scope_end(o, result);
    run_free(&r);
    return at_ops_status(o) == AT_OK ? result : NULL;
}
