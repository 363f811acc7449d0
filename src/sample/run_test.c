// SPDX-License-Identifier: Apache-2.0
// run_test.c - unit.sample.run: what at_sample does around a solver: noise scaling, masks, windows
// of steps, cancel, failures, ranks.
#include "sample/toy_test.h"

#include <pthread.h>

static const float falling[] = {10, 6, 3, 1.2f, 0.4f, 0};
static const float flow[] = {1, 0.9f, 0.7f, 0.4f, 0.2f, 0};

static void fill(float *v, double a, double b)
{
    for (int i = 0; i < N; i++)
        v[i] = (float)(a + b * i);
}

static void no_sigmas_give_the_latent_back(void **state)
{
    float latent[N], zero[N] = {0};
    (void)state;

    fill(latent, -1, 0.25);
    job j = {.sampler = "euler", .ms = eps_model(), .latent = latent};
    assert_int_equal(run_job(&j), AT_OK);
    assert_memory_equal(j.out, latent, sizeof latent);
    job k = {.sampler = "euler", .ms = eps_model()};
    assert_int_equal(run_job(&k), AT_OK);
    assert_memory_equal(k.out, zero, sizeof zero);
    assert_int_equal(j.calls + k.calls, 0);
}

static void one_sigma_noises_and_asks_nothing(void **state)
{
    const float two = 2;
    float latent[N], noise[N];
    (void)state;

    fill(latent, -1, 0.25);
    at_randn(1234, noise, N);
    for (size_t s = 0; s < at_sampler_count; s++) {
        job j = {.sampler = at_sampler_names[s],
                 .ms = eps_model(),
                 .latent = latent,
                 .sigmas = &two,
                 .n = 1};
        assert_int_equal(run_job(&j), AT_OK);
        assert_int_equal(j.calls, 0);
        for (int i = 0; i < N; i++)
            assert_true(fabsf(j.out[i] - (latent[i] + 2 * noise[i])) < 1e-5f);
    }
}

static void full_noise_has_unit_variance_more(void **state)
{
    const at_model_sampling m = eps_model();
    float top = at_sigma_max(&m), noise[N];
    const float full[] = {top, 0}, part[] = {top * 0.9f, 0};
    (void)state;

    at_randn(1234, noise, N);
    job a = {.sampler = "euler", .ms = m, .sigmas = full, .n = 2};
    job b = {.sampler = "euler", .ms = m, .sigmas = part, .n = 2};
    assert_int_equal(run_job(&a), AT_OK);
    assert_int_equal(run_job(&b), AT_OK);
    for (int i = 0; i < N; i++) {
        assert_true(fabs(a.first_x[i] - noise[i] * sqrt(1 + (double)top * top)) < 1e-4);
        assert_true(fabs(b.first_x[i] - noise[i] * 0.9 * top) < 1e-4);
    }
    assert_true(at_is_max_denoise(&m, top * 0.999995f) && !at_is_max_denoise(&m, top * 0.9999f));
}

// KSamplerAdvanced: half the steps with leftover noise, then the rest without new noise.
static void split_runs_join(void **state)
{
    (void)state;

    for (int k = 0; k < 2; k++) {
        at_model_sampling ms = k ? flow_model() : eps_model();
        const float *s = k ? flow : falling;
        job whole = {.sampler = "heun", .ms = ms, .sigmas = s, .n = 6};
        job first = {.sampler = "heun", .ms = ms, .sigmas = s, .n = 3};
        assert_int_equal(run_job(&whole), AT_OK);
        assert_int_equal(run_job(&first), AT_OK);
        job rest = {.sampler = "heun",
                    .ms = ms,
                    .sigmas = s + 2,
                    .n = 4,
                    .latent = first.out,
                    .no_noise = true};
        assert_int_equal(run_job(&rest), AT_OK);
        assert_true(distance(rest.out, whole.out, N) < 1e-5);
        assert_int_equal(whole.calls, first.calls + rest.calls);
    }
}

static void ending_in_pure_noise_is_refused(void **state)
{
    job j = {.sampler = "euler", .ms = flow_model(), .sigmas = flow, .n = 1};
    (void)state;

    assert_int_equal(run_job(&j), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "nothing but noise"));
}

static void masked_values_stay_as_they_were(void **state)
{
    float latent[N], mask[N], ones[N], noise[N];
    (void)state;

    fill(latent, -2, 0.3);
    fill(ones, 1, 0);
    for (int i = 0; i < N; i++)
        mask[i] = i < 8 ? 1 : i < 12 ? 0 : 0.5f;
    for (size_t s = 0; s < at_sampler_count; s++)
        for (int k = 0; k < 2; k++) {
            job j = {.sampler = at_sampler_names[s],
                     .ms = k ? flow_model() : eps_model(),
                     .sigmas = k ? flow : falling,
                     .n = 6,
                     .latent = latent,
                     .mask = mask};
            job all = j, none = j;
            all.mask = ones;
            none.mask = NULL;
            assert_int_equal(run_job(&j), AT_OK);
            assert_int_equal(run_job(&all), AT_OK);
            assert_int_equal(run_job(&none), AT_OK);
            // A mask of ones is no mask; dpm_fast and dpm_adaptive stop at the last sigma above 0,
            // so a little noise is left over the known values; UniPC stops at 0.001.
            bool early = strncmp(j.sampler, "dpm_fast", 7) == 0 || strstr(j.sampler, "adaptive");
            double room = early ? 2 : strncmp(j.sampler, "uni", 3) == 0 ? 0.02 : 1e-5;
            // cfg_pp moves by the unmasked x0 of the negative prompt until its last step
            assert_true(distance(all.out, none.out, N) < 1e-3);
            if (!(distance(j.out + 8, latent + 8, 4) < room))
                fail_msg("%s: the known values moved by %g", j.sampler,
                         distance(j.out + 8, latent + 8, 4));
        }
    // What the model sees under the mask: the latent with the initial noise, for ddim with other
    // noise.
    for (int k = 0; k < 2; k++) {
        job j = {.sampler = k ? "ddim" : "euler",
                 .ms = eps_model(),
                 .sigmas = falling,
                 .n = 6,
                 .latent = latent,
                 .mask = mask};
        assert_int_equal(run_job(&j), AT_OK);
        at_randn(1234 + (uint64_t)k, noise, N);
        for (int i = 8; i < 12; i++)
            assert_true(fabsf(j.first_x[i] - (latent[i] + 10 * noise[i])) < 1e-4f);
    }
}

static void cancel_stops_within_a_step(void **state)
{
    (void)state;

    for (size_t s = 0; s < at_sampler_count; s++) {
        job j = {.sampler = at_sampler_names[s],
                 .ms = eps_model(),
                 .sigmas = falling,
                 .n = 6,
                 .cancel_at = 3};
        at_status st = run_job(&j);
        if (j.calls < 3) continue; // done before
        assert_int_equal(st, AT_ECANCELLED);
        assert_int_equal(j.calls, 3);
    }
}

static void a_failing_denoiser_ends_the_run(void **state)
{
    (void)state;

    for (size_t s = 0; s < at_sampler_count; s++)
        for (int at = 1; at <= 4; at++) {
            job j = {.sampler = at_sampler_names[s],
                     .ms = flow_model(),
                     .sigmas = flow,
                     .n = 6,
                     .fail_at = at};
            at_status st = run_job(&j);
            assert_int_equal(st, j.calls < at ? AT_OK : AT_EDEVICE);
            if (st != AT_OK) assert_string_equal(at_error_text(), "toy: the device went away");
            assert_true(j.calls <= at);
        }
}

static void lost_memory_is_reported_and_nothing_leaks(void **state)
{
    const char *const samplers[] = {"euler", "dpm_adaptive", "dpmpp_sde",
                                    "deis",  "sa_solver",    "uni_pc"};
    float latent[N], mask[N];
    (void)state;

    fill(latent, -2, 0.3);
    fill(mask, 0, 0.0625);
    job warm = {.sampler = "dpmpp_sde", .ms = eps_model(), .sigmas = falling, .n = 6};
    assert_int_equal(run_job(&warm), AT_OK); // what lives as long as the process
    size_t live = at_mem_get_stats().live_bytes, device = at_device_cpu()->live_bytes;
    for (size_t s = 0; s < sizeof samplers / sizeof *samplers; s++) {
        bool lost = true;
        for (uint64_t n = 1; lost; n += n < 60 ? 1 : 13) {
            job j = {.sampler = samplers[s],
                     .ms = eps_model(),
                     .sigmas = falling,
                     .n = 6,
                     .latent = latent,
                     .mask = mask,
                     .lose_memory_at = n};
            at_status st = run_job(&j);
            lost = j.memory_lost;
            if (st != (lost ? AT_ENOMEM : AT_OK))
                fail_msg("%s, allocation %d: %s", samplers[s], (int)n, at_error_text());
            assert_int_equal(at_mem_get_stats().live_bytes, live);
            assert_int_equal(at_device_cpu()->live_bytes, device);
        }
    }
}

static void bad_requests_are_refused(void **state)
{
    const float nan_sigma[] = {1, NAN, 0}, negative[] = {1, -1, 0}, zero[] = {0, 0};
    (void)state;

    job j = {.sampler = "k_euler", .ms = eps_model(), .sigmas = falling, .n = 6};
    assert_int_equal(run_job(&j), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "k_euler"));
    j.sampler = NULL;
    assert_int_equal(run_job(&j), AT_EINVAL);
    j.sampler = "euler";
    j.no_noise = true; // and no latent
    assert_int_equal(run_job(&j), AT_EINVAL);
    j.no_noise = false;
    j.sigmas = NULL;
    assert_int_equal(run_job(&j), AT_EINVAL);
    j.n = 3;
    j.sigmas = nan_sigma;
    assert_int_equal(run_job(&j), AT_EINVAL);
    j.sigmas = negative;
    assert_int_equal(run_job(&j), AT_EINVAL);
    j.n = 2;
    j.sigmas = zero;
    j.sampler = "dpm_fast";
    assert_int_equal(run_job(&j), AT_EINVAL);
}

static void noise_and_latent_must_agree(void **state)
{
    const int64_t a[4] = {1, 4, 2, 2}, b[4] = {1, 4, 4, 1};
    at_model_sampling ms = eps_model();
    at_denoiser d = {.call = toy_call, .sampling = &ms};
    at_ops *o = NULL;
    (void)state;

    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    at_scope_begin(o);
    at_sample_args args = {.sampler = "euler",
                           .sigmas = falling,
                           .n_sigmas = 6,
                           .noise = at_zeros(o, AT_F32, 4, a),
                           .latent = at_zeros(o, AT_F32, 4, b)};
    assert_null(at_sample(o, &d, &args));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "[1, 4, 4, 1]"));
    args.latent = at_zeros(o, AT_BF16, 4, a);
    assert_null(at_sample(o, &d, &args));
    assert_int_equal(at_ops_clear(o), AT_EINVAL);
    at_scope_end(o, NULL);
    at_ops_free(o);
}

static void video_latents_give_the_same_numbers(void **state)
{
    job image = {.sampler = "dpmpp_sde", .ms = flow_model(), .sigmas = flow, .n = 6}, video = image;
    (void)state;

    video.video = true;
    assert_int_equal(run_job(&image), AT_OK);
    assert_int_equal(run_job(&video), AT_OK);
    assert_memory_equal(image.out, video.out, sizeof image.out);
}

// --- ranks ---------------------------------------------------------------------------------------
typedef struct rank_job {
    job j;
    at_status st;
} rank_job;

static void *run_rank(void *arg)
{
    rank_job *r = arg;
    r->st = run_job(&r->j);
    return NULL;
}

static void run_two(rank_job r[2])
{
    at_comm *comm[2];
    pthread_t t;

    assert_int_equal(at_comm_threads(2, comm), AT_OK);
    for (int i = 0; i < 2; i++)
        r[i].j.comm = comm[i];
    assert_int_equal(pthread_create(&t, NULL, run_rank, &r[1]), 0);
    run_rank(&r[0]);
    pthread_join(t, NULL);
    for (int i = 0; i < 2; i++)
        at_comm_free(comm[i]);
}

static void ranks_agree_and_stop_together(void **state)
{
    (void)state;

    for (size_t s = 0; s < at_sampler_count; s += 3) {
        job base = {.sampler = at_sampler_names[s], .ms = eps_model(), .sigmas = falling, .n = 6};
        rank_job r[2] = {{.j = base}, {.j = base}};
        run_two(r);
        assert_int_equal(r[0].st, AT_OK);
        assert_int_equal(r[1].st, AT_OK);
        assert_memory_equal(r[0].j.out, r[1].j.out, sizeof r[0].j.out);
        rank_job f[2] = {{.j = base}, {.j = base}};
        f[1].j.fail_at = 2; // only this rank's device fails
        run_two(f);
        assert_int_equal(f[1].st, f[1].j.calls < 2 ? AT_OK : AT_EDEVICE);
        assert_int_equal(f[0].st, f[1].st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_sigmas_give_the_latent_back),
        cmocka_unit_test(one_sigma_noises_and_asks_nothing),
        cmocka_unit_test(full_noise_has_unit_variance_more),
        cmocka_unit_test(split_runs_join),
        cmocka_unit_test(ending_in_pure_noise_is_refused),
        cmocka_unit_test(masked_values_stay_as_they_were),
        cmocka_unit_test(cancel_stops_within_a_step),
        cmocka_unit_test(a_failing_denoiser_ends_the_run),
        cmocka_unit_test(lost_memory_is_reported_and_nothing_leaks),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(noise_and_latent_must_agree),
        cmocka_unit_test(video_latents_give_the_same_numbers),
        cmocka_unit_test(ranks_agree_and_stop_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
