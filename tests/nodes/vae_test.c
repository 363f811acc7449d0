// SPDX-License-Identifier: Apache-2.0
// vae_test.c - between pixels and latents: whole, in tiles, cropped, and refused.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define VAES                                                                                       \
    "'v':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae.safetensors'}},"                  \
    "'v2':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae2.safetensors'}},"
#define LOAD(name) "'i':{'class_type':'LoadImage','inputs':{'image':'" name "'}},"
#define ENCODE(vae)                                                                                \
    "'z':{'class_type':'VAEEncode','inputs':{'pixels':['i',0],'vae':['" vae "',0]}},"
#define DECODE(vae)                                                                                \
    "'d':{'class_type':'VAEDecode','inputs':{'samples':['z',0],'vae':['" vae "',0]}},"
#define TILED(id, tile, overlap)                                                                   \
    "'" id "':{'class_type':'VAEDecodeTiled','inputs':{'samples':['z',0],'vae':['v',0],"           \
    "'tile_size':" tile ",'overlap':" overlap ",'temporal_size':64,'temporal_overlap':8}},"

static void pictures_go_in_and_come_out(void **state)
{
    world *w = *state;
    world_paint(w, "square.png", 64, 48, 3);
    world_run(w, VAES, LOAD("square.png"), ENCODE("v"), DECODE("v"), WORLD_CAPTURE("z1", "['z',0]"),
              WORLD_CAPTURE("x", "['d',0]"));
    const at_tensor *z = world_latent("z1"), *x = world_image("x");
    assert_int_equal(z->shape[1], 16);
    assert_int_equal(z->shape[2], 6);
    assert_int_equal(z->shape[3], 8);
    assert_int_equal(x->shape[1], 48);
    assert_int_equal(x->shape[2], 64);
}

static void encoding_is_the_network_on_minus_one_to_one(void **state)
{
    world *w = *state;
    world_paint(w, "square.png", 64, 48, 3);
    world_run(w, VAES, LOAD("square.png"), ENCODE("v2"), WORLD_CAPTURE("z1", "['z',0]"),
              WORLD_CAPTURE("i1", "['i',0]"), WORLD_CAPTURE("vae", "['v2',0]"));
    const at_tensor *pixels = world_image("i1");
    at_vae *v = ((const at_obj_vae *)world_object("vae", "VAE"))->vae;
    at_ops *o = NULL;
    float *planes = at_alloc(at_tensor_bytes(pixels));
    const float *p = world_floats(pixels);
    for (int64_t i = 0; i < 48 * 64; i++)
        for (int64_t c = 0; c < 3; c++)
            planes[c * 48 * 64 + i] = 2.0f * p[3 * i + c] - 1.0f;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    at_tensor *x = at_from_host(o, AT_F32, 4, (int64_t[]){1, 3, 48, 64}, planes);
    at_tensor *z = at_contiguous(o, at_vae_encode_raw(o, v, x));
    assert_int_equal(at_ops_status(o), AT_OK);
    assert_int_equal(at_vae_downscale(v), 2);
    world_assert_same(world_latent("z1"), z);
    at_ops_free(o);
    at_free(planes);
}

static void sides_that_are_no_multiple_are_cropped_centred(void **state)
{
    world *w = *state;
    world_paint(w, "odd.png", 67, 45, 4);
    world_run(w, VAES, LOAD("odd.png"), ENCODE("v"), DECODE("v"), WORLD_CAPTURE("z1", "['z',0]"),
              WORLD_CAPTURE("x", "['d',0]"));
    assert_int_equal(world_latent("z1")->shape[2], 5);
    assert_int_equal(world_latent("z1")->shape[3], 8);
    assert_int_equal(world_image("x")->shape[1], 40);

    // the same pixels cropped by hand: 45 - 40 = 5, two rows above; 67 - 64 = 3, one column left
    at_picture whole = {0};
    world_load(w, "input/odd.png", &whole);
    float *part = at_alloc(40 * 64 * 3 * sizeof *part);
    for (int64_t y = 0; y < 40; y++)
        memcpy(part + y * 64 * 3, whole.rgb + ((y + 2) * 67 + 1) * 3, 64 * 3 * sizeof *part);
    assert_int_equal(at_png_save(world_path(w, "input/cut.png"), part, 64, 40, 3, 1, NULL, 0),
                     AT_OK);
    at_free(part);
    at_picture_free(&whole);
    at_tensor *first = at_tensor_retain(world_latent("z1"));
    world_run(w, VAES, LOAD("cut.png"), ENCODE("v"), WORLD_CAPTURE("z1", "['z',0]"));
    // pixels written to 8 bits are truncated, so levels may move by one
    assert_true(world_distance(world_latent("z1"), first) < 2e-2);
    at_tensor_release(&first);
}

static void tiles_are_close_to_the_whole(void **state)
{
    world *w = *state;
    world_paint(w, "large.png", 192, 160, 3);
    world_run(w, VAES, LOAD("large.png"), ENCODE("v"), DECODE("v"), TILED("t", "512", "64"),
              TILED("u", "128", "32"), TILED("s", "64", "64"), WORLD_CAPTURE("whole", "['d',0]"),
              WORLD_CAPTURE("one", "['t',0]"), WORLD_CAPTURE("some", "['u',0]"),
              WORLD_CAPTURE("cut", "['s',0]"));
    // one tile holds everything; sums of three equal parts round
    assert_true(world_distance(world_image("one"), world_image("whole")) < 1e-5);
    // group norms see a tile and not the picture: near, not equal
    assert_true(world_distance(world_image("some"), world_image("whole")) < 0.1);
    assert_true(world_distance(world_image("some"), world_image("whole")) > 1e-6);
    assert_true(world_distance(world_image("cut"), world_image("whole")) <
                0.2); // overlap cut to 16
    const float *p = world_floats(world_image("some"));
    for (int64_t i = 0; i < at_tensor_count(world_image("some")); i++)
        assert_true(p[i] >= 0 && p[i] <= 1);
}

static void latents_of_another_vae_are_refused(void **state)
{
    world *w = *state;
    assert_int_equal(
        world_try(w, VAES,
                  "'z':{'class_type':'EmptyLatentImage','inputs':{'width':64,'height':64,"
                  "'batch_size':1}},",
                  DECODE("v"), WORLD_CAPTURE("x", "['d',0]")),
        AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "4 channels"));
    assert_non_null(strstr(at_error_text(), "16"));
}

static void a_picture_smaller_than_a_latent_place_is_refused(void **state)
{
    world *w = *state;
    world_paint(w, "dot.png", 5, 64, 3);
    assert_int_equal(
        world_try(w, VAES, LOAD("dot.png"), ENCODE("v"), WORLD_CAPTURE("x", "['z',0]")), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "8 x 8"));
}

static void pixel_space_says_what_is_missing(void **state)
{
    world *w = *state;
    assert_int_equal(
        world_try(w, "'v':{'class_type':'VAELoader','inputs':{'vae_name':'pixel_space'}},",
                  WORLD_CAPTURE("x", "['v',0]")),
        AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "pixel_space"));
}

static void tile_sizes_over_a_link_are_checked(void **state)
{
    static const char *const tiles[] = {"0", "-512", "4611686018427387904", "4294967808"};
    world *w = *state;
    world_paint(w, "square.png", 64, 48, 3);
    for (size_t i = 0; i < AT_COUNT(tiles); i++) {
        at_status st = world_try(
            w, VAES, LOAD("square.png"), ENCODE("v"),
            world_nodes("'a':{'class_type':'PrimitiveInt','inputs':{'value':%s}},", tiles[i]),
            TILED("t", "['a',0]", "64"), WORLD_CAPTURE("x", "['t',0]"));
        assert_int_equal(st, AT_EINVAL);
        assert_non_null(strstr(at_error_text(), "tile"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_go_in_and_come_out),
        cmocka_unit_test(encoding_is_the_network_on_minus_one_to_one),
        cmocka_unit_test(sides_that_are_no_multiple_are_cropped_centred),
        cmocka_unit_test(tiles_are_close_to_the_whole),
        cmocka_unit_test(latents_of_another_vae_are_refused),
        cmocka_unit_test(a_picture_smaller_than_a_latent_place_is_refused),
        cmocka_unit_test(pixel_space_says_what_is_missing),
        cmocka_unit_test(tile_sizes_over_a_link_are_checked),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
