// SPDX-License-Identifier: Apache-2.0
// conditioning_nodes_test.c - nodes that mix, place, time and illustrate prompts: fields and
// numbers.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

// --- prompts with known numbers ------------------------------------------------------------------
static at_tensor *filled(int rank, const int64_t *shape, float first, float step)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, rank, shape, &t), AT_OK);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        ((float *)at_tensor_data(t))[i] = first + step * (float)i;
    return t;
}

// `count` entries of `tokens` x 2; entry k starts at first + 100 k. pooled: two numbers, or none.
static at_object *prompt(size_t count, int64_t tokens, float first, const float *pooled)
{
    at_object *o = at_obj_cond_new(count);
    assert_non_null(o);
    for (size_t k = 0; k < count; k++) {
        at_cond *c = &((at_obj_cond *)o)->items[k];
        c->context = filled(3, (int64_t[]){1, tokens, 2}, first + 100 * (float)k, 1);
        if (pooled) c->pooled = filled(2, (int64_t[]){1, 2}, pooled[0], pooled[1] - pooled[0]);
    }
    return o;
}
static void give_prompts(void)
{
    world_give("a", at_value_object(prompt(2, 3, 1, (float[]){10, 20})));
    world_give("b", at_value_object(prompt(1, 2, 50, (float[]){30, 40})));
    world_give("long", at_value_object(prompt(1, 5, 7, NULL)));
    world_give("c", at_value_object(prompt(1, 3, 5, NULL)));
}
#define GIVE(id) "'" id "':{'class_type':'Give','inputs':{'key':'" id "'}},"
#define PROMPTS  GIVE("a") GIVE("b") GIVE("c") GIVE("long")

static void assert_values(const at_tensor *t, size_t n, const float *want)
{
    assert_non_null(t);
    assert_int_equal(at_tensor_count(t), n);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(world_floats(t)[i] - want[i]) <= 1e-5f * (1 + fabsf(want[i]))))
            fail_msg("value %zu is %g, expected %g", i, (double)world_floats(t)[i],
                     (double)want[i]);
}

static void combining_puts_one_list_behind_the_other(void **state)
{
    give_prompts();
    world_run(*state, PROMPTS,
              "'x':{'class_type':'ConditioningCombine','inputs':{'conditioning_1':['a',0],"
              "'conditioning_2':['b',0]}}",
              WORLD_CAPTURE("1", "['x',0]"));
    const at_obj_cond *c = world_cond("1");
    assert_int_equal(c->count, 3);
    assert_true(world_floats(c->items[0].context)[0] == 1.0f);
    assert_true(world_floats(c->items[1].context)[0] == 101.0f);
    assert_true(world_floats(c->items[2].context)[0] == 50.0f);
}

#define AVERAGE(id, to, from, share)                                                               \
    "'" id "':{'class_type':'ConditioningAverage','inputs':{'conditioning_to':['" to               \
    "',0],'conditioning_from':['" from "',0],'conditioning_to_strength':" share "}}"

static void averages_pad_with_zeros_and_cut(void **state)
{
    give_prompts();
    world_run(*state, PROMPTS, AVERAGE("x", "a", "b", "0.25"), AVERAGE("y", "b", "long", "0.5"),
              AVERAGE("z", "c", "b", "0.75"), WORLD_CAPTURE("1", "['x',0]"),
              WORLD_CAPTURE("2", "['y',0]"), WORLD_CAPTURE("3", "['z',0]"));
    const at_obj_cond *x = world_cond("1"), *y = world_cond("2"), *z = world_cond("3");
    assert_int_equal(x->count, 2);
    // 0.25 * (1 .. 6) + 0.75 * (50, 51, 52, 53, 0, 0)
    assert_values(x->items[0].context, 6, (float[]){37.75f, 38.75f, 39.75f, 40.75f, 1.25f, 1.5f});
    assert_values(x->items[1].context, 6, (float[]){62.75f, 63.75f, 64.75f, 65.75f, 26.25f, 26.5f});
    assert_values(x->items[0].pooled, 2, (float[]){25, 35});
    // 0.5 * (50 .. 53) + 0.5 * (7 .. 10); no pooled to mix with: b's own stays
    assert_values(y->items[0].context, 4, (float[]){28.5f, 29.5f, 30.5f, 31.5f});
    assert_values(y->items[0].pooled, 2, (float[]){30, 40});
    // c has none: b's, which is mixed with itself
    assert_values(z->items[0].pooled, 2, (float[]){30, 40});
}

static void concatenation_takes_the_first_entry_and_keeps_the_rest(void **state)
{
    give_prompts();
    world_run(*state, PROMPTS,
              "'x':{'class_type':'ConditioningConcat','inputs':{'conditioning_to':['b',0],"
              "'conditioning_from':['a',0]}}",
              WORLD_CAPTURE("1", "['x',0]"));
    const at_cond *c = &world_cond("1")->items[0];
    assert_int_equal(world_cond("1")->count, 1);
    assert_int_equal(c->context->shape[1], 5);
    assert_values(c->context, 10, (float[]){50, 51, 52, 53, 1, 2, 3, 4, 5, 6});
    assert_values(c->pooled, 2, (float[]){30, 40});
}

static void widths_that_differ_are_refused(void **state)
{
    at_object *wide = at_obj_cond_new(1);
    ((at_obj_cond *)wide)->items[0].context = filled(3, (int64_t[]){1, 3, 3}, 0, 1);
    give_prompts();
    world_give("wide", at_value_object(wide));
    assert_int_equal(world_try(*state, PROMPTS, GIVE("wide"), AVERAGE("x", "a", "wide", "0.5"),
                               WORLD_CAPTURE("1", "['x',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "ConditioningAverage"));
}

// --- where and when ------------------------------------------------------------------------------
static const at_cond *one(const char *id)
{
    const at_obj_cond *c = world_cond(id);
    assert_int_equal(c->count, 1);
    return &c->items[0];
}

static void areas_are_cells_or_shares(void **state)
{
    give_prompts();
    world_run(
        *state, PROMPTS,
        "'m':{'class_type':'SolidMask','inputs':{'value':0.5,'width':16,'height':8}}",
        "'x':{'class_type':'ConditioningSetArea','inputs':{'conditioning':['b',0],'width':100,"
        "'height':64,'x':20,'y':9,'strength':1.5}}",
        "'y':{'class_type':'ConditioningSetAreaPercentage','inputs':{'conditioning':['b',0],"
        "'width':0.5,'height':0.25,'x':0.1,'y':0.75,'strength':2}}",
        "'z':{'class_type':'ConditioningSetAreaStrength','inputs':{'conditioning':['x',0],"
        "'strength':0.5}}",
        "'k':{'class_type':'ConditioningSetMask','inputs':{'conditioning':['x',0],'mask':"
        "['m',0],'strength':0.75,'set_cond_area':'mask bounds'}}",
        "'n':{'class_type':'ConditioningSetArea','inputs':{'conditioning':['k',0],'width':64,"
        "'height':64,'x':0,'y':0,'strength':1}}",
        "'t':{'class_type':'ConditioningSetTimestepRange','inputs':{'conditioning':['b',0],"
        "'start':0.1,'end':0.35}}",
        WORLD_CAPTURE("1", "['x',0]"), WORLD_CAPTURE("2", "['y',0]"), WORLD_CAPTURE("3", "['z',0]"),
        WORLD_CAPTURE("4", "['k',0]"), WORLD_CAPTURE("5", "['n',0]"), WORLD_CAPTURE("6", "['t',0]"),
        WORLD_CAPTURE("0", "['b',0]"));
    at_area a = one("1")->area;
    assert_true(a.kind == AT_AREA_CELLS && a.w == 12 && a.h == 8 && a.x == 2 && a.y == 1);
    assert_true(one("1")->strength == 1.5f);
    a = one("2")->area;
    assert_true(a.kind == AT_AREA_SHARES && a.w == 0.5 && a.h == 0.25 && a.x == 0.1 && a.y == 0.75);
    assert_true(one("2")->strength == 2.0f);
    assert_true(one("3")->strength == 0.5f && one("3")->area.w == 12);
    assert_true(one("4")->mask_bounds && one("4")->mask_strength == 0.75f);
    assert_true(one("4")->mask->shape[1] == 8 && one("4")->mask->shape[2] == 16);
    assert_true(one("4")->strength == 1.5f && one("4")->area.w == 12); // the mask leaves them
    assert_true(!one("5")->mask_bounds && one("5")->mask);             // the area takes bounds back
    assert_true(one("6")->start_percent == 0.1 && one("6")->end_percent == 0.35);
    assert_true(one("0")->area.kind == AT_AREA_NONE && !one("0")->mask); // the source is unharmed
}

static void properties_are_set_on_one_prompt_or_a_pair(void **state)
{
    give_prompts();
    world_run(
        *state, PROMPTS,
        "'m':{'class_type':'SolidMask','inputs':{'value':0.5,'width':16,'height':8}}",
        "'r':{'class_type':'ConditioningTimestepsRange','inputs':{'start_percent':0.2,"
        "'end_percent':0.6}}",
        "'x':{'class_type':'ConditioningSetProperties','inputs':{'cond_NEW':['b',0],"
        "'strength':0.5,'set_cond_area':'default','mask':['m',0],'timesteps':['r',0]}}",
        "'y':{'class_type':'ConditioningSetPropertiesAndCombine','inputs':{'cond':['a',0],"
        "'cond_NEW':['b',0],'strength':0.5,'set_cond_area':'mask bounds','timesteps':['r',1]}}",
        "'p':{'class_type':'PairConditioningSetPropertiesAndCombine','inputs':{'positive':"
        "['a',0],'negative':['b',0],'positive_NEW':['c',0],'negative_NEW':['long',0],"
        "'strength':0.5,'set_cond_area':'mask bounds','mask':['m',0],'timesteps':['r',2]}}",
        "'q':{'class_type':'PairConditioningSetProperties','inputs':{'positive_NEW':['c',0],"
        "'negative_NEW':['b',0],'strength':3,'set_cond_area':'default','mask':['m',0]}}",
        WORLD_CAPTURE("1", "['x',0]"), WORLD_CAPTURE("2", "['y',0]"), WORLD_CAPTURE("3", "['p',0]"),
        WORLD_CAPTURE("4", "['p',1]"), WORLD_CAPTURE("5", "['q',0]"),
        WORLD_CAPTURE("6", "['q',1]"));
    assert_true(one("1")->mask && one("1")->mask_strength == 0.5f && !one("1")->mask_bounds);
    assert_true(one("1")->start_percent == 0.2 && one("1")->end_percent == 0.6);
    const at_obj_cond *y = world_cond("2");
    assert_int_equal(y->count, 3);
    assert_true(y->items[0].end_percent == 1.0 && !y->items[2].mask && !y->items[2].mask_bounds);
    assert_true(y->items[2].start_percent == 0.0 && y->items[2].end_percent == 0.2);
    const at_obj_cond *p = world_cond("3"), *n = world_cond("4");
    assert_true(p->count == 3 && n->count == 2);
    assert_true(p->items[2].mask && p->items[2].mask_bounds && !p->items[0].mask);
    assert_true(n->items[1].start_percent == 0.6 && n->items[1].end_percent == 1.0);
    assert_true(one("5")->mask_strength == 3.0f && one("6")->mask);
}

static void defaults_and_pairs_are_put_behind(void **state)
{
    give_prompts();
    world_run(*state, PROMPTS,
              "'x':{'class_type':'ConditioningSetDefaultCombine','inputs':{'cond':['a',0],"
              "'cond_DEFAULT':['b',0]}}",
              "'y':{'class_type':'PairConditioningSetDefaultCombine','inputs':{'positive':['a',0],"
              "'negative':['b',0],'positive_DEFAULT':['c',0],'negative_DEFAULT':['long',0]}}",
              "'z':{'class_type':'PairConditioningCombine','inputs':{'positive_A':['a',0],"
              "'negative_A':['b',0],'positive_B':['c',0],'negative_B':['long',0]}}",
              WORLD_CAPTURE("1", "['x',0]"), WORLD_CAPTURE("2", "['y',0]"),
              WORLD_CAPTURE("3", "['y',1]"), WORLD_CAPTURE("4", "['z',0]"),
              WORLD_CAPTURE("5", "['z',1]"));
    const at_obj_cond *x = world_cond("1"), *y = world_cond("2"), *n = world_cond("3");
    assert_true(x->count == 3 && !x->items[0].is_default && x->items[2].is_default);
    assert_true(y->count == 3 && y->items[2].is_default && !y->items[1].is_default);
    assert_true(n->count == 2 && n->items[1].is_default && n->items[1].context->shape[1] == 5);
    assert_true(world_cond("4")->count == 3 && !world_cond("4")->items[2].is_default);
    assert_true(world_cond("5")->count == 2);
}

// --- Flux's own ----------------------------------------------------------------------------------
static void references_line_up_and_guidance_goes(void **state)
{
    at_object *l = at_obj_latent_new(filled(4, (int64_t[]){1, 16, 2, 3}, 0, 1));
    give_prompts();
    world_give("l", at_value_object(l));
    world_run(*state, PROMPTS, GIVE("l"),
              "'r':{'class_type':'ReferenceLatent','inputs':{'conditioning':['b',0],'latent':"
              "['l',0]}}",
              "'s':{'class_type':'ReferenceLatent','inputs':{'conditioning':['r',0],'latent':"
              "['l',0]}}",
              "'n':{'class_type':'ReferenceLatent','inputs':{'conditioning':['b',0]}}",
              "'k':{'class_type':'FluxKontextMultiReferenceLatentMethod','inputs':{'conditioning':"
              "['s',0],'reference_latents_method':'uxo/uno'}}",
              "'i':{'class_type':'FluxKontextMultiReferenceLatentMethod','inputs':{'conditioning':"
              "['s',0],'reference_latents_method':'index'}}",
              "'g':{'class_type':'FluxGuidance','inputs':{'conditioning':['b',0],'guidance':2}}",
              "'d':{'class_type':'FluxDisableGuidance','inputs':{'conditioning':['g',0]}}",
              "'e':{'class_type':'FluxGuidance','inputs':{'conditioning':['d',0],'guidance':3}}",
              WORLD_CAPTURE("1", "['r',0]"), WORLD_CAPTURE("2", "['k',0]"),
              WORLD_CAPTURE("3", "['i',0]"), WORLD_CAPTURE("4", "['d',0]"),
              WORLD_CAPTURE("5", "['e',0]"), WORLD_CAPTURE("6", "['n',0]"));
    assert_true(one("1")->n_refs == 1 && one("1")->ref_method == AT_REF_OFFSET);
    assert_true(one("2")->n_refs == 2 && one("2")->ref_method == AT_REF_UXO);
    assert_true(one("3")->ref_method == AT_REF_INDEX);
    assert_true(one("4")->guidance_off && !one("4")->has_guidance);
    assert_true(!one("5")->guidance_off && one("5")->guidance == 3.0f);
    assert_true(one("6")->n_refs == 0);
}

#define SAMPLE(id, positive)                                                                       \
    "'" id "':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':7,'steps':2,'cfg':2,"      \
    "'sampler_name':'euler','scheduler':'simple','positive':['" positive                           \
    "',0],'negative':['n',0],'latent_image':['e',0],'denoise':1}},"

// A reference is looked at, and one of another VAE is refused.
static void flux_looks_at_references(void **state)
{
    world *w = *state;
    world_give("l",
               at_value_object(at_obj_latent_new(filled(4, (int64_t[]){1, 16, 4, 6}, -1, 0.005f))));
    world_give("l4", at_value_object(at_obj_latent_new(filled(4, (int64_t[]){1, 4, 4, 6}, 0, 1))));
    world_run(w, WORLD_BASE, GIVE("l"),
              "'r':{'class_type':'ReferenceLatent','inputs':{'conditioning':['p',0],'latent':"
              "['l',0]}}",
              "'d':{'class_type':'FluxDisableGuidance','inputs':{'conditioning':['p',0]}}",
              SAMPLE("1", "p"), SAMPLE("2", "r"), SAMPLE("3", "d"), WORLD_CAPTURE("x", "['1',0]"),
              WORLD_CAPTURE("y", "['2',0]"), WORLD_CAPTURE("z", "['3',0]"));
    assert_true(world_distance(world_latent("y"), world_latent("x")) > 1e-4);
    assert_true(world_distance(world_latent("z"), world_latent("x")) > 1e-4);
    assert_int_equal(world_try(w, WORLD_BASE, GIVE("l4"),
                               "'r':{'class_type':'ReferenceLatent','inputs':{'conditioning':"
                               "['p',0],'latent':['l4',0]}}",
                               SAMPLE("2", "r"), WORLD_CAPTURE("y", "['2',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "another kind of VAE"));
}

// --- pictures ------------------------------------------------------------------------------------
static at_object *painted(int64_t h, int64_t w)
{
    at_tensor *t = filled(4, (int64_t[]){1, h, w, 3}, 0, 0);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        ((float *)at_tensor_data(t))[i] = 0.5f + 0.5f * sinf((float)i * 0.013f);
    return at_obj_image_new(t);
}
#define ENCODED(id, from)                                                                          \
    "'" id "':{'class_type':'VAEEncode','inputs':{'pixels':['" from "',0],'vae':['v',0]}},"

// 44 x 27 pixels: 40 x 24 of them count, from (2, 1) on.
static void inpainting_shows_grey_under_the_mask(void **state)
{
    enum { H = 27, W = 44, TOP = 1, LEFT = 2, CH = 24, CW = 40 };
    world *w = *state;
    at_object *image = painted(H, W), *grey = painted(CH, CW);
    at_tensor *mask = filled(3, (int64_t[]){1, H, W}, 0, 0);
    const float *p = world_floats(((at_obj_image *)image)->pixels);
    float *g = world_floats(((at_obj_image *)grey)->pixels), *m = world_floats(mask);

    for (int i = 0; i < H * W; i++)
        m[i] = i % W >= 20 ? 0.8f : 0.3f; // rounds to 1 and 0
    for (int i = 0; i < CH * CW * 3; i++) {
        int y = i / 3 / CW, x = i / 3 % CW;
        g[i] = x + LEFT >= 20 ? 0.5f : (p[((y + TOP) * W + x + LEFT) * 3 + i % 3] - 0.5f) + 0.5f;
    }
    world_give("i", at_value_object(image));
    world_give("g", at_value_object(grey));
    world_give("m", at_value_object(at_obj_mask_new(mask)));
    give_prompts();
    world_run(
        w, PROMPTS, GIVE("i"), GIVE("g"), GIVE("m"),
        "'v':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae.safetensors'}}",
        ENCODED("ei", "i"), ENCODED("eg", "g"),
        "'x':{'class_type':'InpaintModelConditioning','inputs':{'positive':['a',0],'negative':"
        "['b',0],'vae':['v',0],'pixels':['i',0],'mask':['m',0],'noise_mask':true}}",
        "'y':{'class_type':'InpaintModelConditioning','inputs':{'positive':['a',0],'negative':"
        "['b',0],'vae':['v',0],'pixels':['i',0],'mask':['m',0],'noise_mask':false}}",
        "'z':{'class_type':'InstructPixToPixConditioning','inputs':{'positive':['a',0],"
        "'negative':['b',0],'vae':['v',0],'pixels':['i',0]}}",
        WORLD_CAPTURE("p", "['x',0]"), WORLD_CAPTURE("n", "['x',1]"), WORLD_CAPTURE("l", "['x',2]"),
        WORLD_CAPTURE("o", "['y',2]"), WORLD_CAPTURE("whole", "['ei',0]"),
        WORLD_CAPTURE("masked", "['eg',0]"), WORLD_CAPTURE("q", "['z',0]"),
        WORLD_CAPTURE("ql", "['z',2]"));
    const at_cond *c = &world_cond("p")->items[1], *n = one("n");
    world_assert_same(c->concat_latent, world_latent("masked"));
    world_assert_same(n->concat_latent, world_latent("masked"));
    world_assert_same(world_latent("l"), world_latent("whole"));
    assert_true(c->concat_mask->shape[2] == CH && c->concat_mask->shape[3] == CW);
    assert_true(world_floats(c->concat_mask)[17] == 0.3f &&
                world_floats(c->concat_mask)[18] == 0.8f);
    const at_obj_latent *l = (const at_obj_latent *)world_object("l", "LATENT");
    assert_ptr_equal(l->noise_mask, c->concat_mask);
    assert_null(((const at_obj_latent *)world_object("o", "LATENT"))->noise_mask);
    world_assert_same(world_cond("q")->items[0].concat_latent, world_latent("whole"));
    assert_null(world_cond("q")->items[0].concat_mask);
    for (int64_t i = 0; i < at_tensor_count(world_latent("ql")); i++)
        assert_true(world_floats(world_latent("ql"))[i] == 0.0f);
}

static void upscaling_gives_an_empty_latent_of_a_quarter(void **state)
{
    world_give("i", at_value_object(painted(10, 7)));
    give_prompts();
    world_run(*state, PROMPTS, GIVE("i"),
              "'x':{'class_type':'SD_4XUpscale_Conditioning','inputs':{'images':['i',0],'positive':"
              "['a',0],'negative':['b',0],'scale_ratio':2.5,'noise_augmentation':0}}",
              WORLD_CAPTURE("1", "['x',0]"), WORLD_CAPTURE("2", "['a',0]"),
              WORLD_CAPTURE("3", "['x',2]"));
    const at_tensor *t = world_latent("3"); // 25 x round(17.5) = 18
    assert_true(t->shape[1] == 4 && t->shape[2] == 6 && t->shape[3] == 4);
    assert_ptr_equal(world_cond("1"), world_cond("2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(combining_puts_one_list_behind_the_other),
        cmocka_unit_test(averages_pad_with_zeros_and_cut),
        cmocka_unit_test(concatenation_takes_the_first_entry_and_keeps_the_rest),
        cmocka_unit_test(widths_that_differ_are_refused),
        cmocka_unit_test(areas_are_cells_or_shares),
        cmocka_unit_test(properties_are_set_on_one_prompt_or_a_pair),
        cmocka_unit_test(defaults_and_pairs_are_put_behind),
        cmocka_unit_test(references_line_up_and_guidance_goes),
        cmocka_unit_test(flux_looks_at_references),
        cmocka_unit_test(inpainting_shows_grey_under_the_mask),
        cmocka_unit_test(upscaling_gives_an_empty_latent_of_a_quarter),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
