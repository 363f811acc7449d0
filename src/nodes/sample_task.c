// SPDX-License-Identifier: Apache-2.0
// sample_task.c - see sample_task.h.
// Easy to get wrong: two runs with one key must take the same time by the same degrees: whatever changes a step's work
// is in the key.
#include "nodes/sample_task.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

static size_t entries(const at_obj_cond *list)
{
    return list ? list->count : 0;
}

// What a plan wants to know of a run on latents of this shape.
static at_par_task task_of(const at_sample_job *job, const int64_t *shape, at_dtype compute)
{
    const at_obj_model *m = job->model;
    const at_tensor *text = entries(job->positive) ? job->positive->items[0].context : NULL;
    bool guided = job->cfg != 1 || job->kind != AT_GUIDER_CFG;

    at_model_cost cost =
        at_model_estimate(m->model, 1, shape[2], shape[3], text ? text->shape[1] : 1, compute);
    at_par_task t = {.flops = cost.flops,
                     .activation_bytes = cost.activation_bytes,
                     .latent_bytes = (double)(shape[1] * shape[2] * shape[3]) * sizeof(float),
                     .weight_bytes = cost.weight_bytes,
                     .conditionings = (int)(entries(job->positive) + entries(job->third) +
                                            (guided ? entries(job->negative) : 0)),
                     .batch = shape[0],
                     .steps = (int64_t)job->n_sigmas - 1,
                     .hints = cost.share};
    for (size_t i = 0; i < at_hooks_count(m->hooks); i++) // those that want to see every forward
        if (at_hooks_at(m->hooks, i)->ops->patch || at_hooks_at(m->hooks, i)->ops->forward) {
            t.flops *= t.conditionings * (double)t.batch;
            t.conditionings = 1;
            t.batch = 1;
            t.hints.axes &= ~(1u << AT_AXIS_PATCH);
        }
    const at_obj_cond *lists[] = {job->positive, job->third, job->negative};
    for (size_t l = 0; l < AT_COUNT(lists); l++) // a bias on text wants the whole sequence
        for (size_t i = 0; i < entries(lists[l]); i++)
            if (lists[l]->items[i].attn_bias)
                t.hints.axes &= ~(1u << AT_AXIS_RING | 1u << AT_AXIS_ULYSSES);
    if (at_patches_count(m->patches)) t.hints.axes &= ~(1u << AT_AXIS_PATCH);
    return t;
}

double at_sample_speed(const at_device *d, at_dtype compute, bool fp8)
{
    // Of Hopper's tensor cores with our kernels (docs/bench/cuda.md); f32 is not rounded for them.
    static const double of_fp8 = 1.6, of_f32 = 0.08;

    if (d->host) return 1;
    return fp8 ? of_fp8 : compute == AT_F32 ? of_f32 : 1;
}

void at_sample_key(const char *arch, const at_par_task *t, at_dtype compute, bool fp8,
                   char key[AT_SAMPLE_KEY])
{
    snprintf(key, AT_SAMPLE_KEY, "%.64s %.9g %.9g, %d x %lld, axes %u, %s%s", arch, t->flops,
             t->weight_bytes, t->conditionings, (long long)t->batch, t->hints.axes,
             at_dtype_name(compute), fp8 ? " fp8" : "");
}

// All of a step's work is in the task: hooks, patches, ControlNets and areas add or take some that it does not know.
static bool counted(const at_sample_job *job)
{
    const at_obj_cond *lists[] = {job->positive, job->third, job->negative};

    if (at_hooks_count(job->model->hooks) || at_patches_count(job->model->patches)) return false;
    for (size_t l = 0; l < AT_COUNT(lists); l++)
        for (size_t i = 0; i < entries(lists[l]); i++) {
            const at_cond *c = &lists[l]->items[i];
            if (c->control || c->area.kind != AT_AREA_NONE || c->n_refs || c->mask ||
                c->start_percent > 0 || c->end_percent < 1 || c->extra[AT_COND_GLIGEN] ||
                c->extra[AT_COND_HOOKS])
                return false;
        }
    return true;
}

void at_sample_task(const at_sample_job *job, const int64_t *shape, int rank,
                    const at_ops_config *config, at_par_task *out, char key[AT_SAMPLE_KEY])
{
    const at_model *m = job->model->model;

    key[0] = '\0';
    *out = (at_par_task){.conditionings = 1, .batch = 1, .known = out->known};
    if (rank != 4) return;
    const at_par_known *known = out->known;
    *out = task_of(job, shape, config->compute);
    out->known = known;
    out->speed = at_sample_speed(config->device, config->compute, config->fp8);
    at_sample_key(at_arch_title(at_model_arch(m)), out, config->compute, config->fp8, key);
    if (!counted(job)) key[0] = '\0';
}

// --- the watch -----------------------------------------------------------------------------------
static at_denoised watched(void *ctx, at_ops *o, const at_tensor *x, float sigma, bool want_uncond)
{
    at_step_watch *w = ctx;

    w->at[w->calls++ % AT_STEP_WATCHED] = at_now();
    return w->inner.call(w->inner.ctx, o, x, sigma, want_uncond);
}

at_denoiser at_step_watch_denoiser(at_step_watch *w)
{
    return (at_denoiser){.call = watched, .ctx = w, .sampling = w->inner.sampling};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double at_step_watch_median(const at_step_watch *w)
{
    enum { START = 3, LEAST = 4 }; // weights, a recording, its first replay
    double spans[AT_STEP_WATCHED];
    int first = w->calls > AT_STEP_WATCHED ? w->calls - AT_STEP_WATCHED : 0, n = 0;

    for (int i = (first > START ? first : START) + 1; i < w->calls; i++)
        spans[n++] = w->at[i % AT_STEP_WATCHED] - w->at[(i - 1) % AT_STEP_WATCHED];
    if (n < LEAST) return 0;
    qsort(spans, (size_t)n, sizeof *spans, by_value);
    return spans[n / 2];
}
