// SPDX-License-Identifier: Apache-2.0
// sample.h - the solvers: from noise to a latent by asking a denoiser at falling noise levels.
// Idea: a solver knows nothing of models. It calls `denoise` and combines tensors with at_lincomb;
// the tensors stay on the device. Every solver is one row of the table in solvers.c.
// Ownership: see each call. One at_ops, one thread.
#ifndef AT_SAMPLE_SAMPLE_H
#define AT_SAMPLE_SAMPLE_H

#include "ops/ops.h"
#include "sample/noise.h"
#include "sample/sigmas.h"

// What the guidance returns for one evaluation; tensors in the caller's current scope, f32.
typedef struct at_denoised {
    at_tensor *out;    // after CFG
    at_tensor *uncond; // x0 of the negative prompt; NULL unless asked (cfg_pp solvers)
} at_denoised;

typedef struct at_denoiser {
    // x and the results f32 [b, c, h, w] (or video rank 5) on the op device. want_uncond: fill
    // `uncond` even where cfg is 1 and the negative prompt would be skipped.
    at_denoised (*call)(void *ctx, at_ops *o, const at_tensor *x, float sigma, bool want_uncond);
    void *ctx;
    const at_model_sampling *sampling;
} at_denoiser;

// Options that the sampler nodes expose; at_sampler_defaults fills what ComfyUI would use. A solver
// reads those that it knows.
typedef struct at_sampler_options {
    double eta, s_noise, s_churn, s_tmin, s_tmax, r, rtol, atol, h_init, pcoeff, icoeff, dcoeff,
        accept_safety, ge_gamma;
    int order, max_stage;
    char solver_type[20]; // "midpoint", "heun"; "ER-SDE", "Reverse-time SDE", "ODE"
    bool noise_device_cpu;
    // SA-Solver: noise between these shares of the way; orders of its two halves
    double sde_start_percent, sde_end_percent;
    int predictor_order, corrector_order;
    bool use_pece, simple_order_2;
    // In place of the shares, where a node asked another model: sigmas from and to; -1: not asked.
    double sde_from, sde_to;
    // lcm_upscale: the whole growth, over how many steps (-1: half of them), and how
    double total_upscale;
    int upscale_steps;
    char upscale_method[16];
} at_sampler_options;
void at_sampler_defaults(const char *sampler, at_sampler_options *out); // unknown name: euler's

typedef struct at_sample_args {
    const char *sampler;               // one of at_sampler_names
    const at_sampler_options *options; // NULL: defaults
    // n_sigmas values. 0: the latent comes back unchanged; 1: it is noised and nothing is asked.
    const float *sigmas;
    size_t n_sigmas;
    const at_tensor *noise;  // f32; NULL: zeros (DisableNoise)
    const at_tensor *latent; // f32, already process_in'ed; NULL: zeros. One of the two is needed
    const at_tensor
        *noise_mask; // f32 of the latent's rank, broadcastable to it; 1 = paint; or NULL
    uint64_t seed;   // of per-step noise
    // Where the mask moves with the noise level: what stands for noise_mask at this sigma, a tensor of
    // the current scope. NULL: it does not move.
    at_tensor *(*mask_at)(void *ctx, at_ops *o, float sigma);
    void *mask_ctx;
    // Called in each step as soon as its x0 estimate is known (step counts from 0; dpm_adaptive may
    // exceed total). Tensors are borrowed for the call. May be NULL.
    void (*on_step)(void *ctx, int step, int total, const at_tensor *denoised, const at_tensor *x);
    void *on_step_ctx;
} at_sample_args;

extern const char *const at_sampler_names[]; // ComfyUI's 42, in its order; then NULL, for combos
extern const size_t at_sampler_count;
// -1 if unknown. Beyond the 42 there are solvers that only nodes give: "euler_pp", "lcm_upscale".
int at_sampler_find(const char *name);
// KSampler plans one step more for these and drops the second last sigma.
bool at_sampler_drops_penultimate(const char *name);
// True for the cfg_pp solvers: they read x0 of the negative prompt, also at cfg 1.
bool at_sampler_wants_uncond(const char *name);

// Noise the latent for sigmas[0], run the solver, undo the noise scaling. Result f32 in the current
// scope of `o`; NULL after a failure (see at_ops_status). Checks cancel and votes once per step.
at_tensor *at_sample(at_ops *o, const at_denoiser *d, const at_sample_args *args);

#endif
