// SPDX-License-Identifier: Apache-2.0
// sigmas_test.c - unit.sample.sigmas: tables and schedules against ComfyUI 0.3.64, and the rules
// around them. Tolerance 2e-6 relative: torch's own results move by ulps between machines.
#include "sample/golden_test.h"

#include <math.h>

#include "sample/incbeta.h"
#include "sample/sample.h"
#include "sample/sigmas.h"

#define ROOM 2e-6

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
static const at_model_sampling edm = {.prediction = AT_PRED_EDM,
                                      .kind = AT_SIGMA_CONTINUOUS_EDM,
                                      .sigma_min = 0.002,
                                      .sigma_max = 80,
                                      .sigma_data = 0.5};

static const at_model_sampling *model_of(const char *name)
{
    if (strcmp(name, "eps") == 0) return &eps;
    return strcmp(name, "flux") == 0 ? &flux : &flow3;
}

static void assert_close(double got, double want, const char *what)
{
    if (!(fabs(got - want) <= ROOM * fmax(1e-3, fabs(want))))
        fail_msg("%s: %.9g, expected %.9g", what, got, want);
}

static void tables_match_comfyui(void **state)
{
    json_t *j = golden_load("samplers.json"), *row;
    const char *name;
    (void)state;

    json_object_foreach(json_object_get(j, "tables"), name, row)
    {
        const at_model_sampling *m = model_of(name);
        float *t = NULL;
        size_t n = 0;
        assert_int_equal(at_sigma_table(m, &t, &n), AT_OK);
        assert_int_equal(n, (size_t)golden_number(row, "n"));
        assert_close(t[0], golden_number(row, "first"), name);
        assert_close(t[n / 2], golden_number(row, "mid"), name);
        assert_close(t[n - 1], golden_number(row, "last"), name);
        assert_true(t[0] == at_sigma_min(m) && t[n - 1] == at_sigma_max(m));
        for (size_t i = 1; i < n; i++)
            assert_true(t[i] > t[i - 1]);
        at_free(t);
    }
    json_decref(j);
}

static void schedules_match_comfyui(void **state)
{
    json_t *j = golden_load("samplers.json"), *models, *schedules, *want, *v;
    const char *model, *scheduler, *steps;
    size_t cases = 0, i;
    (void)state;

    json_object_foreach(json_object_get(j, "sigmas"), model, models)
    {
        json_object_foreach(models, scheduler, schedules)
        {
            json_object_foreach(schedules, steps, want)
            {
                float *s = NULL;
                size_t n = 0;
                char what[96];
                assert_int_equal(at_schedule(scheduler, model_of(model), atoi(steps), &s, &n),
                                 AT_OK);
                assert_int_equal(n, json_array_size(want));
                json_array_foreach(want, i, v)
                {
                    snprintf(what, sizeof what, "%s/%s/%s[%zu]", model, scheduler, steps, i);
                    assert_close(s[i], json_number_value(v), what);
                }
                at_free(s);
                cases++;
            }
        }
    }
    assert_int_equal(cases, 3 * 9 * 2);
    json_decref(j);
}

static void timesteps_and_sigmas_are_inverse(void **state)
{
    const at_model_sampling v = {
        .kind = AT_SIGMA_CONTINUOUS_V, .sigma_min = 0.03, .sigma_max = 500};
    const at_model_sampling *all[] = {&eps, &flow3, &flux, &edm, &v};
    (void)state;

    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        float *t = NULL;
        size_t n = 0;
        assert_int_equal(at_sigma_table(all[k], &t, &n), AT_OK);
        for (size_t i = 0; i < n; i += 37) {
            float step = at_sigma_to_timestep(all[k], t[i]);
            // flux is told its sigma and shifts only positions on the way
            float back = all[k]->kind == AT_SIGMA_FLUX ? step : at_timestep_to_sigma(all[k], step);
            if (all[k]->kind == AT_SIGMA_DISCRETE) assert_true(step == (float)i);
            if (all[k]->kind == AT_SIGMA_DISCRETE_FLOW) continue; // the same: sigma * 1000
            assert_true(fabsf(back / t[i] - 1) < 2e-4f);          // tan near its pole in f32
        }
        at_free(t);
    }
    assert_true(at_sigma_to_timestep(&flow3, 0.5f) == 500.0f);
    assert_true(at_timestep_to_sigma(&eps, 1e9f) == at_timestep_to_sigma(&eps, 999));
    assert_close(at_timestep_to_sigma(&eps, 0.5f),
                 sqrt((double)at_timestep_to_sigma(&eps, 0) * at_timestep_to_sigma(&eps, 1)),
                 "half way in log");
}

static void percents_cover_the_way(void **state)
{
    (void)state;

    assert_true(at_percent_to_sigma(&eps, 0) > 1e8 && at_percent_to_sigma(&edm, -1) > 1e8);
    assert_true(at_percent_to_sigma(&flux, 0) == 1 && at_percent_to_sigma(&flow3, 0) == 1);
    const at_model_sampling *all[] = {&eps, &flow3, &flux, &edm};
    for (size_t k = 0; k < 4; k++) {
        assert_true(at_percent_to_sigma(all[k], 1) == 0 && at_percent_to_sigma(all[k], 2) == 0);
        for (int p = 1; p < 10; p++)
            assert_true(at_percent_to_sigma(all[k], p / 10.0) <
                        at_percent_to_sigma(all[k], (p - 1) / 10.0));
    }
    assert_close(at_percent_to_sigma(&flow3, 0.5), 0.75, "shift 3");
    assert_close(at_percent_to_sigma(&edm, 0.5), sqrt(0.002 * 80), "geometric middle");
}

static void zero_snr_ends_in_noise_and_keeps_its_start(void **state)
{
    at_model_sampling z = eps;
    float *a = NULL, *b = NULL;
    size_t n = 0;
    (void)state;

    z.zsnr = true;
    assert_int_equal(at_sigma_table(&z, &a, &n), AT_OK);
    assert_int_equal(at_sigma_table(&eps, &b, &n), AT_OK);
    assert_close(a[0], b[0], "first");
    assert_close(a[999], sqrt((1 - 4.8973451890853435e-08) / 4.8973451890853435e-08), "last");
    for (size_t i = 1; i < n; i++)
        assert_true(a[i] > a[i - 1] && a[i] >= b[i] * 0.999999f);
    at_free(a);
    at_free(b);
}

static void beta_quantile_inverts_the_distribution(void **state)
{
    (void)state;

    // The arcsine distribution is known in closed form: I_x(1/2, 1/2) = 2/pi asin(sqrt x).
    for (int i = 1; i < 100; i++) {
        double x = i / 100.0;
        assert_true(fabs(at_beta_cdf(x, 0.5, 0.5) - 2 / M_PI * asin(sqrt(x))) < 1e-13);
        assert_true(fabs(at_beta_cdf(at_beta_quantile(x, 0.6, 0.6), 0.6, 0.6) - x) < 1e-13);
        assert_true(fabs(at_beta_quantile(x, 3, 1) - cbrt(x)) < 1e-13); // I_x(3, 1) = x^3
    }
    assert_true(at_beta_quantile(0, 0.6, 0.6) == 0 && at_beta_quantile(1, 0.6, 0.6) == 1);
}

static size_t plan(const char *sampler, const char *scheduler, int steps, double denoise, float **s)
{
    size_t n = 99;
    assert_int_equal(at_ksampler_sigmas(sampler, scheduler, &eps, steps, denoise, s, &n), AT_OK);
    return n;
}

static void denoise_keeps_the_tail(void **state)
{
    float *a = NULL, *b = NULL;
    (void)state;

    assert_int_equal(plan("euler", "karras", 10, 0.5, &a), 11);
    assert_int_equal(plan("euler", "karras", 20, 1, &b), 21);
    for (int i = 0; i < 11; i++)
        assert_true(a[i] == b[i + 10]);
    at_free(a);
    at_free(b);
    assert_int_equal(plan("euler", "karras", 10, 0, &a), 0);
    assert_null(a);
    assert_int_equal(plan("euler", "karras", 3, 0.99995, &a), 4); // as good as 1
    at_free(a);
    assert_int_equal(plan("euler", "karras", 1, 0.3, &a), 2); // int(1 / 0.3) = 3 steps, the last
    at_free(a);
}

static void some_samplers_drop_the_penultimate_sigma(void **state)
{
    const char *const names[] = {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"};
    float *a = NULL, *b = NULL;
    (void)state;

    for (int k = 0; k < 4; k++) {
        assert_int_equal(plan(names[k], "normal", 8, 1, &a), 9);
        assert_int_equal(plan(NULL, "normal", 9, 1, &b), 10);
        for (int i = 0; i < 8; i++)
            assert_true(a[i] == b[i]);
        assert_true(a[8] == 0);
        at_free(a);
        at_free(b);
    }
    assert_int_equal(plan("dpm_2", "simple", 10, 0.5, &a), 11);
    assert_int_equal(plan(NULL, "simple", 21, 1, &b), 22); // 20 steps and one more, then the tail
    for (int i = 0; i < 10; i++)
        assert_true(a[i] == b[i + 10]);
    assert_true(a[10] == 0);
    at_free(a);
    at_free(b);
}

static void windows_cut_as_ksampler_advanced(void **state)
{
    float s[5] = {5, 4, 3, 2, 0};
    (void)state;

    assert_int_equal(at_sigmas_window(s, 5, 1, 3, true), 3);
    assert_true(s[0] == 4 && s[1] == 3 && s[2] == 2);
    float t[5] = {5, 4, 3, 2, 0};
    assert_int_equal(at_sigmas_window(t, 5, 0, 2, false), 3);
    assert_true(t[0] == 5 && t[2] == 0);
    float u[5] = {5, 4, 3, 2, 0};
    assert_int_equal(at_sigmas_window(u, 5, 0, 10000, false), 5);
    assert_int_equal(at_sigmas_window(u, 5, 4, 10000, false), 0);
    assert_int_equal(at_sigmas_window(u, 5, 9, 2, false), 0);
    float v[5] = {5, 4, 3, 2, 0};
    assert_int_equal(at_sigmas_window(v, 5, 0, 0, false), 0); // no step is left: no noise either
    assert_int_equal(at_sigmas_window(v, 1, -1, 10000, false), 1);
}

static void odd_step_counts_follow_comfyui(void **state)
{
    float *s = NULL;
    size_t n = 0;
    (void)state;

    // 1000 / 7 = 142: entries 1, 143, ... 995 and a zero.
    assert_int_equal(at_schedule("ddim_uniform", &eps, 7, &s, &n), AT_OK);
    assert_int_equal(n, 9);
    at_free(s);
    assert_int_equal(at_schedule("ddim_uniform", &eps, 5000, &s, &n), AT_OK);
    assert_int_equal(n, 1000);
    at_free(s);
    for (size_t k = 0; k < at_scheduler_count; k++) {
        assert_int_equal(at_schedule(at_scheduler_names[k], &flux, 1, &s, &n), AT_OK);
        assert_true(n >= 2 && s[0] > 0 && s[n - 1] == 0);
        for (size_t i = 0; i < n; i++)
            assert_true(isfinite(s[i]));
        at_free(s);
        assert_int_equal(at_scheduler_find(at_scheduler_names[k]), (int)k);
        assert_int_equal(at_schedule(at_scheduler_names[k], &flux, 0, &s, &n), AT_OK);
        assert_int_equal(n, 0);
        at_free(s);
    }
}

static void node_schedules_start_and_end_where_asked(void **state)
{
    float *s = NULL;
    size_t n = 0;
    (void)state;

    assert_int_equal(at_schedule_karras(5, 0.1, 10, 7, &s, &n), AT_OK);
    assert_int_equal(n, 6);
    assert_close(s[0], 10, "karras");
    assert_close(s[4], 0.1, "karras");
    at_free(s);
    assert_int_equal(at_schedule_polyexponential(5, 0.1, 10, 1, &s, &n), AT_OK);
    assert_close(s[2], 1, "geometric middle");
    at_free(s);
    assert_int_equal(at_schedule_laplace(5, 0.1, 10, 0, 0.5, &s, &n), AT_OK);
    assert_int_equal(n, 5);
    assert_close(s[2], 1, "laplace middle");
    assert_true(s[0] == 10 || s[0] > s[4]);
    at_free(s);
    assert_int_equal(at_schedule_vp(5, 19.9, 0.1, 1e-3, &s, &n), AT_OK);
    assert_close(s[0], sqrt(expm1(10.05)), "vp");
    at_free(s);
    assert_int_equal(at_schedule_beta(&eps, 5, 0.6, 0.6, &s, &n), AT_OK);
    float *t = NULL;
    assert_int_equal(at_schedule("beta", &eps, 5, &t, &n), AT_OK);
    assert_memory_equal(s, t, n * sizeof *s);
    at_free(s);
    at_free(t);
}

static void bad_requests_are_refused(void **state)
{
    at_model_sampling broken = eps;
    float *s = NULL;
    size_t n = 0;
    (void)state;

    assert_int_equal(at_schedule("cosine", &eps, 5, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule(NULL, &eps, 5, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule("simple", &eps, -1, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule("simple", &eps, AT_STEPS_MAX + 1, &s, &n), AT_EINVAL);
    assert_int_equal(at_ksampler_sigmas("euler", "simple", &eps, 10000, 1e-6, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule_karras(5, -1, 10, 7, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule_karras(5, 1, 10, 0, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule_exponential(5, 0, 10, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule_polyexponential(5, 0, 10, 1, &s, &n), AT_EINVAL);
    assert_int_equal(at_schedule_beta(&eps, 5, 0, 1, &s, &n), AT_EINVAL);
    broken.timesteps = 1 << 20;
    assert_int_equal(at_schedule("simple", &broken, 5, &s, &n), AT_EINVAL);
    broken = edm;
    broken.sigma_min = -1;
    assert_int_equal(at_schedule("karras", &broken, 5, &s, &n), AT_EINVAL);
    assert_null(s);
}

static void lost_memory_is_reported_and_nothing_leaks(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    (void)state;

    for (uint64_t k = 1; hit; k++) {
        float *s = NULL;
        size_t n = 0;
        at_mem_fail_at(k, false);
        at_status st = at_ksampler_sigmas("dpm_2", "beta", &flux, 9, 0.7, &s, &n);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_free(s);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_match_comfyui),
        cmocka_unit_test(schedules_match_comfyui),
        cmocka_unit_test(timesteps_and_sigmas_are_inverse),
        cmocka_unit_test(percents_cover_the_way),
        cmocka_unit_test(zero_snr_ends_in_noise_and_keeps_its_start),
        cmocka_unit_test(beta_quantile_inverts_the_distribution),
        cmocka_unit_test(denoise_keeps_the_tail),
        cmocka_unit_test(some_samplers_drop_the_penultimate_sigma),
        cmocka_unit_test(windows_cut_as_ksampler_advanced),
        cmocka_unit_test(odd_step_counts_follow_comfyui),
        cmocka_unit_test(node_schedules_start_and_end_where_asked),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(lost_memory_is_reported_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
