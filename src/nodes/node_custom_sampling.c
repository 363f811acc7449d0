// SPDX-License-Identifier: Apache-2.0
// node_custom_sampling.c - the sampler taken apart: noise, guider, sampler, sigmas, and what joins them.
#include "nodes/guide.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/mem.h"

#define MODULE "comfy_extras.nodes_custom_sampler"

// --- KSamplerSelect ----------------------------------------------------------------------------------
typedef struct select_in {
    const char *sampler_name;
} select_in;
static const at_in select_rows[] = {AT_ROW(
    select_in, sampler_name, AT_IN_COMBO, .choices = at_sampler_names, .flags = AT_INF_NO_OPTIONS)};
static const at_out sampler_out[] = {AT_OUT("SAMPLER")};
static at_status select_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_give(&out[0], at_obj_sampler_new(((const select_in *)in)->sampler_name),
                   "KSamplerSelect");
}
static const at_node node_select = {.class_type = "KSamplerSelect",
                                    .display = "KSamplerSelect",
                                    .category = "sampling/custom_sampling/samplers",
                                    .python_module = MODULE,
                                    .in = select_rows,
                                    .n_in = AT_COUNT(select_rows),
                                    .out = sampler_out,
                                    .n_out = 1,
                                    .in_size = sizeof(select_in),
                                    .run = select_run};

// --- BasicScheduler ----------------------------------------------------------------------------------
typedef struct scheduler_in {
    at_object *model;
    const char *scheduler;
    int64_t steps;
    double denoise;
} scheduler_in;
static const at_in scheduler_rows[] = {
    AT_ROW_LINK_BARE(scheduler_in, model, "MODEL"),
    AT_ROW(scheduler_in, scheduler, AT_IN_COMBO, .choices = at_scheduler_names,
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_INT(scheduler_in, steps, 20, 1, 10000),
    AT_ROW_FLOAT_STEP(scheduler_in, denoise, 1.0, 0, 1, 0.01),
};
static const at_out sigmas_out[] = {AT_OUT("SIGMAS")};

// KSampler's rule without its samplers: denoise < 1 is the tail of a longer schedule, 0 no sigmas at all.
static at_status scheduler_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const scheduler_in *i = in;
    const at_model_sampling *ms = at_model_get_sampling(((const at_obj_model *)i->model)->model);
    float *sigmas = NULL;
    size_t n = 0;

    at_status st =
        at_ksampler_sigmas(NULL, i->scheduler, ms, at_int_of(i->steps), i->denoise, &sigmas, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(sigmas, n), "BasicScheduler") : st;
}
static const at_node node_scheduler = {.class_type = "BasicScheduler",
                                       .display = "BasicScheduler",
                                       .category = "sampling/custom_sampling/schedulers",
                                       .python_module = MODULE,
                                       .in = scheduler_rows,
                                       .n_in = AT_COUNT(scheduler_rows),
                                       .out = sigmas_out,
                                       .n_out = 1,
                                       .in_size = sizeof(scheduler_in),
                                       .run = scheduler_run};

// --- BasicGuider, CFGGuider --------------------------------------------------------------------------
typedef struct basic_in {
    at_object *model, *conditioning;
} basic_in;
static const at_in basic_rows[] = {AT_ROW_LINK_BARE(basic_in, model, "MODEL"),
                                   AT_ROW_LINK_BARE(basic_in, conditioning, "CONDITIONING")};
static const at_out guider_out[] = {AT_OUT("GUIDER")};
static at_status basic_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const basic_in *i = in;
    return at_give(&out[0],
                   at_obj_guider_new((const at_obj_model *)i->model,
                                     (const at_obj_cond *)i->conditioning, NULL, 1.0),
                   "BasicGuider");
}
static const at_node node_basic = {.class_type = "BasicGuider",
                                   .display = "BasicGuider",
                                   .category = "sampling/custom_sampling/guiders",
                                   .python_module = MODULE,
                                   .in = basic_rows,
                                   .n_in = AT_COUNT(basic_rows),
                                   .out = guider_out,
                                   .n_out = 1,
                                   .in_size = sizeof(basic_in),
                                   .run = basic_run};

typedef struct cfg_in {
    at_object *model, *positive, *negative;
    double cfg;
} cfg_in;
static const at_in cfg_rows[] = {
    AT_ROW_LINK_BARE(cfg_in, model, "MODEL"), AT_ROW_LINK_BARE(cfg_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(cfg_in, negative, "CONDITIONING"), AT_ROW_CFG(cfg_in, cfg)};
static at_status cfg_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const cfg_in *i = in;
    return at_give(&out[0],
                   at_obj_guider_new((const at_obj_model *)i->model,
                                     (const at_obj_cond *)i->positive,
                                     (const at_obj_cond *)i->negative, i->cfg),
                   "CFGGuider");
}
static const at_node node_cfg = {.class_type = "CFGGuider",
                                 .display = "CFGGuider",
                                 .category = "sampling/custom_sampling/guiders",
                                 .python_module = MODULE,
                                 .in = cfg_rows,
                                 .n_in = AT_COUNT(cfg_rows),
                                 .out = guider_out,
                                 .n_out = 1,
                                 .in_size = sizeof(cfg_in),
                                 .run = cfg_run};

// --- RandomNoise, DisableNoise -----------------------------------------------------------------------
typedef struct noise_in {
    uint64_t noise_seed;
} noise_in;
static const at_in noise_rows[] = {AT_ROW_SEED(noise_in, noise_seed)};
static const at_out noise_out[] = {AT_OUT("NOISE")};
static at_status noise_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_give(&out[0], at_obj_noise_new(false, ((const noise_in *)in)->noise_seed),
                   "RandomNoise");
}
static const at_node node_noise = {.class_type = "RandomNoise",
                                   .display = "RandomNoise",
                                   .category = "sampling/custom_sampling/noise",
                                   .python_module = MODULE,
                                   .in = noise_rows,
                                   .n_in = AT_COUNT(noise_rows),
                                   .out = noise_out,
                                   .n_out = 1,
                                   .in_size = sizeof(noise_in),
                                   .run = noise_run};
static at_status no_noise_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c, (void)in;
    return at_give(&out[0], at_obj_noise_new(true, 0), "DisableNoise");
}
static const at_node node_no_noise = {.class_type = "DisableNoise",
                                      .display = "DisableNoise",
                                      .category = "sampling/custom_sampling/noise",
                                      .python_module = MODULE,
                                      .out = noise_out,
                                      .n_out = 1,
                                      .run = no_noise_run};

// --- SamplerCustom, SamplerCustomAdvanced ------------------------------------------------------------
static const at_out sampled_out[] = {{.type_name = "LATENT", .name = "output"},
                                     {.type_name = "LATENT", .name = "denoised_output"}};

static at_status run_and_give(at_node_ctx *c, const at_sample_job *job, at_value *out)
{
    at_object *result = NULL, *denoised = NULL;
    at_status st = at_sample_run(c, job, &result, &denoised);
    if (st != AT_OK) {
        at_object_release(result);
        return st;
    }
    out[0] = at_value_object(result);
    out[1] = at_value_object(denoised);
    return AT_OK;
}

typedef struct custom_in {
    at_object *model;
    bool add_noise;
    uint64_t noise_seed;
    double cfg;
    at_object *positive, *negative, *sampler, *sigmas, *latent_image;
} custom_in;
static const at_in custom_rows[] = {
    AT_ROW_LINK_BARE(custom_in, model, "MODEL"),
    AT_ROW(custom_in, add_noise, AT_IN_BOOL, .def = 1),
    AT_ROW_SEED(custom_in, noise_seed),
    AT_ROW_CFG(custom_in, cfg),
    AT_ROW_LINK_BARE(custom_in, positive, "CONDITIONING"),
    AT_ROW_LINK_BARE(custom_in, negative, "CONDITIONING"),
    AT_ROW_LINK_BARE(custom_in, sampler, "SAMPLER"),
    AT_ROW_LINK_BARE(custom_in, sigmas, "SIGMAS"),
    AT_ROW_LINK_BARE(custom_in, latent_image, "LATENT"),
};
static at_status custom_run(at_node_ctx *c, const void *in, at_value *out)
{
    const custom_in *i = in;
    const at_obj_sampler *s = (const at_obj_sampler *)i->sampler;
    const at_obj_sigmas *sigmas = (const at_obj_sigmas *)i->sigmas;
    at_sample_job job = {.model = (const at_obj_model *)i->model,
                         .positive = (const at_obj_cond *)i->positive,
                         .negative = (const at_obj_cond *)i->negative,
                         .cfg = i->cfg,
                         .sampler = s->name,
                         .options = &s->options,
                         .sigmas = sigmas->values,
                         .n_sigmas = sigmas->count,
                         .latent = (const at_obj_latent *)i->latent_image,
                         .add_noise = i->add_noise,
                         .seed = i->noise_seed};
    return run_and_give(c, &job, out);
}
static const at_node node_custom = {.class_type = "SamplerCustom",
                                    .display = "SamplerCustom",
                                    .category = "sampling/custom_sampling",
                                    .python_module = MODULE,
                                    .in = custom_rows,
                                    .n_in = AT_COUNT(custom_rows),
                                    .out = sampled_out,
                                    .n_out = 2,
                                    .in_size = sizeof(custom_in),
                                    .run = custom_run};

typedef struct custom_advanced_in {
    at_object *noise, *guider, *sampler, *sigmas, *latent_image;
} custom_advanced_in;
static const at_in custom_advanced_rows[] = {
    AT_ROW_LINK_BARE(custom_advanced_in, noise, "NOISE"),
    AT_ROW_LINK_BARE(custom_advanced_in, guider, "GUIDER"),
    AT_ROW_LINK_BARE(custom_advanced_in, sampler, "SAMPLER"),
    AT_ROW_LINK_BARE(custom_advanced_in, sigmas, "SIGMAS"),
    AT_ROW_LINK_BARE(custom_advanced_in, latent_image, "LATENT"),
};
static at_status custom_advanced_run(at_node_ctx *c, const void *in, at_value *out)
{
    const custom_advanced_in *i = in;
    const at_obj_noise *noise = (const at_obj_noise *)i->noise;
    const at_obj_guider *g = (const at_obj_guider *)i->guider;
    const at_obj_sampler *s = (const at_obj_sampler *)i->sampler;
    const at_obj_sigmas *sigmas = (const at_obj_sigmas *)i->sigmas;
    at_sample_job job = {.model = g->model,
                         .positive = g->positive,
                         .negative = g->negative,
                         .cfg = g->cfg,
                         .kind = g->kind,
                         .third = g->third,
                         .cfg2 = g->cfg2,
                         .sampler = s->name,
                         .options = &s->options,
                         .sigmas = sigmas->values,
                         .n_sigmas = sigmas->count,
                         .latent = (const at_obj_latent *)i->latent_image,
                         .add_noise = !noise->disabled,
                         .seed = noise->seed};
    return run_and_give(c, &job, out);
}
static const at_node node_custom_advanced = {.class_type = "SamplerCustomAdvanced",
                                             .display = "SamplerCustomAdvanced",
                                             .category = "sampling/custom_sampling",
                                             .python_module = MODULE,
                                             .in = custom_advanced_rows,
                                             .n_in = AT_COUNT(custom_advanced_rows),
                                             .out = sampled_out,
                                             .n_out = 2,
                                             .in_size = sizeof(custom_advanced_in),
                                             .run = custom_advanced_run};

const at_node *const at_nodes_custom_sampling[] = {
    &node_select,   &node_scheduler, &node_basic,           &node_cfg, &node_noise,
    &node_no_noise, &node_custom,    &node_custom_advanced, NULL};
