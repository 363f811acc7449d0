// SPDX-License-Identifier: Apache-2.0
// node_model_sampling.c - ModelSampling* and ModelComputeDtype: other noise levels, another reading of the
// output, or another precision for the same weights.
// Idea: sampling facts are a value; a node changes its fields and keeps the rest, so that a model's own betas
// survive every patch.
// Easy to get wrong: ModelSamplingSD3 tells the network sigma * 1000 and ModelSamplingAuraFlow sigma, whatever
// the network was trained with. Flux after ModelSamplingSD3 paints noise, as in ComfyUI.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_model_advanced.py; comfyui-contract section 5.3.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

#include "models/latent_format.h"

static const at_out model_out[] = {AT_OUT("MODEL")};

// The model's own facts, to be changed.
static at_model_sampling own(const at_object *model)
{
    return *at_model_get_sampling(((const at_obj_model *)model)->model);
}

static at_status give_patched(const at_object *from, const at_model_sampling *ms, at_value *out)
{
    const at_obj_model *like = (const at_obj_model *)from;
    at_model *m = NULL;
    at_status st = at_model_with_sampling(like->model, ms, &m);
    return st == AT_OK ? at_give(out, at_obj_model_with(like, m), "MODEL") : st;
}

typedef struct flux_in {
    at_object *model;
    double max_shift, base_shift;
    int64_t width, height;
} flux_in;
static const at_in flux_rows[] = {
    AT_ROW_LINK_BARE(flux_in, model, "MODEL"),
    AT_ROW_FLOAT_STEP(flux_in, max_shift, 1.15, 0, 100, 0.01),
    AT_ROW_FLOAT_STEP(flux_in, base_shift, 0.5, 0, 100, 0.01),
    AT_ROW_INT_STEP(flux_in, width, 1024, 16, 16384, 8),
    AT_ROW_INT_STEP(flux_in, height, 1024, 16, 16384, 8),
};
// mu is linear in the number of image tokens, through (256, base) and (4096, max).
static at_status flux_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const flux_in *i = in;
    double slope = (i->max_shift - i->base_shift) / (4096.0 - 256.0);
    double tokens = (double)i->width * (double)i->height / (8.0 * 8.0 * 2.0 * 2.0);
    at_model_sampling ms = own(i->model);
    ms.prediction = AT_PRED_CONST;
    ms.kind = AT_SIGMA_FLUX;
    ms.shift = tokens * slope + i->base_shift - slope * 256.0;
    ms.sigma_data = 1;
    return give_patched(i->model, &ms, &out[0]);
}
static const at_node node_flux = {.class_type = "ModelSamplingFlux",
                                  .display = "ModelSamplingFlux",
                                  .category = "advanced/model",
                                  .python_module = "comfy_extras.nodes_model_advanced",
                                  .in = flux_rows,
                                  .n_in = AT_COUNT(flux_rows),
                                  .out = model_out,
                                  .n_out = 1,
                                  .in_size = sizeof(flux_in),
                                  .run = flux_run};

#define SAMPLING_NODE(cls, rows, st, fn)                                                           \
    {                                                                                              \
        .class_type = cls, .display = cls, .category = "advanced/model",                           \
        .python_module = "comfy_extras.nodes_model_advanced", .in = rows, .n_in = AT_COUNT(rows),  \
        .out = model_out, .n_out = 1, .in_size = sizeof(st), .run = fn,                            \
    }

// --- flows -------------------------------------------------------------------------------------------
typedef struct shift_in {
    at_object *model;
    double shift;
} shift_in;
static const at_in sd3_rows[] = {AT_ROW_LINK_BARE(shift_in, model, "MODEL"),
                                 AT_ROW_FLOAT_STEP(shift_in, shift, 3.0, 0, 100, 0.01)};
static const at_in aura_rows[] = {AT_ROW_LINK_BARE(shift_in, model, "MODEL"),
                                  AT_ROW_FLOAT_STEP(shift_in, shift, 1.73, 0, 100, 0.01)};

static at_status flow(const shift_in *i, double multiplier, at_value *out)
{
    at_model_sampling ms = own(i->model);
    ms.prediction = AT_PRED_CONST;
    ms.kind = AT_SIGMA_DISCRETE_FLOW;
    ms.shift = i->shift;
    ms.multiplier = multiplier;
    ms.sigma_data = 1;
    return give_patched(i->model, &ms, out);
}
static at_status sd3_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return flow(in, 1000, &out[0]);
}
static at_status aura_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return flow(in, 1, &out[0]);
}
static const at_node node_sd3 = SAMPLING_NODE("ModelSamplingSD3", sd3_rows, shift_in, sd3_run);
static const at_node node_aura =
    SAMPLING_NODE("ModelSamplingAuraFlow", aura_rows, shift_in, aura_run);

// --- discrete ----------------------------------------------------------------------------------------
typedef struct discrete_in {
    at_object *model;
    const char *sampling;
    bool zsnr;
} discrete_in;
static const char *const discrete_names[] = {"eps", "v_prediction", "lcm",
                                             "x0",  "img_to_img",   NULL};
static const at_prediction discrete_kinds[] = {AT_PRED_EPS, AT_PRED_V, AT_PRED_LCM, AT_PRED_X0,
                                               AT_PRED_IMG_TO_IMG};
static const at_in discrete_rows[] = {AT_ROW_LINK_BARE(discrete_in, model, "MODEL"),
                                      AT_ROW(discrete_in, sampling, AT_IN_COMBO,
                                             .choices = discrete_names, .flags = AT_INF_NO_OPTIONS),
                                      AT_ROW(discrete_in, zsnr, AT_IN_BOOL, .def = 0)};

static size_t index_of(const char *name, const char *const *names)
{
    size_t k = 0;
    while (names[k + 1] && strcmp(name, names[k]) != 0) // the check refused what is not there
        k++;
    return k;
}

static at_status discrete_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const discrete_in *i = in;
    at_model_sampling ms = own(i->model);
    ms.prediction = discrete_kinds[index_of(i->sampling, discrete_names)];
    ms.kind = ms.prediction == AT_PRED_LCM ? AT_SIGMA_DISCRETE_LCM : AT_SIGMA_DISCRETE;
    ms.zsnr = i->zsnr;
    ms.sigma_data = 1;
    if (!(ms.beta_end > 0)) { // a model without betas gets Stable Diffusion's
        ms.beta_start = 0.00085;
        ms.beta_end = 0.012;
        ms.beta_schedule = AT_BETA_LINEAR;
    }
    if (ms.timesteps < 1) ms.timesteps = 1000;
    return give_patched(i->model, &ms, &out[0]);
}
static const at_node node_discrete =
    SAMPLING_NODE("ModelSamplingDiscrete", discrete_rows, discrete_in, discrete_run);

// --- continuous --------------------------------------------------------------------------------------
typedef struct continuous_in {
    at_object *model;
    const char *sampling;
    double sigma_max, sigma_min;
} continuous_in;
static const char *const edm_names[] = {"v_prediction", "edm",          "edm_playground_v2.5",
                                        "eps",          "cosmos_rflow", NULL};
static const char *const v_names[] = {"v_prediction", NULL};
static const struct {
    at_prediction prediction;
    at_sigma_kind kind;
    double sigma_data;
} edm_kinds[] = {{AT_PRED_V, AT_SIGMA_CONTINUOUS_EDM, 1},
                 {AT_PRED_EDM, AT_SIGMA_CONTINUOUS_EDM, 0.5},
                 {AT_PRED_EDM, AT_SIGMA_CONTINUOUS_EDM, 0.5},
                 {AT_PRED_EPS, AT_SIGMA_CONTINUOUS_EDM, 1},
                 {AT_PRED_COSMOS_RFLOW, AT_SIGMA_COSMOS_RFLOW, 1}};
#define SIGMA_ROW(field, d)                                                                        \
    AT_ROW(continuous_in, field, AT_IN_FLOAT, .def = d, .min = 0, .max = 1000, .step = 0.001,      \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_ROUND_FALSE)
static const at_in edm_rows[] = {
    AT_ROW_LINK_BARE(continuous_in, model, "MODEL"),
    AT_ROW(continuous_in, sampling, AT_IN_COMBO, .choices = edm_names, .flags = AT_INF_NO_OPTIONS),
    SIGMA_ROW(sigma_max, 120), SIGMA_ROW(sigma_min, 0.002)};
static const at_in v_rows[] = {
    AT_ROW_LINK_BARE(continuous_in, model, "MODEL"),
    AT_ROW(continuous_in, sampling, AT_IN_COMBO, .choices = v_names, .flags = AT_INF_NO_OPTIONS),
    SIGMA_ROW(sigma_max, 500), SIGMA_ROW(sigma_min, 0.03)};

static at_status continuous(const continuous_in *i, at_model_sampling *ms)
{
    ms->sigma_min = i->sigma_min;
    ms->sigma_max = i->sigma_max;
    return at_sigma_check(ms);
}

static at_status edm_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const continuous_in *i = in;
    size_t k = index_of(i->sampling, edm_names);
    at_model_sampling ms = own(i->model);
    at_value patched = {0};
    at_model *m = NULL;

    ms.prediction = edm_kinds[k].prediction;
    ms.kind = edm_kinds[k].kind;
    ms.sigma_data = edm_kinds[k].sigma_data;
    AT_TRY(continuous(i, &ms));
    AT_TRY(give_patched(i->model, &ms, &patched));
    if (strcmp(i->sampling, "edm_playground_v2.5") != 0) {
        out[0] = patched;
        patched = (at_value){0};
        goto out;
    }
    const at_obj_model *like = (const at_obj_model *)patched.o;
    const at_latent_format *f = at_latent_format_of("playground25");
    if (!f) AT_TRY(at_fail(AT_EINTERNAL, "no latent format of Playground 2.5"));
    AT_TRY(at_model_with_latent(like->model, f, &m));
    st = at_give(&out[0], at_obj_model_with(like, m), "ModelSamplingContinuousEDM");
out:
    at_value_clear(&patched);
    return st;
}
static const at_node node_edm =
    SAMPLING_NODE("ModelSamplingContinuousEDM", edm_rows, continuous_in, edm_run);

static at_status v_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const continuous_in *i = in;
    at_model_sampling ms = own(i->model);
    ms.prediction = AT_PRED_V;
    ms.kind = AT_SIGMA_CONTINUOUS_V;
    ms.sigma_data = 1;
    at_status st = continuous(i, &ms);
    return st == AT_OK ? give_patched(i->model, &ms, &out[0]) : st;
}
static const at_node node_v =
    SAMPLING_NODE("ModelSamplingContinuousV", v_rows, continuous_in, v_run);

// --- ModelComputeDtype -------------------------------------------------------------------------------
typedef struct compute_in {
    at_object *model;
    const char *dtype;
} compute_in;
static const char *const dtype_names[] = {"default", "fp32", "fp16", "bf16", NULL};
static const at_dtype dtypes[] = {AT_DTYPE_COUNT, AT_F32, AT_F16, AT_BF16};
static const at_in compute_rows[] = {
    AT_ROW_LINK_BARE(compute_in, model, "MODEL"),
    AT_ROW(compute_in, dtype, AT_IN_COMBO, .choices = dtype_names, .flags = AT_INF_NO_OPTIONS)};
static at_status compute_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const compute_in *i = in;
    const at_obj_model *like = (const at_obj_model *)i->model;
    at_model *m = NULL;
    at_status st = at_model_with_compute(like->model, dtypes[index_of(i->dtype, dtype_names)], &m);
    return st == AT_OK ? at_give(&out[0], at_obj_model_with(like, m), "ModelComputeDtype") : st;
}
static const at_node node_compute = {.class_type = "ModelComputeDtype",
                                     .display = "ModelComputeDtype",
                                     .category = "advanced/debug/model",
                                     .python_module = "comfy_extras.nodes_model_advanced",
                                     .in = compute_rows,
                                     .n_in = AT_COUNT(compute_rows),
                                     .out = model_out,
                                     .n_out = 1,
                                     .in_size = sizeof(compute_in),
                                     .run = compute_run};

const at_node *const at_nodes_model_sampling[] = {
    &node_flux, &node_sd3, &node_aura, &node_discrete, &node_edm, &node_v, &node_compute, NULL};
