// SPDX-License-Identifier: Apache-2.0
// sample_run.c - what lies between a sampler node and a solver: latents in, noise, progress, latents out.
#include "nodes/guide.h"

#include <string.h>

#include "base/mem.h"

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
    at_ops *o;
    at_tensor *denoised; // the newest x0 estimate, one reference
} progress;

static void on_step(void *ctx, int step, int total, const at_tensor *denoised, const at_tensor *x)
{
    progress *p = ctx;
    (void)x;
    at_tensor_release(&p->denoised);
    if (denoised) p->denoised = at_tensor_retain(denoised);
    at_node_progress(p->node, step + 1, total);
}

// Device tensor -> process_out -> LATENT on the host.
static at_status finish(at_ops *o, const at_latent_format *f, const at_obj_latent *like,
                        const at_tensor *x, at_object **out)
{
    at_status st = AT_OK;
    at_tensor *host = NULL;
    at_tensor *t = at_contiguous(o, at_affine(o, x, 1.0f / f->scale, f->shift));
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

// The mask at the latent's size; nearest source cells are averaged bilinearly as ComfyUI does.
static at_status fit_mask(at_ops *o, const at_tensor *mask, const at_tensor *like, at_tensor **out)
{
    int64_t b = mask->shape[0], mh = mask->shape[mask->rank - 2], mw = mask->shape[mask->rank - 1];
    int64_t h = like->shape[2], w = like->shape[3];
    const float *src = at_tensor_data(mask);
    float *dst = at_alloc((size_t)(b * h * w) * sizeof *dst);
    if (!dst) return at_fail(AT_ENOMEM, "sampler: no memory for the noise mask");
    for (int64_t i = 0; i < b; i++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                double fy = ((double)y + 0.5) * (double)mh / (double)h - 0.5;
                double fx = ((double)x + 0.5) * (double)mw / (double)w - 0.5;
                fy = fy < 0 ? 0 : fy;
                fx = fx < 0 ? 0 : fx;
                int64_t y0 = (int64_t)fy, x0 = (int64_t)fx;
                int64_t y1 = y0 + 1 < mh ? y0 + 1 : mh - 1, x1 = x0 + 1 < mw ? x0 + 1 : mw - 1;
                const float *m = src + i * mh * mw;
                double ty = fy - (double)y0, tx = fx - (double)x0;
                double top = m[y0 * mw + x0] * (1 - tx) + m[y0 * mw + x1] * tx;
                double low = m[y1 * mw + x0] * (1 - tx) + m[y1 * mw + x1] * tx;
                dst[(i * h + y) * w + x] = (float)(top * (1 - ty) + low * ty);
            }
    *out = at_from_host(o, AT_F32, 4, (int64_t[]){b, 1, h, w}, dst);
    at_free(dst);
    return at_ops_status(o);
}

at_status at_sample_run(at_node_ctx *c, const at_sample_job *job, at_object **out,
                        at_object **denoised)
{
    at_status st = AT_OK;
    const at_latent_format *f = at_model_latent(job->model->model);
    at_guide guide = {.model = job->model->model,
                      .positive = job->positive,
                      .negative = job->negative,
                      .cfg = job->cfg};
    at_denoiser d = at_guide_denoiser(&guide);
    at_ops *o = NULL;
    at_tensor *samples = NULL, *noise = NULL, *mask = NULL;
    progress p = {.node = c};
    bool empty = false;

    AT_TRY(at_env_ops(c, &o));
    p.o = o;
    AT_TRY(fit_channels(job->latent, f, &empty, &samples));
    if (job->n_sigmas == 0) { // nothing to do: the latent comes back as it was
        *out = at_obj_latent_with(job->latent, samples);
        samples = NULL;
        if (!*out) AT_TRY(at_fail(AT_ENOMEM, "sampler: no memory for the latent"));
        if (denoised) *denoised = at_object_retain(*out);
        goto out;
    }
    at_tensor *x = at_from_host(o, AT_F32, samples->rank, samples->shape, at_tensor_data(samples));
    if (!empty) x = at_affine(o, x, f->scale, -f->shift * f->scale);
    AT_TRY(make_noise(o, job, samples, &noise));
    if (job->latent->noise_mask) AT_TRY(fit_mask(o, job->latent->noise_mask, samples, &mask));
    at_sample_args args = {.sampler = job->sampler,
                           .options = job->options,
                           .sigmas = job->sigmas,
                           .n_sigmas = job->n_sigmas,
                           .noise = noise,
                           .latent = x,
                           .noise_mask = mask,
                           .seed = job->seed,
                           .on_step = on_step,
                           .on_step_ctx = &p};
    at_tensor *r = at_sample(o, &d, &args);
    AT_TRY(at_ops_status(o));
    AT_TRY(finish(o, f, job->latent, r, out));
    if (denoised) {
        if (p.denoised)
            AT_TRY(finish(o, f, job->latent, p.denoised, denoised));
        else
            *denoised = at_object_retain(*out);
    }
out:
    at_tensor_release(&p.denoised);
    at_tensor_release(&samples);
    at_ops_free(o);
    return st;
}
