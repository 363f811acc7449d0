// SPDX-License-Identifier: Apache-2.0
// hooks_test.c - LoRAs that belong to prompts, against models that have them: same pictures.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "nodes/lora_hooks.h"
#include "weight/safetensors.h"

#define LAYER "double_blocks.0.img_attn.proj.weight"

// loras/one.safetensors: a layer of the denoiser, and CLIP's last norm.
static void write_lora(const world *w)
{
    enum { RANK = 2, MOST = 512 };
    static float up[MOST * RANK], down[RANK * MOST], norm[MOST];
    const at_obj_model *m = (const at_obj_model *)world_object("x", "MODEL");
    const at_weight *layer =
        at_store_findf(at_model_store(m->model), "%s%s", at_model_prefix(m->model), LAYER);
    assert_non_null(layer);
    int64_t n = layer->shape[0], k = layer->shape[1];
    assert_true(n <= MOST && k <= MOST);
    for (int i = 0; i < MOST * RANK; i++) {
        up[i] = sinf((float)i * 1.7f);
        down[i] = cosf((float)i * 0.9f);
        norm[i % MOST] = 0.3f * sinf((float)i);
    }
    const at_st_out rows[] = {
        {"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight", AT_F32, 2, {n, RANK}, up},
        {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", AT_F32, 2, {RANK, k}, down},
        {"text_encoders.clip_l.transformer.text_model.final_layer_norm.diff",
         AT_F32,
         1,
         {128},
         norm},
    };
    assert_int_equal(at_make_dirs(world_path(w, "models/loras")), AT_OK);
    assert_int_equal(
        at_st_write(world_path(w, "models/loras/one.safetensors"), rows, AT_COUNT(rows), NULL, 0),
        AT_OK);
}

static int open_with_lora(void **state)
{
    int bad = world_open(state);
    if (bad) return bad;
    world_run(*state, WORLD_MODELS, WORLD_CAPTURE("x", "['m',0]"));
    write_lora(*state);
    return 0;
}

#define HOOK(id, strength)                                                                         \
    "'" id "':{'class_type':'CreateHookLoraModelOnly','inputs':{'lora_name':'one.safetensors',"    \
    "'strength_model':" strength "}},"
#define ON(id, hooks)                                                                              \
    "'" id "':{'class_type':'PairConditioningSetProperties','inputs':{'positive_NEW':['p',0],"     \
    "'negative_NEW':['n',0],'strength':1,'set_cond_area':'default','hooks':['" hooks "',0]}},"
#define LORA(id, strength)                                                                         \
    "'" id "':{'class_type':'LoraLoaderModelOnly','inputs':{'model':['m',0],'lora_name':"          \
    "'one.safetensors','strength_model':" strength "}},"
#define SAMPLE(id, model, positive, negative, steps, cfg)                                          \
    "'" id "':{'class_type':'KSampler','inputs':{'model':['" model "',0],'seed':7,'steps':" steps  \
    ",'cfg':" cfg ",'sampler_name':'euler','scheduler':'simple','positive':" positive              \
    ",'negative':" negative ",'latent_image':['e',0],'denoise':1}},"
#define PART(id, model, latent, add, from, to, left)                                               \
    "'" id "':{'class_type':'KSamplerAdvanced','inputs':{'model':['" model                         \
    "',0],'add_noise':'" add                                                                       \
    "','noise_seed':7,'steps':4,'cfg':2,'sampler_name':'euler','scheduler':'simple',"              \
    "'positive':['p',0],'negative':['n',0],'latent_image':['" latent "',0],'start_at_step':" from  \
    ",'end_at_step':" to ",'return_with_leftover_noise':'" left "'}},"

static void a_hooked_pair_draws_as_the_patched_model(void **state)
{
    world_run(*state, WORLD_BASE, HOOK("h", "0.8"), ON("cc", "h"), LORA("l", "0.8"),
              SAMPLE("1", "m", "['cc',0]", "['cc',1]", "3", "2"),
              SAMPLE("2", "l", "['p',0]", "['n',0]", "3", "2"),
              SAMPLE("3", "m", "['p',0]", "['n',0]", "3", "2"), WORLD_CAPTURE("x", "['1',0]"),
              WORLD_CAPTURE("y", "['2',0]"), WORLD_CAPTURE("z", "['3',0]"));
    world_assert_same(world_latent("x"), world_latent("y"));
    assert_true(world_distance(world_latent("x"), world_latent("z")) > 1e-3);
}

// One Euler step to 0 is x0: negative + 2 (positive - negative), each on its own network.
static void only_the_hooked_prompt_is_patched(void **state)
{
    world_run(*state, WORLD_BASE, HOOK("h", "0.8"), ON("cc", "h"), LORA("l", "0.8"),
              SAMPLE("1", "m", "['cc',0]", "['n',0]", "1", "2"),
              SAMPLE("2", "l", "['p',0]", "['n',0]", "1", "1"),
              SAMPLE("3", "m", "['n',0]", "['p',0]", "1", "1"), WORLD_CAPTURE("x", "['1',0]"),
              WORLD_CAPTURE("y", "['2',0]"), WORLD_CAPTURE("z", "['3',0]"));
    const float *x = world_floats(world_latent("x")), *p = world_floats(world_latent("y")),
                *n = world_floats(world_latent("z"));
    for (int64_t i = 0; i < at_tensor_count(world_latent("x")); i++) {
        float want = n[i] + 2 * (p[i] - n[i]);
        assert_true(fabsf(x[i] - want) <= 1e-4f * (1 + fabsf(want)));
    }
}

#define KEY(id, strength, start, previous)                                                         \
    "'" id "':{'class_type':'CreateHookKeyframe','inputs':{'strength_mult':" strength              \
    ",'start_percent':" start previous "}},"

// Full strength for the first half of the way, none after: two networks, one behind the other.
static void keyframes_change_the_network_on_the_way(void **state)
{
    world_run(
        *state, WORLD_BASE, HOOK("h", "0.8"), KEY("k1", "1", "0", ""),
        KEY("k2", "0", "0.45", ",'prev_hook_kf':['k1',0]"),
        "'s':{'class_type':'SetHookKeyframes','inputs':{'hooks':['h',0],'hook_kf':['k2',0]}},",
        ON("cc", "s"), LORA("l", "0.8"), SAMPLE("1", "m", "['cc',0]", "['cc',1]", "4", "2"),
        PART("a", "l", "e", "enable", "0", "2", "enable"),
        PART("b", "m", "a", "disable", "2", "4", "disable"), WORLD_CAPTURE("x", "['1',0]"),
        WORLD_CAPTURE("y", "['b',0]"));
    assert_true(world_distance(world_latent("x"), world_latent("y")) < 1e-5);
}

static const at_obj_lora_hooks *hooks_of(const char *id)
{
    return (const at_obj_lora_hooks *)world_object(id, "HOOKS");
}

static void lists_of_hooks_and_keyframes_are_comfyuis(void **state)
{
    world_run(*state, HOOK("a", "0.5"),
              "'b':{'class_type':'CreateHookLora','inputs':{'lora_name':'one.safetensors',"
              "'strength_model':0.25,'strength_clip':-1,'prev_hooks':['a',0]}}",
              "'z':{'class_type':'CreateHookLora','inputs':{'lora_name':'one.safetensors',"
              "'strength_model':0,'strength_clip':0}}",
              "'d':{'class_type':'CombineHooks4','inputs':{'hooks_A':['b',0],'hooks_C':['a',0]}}",
              "'i':{'class_type':'CreateHookKeyframesInterpolated','inputs':{'strength_start':1,"
              "'strength_end':0.2,'interpolation':'ease_out','start_percent':0.1,'end_percent':0.9,"
              "'keyframes_count':3,'print_keyframes':false}}",
              "'j':{'class_type':'CreateHookKeyframe','inputs':{'strength_mult':5,'start_percent':"
              "0.5,'prev_hook_kf':['i',0]}}",
              WORLD_CAPTURE("1", "['b',0]"), WORLD_CAPTURE("2", "['d',0]"),
              WORLD_CAPTURE("3", "['z',0]"), WORLD_CAPTURE("4", "['j',0]"));
    assert_int_equal(hooks_of("1")->count, 2);
    assert_true(hooks_of("1")->items[1].adapter->strength_clip == -1);
    assert_int_equal(hooks_of("2")->count, 2); // a is in b already
    assert_int_equal(hooks_of("3")->count, 0);
    const at_obj_keyframes *k = (const at_obj_keyframes *)world_object("4", "HOOK_KEYFRAMES");
    static const float strength[] = {1, 0.4f, 5, 0.2f}, start[] = {0.1f, 0.5f, 0.5f, 0.9f};
    static const int sure[] = {1, 0, 1, 0};
    assert_int_equal(k->count, 4);
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(k->items[i].strength - (double)strength[i]) < 1e-6);
        assert_true(fabs(k->items[i].start - (double)start[i]) < 1e-6);
        assert_int_equal(k->items[i].guarantee, sure[i]);
    }
}

static void a_clip_with_hooks_is_patched_and_hands_them_on(void **state)
{
    world_run(*state, WORLD_MODELS,
              "'h':{'class_type':'CreateHookLora','inputs':{'lora_name':'one.safetensors',"
              "'strength_model':1,'strength_clip':0.7}}",
              "'s':{'class_type':'SetClipHooks','inputs':{'clip':['c',0],'apply_to_conds':true,"
              "'schedule_clip':false,'hooks':['h',0]}}",
              "'o':{'class_type':'SetClipHooks','inputs':{'clip':['c',0],'apply_to_conds':false,"
              "'schedule_clip':false,'hooks':['h',0]}}",
              "'l':{'class_type':'LoraLoader','inputs':{'model':['m',0],'clip':['c',0],'lora_name':"
              "'one.safetensors','strength_model':0,'strength_clip':0.7}}",
              "'a':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['s',0]}}",
              "'b':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['l',1]}}",
              "'d':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['o',0]}}",
              WORLD_CAPTURE("1", "['a',0]"), WORLD_CAPTURE("2", "['b',0]"),
              WORLD_CAPTURE("3", "['h',0]"), WORLD_CAPTURE("4", "['d',0]"));
    const at_cond *a = world_cond("1")->items, *b = world_cond("2")->items;
    world_assert_same(a->pooled, b->pooled);
    assert_ptr_equal(a->extra[AT_COND_HOOKS], hooks_of("3"));
    assert_null(b->extra[AT_COND_HOOKS]);
    assert_null(world_cond("4")->items->extra[AT_COND_HOOKS]);
    world_assert_same(world_cond("4")->items->pooled, b->pooled);
}

#define T5(id, padding, length)                                                                    \
    "'" id "c':{'class_type':'T5TokenizerOptions','inputs':{'clip':['c',0],'min_padding':" padding \
    ",'min_length':" length "}},'" id "':{'class_type':'CLIPTextEncode','inputs':{'text':"         \
    "'a red circle','clip':['" id "c',0]}},"
static void t5_prompts_have_the_length_that_is_asked(void **state)
{
    world_run(*state, WORLD_MODELS, T5("a", "0", "0"), T5("b", "5", "0"), T5("d", "5", "100"),
              WORLD_CAPTURE("1", "['a',0]"), WORLD_CAPTURE("2", "['b',0]"),
              WORLD_CAPTURE("3", "['d',0]"));
    int64_t bare = world_cond("1")->items->context->shape[1];
    assert_true(bare > 1 && bare < 30);
    assert_int_equal(world_cond("2")->items->context->shape[1], bare + 5);
    assert_int_equal(world_cond("3")->items->context->shape[1], 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hooked_pair_draws_as_the_patched_model),
        cmocka_unit_test(only_the_hooked_prompt_is_patched),
        cmocka_unit_test(keyframes_change_the_network_on_the_way),
        cmocka_unit_test(lists_of_hooks_and_keyframes_are_comfyuis),
        cmocka_unit_test(a_clip_with_hooks_is_patched_and_hands_them_on),
        cmocka_unit_test(t5_prompts_have_the_length_that_is_asked),
    };
    return cmocka_run_group_tests(tests, open_with_lora, world_close);
}
