// SPDX-License-Identifier: Apache-2.0
// model_sampling_test.c - unit.sample.model_sampling: every kind of model sampling against ComfyUI's own
// numbers: tables, timesteps, the network's input, x0 and noising.
#include "sample/toy_test.h"

typedef struct prediction_case {
    const char *name;
    float sigma;
    double want[5]; // input, x0, noised, noised at the most, timestep
} prediction_case;
typedef struct table_case {
    const char *name;
    size_t n;
    double want[6]; // values 0, 1, n/3, n/2, n-2, n-1
} table_case;
#include "sample/predictions_test.h"

#define ROOM 1e-6
#define DISCRETE                                                                                   \
    .kind = AT_SIGMA_DISCRETE, .beta_start = 0.00085, .beta_end = 0.012, .timesteps = 1000
#define EDM .kind = AT_SIGMA_CONTINUOUS_EDM, .sigma_min = 0.002, .sigma_max = 120

static const struct {
    const char *name;
    at_model_sampling m;
} kinds[] = {
    {"eps", {.prediction = AT_PRED_EPS, DISCRETE}},
    {"v", {.prediction = AT_PRED_V, DISCRETE}},
    {"x0", {.prediction = AT_PRED_X0, DISCRETE}},
    {"img_to_img", {.prediction = AT_PRED_IMG_TO_IMG, DISCRETE}},
    {"lcm",
     {.prediction = AT_PRED_LCM,
      .kind = AT_SIGMA_DISCRETE_LCM,
      .beta_start = 0.00085,
      .beta_end = 0.012,
      .timesteps = 1000}},
    {"edm", {.prediction = AT_PRED_EDM, EDM, .sigma_data = 0.5}},
    {"v_edm", {.prediction = AT_PRED_V, EDM, .sigma_data = 1}},
    {"v_continuous",
     {.prediction = AT_PRED_V, .kind = AT_SIGMA_CONTINUOUS_V, .sigma_min = 0.03, .sigma_max = 500}},
    {"cosmos",
     {.prediction = AT_PRED_COSMOS_RFLOW,
      .kind = AT_SIGMA_COSMOS_RFLOW,
      .sigma_min = 0.002,
      .sigma_max = 120}},
    {"flow",
     {.prediction = AT_PRED_CONST, .kind = AT_SIGMA_DISCRETE_FLOW, .shift = 3, .multiplier = 1000}},
    {"cosine", {.prediction = AT_PRED_EPS, DISCRETE, .beta_schedule = AT_BETA_COSINE}},
    {"sqrt_linear", {.prediction = AT_PRED_EPS, DISCRETE, .beta_schedule = AT_BETA_SQRT_LINEAR}},
    {"sqrt", {.prediction = AT_PRED_EPS, DISCRETE, .beta_schedule = AT_BETA_SQRT}},
    {"zsnr", {.prediction = AT_PRED_EPS, DISCRETE, .zsnr = true}},
};

static const at_model_sampling *kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i].m;
    fail_msg("no kind %s", name);
    return NULL;
}

static void near(const char *name, const char *what, double got, double want)
{
    if (!(fabs(got - want) <= ROOM * fmax(fabs(want), 0.1)))
        fail_msg("%s: %s %.9g, ComfyUI's %.9g", name, what, got, want);
}

static void tables_are_comfyuis(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table_cases / sizeof *table_cases; i++) {
        const table_case *c = &table_cases[i];
        float *t = NULL;
        size_t n = 0;
        assert_int_equal(at_sigma_table(kind_of(c->name), &t, &n), AT_OK);
        assert_int_equal(n, c->n);
        const size_t at[] = {0, 1, n / 3, n / 2, n - 2, n - 1};
        for (int k = 0; k < 6; k++) {
            char what[32];
            snprintf(what, sizeof what, "sigma %zu", at[k]);
            // relative: the lowest sigmas are small
            if (fabs((double)t[at[k]] / c->want[k] - 1) > 2e-6)
                near(c->name, what, (double)t[at[k]], c->want[k] + 1);
        }
        at_free(t);
    }
}

static double only(at_ops *o, const at_tensor *t)
{
    float v = NAN;
    assert_int_equal(at_ops_status(o), AT_OK);
    assert_int_equal(at_tensor_to_host(t, AT_F32, &v, sizeof v), AT_OK);
    return (double)v;
}

static void predictions_are_read_as_comfyui_reads_them(void **state)
{
    at_ops *o = NULL;
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    at_scope_begin(o);
    const int64_t one = 1;
    const at_tensor *x = at_from_host(o, AT_F32, 1, &one, &(float){0.7f});
    const at_tensor *out = at_from_host(o, AT_F32, 1, &one, &(float){-0.3f});
    const at_tensor *latent = at_from_host(o, AT_F32, 1, &one, &(float){0.2f});
    const at_tensor *noise = at_from_host(o, AT_F32, 1, &one, &(float){1.1f});
    for (size_t i = 0; i < sizeof prediction_cases / sizeof *prediction_cases; i++) {
        const prediction_case *c = &prediction_cases[i];
        const at_model_sampling *m = kind_of(c->name);
        near(c->name, "input", only(o, at_model_input(o, m, x, c->sigma)), c->want[0]);
        near(c->name, "x0", only(o, at_model_x0(o, m, x, out, c->sigma)), c->want[1]);
        near(c->name, "noised", only(o, at_add_noise(o, m, c->sigma, noise, latent, false)),
             c->want[2]);
        near(c->name, "all noise", only(o, at_add_noise(o, m, c->sigma, noise, latent, true)),
             c->want[3]);
        near(c->name, "timestep", (double)at_sigma_to_timestep(m, c->sigma), c->want[4]);
    }
    at_scope_end(o, NULL);
    at_ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_comfyuis),
        cmocka_unit_test(predictions_are_read_as_comfyui_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
