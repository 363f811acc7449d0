// SPDX-License-Identifier: Apache-2.0
// hooks_test.c - LoRAs (files and whole checkpoints) that belong to prompts, against models that
// have them: same pictures.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "nodes/lora_hooks.h"
#include "weight/matrix.h"
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

// checkpoints/other.safetensors: tiny_full with other numbers in two layers, one of the denoiser
// and one of CLIP.
static void write_other(const world *w)
{
    at_store *s = NULL;
    assert_int_equal(at_store_open(world_path(w, "models/checkpoints/tiny_full.safetensors"), &s),
                     AT_OK);
    size_t n = at_store_count(s), changed = 0;
    at_st_out *rows = at_calloc(n, sizeof *rows);
    void *own[2] = {0};
    assert_non_null(rows);
    for (size_t i = 0; i < n; i++) {
        const at_weight *t = at_store_at(s, i);
        rows[i] = (at_st_out){.name = t->name, .dtype = t->dtype, .rank = t->rank, .data = t->data};
        memcpy(rows[i].shape, t->shape, sizeof rows[i].shape);
        if (!at_ends_with(t->name, LAYER) && !at_ends_with(t->name, "final_layer_norm.bias"))
            continue;
        assert_true(changed < 2);
        int64_t count = at_weight_elements(t);
        float *v = at_alloc((size_t)count * sizeof *v);
        void *bytes = own[changed++] = at_alloc(t->bytes);
        assert_true(v && bytes);
        at_weight_read_f32(t, 0, count, v);
        for (int64_t k = 0; k < count; k++)
            v[k] += 0.3f * sinf((float)k * 1.3f);
        assert_int_equal(at_matrix_store(v, count, t->dtype, bytes), AT_OK);
        at_free(v);
        rows[i].data = bytes;
    }
    assert_true(changed == 2);
    assert_int_equal(
        at_st_write(world_path(w, "models/checkpoints/other.safetensors"), rows, n, NULL, 0),
        AT_OK);
    at_free(own[0]);
    at_free(own[1]);
    at_free(rows);
    at_store_release(&s);
}

static int open_with_lora(void **state)
{
    int bad = world_open(state);
    if (bad) return bad;
    world_run(*state, WORLD_MODELS, WORLD_CAPTURE("x", "['m',0]"));
    write_lora(*state);
    write_other(*state);
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

// --- a whole checkpoint as a LoRA ----------------------------------------------------------------
#define AS_LORA(id, file, strength)                                                                \
    "'" id "':{'class_type':'CreateHookModelAsLora','inputs':{'ckpt_name':'" file                  \
    ".safetensors','strength_model':" strength ",'strength_clip':" strength "}},"
#define AS_LORA_MO(id, file, strength)                                                             \
    "'" id "':{'class_type':'CreateHookModelAsLoraModelOnly','inputs':{'ckpt_name':'" file         \
    ".safetensors','strength_model':" strength "}},"
#define CHECKPOINT(id, file)                                                                       \
    "'" id "':{'class_type':'CheckpointLoaderSimple','inputs':{'ckpt_name':'" file                 \
    ".safetensors'}},"
#define ON_CLIP(id, hooks)                                                                         \
    "'" id "c':{'class_type':'SetClipHooks','inputs':{'clip':['c',0],'apply_to_conds':false,"      \
    "'schedule_clip':false,'hooks':['" hooks "',0]}},'" id "':{'class_type':'CLIPTextEncode',"     \
    "'inputs':{'text':'a red circle','clip':['" id "c',0]}},"

// At strength 1 the other model draws; between, a mixture does.
static void a_checkpoint_is_a_lora_of_another(void **state)
{
    world_run(*state, WORLD_BASE, AS_LORA("h", "other", "1"), ON("cc", "h"),
              AS_LORA_MO("i", "other", "0.25"), ON("dd", "i"), CHECKPOINT("o", "other"),
              "'x':{'class_type':'ModelMergeSimple','inputs':{'model1':['m',0],'model2':['o',0],"
              "'ratio':0.75}},",
              SAMPLE("1", "m", "['cc',0]", "['cc',1]", "3", "2"),
              SAMPLE("2", "o", "['p',0]", "['n',0]", "3", "2"),
              SAMPLE("3", "m", "['dd',0]", "['dd',1]", "3", "2"),
              SAMPLE("4", "x", "['p',0]", "['n',0]", "3", "2"),
              SAMPLE("5", "m", "['p',0]", "['n',0]", "3", "2"), WORLD_CAPTURE("a", "['1',0]"),
              WORLD_CAPTURE("b", "['2',0]"), WORLD_CAPTURE("d", "['3',0]"),
              WORLD_CAPTURE("f", "['4',0]"), WORLD_CAPTURE("g", "['5',0]"));
    // W1 + (W2 - W1) against W2, and against a mixture: rounded once to the file's dtype, the same
    // here
    assert_true(world_distance(world_latent("a"), world_latent("b")) < 1e-5);
    assert_true(world_distance(world_latent("d"), world_latent("f")) < 1e-5);
    assert_true(world_distance(world_latent("a"), world_latent("g")) > 1e-3);
    assert_true(world_distance(world_latent("d"), world_latent("g")) > 1e-4);
}

static void a_checkpoints_text_encoder_changes_a_clip(void **state)
{
    world_run(*state, WORLD_MODELS, AS_LORA("h", "other", "1"), ON_CLIP("s", "h"),
              AS_LORA_MO("i", "other", "1"), ON_CLIP("t", "i"), CHECKPOINT("o", "other"),
              "'y':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':"
              "['o',1]}},'z':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle',"
              "'clip':['c',0]}}",
              WORLD_CAPTURE("1", "['s',0]"), WORLD_CAPTURE("2", "['y',0]"),
              WORLD_CAPTURE("3", "['t',0]"), WORLD_CAPTURE("4", "['z',0]"));
    const at_tensor *plain = world_cond("4")->items->pooled;
    assert_true(world_distance(world_cond("1")->items->pooled, world_cond("2")->items->pooled) <
                1e-5);
    assert_true(world_distance(world_cond("1")->items->pooled, plain) > 1e-3);
    world_assert_same(world_cond("3")->items->pooled, plain);
}

static void checkpoints_that_do_not_fit_are_refused(void **state)
{
    world *w = *state;
    at_status st = world_try(w, WORLD_MODELS, AS_LORA("h", "tiny_model_only", "1"),
                             ON_CLIP("s", "h"), WORLD_CAPTURE("1", "['s',0]"));
    assert_int_equal(st, AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "no text encoder"));
    st = world_try(
        w, CHECKPOINT("m", "tiny_sd15"),
        "'p':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['m',1]}},"
        "'n':{'class_type':'CLIPTextEncode','inputs':{'text':'','clip':['m',1]}},"
        "'e':{'class_type':'EmptyLatentImage','inputs':{'width':64,'height':64,'batch_size':1}},",
        AS_LORA_MO("h", "tiny_sdxl", "1"), ON("cc", "h"),
        SAMPLE("1", "m", "['cc',0]", "['cc',1]", "1", "2"), WORLD_CAPTURE("x", "['1',0]"));
    assert_int_equal(st, AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "not of one kind"));
}

#define FLOATS(value, previous)                                                                    \
    "'f':{'class_type':'CreateHookKeyframesFromFloats','inputs':{'floats_strength':" value         \
    ",'start_percent':0.1,'end_percent':0.9,'print_keyframes':false" previous "}},"

// Percents are torch.linspace(0.1, 0.9, n) in f32.
static void floats_become_keyframes(void **state)
{
    world *w = *state;
    world_give("list", (at_value){.kind = AT_VAL_JSON, .s = at_strdup("[1, 0.25, -3]")});
    world_give("none", (at_value){.kind = AT_VAL_JSON, .s = at_strdup("[]")});
    world_give("text", (at_value){.kind = AT_VAL_JSON, .s = at_strdup("[1, \"2\"]")});
    static const struct {
        const char *nodes;
        size_t count;
        double strength[4];
        float start[4];
        int sure[4];
    } cases[] = {
        {FLOATS("0.5", ""), 1, {0.5}, {0.1f}, {1}},
        {"'g':{'class_type':'Give','inputs':{'key':'list'}}," FLOATS("['g',0]", ""),
         3,
         {1, 0.25, -3},
         {0.1f, 0.5f, 0.9f},
         {1, 0, 0}},
        {"'g':{'class_type':'Give','inputs':{'key':'list'}}," KEY("k", "2", "0.5", "")
             FLOATS("['g',0]", ",'prev_hook_kf':['k',0]"),
         4,
         {1, 2, 0.25, -3},
         {0.1f, 0.5f, 0.5f, 0.9f},
         {1, 1, 0, 0}},
        {"'g':{'class_type':'Give','inputs':{'key':'none'}}," FLOATS("['g',0]", ""),
         0,
         {0},
         {0},
         {0}},
    };
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        world_run(w, cases[i].nodes, WORLD_CAPTURE("1", "['f',0]"));
        const at_obj_keyframes *k = (const at_obj_keyframes *)world_object("1", "HOOK_KEYFRAMES");
        assert_int_equal(k->count, cases[i].count);
        for (size_t j = 0; j < k->count; j++) {
            assert_true(k->items[j].strength == cases[i].strength[j]);
            assert_true(fabs(k->items[j].start - (double)cases[i].start[j]) < 1e-7);
            assert_int_equal(k->items[j].guarantee, cases[i].sure[j]);
        }
    }
    assert_true(world_try(w, FLOATS("-1.5", ""), WORLD_CAPTURE("1", "['f',0]")) != AT_OK);
    assert_non_null(strstr(w->result.node_errors, "Value -1.5 smaller than min of -1"));
    assert_int_equal(world_try(w,
                               "'g':{'class_type':'Give','inputs':{'key':'text'}}," //
                               FLOATS("['g',0]", ""),
                               WORLD_CAPTURE("1", "['f',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "must be a number or a list"));
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
        cmocka_unit_test(a_checkpoint_is_a_lora_of_another),
        cmocka_unit_test(a_checkpoints_text_encoder_changes_a_clip),
        cmocka_unit_test(checkpoints_that_do_not_fit_are_refused),
        cmocka_unit_test(floats_become_keyframes),
        cmocka_unit_test(t5_prompts_have_the_length_that_is_asked),
    };
    return cmocka_run_group_tests(tests, open_with_lora, world_close);
}
