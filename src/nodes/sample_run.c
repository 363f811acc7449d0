// SPDX-License-Identifier: Apache-2.0
// sample_run.c - what lies between a sampler node and a solver: latents in, noise, progress, latents out.
#include "nodes/guide_impl.h"

#include <string.h>

#include "base/mem.h"
#include "image/resize.h"
#include "models/latent_format.h"
#include "nodes/latent_preview.h"

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

    if (n < 1) AT_TRY(at_fail(AT_EINVAL, "sampler: the noise mask is empty"));
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

// One run.
typedef struct work {
    at_node_ctx *node;
    const at_sample_job *job;
    at_ops *o;
    const at_tensor *samples; // host
    bool empty;
    at_tensor *mask; // host
    at_guide *guide;
    progress p;
} work;

static at_status open_guide(work *k)
{
    const at_sample_job *job = k->job;
    if (k->samples->rank != 4)
        return at_fail(AT_EUNSUPPORTED, "sampler: latents of %d dimensions are not pictures",
                       k->samples->rank);
    at_guide_config config = {.model = job->model,
                              .kind = job->kind,
                              .positive = job->positive,
                              .negative = job->negative,
                              .third = job->third,
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

static at_status solve(work *k, at_object **out, at_object **denoised)
{
    at_status st = AT_OK;
    const at_sample_job *job = k->job;
    const at_latent_format *f = at_model_latent(job->model->model);
    const at_tensor *s = k->samples;
    at_tensor *noise = NULL, *mask = NULL;

    AT_TRY(open_guide(k));
    at_denoiser d = at_guide_denoiser(k->guide);
    at_tensor *x = at_from_host(k->o, AT_F32, s->rank, s->shape, at_tensor_data(s));
    if (!k->empty) x = at_latent_to_model(k->o, f, x);
    AT_TRY(make_noise(k->o, job, s, &noise));
    if (k->mask) mask = at_from_host(k->o, AT_F32, 4, k->mask->shape, at_tensor_data(k->mask));
    at_sample_args args = {.sampler = job->sampler,
                           .options = job->options,
                           .sigmas = job->sigmas,
                           .n_sigmas = job->n_sigmas,
                           .noise = noise,
                           .latent = x,
                           .noise_mask = mask,
                           .seed = job->seed,
                           .on_step = on_step,
                           .on_step_ctx = &k->p};
    if (at_guide_moves_mask(k->guide)) {
        args.mask_at = at_guide_mask;
        args.mask_ctx = k->guide;
    }
    at_tensor *r = at_sample(k->o, &d, &args);
    AT_TRY(at_ops_status(k->o));
    AT_TRY(finish(k->o, f, job->latent, r, out));
    if (denoised) {
        if (k->p.denoised)
            AT_TRY(finish(k->o, f, job->latent, k->p.denoised, denoised));
        else
            *denoised = at_object_retain(*out);
    }
out:
    return st;
}

at_status at_sample_run(at_node_ctx *c, const at_sample_job *job, at_object **out,
                        at_object **denoised)
{
    at_status st = AT_OK;
    work k = {.node = c, .job = job, .p = {.node = c}};
    at_tensor *samples = NULL;

    AT_TRY(at_env_ops_denoiser(c, job->model->model, &k.o));
    k.p.o = k.o;
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
    AT_TRY(solve(&k, out, denoised));
out:
    at_guide_close(k.guide);
    at_previewer_close(&k.p.preview);
    at_tensor_release(&k.p.denoised);
    at_tensor_release(&k.mask);
    at_tensor_release(&samples);
    at_ops_free(k.o);
    return st;
}
