// SPDX-License-Identifier: Apache-2.0
// conditioning_test.c - prompts become tensors: weights, guidance, zeros, lengths.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer.h"

#define CLIP_ONLY                                                                                  \
    "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors',"              \
    "'type':'stable_diffusion'}},"
#define T5_ONLY                                                                                    \
    "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_t5.safetensors','type':'sd3'}},"
#define ENCODE(id, text)                                                                           \
    "'" id "':{'class_type':'CLIPTextEncode','inputs':{'text':'" text "','clip':['c',0]}},"

static const at_cond *only(const char *id)
{
    const at_obj_cond *c = world_cond(id);
    assert_int_equal(c->count, 1);
    return &c->items[0];
}

static void assert_close(const float *a, const float *b, int64_t n, double tolerance)
{
    double d = 0, m = 0;
    for (int64_t i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        m += (double)b[i] * (double)b[i];
    }
    if (!(sqrt(d) <= tolerance * sqrt(m))) fail_msg("relative error %g", sqrt(d / m));
}

static size_t count_ids(const world *w, at_tokenizer_kind kind, const char *folder,
                        const char *text)
{
    at_tokenizer *t = NULL;
    at_ids ids = {0};
    assert_int_equal(at_tokenizer_open(kind, world_path(w, "models/text_encoders/%s", folder), &t),
                     AT_OK);
    assert_int_equal(at_tokenizer_encode(t, text, strlen(text), &ids), AT_OK);
    size_t n = ids.len;
    at_ids_free(&ids);
    at_tokenizer_release(&t);
    return n;
}

static void shapes_are_those_of_the_encoders(void **state)
{
    world *w = *state;
    world_run(w, WORLD_MODELS, ENCODE("a", "a red circle"), WORLD_CAPTURE("x", "['a',0]"));
    const at_cond *c = only("x");
    assert_int_equal(c->context->rank, 3);
    assert_int_equal(c->context->shape[1], 256); // T5 is padded to 256 for Flux
    assert_int_equal(c->context->shape[2], 64);
    assert_int_equal(c->pooled->shape[1], 128); // CLIP's vector
    assert_false(c->has_guidance);
    assert_true(c->strength == 1.0f && c->start_percent == 0.0f && c->end_percent == 1.0f);
}

static void a_weight_moves_tokens_away_from_the_empty_prompt(void **state)
{
    world *w = *state;
    world_run(w, CLIP_ONLY, ENCODE("a", "a red circle"), ENCODE("b", "a (red:1.75) circle"),
              ENCODE("n", ""), WORLD_CAPTURE("plain", "['a',0]"),
              WORLD_CAPTURE("weighted", "['b',0]"), WORLD_CAPTURE("empty", "['n',0]"));
    const at_cond *plain = only("plain"), *weighted = only("weighted"), *empty = only("empty");
    size_t first = 1 + count_ids(w, AT_TOK_CLIP_BPE, "tiny_clip_l", "a");
    size_t last = first + count_ids(w, AT_TOK_CLIP_BPE, "tiny_clip_l", "red");
    const float *z = world_floats(plain->context), *z0 = world_floats(empty->context);
    const float *got = world_floats(weighted->context);
    assert_true(last > first);
    assert_int_equal(plain->context->shape[1], 77);
    for (size_t t = 0; t < 77; t++) {
        float expected[128], weight = t >= first && t < last ? 1.75f : 1.0f;
        for (size_t i = 0; i < 128; i++)
            expected[i] = (z[t * 128 + i] - z0[t * 128 + i]) * weight + z0[t * 128 + i];
        assert_close(got + t * 128, expected, 128, 1e-5); // a batch of 2 sums in another order
    }
    // the pooled vector carries no weights
    assert_close(world_floats(weighted->pooled), world_floats(plain->pooled), 128, 1e-5);
}

static void t5_is_weighted_and_its_padding_is_not(void **state)
{
    world *w = *state;
    world_run(w, T5_ONLY, ENCODE("a", "a red circle"), ENCODE("b", "(a red circle:0.5)"),
              ENCODE("n", ""), WORLD_CAPTURE("plain", "['a',0]"),
              WORLD_CAPTURE("weighted", "['b',0]"), WORLD_CAPTURE("empty", "['n',0]"));
    const at_cond *plain = only("plain"), *weighted = only("weighted"), *empty = only("empty");
    size_t n = count_ids(w, AT_TOK_T5_UNIGRAM, "tiny_t5", "a red circle");
    const float *z = world_floats(plain->context), *z0 = world_floats(empty->context);
    const float *got = world_floats(weighted->context);
    assert_int_equal(plain->context->shape[1], 77); // SD3's minimum
    for (size_t t = 0; t < 77; t++) {
        float expected[64], weight = t < n ? 0.5f : 1.0f;
        for (size_t i = 0; i < 64; i++)
            expected[i] = (z[t * 64 + i] - z0[t * 64 + i]) * weight + z0[t * 64 + i];
        assert_close(got + t * 64, expected, 64, 1e-5);
    }
    // SD3 without CLIP has a pooled vector of zeros
    assert_int_equal(weighted->pooled->shape[1], 2048);
    for (int i = 0; i < 2048; i++)
        assert_true(world_floats(weighted->pooled)[i] == 0.0f);
}

static void escaped_parentheses_are_text(void **state)
{
    world *w = *state;
    world_run(w, CLIP_ONLY, ENCODE("a", "a \\\\(red\\\\) circle"), ENCODE("b", "a red circle"),
              ENCODE("d", "a (red:1.0) circle"), WORLD_CAPTURE("x", "['a',0]"),
              WORLD_CAPTURE("y", "['b',0]"), WORLD_CAPTURE("z", "['d',0]"));
    assert_true(world_distance(only("x")->context, only("y")->context) > 1e-3);
    world_assert_same(only("z")->context, only("y")->context);
}

static void long_prompts_make_chunks(void **state)
{
    world *w = *state;
    char text[1024] = "";
    for (int i = 0; i < 60; i++)
        strcat(text, "red circle ");
    size_t ids = count_ids(w, AT_TOK_CLIP_BPE, "tiny_clip_l", text);
    assert_true(ids > 75);
    world_run(
        w, CLIP_ONLY,
        world_nodes("'a':{'class_type':'CLIPTextEncode','inputs':{'text':'%s','clip':['c',0]}},",
                    text),
        ENCODE("b", "red circle red circle"), WORLD_CAPTURE("x", "['a',0]"));
    assert_true(only("x")->context->shape[1] % 77 == 0);
    assert_true(only("x")->context->shape[1] >= 2 * 77);
    assert_int_equal(only("x")->pooled->shape[0], 1);

    // Flux: T5 takes one chunk of any length
    ids = count_ids(w, AT_TOK_T5_UNIGRAM, "tiny_t5", text);
    world_run(
        w, WORLD_MODELS,
        world_nodes("'a':{'class_type':'CLIPTextEncode','inputs':{'text':'%s','clip':['c',0]}},",
                    text),
        WORLD_CAPTURE("x", "['a',0]"));
    assert_int_equal(only("x")->context->shape[1], ids + 1 > 256 ? ids + 1 : 256);
}

static void flux_encoder_takes_two_texts(void **state)
{
    world *w = *state;
    world_run(w, WORLD_MODELS, ENCODE("a", "a red circle"), ENCODE("b", "a blue square"),
              "'f':{'class_type':'CLIPTextEncodeFlux','inputs':{'clip':['c',0],'"
              "clip_l':'a red circle',"
              "'t5xxl':'a blue square','guidance':2.25}},",
              WORLD_CAPTURE("x", "['a',0]"), WORLD_CAPTURE("y", "['b',0]"),
              WORLD_CAPTURE("z", "['f',"
                                 "0]"));
    world_assert_same(only("z")->context, only("y")->context);
    world_assert_same(only("z")->pooled, only("x")->pooled);
    assert_true(only("z")->has_guidance && only("z")->guidance == 2.25f);
}

#define GUIDANCE(id, value)                                                                        \
    "'" id "':{'class_type':'FluxGuidance','inputs':{'conditioning':['p',0],'guidance':" value "}" \
    "}"
#define GUIDED(id, cond)                                                                           \
    "'" id "g':{'class_type':'BasicGuider','inputs':{'model':['m',0],'conditioning':['" cond       \
    "',0]}},'" id "':{'class_type':'SamplerCustomAdvanced','inputs':{'noise':['no',0],"            \
    "'guider':['" id "g',0],'sampler':['sa',0],'sigmas':['sc',0],'latent_image':['e',0]}}"

static void guidance_is_set_on_a_copy(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE, GUIDANCE("g", "9.5"), GUIDANCE("h", "3.5"),
              "'no':{'class_type':'RandomNoise','inputs':{'noise_seed':3}}",
              "'sa':{'class_type':'KSamplerSelect','inputs':{'sampler_name':'euler'}}",
              "'sc':{'class_type':'BasicScheduler','inputs':{'model':['m',0],"
              "'scheduler':'simple','steps':2,'denoise':1}}",
              GUIDED("r1", "g"), GUIDED("r2", "h"), GUIDED("r3", "p"),
              WORLD_CAPTURE("x", "['r1',0]"), WORLD_CAPTURE("y", "['r2',0]"),
              WORLD_CAPTURE("z", "['r3',0]"), WORLD_CAPTURE("cond", "['g',0]"),
              WORLD_CAPTURE("was", "['p',0]"));
    assert_true(only("cond")->has_guidance && only("cond")->guidance == 9.5f);
    assert_false(only("was")->has_guidance);
    world_assert_same(world_latent("y"), world_latent("z")); // 3.5 is the default
    assert_true(world_distance(world_latent("x"), world_latent("y")) > 1e-4);
}

static void zero_out_zeroes_everything(void **state)
{
    world *w = *state;
    world_run(w, WORLD_MODELS, ENCODE("a", "a red circle"),
              "'g':{'class_type':'FluxGuidance','inputs':{'"
              "conditioning':['a',0],'guidance':2}},"
              "'z':{'class_type':'ConditioningZeroOut','inputs':{'"
              "conditioning':['g',0]}},",
              WORLD_CAPTURE("x", "['z',0]"), WORLD_CAPTURE("y", "['g',0]"));
    const at_cond *z = only("x"), *y = only("y");
    assert_int_equal(z->context->shape[1], 256);
    for (int64_t i = 0; i < at_tensor_count(z->context); i++)
        assert_true(world_floats(z->context)[i] == 0.0f);
    for (int64_t i = 0; i < at_tensor_count(z->pooled); i++)
        assert_true(world_floats(z->pooled)[i] == 0.0f);
    assert_true(z->has_guidance && z->guidance == 2.0f); // the rest is kept
    assert_true(world_floats(y->context)[0] != 0.0f);    // and the source unharmed
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_those_of_the_encoders),
        cmocka_unit_test(a_weight_moves_tokens_away_from_the_empty_prompt),
        cmocka_unit_test(t5_is_weighted_and_its_padding_is_not),
        cmocka_unit_test(escaped_parentheses_are_text),
        cmocka_unit_test(long_prompts_make_chunks),
        cmocka_unit_test(flux_encoder_takes_two_texts),
        cmocka_unit_test(guidance_is_set_on_a_copy),
        cmocka_unit_test(zero_out_zeroes_everything),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
