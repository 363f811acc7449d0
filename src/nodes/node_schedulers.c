// SPDX-License-Identifier: Apache-2.0
// node_schedulers.c - schedules with numbers of their own: Karras, Exponential, Polyexponential, Laplace, VP,
// BetaSampling, SDTurbo, AlignYourSteps, OptimalSteps, GITS.
// Idea: each node is its rows and one call of sample/sigmas.h or sample/sigma_lists.h.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_custom_sampler.py and the nodes of each table.
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "sample/sigma_lists.h"

#define MODULE   "comfy_extras.nodes_custom_sampler"
#define CATEGORY "sampling/custom_sampling/schedulers"

static const at_out sigmas_out[] = {AT_OUT("SIGMAS")};
#define SCHEDULER(cls, title, module, flag, rows, st, fn)                                          \
    {                                                                                              \
        .class_type = cls, .display = title, .category = CATEGORY, .python_module = module,        \
        .flags = flag, .in = rows, .n_in = AT_COUNT(rows), .out = sigmas_out, .n_out = 1,          \
        .in_size = sizeof(st), .run = fn,                                                          \
    }

#define FINE_FLAGS AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP | AT_INF_ROUND_FALSE
#define FINE(st, field, d, lo, hi, by)                                                             \
    AT_ROW(st, field, AT_IN_FLOAT, .def = d, .min = lo, .max = hi, .step = by, .flags = FINE_FLAGS)

static const at_model_sampling *sampling_of(const at_object *model)
{
    return at_model_get_sampling(((const at_obj_model *)model)->model);
}

// --- between two sigmas ------------------------------------------------------------------------------
typedef struct between_in {
    int64_t steps;
    double sigma_max, sigma_min, rho;
} between_in;
#define BETWEEN                                                                                    \
    AT_ROW_INT(between_in, steps, 20, 1, 10000),                                                   \
        FINE(between_in, sigma_max, 14.614642, 0, 5000, 0.01),                                     \
        FINE(between_in, sigma_min, 0.0291675, 0, 5000, 0.01)
static const at_in karras_rows[] = {BETWEEN, FINE(between_in, rho, 7, 0, 100, 0.01)};
static const at_in exponential_rows[] = {BETWEEN};
static const at_in poly_rows[] = {BETWEEN, FINE(between_in, rho, 1, 0, 100, 0.01)};

static at_status karras_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const between_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st =
        at_schedule_karras(at_int_of(i->steps), i->sigma_min, i->sigma_max, i->rho, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "KarrasScheduler") : st;
}
static const at_node node_karras =
    SCHEDULER("KarrasScheduler", "KarrasScheduler", MODULE, 0, karras_rows, between_in, karras_run);

static at_status exponential_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const between_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st = at_schedule_exponential(at_int_of(i->steps), i->sigma_min, i->sigma_max, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "ExponentialScheduler") : st;
}
static const at_node node_exponential =
    SCHEDULER("ExponentialScheduler", "ExponentialScheduler", MODULE, 0, exponential_rows,
              between_in, exponential_run);

static at_status poly_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const between_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st = at_schedule_polyexponential(at_int_of(i->steps), i->sigma_min, i->sigma_max,
                                               i->rho, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "PolyexponentialScheduler") : st;
}
static const at_node node_poly = SCHEDULER("PolyexponentialScheduler", "PolyexponentialScheduler",
                                           MODULE, 0, poly_rows, between_in, poly_run);

// --- Laplace, VP -------------------------------------------------------------------------------------
typedef struct laplace_in {
    int64_t steps;
    double sigma_max, sigma_min, mu, beta;
} laplace_in;
static const at_in laplace_rows[] = {AT_ROW_INT(laplace_in, steps, 20, 1, 10000),
                                     FINE(laplace_in, sigma_max, 14.614642, 0, 5000, 0.01),
                                     FINE(laplace_in, sigma_min, 0.0291675, 0, 5000, 0.01),
                                     FINE(laplace_in, mu, 0, -10, 10, 0.1),
                                     FINE(laplace_in, beta, 0.5, 0, 10, 0.1)};
static at_status laplace_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const laplace_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st = at_schedule_laplace(at_int_of(i->steps), i->sigma_min, i->sigma_max, i->mu,
                                       i->beta, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "LaplaceScheduler") : st;
}
static const at_node node_laplace = SCHEDULER("LaplaceScheduler", "LaplaceScheduler", MODULE, 0,
                                              laplace_rows, laplace_in, laplace_run);

typedef struct vp_in {
    int64_t steps;
    double beta_d, beta_min, eps_s;
} vp_in;
static const at_in vp_rows[] = {
    AT_ROW_INT(vp_in, steps, 20, 1, 10000), FINE(vp_in, beta_d, 19.9, 0, 5000, 0.01),
    FINE(vp_in, beta_min, 0.1, 0, 5000, 0.01), FINE(vp_in, eps_s, 0.001, 0, 1, 0.0001)};
static at_status vp_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const vp_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st = at_schedule_vp(at_int_of(i->steps), i->beta_d, i->beta_min, i->eps_s, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "VPScheduler") : st;
}
static const at_node node_vp =
    SCHEDULER("VPScheduler", "VPScheduler", MODULE, 0, vp_rows, vp_in, vp_run);

// --- of a model --------------------------------------------------------------------------------------
typedef struct beta_in {
    at_object *model;
    int64_t steps;
    double alpha, beta;
} beta_in;
static const at_in beta_rows[] = {
    AT_ROW_LINK_BARE(beta_in, model, "MODEL"), AT_ROW_INT(beta_in, steps, 20, 1, 10000),
    FINE(beta_in, alpha, 0.6, 0, 50, 0.01), FINE(beta_in, beta, 0.6, 0, 50, 0.01)};
static at_status beta_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const beta_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st =
        at_schedule_beta(sampling_of(i->model), at_int_of(i->steps), i->alpha, i->beta, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "BetaSamplingScheduler") : st;
}
static const at_node node_beta = SCHEDULER("BetaSamplingScheduler", "BetaSamplingScheduler", MODULE,
                                           0, beta_rows, beta_in, beta_run);

typedef struct turbo_in {
    at_object *model;
    int64_t steps;
    double denoise;
} turbo_in;
static const at_in turbo_rows[] = {
    AT_ROW_LINK_BARE(turbo_in, model, "MODEL"), AT_ROW_INT(turbo_in, steps, 1, 1, 10),
    AT_ROW(turbo_in, denoise, AT_IN_FLOAT, .def = 1, .min = 0, .max = 1, .step = 0.01,
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP, .alt = AT_ALT_MIN)};
static at_status turbo_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const turbo_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st =
        at_schedule_sd_turbo(sampling_of(i->model), at_int_of(i->steps), i->denoise, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "SDTurboScheduler") : st;
}
static const at_node node_turbo =
    SCHEDULER("SDTurboScheduler", "SDTurboScheduler", MODULE, 0, turbo_rows, turbo_in, turbo_run);

// --- of a table --------------------------------------------------------------------------------------
typedef struct listed_in {
    const char *model_type;
    double coeff;
    int64_t steps;
    double denoise;
} listed_in;
static const char *const ays_types[] = {"SD1", "SDXL", "SVD", NULL};
static const char *const optimal_types[] = {"FLUX", "Wan", "Chroma", NULL};
static const at_in ays_rows[] = {AT_ROW(listed_in, model_type, AT_IN_COMBO, .choices = ays_types),
                                 AT_ROW_INT(listed_in, steps, 10, 1, 10000),
                                 AT_ROW_FLOAT_STEP(listed_in, denoise, 1.0, 0, 1, 0.01)};
static const at_in optimal_rows[] = {
    AT_ROW(listed_in, model_type, AT_IN_COMBO, .choices = optimal_types),
    AT_ROW_INT(listed_in, steps, 20, 3, 1000),
    AT_ROW_FLOAT_STEP(listed_in, denoise, 1.0, 0, 1, 0.01)};
static const at_in gits_rows[] = {AT_ROW_FLOAT_STEP(listed_in, coeff, 1.2, 0.8, 1.5, 0.05),
                                  AT_ROW_INT(listed_in, steps, 10, 2, 1000),
                                  AT_ROW_FLOAT_STEP(listed_in, denoise, 1.0, 0, 1, 0.01)};

static at_status listed_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const listed_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st = at_schedule_listed(i->model_type, at_int_of(i->steps), i->denoise, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), i->model_type) : st;
}
static at_status gits_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const listed_in *i = in;
    float *s = NULL;
    size_t n = 0;
    at_status st = at_schedule_gits(i->coeff, at_int_of(i->steps), i->denoise, &s, &n);
    return st == AT_OK ? at_give(&out[0], at_obj_sigmas_new(s, n), "GITSScheduler") : st;
}
static const at_node node_ays =
    SCHEDULER("AlignYourStepsScheduler", NULL, "comfy_extras.nodes_align_your_steps", AT_NODE_V3,
              ays_rows, listed_in, listed_run);
static const at_node node_optimal =
    SCHEDULER("OptimalStepsScheduler", NULL, "comfy_extras.nodes_optimalsteps", AT_NODE_V3,
              optimal_rows, listed_in, listed_run);
static const at_node node_gits = SCHEDULER("GITSScheduler", NULL, "comfy_extras.nodes_gits",
                                           AT_NODE_V3, gits_rows, listed_in, gits_run);

const at_node *const at_nodes_schedulers[] = {
    &node_karras, &node_exponential, &node_poly,    &node_laplace, &node_vp, &node_beta,
    &node_turbo,  &node_ays,         &node_optimal, &node_gits,    NULL};
