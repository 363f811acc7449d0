// SPDX-License-Identifier: Apache-2.0
// samplers_test.c - Sampler* nodes: which solver they name, what they tell it, and that it draws so.
// The solvers' numbers with these options are unit.sample.solvers' affair.
#include "world.h"

#include <math.h>
#include <string.h>

#include "nodes/rows.h"

// Fields of at_sampler_options by name.
typedef struct want {
    size_t at;
    double value;
    bool is_int;
} want;
#define NUM(field, v)                                                                              \
    {                                                                                              \
        offsetof(at_sampler_options, field), v, false                                              \
    }
#define WHOLE(field, v)                                                                            \
    {                                                                                              \
        offsetof(at_sampler_options, field), v, true                                               \
    }
#define END                                                                                        \
    {                                                                                              \
        SIZE_MAX, 0, false                                                                         \
    }

static const struct {
    const char *node, *name, *solver_type;
    want wants[12];
} cases[] = {
    {"'SamplerDPMPP_SDE','inputs':{'eta':0.5,'s_noise':1.1,'r':0.7,'noise_device':'gpu'}",
     "dpmpp_sde_gpu",
     "midpoint",
     {NUM(eta, 0.5), NUM(s_noise, 1.1), NUM(r, 0.7), END}},
    {"'SamplerDPMPP_2M_SDE','inputs':{'solver_type':'heun','eta':0.25,'s_noise':0.9,"
     "'noise_device':'cpu'}",
     "dpmpp_2m_sde",
     "heun",
     {NUM(eta, 0.25), NUM(s_noise, 0.9), END}},
    {"'SamplerDPMPP_3M_SDE','inputs':{'eta':0,'s_noise':2,'noise_device':'gpu'}",
     "dpmpp_3m_sde_gpu",
     "midpoint",
     {NUM(eta, 0), NUM(s_noise, 2), END}},
    {"'SamplerDPMPP_2S_Ancestral','inputs':{'eta':0.3,'s_noise':1}",
     "dpmpp_2s_ancestral",
     "midpoint",
     {NUM(eta, 0.3), NUM(s_noise, 1), END}},
    {"'SamplerEulerAncestral','inputs':{'eta':0.4,'s_noise':1.2}",
     "euler_ancestral",
     "midpoint",
     {NUM(eta, 0.4), NUM(s_noise, 1.2), END}},
    {"'SamplerEulerAncestralCFGPP','inputs':{'eta':0.6,'s_noise':0.8}",
     "euler_ancestral_cfg_pp",
     "midpoint",
     {NUM(eta, 0.6), NUM(s_noise, 0.8), END}},
    {"'SamplerLMS','inputs':{'order':7}", "lms", "midpoint", {WHOLE(order, 7), END}},
    {"'SamplerDPMAdaptative','inputs':{'order':2,'rtol':0.1,'atol':0.02,'h_init':0.06,'pcoeff':0.2,"
     "'icoeff':0.9,'dcoeff':0.1,'accept_safety':0.7,'eta':0.5,'s_noise':1.5}",
     "dpm_adaptive",
     "midpoint",
     {WHOLE(order, 2), NUM(rtol, 0.1), NUM(atol, 0.02), NUM(h_init, 0.06), NUM(pcoeff, 0.2),
      NUM(icoeff, 0.9), NUM(dcoeff, 0.1), NUM(accept_safety, 0.7), NUM(eta, 0.5), NUM(s_noise, 1.5),
      END}},
    {"'SamplerER_SDE','inputs':{'solver_type':'Reverse-time SDE','max_stage':2,'eta':0.5,"
     "'s_noise':0.9}",
     "er_sde",
     "Reverse-time SDE",
     {WHOLE(max_stage, 2), NUM(eta, 0.5), NUM(s_noise, 0.9), END}},
    // Flux's sigmas at 0.25 and 0.5 of the way: e^1.15 / (e^1.15 + 1 / t - 1)
    {"'SamplerSASolver','inputs':{'model':['m',0],'eta':0.7,'sde_start_percent':0.25,"
     "'sde_end_percent':0.5,'s_noise':1.3,'predictor_order':2,'corrector_order':5,'use_pece':true,"
     "'simple_order_2':false}",
     "sa_solver",
     "midpoint",
     {NUM(eta, 0.7), NUM(s_noise, 1.3), WHOLE(predictor_order, 2), WHOLE(corrector_order, 5),
      NUM(sde_from, 0.904530767), NUM(sde_to, 0.759510917), END}},
    {"'SamplerEulerCFGpp','inputs':{'version':'regular'}", "euler_cfg_pp", "midpoint", {END}},
    {"'SamplerEulerCFGpp','inputs':{'version':'alternative'}", "euler_pp", "midpoint", {END}},
    {"'SamplerLCMUpscale','inputs':{'scale_ratio':1.5,'scale_steps':3,'upscale_method':'area'}",
     "lcm_upscale",
     "midpoint",
     {NUM(total_upscale, 1.5), WHOLE(upscale_steps, 3), END}},
};

#define DRAW(id, sampler)                                                                          \
    "'" id "':{'class_type':'SamplerCustomAdvanced','inputs':{'noise':['no',0],'guider':['gu',0]," \
    "'sampler':['" sampler "',0],'sigmas':['sc',0],'latent_image':['e',0]}},"
#define AROUND                                                                                     \
    WORLD_BASE "'no':{'class_type':'RandomNoise','inputs':{'noise_seed':77}},"                     \
               "'gu':{'class_type':'CFGGuider','inputs':{'model':['m',0],'positive':['p',0],"      \
               "'negative':['n',0],'cfg':2.5}},"                                                   \
               "'sc':{'class_type':'BasicScheduler','inputs':{'model':['m',0],"                    \
               "'scheduler':'simple','steps':3,'denoise':1}},"

static void nodes_tell_their_solver(void **state)
{
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        world_run(w, WORLD_MODELS, world_nodes("'t':{'class_type':%s}", cases[i].node),
                  WORLD_CAPTURE("1", "['t',0]"));
        const at_obj_sampler *s = (const at_obj_sampler *)world_object("1", "SAMPLER");
        assert_string_equal(s->name, cases[i].name);
        assert_string_equal(s->options.solver_type, cases[i].solver_type);
        for (const want *k = cases[i].wants; k->at != SIZE_MAX; k++) {
            const char *field = (const char *)&s->options + k->at;
            double got = k->is_int ? *(const int *)field : *(const double *)field;
            if (fabs(got - k->value) > 1e-7)
                fail_msg("%s: option %zu is %.9g, not %g", cases[i].node,
                         (size_t)(k - cases[i].wants), got, k->value);
        }
    }
}

static void every_sampler_object_draws(void **state)
{
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        world_run(w, AROUND, world_nodes("'t':{'class_type':%s},", cases[i].node), DRAW("d", "t"),
                  WORLD_CAPTURE("1", "['d',0]"));
        const at_tensor *t = world_latent("1");
        for (int64_t k = 0; k < at_tensor_count(t); k++)
            if (!isfinite(world_floats(t)[k])) fail_msg("%s: no number", cases[i].node);
    }
}

// Options that are the defaults draw what the plain name draws, others do not.
static void options_reach_the_solver(void **state)
{
    world *w = *state;
    world_run(w, AROUND,
              "'a':{'class_type':'SamplerEulerAncestral','inputs':{'eta':1,'s_noise':1}},"
              "'b':{'class_type':'SamplerEulerAncestral','inputs':{'eta':0.5,'s_noise':1}},"
              "'q':{'class_type':'KSamplerSelect','inputs':{'sampler_name':'euler_ancestral'}},",
              DRAW("d1", "a") DRAW("d2", "b") DRAW("d3", "q"), WORLD_CAPTURE("1", "['d1',0]"),
              WORLD_CAPTURE("2", "['d2',0]"), WORLD_CAPTURE("3", "['d3',0]"));
    world_assert_same(world_latent("1"), world_latent("3"));
    assert_true(world_distance(world_latent("2"), world_latent("1")) > 1e-3);
}

// Sanitizers make a step ten times as long: they see every sampler with one or two schedulers.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 7
#else
#define STRIDE 1
#endif

// All pairs on a network read as one that predicts noise; matrix.samplers_and_schedulers has the flow. What a
// tiny random network paints is no picture; it must be numbers.
static void every_sampler_draws_with_every_scheduler(void **state)
{
    world *w = *state;
    for (size_t i = 0; i < at_sampler_count * at_scheduler_count; i += STRIDE) {
        const char *sampler = at_sampler_names[i / at_scheduler_count];
        const char *scheduler = at_scheduler_names[i % at_scheduler_count];
        world_run(w, WORLD_MODELS WORLD_PROMPTS WORLD_EMPTY(16, 16, 1),
                  "'d':{'class_type':'ModelSamplingDiscrete','inputs':{'model':['m',0],'sampling':"
                  "'eps','zsnr':false}},",
                  world_nodes("'k':{'class_type':'KSampler','inputs':{'model':['d',0],'seed':3,"
                              "'steps':3,'cfg':1.0,'sampler_name':'%s','scheduler':'%s','positive':"
                              "['p',0],'negative':['n',0],'latent_image':['e',0],'denoise':1.0}},",
                              sampler, scheduler),
                  WORLD_CAPTURE("1", "['k',0]"));
        const at_tensor *t = world_latent("1");
        for (int64_t j = 0; j < at_tensor_count(t); j++)
            if (!isfinite(world_floats(t)[j])) fail_msg("%s %s: no number", sampler, scheduler);
    }
}

static void an_sde_without_a_middle_is_refused(void **state)
{
    world *w = *state;
    assert_int_equal(world_try(w, AROUND,
                               "'t':{'class_type':'SamplerDPMPP_SDE','inputs':{'eta':1,'s_noise':1,"
                               "'r':0,'noise_device':'cpu'}},",
                               DRAW("d", "t"), WORLD_CAPTURE("1", "['d',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "r 0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_tell_their_solver),
        cmocka_unit_test(every_sampler_object_draws),
        cmocka_unit_test(options_reach_the_solver),
        cmocka_unit_test(every_sampler_draws_with_every_scheduler),
        cmocka_unit_test(an_sde_without_a_middle_is_refused),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
