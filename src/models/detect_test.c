// SPDX-License-Identifier: Apache-2.0
// detect_test.c - what is found in a file, and what is said about a whole and a broken one.
#include "models/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

static at_store *open_golden(const char *name)
{
    char path[512];
    at_store *s = NULL;
    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", name);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    return s;
}

// The shapes of a model without its bytes; `skip` leaves one tensor out, `bend` bends one shape.
static at_store *shapes_of(at_store *from, const char *skip, const char *bend)
{
    at_store *s = NULL;
    assert_int_equal(at_store_new("shapes", &s), AT_OK);
    for (size_t i = 0; i < at_store_count(from); i++) {
        const at_weight *w = at_store_at(from, i);
        int64_t shape[AT_MAX_RANK];
        if (skip && strstr(w->name, skip)) continue;
        memcpy(shape, w->shape, sizeof shape);
        if (bend && strcmp(w->name, bend) == 0) shape[0] += 1;
        assert_int_equal(at_store_add_shape(s, w->name, w->dtype, w->rank, shape), AT_OK);
    }
    return s;
}

static const char *fact(const at_fact *f, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(f[i].name, name) == 0) return f[i].value;
    return "";
}

static void a_denoiser_is_found_among_fragments_of_other_models(void **state)
{
    (void)state;
    at_store *s = open_golden("flux_checkpoint");
    at_found f[8];
    assert_int_equal(at_detect(s, f, 8), 1);
    assert_string_equal(at_arch_name(f[0].arch), "flux1");
    assert_string_equal(f[0].prefix, "model.diffusion_model.");
    assert_int_equal(f[0].part, AT_PART_DENOISER);
    at_store_release(&s);
}

static void each_kind_of_file_is_told_apart(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"flux_dev", "flux1"},         {"flux_schnell", "flux1_schnell"},
        {"clip_l", "clip_l"},          {"t5", "t5"},
        {"vae_flux_decode", "kl_vae"}, {"vae_sd_decode", "kl_vae_diffusers"},
        {"vae_tiny_decode", "taesd"},  {"clip_g", "clip_g"},
        {"clip_h", "clip_h"},          {"unet_sd15", "sd15"},
        {"unet_sdxl", "sdxl"},         {"unet_ssd1b_diffusers", "unet_diffusers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_store *s = open_golden(cases[i][0]);
        at_found f[4];
        assert_int_equal(at_detect(s, f, 4), 1);
        assert_string_equal(at_arch_name(f[0].arch), cases[i][1]);
        assert_string_equal(f[0].prefix, "");
        at_store_release(&s);
    }
}

// In a checkpoint the place says which encoder it is, whatever its depth.
static void encoders_of_checkpoints_are_told_by_their_place(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"clip_g_open", "clip_g", "conditioner.embedders.1.model."},
        {"clip_h_open", "clip_h", "cond_stage_model.model."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_store *s = open_golden(cases[i][0]);
        at_found f[4];
        at_encoder *e = NULL;
        assert_int_equal(at_detect(s, f, 4), 1);
        assert_string_equal(at_arch_name(f[0].arch), cases[i][1]);
        assert_string_equal(f[0].prefix, cases[i][2]);
        assert_int_equal(at_encoder_load(s, f, &e), AT_OK);
        assert_string_equal(at_arch_name(at_encoder_arch(e)), cases[i][1]);
        at_encoder_release(&e);
        at_store_release(&s);
    }
}

static void a_foreign_layout_is_said_and_its_network_named(void **state)
{
    (void)state;
    at_store *s = open_golden("unet_sd15_diffusers");
    at_found f[1];
    at_fact facts[32];
    char *text = NULL;
    size_t count = 9;

    assert_int_equal(at_detect(s, f, 1), 1);
    size_t n = at_found_facts(s, f, facts, 32);
    assert_string_equal(fact(facts, n, "architecture"), "Stable Diffusion 1");
    assert_string_equal(fact(facts, n, "layout"), "UNet in diffusers' layout");
    assert_string_equal(fact(facts, n, "prediction"), "noise");
    assert_string_equal(fact(facts, n, "model channels"), "32");
    assert_int_equal(at_found_missing(s, f, &text, &count), AT_OK);
    assert_int_equal(count, 0);
    at_free(text);
    at_store_release(&s);
}

static void no_more_than_max_are_written(void **state)
{
    (void)state;
    at_store *s = open_golden("flux_dev");
    at_found f[1];
    assert_int_equal(at_detect(s, f, 0), 0);
    assert_int_equal(at_detect(s, f, 1), 1);
    at_fact facts[3];
    assert_int_equal(at_found_facts(s, f, facts, 3), 3);
    assert_int_equal(at_found_facts(s, f, facts, 0), 0);
    at_store_release(&s);
}

static void facts_are_read_off_the_shapes(void **state)
{
    (void)state;
    at_store *s = open_golden("flux_dev");
    at_found f[1];
    at_fact facts[32];
    assert_int_equal(at_detect(s, f, 1), 1);
    size_t n = at_found_facts(s, f, facts, 32);
    assert_string_equal(fact(facts, n, "architecture"), "Flux.1 dev");
    assert_string_equal(fact(facts, n, "hidden"), "64");
    assert_string_equal(fact(facts, n, "heads"), "2");
    assert_string_equal(fact(facts, n, "head_dim"), "32");
    assert_string_equal(fact(facts, n, "depth"), "2");
    assert_string_equal(fact(facts, n, "single"), "3");
    assert_string_equal(fact(facts, n, "guidance"), "yes");
    assert_string_equal(fact(facts, n, "storage"), "bf16 100%");
    at_store_release(&s);
}

static void all_missing_and_misshapen_tensors_are_named(void **state)
{
    (void)state;
    at_store *from = open_golden("flux_dev");
    at_store *s = shapes_of(from, "single_blocks.1.linear2", "txt_in.bias");
    at_found f[1];
    char *text = NULL;
    size_t count = 0;
    at_model *m = NULL;

    assert_int_equal(at_detect(s, f, 1), 1);
    assert_int_equal(at_found_missing(s, f, &text, &count), AT_OK);
    assert_int_equal(count, 3); // weight and bias of linear2, and the bent bias
    assert_non_null(strstr(text, "single_blocks.1.linear2.weight\n"));
    assert_non_null(strstr(text, "single_blocks.1.linear2.bias\n"));
    assert_non_null(strstr(text, "txt_in.bias is bf16 [65], not [64]\n"));
    assert_int_equal(at_model_load(s, "broken", &m), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "3 tensors of Flux.1 dev missing"));
    assert_non_null(strstr(at_error_text(), "single_blocks.1.linear2.weight"));
    at_free(text);
    at_store_release(&s);
    at_store_release(&from);
}

static void a_complete_file_misses_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"flux_dev", "flux_schnell", "clip_l", "t5",
                                        "vae_sd_decode"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        at_store *s = open_golden(names[i]);
        at_found f[1];
        char *text = NULL;
        size_t count = 9;
        assert_int_equal(at_detect(s, f, 1), 1);
        assert_int_equal(at_found_missing(s, f, &text, &count), AT_OK);
        assert_int_equal(count, 0);
        assert_string_equal(text, "");
        at_free(text);
        at_store_release(&s);
    }
}

static void sizes_that_no_model_can_have_are_refused(void **state)
{
    (void)state;
    at_store *from = open_golden("flux_dev"), *s = NULL;
    at_model *m = NULL;

    // 65 is no multiple of the head size
    s = shapes_of(from, NULL, "img_in.weight");
    assert_int_equal(at_model_load(s, "odd", &m), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "no multiple"));
    at_store_release(&s);
    // the tensor that a size is read from is gone, but the probes still match
    s = shapes_of(from, "final_layer.linear.weight", NULL);
    assert_int_equal(at_model_load(s, "headless", &m), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "final_layer.linear.weight is missing"));
    at_store_release(&s);
    at_store_release(&from);
}

static void a_tensor_of_no_dimensions_is_no_size(void **state)
{
    (void)state;
    at_store *from = open_golden("clip_l"), *s = NULL;
    at_found f[1];
    at_encoder *e = NULL;
    assert_int_equal(at_store_new("scalar", &s), AT_OK);
    for (size_t i = 0; i < at_store_count(from); i++) {
        const at_weight *w = at_store_at(from, i);
        int rank = strstr(w->name, "position_embedding") ? 0 : w->rank;
        assert_int_equal(at_store_add_shape(s, w->name, w->dtype, rank, w->shape), AT_OK);
    }
    assert_int_equal(at_detect(s, f, 1), 1);
    assert_int_equal(at_encoder_load(s, f, &e), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "no usable dimension"));
    at_store_release(&s);
    at_store_release(&from);
}

static void a_file_of_another_kind_is_refused_by_name(void **state)
{
    (void)state;
    at_store *s = open_golden("t5");
    at_model *m = NULL;
    at_vae *v = NULL;
    assert_int_equal(at_model_load(s, "t5", &m), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "model.safetensors"));
    assert_int_equal(at_vae_load(s, "t5", &v), AT_EFORMAT);
    at_store_release(&s);
}

static at_status load_all(at_store *flux, at_store *vae, at_store *clip)
{
    at_found f[1];
    at_model *m = NULL, *clone = NULL;
    at_vae *v = NULL;
    at_encoder *e = NULL;
    at_status st = at_model_load(flux, "flux", &m);
    if (st == AT_OK) st = at_model_with_sampling(m, at_model_get_sampling(m), &clone);
    if (st == AT_OK) st = at_vae_load(vae, "vae", &v);
    at_detect(clip, f, 1);
    if (st == AT_OK) st = at_encoder_load(clip, f, &e);
    at_model_release(&m);
    at_model_release(&clone);
    at_vae_release(&v);
    at_encoder_release(&e);
    return st;
}

static void every_failed_allocation_while_loading_gives_all_memory_back(void **state)
{
    (void)state;
    at_store *flux = open_golden("flux_dev"), *vae = open_golden("vae_flux_decode");
    at_store *clip = open_golden("clip_l");
    size_t before = at_mem_get_stats().live_bytes;
    bool hit = true;

    for (uint64_t n = 1; hit && n < 1000; n++) {
        at_mem_fail_at(n, false);
        at_status st = load_all(flux, vae, clip);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        assert_int_equal(at_mem_get_stats().live_bytes, before);
    }
    assert_false(hit);
    at_store_release(&flux);
    at_store_release(&vae);
    at_store_release(&clip);
}

static void a_clone_has_its_own_sampling_and_the_same_weights(void **state)
{
    (void)state;
    at_store *s = open_golden("flux_dev");
    at_model *m = NULL, *clone = NULL;
    assert_int_equal(at_model_load(s, "flux", &m), AT_OK);
    at_store_release(&s); // the model keeps it
    at_model_sampling ms = *at_model_get_sampling(m);
    assert_int_equal(ms.kind, AT_SIGMA_FLUX);
    assert_true(ms.shift == 1.15);
    ms.shift = 0.5;
    assert_int_equal(at_model_with_sampling(m, &ms, &clone), AT_OK);
    assert_true(at_model_get_sampling(m)->shift == 1.15);
    assert_true(at_model_get_sampling(clone)->shift == 0.5);
    at_model_release(&m);
    assert_int_equal(at_model_blocks(clone), 5);
    assert_string_equal(at_model_label(clone), "flux");
    assert_int_equal(at_model_latent(clone)->channels, 16);
    at_model_release(&clone);
}

static void the_cost_of_flux_dev_is_that_of_the_published_model(void **state)
{
    (void)state;
    // Flux.1 dev at 1024x1024 with 512 text tokens: 74.4 TFLOP a step (measured profile).
    at_store *s = NULL;
    at_model *m = NULL;
    assert_int_equal(at_store_new("flux1-dev", &s), AT_OK);
    at_store *small = open_golden("flux_dev");
    struct {
        int64_t from, to;
    } sizes[] = {{64, 3072},   {32, 128},    {128, 6144},  {192, 9216}, {256, 12288},
                 {384, 18432}, {448, 21504}, {320, 15360}, {40, 4096},  {24, 768}};
    for (size_t i = 0; i < at_store_count(small); i++) {
        const at_weight *w = at_store_at(small, i);
        int64_t shape[AT_MAX_RANK];
        for (int d = 0; d < w->rank; d++) {
            shape[d] = w->shape[d];
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
                if (w->shape[d] == sizes[k].from) shape[d] = sizes[k].to;
        }
        // what is 64 or 256 wide in the real model too
        if (strstr(w->name, "img_in.weight")) shape[1] = 64;
        if (strstr(w->name, "final_layer.linear")) shape[0] = 64;
        if (strstr(w->name, "time_in.in_layer.weight")) shape[1] = 256;
        if (strstr(w->name, "guidance_in.in_layer.weight")) shape[1] = 256;
        bool doubles = strncmp(w->name, "double_blocks.0.", 16) == 0;
        bool singles = strncmp(w->name, "single_blocks.0.", 16) == 0;
        if (strncmp(w->name, "double_blocks.1.", 16) == 0 ||
            strncmp(w->name, "single_blocks.1.", 16) == 0 ||
            strncmp(w->name, "single_blocks.2.", 16) == 0)
            continue;
        for (int b = 0; b < (doubles ? 19 : singles ? 38 : 1); b++) {
            char name[128];
            if (doubles || singles)
                snprintf(name, sizeof name, "%.14s%d%s", w->name, b, w->name + 15);
            else
                snprintf(name, sizeof name, "%s", w->name);
            assert_int_equal(at_store_add_shape(s, name, AT_BF16, w->rank, shape), AT_OK);
        }
    }
    assert_int_equal(at_model_load(s, "flux1-dev", &m), AT_OK);
    at_model_cost c = at_model_estimate(m, 1, 128, 128, 512, AT_BF16);
    assert_true(c.flops > 74.0e12 && c.flops < 74.9e12);
    assert_true(c.weight_bytes > 23.7e9 && c.weight_bytes < 23.9e9);
    assert_true(c.activation_bytes > 100e6 && c.activation_bytes < 1e9);
    at_model_release(&m);
    at_store_release(&small);
    at_store_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_denoiser_is_found_among_fragments_of_other_models),
        cmocka_unit_test(each_kind_of_file_is_told_apart),
        cmocka_unit_test(encoders_of_checkpoints_are_told_by_their_place),
        cmocka_unit_test(a_foreign_layout_is_said_and_its_network_named),
        cmocka_unit_test(no_more_than_max_are_written),
        cmocka_unit_test(facts_are_read_off_the_shapes),
        cmocka_unit_test(all_missing_and_misshapen_tensors_are_named),
        cmocka_unit_test(a_complete_file_misses_nothing),
        cmocka_unit_test(sizes_that_no_model_can_have_are_refused),
        cmocka_unit_test(a_tensor_of_no_dimensions_is_no_size),
        cmocka_unit_test(a_file_of_another_kind_is_refused_by_name),
        cmocka_unit_test(every_failed_allocation_while_loading_gives_all_memory_back),
        cmocka_unit_test(a_clone_has_its_own_sampling_and_the_same_weights),
        cmocka_unit_test(the_cost_of_flux_dev_is_that_of_the_published_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
