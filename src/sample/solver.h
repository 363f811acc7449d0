// SPDX-License-Identifier: Apache-2.0
// solver.h - what a solver is made of: a row in the table, and the run that its steps work on.
// Idea: the runner (run.c) owns the loop, the op scope of each step, the vote, masks and noise; a
// solver is a function from step number to the next x. Coefficients are doubles on the host,
// tensors meet only in at_mix.
// Ownership: tensors that a step makes die with the step, unless returned (the next x) or given to
// at_run_push / at_run_put, which keep a reference until the run ends. Internal to sample/.
#ifndef AT_SAMPLE_SOLVER_H
#define AT_SAMPLE_SOLVER_H

#include "sample/sample.h"

enum {
    AT_SOLVER_UNCOND = 1 << 0,     // reads x0 of the negative prompt
    AT_SOLVER_OFFSET = 1 << 1,     // flow models: a first sigma of 1 has no log SNR, move it
    AT_SOLVER_DROP = 1 << 2,       // KSampler drops the penultimate sigma
    AT_SOLVER_FRESH_MASK = 1 << 3, // masked latents are noised by randn(seed + 1)
};

typedef struct at_run at_run;

typedef struct at_solver {
    const char *name;
    at_tensor *(*step)(at_run *r, int i); // from r->x at r->s[i] to x at r->s[i + 1]
    at_status (*begin)(at_run *r);        // before the first step; may be NULL
    unsigned flags;
    // Defaults that differ from the common ones; -1 and NULL: common.
    double eta, s_noise;
    int order;
    const char *solver_type;
} at_solver;

extern const at_solver at_solvers[]; // at_sampler_count rows, then those that only nodes give

enum { AT_RUN_SLOTS = 4, AT_RUN_NUMBERS = 8 };

struct at_run {
    at_ops *o;
    const at_solver *solver;
    const at_denoiser *model;
    const at_model_sampling *ms;
    const at_sample_args *args;
    at_sampler_options opt;

    double *s;  // n + 1 sigmas (f32 values)
    int n;      // steps
    int rounds; // calls of step: n unless begin changes it
    bool done;  // step may end the loop before

    at_tensor *x;                  // state
    at_tensor **past;              // newest first
    int past_n, past_max;          // past_max is set by begin (default 4)
    at_tensor *slot[AT_RUN_SLOTS]; // the solver's own
    double num[AT_RUN_NUMBERS];    // the solver's own
    double *table;                 // the solver's own, made by at_run_table

    int64_t count;  // elements of x
    float *host;    // count values: noise on its way to the device
    float *scratch; // the solver's own host values, at_calloc'ed by begin
    at_generator noise, global;
    bool global_seeded;
    at_brownian *tree;
    double tree_min, tree_max; // of the sigmas as given

    at_tensor *mask, *unmask, *mask_noise, *latent; // NULL without a mask
};

// --- asking --------------------------------------------------------------------------------------
at_denoised at_run_eval(at_run *r, const at_tensor *x, double sigma);
void at_run_report(at_run *r, int i, const at_tensor *x, const at_tensor *denoised);

// --- noise: standard normal, shape of x ----------------------------------------------------------
at_tensor *at_run_noise(at_run *r);                        // the sampler's own generator
at_tensor *at_run_path(at_run *r, double from, double to); // Brownian step
// torch's global generator after the initial noise; shape of x, or of t.
at_tensor *at_run_global_noise(at_run *r);
at_tensor *at_run_global_noise_like(at_run *r, const at_tensor *t);

// --- memory --------------------------------------------------------------------------------------
void at_run_push(at_run *r, at_tensor *t);          // into past, dropping the oldest
void at_run_put(at_run *r, int slot, at_tensor *t); // NULL empties the slot
at_status at_run_table(at_run *r, size_t n);        // zeroed r->table

// --- arithmetic ----------------------------------------------------------------------------------
typedef struct at_term {
    double k;
    const at_tensor *t;
} at_term;
at_tensor *at_mix_terms(at_ops *o, size_t n, const at_term *terms);
// at_mix(o, {a, x}, {b, y}) = a x + b y. Terms with factor 0 are left out (their tensor may be
// NULL).
#define at_mix(o, ...)                                                                             \
    at_mix_terms(o, sizeof((const at_term[]){__VA_ARGS__}) / sizeof(at_term),                      \
                 (const at_term[]){__VA_ARGS__})
// Along the straight line from x at `from` through x0 to `to`: one Euler step.
at_tensor *at_toward(at_ops *o, const at_tensor *x, const at_tensor *x0, double from, double to);
// (x - x0) / sigma
at_tensor *at_slope(at_ops *o, const at_tensor *x, const at_tensor *x0, double sigma);

// Karras' churn: add noise before step i and start from the higher sigma returned. *x is replaced.
double at_churn(at_run *r, int i, const at_tensor **x);

// Ancestral split of a step: go down to `down`, add `up` of noise.
typedef struct at_split {
    double down, up;
} at_split;
at_split at_ancestral(double from, double to, double eta);
// The same for flow models: after going to `down`, x = keep * x + noise * up.
typedef struct at_flow_split {
    double down, keep, up;
} at_flow_split;
at_flow_split at_flow_ancestral(double from, double to, double eta);

bool at_run_is_flow(const at_run *r);
// Half log SNR of a sigma, its inverse, and alpha = sigma * exp(lambda). f32 results, as torch's.
double at_lambda(const at_run *r, double sigma);
double at_sigma_of(const at_run *r, double lambda);
double at_alpha(const at_run *r, double sigma);

// --- solvers, by family --------------------------------------------------------------------------
at_tensor *at_step_euler(at_run *r, int i);
at_tensor *at_step_euler_ancestral(at_run *r, int i);
at_tensor *at_step_euler_cfg_pp(at_run *r, int i);
at_tensor *at_step_euler_pp(at_run *r, int i);
at_tensor *at_step_heun(at_run *r, int i);
at_tensor *at_step_heunpp2(at_run *r, int i);
at_tensor *at_step_ddpm(at_run *r, int i);
at_tensor *at_step_lcm(at_run *r, int i);
at_tensor *at_step_gradient_estimation(at_run *r, int i);

at_tensor *at_step_dpm_2(at_run *r, int i);
at_tensor *at_step_dpm_2_ancestral(at_run *r, int i);
at_status at_begin_dpm_fast(at_run *r);
at_tensor *at_step_dpm_fast(at_run *r, int i);
at_status at_begin_dpm_adaptive(at_run *r);
at_tensor *at_step_dpm_adaptive(at_run *r, int i);

at_tensor *at_step_dpmpp_2s_ancestral(at_run *r, int i);
at_tensor *at_step_dpmpp_2s_cfg_pp(at_run *r, int i);
at_tensor *at_step_dpmpp_2m(at_run *r, int i);
at_tensor *at_step_dpmpp_2m_cfg_pp(at_run *r, int i);
at_status at_begin_dpmpp_sde(at_run *r);
at_tensor *at_step_dpmpp_sde(at_run *r, int i);
at_tensor *at_step_dpmpp_2m_sde(at_run *r, int i);
at_tensor *at_step_dpmpp_3m_sde(at_run *r, int i);

at_status at_begin_lms(at_run *r);
at_tensor *at_step_lms(at_run *r, int i);
at_tensor *at_step_ipndm(at_run *r, int i);
at_tensor *at_step_ipndm_v(at_run *r, int i);
at_status at_begin_deis(at_run *r);
at_tensor *at_step_deis(at_run *r, int i);
at_tensor *at_step_res_multistep(at_run *r, int i);

at_tensor *at_step_er_sde(at_run *r, int i);
at_tensor *at_step_seeds_2(at_run *r, int i);
at_tensor *at_step_seeds_3(at_run *r, int i);

at_status at_begin_sa(at_run *r);
at_tensor *at_step_sa(at_run *r, int i);
at_status at_begin_unipc(at_run *r);
at_tensor *at_step_unipc(at_run *r, int i);

at_status at_begin_lcm_upscale(at_run *r);
at_tensor *at_step_lcm_upscale(at_run *r, int i);

#endif
