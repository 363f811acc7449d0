// SPDX-License-Identifier: Apache-2.0
// schedulers_test.c - nodes that make and change schedules, model sampling nodes and AddNoise, against
// ComfyUI's own numbers.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/rows.h"

typedef struct sigma_case {
    const char *graph;
    int slot;
    size_t n;
    double values[32];
} sigma_case;
typedef struct percent_case {
    const char *graph;
    double sigma;
} percent_case;
typedef struct noise_case {
    const char *graph;
    double values[6]; // every 19th
} noise_case;
#include "sigma_cases.h"

// torch's exp, pow and log are vectorised f32, ours rounded from f64: a few ulps.
#define ROOM 2e-6

#define MODEL                                                                                      \
    "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'tiny_dev.safetensors',"                 \
    "'weight_dtype':'default'}},"
#define GIVE(k) "'" k "':{'class_type':'Give','inputs':{'key':'" k "'}},"

static void give_sigmas(const char *key, size_t n, const float *values)
{
    float *copy = at_calloc(n + 1, sizeof *copy);
    assert_non_null(copy);
    if (n) memcpy(copy, values, n * sizeof *copy);
    world_give(key, at_value_object(at_obj_sigmas_new(copy, n)));
}
static void give_all(void)
{
    give_sigmas("up", 6, (const float[]){14.5f, 9.25f, 4, 1.5f, 0.5f, 0});
    give_sigmas("none", 0, NULL);
    give_sigmas("one", 1, (const float[]){2.5f});
    give_sigmas("open", 3, (const float[]){3, 2, 1});
}
#define GIVEN MODEL GIVE("up") GIVE("none") GIVE("one") GIVE("open")

static bool close_to(double got, double want)
{
    return fabs(got - want) <= ROOM * fabs(want);
}

static void schedules_are_comfyuis(void **state)
{
    world *w = *state;
    give_all();
    for (size_t i = 0; i < AT_COUNT(sigma_cases); i++) {
        const sigma_case *c = &sigma_cases[i];
        world_run(w, GIVEN, c->graph,
                  world_nodes("'1':{'class_type':'Capture','inputs':{'value':['t',%d]}}", c->slot));
        const at_obj_sigmas *s = world_sigmas("1");
        if (s->count != c->n) fail_msg("%s: %zu sigmas, not %zu", c->graph, s->count, c->n);
        for (size_t k = 0; k < c->n; k++)
            if (!close_to((double)s->values[k], c->values[k]))
                fail_msg("%s: sigma %zu is %.9g, not %.9g", c->graph, k, (double)s->values[k],
                         c->values[k]);
    }
}

static void percents_become_sigmas(void **state)
{
    world *w = *state;
    give_all();
    for (size_t i = 0; i < AT_COUNT(percent_cases); i++) {
        const percent_case *c = &percent_cases[i];
        world_run(w, GIVEN, c->graph, WORLD_CAPTURE("1", "['t',0]"));
        const at_value *v = world_value("1");
        assert_int_equal(v->kind, AT_VAL_FLOAT);
        if (!close_to(v->f, c->sigma)) fail_msg("%s: %.9g, not %.9g", c->graph, v->f, c->sigma);
    }
}

static at_object *latent_of(double scale)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 16, 2, 3}, &t),
                     AT_OK);
    for (int i = 0; i < 96; i++)
        ((float *)at_tensor_data(t))[i] = (float)(sin(i * 0.37) * scale);
    return at_obj_latent_new(t);
}

static void noise_is_added_as_strong_as_the_schedule_is_long(void **state)
{
    world *w = *state;
    give_all();
    world_give("x", at_value_object(latent_of(2)));
    world_give("z", at_value_object(latent_of(0)));
    for (size_t i = 0; i < AT_COUNT(noise_cases); i++) {
        const noise_case *c = &noise_cases[i];
        world_run(w, GIVEN GIVE("x") GIVE("z"),
                  "'no':{'class_type':'RandomNoise','inputs':{'noise_seed':5}},", c->graph,
                  WORLD_CAPTURE("1", "['t',0]"));
        const float *got = world_floats(world_latent("1"));
        for (int k = 0; k < 6; k++) // sums of a few f32 values up to 40
            if (fabs((double)got[19 * k] - c->values[k]) > 1e-5)
                fail_msg("%s: value %d is %.9g, not %.9g", c->graph, 19 * k, (double)got[19 * k],
                         c->values[k]);
    }
    world_run(w, GIVEN GIVE("x"), "'no':{'class_type':'DisableNoise','inputs':{}},",
              "'t':{'class_type':'AddNoise','inputs':{'model':['m',0],'noise':['no',0],'sigmas':"
              "['none',0],'latent_image':['x',0]}}",
              WORLD_CAPTURE("1", "['t',0]"), WORLD_CAPTURE("2", "['x',0]"));
    world_assert_same(world_latent("1"), world_latent("2"));
}

// --- what comes out of a patched model ---------------------------------------------------------------
#define DRAW(id, model)                                                                            \
    "'" id "':{'class_type':'KSampler','inputs':{'model':['" model "',0],'seed':7,'steps':2,"      \
    "'cfg':1.5,'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':['n',0]," \
    "'latent_image':['e',0],'denoise':1}},"

// The same weights, read in another way, give other latents; the same way through a patch, the same.
static void patched_models_draw(void **state)
{
    static const char *const patches[] = {
        "'ModelSamplingDiscrete','inputs':{'sampling':'eps','zsnr':false,",
        "'ModelSamplingDiscrete','inputs':{'sampling':'v_prediction','zsnr':true,",
        "'ModelSamplingDiscrete','inputs':{'sampling':'lcm','zsnr':false,",
        "'ModelSamplingDiscrete','inputs':{'sampling':'x0','zsnr':false,",
        "'ModelSamplingDiscrete','inputs':{'sampling':'img_to_img','zsnr':false,",
        "'ModelSamplingContinuousEDM','inputs':{'sampling':'edm','sigma_max':80,'sigma_min':0.01,",
        "'ModelSamplingContinuousEDM','inputs':{'sampling':'cosmos_rflow','sigma_max':80,"
        "'sigma_min':0.01,",
        "'ModelSamplingContinuousV','inputs':{'sampling':'v_prediction','sigma_max':500,"
        "'sigma_min':0.03,",
        "'ModelSamplingAuraFlow','inputs':{'shift':1.73,",
    };
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(patches); i++) {
        world_run(w, WORLD_BASE, world_nodes("'a':{'class_type':%s'model':['m',0]}},", patches[i]),
                  DRAW("k", "m") DRAW("l", "a"), WORLD_CAPTURE("1", "['k',0]"),
                  WORLD_CAPTURE("2", "['l',0]"));
        double apart = world_distance(world_latent("2"), world_latent("1"));
        if (!(apart > 1e-2) || !isfinite(apart)) fail_msg("%s: %g apart", patches[i], apart);
    }
    world_run(w, WORLD_BASE,
              "'a':{'class_type':'ModelSamplingFlux','inputs':{'model':['m',0],'max_shift':1.15,"
              "'base_shift':0.5,'width':1024,'height':1024}},",
              DRAW("k", "m") DRAW("l", "a"), WORLD_CAPTURE("1", "['k',0]"),
              WORLD_CAPTURE("2", "['l',0]"));
    assert_true(world_distance(world_latent("2"), world_latent("1")) < 1e-6);
}

static void a_model_computes_in_the_dtype_it_is_given(void **state)
{
#define IN(id, dtype)                                                                              \
    "'" id "':{'class_type':'ModelComputeDtype','inputs':{'model':['m',0],'dtype':'" dtype "'}},"
    world *w = *state;
    world_run(w, WORLD_BASE, IN("a", "fp32") IN("b", "bf16") IN("q", "default") IN("r", "fp16"),
              DRAW("k", "m") DRAW("ka", "a") DRAW("kb", "b") DRAW("kc", "q") DRAW("kd", "r"),
              WORLD_CAPTURE("0", "['k',0]"), WORLD_CAPTURE("1", "['ka',0]"),
              WORLD_CAPTURE("2", "['kb',0]"), WORLD_CAPTURE("3", "['kc',0]"),
              WORLD_CAPTURE("4", "['kd',0]"));
    world_assert_same(world_latent("1"), world_latent("0")); // the test's engine computes in f32
    world_assert_same(world_latent("3"), world_latent("0"));
    world_assert_same(world_latent("4"), world_latent("0")); // the CPU's f16
    double apart = world_distance(world_latent("2"), world_latent("0"));
    assert_true(apart > 1e-5 && apart < 3e-2); // bf16 keeps 8 bits
}

static void what_makes_no_schedule_is_refused(void **state)
{
    static const struct {
        const char *graph, *says;
    } cases[] = {
        {"'t':{'class_type':'SetFirstSigma','inputs':{'sigmas':['none',0],'sigma':1}}", "empty"},
        {"'t':{'class_type':'ExponentialScheduler','inputs':{'steps':3,'sigma_max':1,"
         "'sigma_min':0}}",
         "above 0"},
        {"'t':{'class_type':'KarrasScheduler','inputs':{'steps':3,'sigma_max':1,'sigma_min':0.1,"
         "'rho':0}}",
         "rho 0"},
        {"'t':{'class_type':'GITSScheduler','inputs':{'coeff':0.83,'steps':3,'denoise':1}}",
         "0.83"},
        {"'a':{'class_type':'ModelSamplingContinuousEDM','inputs':{'model':['m',0],'sampling':"
         "'edm','sigma_max':1,'sigma_min':0}},'t':{'class_type':'BasicScheduler','inputs':{'model':"
         "['a',0],'scheduler':'simple','steps':3,'denoise':1}}",
         "sigmas 0..1"},
    };
    world *w = *state;
    give_all();
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        at_status st = world_try(w, GIVEN, cases[i].graph, WORLD_CAPTURE("1", "['t',0]"));
        if (st != AT_EINVAL || !strstr(at_error_text(), cases[i].says))
            fail_msg("%s\n gave %s: %s", cases[i].graph, at_status_facts(st)->name,
                     at_error_text());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_are_comfyuis),
        cmocka_unit_test(percents_become_sigmas),
        cmocka_unit_test(noise_is_added_as_strong_as_the_schedule_is_long),
        cmocka_unit_test(patched_models_draw),
        cmocka_unit_test(a_model_computes_in_the_dtype_it_is_given),
        cmocka_unit_test(what_makes_no_schedule_is_refused),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
