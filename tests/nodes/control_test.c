// SPDX-License-Identifier: Apache-2.0
// control_test.c - ControlNets put on conditionings, and pictures drawn with them.
#include "control_kit.h"

static int open_world(void **state)
{
    int failed = world_open(state);
    if (failed) return failed;
    install(*state, "controlnet", "control_t2i", "grey.safetensors");
    install(*state, "controlnet", "control_t2i_diffusers", "colour.safetensors");
    install(*state, "controlnet", "control_t2i_light", "light.safetensors");
    install(*state, "controlnet", "control_flux_instantx", "inpaint.safetensors");
    install(*state, "controlnet", "control_flux_union", "union.safetensors");
    return 0;
}

// --- objects -----------------------------------------------------------------------------------
static void equal_entries_of_both_lists_get_one_object(void **state)
{
    world *w = *state;
    give_list("p", 2);
    give_list("n", 1);
    give_picture("i", 1, 8, 8);
    world_run(w, GIVE("p"), GIVE("n"), GIVE("i"), LOAD("net", "grey.safetensors"), PAIR,
              APPLY("again", "pair", "net", "i", 2, 0, 1), WORLD_CAPTURE("a", "['pair',0]") ",",
              WORLD_CAPTURE("b", "['pair',1]") ",", WORLD_CAPTURE("c", "['again',0]"));
    const at_obj_control *first = control_of("a", 0), *chained = control_of("c", 1);
    assert_ptr_equal(first, control_of("a", 1));
    assert_ptr_equal(first, control_of("b", 0));
    assert_true(first->strength == 0.5f && first->start_percent == 0.25f);
    assert_true(first->end_percent == 0.75f && !first->previous);
    assert_false(world_cond("a")->items[0].control_to_uncond);
    assert_ptr_equal(chained->previous, first);
    assert_true(chained->strength == 2.0f);
}

static void no_strength_changes_nothing(void **state)
{
    world *w = *state;
    give_list("p", 1);
    give_picture("i", 1, 8, 8);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "grey.safetensors"),
              "'old':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['net',0],'image':['i',0],'strength':0}},"
              "'new':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['net',0],'image':['i',0],'strength':1.5}},",
              WORLD_CAPTURE("a", "['old',0]") ",", WORLD_CAPTURE("b", "['new',0]"));
    assert_null(control_of("a", 0));
    assert_true(control_of("b", 0)->strength == 1.5f);
    assert_true(world_cond("b")->items[0].control_to_uncond);
}

static void a_union_net_is_told_its_kind(void **state)
{
    world *w = *state;
    world_run(w, LOAD("net", "union.safetensors"),
              "'t':{'class_type':'SetUnionControlNetType','inputs':{'control_net':['net',0],"
              "'type':'tile'}},"
              "'o':{'class_type':'SetUnionControlNetType','inputs':{'control_net':['t',0],"
              "'type':'auto'}},",
              WORLD_CAPTURE("a", "['t',0]") ",", WORLD_CAPTURE("b", "['o',0]"));
    assert_int_equal(((const at_obj_control *)world_object("a", "CONTROL_NET"))->type, 6);
    assert_int_equal(((const at_obj_control *)world_object("b", "CONTROL_NET"))->type, -1);
}

static void an_inpainting_net_gets_the_mask_and_the_masked_picture(void **state)
{
    world *w = *state;
    at_tensor *mask = NULL;
    give_list("p", 1);
    give_picture("i", 1, 2, 4);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){1, 2, 4}, &mask), AT_OK);
    const float drawn[] = {0, 1, 0.25f, 1, 0, 0, 0.75f, 0.5f};
    memcpy(at_tensor_data(mask), drawn, sizeof drawn);
    world_give("k", at_value_object(at_obj_mask_new(mask)));
    world_run(w, GIVE("p"), GIVE("i"), GIVE("k"), LOAD("net", "inpaint.safetensors"),
              LOAD("other", "grey.safetensors"), WORLD_MODELS,
              "'x':{'class_type':'ControlNetInpaintingAliMamaApply','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['net',0],'vae':['v',0],'image':['i',0],"
              "'mask':['k',0],'strength':1,'start_percent':0,'end_percent':1}},"
              "'y':{'class_type':'ControlNetInpaintingAliMamaApply','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['other',0],'vae':['v',0],'image':['i',0],"
              "'mask':['k',0],'strength':1,'start_percent':0,'end_percent':1}},",
              WORLD_CAPTURE("a", "['x',0]") ",", WORLD_CAPTURE("b", "['y',0]"));
    const at_obj_control *c = control_of("a", 0);
    const float *got = world_floats(c->mask), *pixels = world_floats(c->hint);
    assert_int_equal(c->mask->rank, 4);
    assert_non_null(c->vae);
    for (int i = 0; i < 8; i++) {
        float keep = 1.0f - drawn[i];
        assert_true(got[i] == keep);
        for (int k = 0; k < 3; k++) // 0.5 rounds to even: 0
            assert_true(pixels[3 * i + k] ==
                        (keep > 0.5f ? (float)((7 * (3 * i + k)) % 23) / 22.0f : 0.0f));
    }
    assert_null(control_of("b", 0)->mask); // a net that takes no mask: the picture as it is
    assert_true(world_floats(control_of("b", 0)->hint)[3] == 21.0f / 22.0f);
    assert_null(control_of("b", 0)->vae);
}

static void a_text_of_its_own_is_kept_beside_the_prompt(void **state)
{
    world *w = *state;
    give_list("p", 2);
    world_run(w, WORLD_MODELS, WORLD_PROMPTS,
              "'t':{'class_type':'CLIPTextEncodeControlnet','inputs':{'clip':['c',0],"
              "'conditioning':['p2',0],'text':'a red circle'}},"
              "'p2':{'class_type':'Give','inputs':{'key':'p'}},",
              WORLD_CAPTURE("a", "['t',0]") ",", WORLD_CAPTURE("b", "['p',0]"));
    for (size_t i = 0; i < 2; i++)
        world_assert_same(world_cond("a")->items[i].control_context,
                          world_cond("b")->items[0].context);
    assert_int_equal(world_cond("a")->items[1].context->shape[2], 4);
}

// --- drawing -----------------------------------------------------------------------------------
#define SD                                                                                         \
    "'m':{'class_type':'CheckpointLoaderSimple','inputs':{'ckpt_name':'tiny_sd15.safetensors'}},"  \
    "'t':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors',"              \
    "'type':'stable_diffusion'}},"                                                                 \
    "'p':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['t',0]}},"         \
    "'n':{'class_type':'CLIPTextEncode','inputs':{'text':'','clip':['t',0]}},"                     \
    "'e':{'class_type':'EmptyLatentImage','inputs':{'width':48,'height':40,'batch_size':2}},"
#define DRAW(id, positive, negative)                                                               \
    "'" id "':{'class_type':'KSampler','inputs':{'model':['m',0],'positive':" positive             \
    ",'negative':" negative ",'latent_image':['e',0],'seed':7,'steps':3,'cfg':4,"                  \
    "'sampler_name':'euler','scheduler':'normal','denoise':1}},"
#define START                                                                                      \
    "'start':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['p',0],"                \
    "'negative':['n',0],'control_net':['net',0],'image':['i',0],'strength':0,"                     \
    "'start_percent':0,'end_percent':1}},"

static void pictures_are_steered(void **state)
{
    world *w = *state;
    give_picture("i", 1, 40, 48);
    world_run(
        w, GIVE("i"), LOAD("net", "light.safetensors"), SD, START,
        APPLY("half", "start", "net", "i", 0.5, 0, 1), APPLY("both", "half", "net", "i", 0.5, 0, 1),
        APPLY("full", "start", "net", "i", 1, 0, 1), APPLY("never", "start", "net", "i", 1, 0, 0),
        DRAW("k0", "['p',0]", "['n',0]"), DRAW("k1", "['both',0]", "['both',1]"),
        DRAW("k2", "['full',0]", "['full',1]"), DRAW("k3", "['full',0]", "['n',0]"),
        DRAW("k4", "['never',0]", "['never',1]"), WORLD_CAPTURE("plain", "['k0',0]") ",",
        WORLD_CAPTURE("sum", "['k1',0]") ",", WORLD_CAPTURE("one", "['k2',0]") ",",
        WORLD_CAPTURE("positive", "['k3',0]") ",", WORLD_CAPTURE("unused", "['k4',0]"));
    const at_tensor *plain = world_latent("plain"), *one = world_latent("one");
    assert_true(world_distance(one, plain) > 1e-2);
    assert_true(world_distance(world_latent("sum"), one) < 1e-4);
    assert_true(world_distance(world_latent("positive"), one) > 1e-3);
    assert_true(world_distance(world_latent("positive"), plain) > 1e-3);
    world_assert_same(world_latent("unused"), plain); // a range that ends where it begins
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_entries_of_both_lists_get_one_object),
        cmocka_unit_test(no_strength_changes_nothing),
        cmocka_unit_test(a_union_net_is_told_its_kind),
        cmocka_unit_test(an_inpainting_net_gets_the_mask_and_the_masked_picture),
        cmocka_unit_test(a_text_of_its_own_is_kept_beside_the_prompt),
        cmocka_unit_test(pictures_are_steered),
    };
    return cmocka_run_group_tests(tests, open_world, world_close);
}
