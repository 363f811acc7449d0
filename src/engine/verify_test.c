// SPDX-License-Identifier: Apache-2.0
// verify_test.c - the judge judged: wrong, missing and undefined results fail, bad cases are named.
#include "engine/verify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "sample/noise.h"
#include "weight/safetensors.h"

#define NOISE                                                                                      \
    "{\"component\": \"noise\", \"expected\": \"e.safetensors\", \"rtol\": 1e-6, "                 \
    "\"dtype\": \"f32\", \"options\": {\"seed\": 7, \"shape\": [1, 4, 3, 5]}}"
enum { N = 60 };

static char dir[] = "/tmp/atelier-verify-XXXXXX";
static float noise[N];

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    int64_t shape[] = {1, 4, 3, 5};
    if (at_prepare_noise(7, 4, shape, NULL, noise) != AT_OK) return -1;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/case.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/e.safetensors", dir);
    unlink(path);
    return rmdir(dir);
}

static void write_case(const char *json)
{
    char path[128];
    snprintf(path, sizeof path, "%s/case.json", dir);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(json, 1, strlen(json), f), strlen(json));
    fclose(f);
}

static void write_expected(const char *name, const float *values, int64_t n, const char *second)
{
    char path[128];
    at_st_out rows[2] = {
        {.name = name, .dtype = AT_F32, .rank = 1, .shape = {n}, .data = values},
        {.name = second, .dtype = AT_F32, .rank = 1, .shape = {1}, .data = values}};
    snprintf(path, sizeof path, "%s/e.safetensors", dir);
    assert_int_equal(at_st_write(path, rows, second ? 2 : 1, NULL, 0), AT_OK);
}

static void equal_values_pass(void **state)
{
    (void)state;
    at_verify_report r;
    write_case(NOISE);
    write_expected("noise", noise, N, NULL);
    assert_int_equal(at_verify_case(dir, NULL, &r), AT_OK);
    assert_true(r.pass);
    assert_int_equal(r.count, 1);
    assert_string_equal(r.rows[0].name, "noise");
    assert_true(r.rows[0].rel_err == 0 && r.rows[0].max_abs == 0);
    at_verify_report_free(&r);
}

static void one_wrong_value_fails_with_its_size(void **state)
{
    (void)state;
    at_verify_report r;
    float wrong[N];
    memcpy(wrong, noise, sizeof wrong);
    wrong[17] += 0.25f;
    write_case(NOISE);
    write_expected("noise", wrong, N, NULL);
    assert_int_equal(at_verify_case(dir, NULL, &r), AT_OK);
    assert_false(r.pass);
    assert_false(r.rows[0].pass);
    assert_true(fabs(r.rows[0].max_abs - 0.25) < 1e-6);
    double norm = 0;
    for (int i = 0; i < N; i++)
        norm += (double)wrong[i] * wrong[i];
    assert_true(fabs(r.rows[0].rel_err - 0.25 / sqrt(norm)) < 1e-6);
    at_verify_report_free(&r);

    at_verify_options opt = {.rtol = 1}; // the caller may be more lenient
    assert_int_equal(at_verify_case(dir, &opt, &r), AT_OK);
    assert_true(r.pass);
    at_verify_report_free(&r);
}

static void undefined_values_fail_whatever_the_tolerance(void **state)
{
    (void)state;
    at_verify_report r;
    at_verify_options opt = {.rtol = 1e30};
    float wrong[N];
    memcpy(wrong, noise, sizeof wrong);
    wrong[0] = NAN;
    write_case(NOISE);
    write_expected("noise", wrong, N, NULL);
    assert_int_equal(at_verify_case(dir, &opt, &r), AT_OK);
    assert_false(r.pass);
    at_verify_report_free(&r);
}

static void a_result_that_is_not_made_fails(void **state)
{
    (void)state;
    at_verify_report r;
    write_case(NOISE);
    write_expected("noise", noise, N, "never_made");
    assert_int_equal(at_verify_case(dir, NULL, &r), AT_OK);
    assert_false(r.pass);
    assert_int_equal(r.count, 2);
    for (size_t i = 0; i < 2; i++)
        assert_true(r.rows[i].pass == (strcmp(r.rows[i].name, "noise") == 0));
    at_verify_report_free(&r);

    write_expected("noise", noise, N - 1, NULL); // another number of elements
    assert_int_equal(at_verify_case(dir, NULL, &r), AT_OK);
    assert_false(r.pass);
    assert_true(isinf(r.rows[0].rel_err));
    at_verify_report_free(&r);
}

static void what_is_wrong_with_a_case_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        at_status st;
        const char *says;
    } bad[] = {
        {"{\"component\": ", AT_EFORMAT, "line 1"},
        {"[1]", AT_EFORMAT, "options"},
        {"{\"dtype\": \"f99\"}", AT_EINVAL, "f99"},
        {"{\"dtype\": \"i32\", \"expected\": \"e.safetensors\"}", AT_EINVAL, "activations in"},
        {"{\"dtype\": \"f32\"}", AT_EFORMAT, "expected"},
        {"{\"dtype\": \"f32\", \"expected\": \"gone.safetensors\"}", AT_ENOTFOUND, "gone"},
        {"{\"dtype\": \"f32\", \"expected\": \"e.safetensors\", \"component\": \"oven\"}",
         AT_EUNSUPPORTED, "oven"},
        {"{\"dtype\": \"f32\", \"expected\": \"e.safetensors\", \"component\": \"denoiser\"}",
         AT_EFORMAT, "model"},
        {"{\"dtype\": \"f32\", \"expected\": \"e.safetensors\", \"component\": \"vae_decode\", "
         "\"model\": \"e.safetensors\"}",
         AT_EFORMAT, "no VAE"},
        {"{\"dtype\": \"f32\", \"expected\": \"e.safetensors\", \"component\": \"noise\", "
         "\"options\": {\"shape\": [4, -1]}}",
         AT_EFORMAT, "shape"},
        {"{\"dtype\": \"f32\", \"expected\": \"e.safetensors\", \"component\": \"sampler\", "
         "\"options\": {\"model_sampling\": \"tea\"}}",
         AT_EFORMAT, "tea"},
        {"{\"dtype\": \"f32\", \"expected\": \"e.safetensors\", \"component\": \"sampler\", "
         "\"options\": {\"sampler\": \"tea\"}}",
         AT_EINVAL, "tea"},
    };
    write_expected("noise", noise, N, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        at_verify_report r;
        write_case(bad[i].json);
        assert_int_equal(at_verify_case(dir, NULL, &r), bad[i].st);
        assert_non_null(strstr(at_error_text(), bad[i].says));
        assert_null(r.rows);
    }
    at_verify_report r;
    assert_int_equal(at_verify_case("/tmp/no such case", NULL, &r), AT_ENOTFOUND);
}

static void a_sampler_walks_the_analytic_denoiser_to_its_end(void **state)
{
    (void)state;
    // x' = (x - D) / sigma with D = x / (1 + sigma^2) has the solution x = c * sqrt(1 + sigma^2),
    // and sampling starts at noise * sqrt(1 + sigma_max^2): many steps end near the noise itself.
    at_verify_report r;
    write_case("{\"component\": \"sampler\", \"expected\": \"e.safetensors\", \"rtol\": 0.02, "
               "\"dtype\": \"f32\", \"options\": {\"seed\": 7, \"shape\": [1, 4, 3, 5], "
               "\"sampler\": \"heun\", \"scheduler\": \"karras\", \"steps\": 100}}");
    write_expected("out", noise, N, NULL);
    assert_int_equal(at_verify_case(dir, NULL, &r), AT_OK);
    assert_true(r.pass);
    at_verify_report_free(&r);
}

static void more_ranks_than_there_is_room_for_are_refused(void **state)
{
    (void)state;
    at_verify_report r;
    at_verify_options opt = {.ranks = 17};
    assert_int_equal(at_verify_case(AT_SOURCE_DIR "/tests/golden/flux_w_f16", &opt, &r), AT_EINVAL);
    opt.ranks = 3; // one head: keys and values are gathered
    assert_int_equal(at_verify_case(AT_SOURCE_DIR "/tests/golden/flux_w_f16", &opt, &r), AT_OK);
    assert_true(r.pass);
    at_verify_report_free(&r);
}

static void every_failed_allocation_gives_all_memory_back(void **state)
{
    (void)state;
    write_case(NOISE);
    write_expected("noise", noise, N, NULL);
    size_t before = at_mem_get_stats().live_bytes;
    bool hit = true;
    for (uint64_t n = 1; hit && n < 1000; n++) {
        at_verify_report r;
        at_mem_fail_at(n, false);
        at_status st = at_verify_case(dir, NULL, &r);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_true(hit ? st != AT_OK : st == AT_OK);
        at_verify_report_free(&r);
        assert_int_equal(at_mem_get_stats().live_bytes, before);
    }
    assert_false(hit);
}

// Whatever a rank lacks, the others do not wait for it for ever.
static void a_rank_that_fails_leaves_nobody_waiting(void **state)
{
    at_verify_options opt = {.ranks = 2};
    bool hit = true;

    (void)state;
    alarm(120);
    for (uint64_t n = 1; hit && n < 100000; n++) {
        at_verify_report r;
        at_mem_fail_at(n, false);
        at_status st = at_verify_case(AT_SOURCE_DIR "/tests/golden/flux_w_f16", &opt, &r);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        if (!hit) assert_int_equal(st, AT_OK);
        at_verify_report_free(&r);
    }
    assert_false(hit);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_values_pass),
        cmocka_unit_test(one_wrong_value_fails_with_its_size),
        cmocka_unit_test(undefined_values_fail_whatever_the_tolerance),
        cmocka_unit_test(a_result_that_is_not_made_fails),
        cmocka_unit_test(what_is_wrong_with_a_case_is_said),
        cmocka_unit_test(a_sampler_walks_the_analytic_denoiser_to_its_end),
        cmocka_unit_test(more_ranks_than_there_is_room_for_are_refused),
        cmocka_unit_test(a_rank_that_fails_leaves_nobody_waiting),
        cmocka_unit_test(every_failed_allocation_gives_all_memory_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
