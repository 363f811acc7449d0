// SPDX-License-Identifier: Apache-2.0
// verify_sample.c - samplers over the analytic denoiser D(x, sigma) = x / (1 + sigma^2), and noise.
// Owns nothing beyond a call.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/verify_case.h"
#include "sample/noise.h"
#include "sample/sample.h"

enum { MAX_DIMS = AT_MAX_RANK };

// options.shape, [1, 4, 8, 8] if absent.
static at_status read_shape(const at_case *c, int *rank, int64_t shape[MAX_DIMS], int64_t *count)
{
    const json_t *list = json_object_get(c->options, "shape");
    static const int64_t usual[] = {1, 4, 8, 8};
    *rank = list ? (int)json_array_size(list) : 4;
    *count = 1;
    if (*rank < 1 || *rank > MAX_DIMS)
        return at_fail(AT_EFORMAT, "%s: options.shape has %d dimensions", c->dir, *rank);
    for (int i = 0; i < *rank; i++) {
        shape[i] = list ? json_integer_value(json_array_get(list, (size_t)i)) : usual[i];
        if (shape[i] < 1 || shape[i] > 1 << 20 || *count > (1 << 28) / shape[i])
            return at_fail(AT_EFORMAT, "%s: options.shape is out of range", c->dir);
        *count *= shape[i];
    }
    return AT_OK;
}

static uint64_t read_seed(const at_case *c)
{
    return (uint64_t)json_integer_value(json_object_get(c->options, "seed"));
}

at_status at_case_noise(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    float *noise = NULL;
    int64_t shape[MAX_DIMS], n;
    int rank;

    AT_TRY(read_shape(c, &rank, shape, &n));
    noise = at_alloc((size_t)n * sizeof *noise);
    if (!noise) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for noise", c->dir));
    double start = at_now();
    AT_TRY(at_prepare_noise(read_seed(c), rank, shape, NULL, noise));
    r->seconds = at_now() - start;
    AT_TRY(at_case_output(c, "noise", noise, n));
out:
    at_free(noise);
    return st;
}

// --- samplers ----------------------------------------------------------------------------------
typedef struct sampling_row {
    const char *name;
    at_model_sampling value;
} sampling_row;

// options.model_sampling by name; `shift` in the options replaces the row's.
static const sampling_row sampling_rows[] = {
    {"eps",
     {.prediction = AT_PRED_EPS,
      .kind = AT_SIGMA_DISCRETE,
      .beta_start = 0.00085,
      .beta_end = 0.012,
      .timesteps = 1000,
      .sigma_data = 1}},
    {"v",
     {.prediction = AT_PRED_V,
      .kind = AT_SIGMA_DISCRETE,
      .beta_start = 0.00085,
      .beta_end = 0.012,
      .timesteps = 1000,
      .sigma_data = 1}},
    {"flow",
     {.prediction = AT_PRED_CONST, .kind = AT_SIGMA_DISCRETE_FLOW, .shift = 3, .multiplier = 1000}},
    {"flux", {.prediction = AT_PRED_CONST, .kind = AT_SIGMA_FLUX, .shift = 1.15, .multiplier = 1}},
};

static at_status read_sampling(const at_case *c, at_model_sampling *out)
{
    const char *name = at_case_text(c, "model_sampling", "eps");
    for (size_t i = 0; i < sizeof sampling_rows / sizeof *sampling_rows; i++) {
        if (strcmp(sampling_rows[i].name, name) != 0) continue;
        *out = sampling_rows[i].value;
        out->shift = at_case_number(c, "shift", out->shift);
        return AT_OK;
    }
    return at_fail(AT_EFORMAT, "%s: model_sampling \"%s\" is not known (eps, v, flow, flux)",
                   c->dir, name);
}

// x / (1 + sigma^2) for both prompts, so the guidance scale changes nothing.
static at_denoised analytic(void *ctx, at_ops *o, const at_tensor *x, float sigma, bool want_uncond)
{
    (void)ctx;
    at_tensor *d = at_affine(o, x, 1.0f / (1.0f + sigma * sigma), 0);
    return (at_denoised){.out = d, .uncond = want_uncond ? d : NULL};
}

at_status at_case_sampler(at_case *c, at_verify_report *r)
{
    at_status st = AT_OK;
    float *noise = NULL, *sigmas = NULL;
    int64_t shape[MAX_DIMS], n;
    size_t n_sigmas = 0;
    int rank;
    at_model_sampling ms;
    const char *sampler = at_case_text(c, "sampler", "euler");

    AT_TRY(read_sampling(c, &ms));
    AT_TRY(read_shape(c, &rank, shape, &n));
    AT_TRY(at_ksampler_sigmas(sampler, at_case_text(c, "scheduler", "normal"), &ms,
                              (int)at_case_number(c, "steps", 20), at_case_number(c, "denoise", 1),
                              &sigmas, &n_sigmas));
    noise = at_alloc((size_t)n * sizeof *noise);
    if (!noise) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for noise", c->dir));
    AT_TRY(at_prepare_noise(read_seed(c), rank, shape, NULL, noise));
    AT_TRY(at_case_output(c, "sigmas", sigmas, (int64_t)n_sigmas));
    double start = at_now();
    at_tensor *x =
        at_sample(c->ops, &(at_denoiser){.call = analytic, .sampling = &ms},
                  &(at_sample_args){.sampler = sampler,
                                    .sigmas = sigmas,
                                    .n_sigmas = n_sigmas,
                                    .noise = at_from_host(c->ops, AT_F32, rank, shape, noise),
                                    .seed = read_seed(c)});
    r->seconds = at_now() - start;
    AT_TRY(at_case_output_tensor(c, "out", x));
out:
    at_free(noise);
    at_free(sigmas);
    return st;
}
