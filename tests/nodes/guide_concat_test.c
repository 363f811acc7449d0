// SPDX-License-Identifier: Apache-2.0
// guide_concat_test.c - what stands beside x for models that inpaint or follow a picture, against
// ComfyUI's numbers (tools/golden/guide_concat_cases.py), and prompts of two lengths for cross
// attention.
// Idea: a hook in the network's place looks at what the network would be given.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "guide_concat_cases.h"
#include "nodes/guide.h"

// --- the looker ----------------------------------------------------------------------------------
static float *seen; // concat of the last forward; one network at a time
static int64_t seen_shape[4];
static int calls;
static int64_t tokens;

static at_tensor *look(void *self, void *run, at_ops *o, const at_forward *f)
{
    (void)self, (void)run;
    const at_tensor *c = f->in->concat;
    calls++;
    tokens = f->in->context->shape[1];
    at_free(seen);
    seen = NULL;
    if (c) {
        assert_true(at_tensor_contiguous(c));
        seen = at_alloc(at_tensor_bytes(c));
        assert_non_null(seen);
        memcpy(seen, at_tensor_data(c), at_tensor_bytes(c));
        memcpy(seen_shape, c->shape, sizeof seen_shape);
    }
    return at_zeros(o, AT_F32, 4, f->in->x->shape);
}
static const at_hook_ops look_ops = {.name = "look", .forward = look};

static at_object *model(const char *golden)
{
    char path[512];
    at_store *s = NULL;
    at_model *m = NULL;
    at_object *plain = NULL, *o = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s/model.safetensors", golden);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    assert_int_equal(at_model_load(s, golden, &m), AT_OK);
    at_store_release(&s);
    plain = at_obj_model_new(m);
    assert_non_null(plain);
    assert_int_equal(at_obj_model_hook((at_obj_model *)plain, &look_ops, NULL, &o), AT_OK);
    at_object_release(plain);
    return o;
}

static at_tensor *wave(const int64_t dims[4], double a, double b, double scale, double lift)
{
    at_tensor *t = NULL;
    if (!dims[0]) return NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, dims, &t), AT_OK);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        ((float *)at_tensor_data(t))[i] = (float)(sin(a * (double)i + b) * scale + lift);
    return t;
}

// dims[0] 0: absent. Texts are `tokens` long.
typedef struct ask_case {
    const char *name, *golden;
    int64_t x[4], picture[4];
    double pa, pb;
    int64_t mask[4];
    double ma, mb;
    bool latent, noise_mask; // the sampled latent is the picture; the mask is the sampler's
} ask_case;
#define SD                                                                                         \
    {                                                                                              \
        2, 4, 6, 5                                                                                 \
    }
#define FLUX                                                                                       \
    {                                                                                              \
        2, 16, 6, 5                                                                                \
    }
#define SMALL {1, 4, 6, 5}, 0.3, 0
#define OTHER {3, 4, 8, 12}, 0.11, 1
#define WIDE  {1, 16, 9, 7}, 0.07, 0.5
#define NONE  {0}, 0, 0
#define MASK  {1, 1, 48, 40}, 0.05, 0
#define MASKS {3, 1, 30, 20}, 0.03, 1
#define FIT   {2, 1, 6, 5}, 0.4, 0
static const ask_case cases[] = {
    {"inpaint", "unet_sd15_inpaint", SD, SMALL, MASK, false, false},
    {"inpaint resized", "unet_sd15_inpaint", SD, OTHER, MASKS, false, false},
    {"inpaint nothing", "unet_sd15_inpaint", SD, NONE, NONE, true, false},
    {"inpaint noise mask", "unet_sd15_inpaint", SD, NONE, FIT, true, true},
    {"ip2p", "unet_ip2p", SD, OTHER, NONE, false, false},
    {"ip2p nothing", "unet_ip2p", SD, NONE, NONE, false, false},
    {"canny", "flux_canny", FLUX, WIDE, NONE, false, false},
    {"canny nothing", "flux_canny", FLUX, NONE, NONE, false, false},
    {"fill", "flux_fill", FLUX, WIDE, MASKS, false, false},
    {"fill noise mask", "flux_fill", FLUX, NONE, FIT, false, true},
    {"fill nothing", "flux_fill", FLUX, NONE, NONE, false, false},
};

// The width of text that the network takes does not matter to the looker.
static at_object *prompt(int64_t length)
{
    at_object *o = at_obj_cond_new(1);
    ((at_obj_cond *)o)->items[0].context = wave((int64_t[]){1, 1, length, 2}, 0.5, 0, 1, 0);
    at_tensor *flat = NULL, **t = &((at_obj_cond *)o)->items[0].context;
    assert_int_equal(at_tensor_reshape(*t, 3, (int64_t[]){1, length, 2}, &flat), AT_OK);
    at_cond_set_tensor(t, flat);
    return o;
}

static void run(at_guide_config *config)
{
    at_ops *o = NULL;
    at_guide *g = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    if (at_guide_open(o, config, &g) != AT_OK) fail_msg("%s", at_error_text());
    at_denoiser d = at_guide_denoiser(g);
    d.call(d.ctx, o, at_zeros(o, AT_F32, 4, config->shape), 0.7f, false);
    if (at_ops_status(o) != AT_OK) fail_msg("%s", at_error_text());
    at_guide_close(g);
    at_ops_free(o);
}

static void assert_seen(const concat_case *c)
{
    double sum = 0, squares = 0;
    int64_t n = seen_shape[0] * seen_shape[1] * seen_shape[2] * seen_shape[3];
    assert_non_null(seen);
    assert_int_equal(seen_shape[1], c->channels);
    for (int64_t i = 0; i < n; i++) {
        sum += (double)seen[i];
        squares += (double)seen[i] * (double)seen[i];
    }
    for (int i = 0; i < 8; i++)
        if (!(fabsf(seen[i * 97 % n] - c->picks[i]) <= 2e-6f))
            fail_msg("%s: value %d is %.9g, ComfyUI has %.9g", c->name, (int)(i * 97 % n),
                     (double)seen[i * 97 % n], (double)c->picks[i]);
    if (!(fabs(sum - c->sum) <= 1e-3) || !(fabs(squares - c->squares) <= 1e-3))
        fail_msg("%s: sums %.9g, %.9g; ComfyUI has %.9g, %.9g", c->name, sum, squares, c->sum,
                 c->squares);
}

static void pictures_and_masks_stand_beside_x(void **state)
{
    (void)state;
    assert_int_equal(AT_COUNT(cases), AT_COUNT(concat_cases));
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        const ask_case *c = &cases[i];
        at_object *m = model(c->golden), *p = prompt(3);
        at_cond *e = ((at_obj_cond *)p)->items;
        at_tensor *mask = wave(c->mask, c->ma, c->mb, 0.5, 0.5);
        at_tensor *latent = c->latent ? wave(c->x, 0.3, 0, 1, 0) : NULL;
        e->concat_latent = wave(c->picture, c->pa, c->pb, 1, 0);
        if (mask && !c->noise_mask) e->concat_mask = at_tensor_retain(mask);
        at_guide_config config = {.model = (const at_obj_model *)m,
                                  .positive = (const at_obj_cond *)p,
                                  .cfg = 1,
                                  .shape = c->x,
                                  .latent = latent,
                                  .mask = c->noise_mask ? mask : NULL};
        assert_string_equal(c->name, concat_cases[i].name);
        run(&config);
        assert_seen(&concat_cases[i]);
        at_tensor_release(&mask);
        at_tensor_release(&latent);
        at_object_release(m);
        at_object_release(p);
    }
}

static void a_picture_of_another_vae_is_refused(void **state)
{
    (void)state;
    at_ops *o = NULL;
    at_guide *g = NULL;
    at_object *m = model("unet_ip2p"), *p = prompt(3);
    ((at_obj_cond *)p)->items->concat_latent = wave((int64_t[])FLUX, 1, 1, 1, 0);
    at_guide_config config = {.model = (const at_obj_model *)m,
                              .positive = (const at_obj_cond *)p,
                              .cfg = 1,
                              .shape = (int64_t[])SD};
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    assert_int_equal(at_guide_open(o, &config, &g), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "another kind of VAE"));
    assert_null(g);
    at_ops_free(o);
    at_object_release(m);
    at_object_release(p);
}

// Cross attention does not mind repeated text: up to four times, two lengths run together.
static void texts_are_repeated_to_a_common_length(void **state)
{
    static const struct {
        int64_t a, b, tokens;
        int calls;
    } pairs[] = {{3, 6, 6, 1}, {4, 6, 12, 1}, {2, 8, 8, 1}, {2, 10, 2, 2}, {7, 7, 7, 1}};
    (void)state;
    at_object *m = model("unet_sd15");
    for (size_t i = 0; i < AT_COUNT(pairs); i++) {
        at_object *p = prompt(pairs[i].a), *n = prompt(pairs[i].b);
        at_guide_config config = {.model = (const at_obj_model *)m,
                                  .positive = (const at_obj_cond *)p,
                                  .negative = (const at_obj_cond *)n,
                                  .cfg = 3,
                                  .shape = (int64_t[])SD};
        calls = 0;
        run(&config);
        assert_int_equal(calls, pairs[i].calls);
        if (pairs[i].calls == 1) assert_int_equal(tokens, pairs[i].tokens);
        assert_null(seen);
        at_object_release(p);
        at_object_release(n);
    }
    at_object_release(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_and_masks_stand_beside_x),
        cmocka_unit_test(a_picture_of_another_vae_is_refused),
        cmocka_unit_test(texts_are_repeated_to_a_common_length),
    };
    int failed = cmocka_run_group_tests(tests, world_open, world_close);
    at_free(seen);
    return failed;
}
