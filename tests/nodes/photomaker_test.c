// SPDX-License-Identifier: Apache-2.0
// photomaker_test.c - PhotoMakerLoader and PhotoMakerEncode against what ComfyUI's own made of the
// same prompts, pictures and small models.
#include "control_kit.h"

#include <math.h>

#include "weight/safetensors.h"

static int open_world(void **state)
{
    int failed = world_open(state);
    if (!failed) install(*state, "photomaker", "photomaker", "person.safetensors");
    return failed;
}

// As in encode_test.c: shape (zeros behind), and the sums of value * sin(0.7 i + 0.2) and
// value * cos(0.13 i), each over the root of the count.
typedef struct digest {
    int64_t shape[3];
    double a, b;
} digest;
typedef struct photomaker_case {
    const char *text;
    int place;
    digest context, token, pooled;
} photomaker_case;
#include "photomaker_cases.h"

static const double tolerance = 2e-4;

static void assert_sums(const photomaker_case *c, const char *what, const float *v, int64_t n,
                        const digest *want)
{
    double a = 0, b = 0;
    for (int64_t i = 0; i < n; i++) {
        a += (double)v[i] * sin((double)i * 0.7 + 0.2);
        b += (double)v[i] * cos((double)i * 0.13);
    }
    a /= sqrt((double)n);
    b /= sqrt((double)n);
    if (!(fabs(a - want->a) < tolerance && fabs(b - want->b) < tolerance))
        fail_msg("'%s', %s: %.6f %.6f, not %.6f %.6f", c->text, what, a, b, want->a, want->b);
}

#define CLIPS                                                                                      \
    "'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetensors',"         \
    "'clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},"
#define PERSON                                                                                     \
    "'p':{'class_type':'PhotoMakerLoader','inputs':{'photomaker_model_name':"                      \
    "'person.safetensors'}},"
#define ENCODE                                                                                     \
    "'e':{'class_type':'PhotoMakerEncode','inputs':{'photomaker':['p',0],'image':['i',0],"         \
    "'clip':['c',0],'text':'%s'}},"

static void prompts_become_what_comfyui_makes_of_them(void **state)
{
    world *w = *state;
    for (size_t k = 0; k < sizeof photomaker_cases / sizeof *photomaker_cases; k++) {
        const photomaker_case *c = &photomaker_cases[k];
        give_picture("i", 2, 30, 41);
        world_run(w, GIVE("i"), CLIPS, PERSON, world_nodes(ENCODE, c->text),
                  WORLD_CAPTURE("x", "['e',0]"));
        const at_obj_cond *list = world_cond("x");
        assert_int_equal(list->count, 1);
        const at_tensor *t = list->items[0].context, *pooled = list->items[0].pooled;
        for (int i = 0; i < 3; i++)
            assert_int_equal(t->shape[i], c->context.shape[i]);
        assert_int_equal(pooled->shape[1], c->pooled.shape[1]);
        int64_t d = t->shape[2];
        assert_sums(c, "context", world_floats(t), at_tensor_count(t), &c->context);
        assert_sums(c, "token", world_floats(t) + c->place * d, d, &c->token);
        assert_sums(c, "pooled", world_floats(pooled), pooled->shape[1], &c->pooled);
    }
}

static void only_the_first_picture_and_only_one_token_matter(void **state)
{
    world *w = *state;
    give_picture("i", 2, 30, 41);
    give_picture("j", 1, 30, 41);
    world_run(w, GIVE("i"), GIVE("j"), CLIPS, PERSON, world_nodes(ENCODE, "a red photomaker"),
              "'f':{'class_type':'PhotoMakerEncode','inputs':{'photomaker':['p',0],"
              "'image':['j',0],'clip':['c',0],'text':'a red photomaker'}},"
              "'t':{'class_type':'CLIPTextEncode','inputs':{'clip':['c',0],"
              "'text':'a red photomaker'}},",
              WORLD_CAPTURE("x", "['e',0]") ",", WORLD_CAPTURE("y", "['f',0]") ",",
              WORLD_CAPTURE("z", "['t',0]"));
    const at_tensor *x = world_cond("x")->items[0].context;
    const at_tensor *z = world_cond("z")->items[0].context;
    world_assert_same(x, world_cond("y")->items[0].context);
    int64_t d = x->shape[2];
    for (int64_t i = 0; i < at_tensor_count(x); i++)
        if (i / d != 2) assert_true(world_floats(x)[i] == world_floats(z)[i]);
    double moved = 0;
    for (int64_t i = 2 * d; i < 3 * d; i++)
        moved += fabs((double)world_floats(x)[i] - (double)world_floats(z)[i]);
    assert_true(moved > 1);
}

// Hooks of a CLIP do not come with the text, as they would with CLIPTextEncode's.
static void the_text_of_a_hooked_clip_has_no_hooks(void **state)
{
    world *w = *state;
    give_picture("i", 1, 30, 41);
    world_run(w, GIVE("i"), CLIPS, PERSON,
              "'h':{'class_type':'SetClipHooks','inputs':{'clip':['c',0],'apply_to_conds':true,"
              "'schedule_clip':false,'hooks':['k',0]}},"
              "'k':{'class_type':'CreateHookModelAsLora','inputs':{'ckpt_name':"
              "'tiny_sdxl.safetensors','strength_model':1,'strength_clip':0}},"
              "'e':{'class_type':'PhotoMakerEncode','inputs':{'photomaker':['p',0],"
              "'image':['i',0],'clip':['h',0],'text':'a photomaker'}},"
              "'t':{'class_type':'CLIPTextEncode','inputs':{'clip':['h',0],'text':'a'}},",
              WORLD_CAPTURE("x", "['e',0]") ",", WORLD_CAPTURE("y", "['t',0]"));
    assert_null(world_cond("x")->items[0].extra[AT_COND_HOOKS]);
    assert_non_null(world_cond("y")->items[0].extra[AT_COND_HOOKS]);
}

// --- refusals ----------------------------------------------------------------------------------
static void assert_refused(at_status st, at_status want, const char *words)
{
    assert_int_equal(st, want);
    if (!strstr(at_error_text(), words)) fail_msg("'%s' lacks '%s'", at_error_text(), words);
}

static void a_prompt_that_does_not_fit_is_refused(void **state)
{
    world *w = *state;
    char text[512] = "photomaker";
    for (int i = 0; i < 90; i++)
        strcat(text, " red");
    give_picture("i", 1, 30, 41);
    assert_refused(world_try(w, GIVE("i"), CLIPS, PERSON, world_nodes(ENCODE, text),
                             WORLD_CAPTURE("x", "['e',0]")),
                   AT_EINVAL, "tokens, 77 are wanted");
    assert_refused(world_try(w, GIVE("i"),
                             "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':"
                             "'tiny_clip_l.safetensors','type':'stable_diffusion'}},",
                             PERSON, world_nodes(ENCODE, "a photomaker"),
                             WORLD_CAPTURE("x", "['e',0]")),
                   AT_EINVAL, "takes text of width 192, this prompt's is 128 wide");
}

// The golden file with the second version's part beside it, or without a part of its own.
static void write_variant(const world *w, const char *name, const char *more, const char *less)
{
    at_store *s = NULL;
    at_st_out rows[128];
    size_t n = 0;
    const float one = 1;
    assert_int_equal(at_store_open(AT_SOURCE_DIR "/tests/golden/photomaker/model.safetensors", &s),
                     AT_OK);
    for (size_t i = 0; i < at_store_count(s) && n < 127; i++) {
        const at_weight *from = at_store_at(s, i);
        if (less && strstr(from->name, less)) continue;
        rows[n] = (at_st_out){
            .name = from->name, .dtype = from->dtype, .rank = from->rank, .data = from->data};
        memcpy(rows[n++].shape, from->shape, sizeof from->shape);
    }
    if (more)
        rows[n++] = (at_st_out){
            .name = more, .dtype = AT_F32, .rank = 1, .shape = {1}, .data = (const void *)&one};
    assert_int_equal(at_st_write(world_path(w, "models/photomaker/%s", name), rows, n, NULL, 0),
                     AT_OK);
    at_store_release(&s);
}

static at_status load_file(world *w, const char *name)
{
    return world_try(w,
                     world_nodes("'p':{'class_type':'PhotoMakerLoader','inputs':"
                                 "{'photomaker_model_name':'%s'}},",
                                 name),
                     WORLD_CAPTURE("x", "['p',0]"));
}

static void files_of_other_kinds_are_refused(void **state)
{
    world *w = *state;
    write_variant(w, "second.safetensors", "id_encoder.qformer_perceiver.token_norm.weight", NULL);
    write_variant(w, "blind.safetensors", NULL, "visual_projection_2");
    write_variant(w, "torn.safetensors", NULL, "mlp2.fc2.bias");
    assert_refused(load_file(w, "second.safetensors"), AT_EUNSUPPORTED, "second version");
    assert_refused(load_file(w, "blind.safetensors"), AT_EFORMAT, "no PhotoMaker in this file");
    assert_refused(load_file(w, "torn.safetensors"), AT_EFORMAT, "fuse_module.mlp2.fc2.bias");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_become_what_comfyui_makes_of_them),
        cmocka_unit_test(only_the_first_picture_and_only_one_token_matter),
        cmocka_unit_test(the_text_of_a_hooked_clip_has_no_hooks),
        cmocka_unit_test(a_prompt_that_does_not_fit_is_refused),
        cmocka_unit_test(files_of_other_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, open_world, world_close);
}
