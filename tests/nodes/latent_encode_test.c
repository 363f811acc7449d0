// SPDX-License-Identifier: Apache-2.0
// latent_encode_test.c - pictures into latents: for inpainting as ComfyUI prepares them, and in tiles.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/rows.h"

// Sums of value * cos(0.7 i) and value * cos(0.013 i + 1), and the size in the last three dimensions.
typedef struct digest {
    int64_t shape[4];
    double a, b;
} digest;
typedef struct inpaint_case {
    int width, height, mask_width, mask_height, grow;
    digest pixels, mask; // what ComfyUI 0.3.64 gives the VAE, and the latent's noise mask
} inpaint_case;

static const inpaint_case inpaint_cases[] = {
    {27,
     21,
     9,
     10,
     6,
     {{1, 16, 24, 3}, -2.29865432, -40.4134693},
     {{1, 1, 16, 24}, -0.127243659, -132.68439}},
    {24,
     16,
     24,
     16,
     5,
     {{1, 16, 24, 3}, -0.437312537, -43.4540778},
     {{1, 1, 16, 24}, -0.940414485, -87.0197955}},
    {16,
     19,
     7,
     7,
     0,
     {{1, 16, 16, 3}, 0.222552072, -70.6842644},
     {{1, 1, 16, 16}, 0.819325432, -135.5788}},
    {17,
     24,
     17,
     24,
     1,
     {{1, 24, 16, 3}, 0.415549803, -43.1015095},
     {{1, 1, 24, 16}, 2.74914739, -46.4080338}},
};

static at_tensor *filled(int rank, const int64_t *shape, double step, double phase)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, rank, shape, &t), AT_OK);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        ((float *)at_tensor_data(t))[i] = (float)(sin((double)i * step + phase) * 0.5 + 0.5);
    return t;
}

static void check(const char *what, const digest *d, const at_tensor *t)
{
    double a = 0, b = 0, size = 0;
    const float *p = world_floats(t);
    for (int i = 0; i < 4; i++)
        assert_int_equal(t->shape[i], d->shape[i]);
    for (int64_t i = 0; i < at_tensor_count(t); i++) {
        a += (double)p[i] * cos(0.7 * (double)i);
        b += (double)p[i] * cos(0.013 * (double)i + 1);
        size += fabs((double)p[i]);
    }
    if (fabs(a - d->a) > 1e-6 * size || fabs(b - d->b) > 1e-6 * size)
        fail_msg("%s sums to %.9g and %.9g, ComfyUI's to %.9g and %.9g", what, a, b, d->a, d->b);
}

// The middle of the picture with grey where the mask is 1.
static at_tensor *greyed(const at_tensor *pixels, const at_tensor *mask)
{
    int64_t h = mask->shape[2], w = mask->shape[3];
    int64_t top = (pixels->shape[1] - h) / 2, left = (pixels->shape[2] - w) / 2;
    at_tensor *t = filled(4, (int64_t[]){1, h, w, 3}, 0, 0);
    for (int64_t i = 0; i < h * w * 3; i++) {
        int64_t y = i / 3 / w, x = i / 3 % w;
        float v = world_floats(pixels)[((top + y) * pixels->shape[2] + left + x) * 3 + i % 3];
        ((float *)at_tensor_data(t))[i] = world_floats(mask)[i / 3] != 0 ? 0.5f : v;
    }
    return t;
}

#define INPAINT                                                                                    \
    "'%s':{'class_type':'VAEEncodeForInpaint','inputs':{'pixels':['x',0],'vae':['v',0],'mask':"    \
    "['k',0],'grow_mask_by':%d}},"
#define GIVE(k) "'" k "':{'class_type':'Give','inputs':{'key':'" k "'}},"

static void inpainting_is_prepared_as_comfyui_does(void **state)
{
    world *w = *state;
    for (size_t i = 0; i < AT_COUNT(inpaint_cases); i++) {
        const inpaint_case *c = &inpaint_cases[i];
        at_tensor *pixels = filled(4, (int64_t[]){1, c->height, c->width, 3}, 0.37, 0.2);
        world_give("x", at_value_object(at_obj_image_new(at_tensor_retain(pixels))));
        world_give("k", at_value_object(at_obj_mask_new(
                            filled(3, (int64_t[]){1, c->mask_height, c->mask_width}, 0.061, 0))));
        // Grown by 0 and by 1 are the mask as it is; equal nodes would run once.
        world_run(w, WORLD_MODELS GIVE("x") GIVE("k"), world_nodes(INPAINT, "t", c->grow),
                  world_nodes(INPAINT, "u", c->grow == 0), WORLD_CAPTURE("1", "['t',0]"),
                  WORLD_CAPTURE("2", "['u',0]"));
        const at_obj_latent *grown = (const at_obj_latent *)world_object("1", "LATENT");
        const at_obj_latent *plain = (const at_obj_latent *)world_object("2", "LATENT");
        check("the noise mask", &c->mask, grown->noise_mask);
        at_tensor *want = greyed(pixels, plain->noise_mask);
        check("the picture", &c->pixels, want);
        at_tensor *got = at_tensor_retain(grown->samples);
        world_give("y", at_value_object(at_obj_image_new(want)));
        world_run(w, WORLD_MODELS GIVE("y"),
                  "'t':{'class_type':'VAEEncode','inputs':{'pixels':['y',0],'vae':['v',0]}},",
                  WORLD_CAPTURE("1", "['t',0]"));
        assert_true(world_distance(got, world_latent("1")) < 1e-5);
        at_tensor_release(&got);
        at_tensor_release(&pixels);
    }
}

// One tile that holds all is the whole, averaged over three orientations of itself.
static void tiles_encode_what_the_whole_does(void **state)
{
#define TILED(id, tile)                                                                            \
    "'" id "':{'class_type':'VAEEncodeTiled','inputs':{'pixels':['x',0],'vae':['v',0],"            \
    "'tile_size':" tile ",'overlap':32,'temporal_size':64,'temporal_overlap':8}},"
    world *w = *state;
    world_give("x",
               at_value_object(at_obj_image_new(filled(4, (int64_t[]){1, 96, 80, 3}, 0.37, 0.2))));
    world_run(w, WORLD_MODELS GIVE("x") TILED("t", "512") TILED("u", "64"),
              "'e':{'class_type':'VAEEncode','inputs':{'pixels':['x',0],'vae':['v',0]}},",
              WORLD_CAPTURE("1", "['t',0]"), WORLD_CAPTURE("2", "['u',0]"),
              WORLD_CAPTURE("3", "['e',0]"));
    assert_true(world_distance(world_latent("1"), world_latent("3")) < 1e-5);
    assert_int_equal(world_latent("2")->shape[2], 12);
    assert_int_equal(world_latent("2")->shape[3], 10);
    double apart = world_distance(world_latent("2"), world_latent("3"));
    assert_true(apart > 0 && apart < 1); // seams differ, the picture stays
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inpainting_is_prepared_as_comfyui_does),
        cmocka_unit_test(tiles_encode_what_the_whole_does),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
