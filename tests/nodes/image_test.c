// SPDX-License-Identifier: Apache-2.0
// image_test.c - LoadImage, SaveImage, PreviewImage: pixels, masks, names, counters, metadata.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "json/json.h"

#define LOAD(name) "'i':{'class_type':'LoadImage','inputs':{'image':'" name "'}},"
#define SAVE(id, source, prefix)                                                                   \
    "'" id "':{'class_type':'SaveImage','inputs':{'images':" source ",'filename_prefix':'" prefix  \
    "'}}"

static void assert_exists(const world *w, const char *name)
{
    if (!at_path_exists(world_path(w, "%s", name))) fail_msg("%s is missing", name);
}

// Pictures of one value each: SaveImage's cache would skip an equal one.
static void give_pictures(const char *key, int64_t count, int64_t width, int64_t height)
{
    at_tensor *t = NULL;
    assert_int_equal(
        at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){count, height, width, 3}, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = (float)(1 + i / (width * height * 3)) / 10.0f;
    world_give(key, at_value_object(at_obj_image_new(t)));
}

static void loaded_pixels_are_the_files(void **state)
{
    world *w = *state;
    at_picture p = {0};
    world_paint(w, "rgb.png", 7, 5, 3);
    world_load(w, "input/rgb.png", &p);
    world_run(w, LOAD("rgb.png"), WORLD_CAPTURE("x", "['i',0]"), WORLD_CAPTURE("m1", "['i',1]"));
    const at_tensor *x = world_image("x"), *m = world_image("m1");
    assert_int_equal(x->shape[1], 5);
    assert_int_equal(x->shape[2], 7);
    assert_memory_equal(world_floats(x), p.rgb, 7 * 5 * 3 * sizeof(float));
    // no alpha: ComfyUI's 64 x 64 zeros
    assert_int_equal(m->rank, 3);
    assert_int_equal(m->shape[1], 64);
    assert_int_equal(m->shape[2], 64);
    for (int i = 0; i < 64 * 64; i++)
        assert_true(world_floats(m)[i] == 0.0f);
    at_picture_free(&p);
}

static void the_mask_is_what_is_transparent(void **state)
{
    world *w = *state;
    at_picture p = {0};
    world_paint(w, "rgba.png", 6, 4, 4);
    world_load(w, "input/rgba.png", &p);
    assert_non_null(p.alpha);
    world_run(w, LOAD("rgba.png"), WORLD_CAPTURE("m1", "['i',1]"));
    const at_tensor *m = world_image("m1");
    assert_int_equal(m->shape[0], 1);
    assert_int_equal(m->shape[1], 4);
    assert_int_equal(m->shape[2], 6);
    for (int i = 0; i < 24; i++)
        assert_true(world_floats(m)[i] == 1.0f - p.alpha[i]);
    at_picture_free(&p);
}

static void a_changed_file_is_read_again(void **state)
{
    world *w = *state;
    world_paint(w, "live.png", 3, 3, 3);
    world_run(w, LOAD("live.png"), WORLD_CAPTURE("x", "['i',0]"));
    assert_int_equal(world_image("x")->shape[1], 3);
    world_paint(w, "live.png", 3, 9, 3);
    world_run(w, LOAD("live.png"), WORLD_CAPTURE("x", "['i',0]"));
    assert_int_equal(world_image("x")->shape[1], 9);
}

static void missing_and_broken_pictures_are_named(void **state)
{
    world *w = *state;
    assert_int_equal(world_try(w, LOAD("none.png"), WORLD_CAPTURE("x", "['i',0]")), AT_EWORKFLOW);
    assert_non_null(strstr(w->result.node_errors, "Invalid image file: none.png"));
    assert_int_equal(world_try(w, LOAD("../models/x.png"), WORLD_CAPTURE("x", "['i',0]")),
                     AT_EWORKFLOW);

    FILE *f = fopen(world_path(w, "input/cut.png"), "wb");
    assert_non_null(f);
    fputs("\x89PNG\r\n\x1a\n and no more", f);
    fclose(f);
    assert_int_equal(world_try(w, LOAD("cut.png"), WORLD_CAPTURE("x", "['i',0]")), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "cut.png"));
    assert_non_null(strstr(at_error_text(), "LoadImage"));
}

static void annotated_names_read_other_folders(void **state)
{
    world *w = *state;
    give_pictures("one", 1, 8, 8);
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'one'}},",
              SAVE("s", "['g',0]", "again"));
    assert_exists(w, "output/again_00001_.png");
    world_run(w, LOAD("again_00001_.png [output]"), WORLD_CAPTURE("x", "['i',0]"));
    assert_int_equal(world_image("x")->shape[1], 8);
}

static void counters_go_on_from_the_highest(void **state)
{
    world *w = *state;
    give_pictures("one", 1, 8, 8);
    assert_int_equal(at_make_dirs(world_path(w, "output")), AT_OK);
    fclose(fopen(world_path(w, "output/run_00041_.png"), "wb"));
    fclose(fopen(world_path(w, "output/run_x_.png"), "wb"));
    fclose(fopen(world_path(w, "output/runner_00099_.png"), "wb"));
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'one'}},", SAVE("s", "['g',0]", "run"));
    assert_exists(w, "output/run_00042_.png");
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'one'}},", SAVE("s", "['g',0]", "run"));
    assert_exists(w, "output/run_00043_.png");
}

static void prefixes_name_folders_sizes_and_batches(void **state)
{
    world *w = *state;
    give_pictures("three", 3, 24, 16);
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'three'}},",
              SAVE("s", "['g',0]", "deep/er/%width%x%height%-%batch_num%"));
    assert_exists(w, "output/deep/er/24x16-0_00001_.png");
    assert_exists(w, "output/deep/er/24x16-1_00002_.png");
    assert_exists(w, "output/deep/er/24x16-2_00003_.png");
    assert_non_null(strstr(w->result.outputs, "\"subfolder\": \"deep/er\""));
    assert_non_null(strstr(w->result.outputs, "\"type\": \"output\""));
    at_picture p = {0};
    world_load(w, "output/deep/er/24x16-2_00003_.png", &p);
    assert_int_equal((int)(p.rgb[0] * 255.0f + 0.5f), (int)(0.3f * 255.0f)); // its own picture
    at_picture_free(&p);

    // every place of the mark is filled, as Python's replace does
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'three'}},",
              SAVE("s", "['g',0]", "n%batch_num%-%batch_num%"));
    assert_exists(w, "output/n1-1_00002_.png");
}

static void prefixes_that_leave_the_folder_are_refused(void **state)
{
    static const char *const bad[] = {"../out", "/tmp/out", "a/../../out"};
    world *w = *state;
    give_pictures("one", 1, 8, 8);
    for (size_t i = 0; i < AT_COUNT(bad); i++) {
        at_status st =
            world_try(w, world_nodes("'g':{'class_type':'Give','inputs':{'key':'one'}},"
                                     "'s':{'class_type':'SaveImage','inputs':{'images':['g',0],"
                                     "'filename_prefix':'%s'}}",
                                     bad[i]));
        assert_int_not_equal(st, AT_OK);
        assert_non_null(strstr(at_error_text(), "SaveImage"));
    }
    assert_false(at_path_exists(world_path(w, "out_00001_.png")));
}

static void long_names_are_refused_whole(void **state)
{
    world *w = *state;
    char prefix[700];
    memset(prefix, 'a', sizeof prefix);
    prefix[sizeof prefix - 1] = 0;
    give_pictures("one", 1, 8, 8);
    at_status st =
        world_try(w, world_nodes("'g':{'class_type':'Give','inputs':{'key':'one'}},"
                                 "'s':{'class_type':'SaveImage','inputs':{'images':['g',0],"
                                 "'filename_prefix':'%s'}}",
                                 prefix));
    assert_int_not_equal(st, AT_OK); // the file system allows 255 bytes a name
    assert_true(*at_error_text() != 0);
}

static void previews_go_to_the_temporary_folder(void **state)
{
    world *w = *state;
    give_pictures("one", 1, 8, 8);
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'one'}},"
                 "'s':{'class_type':'PreviewImage','inputs':{'images':['g',0]}}");
    const char *name = strstr(w->result.outputs, "ComfyUI_temp_");
    assert_non_null(name);
    char file[64];
    assert_int_equal(sscanf(name, "%63[^\"]", file), 1);
    assert_int_equal(strlen(file), strlen("ComfyUI_temp_abcde_00001_.png"));
    char path[128];
    snprintf(path, sizeof path, "temp/%s", file);
    assert_exists(w, path);
    assert_non_null(strstr(w->result.outputs, "\"type\": \"temp\""));
}

// --- metadata ----------------------------------------------------------------------------------------
static json_t *parsed(const char *text)
{
    json_t *v = NULL;
    assert_non_null(text);
    if (at_json_load("chunk", text, strlen(text), &v) != AT_OK) fail_msg("%s", at_error_text());
    return v;
}

static void the_prompt_is_kept_as_it_ran(void **state)
{
    world *w = *state;
    at_picture p = {0};
    world_run(w, WORLD_BASE,
              "'s':{'class_type':'KSampler','inputs':{'model':['m',0],'seed':18446744073709551615,"
              "'steps':'2','cfg':1,'sampler_name':'euler','scheduler':'simple','positive':['p',0],"
              "'negative':['n',0],'latent_image':['e',0],'denoise':1}},"
              "'d':{'class_type':'VAEDecode','inputs':{'samples':['s',0],'vae':['v',0]}},",
              SAVE("o", "['d',0]", "meta"));
    world_load(w, "output/meta_00001_.png", &p);
    json_t *prompt = parsed(world_text(&p, "prompt"));
    json_t *in = json_object_get(json_object_get(prompt, "s"), "inputs");
    assert_int_equal(json_integer_value(json_object_get(in, "steps")), 2); // converted
    assert_non_null(strstr(world_text(&p, "prompt"), "18446744073709551615"));
    assert_null(world_text(&p, "workflow"));

    // running what the picture carries gives the same picture
    char *text = at_strdup(world_text(&p, "prompt"));
    at_picture again = {0};
    assert_int_equal(world_run_text(w, text), AT_OK);
    // all of it was cached, so nothing new was written; a fresh engine draws it again
    at_engine *fresh = NULL;
    at_job_result r = {0};
    at_engine_config config = {.base_dir = w->dir, .dtype = AT_F32};
    assert_int_equal(at_engine_open(&config, &fresh), AT_OK);
    assert_int_equal(
        at_engine_run(fresh, &(at_job){.label = "png", .text = text, .bytes = strlen(text)}, &r),
        AT_OK);
    world_load(w, "output/meta_00002_.png", &again);
    assert_memory_equal(again.rgb, p.rgb, 64 * 64 * 3 * sizeof(float));
    json_t *second = parsed(world_text(&again, "prompt"));
    assert_true(json_equal(prompt, second));
    json_decref(prompt);
    json_decref(second);
    at_job_result_free(&r);
    at_engine_close(fresh);
    at_picture_free(&p);
    at_picture_free(&again);
    at_free(text);
}

static void a_clients_extra_data_becomes_chunks(void **state)
{
    world *w = *state;
    at_picture p = {0};
    give_pictures("one", 1, 8, 8);
    assert_int_equal(
        world_run_text(
            w, "{\"prompt\": {\"g\": {\"class_type\": \"Give\", \"inputs\": {\"key\": \"one\"}},"
               "\"s\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\": [\"g\", 0],"
               "\"filename_prefix\": \"client\"}}}, \"client_id\": \"x\", \"extra_data\":"
               "{\"extra_pnginfo\": {\"workflow\": {\"nodes\": [], \"seed\": 18446744073709551615,"
               "\"title\": \"caf\\u00e9\", \"scale\": 1.0}, \"note\": \"mine\"}}}"),
        AT_OK);
    world_load(w, "output/client_00001_.png", &p);
    const char *workflow = world_text(&p, "workflow");
    json_t *v = parsed(workflow);
    assert_string_equal(json_string_value(json_object_get(v, "title")), "caf\xc3\xa9");
    assert_non_null(strstr(workflow, "18446744073709551615"));
    assert_non_null(strstr(workflow, "\"scale\": 1.0")); // Python's json.dumps
    assert_non_null(strstr(workflow, "caf\\u00e9"));
    assert_string_equal(world_text(&p, "note"), "\"mine\"");
    assert_non_null(world_text(&p, "prompt"));
    json_decref(v);
    at_picture_free(&p);
}

// What the editor saves: nodes and links; widgets by position.
static const char editor[] =
    "{\"last_node_id\": 2, \"last_link_id\": 1, \"nodes\": ["
    "{\"id\": 1, \"type\": \"LoadImage\", \"mode\": 0, \"inputs\": [], \"outputs\":"
    "[{\"name\": \"IMAGE\", \"type\": \"IMAGE\", \"links\": [1]},"
    "{\"name\": \"MASK\", \"type\": \"MASK\", \"links\": null}],"
    "\"widgets_values\": [\"wide.png\", \"image\"]},"
    "{\"id\": 2, \"type\": \"SaveImage\", \"mode\": 0, \"inputs\":"
    "[{\"name\": \"images\", \"type\": \"IMAGE\", \"link\": 1}], \"outputs\": [],"
    "\"widgets_values\": [\"edited\"]}],"
    "\"links\": [[1, 1, 0, 2, 0, \"IMAGE\"]], \"groups\": [], \"version\": 0.4,"
    "\"extra\": {\"seed\": 18446744073709551615}}";

static void an_editors_workflow_is_kept_beside_the_prompt(void **state)
{
    world *w = *state;
    at_picture p = {0};
    world_paint(w, "wide.png", 12, 6, 3);
    if (world_run_text(w, editor) != AT_OK)
        fail_msg("%s\n%s", at_error_text(), w->result.node_errors ? w->result.node_errors : "");
    world_load(w, "output/edited_00001_.png", &p);
    assert_int_equal(p.width, 12);
    json_t *kept = parsed(world_text(&p, "workflow")), *was = parsed(editor);
    assert_true(json_equal(kept, was));
    json_t *prompt = parsed(world_text(&p, "prompt"));
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(prompt, "1"), "class_type")),
        "LoadImage");
    json_decref(kept);
    json_decref(was);
    json_decref(prompt);
    at_picture_free(&p);
}

static void metadata_can_be_left_out(void **state)
{
    world *w = *state;
    at_picture p = {0};
    give_pictures("one", 1, 8, 8);
    at_engine_env(w->engine)->disable_metadata = true;
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'one'}},",
              SAVE("s", "['g',0]", "plain"));
    at_engine_env(w->engine)->disable_metadata = false;
    world_load(w, "output/plain_00001_.png", &p);
    assert_null(world_text(&p, "prompt"));
    at_picture_free(&p);
}

static void levels_are_truncated_and_clipped(void **state)
{
    world *w = *state;
    at_picture p = {0};
    static const float in[] = {-1.0f, 0.0f, 0.5f, 0.999f, 1.0f, 7.0f, 254.6f / 255.0f, 1e-6f, NAN};
    static const int want[] = {0, 0, 127, 254, 255, 255, 254, 0, 0};
    at_tensor *t = NULL;
    assert_int_equal(
        at_tensor_from_host(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 1, 3, 3}, in, &t), AT_OK);
    world_give("levels", at_value_object(at_obj_image_new(t)));
    world_run(w, "'g':{'class_type':'Give','inputs':{'key':'levels'}},",
              SAVE("s", "['g',0]", "levels"));
    world_load(w, "output/levels_00001_.png", &p);
    for (int i = 0; i < 8; i++)
        assert_int_equal((int)(p.rgb[i] * 255.0f + 0.5f), want[i]);
    at_picture_free(&p);
}

static void an_equal_picture_is_not_saved_twice(void **state)
{
    world *w = *state;
    world_paint(w, "same.png", 3, 3, 3);
    world_run(w, LOAD("same.png"), SAVE("s", "['i',0]", "once"));
    world_run(w, LOAD("same.png"), SAVE("s", "['i',0]", "once"));
    assert_exists(w, "output/once_00001_.png");
    assert_false(at_path_exists(world_path(w, "output/once_00002_.png")));
    assert_non_null(strstr(w->result.outputs, "once_00001_.png")); // the cached result is shown
}

static void an_output_folder_that_is_a_file_fails(void **state)
{
    world *w = *state;
    give_pictures("one", 1, 8, 8);
    assert_int_equal(at_make_dirs(world_path(w, "output")), AT_OK);
    fclose(fopen(world_path(w, "output/flat"), "wb"));
    at_status st = world_try(w, "'g':{'class_type':'Give','inputs':{'key':'one'}},",
                             SAVE("s", "['g',0]", "flat/below"));
    assert_int_equal(st, AT_EIO);
    assert_non_null(strstr(at_error_text(), "flat"));
}

static void the_combo_lists_pictures_alone(void **state)
{
    world *w = *state;
    char *text = NULL;
    world_paint(w, "listed.png", 3, 3, 3);
    fclose(fopen(world_path(w, "input/notes.txt"), "wb"));
    assert_int_equal(at_make_dirs(world_path(w, "input/folder.png")), AT_OK);
    assert_int_equal(at_engine_object_info(w->engine, "LoadImage", &text), AT_OK);
    assert_non_null(strstr(text, "listed.png"));
    assert_null(strstr(text, "notes.txt"));
    assert_null(strstr(text, "folder.png"));
    at_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_pixels_are_the_files),
        cmocka_unit_test(the_mask_is_what_is_transparent),
        cmocka_unit_test(a_changed_file_is_read_again),
        cmocka_unit_test(missing_and_broken_pictures_are_named),
        cmocka_unit_test(annotated_names_read_other_folders),
        cmocka_unit_test(counters_go_on_from_the_highest),
        cmocka_unit_test(prefixes_name_folders_sizes_and_batches),
        cmocka_unit_test(prefixes_that_leave_the_folder_are_refused),
        cmocka_unit_test(long_names_are_refused_whole),
        cmocka_unit_test(previews_go_to_the_temporary_folder),
        cmocka_unit_test(the_prompt_is_kept_as_it_ran),
        cmocka_unit_test(a_clients_extra_data_becomes_chunks),
        cmocka_unit_test(an_editors_workflow_is_kept_beside_the_prompt),
        cmocka_unit_test(metadata_can_be_left_out),
        cmocka_unit_test(levels_are_truncated_and_clipped),
        cmocka_unit_test(an_equal_picture_is_not_saved_twice),
        cmocka_unit_test(an_output_folder_that_is_a_file_fails),
        cmocka_unit_test(the_combo_lists_pictures_alone),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
