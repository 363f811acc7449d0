// SPDX-License-Identifier: Apache-2.0
// lcm_upscale_test.c - unit.sample.lcm_upscale: the latent grows between steps as ComfyUI's does.
// The toy denoiser of samplers.json, over [1, 4, 4, 6] and what becomes of it.
#include "sample/toy_test.h"

static at_denoised toy_of_any_size(void *ctx, at_ops *o, const at_tensor *x, float sigma,
                                   bool want_uncond)
{
    int64_t n = at_tensor_count(x);
    float *v = calloc((size_t)n, sizeof *v), scale = sqrtf(1 + sigma * sigma);
    (void)ctx, (void)want_uncond;
    assert_non_null(v);
    assert_int_equal(at_tensor_to_host(x, AT_F32, v, (size_t)n * sizeof *v), AT_OK);
    for (int64_t i = 0; i < n; i++) {
        float t = 0.1f * tanhf(v[i] / scale), at = 0.37f * (float)i;
        float c = 0.9f * sinf(at) + t, u = 0.9f * sinf(at + 0.5f) + t;
        v[i] = u + (c - u) * 2;
    }
    at_denoised d = {.out = at_from_host(o, AT_F32, x->rank, x->shape, v)};
    free(v);
    return d;
}

typedef struct upscale_case {
    double total;
    int steps;
    const char *method;
    size_t n;
    float sigmas[8];
    int64_t height, width;
    double sum[2]; // of value * cos(0.7 i) and value * cos(0.013 i + 1)
} upscale_case;

// ComfyUI 0.3.64, sample_lcm_upscale on torch's CPU.
static const upscale_case cases[] = {
    {2.0,
     -1,
     "bislerp",
     6,
     {14.614643096923828f, 6, 2.5f, 0.9f, 0.3f, 0},
     8,
     12,
     {-0.247564044, 4.50931665}},
    {1.5, 2, "bilinear", 4, {9, 5, 2, 0.8f}, 6, 9, {1.00073446, -15.4993709}},
    {0.5,
     50,
     "nearest-exact",
     8,
     {12, 7, 4, 2, 1, 0.4f, 0.12f, 0},
     2,
     3,
     {-0.409908107, 0.892031978}},
};

static at_tensor *run_case(at_ops *o, const upscale_case *c, const at_tensor *mask)
{
    static at_model_sampling ms;
    const int64_t shape[4] = {1, 4, 4, 6};
    float noise[96];
    at_sampler_options options;
    ms = eps_model();
    at_sampler_defaults("lcm_upscale", &options);
    options.total_upscale = c->total;
    options.upscale_steps = c->steps;
    snprintf(options.upscale_method, sizeof options.upscale_method, "%s", c->method);
    at_randn(1234, noise, 96);
    at_denoiser d = {.call = toy_of_any_size, .sampling = &ms};
    at_sample_args a = {.sampler = "lcm_upscale",
                        .options = &options,
                        .sigmas = c->sigmas,
                        .n_sigmas = c->n,
                        .noise = at_from_host(o, AT_F32, 4, shape, noise),
                        .noise_mask = mask,
                        .seed = 1234};
    return at_sample(o, &d, &a);
}

static at_ops *begin(void)
{
    at_ops *o = NULL;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    at_scope_begin(o);
    return o;
}

static void latents_grow_as_comfyuis(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const upscale_case *c = &cases[i];
        at_ops *o = begin();
        const at_tensor *t = run_case(o, c, NULL);
        if (!t) {
            fail_msg("case %zu: %s", i, at_error_text());
            break; // for readers that do not know that it does not return
        }
        assert_int_equal(t->shape[2], c->height);
        assert_int_equal(t->shape[3], c->width);
        int64_t n = at_tensor_count(t);
        float *v = calloc((size_t)n, sizeof *v);
        assert_non_null(v);
        assert_int_equal(at_tensor_to_host(t, AT_F32, v, (size_t)n * sizeof *v), AT_OK);
        double sum[2] = {0}, size = 0;
        for (int64_t k = 0; k < n; k++) {
            sum[0] += (double)v[k] * cos(0.7 * (double)k);
            sum[1] += (double)v[k] * cos(0.013 * (double)k + 1);
            size += fabs((double)v[k]);
        }
        for (int k = 0; k < 2; k++) // sines of f32 angles up to 140: 1e-5 each
            if (!(fabs(sum[k] - c->sum[k]) < 1e-5 * size))
                fail_msg("case %zu: %.9g, ComfyUI's %.9g", i, sum[k], c->sum[k]);
        free(v);
        at_scope_end(o, NULL);
        at_ops_free(o);
    }
}

static void what_cannot_grow_is_refused(void **state)
{
    upscale_case c = cases[0];
    const int64_t shape[4] = {1, 1, 4, 6};
    float ones[24] = {0};
    at_ops *o = begin();
    (void)state;

    assert_null(run_case(o, &c, at_from_host(o, AT_F32, 4, shape, ones)));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    c.total = 1e9;
    assert_null(run_case(o, &c, NULL));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    c.method = "wishful";
    assert_null(run_case(o, &c, NULL));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    at_scope_end(o, NULL);
    at_ops_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latents_grow_as_comfyuis),
        cmocka_unit_test(what_cannot_grow_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
