// SPDX-License-Identifier: Apache-2.0
// unet_test.c - UNets: families told apart, facts that lie in the file, the vector beside the text,
// what is refused, the estimate of work, names of diffusers' layout. Numbers of the forward are the
// golden cases'.
#include "models/unet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/unet_keys.h"
#include "models/wave_test.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return 0;
}

static at_store *open_golden(const char *name)
{
    char path[512];
    at_store *s = NULL;
    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", name);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    return s;
}

// The shapes of a golden file without bytes; tensor `key` gets `dim` = `size` instead (NULL: none).
static at_store *shapes_of(const char *name, const char *key, int dim, int64_t size)
{
    at_store *from = open_golden(name), *s = NULL;
    assert_int_equal(at_store_new("shapes", &s), AT_OK);
    for (size_t i = 0; i < at_store_count(from); i++) {
        const at_weight *w = at_store_at(from, i);
        int64_t shape[AT_MAX_RANK];
        memcpy(shape, w->shape, sizeof shape);
        if (key && strcmp(w->name, key) == 0) shape[dim] = size;
        assert_int_equal(at_store_add_shape(s, w->name, w->dtype, w->rank, shape), AT_OK);
    }
    at_store_release(&from);
    return s;
}

static void add_mark(at_store *s, const char *name)
{
    assert_int_equal(at_store_add_shape(s, name, AT_F32, 0, NULL), AT_OK);
}

static void fill_floats(void *ctx, void *bytes, size_t n)
{
    memcpy(bytes, ctx, n);
}

static const at_arch *arch_of(at_store *s)
{
    at_found f[4];
    assert_int_equal(at_detect(s, f, 4), 1);
    return f[0].arch;
}

static at_model *load(at_store *s)
{
    at_model *m = NULL;
    at_status st = at_model_load(s, "unet", &m);
    if (st != AT_OK) fail_msg("%s", at_error_text());
    return m;
}

// --- families ----------------------------------------------------------------------------------
static void families_are_told_apart_by_their_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *file, *key, *name;
        int dim;
        int64_t size;
    } cases[] = {
        {"unet_sd15", NULL, "sd15", 0, 0},
        {"unet_sd15_inpaint", NULL, "sd15_inpaint", 0, 0},
        {"unet_ip2p", NULL, "sd15_ip2p", 0, 0},
        {"unet_sd2", NULL, "sd2", 0, 0},
        {"unet_sd2", "input_blocks.0.0.weight", "sd2_inpaint", 1, 9},
        {"unet_sdxl", NULL, "sdxl", 0, 0},
        {"unet_sdxl", "input_blocks.0.0.weight", "sdxl_inpaint", 1, 9},
        {"unet_sdxl", "input_blocks.0.0.weight", "sdxl_ip2p", 1, 8},
        {"unet_sdxl", "label_emb.0.0.weight", "sdxl_refiner", 1, 2560},
        {"unet_sdxl", "label_emb.0.0.weight", "lotus", 1, 4},
        {"unet_koala", NULL, "koala_700m", 0, 0},
    };
    for (size_t i = 0; i < AT_LEN(cases); i++) {
        at_store *s = shapes_of(cases[i].file, cases[i].key, cases[i].dim, cases[i].size);
        assert_string_equal(at_arch_name(arch_of(s)), cases[i].name);
        at_store_release(&s);
    }
}

static void a_layout_of_diffusers_becomes_the_original(void **state)
{
    (void)state;
    at_store *s = open_golden("unet_sd15_diffusers");
    assert_string_equal(at_arch_name(arch_of(s)), "unet_diffusers");
    at_model *m = load(s);
    assert_string_equal(at_arch_name(at_model_arch(m)), "sd15");
    assert_string_equal(at_model_prefix(m), "");
    const at_weight *w = at_store_find(at_model_store(m), "input_blocks.1.0.in_layers.2.weight");
    const at_weight *from = at_store_find(s, "down_blocks.0.resnets.0.conv1.weight");
    assert_ptr_equal(w->data, from->data); // no byte is copied
    at_model_release(&m);
    at_store_release(&s);
}

static void marks_at_the_root_say_what_is_predicted(void **state)
{
    (void)state;
    static const struct {
        const char *marks[2], *name;
        at_prediction prediction;
        at_sigma_kind kind;
        bool zsnr;
    } cases[] = {
        {{NULL}, "sdxl", AT_PRED_EPS, AT_SIGMA_DISCRETE, false},
        {{"v_pred"}, "sdxl", AT_PRED_V, AT_SIGMA_DISCRETE, false},
        {{"v_pred", "ztsnr"}, "sdxl", AT_PRED_V, AT_SIGMA_DISCRETE, true},
        {{"edm_mean", "edm_std"}, "playground25", AT_PRED_EDM, AT_SIGMA_CONTINUOUS_EDM, false},
    };
    for (size_t i = 0; i < AT_LEN(cases); i++) {
        at_store *s = shapes_of("unet_sdxl", NULL, 0, 0);
        for (int k = 0; k < 2 && cases[i].marks[k]; k++)
            add_mark(s, cases[i].marks[k]);
        at_model *m = load(s);
        const at_model_sampling *ms = at_model_get_sampling(m);
        assert_string_equal(at_arch_name(at_model_arch(m)), cases[i].name);
        assert_int_equal(ms->prediction, cases[i].prediction);
        assert_int_equal(ms->kind, cases[i].kind);
        assert_int_equal(ms->zsnr, cases[i].zsnr);
        at_model_release(&m);
        at_store_release(&s);
    }
}

static void edm_vpred_brings_its_range(void **state)
{
    (void)state;
    at_store *s = shapes_of("unet_sdxl", NULL, 0, 0);
    float most = 96.5f;
    assert_int_equal(at_store_add(s, "edm_vpred.sigma_max", AT_F32, 0, NULL, fill_floats, &most),
                     AT_OK);
    at_model *m = load(s);
    const at_model_sampling *ms = at_model_get_sampling(m);
    assert_int_equal(ms->prediction, AT_PRED_V);
    assert_int_equal(ms->kind, AT_SIGMA_CONTINUOUS_EDM);
    assert_true(ms->sigma_max == 96.5 && ms->sigma_min == 0.002);
    at_model_release(&m);
    at_store_release(&s);
}

// ComfyUI's rule: a population deviation above 0.09 of one bias means v.
static void sd2_predicts_v_when_one_bias_is_spread(void **state)
{
    (void)state;
    static const char key[] = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
    static const struct {
        float spread;
        at_prediction prediction;
    } cases[] = {{0.0899f, AT_PRED_EPS}, {0.0901f, AT_PRED_V}};
    for (size_t i = 0; i < AT_LEN(cases); i++) {
        at_store *s = shapes_of("unet_sd2", NULL, 0, 0);
        float v[] = {0.5f + cases[i].spread, 0.5f - cases[i].spread};
        int64_t n = 2;
        assert_int_equal(at_store_add(s, key, AT_F32, 1, &n, fill_floats, v), AT_OK);
        at_model *m = load(s);
        assert_int_equal(at_model_get_sampling(m)->prediction, cases[i].prediction);
        at_model_release(&m);
        at_store_release(&s);
    }
}

static void files_that_cannot_be_a_unet_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *says;
        int dim;
        int64_t size;
    } cases[] = {
        {"input_blocks.2.0.in_layers.2.weight", "does not fit the one before", 1, 96},
        {"output_blocks.1.0.in_layers.2.weight", "and its skip", 1, 160},
        {"out.2.weight", NULL, 1, 33},
        {"time_embed.0.weight", "multiple of 32", 0, 100},
        {"input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight", "attn2.to_v.weight is", 1, 3},
    };
    for (size_t i = 0; i < AT_LEN(cases); i++) {
        at_store *s = shapes_of("unet_sd15", cases[i].key, cases[i].dim, cases[i].size);
        at_model *m = NULL;
        assert_int_equal(at_model_load(s, "bent", &m), AT_EFORMAT);
        assert_null(m);
        at_store_release(&s);
        if (cases[i].says && !strstr(at_error_text(), cases[i].says))
            fail_msg("%s", at_error_text());
    }
}

static void families_to_come_are_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Diffusion 3"},
        {"txt_norm.weight", "Qwen-Image"},
        {"head.modulation", "Wan"},
    };
    for (size_t i = 0; i < AT_LEN(cases); i++) {
        at_store *s = NULL;
        at_model *m = NULL;
        assert_int_equal(at_store_new("foreign", &s), AT_OK);
        add_mark(s, cases[i][0]);
        assert_int_equal(at_model_load(s, "foreign", &m), AT_EUNSUPPORTED);
        assert_non_null(strstr(at_error_text(), cases[i][1]));
        at_store_release(&s);
    }
    at_store *video = shapes_of("unet_sd15", NULL, 0, 0);
    at_model *m = NULL;
    add_mark(video, "input_blocks.1.1.time_stack.0.norm1.weight");
    assert_int_equal(at_model_load(video, "video", &m), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "Stable Video Diffusion"));
    at_store_release(&video);
}

// --- the vector --------------------------------------------------------------------------------
enum { POOLED = 8 };

static float *vector_of(const char *arch, int64_t width, const at_vector_in *sizes, at_ops **ops)
{
    at_store *s = shapes_of("unet_sdxl", "label_emb.0.0.weight", 1, width);
    at_model *m = load(s);
    float pooled[2 * 1280];
    int64_t n = width == 2560 ? 1280 : POOLED;
    at_vector_in in = *sizes;

    assert_string_equal(at_arch_name(at_model_arch(m)), arch);
    for (int i = 0; i < 2 * n; i++)
        pooled[i] = (float)i;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, ops), AT_OK);
    in.pooled = at_from_host(*ops, AT_F32, 2, (int64_t[]){2, n}, pooled);
    at_tensor *v = at_model_vector(*ops, m, &in);
    assert_non_null(v);
    assert_int_equal(v->shape[0], 2);
    assert_int_equal(v->shape[1], width);
    assert_true(((float *)at_tensor_data(v))[width + 1] == (float)(n + 1)); // the second row's own
    at_model_release(&m);
    at_store_release(&s);
    return at_tensor_data(v);
}

typedef struct at_number {
    int at;
    double value;
} at_number;

// Angles reach 1100 in f32, whose steps there are 1.2e-4.
static void assert_numbers(const float *v, const at_number *n, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fabs((double)v[n[i].at] - n[i].value) > 2e-4)
            fail_msg("entry %d is %g, not %g", n[i].at, (double)v[n[i].at], n[i].value);
}

// From ComfyUI 0.3.64: SDXL.encode_adm of 1024x768, crop 32, 16, target 1100x900.
static void sdxl_is_told_six_sizes(void **state)
{
    (void)state;
    static const at_number expected[] = {
        {0, 0.11912},      {1, -0.033001},   {5, -0.288146},    {40, 0.70065},    {127, 0.996596},
        {128, 0.99288},    {200, -0.923531}, {255, 0.082436},   {256, 0.987354},  {300, 0.696293},
        {384, -0.158533},  {512, -0.957659}, {640, -0.287903},  {700, 0.211748},  {768, 0.834223},
        {896, 0.551427},   {1024, 0.066247}, {1100, -0.793854}, {1152, 0.997803}, {1280, 0.903654},
        {1300, -0.995115}, {1408, 0.428264}, {1535, 0.117932}};
    at_ops *o = NULL;
    const float *v = vector_of("sdxl", POOLED + 1536,
                               &(at_vector_in){.width = 1024,
                                               .height = 768,
                                               .crop_w = 32,
                                               .crop_h = 16,
                                               .target_w = 1100,
                                               .target_h = 900,
                                               .score = 6},
                               &o);
    assert_true(v[0] == 0 && v[POOLED - 1] == POOLED - 1);
    assert_numbers(v + POOLED, expected, AT_LEN(expected));
    at_ops_free(o);
}

static void the_refiner_is_told_four_sizes_and_a_score(void **state)
{
    (void)state;
    static const at_number expected[] = {{0, 0.11912},     {700, 0.211748},  {1024, -0.801144},
                                         {1025, -0.68575}, {1060, 0.982478}, {1151, 1.0},
                                         {1152, 0.598472}, {1200, 0.078975}, {1279, 0.000269}};
    at_ops *o = NULL;
    const float *v = vector_of(
        "sdxl_refiner", 2560,
        &(at_vector_in){.width = 1024, .height = 768, .crop_w = 32, .crop_h = 16, .score = 2.5},
        &o);
    assert_numbers(v + 1280, expected, AT_LEN(expected));
    at_ops_free(o);
}

// --- forward -----------------------------------------------------------------------------------
typedef struct run {
    at_store *store;
    at_model *model;
    at_ops *o;
    at_model_in in;
} run;

static run run_open(const char *name, int64_t h, int64_t w)
{
    static const float t[] = {500.0f};
    run r = {.store = open_golden(name)};
    r.model = load(r.store);
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &r.o), AT_OK);
    int64_t vector = at_model_vector_width(r.model);
    r.in = (at_model_in){
        .x = wave(r.o, 4, (int64_t[]){1, 4, h, w}, 0),
        .timestep = t,
        .context = wave(r.o, 3, (int64_t[]){1, 7, at_model_text_width(r.model)}, 1),
        .pooled = vector ? wave(r.o, 2, (int64_t[]){1, vector}, 2) : NULL,
    };
    return r;
}

static void run_close(run *r)
{
    at_ops_free(r->o);
    at_model_release(&r->model);
    at_store_release(&r->store);
}

static void what_does_not_fit_the_network_is_named(void **state)
{
    (void)state;
    run r = run_open("unet_sdxl", 8, 8);
    at_model_in good = r.in, bad;
    struct {
        const char *says;
        at_model_in in;
    } cases[3];

    for (int i = 0; i < 3; i++)
        cases[i].in = good;
    cases[0].says = "takes 4 channels, not a latent of 4 and 5 behind it";
    cases[0].in.concat = wave(r.o, 4, (int64_t[]){1, 5, 8, 8}, 3);
    cases[1].says = "takes text of width 40 and batch 1, not 41 and 1";
    cases[1].in.context = wave(r.o, 3, (int64_t[]){1, 7, 41}, 1);
    cases[2].says = "takes a vector [1, 96]";
    cases[2].in.pooled = NULL;
    for (int i = 0; i < 3; i++) {
        bad = cases[i].in;
        assert_null(at_model_forward(r.o, r.model, &bad));
        assert_int_equal(at_ops_clear(r.o), AT_EINVAL);
        if (!strstr(at_error_text(), cases[i].says)) fail_msg("%s", at_error_text());
    }
    assert_non_null(at_model_forward(r.o, r.model, &good));
    run_close(&r);
}

// A residual of the wrong size fails in the output half, where skips are held.
static void a_failure_half_way_leaves_no_skips_behind(void **state)
{
    (void)state;
    run r = run_open("unet_sd15", 8, 8);
    at_control control = {0};
    size_t live;

    assert_non_null(at_model_forward(r.o, r.model, &r.in)); // packs weights
    control.skip[1] = wave(r.o, 4, (int64_t[]){1, 5, 5, 7}, 0);
    r.in.control = &control;
    live = at_mem_get_stats().live_bytes;
    at_scope_begin(r.o);
    assert_null(at_model_forward(r.o, r.model, &r.in));
    at_scope_end(r.o, NULL);
    assert_true(at_mem_get_stats().live_bytes <= live + 256); // the text of the failure
    assert_int_equal(at_ops_clear(r.o), AT_EINVAL);
    run_close(&r);
}

static void residuals_reach_what_lies_behind_them(void **state)
{
    (void)state;
    run r = run_open("unet_sd15", 8, 8);
    at_control control = {0};
    at_tensor *plain = at_model_forward(r.o, r.model, &r.in);
    at_tensor *zero = at_zeros(r.o, AT_F32, 4, (int64_t[]){1, 8, 8, 32});

    assert_non_null(plain);
    control.input[0] = control.skip[1] = zero;
    r.in.control = &control;
    at_tensor *same = at_model_forward(r.o, r.model, &r.in);
    assert_non_null(same);
    assert_memory_equal(at_tensor_data(plain), at_tensor_data(same), 4 * 8 * 8 * sizeof(float));
    control.skip[1] = wave(r.o, 4, (int64_t[]){1, 8, 8, 32}, 0);
    at_tensor *other = at_model_forward(r.o, r.model, &r.in);
    assert_non_null(other);
    assert_memory_not_equal(at_tensor_data(plain), at_tensor_data(other), 256 * sizeof(float));
    run_close(&r);
}

// The estimate counts products; timestep embeddings aside it is what the ops counted.
static void the_estimate_is_the_work_that_is_done(void **state)
{
    (void)state;
    static const char *const names[] = {"unet_sd15", "unet_sd2", "unet_sdxl", "unet_koala"};
    for (size_t i = 0; i < AT_LEN(names); i++) {
        run r = run_open(names[i], 12, 16);
        at_ops_stats stats;
        at_ops_stats_reset(r.o);
        assert_non_null(at_model_forward(r.o, r.model, &r.in));
        at_ops_stats_get(r.o, &stats);
        double done = stats.flops_linear + stats.flops_attention + stats.flops_conv;
        at_model_cost c = at_model_estimate(r.model, 1, 12, 16, 7, AT_F32);
        if (fabs(c.flops / done - 1) > 0.01)
            fail_msg("%s: %g estimated, %g done", names[i], c.flops, done);
        assert_true(c.activation_bytes > 0 && c.weight_bytes > 0);
        run_close(&r);
    }
}

// --- names -------------------------------------------------------------------------------------
static void names_of_diffusers_find_their_blocks(void **state)
{
    (void)state;
    // SDXL: two blocks a level, three up; the last up level has no transformers
    at_unet_levels l = {
        .count = 3, .down = {2, 2, 2}, .up = {3, 3, 3}, .up_attention = {true, true, false}};
    static const char *const cases[][2] = {
        {"conv_in.weight", "input_blocks.0.0.weight"},
        {"add_embedding.linear_2.bias", "label_emb.0.2.bias"},
        {"down_blocks.0.resnets.1.conv2.bias", "input_blocks.2.0.out_layers.3.bias"},
        {"down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"},
        {"down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight",
         "input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight"},
        {"mid_block.resnets.1.time_emb_proj.weight", "middle_block.2.emb_layers.1.weight"},
        {"mid_block.attentions.0.proj_in.bias", "middle_block.1.proj_in.bias"},
        {"up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"},
        {"up_blocks.1.resnets.0.conv_shortcut.weight", "output_blocks.3.0.skip_connection.weight"},
        {"up_blocks.2.resnets.2.norm1.weight", "output_blocks.8.0.in_layers.0.weight"},
        {"down_blocks.3.resnets.0.conv1.weight", NULL},
        {"down_blocks.0.resnets.2.conv1.weight", NULL},
        {"down_blocks.-1.resnets.0.conv1.weight", NULL},
        {"down_blocks.0.resnets.0.conv9.weight", NULL},
        {"mid_block.resnets.2.conv1.weight", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < AT_LEN(cases); i++) {
        char out[160];
        bool found = at_unet_original_key(&l, cases[i][0], out, sizeof out);
        assert_int_equal(found, cases[i][1] != NULL);
        if (found) assert_string_equal(out, cases[i][1]);
    }
    char small[8];
    assert_false(at_unet_original_key(&l, "conv_in.weight", small, sizeof small));
}

static void levels_are_the_same_from_both_layouts(void **state)
{
    (void)state;
    at_store *s = open_golden("unet_ssd1b_diffusers");
    at_unet_levels from_names, from_shape;
    at_unet_shape shape = {0};
    at_model *m = load(s);

    at_unet_levels_read(s, "", &from_names);
    assert_null(at_unet_measure(at_model_store(m), "", &shape));
    at_unet_levels_of(&shape, &from_shape);
    assert_memory_equal(&from_names, &from_shape, sizeof from_names);
    at_model_release(&m);
    at_store_release(&s);
}

int main(void)
{
#define T cmocka_unit_test
    const struct CMUnitTest tests[] = {
        T(families_are_told_apart_by_their_shapes),
        T(a_layout_of_diffusers_becomes_the_original),
        T(marks_at_the_root_say_what_is_predicted),
        T(edm_vpred_brings_its_range),
        T(sd2_predicts_v_when_one_bias_is_spread),
        T(files_that_cannot_be_a_unet_are_refused),
        T(families_to_come_are_named),
        T(sdxl_is_told_six_sizes),
        T(the_refiner_is_told_four_sizes_and_a_score),
        T(what_does_not_fit_the_network_is_named),
        T(a_failure_half_way_leaves_no_skips_behind),
        T(residuals_reach_what_lies_behind_them),
        T(the_estimate_is_the_work_that_is_done),
        T(names_of_diffusers_find_their_blocks),
        T(levels_are_the_same_from_both_layouts),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
