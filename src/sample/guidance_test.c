// SPDX-License-Identifier: Apache-2.0
// guidance_test.c - unit.sample.guidance: prediction types undo what noising did, and CFG.
#include "sample/toy_test.h"

static const float sigmas[] = {0.03f, 0.5f, 0.97f};

static at_tensor *row(at_ops *o, const float *v)
{
    const int64_t n = N;
    return at_from_host(o, AT_F32, 1, &n, v);
}

static void assert_row(const at_tensor *t, const float *want, double room)
{
    float got[N];
    assert_non_null(t);
    assert_int_equal(at_tensor_to_host(t, AT_F32, got, sizeof got), AT_OK);
    if (!(distance(got, want, N) < room)) fail_msg("off by %g", distance(got, want, N));
}

static at_ops *begin(void)
{
    at_ops *o = NULL;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    at_scope_begin(o);
    return o;
}

static void end(at_ops *o)
{
    assert_int_equal(at_ops_status(o), AT_OK);
    at_scope_end(o, NULL);
    at_ops_free(o);
}

static void cfg_goes_beyond_the_positive_prompt(void **state)
{
    float c[N], u[N], want[N];
    at_ops *o = begin();
    (void)state;

    for (int i = 0; i < N; i++) {
        c[i] = (float)sin(i);
        u[i] = (float)cos(i);
        want[i] = u[i] + (c[i] - u[i]) * 7.5f;
    }
    assert_row(at_cfg(o, row(o, c), row(o, u), 7.5), want, 1e-6);
    assert_row(at_cfg(o, row(o, c), NULL, 7.5), c, 1e-9);
    assert_row(at_cfg(o, row(o, c), row(o, u), 1), c, 1e-9);
    assert_false(at_cfg_needs_uncond(1, false));
    assert_false(at_cfg_needs_uncond(1 + 1e-10, false));
    assert_true(at_cfg_needs_uncond(1 + 1e-8, false));
    assert_true(at_cfg_needs_uncond(1, true));
    assert_true(at_cfg_needs_uncond(0, false));
    end(o);
}

// The output that a perfect network would give for x = noised x0, per prediction type (contract
// 5.2).
static double perfect_output(const at_model_sampling *m, double x0, double x, double s)
{
    double d = m->sigma_data > 0 ? m->sigma_data : 1, p = s * s + d * d;
    switch (m->prediction) {
    case AT_PRED_EPS:
    case AT_PRED_CONST: return (x - x0) / s;
    case AT_PRED_V: return (x * d * d / p - x0) * sqrt(p) / (s * d);
    case AT_PRED_EDM: return (x0 - x * d * d / p) * sqrt(p) / (s * d);
    default: return x0;
    }
}

static void x0_is_recovered_for_every_prediction_type(void **state)
{
    const at_prediction types[] = {AT_PRED_EPS,   AT_PRED_V,  AT_PRED_EDM,
                                   AT_PRED_CONST, AT_PRED_X0, AT_PRED_IMG_TO_IMG};
    (void)state;

    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        for (size_t j = 0; j < sizeof sigmas / sizeof *sigmas; j++)
            for (int half = 0; half < 2; half++) {
                at_model_sampling m = {.prediction = types[k], .sigma_data = half ? 0.5 : 0};
                float x0[N], noise[N], x[N], out[N], in[N], s = sigmas[j];
                double d = half ? 0.5 : 1;
                bool plain = types[k] == AT_PRED_CONST || types[k] == AT_PRED_IMG_TO_IMG;
                at_ops *o = begin();
                at_randn(3, x0, N);
                at_randn(4, noise, N);
                for (int i = 0; i < N; i++) {
                    bool flow = types[k] == AT_PRED_CONST;
                    x[i] = flow ? s * noise[i] + (1 - s) * x0[i] : s * noise[i] + x0[i];
                    out[i] = (float)perfect_output(&m, x0[i], x[i], s);
                    in[i] = plain ? x[i] : x[i] / (float)sqrt((double)s * s + d * d);
                }
                at_tensor *noised = at_add_noise(o, &m, s, row(o, noise), row(o, x0), false);
                assert_row(noised, x, 1e-6);
                assert_row(at_model_input(o, &m, noised, s), in, 1e-6);
                assert_row(at_model_x0(o, &m, noised, row(o, out), s), x0, 1e-5);
                end(o);
            }
}

static void only_flow_models_unscale(void **state)
{
    at_model_sampling flow = {.prediction = AT_PRED_CONST}, eps = {.prediction = AT_PRED_EPS};
    float x[N], want[N];
    at_ops *o = begin();
    (void)state;

    at_randn(3, x, N);
    for (int i = 0; i < N; i++)
        want[i] = x[i] / 0.25f;
    assert_row(at_unscale_noise(o, &flow, 0.75f, row(o, x)), want, 1e-6);
    assert_row(at_unscale_noise(o, &flow, 0, row(o, x)), x, 1e-9);
    assert_row(at_unscale_noise(o, &eps, 0.75f, row(o, x)), x, 1e-9);
    assert_null(at_unscale_noise(o, &flow, 1, row(o, x)));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    end(o);
}

static void unknown_prediction_types_are_refused(void **state)
{
    at_model_sampling m = {.prediction = (at_prediction)77};
    float x[N] = {0};
    at_ops *o = begin();
    (void)state;

    assert_null(at_model_input(o, &m, row(o, x), 1));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    assert_null(at_model_x0(o, &m, row(o, x), row(o, x), 1));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    end(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cfg_goes_beyond_the_positive_prompt),
        cmocka_unit_test(x0_is_recovered_for_every_prediction_type),
        cmocka_unit_test(only_flow_models_unscale),
        cmocka_unit_test(unknown_prediction_types_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
