// SPDX-License-Identifier: Apache-2.0
// lora_save_test.c - differences of models written as LoRAs: what lies in the file, and that the
// LoRA gives the difference back. The decomposition itself is src/weight/svd_test.c.
#include "world.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "weight/edits.h"
#include "weight/matrix.h"
#include "weight/safetensors.h"

#define LAYER   "double_blocks.0.img_attn.proj"
#define NORM    "text_model.final_layer_norm"
#define CLIP_TO "text_encoders.clip_l.transformer."
#define LORA(id, file)                                                                             \
    "'" id "':{'class_type':'LoraLoader','inputs':{'model':['m',0],'clip':['c',0],"                \
    "'lora_name':'" file "','strength_model':1,'strength_clip':1}},"
// twice what the LoRA changes, of both models
#define DIFFERENCE(file)                                                                           \
    LORA("l", file)                                                                                \
    "'dm':{'class_type':'ModelMergeSubtract','inputs':{'model1':['l',0],'model2':['m',0],"         \
    "'multiplier':2}},'dc':{'class_type':'CLIPMergeSubtract','inputs':{'clip1':['l',1],"           \
    "'clip2':['c',0],'multiplier':2}},"
#define SAVE(name, rank, type, bias)                                                               \
    "'k':{'class_type':'LoraSave','inputs':{'filename_prefix':'loras/" name "','rank':" rank       \
    ",'lora_type':'" type "','bias_diff':" bias ",'model_diff':['dm',0],"                          \
    "'text_encoder_diff':['dc',0]}}"

enum { MAX_SIDE = 256 };
static float up[MAX_SIDE], down[MAX_SIDE], bias[MAX_SIDE], norm[MAX_SIDE], broken[MAX_SIDE];

// Rows of 0.25 and -0.25: all numbers of a factor are of one size, so the clamp leaves them alone,
// whatever the signs of the singular vectors.
static void prepare(void)
{
    for (int i = 0; i < MAX_SIDE; i++) {
        up[i] = i % 2 ? 0.5f : -0.5f;
        down[i] = i % 4 < 2 ? 0.5f : -0.5f;
        bias[i] = (float)i / 64;
        norm[i] = (float)(i % 8) / 32 - 0.125f;
        broken[i] = NAN;
    }
}

static void write_lora(const world *w, const char *file, const float *upper, int64_t n, int64_t k,
                       int64_t clip_width)
{
    const at_st_out rows[] = {
        {"diffusion_model." LAYER ".lora_up.weight", AT_F32, 2, {n, 1}, upper},
        {"diffusion_model." LAYER ".lora_down.weight", AT_F32, 2, {1, k}, down},
        {"diffusion_model." LAYER ".diff_b", AT_F32, 1, {n}, bias},
        {CLIP_TO NORM ".diff", AT_F32, 1, {clip_width}, norm},
    };

    assert_int_equal(at_st_write(world_path(w, "models/loras/%s", file), rows,
                                 sizeof rows / sizeof *rows, NULL, 0),
                     AT_OK);
}

static const at_weight *weight_of(const char *id, bool clip, const char *key)
{
    const at_object *o = world_object(id, clip ? "CLIP" : "MODEL");
    const at_weight *w;

    if (clip) {
        const at_encoder *e = ((const at_obj_clip *)o)->enc[AT_TE_L].encoder;
        w = at_store_findf(at_encoder_store(e), "%s%s", at_encoder_prefix(e), key);
    } else {
        const at_model *m = ((const at_obj_model *)o)->model;
        w = at_store_findf(at_model_store(m), "%s%s", at_model_prefix(m), key);
    }
    assert_non_null(w);
    return w;
}

static int setup(void **state)
{
    if (world_open(state) != 0) return -1;
    world *w = *state;
    prepare();
    world_run(w, WORLD_MODELS WORLD_CAPTURE("qa", "['m',0]") ",", WORLD_CAPTURE("qb", "['c',0]"));
    const at_weight *layer = weight_of("qa", false, LAYER ".weight");
    const at_weight *clip = weight_of("qb", true, NORM ".weight");
    assert_true(layer->shape[0] <= MAX_SIDE && layer->shape[1] <= MAX_SIDE &&
                clip->shape[0] <= MAX_SIDE);
    assert_int_equal(at_make_dirs(world_path(w, "models/loras")), AT_OK);
    write_lora(w, "one.safetensors", up, layer->shape[0], layer->shape[1], clip->shape[0]);
    write_lora(w, "nan.safetensors", broken, layer->shape[0], layer->shape[1], clip->shape[0]);
    return 0;
}

static at_store *open_saved(const world *w, const char *name)
{
    at_store *s = NULL;

    if (at_store_open(world_path(w, "output/loras/%s_00001_.safetensors", name), &s) != AT_OK)
        fail_msg("%s", at_error_text());
    return s;
}

// The names that a model's records become. matrices: weights of two or four dimensions are factors;
// bias: biases, and with `matrices` weights of one dimension, are written. Returns how many.
static size_t assert_names(at_store *got, at_store *model, const char *to, bool matrices,
                           bool with_bias, int64_t rank)
{
    size_t n = 0;

    for (size_t i = 0; i < at_store_count(model); i++) {
        const at_weight *w = at_store_at(model, i);
        size_t length = strlen(w->name);
        if (at_ends_with(w->name, ".bias")) {
            const at_weight *b = at_store_findf(got, "%s%.*s.diff_b", to, (int)length - 5, w->name);
            assert_int_equal(b != NULL, with_bias);
            n += b != NULL;
        }
        if (!at_ends_with(w->name, ".weight")) continue;
        int stem = (int)length - 7;
        const at_weight *d = at_store_findf(got, "%s%.*s.diff", to, stem, w->name);
        const at_weight *u = at_store_findf(got, "%s%.*s.lora_up.weight", to, stem, w->name);
        const at_weight *l = at_store_findf(got, "%s%.*s.lora_down.weight", to, stem, w->name);
        bool pair = matrices && w->rank > 1;
        assert_int_equal(u != NULL, pair);
        assert_int_equal(l != NULL, pair);
        assert_int_equal(d != NULL, !matrices || (w->rank == 1 && with_bias));
        n += (size_t)(u != NULL) + (l != NULL) + (d != NULL);
        if (!pair) continue;
        int64_t want = rank < w->shape[0] ? rank : w->shape[0];
        want = want < w->shape[1] ? want : w->shape[1];
        assert_true(u->dtype == AT_F16 && u->shape[0] == w->shape[0] && u->shape[1] == want);
        assert_true(l->dtype == AT_F16 && l->shape[0] == want && l->shape[1] == w->shape[1]);
    }
    assert_true(n > 0);
    return n;
}

// All names, and no others.
static void assert_file(const world *w, at_store *got, bool matrices, bool with_bias, int64_t rank)
{
    static const struct {
        const char *file, *to;
    } models[] = {
        {"diffusion_models/tiny_dev.safetensors", "diffusion_model."},
        {"text_encoders/tiny_clip_l.safetensors", CLIP_TO},
        {"text_encoders/tiny_t5.safetensors", "text_encoders.t5xxl.transformer."},
    };
    size_t n = 0;

    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        at_store *s = NULL;
        assert_int_equal(at_store_open(world_path(w, "models/%s", models[i].file), &s), AT_OK);
        n += assert_names(got, s, models[i].to, matrices, with_bias, rank);
        at_store_release(&s);
    }
    assert_int_equal(at_store_count(got), n);
    assert_null(at_store_metadata(got, "prompt"));
}

static void assert_near(float got, double want, double tolerance)
{
    if (!(fabs((double)got - want) <= tolerance)) fail_msg("%g, not %g", (double)got, want);
}

static void factors_multiply_to_the_difference(void **state)
{
    world *w = *state;
    at_matrix u, v;

    world_run(w, WORLD_MODELS DIFFERENCE("one.safetensors") SAVE("std", "3", "standard", "true"));
    at_store *got = open_saved(w, "std");
    assert_file(w, got, true, true, 3);
    const char *key = "diffusion_model." LAYER;
    assert_int_equal(at_matrix_read(at_store_findf(got, "%s.lora_up.weight", key), &u), AT_OK);
    assert_int_equal(at_matrix_read(at_store_findf(got, "%s.lora_down.weight", key), &v), AT_OK);
    for (int64_t i = 0; i < u.rows; i++)
        for (int64_t j = 0; j < v.cols; j++) {
            double sum = 0;
            for (int64_t r = 0; r < 3; r++)
                sum += (double)u.v[i * 3 + r] * (double)v.v[r * v.cols + j];
            assert_near((float)sum, 2 * (double)up[i] * (double)down[j], 1e-3); // f16 factors
        }
    float x;
    for (int64_t i = 0; i < u.rows; i++) {
        at_weight_read_f32(at_store_findf(got, "%s.diff_b", key), i, 1, &x);
        assert_near(x, 2 * (double)bias[i], 1e-3 * fabs((double)bias[i]) + 1e-6);
    }
    at_weight_read_f32(at_store_find(got, CLIP_TO NORM ".diff"), 1, 1, &x);
    assert_near(x, 2 * (double)norm[1], 1e-4);
    at_matrix_free(&u);
    at_matrix_free(&v);
    at_store_release(&got);
}

static void full_differences_go_out_whole(void **state)
{
    world *w = *state;
    at_matrix d;

    world_run(w,
              WORLD_MODELS DIFFERENCE("one.safetensors") SAVE("full", "3", "full_diff", "false"));
    at_store *got = open_saved(w, "full");
    assert_file(w, got, false, false, 0);
    assert_int_equal(at_matrix_read(at_store_find(got, "diffusion_model." LAYER ".diff"), &d),
                     AT_OK);
    for (int64_t i = 0; i < d.rows; i++)
        for (int64_t j = 0; j < d.cols; j++)
            assert_near(d.v[i * d.cols + j], 2 * (double)up[i] * (double)down[j], 1e-6);
    at_matrix_free(&d);
    at_store_release(&got);
    world_run(w, WORLD_MODELS DIFFERENCE("one.safetensors") SAVE("few", "1", "standard", "false"));
    got = open_saved(w, "few");
    assert_file(w, got, true, false, 1);
    at_store_release(&got);
}

// The saved LoRA, put on the models it came from, changes them as the first one did, twice.
static void a_saved_lora_loads_again(void **state)
{
    static const char *const kinds[] = {"standard", "full_diff"};
    world *w = *state;

    for (int k = 0; k < 2; k++) {
        char name[48];
        at_matrix x[4], y[4];
        snprintf(name, sizeof name, "again%d", k);
        world_run(w, WORLD_MODELS DIFFERENCE("one.safetensors"),
                  world_nodes("'k':{'class_type':'LoraSave','inputs':{'filename_prefix':'loras/%s',"
                              "'rank':2,'lora_type':'%s','bias_diff':true,'model_diff':['dm',0],"
                              "'text_encoder_diff':['dc',0]}}",
                              name, kinds[k]));
        char *from = at_strdup(world_path(w, "output/loras/%s_00001_.safetensors", name));
        assert_int_equal(rename(from, world_path(w, "models/loras/again.safetensors")), 0);
        at_free(from);
        world_run(w, WORLD_MODELS LORA("a", "again.safetensors"),
                  WORLD_CAPTURE("qa", "['m',0]") ",", WORLD_CAPTURE("qb", "['a',0]") ",",
                  WORLD_CAPTURE("qc", "['c',0]") ",", WORLD_CAPTURE("qd", "['a',1]"));
        static const char *const keys[] = {LAYER ".weight", LAYER ".bias", NORM ".weight"};
        for (int i = 0; i < 3; i++) {
            assert_int_equal(at_edits_read(weight_of(i < 2 ? "qa" : "qc", i == 2, keys[i]), &x[i]),
                             AT_OK);
            assert_int_equal(at_edits_read(weight_of(i < 2 ? "qb" : "qd", i == 2, keys[i]), &y[i]),
                             AT_OK);
            for (int64_t r = 0; r < x[i].rows; r++)
                for (int64_t c = 0; c < x[i].cols; c++) {
                    double add = i == 0   ? (double)up[r] * (double)down[c]
                                 : i == 1 ? (double)bias[r]
                                          : (double)norm[r];
                    double old = (double)x[i].v[r * x[i].cols + c];
                    assert_near(y[i].v[r * x[i].cols + c], old + 2 * add, 2e-3 * fabs(add) + 1e-4);
                }
            at_matrix_free(&x[i]);
            at_matrix_free(&y[i]);
        }
    }
}

typedef struct kernel {
    const char *key;
    int64_t out, in, side;
} kernel;

// Shapes; and at rank 1, where the clamp has nothing to cut, minus the LoRA's product.
static void assert_kernel(const at_weight *u, const at_weight *l, const kernel *k, int64_t rank,
                          const float *lower)
{
    int64_t n = k->in * k->side * k->side;
    at_matrix a, b;

    assert_non_null(u);
    assert_non_null(l);
    assert_memory_equal(u->shape, ((int64_t[]){k->out, rank, 1, 1}), 4 * sizeof(int64_t));
    assert_memory_equal(l->shape, ((int64_t[]){rank, k->in, k->side, k->side}),
                        4 * sizeof(int64_t));
    if (rank > 1) return;
    assert_int_equal(at_matrix_read(u, &a), AT_OK);
    assert_int_equal(at_matrix_read(l, &b), AT_OK);
    for (int64_t y = 0; y < k->out; y++)
        for (int64_t x = 0; x < n; x++)
            assert_near(a.v[y] * b.v[x], -(double)up[y] * (double)lower[x], 1e-3);
    at_matrix_free(&a);
    at_matrix_free(&b);
}

// Kernels of a UNet: the upper factor is a 1x1 convolution, the lower one has the kernel, and the
// rank ends at the channels.
static void convolutions_keep_their_kernels(void **state)
{
    static const kernel cases[] = {{"input_blocks.4.0.in_layers.2", 64, 32, 3},
                                   {"input_blocks.4.0.skip_connection", 64, 32, 1}};
    world *w = *state;
    char name[4][96];
    float lower[32 * 9];

    for (int i = 0; i < 32 * 9; i++)
        lower[i] = i % 3 == 1 || i % 4 == 2 ? 0.5f : -0.5f;
    at_st_out rows[4] = {0};
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            char *to = name[2 * i + k];
            snprintf(to, 96, "diffusion_model.%s.lora_%s.weight", cases[i].key, k ? "down" : "up");
            rows[2 * i + k] = k ? (at_st_out){to,
                                              AT_F32,
                                              4,
                                              {1, cases[i].in, cases[i].side, cases[i].side},
                                              lower}
                                : (at_st_out){to, AT_F32, 4, {cases[i].out, 1, 1, 1}, up};
        }
    assert_int_equal(at_st_write(world_path(w, "models/loras/conv.safetensors"), rows, 4, NULL, 0),
                     AT_OK);
    assert_int_equal(symlink(AT_SOURCE_DIR "/tests/golden/unet_sd15/model.safetensors",
                             world_path(w, "models/diffusion_models/sd15.safetensors")),
                     0);
    for (int k = 0; k < 2; k++) {
        int64_t rank = k ? 48 : 1;
        world_run(w,
                  "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'sd15.safetensors',"
                  "'weight_dtype':'default'}},"
                  "'l':{'class_type':'LoraLoaderModelOnly','inputs':{'model':['m',0],"
                  "'lora_name':'conv.safetensors','strength_model':1}},"
                  "'dm':{'class_type':'ModelMergeSubtract','inputs':{'model1':['l',0],"
                  "'model2':['m',0],'multiplier':-1}},",
                  world_nodes("'k':{'class_type':'LoraSave','inputs':{'filename_prefix':"
                              "'loras/conv%d','rank':%d,'lora_type':'standard','bias_diff':false,"
                              "'model_diff':['dm',0]}}",
                              k, (int)rank));
        at_store *got = open_saved(w, k ? "conv1" : "conv0");
        for (int i = 0; i < 2; i++)
            assert_kernel(at_store_find(got, name[2 * i]), at_store_find(got, name[2 * i + 1]),
                          &cases[i], rank < 32 ? rank : 32, lower);
        // the last convolution has 4 channels
        assert_int_equal(at_store_find(got, "diffusion_model.out.2.lora_up.weight")->shape[1],
                         rank < 4 ? rank : 4);
        at_store_release(&got);
    }
}

static void collect_warnings(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)level;
    if (!strcmp(id, "LORA-SAVE")) snprintf(ctx, 256, "%s", text);
}

static void what_is_not_finite_is_left_out(void **state)
{
    world *w = *state;
    char warned[256] = "";

    at_log_set_writer(collect_warnings, warned);
    world_run(w, WORLD_MODELS DIFFERENCE("nan.safetensors") SAVE("nan", "2", "standard", "true"));
    at_log_set_writer(NULL, NULL);
    assert_non_null(strstr(warned, LAYER ".weight is not in the LoRA"));
    at_store *got = open_saved(w, "nan");
    assert_null(at_store_find(got, "diffusion_model." LAYER ".lora_up.weight"));
    assert_non_null(at_store_find(got, "diffusion_model." LAYER ".diff_b"));
    assert_non_null(at_store_find(got, "diffusion_model.img_in.lora_up.weight"));
    at_store_release(&got);
}

// Without models there is nothing to do, and no file.
static void no_difference_is_no_file(void **state)
{
    world *w = *state;

    world_run(w, "'k':{'class_type':'LoraSave','inputs':{'filename_prefix':'loras/none','rank':8,"
                 "'lora_type':'standard','bias_diff':true}}");
    assert_int_equal(access(world_path(w, "output/loras/none_00001_.safetensors"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_multiply_to_the_difference),
        cmocka_unit_test(full_differences_go_out_whole),
        cmocka_unit_test(a_saved_lora_loads_again),
        cmocka_unit_test(convolutions_keep_their_kernels),
        cmocka_unit_test(what_is_not_finite_is_left_out),
        cmocka_unit_test(no_difference_is_no_file),
    };
    return cmocka_run_group_tests_name("nodes.lora_save", tests, setup, world_close);
}
