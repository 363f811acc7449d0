// SPDX-License-Identifier: Apache-2.0
// image_files_test.c - the nodes that read and write files beside LoadImage and SaveImage of PNGs: other
// kinds of pictures, masks, animations, SVG, and PreviewAny's text.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "nodes/svg.h"

#define GIVE(key) "'g':{'class_type':'Give','inputs':{'key':'" key "'}},"

static char *read_all(const world *w, const char *name, size_t *n)
{
    char *text = NULL;
    if (at_file_read(world_path(w, "%s", name), 1 << 24, &text, n) != AT_OK)
        fail_msg("%s", at_error_text());
    return text;
}

// A file of tests/golden/pictures under another name in the input folder.
static void place(const world *w, const char *from, const char *to)
{
    char path[512], *bytes = NULL;
    size_t n;
    at_atomic_file *f = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/pictures/%s", from);
    assert_int_equal(at_file_read(path, 1 << 20, &bytes, &n), AT_OK);
    assert_int_equal(at_atomic_open(world_path(w, "input/%s", to), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, bytes, n), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    at_free(bytes);
}

// count pictures [h, w, c] whose values are eighths that differ by picture.
static at_tensor *pictures(int64_t count, int64_t h, int64_t w, int64_t c)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){count, h, w, c}, &t),
                     AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = (float)((i * 5 + i / (h * w * c) * 3) % 9) / 8.0f;
    return t;
}

// --- loading -----------------------------------------------------------------------------------------
static void a_picture_is_read_by_its_content(void **state)
{
    world *w = *state;
    at_picture p;
    place(w, "turned_6.jpg", "photo.png"); // 19 x 13, turned by a quarter
    world_run(w, "'i':{'class_type':'LoadImage','inputs':{'image':'photo.png'}},",
              WORLD_CAPTURE("x", "['i',0]"), WORLD_CAPTURE("m", "['i',1]"));
    assert_int_equal(at_picture_load(world_path(w, "input/photo.png"), &p), AT_OK);
    assert_int_equal(world_image("x")->shape[1], 19);
    assert_int_equal(world_image("x")->shape[2], 13);
    assert_memory_equal(world_floats(world_image("x")), p.rgb, 19 * 13 * 3 * sizeof(float));
    assert_int_equal(world_image("m")->shape[1], 64);
    at_picture_free(&p);
}

static void an_animation_becomes_a_batch(void **state)
{
    world *w = *state;
    at_picture p;
    place(w, "animated_alpha.webp", "moving.webp"); // 4 frames of 6 x 5
    world_run(w, "'i':{'class_type':'LoadImage','inputs':{'image':'moving.webp'}},",
              WORLD_CAPTURE("x", "['i',0]"), WORLD_CAPTURE("m", "['i',1]"));
    assert_int_equal(at_picture_load(world_path(w, "input/moving.webp"), &p), AT_OK);
    assert_int_equal(world_image("x")->shape[0], 4);
    assert_int_equal(world_image("m")->shape[0], 4);
    assert_memory_equal(world_floats(world_image("x")), p.rgb, 4 * 30 * 3 * sizeof(float));
    for (int i = 0; i < 4 * 30; i++)
        assert_true(world_floats(world_image("m"))[i] == 1.0f - p.alpha[i]);
    at_picture_free(&p);
}

static void a_mask_is_one_channel_of_a_file(void **state)
{
    static const char *const channels[] = {"red", "green", "blue", "alpha"};
    world *w = *state;
    at_picture p;
    place(w, "alpha_lossless.webp", "mask.webp");
    place(w, "grey.jpg", "grey.jpg");
    assert_int_equal(at_picture_load(world_path(w, "input/mask.webp"), &p), AT_OK);
    for (int k = 0; k < 4; k++) {
        world_run(w,
                  world_nodes("'i':{'class_type':'LoadImageMask','inputs':{'image':'mask.webp',"
                              "'channel':'%s'}},",
                              channels[k]),
                  WORLD_CAPTURE("m", "['i',0]"));
        assert_int_equal(world_image("m")->rank, 3);
        assert_int_equal(world_image("m")->shape[1], p.height);
        for (int i = 0; i < p.width * p.height; i++)
            assert_true(world_floats(world_image("m"))[i] ==
                        (k == 3 ? 1.0f - p.alpha[i] : p.rgb[3 * i + k]));
    }
    // no alpha: nothing is transparent, at the picture's own size
    world_run(w,
              "'i':{'class_type':'LoadImageMask','inputs':{'image':'grey.jpg','channel':'alpha'}},",
              WORLD_CAPTURE("m", "['i',0]"));
    assert_int_equal(world_image("m")->shape[2], 19);
    for (int i = 0; i < 19 * 13; i++)
        assert_true(world_floats(world_image("m"))[i] == 0.0f);
    at_picture_free(&p);
    assert_int_equal(world_try(w,
                               "'i':{'class_type':'LoadImageMask','inputs':{'image':'no.png',"
                               "'channel':'red'}},",
                               WORLD_CAPTURE("m", "['i',0]")),
                     AT_EWORKFLOW);
    assert_non_null(strstr(w->result.node_errors, "Invalid image file: no.png"));
}

static void an_output_is_loaded_again(void **state)
{
    world *w = *state;
    world_give("p", at_value_object(at_obj_image_new(pictures(1, 3, 4, 3))));
    world_run(w, GIVE("p"),
              "'s':{'class_type':'SaveImage','inputs':{'images':['g',0],'filename_prefix':'o'}}");
    world_run(w, "'i':{'class_type':'LoadImageOutput','inputs':{'image':'o_00001_.png [output]'}},",
              WORLD_CAPTURE("x", "['i',0]"));
    assert_int_equal(world_image("x")->shape[2], 4);
    assert_true(world_floats(world_image("x"))[1] == 159.0f / 255.0f); // 5/8, cut to 8 bits
}

// --- saving ------------------------------------------------------------------------------------------
static void a_masks_preview_is_grey(void **state)
{
    static const float values[] = {0.0f, 0.5f, 1.0f, 0.25f};
    world *w = *state;
    at_tensor *t = NULL;
    at_picture p;
    char name[64], path[96];
    assert_int_equal(
        at_tensor_from_host(at_device_cpu(), AT_F32, 3, (int64_t[]){1, 2, 2}, values, &t), AT_OK);
    world_give("m", at_value_object(at_obj_mask_new(t)));
    world_run(w, GIVE("m"), "'s':{'class_type':'MaskPreview','inputs':{'mask':['g',0]}}");
    const char *at = strstr(w->result.outputs, "ComfyUI_temp_");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "%63[^\"]", name), 1);
    assert_non_null(strstr(w->result.outputs, "\"type\": \"temp\""));
    snprintf(path, sizeof path, "temp/%s", name);
    world_load(w, path, &p);
    for (int i = 0; i < 12; i++)
        assert_int_equal(lrintf(p.rgb[i] * 255), (int)(values[i / 3] * 255));
    assert_non_null(world_text(&p, "prompt"));
    at_picture_free(&p);
}

static void a_batch_becomes_a_moving_webp(void **state)
{
    world *w = *state;
    at_tensor *t = pictures(3, 6, 5, 3);
    at_picture p;
    size_t n;
    world_give("p", at_value_object(at_obj_image_new(at_tensor_retain(t))));
    assert_int_equal(
        world_run_text(
            w, "{\"prompt\": {\"g\": {\"class_type\": \"Give\", \"inputs\": {\"key\": \"p\"}},"
               "\"s\": {\"class_type\": \"SaveAnimatedWEBP\", \"inputs\": {\"images\": [\"g\", 0],"
               "\"filename_prefix\": \"clip\", \"fps\": 6.0, \"lossless\": true, \"quality\": 80,"
               "\"method\": \"default\"}}}, \"extra_data\":"
               "{\"extra_pnginfo\": {\"workflow\": {\"nodes\": []}, \"note\": \"mine\"}}}"),
        AT_OK);
    assert_non_null(strstr(w->result.outputs, "\"clip_00001_.webp\""));
    assert_non_null(strstr(w->result.outputs, "\"animated\": [true]"));
    char *file = read_all(w, "output/clip_00001_.webp", &n);
    assert_non_null(memmem(file, n, "EXIF", 4));
    assert_non_null(memmem(file, n, "note:\"mine\"\0", 12));
    assert_non_null(memmem(file, n, "workflow:{\"nodes\": []}\0", 23));
    assert_non_null(memmem(file, n, "prompt:{\"g\"", 11));
    // Three entries from tag 0x010e on: note, workflow, prompt.
    const char *tiff = memmem(file, n, "MM\0*", 4);
    assert_non_null(tiff);
    for (int i = 0; i < 3; i++)
        assert_int_equal((uint8_t)tiff[10 + 12 * i + 1], 0x0e + i);
    const uint8_t *anmf = memmem(file, n, "ANMF", 4); // a frame's time: bytes 12 to 14 of its chunk
    assert_non_null(anmf);
    assert_int_equal(anmf[8 + 12] | anmf[8 + 13] << 8, 166);
    at_free(file);
    assert_int_equal(at_picture_load(world_path(w, "output/clip_00001_.webp"), &p), AT_OK);
    assert_int_equal(p.frames, 3);
    for (int i = 0; i < 3 * 90; i++)
        assert_int_equal(lrintf(p.rgb[i] * 255), at_pixel_byte(world_floats(t)[i]));
    at_picture_free(&p);
    at_tensor_release(&t);
}

static void one_picture_is_no_animation(void **state)
{
    world *w = *state;
    at_picture p;
    world_give("p", at_value_object(at_obj_image_new(pictures(1, 6, 5, 4))));
    world_run(w, GIVE("p"),
              "'s':{'class_type':'SaveAnimatedWEBP','inputs':{'images':['g',0],"
              "'filename_prefix':'still','fps':10.0,'lossless':false,'quality':90,"
              "'method':'fastest'}}");
    assert_non_null(strstr(w->result.outputs, "\"animated\": [false]"));
    assert_int_equal(at_picture_load(world_path(w, "output/still_00001_.webp"), &p), AT_OK);
    assert_int_equal(p.frames, 1);
    assert_non_null(p.alpha);
    at_picture_free(&p);
}

static void a_batch_becomes_a_moving_png(void **state)
{
    world *w = *state;
    size_t n;
    world_give("p", at_value_object(at_obj_image_new(pictures(3, 6, 5, 3))));
    world_run(w, GIVE("p"),
              "'s':{'class_type':'SaveAnimatedPNG','inputs':{'images':['g',0],"
              "'filename_prefix':'frames','fps':8.0,'compress_level':4}}");
    assert_non_null(strstr(w->result.outputs, "\"animated\": [true]"));
    char *file = read_all(w, "output/frames_00001_.png", &n);
    const uint8_t *actl = memmem(file, n, "acTL\0\0\0\3\0\0\0\0", 12);
    const uint8_t *fctl = memmem(file, n, "fcTL", 4);
    assert_non_null(actl);
    assert_non_null(fctl);
    assert_int_equal(fctl[4 + 20] << 8 | fctl[4 + 21], 125);
    const char *comf = memmem(file, n, "comfprompt\0{\"g\"", 15);
    assert_non_null(comf);
    assert_true(comf > (const char *)memmem(file, n, "fdAT", 4));
    at_free(file);
    assert_int_equal(world_try(w, GIVE("p"),
                               "'s':{'class_type':'SaveAnimatedPNG','inputs':{'images':['g',0],"
                               "'filename_prefix':'slow','fps':0.01,'compress_level':4}}"),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "65535"));
}

static void a_drawing_carries_its_workflow(void **state)
{
    static const char *const texts[] = {"<?xml?><svg width='1'><g/></svg>", "no tag"};
    static const char want[] = "<?xml?><svg width='1'>\n  <metadata>\n                <![CDATA[\n"
                               "            {\n  \"prompt\": {\n    \"g\": {\n";
    world *w = *state;
    size_t n;
    world_give("v", at_value_object(at_obj_svg_new(texts, 2)));
    world_run(w, GIVE("v"),
              "'s':{'class_type':'SaveSVGNode','inputs':{'svg':['g',0],"
              "'filename_prefix':'svg/d%batch_num%'}}");
    char *file = read_all(w, "output/svg/d0_00001_.svg", &n);
    assert_memory_equal(file, want, sizeof want - 1);
    assert_non_null(strstr(file, "\n                ]]>\n            </metadata>\n            "
                                 "<g/></svg>"));
    at_free(file);
    file = read_all(w, "output/svg/d1_00002_.svg", &n);
    assert_string_equal(file, "no tag");
    at_free(file);
    at_engine_env(w->engine)->disable_metadata = true;
    world_run(w, GIVE("v"),
              "'s':{'class_type':'SaveSVGNode','inputs':{'svg':['g',0],'filename_prefix':'p'}}");
    at_engine_env(w->engine)->disable_metadata = false;
    file = read_all(w, "output/p_00001_.svg", &n);
    assert_string_equal(file, texts[0]);
    at_free(file);
}

// --- PreviewAny --------------------------------------------------------------------------------------
static void any_value_is_shown_as_python_writes_it(void **state)
{
    world *w = *state;
    at_value values[] = {at_value_int(-7),
                         at_value_float(0.1),
                         at_value_float(1e22),
                         at_value_bool(true),
                         at_value_string("a \"b\"\n\xc3\xa9"),
                         {.kind = AT_VAL_UINT, .u = UINT64_MAX},
                         at_value_object(at_obj_image_new(pictures(1, 2, 3, 3)))};
    static const char *const want[] = {"\"-7\"",
                                       "\"0.1\"",
                                       "\"1e+22\"",
                                       "\"True\"",
                                       "\"a \\\"b\\\"\\n\\u00e9\"",
                                       "\"18446744073709551615\"",
                                       "\"IMAGE f32 [1, 2, 3, 3]\""};
    for (size_t i = 0; i < AT_COUNT(values); i++) {
        char shown[128];
        world_give("any", values[i]);
        world_run(w, GIVE("any"), "'s':{'class_type':'PreviewAny','inputs':{'source':['g',0]}}");
        snprintf(shown, sizeof shown, "\"text\": [%s]", want[i]);
        if (!strstr(w->result.outputs, shown))
            fail_msg("%s is not in %s", shown, w->result.outputs);
    }
    world_run(w, "'s':{'class_type':'PreviewAny','inputs':{'source':{'a':[1,2.0,null]}}}");
    assert_non_null(strstr(w->result.outputs, "{\\\"a\\\": [1, 2.0, null]}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_is_read_by_its_content),
        cmocka_unit_test(an_animation_becomes_a_batch),
        cmocka_unit_test(a_mask_is_one_channel_of_a_file),
        cmocka_unit_test(an_output_is_loaded_again),
        cmocka_unit_test(a_masks_preview_is_grey),
        cmocka_unit_test(a_batch_becomes_a_moving_webp),
        cmocka_unit_test(one_picture_is_no_animation),
        cmocka_unit_test(a_batch_becomes_a_moving_png),
        cmocka_unit_test(a_drawing_carries_its_workflow),
        cmocka_unit_test(any_value_is_shown_as_python_writes_it),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
