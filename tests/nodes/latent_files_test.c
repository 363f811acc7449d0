// SPDX-License-Identifier: Apache-2.0
// latent_files_test.c - latents written to files and read again.
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "weight/safetensors.h"
#include "weight/store.h"

#define GIVE "'g':{'class_type':'Give','inputs':{'key':'z'}},"
#define LOAD(id, name)                                                                             \
    "'" id "':{'class_type':'LoadLatent','inputs':{'latent':'" name "'}},"                         \
    "'x" id "':{'class_type':'Capture','inputs':{'value':['" id "',0]}},"

// [2, 4, 3, 5] of sixteenths, all different.
static at_tensor *give_latent(void)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){2, 4, 3, 5}, &t), AT_OK);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        world_floats(t)[i] = (float)(i - 60) / 16.0f;
    world_give("z", at_value_object(at_obj_latent_new(at_tensor_retain(t))));
    return t;
}

// input/NAME: tensor KEY of this dtype and shape, with the version beside it if asked.
static void put_file(const world *w, const char *name, const char *key, at_dtype dtype, int rank,
                     const int64_t *shape, const void *data, bool version)
{
    at_st_out rows[2] = {{.name = key, .dtype = dtype, .rank = rank, .data = data},
                         {.name = "latent_format_version_0", .dtype = AT_F32, .rank = 1}};
    memcpy(rows[0].shape, shape, (size_t)rank * sizeof *shape);
    assert_int_equal(at_st_write(world_path(w, "input/%s", name), rows, version ? 2 : 1, NULL, 0),
                     AT_OK);
}

static void a_saved_latent_comes_back(void **state)
{
    world *w = *state;
    at_tensor *z = give_latent();
    at_store *s = NULL;

    world_run(w, GIVE "'s':{'class_type':'SaveLatent','inputs':{'samples':['g',0],"
                      "'filename_prefix':'latents/ComfyUI'}}");
    assert_non_null(strstr(w->result.outputs, "\"latents\": [{\"filename\": "
                                              "\"ComfyUI_00001_.latent\", \"subfolder\": "
                                              "\"latents\", \"type\": \"output\"}]"));
    assert_int_equal(at_store_open(world_path(w, "output/latents/ComfyUI_00001_.latent"), &s),
                     AT_OK);
    assert_int_equal(at_store_count(s), 2);
    const at_weight *t = at_store_find(s, "latent_tensor");
    const at_weight *version = at_store_find(s, "latent_format_version_0");
    assert_non_null(t);
    assert_non_null(version);
    assert_true(version->dtype == AT_F32 && version->rank == 1 && version->shape[0] == 0);
    assert_true(t->dtype == AT_F32 && t->rank == 4);
    assert_memory_equal(t->shape, z->shape, 4 * sizeof *z->shape);
    assert_memory_equal(t->data, world_floats(z), at_tensor_bytes(z));
    assert_non_null(strstr(at_store_metadata(s, "prompt"), "SaveLatent"));
    at_store_release(&s);

    world_run(w, LOAD("l", "latents/ComfyUI_00001_.latent [output]"));
    world_assert_same(world_latent("xl"), z);
    // the next one gets the next number
    world_run(w, GIVE "'s':{'class_type':'SaveLatent','inputs':{'samples':['g',0],"
                      "'filename_prefix':'latents/ComfyUI'}}");
    assert_true(at_path_exists(world_path(w, "output/latents/ComfyUI_00002_.latent")));
    at_tensor_release(&z);
}

// 1 / 0.18215 as f32 is 5.4899807; the products are torch's.
static void older_files_are_scaled(void **state)
{
    static const int64_t shape[4] = {1, 1, 1, 4};
    static const uint16_t half[4] = {0x3C00, 0xB800, 0x4200, 0x0000}; // 1, -0.5, 3, 0
    static const float raw[4] = {1, -0.5f, 3, 0};
    static const float scaled[4] = {5.4899807f, -2.74499035f, 16.4699421f, 0};
    world *w = *state;

    put_file(w, "old.latent", "latent_tensor", AT_F16, 4, shape, half, false);
    put_file(w, "new.latent", "latent_tensor", AT_F16, 4, shape, half, true);
    world_run(w, LOAD("a", "old.latent") LOAD("b", "new.latent [input]"));
    assert_memory_equal(world_floats(world_latent("xa")), scaled, sizeof scaled);
    assert_memory_equal(world_floats(world_latent("xb")), raw, sizeof raw);
    // another file of the same name is read anew
    put_file(w, "old.latent", "latent_tensor", AT_F32, 4, shape, raw, true);
    world_run(w, LOAD("a", "old.latent"));
    assert_memory_equal(world_floats(world_latent("xa")), raw, sizeof raw);
}

static void the_input_folders_latents_are_offered(void **state)
{
    static const int64_t shape[4] = {1, 1, 1, 1};
    world *w = *state;
    char *text = NULL;

    put_file(w, "b.latent", "latent_tensor", AT_F32, 4, shape, (float[]){0}, true);
    put_file(w, "a.latent", "latent_tensor", AT_F32, 4, shape, (float[]){0}, true);
    world_paint(w, "picture.png", 8, 8, 3);
    assert_int_equal(at_engine_object_info(w->engine, "LoadLatent", &text), AT_OK);
    const char *a = strstr(text, "\"a.latent\", \"b.latent\"");
    if (!a || strstr(text, "picture.png")) fail_msg("%s", text);
    at_free(text);
    assert_int_equal(at_engine_object_info(w->engine, "LoadImage", &text), AT_OK);
    assert_true(strstr(text, "picture.png") && !strstr(text, ".latent"));
    at_free(text);
}

static void files_that_are_no_latents_are_refused(void **state)
{
    static const int64_t shape[5] = {1, 1, 1, 1, 1};
    static const int64_t none[4] = {1, 4, 0, 2};
    world *w = *state;

    put_file(w, "key.latent", "samples", AT_F32, 4, shape, (float[]){0}, true);
    put_file(w, "whole.latent", "latent_tensor", AT_I64, 4, shape, (int64_t[]){0}, true);
    put_file(w, "video.latent", "latent_tensor", AT_F32, 5, shape, (float[]){0}, true);
    put_file(w, "empty.latent", "latent_tensor", AT_F32, 4, none, (float[]){0}, true);
    at_atomic_file *f = NULL;
    assert_int_equal(at_atomic_open(world_path(w, "input/junk.latent"), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, "not a latent at all", 19), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    static const struct {
        const char *name, *says;
        at_status st;
    } cases[] = {
        {"key.latent", "no tensor \"latent_tensor\"", AT_EFORMAT},
        {"whole.latent", "expected floating point", AT_EFORMAT},
        {"video.latent", "5 dimensions", AT_EUNSUPPORTED},
        {"empty.latent", "holds nothing", AT_EINVAL},
        {"junk.latent", "junk.latent", AT_EFORMAT},
    };
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        at_status st =
            world_try(w, world_nodes("'l':{'class_type':'LoadLatent','inputs':{'latent':'%s'}},"
                                     "'x':{'class_type':'Capture','inputs':{'value':['l',0]}}",
                                     cases[i].name));
        if (st != cases[i].st || !strstr(at_error_text(), cases[i].says))
            fail_msg("%s: %s: %s", cases[i].name, at_status_facts(st)->name, at_error_text());
    }
    static const char *const absent[] = {"no.latent", "../models/vae/tiny_ae.safetensors",
                                         "no.latent [temp]"};
    for (size_t i = 0; i < AT_COUNT(absent); i++) {
        assert_true(world_try(w, world_nodes("'l':{'class_type':'LoadLatent','inputs':{'latent':"
                                             "'%s'}},'x':{'class_type':'Capture','inputs':"
                                             "{'value':['l',0]}}",
                                             absent[i])) != AT_OK);
        char *says = at_strprintf("Invalid latent file: %s", absent[i]);
        assert_non_null(strstr(w->result.node_errors, says));
        at_free(says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_saved_latent_comes_back),
        cmocka_unit_test(older_files_are_scaled),
        cmocka_unit_test(the_input_folders_latents_are_offered),
        cmocka_unit_test(files_that_are_no_latents_are_refused),
    };
    return cmocka_run_group_tests_name("nodes.latent_files", tests, world_open, world_close);
}
