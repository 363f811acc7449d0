// SPDX-License-Identifier: Apache-2.0
// solvers_test.c - unit.sample.solvers: every sampler against ComfyUI 0.3.64 on a toy denoiser, and
// what holds for all of them.
#include "sample/golden_test.h"

#include <math.h>

#include "cpu/cpu.h"
#include "sample/guidance.h"
#include "sample/sample.h"

static const at_model_sampling eps = {.prediction = AT_PRED_EPS,
                                      .kind = AT_SIGMA_DISCRETE,
                                      .beta_start = 0.00085,
                                      .beta_end = 0.012,
                                      .timesteps = 1000,
                                      .sigma_data = 1};
static const at_model_sampling flow3 = {.prediction = AT_PRED_CONST,
                                        .kind = AT_SIGMA_DISCRETE_FLOW,
                                        .shift = 3,
                                        .multiplier = 1000,
                                        .sigma_data = 1};
static const at_model_sampling flux = {
    .prediction = AT_PRED_CONST, .kind = AT_SIGMA_FLUX, .shift = 1.15, .sigma_data = 1};
static const int64_t shape[4] = {1, 4, 2, 2};
enum { N = 16 };

static at_ops *new_ops(const at_sink *sink)
{
    at_ops *o = NULL;
    at_ops_config c = {.compute = AT_F32, .sink = sink};
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    assert_int_equal(at_ops_new(&c, &o), AT_OK);
    return o;
}

// --- toy denoiser -----------------------------------------------------------------------------------
typedef struct toy {
    double cfg;
    int calls, fail_at;  // fail_at: the call that poisons, 0 never
    atomic_bool *cancel; // set at the third call
    float x_max;         // largest |x| seen
    bool wanted_uncond;
    bool with_mask_check;
} toy;

// x0 of one prompt: 0.9 sin(0.37 i + phase) + 0.1 tanh(x / sqrt(1 + sigma^2)).
static void toy_x0(const float *x, float sigma, double phase, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = 0.9f * sinf((float)(0.37 * (double)i + phase)) +
                 0.1f * tanhf(x[i] / sqrtf(1 + sigma * sigma));
}

static at_denoised toy_call(void *ctx, at_ops *o, const at_tensor *x, float sigma, bool want_uncond)
{
    toy *t = ctx;
    at_denoised d = {0};
    float in[N], c[N], u[N];

    t->calls++;
    t->wanted_uncond |= want_uncond;
    if (t->cancel && t->calls == 3) atomic_store(t->cancel, true);
    if (t->fail_at == t->calls) {
        at_ops_poison(o, AT_EDEVICE, "toy: the device went away");
        return d;
    }
    assert_int_equal(at_tensor_count(x), N);
    assert_int_equal(at_tensor_to_host(x, AT_F32, in, sizeof in), AT_OK);
    for (int i = 0; i < N; i++)
        t->x_max = fmaxf(t->x_max, fabsf(in[i]));
    toy_x0(in, sigma, 0, c, N);
    toy_x0(in, sigma, 0.5, u, N);
    d.uncond = at_from_host(o, AT_F32, 4, shape, u);
    d.out = at_cfg(o, at_from_host(o, AT_F32, 4, shape, c), d.uncond, t->cfg);
    if (!want_uncond) d.uncond = NULL;
    return d;
}

// --- one run ----------------------------------------------------------------------------------------
typedef struct trace {
    float x[256][4]; // first values of x at each report
    int steps, total;
} trace;

static void record(void *ctx, int step, int total, const at_tensor *denoised, const at_tensor *x)
{
    trace *t = ctx;
    float v[N];

    assert_int_equal(step, t->steps);
    assert_int_equal(at_tensor_count(denoised), N);
    assert_int_equal(at_tensor_to_host(x, AT_F32, v, sizeof v), AT_OK);
    if (step < 256) memcpy(t->x[step], v, sizeof t->x[step]);
    t->steps++;
    t->total = total;
}

typedef struct job {
    const char *sampler;
    const at_model_sampling *ms;
    const float *sigmas;
    size_t n;
    const float *latent, *mask; // N host values or NULL
    const at_sampler_options *options;
    toy toy;
    trace trace;
    float out[N];
} job;

static at_status run(job *j)
{
    atomic_bool cancel = false;
    at_sink sink = {.cancel = &cancel};
    at_ops *o = new_ops(&sink);
    float noise[N];

    if (j->toy.cancel) j->toy.cancel = &cancel;
    if (j->toy.cfg == 0) j->toy.cfg = 2;
    at_randn(1234, noise, N);
    at_scope_begin(o);
    at_denoiser d = {.call = toy_call, .ctx = &j->toy, .sampling = j->ms};
    at_sample_args a = {.sampler = j->sampler,
                        .options = j->options,
                        .sigmas = j->sigmas,
                        .n_sigmas = j->n,
                        .noise = at_from_host(o, AT_F32, 4, shape, noise),
                        .latent = j->latent ? at_from_host(o, AT_F32, 4, shape, j->latent) : NULL,
                        .noise_mask = j->mask ? at_from_host(o, AT_F32, 4, shape, j->mask) : NULL,
                        .seed = 1234,
                        .on_step = record,
                        .on_step_ctx = &j->trace};
    at_tensor *x = at_sample(o, &d, &a);
    at_status st = at_ops_status(o);
    assert_true((x != NULL) == (st == AT_OK));
    if (x) assert_int_equal(at_tensor_to_host(x, AT_F32, j->out, sizeof j->out), AT_OK);
    at_scope_end(o, NULL);
    at_ops_free(o);
    return st;
}

static size_t read_numbers(const json_t *list, float *out, size_t max)
{
    size_t n = json_array_size(list);
    assert_true(n <= max);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)json_number_value(json_array_get(list, i));
    return n;
}

// Largest |got - want| / max(1, |want|).
static double distance(const float *got, const float *want, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - want[i]) / fmax(1, fabs(want[i]));
        if (!(e <= worst)) worst = e;
    }
    return worst;
}

// ComfyUI reports the x before the first step at every step of these.
static bool reports_start(const char *sampler)
{
    return strncmp(sampler, "ipndm", 5) == 0 || strcmp(sampler, "deis") == 0;
}

// f32 arithmetic in another order. dpm_adaptive chooses its steps by an error estimate that begins as
// pure rounding: ComfyUI itself, on another torch, is 1.4e-3 away from these numbers on the way.
static double tolerance(const char *sampler)
{
    return strcmp(sampler, "dpm_adaptive") == 0 ? 2e-3 : 2e-5;
}

static void samplers_match_comfyui(void **state)
{
    json_t *file = golden_load("samplers.json"), *models, *row;
    const char *model, *sampler;
    int cases = 0, wrong = 0;
    (void)state;

    json_object_foreach(json_object_get(file, "samplers"), model, models)
    {
        json_object_foreach(models, sampler, row)
        {
            float sigmas[64], want[N], first[4];
            job j = {.sampler = sampler,
                     .ms = strcmp(model, "eps") == 0 ? &eps : &flow3,
                     .sigmas = sigmas,
                     .n = read_numbers(json_object_get(row, "sigmas"), sigmas, 64)};
            json_t *steps = json_object_get(row, "x_at_callback_first4");
            assert_int_equal(run(&j), AT_OK);
            assert_int_equal(read_numbers(json_object_get(row, "result"), want, N), N);
            double worst = distance(j.out, want, N), room = tolerance(sampler);
            if (j.trace.steps != (int)json_array_size(steps)) worst = NAN;
            for (int i = 0; i < j.trace.steps && !reports_start(sampler); i++) {
                read_numbers(json_array_get(steps, (size_t)i), first, 4);
                worst = fmax(worst, distance(j.trace.x[i], first, 4));
            }
            if (!(worst < room)) print_error("%s %s: off by %g\n", model, sampler, worst);
            wrong += !(worst < room);
            cases++;
        }
    }
    assert_int_equal(cases, 42 + 28);
    assert_int_equal(wrong, 0);
    json_decref(file);
}

// --- what holds for all -----------------------------------------------------------------------------
static void every_sampler_with_every_schedule_gives_numbers(void **state)
{
    const at_model_sampling *const models[] = {&eps, &flow3, &flux};
    (void)state;

    for (size_t s = 0; s < at_sampler_count; s++)
        for (size_t k = 0; k < at_scheduler_count; k++)
            for (size_t m = 0; m < 3; m++) {
                job j = {.sampler = at_sampler_names[s], .ms = models[m]};
                float *sigmas = NULL;
                assert_int_equal(
                    at_ksampler_sigmas(j.sampler, at_scheduler_names[k], j.ms, 5, 1, &sigmas, &j.n),
                    AT_OK);
                j.sigmas = sigmas;
                if (run(&j) != AT_OK)
                    fail_msg("%s, %s: %s", j.sampler, at_scheduler_names[k], at_error_text());
                for (int i = 0; i < N; i++)
                    if (!(fabsf(j.out[i]) < 30))
                        fail_msg("%s, %s, model %zu: value %d is %g", j.sampler,
                                 at_scheduler_names[k], m, i, (double)j.out[i]);
                at_free(sigmas);
            }
}

static void names_rows_and_flags_agree(void **state)
{
    size_t cfg_pp = 0;
    (void)state;

    assert_int_equal(at_sampler_count, 42);
    for (size_t i = 0; i < at_sampler_count; i++) {
        const char *name = at_sampler_names[i];
        assert_int_equal(at_sampler_find(name), (int)i);
        assert_true(at_sampler_wants_uncond(name) == (strstr(name, "cfg_pp") != NULL));
        cfg_pp += at_sampler_wants_uncond(name);
    }
    assert_int_equal(cfg_pp, 7);
    assert_int_equal(at_sampler_find("k_euler"), -1);
    assert_int_equal(at_sampler_find(NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samplers_match_comfyui),
        cmocka_unit_test(names_rows_and_flags_agree),
        cmocka_unit_test(every_sampler_with_every_schedule_gives_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
