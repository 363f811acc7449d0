// SPDX-License-Identifier: Apache-2.0
// sample_run.c - what lies between a sampler node and a solver: latents in, noise, progress, latents out.
// Idea: every rank solves the same equation from the same noise, which it draws by itself; they differ in which
// part of the network's work they do. Rank 0 alone reports and hands out.
// Easy to get wrong: whatever fails on a rank, it takes part in the solver's first vote (team.h).
#include "nodes/guide_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "image/resize.h"
#include "models/latent_format.h"
#include "nodes/latent_preview.h"
#include "nodes/sample_task.h"
#include "nodes/team.h"

static bool all_zero(const at_tensor *t)
{
    const float *p = at_tensor_data(t);
    int64_t n = at_tensor_count(t);
    for (int64_t i = 0; i < n; i++)
        if (p[i] != 0.0f) return false;
    return true;
}

// An empty latent of another model's channel count becomes an empty one of ours (ComfyUI's
// fix_empty_latent_channels); a filled one must fit.
static at_status fit_channels(const at_obj_latent *l, const at_latent_format *f, bool *empty,
                              at_tensor **out)
{
    const at_tensor *s = l->samples;
    *empty = all_zero(s);
    if (s->shape[1] == f->channels) {
        *out = at_tensor_retain(s);
        return AT_OK;
    }
    if (!*empty)
        return at_fail(AT_EINVAL,
                       "the latent has %lld channels, this model wants %d (%s): it was made by "
                       "another kind of VAE",
                       (long long)s->shape[1], f->channels, f->name);
    int64_t shape[AT_MAX_RANK];
    memcpy(shape, s->shape, sizeof shape);
    shape[1] = f->channels;
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, s->rank, shape, out);
    if (st == AT_OK) memset(at_tensor_data(*out), 0, at_tensor_bytes(*out));
    return st;
}

typedef struct progress {
    at_node_ctx *node;
    at_previewer preview;
    at_ops *o;
    at_tensor *denoised; // the newest x0 estimate, one reference
} progress;

static void on_step(void *ctx, int step, int total, const at_tensor *denoised, const at_tensor *x)
{
    progress *p = ctx;
    (void)x;
    at_tensor_release(&p->denoised);
    if (denoised) p->denoised = at_tensor_retain(denoised);
    at_previewer_show(&p->preview, denoised);
    at_node_progress(p->node, step + 1, total);
}

// Device tensor -> process_out -> LATENT on the host.
static at_status finish(at_ops *o, const at_latent_format *f, const at_obj_latent *like,
                        const at_tensor *x, at_object **out)
{
    at_status st = AT_OK;
    at_tensor *host = NULL;
    at_tensor *t = at_contiguous(o, at_latent_from_model(o, f, x));
    AT_TRY(at_ops_status(o));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, t->rank, t->shape, &host));
    AT_TRY(at_tensor_to_host(t, AT_F32, at_tensor_data(host), at_tensor_bytes(host)));
    *out = at_obj_latent_with(like, host);
    host = NULL;
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for the latent"));
out:
    at_tensor_release(&host);
    return st;
}

static at_status make_noise(at_ops *o, const at_sample_job *job, const at_tensor *like,
                            at_tensor **out)
{
    at_status st = AT_OK;
    float *values = NULL;
    if (!job->add_noise) return AT_OK;
    values = at_alloc(at_tensor_bytes(like));
    if (!values) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for the noise"));
    AT_TRY(at_prepare_noise(job->seed, like->rank, like->shape, job->latent->batch_index, values));
    *out = at_from_host(o, AT_F32, like->rank, like->shape, values);
    AT_TRY(at_ops_status(o));
out:
    at_free(values);
    return st;
}

// The mask at the latent's size, one for each latent: a new tensor [b, 1, h, w] on the host.
static at_status fit_mask(const at_tensor *mask, const at_tensor *like, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *flat = NULL, *sized = NULL, *all = NULL;
    int64_t h = mask->rank < 2 ? 0 : mask->shape[mask->rank - 2];
    int64_t w = mask->rank < 2 ? 0 : mask->shape[mask->rank - 1], n = at_tensor_count(mask);

    if (n < 1 || h < 1 || w < 1) AT_TRY(at_fail(AT_EINVAL, "sampler: the noise mask is empty"));
    AT_TRY(at_tensor_reshape(mask, 3, (int64_t[]){n / (h * w), h, w}, &flat));
    AT_TRY(at_resize(flat, AT_ORDER_NHW, like->shape[3], like->shape[2], AT_RESIZE_BILINEAR, false,
                     &sized));
    AT_TRY(at_guide_repeat(sized, like->shape[0], &all));
    AT_TRY(at_tensor_reshape(all, 4, (int64_t[]){like->shape[0], 1, like->shape[2], like->shape[3]},
                             out));
out:
    at_tensor_release(&flat);
    at_tensor_release(&sized);
    at_tensor_release(&all);
    return st;
}

// One run: what all ranks read, and what is a rank's own.
typedef struct work {
    at_node_ctx *node;
    const at_sample_job *job;
    const at_obj_cond *positive, *negative, *third;
    const at_tensor *samples; // host
    bool empty;
    at_tensor *mask;             // host
    at_object **out, **denoised; // of rank 0
    at_degrees degrees;
    char key[AT_SAMPLE_KEY]; // of this work, "" where nobody asks what it takes
    at_ops *o;
    at_guide *guide;
    progress p;
} work;

static const at_latent_format *format_of(const work *k)
{
    return at_model_latent(k->job->model->model);
}

// What each rank may take for a forward: they must decide alike, so all count with the least of all.
static at_status agree_on_memory(at_ops *o, double *out)
{
    at_status st = AT_OK;
    at_comm *c = at_ops_comm(o);
    at_device *d = at_ops_device(o);
    uint64_t rest = 0, total = 0;
    double all[AT_ENV_RANKS], mine = 1e300;

    *out = 0;
    if (c->size == 1 || c->size > AT_ENV_RANKS) return AT_OK;
    if (d->ops->memory(d, &rest, &total) == AT_OK && rest) mine = (double)rest;
    AT_TRY(c->ops->tell(c, &mine, all, sizeof mine));
    *out = all[0];
    for (int i = 1; i < c->size; i++)
        if (all[i] < *out) *out = all[i];
out:
    return st;
}

static at_status open_guide(work *k)
{
    const at_sample_job *job = k->job;
    if (k->samples->rank != 4)
        return at_fail(AT_EUNSUPPORTED, "sampler: latents of %d dimensions are not pictures",
                       k->samples->rank);
    double memory = 0;
    at_status st = agree_on_memory(k->o, &memory);
    if (st != AT_OK) return st;
    at_guide_config config = {.model = job->model,
                              .kind = job->kind,
                              .positive = k->positive,
                              .negative = k->negative,
                              .third = k->third,
                              .memory = memory,
                              .cfg = job->cfg,
                              .cfg2 = job->cfg2,
                              .shape = k->samples->shape,
                              .latent = k->empty ? NULL : k->samples,
                              .mask = k->mask,
                              .sigmas = job->sigmas,
                              .n_sigmas = job->n_sigmas,
                              .seed = job->seed,
                              .noised = job->add_noise,
                              .batch_index = job->latent->batch_index};
    return at_guide_open(k->o, &config, &k->guide);
}

// Everything a solver needs, in the ops' scope.
static at_status prepare(work *k, at_sample_args *args)
{
    at_status st = AT_OK;
    const at_sample_job *job = k->job;
    const at_tensor *s = k->samples;
    at_tensor *noise = NULL, *mask = NULL;

    AT_TRY(open_guide(k));
    at_tensor *x = at_from_host(k->o, AT_F32, s->rank, s->shape, at_tensor_data(s));
    if (!k->empty) x = at_latent_to_model(k->o, format_of(k), x);
    AT_TRY(make_noise(k->o, job, s, &noise));
    if (k->mask) mask = at_from_host(k->o, AT_F32, 4, k->mask->shape, at_tensor_data(k->mask));
    AT_TRY(at_ops_status(k->o));
    *args = (at_sample_args){.sampler = job->sampler,
                             .options = job->options,
                             .sigmas = job->sigmas,
                             .n_sigmas = job->n_sigmas,
                             .noise = noise,
                             .latent = x,
                             .noise_mask = mask,
                             .seed = job->seed,
                             .on_step = k->node ? on_step : NULL,
                             .on_step_ctx = &k->p};
    if (at_guide_moves_mask(k->guide)) {
        args->mask_at = at_guide_mask;
        args->mask_ctx = k->guide;
    }
out:
    return st;
}

static at_status give(work *k, const at_tensor *result)
{
    at_status st = AT_OK;

    AT_TRY(finish(k->o, format_of(k), k->job->latent, result, k->out));
    if (k->denoised && k->p.denoised)
        AT_TRY(finish(k->o, format_of(k), k->job->latent, k->p.denoised, k->denoised));
    else if (k->denoised)
        *k->denoised = at_object_retain(*k->out);
out:
    return st;
}

static at_status solve(void *ctx, int rank, at_ops *o)
{
    work k = *(const work *)ctx;
    at_sample_args args;

    if (rank) k.node = NULL;
    k.o = o;
    k.p.node = k.node;
    k.p.o = o;
    at_status st = prepare(&k, &args);
    if (st != AT_OK) {
        at_ops_poison(o, st, "%s", at_error_text());
        st = at_ops_vote(o);
    } else {
        at_step_watch watch = {.inner = at_guide_denoiser(k.guide)};
        at_denoiser d = at_step_watch_denoiser(&watch);
        at_tensor *r = at_sample(o, &d, &args);
        st = at_ops_status(o);
        // What is measured steers choices among exact ways alone.
        if (st == AT_OK && rank == 0 && k.key[0] && !at_degrees_approximation(&k.degrees))
            at_par_learn(at_env_of(k.node)->ranks.known, k.key, &k.degrees,
                         at_step_watch_median(&watch));
        if (st == AT_OK && rank == 0) st = give(&k, r);
    }
    at_guide_close(k.guide);
    at_tensor_release(&k.p.denoised);
    return st;
}

// --- on which ranks ------------------------------------------------------------------------------
// Text that every rank can read: from the host, where they do not all compute on one device.
static at_status reach(const at_env *e, int ranks, const at_obj_cond *list, at_object **out)
{
    at_status st = AT_OK;
    bool far = false;

    *out = NULL;
    for (int i = 0; i < ranks; i++)
        far |= e->ranks.device[i] != e->device;
    if (!list || ranks == 1 || !far) {
        *out = list ? at_object_retain((at_object *)(uintptr_t)list) : NULL;
        return AT_OK;
    }
    at_object *copy = at_obj_cond_copy(list);
    if (!copy) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for a prompt"));
    at_obj_cond *c = (at_obj_cond *)copy;
    for (size_t i = 0; i < c->count; i++) {
        at_tensor **texts[] = {&c->items[i].context, &c->items[i].pooled,
                               &c->items[i].control_context};
        for (size_t k = 0; k < AT_COUNT(texts); k++) {
            at_tensor *t = *texts[k], *host = NULL;
            if (!t || at_tensor_device(t)->host) continue;
            AT_TRY(at_tensor_new(at_device_cpu(), t->dtype, t->rank, t->shape, &host));
            at_cond_set_tensor(texts[k], host);
            AT_TRY(at_tensor_to_host(t, t->dtype, at_tensor_data(host), at_tensor_bytes(host)));
        }
    }
    *out = copy;
    copy = NULL;
out:
    at_object_release(copy);
    return st;
}

// An approximate way goes into the log, the job's record and, from here on, into saved files: results of this run
// may be kept and saved by later jobs.
static void say_approximate(const work *k, const at_degrees *d)
{
    at_env *e = at_env_of(k->node);
    const char *what = at_degrees_approximation(d);
    char text[96];

    if (!what) return;
    snprintf(e->approximate, sizeof e->approximate, "%s: %s, %d exact steps first",
             at_degrees_text(d, text), what, at_degrees_warmup(d));
    at_log(AT_INFO, "APPROXIMATE", "%s: %s", at_model_label(k->job->model->model), e->approximate);
    at_sink_emit(at_node_sink(k->node), &(at_event){.kind = AT_EV_APPROXIMATE,
                                                    .node = at_node_id(k->node),
                                                    .text = e->approximate});
}

static at_status solve_on_ranks(work *k)
{
    at_status st = AT_OK;
    const at_sample_job *job = k->job;
    const at_env *e = at_env_of(k->node);
    at_object *lists[3] = {NULL};
    at_ops_config config;

    at_env_config_denoiser(k->node, job->model->model, job->model->device, &config);
    at_par_known known[AT_PAR_KNOWN];
    at_par_task task = {.known = known};
    if (e->ranks.n > 1 || e->ranks.all > 1) {
        at_sample_task(job, k->samples->shape, k->samples->rank, &config, &task, k->key);
        task.n_known = at_par_recall(e->ranks.known, k->key, known);
    }
    // Ranks are the env's devices: a network that was put on another one works there alone.
    if (config.device == e->device) k->degrees = at_env_degrees(e, &task, job->degrees);
    int ranks = at_degrees_ranks(&k->degrees);
    char text[96];
    if (ranks > 1)
        at_log(AT_INFO, "PARALLEL", "%s: sampling on %d devices, %s",
               at_model_label(job->model->model), ranks, at_degrees_text(&k->degrees, text));

    say_approximate(k, &k->degrees);
    AT_TRY(reach(e, ranks, job->positive, &lists[0]));
    AT_TRY(reach(e, ranks, job->negative, &lists[1]));
    AT_TRY(reach(e, ranks, job->third, &lists[2]));
    k->positive = (const at_obj_cond *)lists[0];
    k->negative = (const at_obj_cond *)lists[1];
    k->third = (const at_obj_cond *)lists[2];
    AT_TRY(at_team_run(k->node, &config, &k->degrees, solve, k));
out:
    for (int i = 0; i < 3; i++)
        at_object_release(lists[i]);
    return st;
}

at_status at_sample_run(at_node_ctx *c, const at_sample_job *job, at_object **out,
                        at_object **denoised)
{
    at_status st = AT_OK;
    work k = {.node = c, .job = job, .out = out, .denoised = denoised};
    at_tensor *samples = NULL;

    AT_TRY(fit_channels(job->latent, at_model_latent(job->model->model), &k.empty, &samples));
    if (job->n_sigmas == 0) { // nothing to do: the latent comes back as it was
        *out = at_obj_latent_with(job->latent, samples);
        samples = NULL;
        if (!*out) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for the latent"));
        if (denoised) *denoised = at_object_retain(*out);
        goto out;
    }
    k.samples = samples;
    at_previewer_open(c, at_model_latent(job->model->model), &k.p.preview);
    if (job->latent->noise_mask) AT_TRY(fit_mask(job->latent->noise_mask, samples, &k.mask));
    AT_TRY(solve_on_ranks(&k));
out:
    at_previewer_close(&k.p.preview);
    at_tensor_release(&k.mask);
    at_tensor_release(&samples);
    return st;
}
