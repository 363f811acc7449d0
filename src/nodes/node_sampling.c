// SPDX-License-Identifier: Apache-2.0
// node_sampling.c - KSampler and KSampler (Advanced).
#include "nodes/guide.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/mem.h"

static const at_out latent_out[] = {AT_OUT("LATENT")};

typedef struct ksampler_in {
    at_object *model;
    uint64_t seed;
    int64_t steps;
    double cfg;
    const char *sampler_name, *scheduler;
    at_object *positive, *negative, *latent_image;
    double denoise;
} ksampler_in;

static const at_in ksampler_rows[] = {
    AT_ROW_LINK(ksampler_in, model, "MODEL"),
    AT_ROW_SEED(ksampler_in, seed),
    AT_ROW_INT(ksampler_in, steps, 20, 1, 10000),
    AT_ROW_CFG(ksampler_in, cfg),
    AT_ROW(ksampler_in, sampler_name, AT_IN_COMBO, .choices = at_sampler_names),
    AT_ROW(ksampler_in, scheduler, AT_IN_COMBO, .choices = at_scheduler_names),
    AT_ROW_LINK(ksampler_in, positive, "CONDITIONING"),
    AT_ROW_LINK(ksampler_in, negative, "CONDITIONING"),
    AT_ROW_LINK(ksampler_in, latent_image, "LATENT"),
    AT_ROW_FLOAT_STEP(ksampler_in, denoise, 1.0, 0, 1, 0.01),
};

static at_status ksampler_run(at_node_ctx *c, const void *in, at_value *out)
{
    const ksampler_in *i = in;
    const at_obj_model *m = (const at_obj_model *)i->model;
    float *sigmas = NULL;
    size_t n = 0;
    at_object *result = NULL;

    at_status st =
        at_ksampler_sigmas(i->sampler_name, i->scheduler, at_model_get_sampling(m->model),
                           at_int_of(i->steps), i->denoise, &sigmas, &n);
    if (st == AT_OK) {
        at_sample_job job = {.model = m,
                             .positive = (const at_obj_cond *)i->positive,
                             .negative = (const at_obj_cond *)i->negative,
                             .cfg = i->cfg,
                             .sampler = i->sampler_name,
                             .sigmas = sigmas,
                             .n_sigmas = n,
                             .latent = (const at_obj_latent *)i->latent_image,
                             .add_noise = true,
                             .seed = i->seed};
        st = at_sample_run(c, &job, &result, NULL);
    }
    at_free(sigmas);
    return st == AT_OK ? at_give(&out[0], result, "KSampler") : st;
}
static const at_node node_ksampler = {
    .class_type = "KSampler",
    .display = "KSampler",
    .category = "sampling",
    .description =
        "Uses the provided model, positive and negative conditioning to denoise the latent "
        "image.",
    .python_module = "nodes",
    .in = ksampler_rows,
    .n_in = AT_COUNT(ksampler_rows),
    .out = latent_out,
    .n_out = 1,
    .in_size = sizeof(ksampler_in),
    .run = ksampler_run};

typedef struct advanced_in {
    at_object *model;
    const char *add_noise;
    uint64_t noise_seed;
    int64_t steps;
    double cfg;
    const char *sampler_name, *scheduler;
    at_object *positive, *negative, *latent_image;
    int64_t start_at_step, end_at_step;
    const char *return_with_leftover_noise;
} advanced_in;

static const char *const enable_disable[] = {"enable", "disable", NULL};
static const char *const disable_enable[] = {"disable", "enable", NULL};
static const at_in advanced_rows[] = {
    AT_ROW_LINK_BARE(advanced_in, model, "MODEL"),
    AT_ROW(advanced_in, add_noise, AT_IN_COMBO, .choices = enable_disable,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_SEED(advanced_in, noise_seed),
    AT_ROW_INT(advanced_in, steps, 20, 1, 10000),
    AT_ROW_CFG(advanced_in, cfg),
    AT_ROW(advanced_in, sampler_name, AT_IN_COMBO, .choices = at_sampler_names,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW(advanced_in, scheduler, AT_IN_COMBO, .choices = at_scheduler_names,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_LINK_BARE(advanced_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(advanced_in, negative, "CONDITIONING"),
    AT_ROW_LINK_BARE(advanced_in, latent_image, "LATENT"),
    AT_ROW_INT(advanced_in, start_at_step, 0, 0, 10000),
    AT_ROW_INT(advanced_in, end_at_step, 10000, 0, 10000),
    AT_ROW(advanced_in, return_with_leftover_noise, AT_IN_COMBO, .choices = disable_enable,
           .flags = AT_INF_NO_OPTIONS),
};

static at_status advanced_run(at_node_ctx *c, const void *in, at_value *out)
{
    const advanced_in *i = in;
    const at_obj_model *m = (const at_obj_model *)i->model;
    float *sigmas = NULL;
    size_t n = 0;
    at_object *result = NULL;

    at_status st =
        at_ksampler_sigmas(i->sampler_name, i->scheduler, at_model_get_sampling(m->model),
                           at_int_of(i->steps), 1.0, &sigmas, &n);
    if (st == AT_OK) {
        n = at_sigmas_window(sigmas, n, i->start_at_step, i->end_at_step,
                             strcmp(i->return_with_leftover_noise, "enable") == 0);
        at_sample_job job = {.model = m,
                             .positive = (const at_obj_cond *)i->positive,
                             .negative = (const at_obj_cond *)i->negative,
                             .cfg = i->cfg,
                             .sampler = i->sampler_name,
                             .sigmas = sigmas,
                             .n_sigmas = n,
                             .latent = (const at_obj_latent *)i->latent_image,
                             .add_noise = strcmp(i->add_noise, "disable") != 0,
                             .seed = i->noise_seed};
        st = at_sample_run(c, &job, &result, NULL);
    }
    at_free(sigmas);
    return st == AT_OK ? at_give(&out[0], result, "KSamplerAdvanced") : st;
}
static const at_node node_advanced = {.class_type = "KSamplerAdvanced",
                                      .display = "KSampler (Advanced)",
                                      .category = "sampling",
                                      .python_module = "nodes",
                                      .in = advanced_rows,
                                      .n_in = AT_COUNT(advanced_rows),
                                      .out = latent_out,
                                      .n_out = 1,
                                      .in_size = sizeof(advanced_in),
                                      .run = advanced_run};

const at_node *const at_nodes_sampling[] = {&node_ksampler, &node_advanced, NULL};
