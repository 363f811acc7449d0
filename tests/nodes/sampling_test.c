// SPDX-License-Identifier: Apache-2.0
// sampling_test.c - the sampler nodes agree with each other, bit for bit where ComfyUI's do.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define KSAMPLER(id, steps, cfg, sampler, scheduler, latent, denoise)                              \
    "'" id "':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':77,'steps':" steps         \
    ",'cfg':" cfg ",'sampler_name':'" sampler "','scheduler':'" scheduler                          \
    "','positive':['p',0],'negative':['n',0],'latent_image':['" latent "',0],'denoise':" denoise   \
    "}},"
#define ADVANCED(id, add, steps, sampler, latent, start, end, leftover)                            \
    "'" id "':{'class_type':'KSamplerAdvanced','inputs':{'model':['m',0],'add_noise':'" add        \
    "','noise_seed':77,'steps':" steps ",'cfg':2.5,'sampler_name':'" sampler                       \
    "','scheduler':'simple','positive':['p',0],'negative':['n',0],'latent_image':['" latent        \
    "',0],'start_at_step':" start ",'end_at_step':" end ",'return_with_leftover_noise':'" leftover \
    "'}},"
#define SELECT(sampler)                                                                            \
    "'sa':{'class_type':'KSamplerSelect','inputs':{'sampler_name':'" sampler "'}},"
#define SCHEDULE(scheduler, steps, denoise)                                                        \
    "'sc':{'class_type':'BasicScheduler','inputs':{'model':['m',0],'scheduler':'" scheduler        \
    "','steps':" steps ",'denoise':" denoise "}},"
#define CUSTOM(id, add, latent)                                                                    \
    "'" id "':{'class_type':'SamplerCustom','inputs':{'model':['m',0],'add_noise':" add            \
    ",'noise_seed':77,'cfg':2.5,'positive':['p',0],'negative':['n',0],'sampler':['sa',0],"         \
    "'sigmas':['sc',0],'latent_image':['" latent "',0]}},"
#define GUIDED(id, noise, latent)                                                                  \
    "'gu':{'class_type':'CFGGuider','inputs':{'model':['m',0],'positive':['p',0],'negative':"      \
    "['n',0],'cfg':2.5}}," noise "'" id                                                            \
    "':{'class_type':'SamplerCustomAdvanced','inputs':{'noise':['no',0],'guider':['gu',0],"        \
    "'sampler':['sa',0],'sigmas':['sc',0],'latent_image':['" latent "',0]}},"
#define RANDOM        "'no':{'class_type':'RandomNoise','inputs':{'noise_seed':77}},"
#define SILENT        "'no':{'class_type':'DisableNoise','inputs':{}},"
#define GIVE(id, key) "'" id "':{'class_type':'Give','inputs':{'key':'" key "'}},"

// A filled latent, so that scale and shift of the latent format matter.
static at_tensor *filled_latent(int64_t b, int64_t h, int64_t wd)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){b, 16, h, wd}, &t),
                     AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = sinf((float)i * 0.37f) * 2.0f;
    return t;
}
static void give_latent(const char *key, int64_t b, int64_t h, int64_t wd)
{
    world_give(key, at_value_object(at_obj_latent_new(filled_latent(b, h, wd))));
}

static void assert_four_ways_agree(world *w, const char *sampler, const char *latent)
{
    world_run(w, WORLD_BASE, GIVE("f", "filled"),
              world_nodes(KSAMPLER("k", "3", "2.5", "%s", "simple", "%s", "1"), sampler, latent),
              world_nodes(ADVANCED("a", "enable", "3", "%s", "%s", "0", "10000", "disable"),
                          sampler, latent),
              world_nodes(SELECT("%s"), sampler), SCHEDULE("simple", "3", "1"),
              world_nodes(CUSTOM("u", "true", "%s"), latent),
              world_nodes(GUIDED("g", RANDOM, "%s"), latent), WORLD_CAPTURE("1", "['k',0]"),
              WORLD_CAPTURE("2", "['a',0]"), WORLD_CAPTURE("3", "['u',0]"),
              WORLD_CAPTURE("4", "['g',0]"), WORLD_CAPTURE("5", "['g',1]"));
    world_assert_same(world_latent("1"), world_latent("2"));
    world_assert_same(world_latent("1"), world_latent("3"));
    world_assert_same(world_latent("1"), world_latent("4"));
}

static void four_ways_to_sample_are_one(void **state)
{
    world *w = *state;
    give_latent("filled", 1, 8, 8);
    assert_four_ways_agree(w, "euler", "e");
    world_assert_same(world_latent("4"), world_latent("5")); // the last step of Euler lands on x0
    assert_four_ways_agree(w, "euler", "f");
    assert_four_ways_agree(w, "euler_ancestral", "e"); // noise of its own from the same seed
    assert_four_ways_agree(w, "dpmpp_2m_sde", "f");
    assert_four_ways_agree(w, "dpmpp_2m", "e");
    assert_four_ways_agree(w, "euler_cfg_pp", "e");
}

static void ksampler_drops_the_penultimate_sigma_where_comfyui_does(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE, KSAMPLER("k", "4", "2.5", "dpm_2", "normal", "e", "1"),
              SELECT("dpm_2"), SCHEDULE("normal", "4", "1"), GUIDED("g", RANDOM, "e"),
              WORLD_CAPTURE("1", "['k',0]"), WORLD_CAPTURE("2", "['g',0]"));
    assert_true(world_distance(world_latent("1"), world_latent("2")) > 1e-5);
}

static void sampling_in_two_halves_is_close_to_the_whole(void **state)
{
    world *w = *state;
    give_latent("filled", 1, 8, 8);
    world_run(w, WORLD_BASE, GIVE("f", "filled"),
              ADVANCED("w", "enable", "20", "euler", "f", "0", "10000", "disable"),
              ADVANCED("h", "enable", "20", "euler", "f", "0", "10", "enable"),
              ADVANCED("i", "disable", "20", "euler", "h", "10", "20", "disable"),
              WORLD_CAPTURE("whole", "['w',0]"), WORLD_CAPTURE("half", "['h',0]"),
              WORLD_CAPTURE("joined", "['i',0]"));
    // f32 rounding of one more way through the latent format and the noise scaling
    assert_true(world_distance(world_latent("joined"), world_latent("whole")) < 1e-5);
    assert_true(world_distance(world_latent("half"), world_latent("whole")) > 1e-2);
}

static void leftover_noise_off_forces_a_full_denoise(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE, ADVANCED("a", "enable", "20", "euler", "e", "0", "3", "disable"),
              ADVANCED("b", "enable", "20", "euler", "e", "0", "3", "enable"),
              WORLD_CAPTURE("full", "['a',0]"), WORLD_CAPTURE("noisy", "['b',0]"));
    assert_true(world_distance(world_latent("full"), world_latent("noisy")) > 1e-2);
}

static void windows_without_steps_give_the_latent_back(void **state)
{
    world *w = *state;
    give_latent("filled", 1, 8, 8);
    at_tensor *before = filled_latent(1, 8, 8);
    world_run(w, WORLD_BASE, GIVE("f", "filled"),
              ADVANCED("a", "enable", "4", "euler", "f", "4", "10000", "disable"),
              ADVANCED("b", "enable", "4", "euler", "f", "3", "2", "disable"),
              ADVANCED("d", "enable", "4", "euler", "f", "0", "0", "disable"),
              KSAMPLER("k", "4", "1", "euler", "simple", "f", "0"), WORLD_CAPTURE("1", "['a',0]"),
              WORLD_CAPTURE("2", "['b',0]"), WORLD_CAPTURE("3", "['d',0]"),
              WORLD_CAPTURE("4", "['k',0]"));
    world_assert_same(world_latent("1"), before);
    world_assert_same(world_latent("2"), before);
    world_assert_same(world_latent("3"), before);
    world_assert_same(world_latent("4"), before);
    at_tensor_release(&before);
}

static void denoise_half_runs_the_tail_of_twice_the_steps(void **state)
{
    world *w = *state;
    give_latent("filled", 1, 8, 8);
    world_run(w, WORLD_BASE, GIVE("f", "filled"),
              KSAMPLER("k", "3", "2.5", "euler", "simple", "f", "0.5"),
              ADVANCED("a", "enable", "6", "euler", "f", "3", "10000", "disable"), SELECT("euler"),
              SCHEDULE("simple", "3", "0.5"), GUIDED("g", RANDOM, "f"),
              KSAMPLER("l", "3", "2.5", "euler", "simple", "f", "1"), WORLD_CAPTURE("1", "['k',0]"),
              WORLD_CAPTURE("2", "['a',0]"), WORLD_CAPTURE("3", "['g',0]"),
              WORLD_CAPTURE("4", "['l',0]"), WORLD_CAPTURE("s", "['sc',0]"));
    assert_int_equal(world_sigmas("s")->count, 4);
    world_assert_same(world_latent("1"), world_latent("2"));
    world_assert_same(world_latent("1"), world_latent("3"));
    assert_true(world_distance(world_latent("1"), world_latent("4")) > 1e-2);
}

static void no_noise_is_no_noise(void **state)
{
    world *w = *state;
    give_latent("filled", 1, 8, 8);
    world_run(w, WORLD_BASE, GIVE("f", "filled"), SELECT("euler"), SCHEDULE("simple", "3", "1"),
              GUIDED("g", SILENT, "f"), CUSTOM("u", "false", "f"),
              ADVANCED("a", "disable", "3", "euler", "f", "0", "10000", "disable"),
              KSAMPLER("k", "3", "2.5", "euler", "simple", "f", "1"), WORLD_CAPTURE("1", "['g',0]"),
              WORLD_CAPTURE("2", "['u',0]"), WORLD_CAPTURE("3", "['a',0]"),
              WORLD_CAPTURE("4", "['k',0]"));
    world_assert_same(world_latent("1"), world_latent("2"));
    world_assert_same(world_latent("1"), world_latent("3"));
    assert_true(world_distance(world_latent("1"), world_latent("4")) > 1e-2);
}

static void a_batch_is_its_pictures_side_by_side(void **state)
{
    world *w = *state;
    world_run(w, WORLD_MODELS, WORLD_PROMPTS, WORLD_EMPTY(64, 32, 2),
              KSAMPLER("k", "3", "2.5", "euler", "simple", "e", "1"),
              "'d':{'class_type':'VAEDecode','inputs':{'samples':['k',0],'vae':['v',0]}"
              "},",
              WORLD_CAPTURE("b", "['k',0]"), WORLD_CAPTURE("i", "['d',0]"));
    const at_tensor *t = world_latent("b");
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[2], 4);
    assert_int_equal(t->shape[3], 8);
    assert_int_equal(world_image("i")->shape[0], 2);
    assert_int_equal(world_image("i")->shape[1], 32);
    assert_int_equal(world_image("i")->shape[2], 64);

    // batch_index: the noise of picture 1 alone, at the place where it stood
    const size_t half = at_tensor_bytes(t) / 2;
    at_tensor *second = NULL, *zero = NULL;
    int64_t shape[] = {1, 16, 4, 8};
    assert_int_equal(at_tensor_from_host(at_device_cpu(), AT_F32, 4, shape,
                                         (char *)at_tensor_data(t) + half, &second),
                     AT_OK);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, shape, &zero), AT_OK);
    memset(at_tensor_data(zero), 0, at_tensor_bytes(zero));
    at_object *l = at_obj_latent_new(zero);
    ((at_obj_latent *)l)->batch_index = at_calloc(1, sizeof(int64_t));
    ((at_obj_latent *)l)->batch_index[0] = 1;
    world_give("indexed", at_value_object(l));
    world_run(w, WORLD_BASE, GIVE("f", "indexed"),
              KSAMPLER("k", "3", "2.5", "euler", "simple", "f", "1"),
              WORLD_CAPTURE("one", "['k',0]"));
    // rows of a batch of 4 sum in another order than rows of a batch of 2
    assert_true(world_distance(world_latent("one"), second) < 1e-5);
    assert_non_null(((const at_obj_latent *)world_object("one", "LATENT"))->batch_index);
    at_tensor_release(&second);
}

static void odd_sizes_draw(void **state)
{
    world *w = *state;
    world_run(w, WORLD_MODELS, WORLD_PROMPTS, WORLD_EMPTY(72, 40, 1), // 9 x 5 latent places
              KSAMPLER("k", "2", "2.5", "euler", "simple", "e", "1"),
              "'d':{'class_type':'VAEDecode','inputs':{'samples':['k',0],'vae':['v',0]}}",
              WORLD_CAPTURE("i", "['d',0]"));
    assert_int_equal(world_image("i")->shape[1], 40);
    assert_int_equal(world_image("i")->shape[2], 72);
    world_run(w, WORLD_MODELS, WORLD_PROMPTS, WORLD_EMPTY(16, 23, 1), // 23 / 8 = 2
              KSAMPLER("k", "2", "2.5", "euler", "simple", "e", "1"),
              WORLD_CAPTURE("l", "['k',0]"));
    assert_int_equal(world_latent("l")->shape[2], 2);
    assert_int_equal(world_latent("l")->shape[3], 2);
}

static void an_empty_latent_of_four_channels_fits_any_model(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE,
              "'f':{'class_type':'EmptyLatentImage','inputs':{'width':64,'height':64,'"
              "batch_size':1}},",
              KSAMPLER("k", "2", "2.5", "euler", "simple", "e", "1"),
              KSAMPLER("l", "2", "2.5", "euler", "simple", "f", "1"), WORLD_CAPTURE("a", "['k',0]"),
              WORLD_CAPTURE("b", "['l',0]"));
    world_assert_same(world_latent("a"), world_latent("b"));

    at_tensor *t = NULL; // a filled one does not
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 4, 8, 8}, &t), AT_OK);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        ((float *)at_tensor_data(t))[i] = 1.0f;
    world_give("four", at_value_object(at_obj_latent_new(t)));
    assert_int_equal(world_try(w, WORLD_BASE, GIVE("f", "four"),
                               KSAMPLER("k", "2", "2.5", "euler", "simple", "f", "1"),
                               WORLD_CAPTURE("a", "['k',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "4 channels"));
    assert_non_null(strstr(at_error_text(), "KSampler"));
}

static void a_noise_mask_keeps_what_it_covers(void **state)
{
    world *w = *state;
    at_tensor *mask = NULL, *before = filled_latent(1, 8, 8);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 1, 64, 64}, &mask),
                     AT_OK);
    for (int64_t i = 0; i < 64 * 64; i++) // paint the right half
        ((float *)at_tensor_data(mask))[i] = i % 64 >= 32 ? 1.0f : 0.0f;
    at_object *l = at_obj_latent_new(filled_latent(1, 8, 8));
    ((at_obj_latent *)l)->noise_mask = mask;
    world_give("masked", at_value_object(l));
    world_run(w, WORLD_BASE, GIVE("f", "masked"),
              KSAMPLER("k", "4", "2.5", "euler", "simple", "f", "1"),
              WORLD_CAPTURE("a", "['k',0]"));
    const float *got = world_floats(world_latent("a")), *was = world_floats(before);
    for (int64_t i = 0; i < at_tensor_count(before); i++) {
        bool painted = i % 8 >= 4;
        if (!painted) assert_true(fabsf(got[i] - was[i]) < 1e-4f);
    }
    assert_true(world_distance(world_latent("a"), before) > 1e-2);
    assert_non_null(((const at_obj_latent *)world_object("a", "LATENT"))->noise_mask);
    at_tensor_release(&before);
}

static void cfg_one_does_not_ask_the_negative_prompt(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE, KSAMPLER("k", "2", "1.0", "euler", "simple", "e", "1"),
              "'q':{'class_type':'CLIPTextEncode','inputs':{'text':'a "
              "blue square','clip':['c',0]}},"
              "'o':{'class_type':'KSampler','inputs':{'model':['m',0],'"
              "seed':77,'steps':2,'cfg':1,"
              "'sampler_name':'euler','scheduler':'simple','positive':['p'"
              ",0],'negative':['q',0],"
              "'latent_image':['e',0],'denoise':1}},",
              KSAMPLER("l", "2", "4.0", "euler", "simple", "e", "1"), WORLD_CAPTURE("a", "['k',0]"),
              WORLD_CAPTURE("b", "['o',0]"), WORLD_CAPTURE("d", "['l',0]"));
    world_assert_same(world_latent("a"), world_latent("b"));
    assert_true(world_distance(world_latent("a"), world_latent("d")) > 1e-3);
}

static void prompts_of_different_lengths_are_evaluated_one_by_one(void **state)
{
    world *w = *state;
    char text[2048] = "";
    for (int i = 0; i < 150; i++)
        strcat(text, "red circle ");
    world_run(
        w, WORLD_MODELS, WORLD_PROMPTS, WORLD_EMPTY(64, 64, 1),
        world_nodes("'l':{'class_type':'CLIPTextEncode','inputs':{'text':'%s','clip':['c',0]}}",
                    text),
        "'s':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':77,'steps':1,'cfg':3,"
        "'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':['l',0],"
        "'latent_image':['e',0],'denoise':1}}",
        // x0 = negative + 3 (positive - negative), each alone at cfg 1
        "'sp':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':77,'steps':1,'cfg':1,"
        "'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':['l',0],"
        "'latent_image':['e',0],'denoise':1}}",
        "'sn':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':77,'steps':1,'cfg':1,"
        "'sampler_name':'euler','scheduler':'simple','positive':['l',0],'negative':['p',0],"
        "'latent_image':['e',0],'denoise':1}}",
        WORLD_CAPTURE("a", "['s',0]"), WORLD_CAPTURE("pos", "['sp',0]"),
        WORLD_CAPTURE("neg", "['sn',0]"), WORLD_CAPTURE("long", "['l',0]"));
    assert_true(world_cond("long")->items[0].context->shape[1] > 256);
    const at_tensor *a = world_latent("a");
    const float *p = world_floats(world_latent("pos")), *n = world_floats(world_latent("neg"));
    for (int64_t i = 0; i < at_tensor_count(a); i++) {
        float want = n[i] + 3.0f * (p[i] - n[i]);
        assert_true(fabsf(world_floats(a)[i] - want) < 1e-3f * (1.0f + fabsf(want)));
    }
}

// --- noise levels ------------------------------------------------------------------------------------
// Sigma of Flux's schedule at time t (Esser et al. 2024, with mu as the log of the shift).
static double flux_sigma(double mu, double t)
{
    return exp(mu) / (exp(mu) + (1.0 / t - 1.0));
}
static void assert_sigmas(const char *id, double (*sigma)(double, double), double shift,
                          int entries, int steps)
{
    const at_obj_sigmas *s = world_sigmas(id);
    assert_int_equal(s->count, steps + 1);
    for (int i = 0; i < steps; i++) { // "simple": every entries/steps-th of the table, from above
        double t = (double)(entries - (int)((double)i * entries / steps)) / entries;
        if (fabs((double)s->values[i] / sigma(shift, t) - 1.0) > 2e-6)
            fail_msg("sigma %d is %.9g, expected %.9g", i, (double)s->values[i], sigma(shift, t));
    }
    assert_true(s->values[steps] == 0.0f);
}
static double shifted(double shift, double t)
{
    return shift * t / (1.0 + (shift - 1.0) * t);
}

static void model_sampling_flux_shifts_with_the_size(void **state)
{
    world *w = *state;
#define PATCH(id, max, base, wd, h)                                                                \
    "'" id "':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':" max        \
    ",'base_shift':" base ",'width':" wd ",'height':" h "}},"                                      \
    "'" id "s':{'class_type':'BasicScheduler','inputs':{'model':['" id                             \
    "',0],'scheduler':'simple','steps':20,'denoise':1}}," WORLD_CAPTURE(id "x", "['" id "s',0]")
    world_run(w, WORLD_MODELS, PATCH("a", "1.15", "0.5", "1024", "1024"),
              PATCH("b", "1.15", "0.5", "256", "256"), PATCH("d", "2.0", "0.25", "1280", "720"),
              "'k':{'class_type':'BasicScheduler','inputs':{'model':['m',"
              "0],'scheduler':'simple',"
              "'steps':7,'denoise':1}},",
              WORLD_CAPTURE("own", "['k',0]"));
    assert_sigmas("ax", flux_sigma, 1.15, 10000, 20); // 4096 tokens: the upper end
    assert_sigmas("bx", flux_sigma, 0.5, 10000, 20);  // 256 tokens: the lower end
    // 1280 x 720: 3600 tokens on the line through (256, 0.25) and (4096, 2.0)
    assert_sigmas("dx", flux_sigma, 0.25 + (2.0 - 0.25) * (3600.0 - 256.0) / (4096.0 - 256.0),
                  10000, 20);
    assert_sigmas("own", flux_sigma, 1.15, 10000, 7); // Flux's own
}

static void model_sampling_sd3_shifts_by_a_number(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE,
              "'a':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':3.0}},"
              "'s':{'class_type':'BasicScheduler','inputs':{'model':['a',0],'scheduler':'simple',"
              "'steps':20,'denoise':1}},",
              WORLD_CAPTURE("x", "['s',0]"),
              "'b':{'class_type':'KSampler','inputs':{'model':['a',0],'seed':"
              "77,'steps':4,'cfg':2.5,"
              "'sampler_name':'euler','scheduler':'simple','positive':['p',0],'"
              "negative':['n',0],"
              "'latent_image':['e',0],'denoise':1}},",
              KSAMPLER("k", "4", "2.5", "euler", "simple", "e", "1"),
              WORLD_CAPTURE("patched", "['b',0]"), WORLD_CAPTURE("own", "['k',0]"));
    assert_sigmas("x", shifted, 3.0, 1000, 20);
    assert_true(world_distance(world_latent("patched"), world_latent("own")) > 1e-3);
}

static void a_shift_of_nothing_is_refused_or_drawn(void **state)
{
    // shift 0 makes every sigma 0: no schedule can be made of it, and that is said
    world *w = *state;
    at_status st = world_try(
        w, WORLD_BASE,
        "'a':{'class_type':'ModelSamplingSD3','inputs':{'model':['m',0],'shift':0}},"
        "'b':{'class_type':'KSampler','inputs':{'model':['a',0],'seed':77,'steps':2,'cfg':1,"
        "'sampler_name':'dpmpp_2m','scheduler':'karras','positive':['p',0],'negative':['n',0],"
        "'latent_image':['e',0],'denoise':1}},",
        WORLD_CAPTURE("x", "['b',0]"));
    assert_true(st == AT_OK || (st == AT_EINVAL && *at_error_text()));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_ways_to_sample_are_one),
        cmocka_unit_test(ksampler_drops_the_penultimate_sigma_where_comfyui_does),
        cmocka_unit_test(sampling_in_two_halves_is_close_to_the_whole),
        cmocka_unit_test(leftover_noise_off_forces_a_full_denoise),
        cmocka_unit_test(windows_without_steps_give_the_latent_back),
        cmocka_unit_test(denoise_half_runs_the_tail_of_twice_the_steps),
        cmocka_unit_test(no_noise_is_no_noise),
        cmocka_unit_test(a_batch_is_its_pictures_side_by_side),
        cmocka_unit_test(odd_sizes_draw),
        cmocka_unit_test(an_empty_latent_of_four_channels_fits_any_model),
        cmocka_unit_test(a_noise_mask_keeps_what_it_covers),
        cmocka_unit_test(prompts_of_different_lengths_are_evaluated_one_by_one),
        cmocka_unit_test(cfg_one_does_not_ask_the_negative_prompt),
        cmocka_unit_test(model_sampling_flux_shifts_with_the_size),
        cmocka_unit_test(model_sampling_sd3_shifts_by_a_number),
        cmocka_unit_test(a_shift_of_nothing_is_refused_or_drawn),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
