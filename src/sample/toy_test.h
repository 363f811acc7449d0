// SPDX-License-Identifier: Apache-2.0
// toy_test.h - the denoiser of tests/golden/comfy/samplers.json, and one run of a sampler over it.
// Owns: run_job makes and frees its own at_ops; numbers come back in the job.
#ifndef AT_SAMPLE_TOY_TEST_H
#define AT_SAMPLE_TOY_TEST_H

#include "sample/golden_test.h"

#include <math.h>

#include "cpu/cpu.h"
#include "sample/guidance.h"
#include "sample/sample.h"

enum { N = 16 }; // values of the toy latent [1, 4, 2, 2]

// Models of the golden file; functions, so that a test may use one and not the others.
static inline at_model_sampling eps_model(void)
{
    return (at_model_sampling){.prediction = AT_PRED_EPS,
                               .kind = AT_SIGMA_DISCRETE,
                               .beta_start = 0.00085,
                               .beta_end = 0.012,
                               .timesteps = 1000,
                               .sigma_data = 1};
}
static inline at_model_sampling flow_model(void)
{
    return (at_model_sampling){.prediction = AT_PRED_CONST,
                               .kind = AT_SIGMA_DISCRETE_FLOW,
                               .shift = 3,
                               .multiplier = 1000,
                               .sigma_data = 1};
}
static inline at_model_sampling flux_model(void)
{
    return (at_model_sampling){
        .prediction = AT_PRED_CONST, .kind = AT_SIGMA_FLUX, .shift = 1.15, .sigma_data = 1};
}

typedef struct job {
    const char *sampler;
    at_model_sampling ms;
    const float *sigmas;
    size_t n;
    const at_sampler_options *options;
    const float *latent, *mask; // N host values or NULL
    double cfg;                 // 0: 2
    bool no_noise, video;       // video: the latent is [1, 4, 1, 2, 2]
    at_comm *comm;
    // Trouble: the call of the denoiser that fails or that cancels (0 never); the allocation that
    // fails.
    int fail_at, cancel_at;
    uint64_t lose_memory_at;
    // What came out.
    float out[N], first_x[N]; // first_x: what the denoiser saw first
    float reported[64][4];    // first values of x at each report
    int calls, reports, total;
    bool wanted_uncond, memory_lost;
    atomic_bool cancel;
} job;

// x0 of one prompt: 0.9 sin(0.37 i + phase) + 0.1 tanh(x / sqrt(1 + sigma^2)).
static inline void toy_x0(const float *x, float sigma, double phase, float *out)
{
    for (int i = 0; i < N; i++)
        out[i] =
            0.9f * sinf((float)(0.37 * i + phase)) + 0.1f * tanhf(x[i] / sqrtf(1 + sigma * sigma));
}

static inline at_tensor *toy_tensor(at_ops *o, const job *j, const float *v)
{
    const int64_t image[4] = {1, 4, 2, 2}, video[5] = {1, 4, 1, 2, 2};
    return at_from_host(o, AT_F32, j->video ? 5 : 4, j->video ? video : image, v);
}

static inline at_denoised toy_call(void *ctx, at_ops *o, const at_tensor *x, float sigma,
                                   bool want_uncond)
{
    job *j = ctx;
    at_denoised d = {0};
    float in[N], c[N], u[N];

    j->calls++;
    j->wanted_uncond |= want_uncond;
    if (j->cancel_at == j->calls) atomic_store(&j->cancel, true);
    if (j->fail_at == j->calls) {
        at_ops_poison(o, AT_EDEVICE, "toy: the device went away");
        return d;
    }
    assert_int_equal(at_tensor_count(x), N);
    assert_int_equal(at_tensor_to_host(x, AT_F32, in, sizeof in), AT_OK);
    if (j->calls == 1) memcpy(j->first_x, in, sizeof in);
    toy_x0(in, sigma, 0, c);
    toy_x0(in, sigma, 0.5, u);
    d.uncond = toy_tensor(o, j, u);
    d.out = at_cfg(o, toy_tensor(o, j, c), d.uncond, j->cfg);
    if (!want_uncond) d.uncond = NULL;
    return d;
}

static inline void toy_report(void *ctx, int step, int total, const at_tensor *denoised,
                              const at_tensor *x)
{
    job *j = ctx;
    float v[N];

    assert_int_equal(step, j->reports);
    assert_int_equal(at_tensor_count(denoised), N);
    assert_int_equal(at_tensor_to_host(x, AT_F32, v, sizeof v), AT_OK);
    if (step < 64) memcpy(j->reported[step], v, sizeof j->reported[step]);
    j->reports++;
    j->total = total;
}

static inline at_status run_job(job *j)
{
    at_sink sink = {.cancel = &j->cancel};
    at_ops_config config = {.compute = AT_F32, .sink = &sink, .comm = j->comm};
    at_denoiser d = {.call = toy_call, .ctx = j, .sampling = &j->ms};
    at_sample_args a = {.sampler = j->sampler,
                        .options = j->options,
                        .sigmas = j->sigmas,
                        .n_sigmas = j->n,
                        .seed = 1234,
                        .on_step = toy_report,
                        .on_step_ctx = j};
    at_ops *o = NULL;
    float noise[N];

    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    if (j->cfg == 0) j->cfg = 2;
    at_randn(1234, noise, N);
    at_scope_begin(o);
    if (!j->no_noise) a.noise = toy_tensor(o, j, noise);
    if (j->latent) a.latent = toy_tensor(o, j, j->latent);
    if (j->mask) a.noise_mask = toy_tensor(o, j, j->mask);
    if (j->lose_memory_at) at_mem_fail_at(j->lose_memory_at, false);
    at_tensor *x = at_sample(o, &d, &a);
    j->memory_lost = j->lose_memory_at && at_mem_fault_hit();
    at_mem_fail_at(0, false);
    at_status st = at_ops_status(o);
    assert_true((x != NULL) == (st == AT_OK));
    if (x) assert_int_equal(at_tensor_to_host(x, AT_F32, j->out, sizeof j->out), AT_OK);
    at_scope_end(o, NULL);
    if (st != AT_OK) at_ops_clear(o); // its text is current again
    at_ops_free(o);
    return st;
}

// Largest |got - want| / max(1, |want|); NaN if there is one.
static inline double distance(const float *got, const float *want, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]) / fmax(1, fabs((double)want[i]));
        if (!(e <= worst)) worst = e;
    }
    return worst;
}

#endif
