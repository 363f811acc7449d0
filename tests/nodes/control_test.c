// SPDX-License-Identifier: Apache-2.0
// control_test.c - ControlNets on conditionings and in sampling runs.
// Numbers named "ComfyUI's" are get_control's of ComfyUI 0.3.64 on the golden T2I adapters.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "nodes/control.h"
#include "sample/sigmas.h"

#define LOAD(id, name)                                                                             \
    "'" id "':{'class_type':'ControlNetLoader','inputs':{'control_net_name':'" name "'}},"
#define GIVE(id) "'" id "':{'class_type':'Give','inputs':{'key':'" id "'}},"
#define APPLY(id, from, net, image, strength, start, end)                                          \
    "'" id "':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['" from                \
    "',0],'negative':['" from "',1],'control_net':['" net "',0],'image':['" image                  \
    "',0],'strength':" #strength ",'start_percent':" #start ",'end_percent':" #end "}},"

// A golden case's model as models/KIND/NAME.
static void install(const world *w, const char *kind, const char *from, const char *name)
{
    char *bytes = NULL;
    size_t size;
    at_atomic_file *f = NULL;
    char source[512];
    snprintf(source, sizeof source, AT_SOURCE_DIR "/tests/golden/%s/model.safetensors", from);
    assert_int_equal(at_file_read(source, 8u << 20, &bytes, &size), AT_OK);
    assert_int_equal(at_make_dirs(world_path(w, "models/%s", kind)), AT_OK);
    assert_int_equal(at_atomic_open(world_path(w, "models/%s/%s", kind, name), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, bytes, size), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    at_free(bytes);
}

static int open_world(void **state)
{
    int failed = world_open(state);
    if (failed) return failed;
    install(*state, "controlnet", "control_t2i", "grey.safetensors");
    install(*state, "controlnet", "control_t2i_diffusers", "colour.safetensors");
    install(*state, "controlnet", "control_t2i_light", "light.safetensors");
    install(*state, "controlnet", "control_sd15", "canny.safetensors");
    install(*state, "controlnet", "control_sd15", "canny_shuffle.safetensors");
    install(*state, "controlnet", "control_flux_instantx", "inpaint.safetensors");
    install(*state, "controlnet", "control_flux_union", "union.safetensors");
    return 0;
}

// Pixel i is (7 i mod 23) / 22.
static at_tensor *picture(int64_t b, int64_t h, int64_t w, int64_t c)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){b, h, w, c}, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < b * h * w * c; i++)
        p[i] = (float)((7 * i) % 23) / 22.0f;
    return t;
}

static void give_picture(const char *key, int64_t b, int64_t h, int64_t w)
{
    world_give(key, at_value_object(at_obj_image_new(picture(b, h, w, 3))));
}

// A list of `n` entries with a text [1, 2, 4] each.
static void give_list(const char *key, size_t n)
{
    at_object *o = at_obj_cond_new(n);
    for (size_t i = 0; i < n; i++) {
        at_tensor *t = NULL;
        assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){1, 2, 4}, &t),
                         AT_OK);
        memset(at_tensor_data(t), 0, at_tensor_bytes(t));
        ((at_obj_cond *)o)->items[i].context = t;
    }
    world_give(key, at_value_object(o));
}

static const at_obj_control *control_of(const char *id, size_t i)
{
    return (const at_obj_control *)world_cond(id)->items[i].control;
}

// --- objects -----------------------------------------------------------------------------------
#define PAIR                                                                                       \
    "'pair':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['p',0],"                 \
    "'negative':['n',0],'control_net':['net',0],'image':['i',0],'strength':0.5,"                   \
    "'start_percent':0.25,'end_percent':0.75}},"

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

// --- residuals ---------------------------------------------------------------------------------
// What a run asks for: latents [b, 4, h, w] of zeros, a text [b, 5, 24].
typedef struct asking {
    at_ops *o;
    at_model *model;
    at_control_run *run;
    at_model_in in;
    float timestep[8];
} asking;

static void ask_open(asking *a, int64_t b, int64_t h, int64_t w)
{
    at_store *s = NULL;
    *a = (asking){0};
    assert_int_equal(at_store_open(AT_SOURCE_DIR "/tests/golden/unet_sd15/model.safetensors", &s),
                     AT_OK);
    assert_int_equal(at_model_load(s, "unet", &a->model), AT_OK);
    at_store_release(&s);
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &a->o), AT_OK);
    assert_int_equal(at_control_run_new(a->model, &a->run), AT_OK);
    at_tensor *text = at_affine(a->o, at_zeros(a->o, AT_F32, 3, (int64_t[]){b, 5, 24}), 1, 0.5f);
    a->in = (at_model_in){.x = at_zeros(a->o, AT_F32, 4, (int64_t[]){b, 4, h, w}),
                          .context = text,
                          .timestep = a->timestep,
                          .chunks = 1};
}
static void ask_close(asking *a)
{
    at_control_run_free(a->run);
    at_ops_free(a->o);
    at_model_release(&a->model);
}

static bool ask(asking *a, const at_obj_control *c, float sigma, int chunks, at_control *out)
{
    a->in.sigma = sigma;
    a->in.chunks = chunks;
    bool any = at_control_run_residuals(a->run, a->o, c, &a->in, NULL, out);
    if (at_ops_status(a->o) != AT_OK) fail_msg("%s", at_error_text());
    return any;
}

static double mean_of(const at_tensor *t, int64_t row)
{
    const float *p = world_floats(t);
    int64_t n = at_tensor_count(t) / t->shape[0];
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += p[row * n + i];
    return sum / (double)n;
}

// ComfyUI's chain: the grey adapter (0.5) on one picture, then the coloured one (0.8, from 20 to 60
// percent) on two; a batch of four in two parts. Means of both rows and the last row's first pixel.
static const struct {
    int place;
    double mean[2], first[3];
} chained[] = {{2, {0.2109189, 0.2085424}, {-0.08346483, 0.4563743, -0.1898157}},
               {5, {0.008547217, -0.01324095}, {-1.168501, -0.3039051, 0.1309896}},
               {8, {-0.08817811, -0.0971766}, {1.561818, -1.538257, -0.3349043}},
               {11, {0.0437996, 0.02123484}, {0.7653176, -3.465067, -1.010864}}},
  alone[] = {{2, {0.189722}, {0.01977502, -0.144831, 0.009625211}},
             {5, {0.05421636}, {-0.540561, -0.4224271, 0.01617329}},
             {8, {0.1009306}, {0.2019531, 0.04924658, 0.73833}},
             {11, {0.0983578}, {0.5670571, -0.2482266, -0.09123845}}};

static void a_chain_adds_up_as_comfyuis(void **state)
{
    world *w = *state;
    asking a;
    at_control out;
    give_list("p", 1);
    give_picture("i", 1, 30, 50);
    give_picture("j", 2, 44, 20);
    world_run(w, GIVE("p"), GIVE("i"), GIVE("j"), LOAD("grey", "grey.safetensors"),
              LOAD("colour", "colour.safetensors"),
              "'one':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['grey',0],'image':['i',0],'strength':0.5}},"
              "'two':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['one',0],"
              "'negative':['p',0],'control_net':['colour',0],'image':['j',0],'strength':0.8,"
              "'start_percent':0.2,'end_percent':0.6}},",
              WORLD_CAPTURE("x", "['two',0]"));
    ask_open(&a, 4, 5, 7);
    for (int again = 0; again < 2; again++) { // the second time from what is kept
        assert_true(ask(&a, control_of("x", 0), 3.0f, 2, &out));
        for (size_t i = 0; i < AT_COUNT(chained); i++) {
            const at_tensor *t = out.input[chained[i].place];
            int64_t last = at_tensor_count(t) / 4 * 3;
            assert_int_equal(t->shape[0], 4);
            for (int row = 0; row < 4; row++)
                assert_true(fabs(mean_of(t, row) - chained[i].mean[row % 2]) < 2e-6);
            for (int k = 0; k < 3; k++)
                assert_true(fabs(world_floats(t)[last + k] - chained[i].first[k]) < 1e-5);
        }
        assert_null(out.input[0]);
        // before its range the second is silent, the first goes on; its picture is one
        assert_true(ask(&a, control_of("x", 0), 14.0f, 2, &out));
        for (size_t i = 0; i < AT_COUNT(alone); i++) {
            const at_tensor *t = out.input[alone[i].place];
            assert_int_equal(t->shape[0], 1);
            assert_true(fabs(mean_of(t, 0) - alone[i].mean[0]) < 2e-6);
            for (int k = 0; k < 3; k++)
                assert_true(fabs(world_floats(t)[k] - alone[i].first[k]) < 1e-5);
        }
    }
    ask_close(&a);
}

static void outside_its_range_a_net_is_silent(void **state)
{
    world *w = *state;
    asking a;
    at_control out;
    give_list("p", 1);
    give_picture("i", 1, 16, 16);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "grey.safetensors"),
              "'n':{'class_type':'Give','inputs':{'key':'p'}},", PAIR,
              WORLD_CAPTURE("x", "['pair',0]"));
    ask_open(&a, 1, 2, 2);
    const at_model_sampling *ms = at_model_get_sampling(a.model);
    float from = (float)at_percent_to_sigma(ms, 0.25), to = (float)at_percent_to_sigma(ms, 0.75);
    assert_true(ask(&a, control_of("x", 0), from, 1, &out)); // both ends belong to it
    assert_true(ask(&a, control_of("x", 0), to, 1, &out));
    assert_false(ask(&a, control_of("x", 0), nextafterf(from, 99), 1, &out));
    assert_false(ask(&a, control_of("x", 0), nextafterf(to, 0), 1, &out));
    ask_close(&a);
}

static void a_shuffle_file_gives_the_mean_of_the_picture(void **state)
{
    world *w = *state;
    asking a;
    at_control plain, pooled;
    give_list("p", 1);
    give_picture("i", 1, 48, 40);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "canny.safetensors"),
              LOAD("shuffle", "canny_shuffle.safetensors"),
              "'s':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['shuffle',0],'image':['i',0],'strength':2}},"
              "'l':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['net',0],'image':['i',0],'strength':1}},",
              WORLD_CAPTURE("x", "['l',0]") ",", WORLD_CAPTURE("y", "['s',0]"));
    ask_open(&a, 2, 6, 5);
    a.timestep[0] = a.timestep[1] = 500;
    assert_true(ask(&a, control_of("x", 0), 3, 1, &plain));
    assert_true(ask(&a, control_of("y", 0), 3, 1, &pooled));
    const at_tensor *p = plain.skip[1], *q = pooled.skip[1];
    assert_int_equal(q->shape[1] * q->shape[2], 1);
    int64_t pixels = p->shape[1] * p->shape[2], n = p->shape[3];
    for (int64_t c = 0; c < n; c++) {
        double sum = 0;
        for (int64_t i = 0; i < pixels; i++)
            sum += world_floats(p)[i * n + c];
        assert_true(fabs(2 * sum / (double)pixels - world_floats(q)[c]) < 1e-5);
    }
    ask_close(&a);
}

static void what_cannot_be_is_said(void **state)
{
    world *w = *state;
    asking a;
    at_control out;
    give_list("p", 1);
    give_picture("i", 1, 16, 16);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "inpaint.safetensors"),
              LOAD("canny", "canny.safetensors"), APPLY("x", "q", "net", "i", 1, 0, 1),
              APPLY("y", "q", "canny", "i", 1, 0, 1),
              "'q':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['net',0],'image':['i',0],'strength':0,"
              "'start_percent':0,'end_percent':1}},",
              WORLD_CAPTURE("a", "['x',0]") ",", WORLD_CAPTURE("b", "['y',0]"));
    ask_open(&a, 1, 2, 2);
    assert_false(at_control_run_residuals(a.run, a.o, control_of("a", 0), &a.in, NULL, &out));
    assert_int_equal(at_ops_clear(a.o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "needs a VAE"));
    at_tensor *wide = at_zeros(a.o, AT_F32, 3, (int64_t[]){1, 5, 32});
    assert_false(at_control_run_residuals(a.run, a.o, control_of("b", 0), &a.in, wide, &out));
    assert_int_equal(at_ops_clear(a.o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "different families"));
    ask_close(&a);
    // a file that is no ControlNet, and a kind that is known and not built
    install(w, "controlnet", "clip_l", "text.safetensors");
    assert_int_equal(world_try(w, LOAD("net", "text.safetensors"), WORLD_CAPTURE("a", "['net',0]")),
                     AT_EFORMAT);
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
        cmocka_unit_test(a_chain_adds_up_as_comfyuis),
        cmocka_unit_test(outside_its_range_a_net_is_silent),
        cmocka_unit_test(a_shuffle_file_gives_the_mean_of_the_picture),
        cmocka_unit_test(what_cannot_be_is_said),
        cmocka_unit_test(pictures_are_steered),
    };
    return cmocka_run_group_tests(tests, open_world, world_close);
}
