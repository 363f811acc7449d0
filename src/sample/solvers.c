// SPDX-License-Identifier: Apache-2.0
// solvers.c - the table of samplers: ComfyUI's 42 names, their functions, flags and defaults.
// Idea: adding a sampler is a step function and one row here. Order is what the UI shows.
// Source: comfyui-contract section 5.1. Owns nothing.
#include <math.h>
#include <string.h>

#include "sample/solver.h"

// name, step, begin, flags, eta, s_noise, order, solver_type
#define COMMON -1, -1, -1, NULL
#define ETA(e) e, -1, -1, NULL

const at_solver at_solvers[] = {
    {"euler", at_step_euler, NULL, 0, COMMON},
    {"euler_cfg_pp", at_step_euler_cfg_pp, NULL, AT_SOLVER_UNCOND, 0, 0, -1, NULL},
    {"euler_ancestral", at_step_euler_ancestral, NULL, 0, COMMON},
    {"euler_ancestral_cfg_pp", at_step_euler_cfg_pp, NULL, AT_SOLVER_UNCOND, COMMON},
    {"heun", at_step_heun, NULL, 0, COMMON},
    {"heunpp2", at_step_heunpp2, NULL, 0, COMMON},
    {"dpm_2", at_step_dpm_2, NULL, AT_SOLVER_DROP, COMMON},
    {"dpm_2_ancestral", at_step_dpm_2_ancestral, NULL, AT_SOLVER_DROP, COMMON},
    {"lms", at_step_lms, at_begin_lms, 0, -1, -1, 4, NULL},
    {"dpm_fast", at_step_dpm_fast, at_begin_dpm_fast, 0, ETA(0)},
    {"dpm_adaptive", at_step_dpm_adaptive, at_begin_dpm_adaptive, 0, ETA(0)},
    {"dpmpp_2s_ancestral", at_step_dpmpp_2s_ancestral, NULL, 0, COMMON},
    {"dpmpp_2s_ancestral_cfg_pp", at_step_dpmpp_2s_cfg_pp, NULL, AT_SOLVER_UNCOND, COMMON},
    {"dpmpp_sde", at_step_dpmpp_sde, at_begin_dpmpp_sde, AT_SOLVER_OFFSET, COMMON},
    {"dpmpp_sde_gpu", at_step_dpmpp_sde, at_begin_dpmpp_sde, AT_SOLVER_OFFSET, COMMON},
    {"dpmpp_2m", at_step_dpmpp_2m, NULL, 0, COMMON},
    {"dpmpp_2m_cfg_pp", at_step_dpmpp_2m_cfg_pp, NULL, AT_SOLVER_UNCOND, COMMON},
    {"dpmpp_2m_sde", at_step_dpmpp_2m_sde, NULL, AT_SOLVER_OFFSET, COMMON},
    {"dpmpp_2m_sde_gpu", at_step_dpmpp_2m_sde, NULL, AT_SOLVER_OFFSET, COMMON},
    {"dpmpp_2m_sde_heun", at_step_dpmpp_2m_sde, NULL, AT_SOLVER_OFFSET, -1, -1, -1, "heun"},
    {"dpmpp_2m_sde_heun_gpu", at_step_dpmpp_2m_sde, NULL, AT_SOLVER_OFFSET, -1, -1, -1, "heun"},
    {"dpmpp_3m_sde", at_step_dpmpp_3m_sde, NULL, AT_SOLVER_OFFSET, COMMON},
    {"dpmpp_3m_sde_gpu", at_step_dpmpp_3m_sde, NULL, AT_SOLVER_OFFSET, COMMON},
    {"ddpm", at_step_ddpm, NULL, 0, COMMON},
    {"lcm", at_step_lcm, NULL, 0, COMMON},
    {"ipndm", at_step_ipndm, NULL, 0, -1, -1, 4, NULL},
    {"ipndm_v", at_step_ipndm_v, NULL, 0, -1, -1, 4, NULL},
    {"deis", at_step_deis, at_begin_deis, 0, COMMON},
    {"res_multistep", at_step_res_multistep, NULL, 0, ETA(0)},
    {"res_multistep_cfg_pp", at_step_res_multistep, NULL, AT_SOLVER_UNCOND, ETA(0)},
    {"res_multistep_ancestral", at_step_res_multistep, NULL, 0, COMMON},
    {"res_multistep_ancestral_cfg_pp", at_step_res_multistep, NULL, AT_SOLVER_UNCOND, COMMON},
    {"gradient_estimation", at_step_gradient_estimation, NULL, 0, COMMON},
    {"gradient_estimation_cfg_pp", at_step_gradient_estimation, NULL, AT_SOLVER_UNCOND, COMMON},
    {"er_sde", at_step_er_sde, NULL, AT_SOLVER_OFFSET, -1, -1, -1, "ER-SDE"},
    {"seeds_2", at_step_seeds_2, NULL, AT_SOLVER_OFFSET, COMMON},
    {"seeds_3", at_step_seeds_3, NULL, AT_SOLVER_OFFSET, COMMON},
    {"sa_solver", at_step_sa, at_begin_sa, AT_SOLVER_OFFSET, COMMON},
    {"sa_solver_pece", at_step_sa, at_begin_sa, AT_SOLVER_OFFSET, -1, -1, -1, "pece"},
    {"ddim", at_step_euler, NULL, AT_SOLVER_FRESH_MASK, COMMON},
    {"uni_pc", at_step_unipc, at_begin_unipc, AT_SOLVER_DROP, -1, -1, 3, "bh1"},
    {"uni_pc_bh2", at_step_unipc, at_begin_unipc, AT_SOLVER_DROP, -1, -1, 3, "bh2"},
    // Of nodes alone, in no list of names.
    {"euler_pp", at_step_euler_pp, NULL, AT_SOLVER_UNCOND, COMMON},
    {"lcm_upscale", at_step_lcm_upscale, at_begin_lcm_upscale, 0, COMMON},
};
enum { SOLVERS = sizeof at_solvers / sizeof *at_solvers, SECRET = 2 };
const size_t at_sampler_count = SOLVERS - SECRET;

const char *const at_sampler_names[] = {
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
    NULL,
};
_Static_assert(sizeof at_sampler_names / sizeof *at_sampler_names - 1 == SOLVERS - SECRET,
               "one name per row");

int at_sampler_find(const char *name)
{
    for (size_t i = 0; name && i < SOLVERS; i++)
        if (strcmp(at_solvers[i].name, name) == 0) return (int)i;
    return -1;
}

static bool has_flag(const char *name, unsigned flag)
{
    int i = at_sampler_find(name);
    return i >= 0 && (at_solvers[i].flags & flag);
}

bool at_sampler_drops_penultimate(const char *name)
{
    return has_flag(name, AT_SOLVER_DROP);
}

bool at_sampler_wants_uncond(const char *name)
{
    return has_flag(name, AT_SOLVER_UNCOND);
}

void at_sampler_defaults(const char *sampler, at_sampler_options *out)
{
    int i = at_sampler_find(sampler);
    const at_solver *s = &at_solvers[i < 0 ? 0 : i];
    const char *type = s->solver_type ? s->solver_type : "midpoint";

    *out = (at_sampler_options){
        .eta = s->eta >= 0 ? s->eta : 1,
        .s_noise = s->s_noise >= 0 ? s->s_noise : 1,
        .s_tmax = INFINITY,
        .r = 0.5,
        .rtol = 0.05,
        .atol = 0.0078,
        .h_init = 0.05,
        .icoeff = 1,
        .accept_safety = 0.81,
        .ge_gamma = 2,
        .order = s->order >= 0 ? s->order : 3,
        .max_stage = 3,
        .noise_device_cpu = true,
        .sde_start_percent = 0.2,
        .sde_end_percent = 0.8,
        .predictor_order = 3,
        .corrector_order = 4,
        .use_pece = strcmp(type, "pece") == 0,
        .sde_from = -1,
        .sde_to = -1,
        .total_upscale = 2,
        .upscale_steps = -1,
        .upscale_method = "bislerp",
    };
    memcpy(out->solver_type, type, strlen(type) + 1);
}
