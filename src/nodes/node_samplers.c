// SPDX-License-Identifier: Apache-2.0
// node_samplers.c - SAMPLER objects with options of their own: Sampler* nodes.
// Idea: each node names a solver and writes its inputs into the solver's options; at_sample reads them.
// Easy to get wrong: noise_device "gpu" is the solver whose name ends in _gpu; SamplerSASolver asks its own
// model for the sigmas between which noise is added, not the one that samples.
// Source: ComfyUI 0.3.64, behaviour of nodes_custom_sampler.py and nodes_advanced_samplers.py in comfy_extras.
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <stdio.h>
#include <string.h>

#define MODULE   "comfy_extras.nodes_custom_sampler"
#define ADVANCED "comfy_extras.nodes_advanced_samplers"
#define CATEGORY "sampling/custom_sampling/samplers"

static const at_out sampler_out[] = {AT_OUT("SAMPLER")};
#define SAMPLER(cls, title, rows, st, fn)                                                          \
    {                                                                                              \
        .class_type = cls, .display = title, .category = CATEGORY, .python_module = MODULE,        \
        .in = rows, .n_in = AT_COUNT(rows), .out = sampler_out, .n_out = 1, .in_size = sizeof(st), \
        .run = fn,                                                                                 \
    }
#define FINE(st, field, d, hi)                                                                     \
    AT_ROW(st, field, AT_IN_FLOAT, .def = d, .min = 0, .max = hi, .step = 0.01,                    \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_ROUND_FALSE)
static const char *const devices[] = {"gpu", "cpu", NULL};
#define DEVICE(st)                                                                                 \
    AT_ROW(st, noise_device, AT_IN_COMBO, .choices = devices, .flags = AT_INF_NO_OPTIONS)

// A sampler by name with its defaults, whose options may then be changed through *p.
static at_status give_sampler(const char *name, at_value *out, at_sampler_options **p)
{
    at_status st = at_give(out, at_obj_sampler_new(name), name);
    if (st == AT_OK && p) *p = &((at_obj_sampler *)out->o)->options;
    return st;
}

// --- ancestral and SDE -------------------------------------------------------------------------------
typedef struct sde_in {
    const char *solver_type;
    double eta, s_noise, r;
    const char *noise_device;
} sde_in;
static const char *const sde_types[] = {"midpoint", "heun", NULL};
static const at_in ancestral_rows[] = {FINE(sde_in, eta, 1, 100), FINE(sde_in, s_noise, 1, 100)};
static const at_in cfgpp_rows[] = {FINE(sde_in, eta, 1, 1), FINE(sde_in, s_noise, 1, 10)};
static const at_in sde_rows[] = {FINE(sde_in, eta, 1, 100), FINE(sde_in, s_noise, 1, 100),
                                 FINE(sde_in, r, 0.5, 100), DEVICE(sde_in)};
static const at_in sde_2m_rows[] = {
    AT_ROW(sde_in, solver_type, AT_IN_COMBO, .choices = sde_types, .flags = AT_INF_NO_OPTIONS),
    FINE(sde_in, eta, 1, 100), FINE(sde_in, s_noise, 1, 100), DEVICE(sde_in)};
static const at_in sde_3m_rows[] = {FINE(sde_in, eta, 1, 100), FINE(sde_in, s_noise, 1, 100),
                                    DEVICE(sde_in)};

static at_status sde(const char *name, const sde_in *i, at_value *out)
{
    at_sampler_options *p = NULL;
    char full[48];
    bool gpu = i->noise_device && strcmp(i->noise_device, "gpu") == 0;
    snprintf(full, sizeof full, "%s%s", name, gpu ? "_gpu" : "");
    at_status st = give_sampler(full, out, &p);
    if (st != AT_OK) return st;
    p->eta = i->eta;
    p->s_noise = i->s_noise;
    if (strcmp(name, "dpmpp_sde") == 0) p->r = i->r;
    if (i->solver_type) snprintf(p->solver_type, sizeof p->solver_type, "%s", i->solver_type);
    return AT_OK;
}
#define SDE_RUN(fn, name)                                                                          \
    static at_status fn(at_node_ctx *c, const void *in, at_value *out)                             \
    {                                                                                              \
        (void)c;                                                                                   \
        return sde(name, in, &out[0]);                                                             \
    }
SDE_RUN(sde_run, "dpmpp_sde")
SDE_RUN(sde_2m_run, "dpmpp_2m_sde")
SDE_RUN(sde_3m_run, "dpmpp_3m_sde")
SDE_RUN(dpmpp_2s_run, "dpmpp_2s_ancestral")
SDE_RUN(euler_run, "euler_ancestral")
SDE_RUN(cfgpp_run, "euler_ancestral_cfg_pp")
static const at_node node_sde =
    SAMPLER("SamplerDPMPP_SDE", "SamplerDPMPP_SDE", sde_rows, sde_in, sde_run);
static const at_node node_sde_2m =
    SAMPLER("SamplerDPMPP_2M_SDE", "SamplerDPMPP_2M_SDE", sde_2m_rows, sde_in, sde_2m_run);
static const at_node node_sde_3m =
    SAMPLER("SamplerDPMPP_3M_SDE", "SamplerDPMPP_3M_SDE", sde_3m_rows, sde_in, sde_3m_run);
static const at_node node_2s = SAMPLER("SamplerDPMPP_2S_Ancestral", "SamplerDPMPP_2S_Ancestral",
                                       ancestral_rows, sde_in, dpmpp_2s_run);
static const at_node node_euler =
    SAMPLER("SamplerEulerAncestral", "SamplerEulerAncestral", ancestral_rows, sde_in, euler_run);
static const at_node node_cfgpp = SAMPLER(
    "SamplerEulerAncestralCFGPP", "SamplerEulerAncestralCFG++", cfgpp_rows, sde_in, cfgpp_run);

// --- LMS, DPM adaptive -------------------------------------------------------------------------------
typedef struct lms_in {
    int64_t order;
} lms_in;
static const at_in lms_rows[] = {AT_ROW_INT(lms_in, order, 4, 1, 100)};
static at_status lms_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_sampler_options *p = NULL;
    at_status st = give_sampler("lms", &out[0], &p);
    if (st == AT_OK) p->order = at_int_of(((const lms_in *)in)->order);
    return st;
}
static const at_node node_lms = SAMPLER("SamplerLMS", "SamplerLMS", lms_rows, lms_in, lms_run);

typedef struct adaptive_in {
    int64_t order;
    double rtol, atol, h_init, pcoeff, icoeff, dcoeff, accept_safety, eta, s_noise;
} adaptive_in;
static const at_in adaptive_rows[] = {
    AT_ROW_INT(adaptive_in, order, 3, 2, 3), FINE(adaptive_in, rtol, 0.05, 100),
    FINE(adaptive_in, atol, 0.0078, 100),    FINE(adaptive_in, h_init, 0.05, 100),
    FINE(adaptive_in, pcoeff, 0, 100),       FINE(adaptive_in, icoeff, 1, 100),
    FINE(adaptive_in, dcoeff, 0, 100),       FINE(adaptive_in, accept_safety, 0.81, 100),
    FINE(adaptive_in, eta, 0, 100),          FINE(adaptive_in, s_noise, 1, 100)};
static at_status adaptive_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const adaptive_in *i = in;
    at_sampler_options *p = NULL;
    at_status st = give_sampler("dpm_adaptive", &out[0], &p);
    if (st != AT_OK) return st;
    p->order = at_int_of(i->order);
    p->rtol = i->rtol;
    p->atol = i->atol;
    p->h_init = i->h_init;
    p->pcoeff = i->pcoeff;
    p->icoeff = i->icoeff;
    p->dcoeff = i->dcoeff;
    p->accept_safety = i->accept_safety;
    p->eta = i->eta;
    p->s_noise = i->s_noise;
    return AT_OK;
}
static const at_node node_adaptive = SAMPLER("SamplerDPMAdaptative", "SamplerDPMAdaptative",
                                             adaptive_rows, adaptive_in, adaptive_run);

// --- ER-SDE, SA-Solver -------------------------------------------------------------------------------
typedef struct er_in {
    const char *solver_type;
    int64_t max_stage;
    double eta, s_noise;
} er_in;
static const char *const er_types[] = {"ER-SDE", "Reverse-time SDE", "ODE", NULL};
static const at_in er_rows[] = {
    AT_ROW(er_in, solver_type, AT_IN_COMBO, .choices = er_types, .flags = AT_INF_COMBO_OPTIONS),
    AT_ROW_INT(er_in, max_stage, 3, 1, 3), FINE(er_in, eta, 1, 100), FINE(er_in, s_noise, 1, 100)};
static at_status er_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const er_in *i = in;
    at_sampler_options *p = NULL;
    at_status st = give_sampler("er_sde", &out[0], &p);
    if (st != AT_OK) return st;
    snprintf(p->solver_type, sizeof p->solver_type, "%s", i->solver_type);
    p->max_stage = at_int_of(i->max_stage);
    p->eta = i->eta;
    p->s_noise = i->s_noise;
    return AT_OK;
}
static const at_node node_er = SAMPLER("SamplerER_SDE", "SamplerER_SDE", er_rows, er_in, er_run);

typedef struct sa_in {
    at_object *model;
    double eta, sde_start_percent, sde_end_percent, s_noise;
    int64_t predictor_order, corrector_order;
    bool use_pece, simple_order_2;
} sa_in;
static const at_in sa_rows[] = {
    AT_ROW_LINK(sa_in, model, "MODEL"),
    FINE(sa_in, eta, 1, 10),
    AT_ROW_FLOAT_STEP(sa_in, sde_start_percent, 0.2, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(sa_in, sde_end_percent, 0.8, 0, 1, 0.001),
    FINE(sa_in, s_noise, 1, 100),
    AT_ROW_INT(sa_in, predictor_order, 3, 1, 6),
    AT_ROW_INT(sa_in, corrector_order, 4, 0, 6),
    AT_ROW(sa_in, use_pece, AT_IN_BOOL, .flags = AT_INF_NO_DEFAULT),
    AT_ROW(sa_in, simple_order_2, AT_IN_BOOL, .flags = AT_INF_NO_DEFAULT)};
static at_status sa_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const sa_in *i = in;
    const at_model_sampling *m = at_model_get_sampling(((const at_obj_model *)i->model)->model);
    at_sampler_options *p = NULL;
    at_status st = give_sampler("sa_solver", &out[0], &p);
    if (st != AT_OK) return st;
    p->eta = i->eta;
    p->s_noise = i->s_noise;
    p->sde_from = at_percent_to_sigma(m, i->sde_start_percent);
    p->sde_to = at_percent_to_sigma(m, i->sde_end_percent);
    p->predictor_order = at_int_of(i->predictor_order);
    p->corrector_order = at_int_of(i->corrector_order);
    p->use_pece = i->use_pece;
    p->simple_order_2 = i->simple_order_2;
    return AT_OK;
}
static const at_node node_sa =
    SAMPLER("SamplerSASolver", "SamplerSASolver", sa_rows, sa_in, sa_run);

// --- others ------------------------------------------------------------------------------------------
typedef struct version_in {
    const char *version;
} version_in;
static const char *const versions[] = {"regular", "alternative", NULL};
static const at_in version_rows[] = {AT_ROW(version_in, version, AT_IN_COMBO, .choices = versions)};
static at_status version_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    bool other = strcmp(((const version_in *)in)->version, "alternative") == 0;
    return give_sampler(other ? "euler_pp" : "euler_cfg_pp", &out[0], NULL);
}
static const at_node node_version = {.class_type = "SamplerEulerCFGpp",
                                     .display = "SamplerEulerCFG++",
                                     .category = "_for_testing",
                                     .python_module = ADVANCED,
                                     .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                     .in = version_rows,
                                     .n_in = AT_COUNT(version_rows),
                                     .out = sampler_out,
                                     .n_out = 1,
                                     .in_size = sizeof(version_in),
                                     .run = version_run};

typedef struct upscale_in {
    double scale_ratio;
    int64_t scale_steps;
    const char *upscale_method;
} upscale_in;
static const char *const methods[] = {"bislerp", "nearest-exact", "bilinear",
                                      "area",    "bicubic",       NULL};
static const at_in upscale_rows[] = {
    AT_ROW_FLOAT_STEP(upscale_in, scale_ratio, 1, 0.1, 20, 0.01),
    AT_ROW_INT_STEP(upscale_in, scale_steps, -1, -1, 1000, 1),
    AT_ROW(upscale_in, upscale_method, AT_IN_COMBO, .choices = methods)};
static at_status upscale_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const upscale_in *i = in;
    at_sampler_options *p = NULL;
    at_status st = give_sampler("lcm_upscale", &out[0], &p);
    if (st != AT_OK) return st;
    p->total_upscale = i->scale_ratio;
    p->upscale_steps = i->scale_steps < 0 ? -1 : at_int_of(i->scale_steps);
    snprintf(p->upscale_method, sizeof p->upscale_method, "%s", i->upscale_method);
    return AT_OK;
}
static const at_node node_upscale = {.class_type = "SamplerLCMUpscale",
                                     .category = CATEGORY,
                                     .python_module = ADVANCED,
                                     .flags = AT_NODE_V3,
                                     .in = upscale_rows,
                                     .n_in = AT_COUNT(upscale_rows),
                                     .out = sampler_out,
                                     .n_out = 1,
                                     .in_size = sizeof(upscale_in),
                                     .run = upscale_run};

const at_node *const at_nodes_samplers[] = {
    &node_sde, &node_sde_2m,   &node_sde_3m, &node_2s,      &node_euler,   &node_cfgpp, &node_lms,
    &node_er,  &node_adaptive, &node_sa,     &node_version, &node_upscale, NULL};
