// SPDX-License-Identifier: Apache-2.0
// lora_test.c - LoRAs and merges on small models: the weights that come out, against sums done here.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "models/lora.h"
#include "weight/edits.h"
#include "weight/matrix.h"
#include "weight/safetensors.h"

#define LAYER "double_blocks.0.img_attn.proj.weight"
#define LORA(id, model, clip, sm, sc)                                                              \
    "'" id "':{'class_type':'LoraLoader','inputs':{'model':" model ",'clip':" clip                 \
    ",'lora_name':'one.safetensors','strength_model':" sm ",'strength_clip':" sc "}},"
#define CAPTURE(id, source) WORLD_CAPTURE(id, source)

enum { RANK = 2, MAX_SIDE = 256 };
static float up[MAX_SIDE * RANK], down[RANK * MAX_SIDE], clip_diff[MAX_SIDE];
static const float alpha = 1;

static void fill(float *v, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
}

// A LoRA of one layer of the denoiser, a difference of one of the text encoder, and two strays.
static void write_lora(const world *w, const at_matrix *layer, int64_t clip_width)
{
    int64_t n = layer->rows, k = layer->cols;
    const at_st_out rows[] = {
        {"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight", AT_F32, 2, {n, RANK}, up},
        {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", AT_F32, 2, {RANK, k}, down},
        {"lora_unet_double_blocks_0_img_attn_proj.alpha", AT_F32, 0, {0}, &alpha},
        {"text_encoders.clip_l.transformer.text_model.final_layer_norm.diff",
         AT_F32,
         1,
         {clip_width},
         clip_diff},
        {"stray.lora_up.weight", AT_F32, 2, {n, RANK}, up},
        {"stray.lora_down.weight", AT_F32, 2, {RANK, k}, down},
    };

    assert_int_equal(at_make_dirs(world_path(w, "models/loras")), AT_OK);
    assert_int_equal(at_st_write(world_path(w, "models/loras/one.safetensors"), rows,
                                 sizeof rows / sizeof *rows, NULL, 0),
                     AT_OK);
}

static void read_record(at_store *s, const char *prefix, const char *key, at_matrix *out)
{
    const at_weight *w = at_store_findf(s, "%s%s", prefix, key);

    assert_non_null(w);
    assert_int_equal(at_matrix_read(w, out), AT_OK);
}

static void read_model(const char *id, const char *key, at_matrix *out)
{
    const at_obj_model *m = (const at_obj_model *)world_object(id, "MODEL");

    read_record(at_model_store(m->model), at_model_prefix(m->model), key, out);
}

static void read_clip(const char *id, const char *key, at_matrix *out)
{
    const at_obj_clip *c = (const at_obj_clip *)world_object(id, "CLIP");
    const at_encoder *e = c->enc[AT_TE_L].encoder;

    read_record(at_encoder_store(e), at_encoder_prefix(e), key, out);
}

// got = a * x + b * y + s * up down (NULL: 0), to the rounding of the file's bf16 or f16.
static void assert_sum(const at_matrix *got, double a, const at_matrix *x, double b,
                       const at_matrix *y, double s)
{
    for (int64_t i = 0; i < got->rows; i++)
        for (int64_t j = 0; j < got->cols; j++) {
            double want = a * (double)x->v[i * x->cols + j], delta = 0;
            if (y) want += b * (double)y->v[i * y->cols + j];
            for (int r = 0; r < RANK; r++)
                delta += (double)up[i * RANK + r] * (double)down[r * got->cols + j];
            want += s * delta;
            double tol = 0.005 * fabs(want) + 1e-6; // half a step of bf16
            if (!(fabs(want - (double)got->v[i * got->cols + j]) <= tol))
                fail_msg("[%d, %d] is %g, not %g", (int)i, (int)j,
                         (double)got->v[i * got->cols + j], want);
        }
}

static int setup(void **state)
{
    at_matrix layer = {0}, norm = {0};

    if (world_open(state) != 0) return -1;
    world *w = *state;
    world_run(w, WORLD_MODELS CAPTURE("qa", "['m',0]") "," CAPTURE("qb", "['c',0]"));
    read_model("qa", LAYER, &layer);
    read_clip("qb", "text_model.final_layer_norm.weight", &norm);
    assert_true(layer.rows <= MAX_SIDE && layer.cols <= MAX_SIDE && norm.rows <= MAX_SIDE);
    fill(up, (size_t)layer.rows * RANK, 1);
    fill(down, (size_t)layer.cols * RANK, 2);
    fill(clip_diff, (size_t)norm.rows, 3);
    write_lora(w, &layer, norm.rows);
    at_matrix_free(&layer);
    at_matrix_free(&norm);
    return 0;
}

static void collect_warnings(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)level;
    if (!strcmp(id, "LORA-KEYS")) snprintf(ctx, 256, "%s", text);
}

static void a_lora_adds_its_product_to_both_models(void **state)
{
    world *w = *state;
    at_matrix x = {0}, y = {0}, n0 = {0}, n1 = {0};
    char warned[256] = "";

    at_log_set_writer(collect_warnings, warned);
    world_run(w, WORLD_MODELS LORA("l", "['m',0]", "['c',0]", "0.8", "-0.5"),
              CAPTURE("qa", "['m',0]") ",", CAPTURE("qb", "['l',0]") ",",
              CAPTURE("qc", "['c',0]") ",", CAPTURE("qd", "['l',1]"));
    at_log_set_writer(NULL, NULL);
    read_model("qa", LAYER, &x);
    read_model("qb", LAYER, &y);
    assert_sum(&y, 1, &x, 0, NULL, 0.8 * (double)alpha / RANK);
    read_clip("qc", "text_model.final_layer_norm.weight", &n0);
    read_clip("qd", "text_model.final_layer_norm.weight", &n1);
    for (int64_t i = 0; i < n0.rows; i++)
        assert_true(fabsf(n1.v[i] - (n0.v[i] - 0.5f * clip_diff[i])) <= 0.005f * fabsf(n0.v[i]));
    assert_string_equal(warned, "one.safetensors: 2 tensors belong to no layer of these models: "
                                "stray.lora_down.weight, stray.lora_up.weight");
    at_matrix_free(&x);
    at_matrix_free(&y);
    at_matrix_free(&n0);
    at_matrix_free(&n1);
}

static void loras_in_a_row_add_up_and_nothing_is_nothing(void **state)
{
    world *w = *state;
    at_matrix x = {0}, y = {0};

    world_run(w, WORLD_MODELS LORA("l", "['m',0]", "['c',0]", "0.8", "1"),
              "'k':{'class_type':'LoraLoaderModelOnly','inputs':{'model':['l',0],"
              "'lora_name':'one.safetensors','strength_model':-0.3}}," LORA("z", "['k',0]",
                                                                            "['l',1]", "0", "0"),
              CAPTURE("qa", "['m',0]") ",", CAPTURE("qb", "['k',0]") ",", CAPTURE("qc", "['z',0]"));
    read_model("qa", LAYER, &x);
    read_model("qb", LAYER, &y);
    assert_sum(&y, 1, &x, 0, NULL, 0.5 * (double)alpha / RANK);
    assert_ptr_equal(world_object("qb", "MODEL"), world_object("qc", "MODEL"));
    at_matrix_free(&x);
    at_matrix_free(&y);
}

static void a_trained_lora_comes_over_a_link(void **state)
{
    world *w = *state;
    at_matrix x = {0}, y = {0};
    at_store *s = NULL;

    assert_int_equal(at_store_open(world_path(w, "models/loras/one.safetensors"), &s), AT_OK);
    world_give("lora", at_value_object(at_obj_lora_new(s)));
    world_run(w,
              WORLD_MODELS
              "'g':{'class_type':'Give','inputs':{'key':'lora'}},"
              "'t':{'class_type':'LoraModelLoader','inputs':{'model':['m',0],'lora':['g',0],"
              "'strength_model':2}},",
              CAPTURE("qa", "['m',0]") ",", CAPTURE("qb", "['t',0]"));
    read_model("qa", LAYER, &x);
    read_model("qb", LAYER, &y);
    assert_sum(&y, 1, &x, 0, NULL, 2 * (double)alpha / RANK);
    at_matrix_free(&x);
    at_matrix_free(&y);
}

// The picture moves with a LoRA, and not with a strength of 0.
static void a_lora_shows_in_the_latent(void **state)
{
    world *w = *state;
#define SAMPLE(id, m, c)                                                                           \
    "'" id "':{'class_type':'KSampler','inputs':{'model':" m ",'seed':5,'steps':2,'cfg':1,"        \
    "'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':['n',0],"           \
    "'latent_image':['e',0],'denoise':1}},"
    world_run(w, WORLD_BASE LORA("l", "['m',0]", "['c',0]", "1", "1"),
              LORA("z", "['m',0]", "['c',0]", "0", "1"), SAMPLE("s0", "['m',0]", ""),
              SAMPLE("s1", "['l',0]", ""), SAMPLE("s2", "['z',0]", ""),
              CAPTURE("qa", "['s0',0]") ",", CAPTURE("qb", "['s1',0]") ",",
              CAPTURE("qc", "['s2',0]"));
    assert_true(world_distance(world_latent("qb"), world_latent("qa")) > 1e-4);
    world_assert_same(world_latent("qc"), world_latent("qa"));
}

// --- merges ------------------------------------------------------------------------------------------
#define SECOND                                                                                     \
    LORA("l", "['m',0]", "['c',0]", "1", "1") /* a second model: the first under a LoRA */

static void models_are_mixed_subtracted_and_added(void **state)
{
    static const struct {
        const char *type, *number;
        double keep, take;
    } cases[] = {{"ModelMergeSimple", ",'ratio':0.25", 0.25, 0.75},
                 {"ModelMergeSubtract", ",'multiplier':-2", -2, 2},
                 {"ModelMergeAdd", "", 1, 1}};
    world *w = *state;
    double s = (double)alpha / RANK;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_matrix x = {0}, y = {0};
        world_run(w, WORLD_MODELS SECOND,
                  world_nodes("'g':{'class_type':'%s','inputs':{'model1':['m',0],'model2':['l',0]"
                              "%s}},",
                              cases[i].type, cases[i].number),
                  CAPTURE("qa", "['m',0]") ",", CAPTURE("qb", "['g',0]"));
        read_model("qa", LAYER, &x);
        read_model("qb", LAYER, &y);
        assert_sum(&y, cases[i].keep + cases[i].take, &x, 0, NULL, cases[i].take * s);
        at_matrix_free(&x);
        at_matrix_free(&y);
    }
}

static void encoders_are_mixed_subtracted_and_added(void **state)
{
    static const struct {
        const char *type, *number;
        double keep, take;
    } cases[] = {{"CLIPMergeSimple", ",'ratio':0.25", 0.25, 0.75},
                 {"CLIPMergeSubtract", ",'multiplier':0.5", 0.5, -0.5},
                 {"CLIPMergeAdd", "", 1, 1}};
    world *w = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_matrix x = {0}, y = {0};
        world_run(w, WORLD_MODELS SECOND,
                  world_nodes("'g':{'class_type':'%s','inputs':{'clip1':['c',0],'clip2':['l',1]"
                              "%s}},",
                              cases[i].type, cases[i].number),
                  CAPTURE("qa", "['c',0]") ",", CAPTURE("qb", "['g',0]"));
        read_clip("qa", "text_model.final_layer_norm.weight", &x);
        read_clip("qb", "text_model.final_layer_norm.weight", &y);
        for (int64_t j = 0; j < x.rows; j++) {
            double want = (cases[i].keep + cases[i].take) * (double)x.v[j] +
                          cases[i].take * (double)clip_diff[j];
            assert_true(fabs(want - (double)y.v[j]) <= 0.005 * fabs(want) + 1e-6);
        }
        at_matrix_free(&x);
        at_matrix_free(&y);
    }
}

// The longest name that a key begins with rules it; what none names takes the first number.
static void blocks_have_shares_of_their_own(void **state)
{
    world *w = *state;
    at_matrix x = {0}, y = {0}, z = {0};
    at_str names = {0};

    for (int i = 0; i < 57; i++)
        at_str_printf(&names, ",'%s_blocks.%d.':%s", i < 19 ? "double" : "single",
                      i < 19 ? i : i - 19, i == 0 ? "0.25" : "1");
    world_run(w, WORLD_MODELS SECOND,
              world_nodes("'g':{'class_type':'ModelMergeFlux1','inputs':{'model1':['m',0],"
                          "'model2':['l',0],'img_in.':1,'time_in.':1,'guidance_in':1,"
                          "'vector_in.':1,'txt_in.':1,'final_layer.':1%s}},",
                          at_str_text(&names)),
              "'b':{'class_type':'ModelMergeBlocks','inputs':{'model1':['m',0],'model2':['l',0],"
              "'input':0.5,'middle':1,'out':1}},",
              CAPTURE("qx", "['m',0]") ",", CAPTURE("qy", "['g',0]") ",", CAPTURE("qz", "['b',0]"));
    read_model("qx", LAYER, &x);
    read_model("qy", LAYER, &y);
    read_model("qz", LAYER, &z);
    assert_sum(&y, 1, &x, 0, NULL, 0.75 * (double)alpha / RANK);
    assert_sum(&z, 1, &x, 0, NULL, 0.5 * (double)alpha / RANK);
    at_str_free(&names);
    at_matrix_free(&x);
    at_matrix_free(&y);
    at_matrix_free(&z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lora_adds_its_product_to_both_models),
        cmocka_unit_test(loras_in_a_row_add_up_and_nothing_is_nothing),
        cmocka_unit_test(a_trained_lora_comes_over_a_link),
        cmocka_unit_test(a_lora_shows_in_the_latent),
        cmocka_unit_test(models_are_mixed_subtracted_and_added),
        cmocka_unit_test(encoders_are_mixed_subtracted_and_added),
        cmocka_unit_test(blocks_have_shares_of_their_own),
    };
    return cmocka_run_group_tests_name("nodes.lora", tests, setup, world_close);
}
