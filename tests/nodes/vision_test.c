// SPDX-License-Identifier: Apache-2.0
// vision_test.c - picture encoders, style models, unCLIP and GLIGEN as nodes.
#include "control_kit.h"

#include <math.h>

#include "nodes/boxes.h"
#include "nodes/look.h"
#include "weight/safetensors.h"

static int open_world(void **state)
{
    int failed = world_open(state);
    if (failed) return failed;
    install(*state, "clip_vision", "clip_vision_h", "h.safetensors");
    install(*state, "style_models", "style_redux", "redux.safetensors");
    install(*state, "gligen", "gligen", "boxes.safetensors");
    return 0;
}

// A tensor of a golden case's file, on the host.
static at_tensor *golden(const char *file, const char *name)
{
    char path[512];
    at_store *s = NULL;
    at_tensor *t = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s.safetensors", file);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    const at_weight *w = at_store_find(s, name);
    assert_non_null(w);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, w->rank, w->shape, &t), AT_OK);
    at_weight_read_f32(w, 0, at_weight_elements(w), at_tensor_data(t));
    at_store_release(&s);
    return t;
}

static void assert_near(const at_tensor *got, at_tensor *want, double tolerance)
{
    assert_true(world_distance(got, want) < tolerance);
    at_tensor_release(&want);
}

// A list of one entry with a text [1, t, d] of ones.
static void give_text(const char *key, int64_t t, int64_t d)
{
    at_object *o = at_obj_cond_new(1);
    at_tensor *text = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){1, t, d}, &text), AT_OK);
    for (int64_t i = 0; i < t * d; i++)
        world_floats(text)[i] = 1.0f;
    ((at_obj_cond *)o)->items[0].context = text;
    world_give(key, at_value_object(o));
}

static void a_picture_is_encoded_as_the_golden_one(void **state)
{
    world *w = *state;
    world_give("i", at_value_object(at_obj_image_new(golden("clip_vision_h/inputs", "image"))));
    world_run(w, GIVE("i"),
              "'v':{'class_type':'CLIPVisionLoader','inputs':{'clip_name':'h.safetensors'}},"
              "'e':{'class_type':'CLIPVisionEncode','inputs':{'clip_vision':['v',0],"
              "'image':['i',0],'crop':'none'}},",
              WORLD_CAPTURE("x", "['e',0]"));
    const at_obj_seen *seen = (const at_obj_seen *)world_object("x", "CLIP_VISION_OUTPUT");
    assert_near(seen->last, golden("clip_vision_h/expected", "last"), 1e-4);
    assert_near(seen->penultimate, golden("clip_vision_h/expected", "penultimate"), 1e-4);
    assert_near(seen->embeds, golden("clip_vision_h/expected", "embeds"), 1e-4);
}

// A checkpoint of the small UNet and, if asked, a picture encoder under OpenCLIP's keys.
static void join_checkpoint(const world *w, const char *name, bool with_encoder)
{
    at_store *s[2] = {NULL};
    at_st_out rows[1024];
    size_t n = 0;
    assert_int_equal(
        at_store_open(world_path(w, "models/checkpoints/tiny_sd15.safetensors"), &s[0]), AT_OK);
    assert_int_equal(at_store_open(world_path(w, "models/clip_vision/h.safetensors"), &s[1]),
                     AT_OK);
    for (int k = 0; k < (with_encoder ? 2 : 1); k++)
        for (size_t i = 0; i < at_store_count(s[k]) && n < 1024; i++) {
            const at_weight *from = at_store_at(s[k], i);
            rows[n] = (at_st_out){
                .name = from->name, .dtype = from->dtype, .rank = from->rank, .data = from->data};
            memcpy(rows[n++].shape, from->shape, sizeof from->shape);
        }
    assert_int_equal(at_st_write(world_path(w, "models/checkpoints/%s", name), rows, n, NULL, 0),
                     AT_OK);
    at_store_release(&s[0]);
    at_store_release(&s[1]);
}

static void an_unclip_checkpoint_brings_its_encoder(void **state)
{
    world *w = *state;
    join_checkpoint(w, "unclip.safetensors", true);
    join_checkpoint(w, "blind.safetensors", false);
    world_give("i", at_value_object(at_obj_image_new(golden("clip_vision_h/inputs", "image"))));
    world_run(w, GIVE("i"),
              "'m':{'class_type':'unCLIPCheckpointLoader','inputs':{'ckpt_name':"
              "'unclip.safetensors'}},"
              "'e':{'class_type':'CLIPVisionEncode','inputs':{'clip_vision':['m',3],"
              "'image':['i',0],'crop':'none'}},",
              WORLD_CAPTURE("x", "['e',0]"));
    const at_obj_seen *seen = (const at_obj_seen *)world_object("x", "CLIP_VISION_OUTPUT");
    assert_near(seen->embeds, golden("clip_vision_h/expected", "embeds"), 1e-4);
    assert_int_equal(world_try(w, GIVE("i"),
                               "'m':{'class_type':'unCLIPCheckpointLoader','inputs':{'ckpt_name':"
                               "'blind.safetensors'}},"
                               "'e':{'class_type':'CLIPVisionEncode','inputs':{'clip_vision':"
                               "['m',3],'image':['i',0],'crop':'none'}},",
                               WORLD_CAPTURE("x", "['e',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "holds no picture encoder"));
}

static void style_tokens_stand_behind_every_text(void **state)
{
    world *w = *state;
    give_text("p", 3, 40);
    // two pictures with nine tokens each: 18 more
    world_give("c",
               at_value_object(at_obj_seen_new(golden("style_redux/inputs", "seen"), NULL, NULL)));
    world_run(w, GIVE("p"), GIVE("c"),
              "'s':{'class_type':'StyleModelLoader','inputs':{'style_model_name':"
              "'redux.safetensors'}},"
              "'e':{'class_type':'StyleModelApply','inputs':{'conditioning':['p',0],"
              "'style_model':['s',0],'clip_vision_output':['c',0],'strength':0.5,"
              "'strength_type':'multiply'}},",
              WORLD_CAPTURE("x", "['e',0]"));
    const at_tensor *t = world_cond("x")->items[0].context;
    at_tensor *want = golden("style_redux/expected", "tokens");
    assert_int_equal(t->shape[1], 3 + 2 * 9);
    assert_int_equal(t->shape[2], 40);
    for (int64_t i = 0; i < 3 * 40; i++)
        assert_true(world_floats(t)[i] == 1.0f);
    for (int64_t i = 0; i < 18 * 40; i++)
        assert_true(fabsf(world_floats(t)[3 * 40 + i] - 0.5f * world_floats(want)[i]) < 1e-5f);
    at_tensor_release(&want);
}

#define STYLE(id, from, strength, type)                                                            \
    "'" id "':{'class_type':'StyleModelApply','inputs':{'conditioning':['" from                    \
    "',0],'style_model':['s',0],'clip_vision_output':['c',0],'strength':" #strength                \
    ",'strength_type':'" type "'}},"

static void a_biased_style_is_favoured_by_what_was_there_before(void **state)
{
    world *w = *state;
    give_text("p", 3, 40);
    world_give("c",
               at_value_object(at_obj_seen_new(golden("style_redux/inputs", "seen"), NULL, NULL)));
    world_run(w, GIVE("p"), GIVE("c"),
              "'s':{'class_type':'StyleModelLoader','inputs':{'style_model_name':"
              "'redux.safetensors'}},",
              STYLE("a", "p", 0.5, "attn_bias"), STYLE("b", "a", 2, "multiply"),
              STYLE("c1", "b", 3, "attn_bias"), STYLE("d", "p", 1, "attn_bias"),
              WORLD_CAPTURE("x", "['c1',0]") ",", WORLD_CAPTURE("y", "['d',0]"));
    const at_tensor *t = world_cond("x")->items[0].attn_bias;
    // text 0..2, styles at 3, 21 and 39, the picture last; 0.5, 1 and 3 as f16 logarithms
    const float by[] = {-0.693359375f, 0.0f, 1.0986328125f};
    int64_t n = 3 + 3 * 18 + 1;
    assert_int_equal(t->shape[1], n);
    assert_int_equal(t->shape[2], n);
    for (int64_t q = 0; q < n; q++)
        for (int64_t k = 0; k < n; k++) {
            int64_t style = k < 3 || k == n - 1 ? -1 : (k - 3) / 18;
            bool before = q < 3 + 18 * style || q == n - 1;
            assert_true(world_floats(t)[q * n + k] == (style >= 0 && before ? by[style] : 0.0f));
        }
    assert_null(world_cond("y")->items[0].attn_bias); // nothing to favour
}

// --- unCLIP ------------------------------------------------------------------------------------
static at_object *seen_of(int a, int m, float by)
{
    at_tensor *e = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 2, (int64_t[]){1, 16}, &e), AT_OK);
    for (int i = 0; i < 16; i++)
        world_floats(e)[i] = (float)((a * i) % m) / by - 1.0f;
    return at_obj_seen_new(NULL, NULL, e);
}

// ComfyUI 0.3.64's unclip_adm with a width of 16, seed 42 - 10 and a merge of 0.05.
static const float one_picture[] = {
    -1.122386f,  -0.2071915f, 0.6985972f, -0.9069982f, 0.2043139f,  0.5881332f,   -0.3539418f,
    0.3802887f,  -0.8294374f, 0.1948866f, 0.4461887f,  -0.3880245f, 0.1213651f,   -1.001132f,
    -0.4792027f, 0.4387819f,  0.1686918f, -0.608472f,  0.6938418f,  -0.0361822f,  -0.5608005f,
    0.4924086f,  0.6782387f,  0.6978136f, -0.6793696f, -0.3460662f, -0.09264755f, 0.6990643f,
    0.4189305f,  0.4975277f,  0.1731828f, 0.05528224f};
static const float two_pictures[] = {
    -0.8227035f,  -0.07652086f, 0.740893f,   -1.12734f,   0.5660899f,  0.5359517f,   -0.4594906f,
    -0.02863823f, -0.765561f,   0.217895f,   0.2748029f,  0.1281824f,  0.3777693f,   -1.238575f,
    -0.7218273f,  0.6945264f,   0.9649661f,  -0.9946564f, 0.2836617f,  -0.01034222f, 0.8775826f,
    0.987526f,    0.9987503f,   0.999875f,   -0.2623748f, -0.1032405f, -0.9589244f,  0.9999465f,
    0.4794255f,   0.1574558f,   0.04997917f, 0.01581073f};

static void assert_vector(const at_object *unclip, const float *want)
{
    at_ops *o = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    at_tensor *v = at_unclip_vector(o, unclip, 0.05, 42);
    assert_int_equal(at_ops_status(o), AT_OK);
    assert_int_equal(v->shape[1], 32);
    for (int i = 0; i < 32; i++)
        assert_true(fabsf(world_floats(v)[i] - want[i]) < 3e-6f);
    at_ops_free(o);
}

static void unclip_vectors_have_comfyuis_noise(void **state)
{
    world *w = *state;
    give_text("p", 2, 4);
    world_give("a", at_value_object(seen_of(5, 13, 6)));
    world_give("b", at_value_object(seen_of(3, 11, 5)));
    world_run(w, GIVE("p"), GIVE("a"), GIVE("b"),
              "'x':{'class_type':'unCLIPConditioning','inputs':{'conditioning':['p',0],"
              "'clip_vision_output':['a',0],'strength':0.7,'noise_augmentation':0.25}},"
              "'y':{'class_type':'unCLIPConditioning','inputs':{'conditioning':['x',0],"
              "'clip_vision_output':['b',0],'strength':-0.4,'noise_augmentation':0}},"
              "'z':{'class_type':'unCLIPConditioning','inputs':{'conditioning':['y',0],"
              "'clip_vision_output':['b',0],'strength':0,'noise_augmentation':0}},",
              WORLD_CAPTURE("one", "['x',0]") ",", WORLD_CAPTURE("two", "['z',0]"));
    assert_vector(world_cond("one")->items[0].extra[AT_COND_UNCLIP], one_picture);
    assert_vector(world_cond("two")->items[0].extra[AT_COND_UNCLIP], two_pictures);
}

// --- GLIGEN ------------------------------------------------------------------------------------
#define SD                                                                                         \
    "'m':{'class_type':'CheckpointLoaderSimple','inputs':{'ckpt_name':'tiny_sd15.safetensors'}},"  \
    "'t':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors',"              \
    "'type':'stable_diffusion'}},"                                                                 \
    "'p':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['t',0]}},"         \
    "'g':{'class_type':'GLIGENLoader','inputs':{'gligen_name':'boxes.safetensors'}},"
#define BOX(id, from, width, height, x, y)                                                         \
    "'" id "':{'class_type':'GLIGENTextBoxApply','inputs':{'conditioning_to':['" from              \
    "',0],'clip':['t',0],'gligen_textbox_model':['g',0],'text':'a red circle','width':" #width     \
    ",'height':" #height ",'x':" #x ",'y':" #y "}},"

static void boxes_are_kept_in_latent_cells(void **state)
{
    world *w = *state;
    world_run(w, SD, BOX("a", "p", 24, 40, 8, 16), BOX("b", "a", 64, 64, 0, 0),
              WORLD_CAPTURE("x", "['b',0]") ",", WORLD_CAPTURE("y", "['p',0]"));
    const at_obj_box *b = (const at_obj_box *)world_cond("x")->items[0].extra[AT_COND_GLIGEN];
    assert_true(b->w == 8 && b->h == 8 && b->x == 0 && b->y == 0);
    b = b->previous;
    assert_true(b->w == 3 && b->h == 5 && b->x == 1 && b->y == 2 && !b->previous);
    world_assert_same(b->text, world_cond("y")->items[0].pooled); // no projection in this CLIP
}

static void a_box_whose_text_does_not_fit_is_refused(void **state)
{
    world *w = *state;
    at_status st =
        world_try(w, SD, BOX("a", "p", 24, 40, 8, 16),
                  "'e':{'class_type':'EmptyLatentImage','inputs':{'width':48,'height':40,"
                  "'batch_size':1}},"
                  "'k':{'class_type':'KSampler','inputs':{'model':['m',0],'positive':['a',0],"
                  "'negative':['p',0],'latent_image':['e',0],'seed':7,'steps':2,'cfg':4,"
                  "'sampler_name':'euler','scheduler':'normal','denoise':1}},",
                  WORLD_CAPTURE("x", "['k',0]"));
    assert_int_equal(st, AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "the box's text is 128 wide, this model takes 768"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_is_encoded_as_the_golden_one),
        cmocka_unit_test(an_unclip_checkpoint_brings_its_encoder),
        cmocka_unit_test(style_tokens_stand_behind_every_text),
        cmocka_unit_test(a_biased_style_is_favoured_by_what_was_there_before),
        cmocka_unit_test(unclip_vectors_have_comfyuis_noise),
        cmocka_unit_test(boxes_are_kept_in_latent_cells),
        cmocka_unit_test(a_box_whose_text_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, open_world, world_close);
}
