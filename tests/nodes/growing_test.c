// SPDX-License-Identifier: Apache-2.0
// growing_test.c - SamplerLCMUpscale: a latent that changes its size while it is sampled.
// Idea: the run that grows is compared with two runs of one size each, joined by hand: euler's
// single step gives the first x0, the test resizes and noises it, and a second single step goes on
// from there.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "image/resize.h"
#include "models/latent_format.h"
#include "sample/noise.h"

#define SEED 77
#define DRAW(id, noise, sampler, sigmas, latent)                                                   \
    "'" id "':{'class_type':'SamplerCustomAdvanced','inputs':{'noise':" noise                      \
    ",'guider':['gu',0],'sampler':" sampler ",'sigmas':" sigmas ",'latent_image':" latent "}},"
#define STEPS                                                                                      \
    "'no':{'class_type':'RandomNoise','inputs':{'noise_seed':77}},"                                \
    "'dn':{'class_type':'DisableNoise','inputs':{}},"                                              \
    "'eu':{'class_type':'KSamplerSelect','inputs':{'sampler_name':'euler'}},"                      \
    "'sc':{'class_type':'BasicScheduler','inputs':{'model':['m',0],'scheduler':'simple',"          \
    "'steps':2,'denoise':1}},"
#define AROUND WORLD_MODELS WORLD_PROMPTS WORLD_EMPTY(128, 96, 2) STEPS
#define GUIDER(positive)                                                                           \
    "'gu':{'class_type':'CFGGuider','inputs':{'model':['m',0],'positive':" positive                \
    ",'negative':['n',0],'cfg':2.5}},"
#define GROW(ratio)                                                                                \
    "'up':{'class_type':'SamplerLCMUpscale','inputs':{'scale_ratio':" ratio                        \
    ",'scale_steps':1,'upscale_method':'bislerp'}},"
// A second prompt in 8 x 8 of the cells, its edges fading.
#define AREA                                                                                       \
    "'p2':{'class_type':'CLIPTextEncode','inputs':{'text':'blue','clip':['c',0]}},"                \
    "'pa':{'class_type':'ConditioningSetArea','inputs':{'conditioning':['p2',0],'width':64,"       \
    "'height':64,'x':16,'y':16,'strength':0.75}},"                                                 \
    "'pc':{'class_type':'ConditioningCombine','inputs':{'conditioning_1':['p',0],"                 \
    "'conditioning_2':['pa',0]}},"
// The same prompt where a mask of the picture's corner is, cut to it (bounds) or not.
#define MASKED(where)                                                                              \
    "'so':{'class_type':'SolidMask','inputs':{'value':1,'width':4,'height':4}},"                   \
    "'ze':{'class_type':'SolidMask','inputs':{'value':0,'width':16,'height':12}},"                 \
    "'mk':{'class_type':'MaskComposite','inputs':{'destination':['ze',0],'source':['so',0],"       \
    "'x':0,'y':0,'operation':'add'}},"                                                             \
    "'pm':{'class_type':'ConditioningSetMask','inputs':{'conditioning':['p',0],'mask':['mk',0],"   \
    "'strength':1,'set_cond_area':'" where "'}},"                                                  \
    "'pc':{'class_type':'ConditioningCombine','inputs':{'conditioning_1':['p',0],"                 \
    "'conditioning_2':['pm',0]}},"
#define GIVE(id, key) "'" id "':{'class_type':'Give','inputs':{'key':'" key "'}},"

static void give_sigmas(const char *key, float from)
{
    float *s = at_calloc(2, sizeof *s);
    assert_non_null(s);
    s[0] = from;
    world_give(key, at_value_object(at_obj_sigmas_new(s, 2)));
}

// x0 of the first size, as VAEs have it -> what a run without noise from `sigma` begins with, grown
// to 24 x 18 cells and noised by the draws behind the first latent's.
static void give_grown(const at_tensor *x0, const at_latent_format *f, float sigma)
{
    at_tensor *z = NULL, *big = NULL;
    int64_t n = at_tensor_count(x0);
    float *first = at_alloc((size_t)n * sizeof *first), *noise;
    at_generator r;

    assert_int_equal(at_tensor_from_host(at_device_cpu(), AT_F32, 4, x0->shape,
                                         at_tensor_data((at_tensor *)(uintptr_t)x0), &z),
                     AT_OK);
    at_latent_to_model_host(f, z);
    assert_int_equal(at_resize(z, AT_ORDER_NCHW, 24, 18, AT_RESIZE_BISLERP, false, &big), AT_OK);
    int64_t more = at_tensor_count(big);
    noise = at_alloc((size_t)more * sizeof *noise);
    assert_true(first && noise);
    at_generator_seed(&r, SEED);
    at_generator_randn(&r, first, n);
    at_generator_randn(&r, noise, more);
    for (int64_t i = 0; i < more; i++) {
        float x = world_floats(big)[i] + sigma * noise[i];
        world_floats(big)[i] = x / (1 - sigma) / f->scale + f->shift;
    }
    world_give("z", at_value_object(at_obj_latent_new(big)));
    at_tensor_release(&z);
    at_free(first);
    at_free(noise);
}

static void a_growing_run_is_two_runs_joined(void **state)
{
    static const char *const prompts[] = {GUIDER("['p',0]"), AREA GUIDER("['pc',0]")};
    world *w = *state;

    for (size_t i = 0; i < AT_COUNT(prompts); i++) {
        give_sigmas("one", 1);
        world_run(w, AROUND, prompts[i], GROW("1.5") GIVE("s1", "one"),
                  DRAW("d", "['no',0]", "['up',0]", "['sc',0]", "['e',0]"),
                  DRAW("f", "['no',0]", "['eu',0]", "['s1',0]", "['e',0]"),
                  WORLD_CAPTURE("grown", "['d',0]"), WORLD_CAPTURE("first", "['f',0]"),
                  WORLD_CAPTURE("sigmas", "['sc',0]"), WORLD_CAPTURE("model", "['m',0]"));
        const at_obj_model *m = (const at_obj_model *)world_object("model", "MODEL");
        const float *sigmas = world_sigmas("sigmas")->values;
        assert_true(world_sigmas("sigmas")->count == 3 && sigmas[0] == 1 && sigmas[2] == 0);
        at_tensor *grown = at_tensor_retain((at_tensor *)(uintptr_t)world_latent("grown"));
        assert_int_equal(grown->shape[2], 18);
        assert_int_equal(grown->shape[3], 24);
        give_grown(world_latent("first"), at_model_latent(m->model), sigmas[1]);
        give_sigmas("two", sigmas[1]);
        world_run(w, AROUND, prompts[i], GIVE("s2", "two") GIVE("z", "z"),
                  DRAW("l", "['dn',0]", "['eu',0]", "['s2',0]", "['z',0]"),
                  WORLD_CAPTURE("last", "['l',0]"));
        // f32 through the latent format and 1 - sigma and back, then a network
        double d = world_distance(grown, world_latent("last"));
        if (!(d < 2e-5)) fail_msg("prompt %zu: apart by %g", i, d);
        at_tensor_release(&grown);
    }
}

// What was made for the first size and holds for all of it cannot go on; what has its place in it
// can.
static void masks_hold_only_within_their_size(void **state)
{
    world *w = *state;

    assert_int_equal(world_try(w, AROUND, MASKED("default") GUIDER("['pc',0]") GROW("1.5"),
                               DRAW("d", "['no',0]", "['up',0]", "['sc',0]", "['e',0]"),
                               WORLD_CAPTURE("1", "['d',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "a conditioning's mask keeps the size"));
    assert_non_null(strstr(at_error_text(), "became 24 x 18"));
    world_run(w, AROUND, MASKED("mask bounds") GUIDER("['pc',0]") GROW("1.5"),
              DRAW("d", "['no',0]", "['up',0]", "['sc',0]", "['e',0]"),
              WORLD_CAPTURE("1", "['d',0]"));
    const at_tensor *t = world_latent("1");
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        assert_true(isfinite(world_floats(t)[i]));
}

// An area in cells that the smaller latent has not.
static void an_area_that_is_left_outside_is_refused(void **state)
{
    world *w = *state;
    assert_int_equal(world_try(w, AROUND, AREA GUIDER("['pc',0]") GROW("0.1"),
                               DRAW("d", "['no',0]", "['up',0]", "['sc',0]", "['e',0]"),
                               WORLD_CAPTURE("1", "['d',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "lies outside the latent of 2 x 1"));
}

// With a scale of 1 a noise mask is as good as with other samplers: what it spares stays.
static void a_noise_mask_needs_one_size(void **state)
{
    static const char masked[] =
        "'mi':{'class_type':'SolidMask','inputs':{'value':0,'width':128,'height':96}},"
        "'em':{'class_type':'SetLatentNoiseMask','inputs':{'samples':['e',0],'mask':['mi',0]}},";
    world *w = *state;

    world_run(w, AROUND, masked, GUIDER("['p',0]") GROW("1"),
              DRAW("d", "['no',0]", "['up',0]", "['sc',0]", "['em',0]"),
              WORLD_CAPTURE("1", "['d',0]"));
    const at_tensor *t = world_latent("1");
    float spared = world_floats(t)[0];
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        assert_true(fabsf(world_floats(t)[i] - spared) < 1e-5f); // an empty latent: one value
    assert_int_equal(world_try(w, AROUND, masked, GUIDER("['p',0]") GROW("1.5"),
                               DRAW("d", "['no',0]", "['up',0]", "['sc',0]", "['em',0]"),
                               WORLD_CAPTURE("1", "['d',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "its noise mask did not"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_growing_run_is_two_runs_joined),
        cmocka_unit_test(masks_hold_only_within_their_size),
        cmocka_unit_test(an_area_that_is_left_outside_is_refused),
        cmocka_unit_test(a_noise_mask_needs_one_size),
    };
    return cmocka_run_group_tests_name("nodes.growing", tests, world_open, world_close);
}
