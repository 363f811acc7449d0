// SPDX-License-Identifier: Apache-2.0
// upscale_test.c - UpscaleModelLoader and ImageUpscaleWithModel on the golden upscalers, and what they refuse.
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "weight/store.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

static void place(const world *w, const char *from, const char *to)
{
    char path[512], *bytes = NULL;
    size_t n;
    at_atomic_file *f = NULL;
    snprintf(path, sizeof path, GOLDEN "%s", from);
    assert_int_equal(at_make_dirs(world_path(w, "models/upscale_models")), AT_OK);
    assert_int_equal(at_file_read(path, 1 << 24, &bytes, &n), AT_OK);
    assert_int_equal(at_atomic_open(world_path(w, "models/upscale_models/%s", to), &f), AT_OK);
    assert_int_equal(at_atomic_write(f, bytes, n), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    at_free(bytes);
}

// A tensor of a case as f32 on the host.
static at_tensor *tensor_of(const char *file, const char *name)
{
    char path[512];
    at_store *s = NULL;
    at_tensor *t = NULL;
    snprintf(path, sizeof path, GOLDEN "%s", file);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    const at_weight *v = at_store_find(s, name);
    assert_non_null(v);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, v->rank, v->shape, &t), AT_OK);
    at_weight_read_f32(v, 0, at_tensor_count(t), at_tensor_data(t));
    at_store_release(&s);
    return t;
}

#define UPSCALE(file)                                                                              \
    "'u':{'class_type':'UpscaleModelLoader','inputs':{'model_name':'" file "'}},"                  \
    "'g':{'class_type':'Give','inputs':{'key':'image'}},"                                          \
    "'s':{'class_type':'ImageUpscaleWithModel','inputs':{'upscale_model':['u',0],"                 \
    "'image':['g',0]}},"

static void a_batch_is_enlarged_as_the_golden_case_says(void **state)
{
    world *w = *state;
    at_tensor *want = tensor_of("upscaler_rrdb/expected.safetensors", "out");
    place(w, "upscaler_rrdb/model.safetensors", "x4.safetensors");
    world_give("image", at_value_object(at_obj_image_new(
                            tensor_of("upscaler_rrdb/inputs.safetensors", "image"))));
    world_run(w, UPSCALE("x4.safetensors"), WORLD_CAPTURE("x", "['s',0]"));
    assert_int_equal(world_image("x")->shape[0], 2);
    assert_int_equal(world_image("x")->shape[1], 28);
    assert_int_equal(world_image("x")->shape[2], 36);
    assert_true(world_distance(world_image("x"), want) < 1e-5); // f32 over some 40 layers
    at_tensor_release(&want);
}

// 600 pixels need two tiles; where they meet a picture that is the same everywhere must stay so, but for what
// the network's zero borders do.
static void wide_pictures_go_through_in_tiles(void **state)
{
    world *w = *state;
    at_tensor *t = NULL;
    place(w, "upscaler_compact_x1/model.safetensors", "compact.safetensors");
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 9, 600, 3}, &t),
                     AT_OK);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        ((float *)at_tensor_data(t))[i] = 0.5f;
    world_give("image", at_value_object(at_obj_image_new(t)));
    world_run(w, UPSCALE("compact.safetensors"), WORLD_CAPTURE("x", "['s',0]"));
    const at_tensor *x = world_image("x");
    assert_int_equal(x->shape[2], 600);
    const float *row = world_floats(x) + 4 * 600 * 3;
    // 3 convolutions reach 3 pixels: beyond them only the blend's ramps could show, and the inner tile's
    // border (pixel 480) weighs 1/33 of it.
    for (int k = 0; k < 3; k++) {
        assert_true(fabsf(row[3 * 300 + k] - row[3 * 100 + k]) < 1e-6f);
        assert_true(fabsf(row[3 * 500 + k] - row[3 * 100 + k]) < 1e-6f);
        assert_true(fabsf(row[3 * 480 + k] - row[3 * 100 + k]) < 0.04f);
        assert_true(row[3 * 100 + k] >= 0 && row[3 * 100 + k] <= 1);
    }
}

static void what_cannot_be_enlarged_is_refused(void **state)
{
    static const struct {
        const char *file;
        int channels;
        at_status want;
        const char *words;
    } rows[] = {{"x4.safetensors", 4, AT_EINVAL, "3 channels, not of 4"},
                {"span.safetensors", 3, AT_EUNSUPPORTED, "SPAN"},
                {"vae.safetensors", 3, AT_EFORMAT, "no upscaler"}};
    // A safetensors file of one tensor: eight bytes of length, the header, four bytes.
    static const char header[] =
        "{\"block_1.c1_r.sk.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    char bytes[8 + sizeof header - 1 + 4] = {sizeof header - 1};
    world *w = *state;
    at_atomic_file *f = NULL;
    memcpy(bytes + 8, header, sizeof header - 1);
    place(w, "vae_sd_decode/model.safetensors", "vae.safetensors");
    assert_int_equal(at_atomic_open(world_path(w, "models/upscale_models/span.safetensors"), &f),
                     AT_OK);
    assert_int_equal(at_atomic_write(f, bytes, sizeof bytes), AT_OK);
    assert_int_equal(at_atomic_commit(&f), AT_OK);
    for (size_t i = 0; i < AT_COUNT(rows); i++) {
        at_tensor *t = NULL;
        int64_t shape[4] = {1, 8, 8, rows[i].channels};
        assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, shape, &t), AT_OK);
        memset(at_tensor_data(t), 0, at_tensor_bytes(t));
        world_give("image", at_value_object(at_obj_image_new(t)));
        at_status st = world_try(
            w,
            world_nodes("'u':{'class_type':'UpscaleModelLoader','inputs':{'model_name':'%s'}},"
                        "'g':{'class_type':'Give','inputs':{'key':'image'}},"
                        "'s':{'class_type':'ImageUpscaleWithModel','inputs':{'upscale_model':"
                        "['u',0],'image':['g',0]}},",
                        rows[i].file),
            WORLD_CAPTURE("x", "['s',0]"));
        if (st != rows[i].want || !strstr(at_error_text(), rows[i].words))
            fail_msg("%s: %s, \"%s\"", rows[i].file, at_status_facts(st)->name, at_error_text());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_enlarged_as_the_golden_case_says),
        cmocka_unit_test(wide_pictures_go_through_in_tiles),
        cmocka_unit_test(what_cannot_be_enlarged_is_refused),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
