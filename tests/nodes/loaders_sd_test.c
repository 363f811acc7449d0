// SPDX-License-Identifier: Apache-2.0
// loaders_sd_test.c - tiny autoencoders by name, folders of diffusers, three encoders, unCLIP's loader.
#include "world.h"

#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "weight/safetensors.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

// The tensors of the golden tiny autoencoder that belong to one half, as its own file.
static void write_half(const world *w, const char *half, const char *name)
{
    at_store *s = NULL;
    at_st_out rows[128];
    size_t n = 0, skip = strlen(half);
    assert_int_equal(at_store_open(GOLDEN "vae_tiny_decode/model.safetensors", &s), AT_OK);
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *t = at_store_at(s, i);
        if (strncmp(t->name, half, skip) != 0) continue;
        assert_true(n < AT_COUNT(rows));
        rows[n] = (at_st_out){
            .name = t->name + skip, .dtype = t->dtype, .rank = t->rank, .data = t->data};
        memcpy(rows[n++].shape, t->shape, sizeof t->shape);
    }
    assert_int_equal(at_st_write(world_path(w, "models/vae_approx/%s", name), rows, n, NULL, 0),
                     AT_OK);
    at_store_release(&s);
}

static at_object *latent(float scale)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, 4, 3, 5}, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int i = 0; i < 60; i++)
        p[i] = scale * (float)(i % 7 - 3);
    return at_obj_latent_new(t);
}

#define DECODE(vae)                                                                                \
    "'v':{'class_type':'VAELoader','inputs':{'vae_name':'" vae "'}},"                              \
    "'d':{'class_type':'VAEDecode','inputs':{'samples':['z',0],'vae':['v',0]}},"

// The same two files under two names: what one scales by 0.18215 the other does by 0.13025.
static void tiny_autoencoders_are_loaded_by_name(void **state)
{
    world *w = *state;
    at_tensor *first;
    assert_int_equal(at_make_dirs(world_path(w, "models/vae_approx")), AT_OK);
    write_half(w, "taesd_decoder.", "taesd_decoder.safetensors");
    assert_int_equal(world_try(w, "'z':{'class_type':'Give','inputs':{'key':'z'}},",
                               DECODE("taesd"), WORLD_CAPTURE("x", "['d',0]")),
                     AT_EWORKFLOW); // half of it is not listed
    write_half(w, "taesd_encoder.", "taesd_encoder.safetensors");
    write_half(w, "taesd_decoder.", "taesdxl_decoder.safetensors");
    write_half(w, "taesd_encoder.", "taesdxl_encoder.safetensors");

    world_give("z", at_value_object(latent(1.0f)));
    world_run(w, "'z':{'class_type':'Give','inputs':{'key':'z'}},", DECODE("taesd"),
              WORLD_CAPTURE("x", "['d',0]"));
    first = at_tensor_retain((at_tensor *)(uintptr_t)world_image("x"));
    assert_true(first->shape[1] == 24 && first->shape[2] == 40);
    world_give("y", at_value_object(latent(0.18215f / 0.13025f)));
    world_run(w, "'z':{'class_type':'Give','inputs':{'key':'y'}},", DECODE("taesdxl"),
              WORLD_CAPTURE("x", "['d',0]"));
    assert_true(world_distance(world_image("x"), first) < 1e-5);
    at_tensor_release(&first);
}

static void link_file(const world *w, const char *from, const char *to)
{
    assert_int_equal(symlink(from, world_path(w, "models/diffusers/pipe/%s", to)), 0);
}

static void a_folder_of_diffusers_is_one_checkpoint(void **state)
{
    world *w = *state;
    static const char *const folders[] = {"unet", "vae", "text_encoder"};
    char *clip = at_strdup(world_path(w, "models/text_encoders/tiny_clip_l.safetensors"));
    for (size_t i = 0; i < AT_COUNT(folders); i++)
        assert_int_equal(at_make_dirs(world_path(w, "models/diffusers/pipe/%s", folders[i])),
                         AT_OK);
    link_file(w, GOLDEN "README.md", "model_index.json"); // its being there is what counts
    link_file(w, GOLDEN "unet_sd15_diffusers/model.safetensors",
              "unet/diffusion_pytorch_model.safetensors");
    link_file(w, clip, "text_encoder/model.safetensors");
    at_free(clip);
#define FOLDER "'m':{'class_type':'DiffusersLoader','inputs':{'model_path':'pipe'}},"
    assert_int_equal(world_try(w, FOLDER, WORLD_CAPTURE("x", "['m',0]")), AT_ENOTFOUND);
    assert_non_null(strstr(at_error_text(), "vae/diffusion_pytorch_model.safetensors"));
    link_file(w, GOLDEN "vae_sd_decode/model.safetensors",
              "vae/diffusion_pytorch_model.safetensors");

    world_run(w, FOLDER, WORLD_CAPTURE("x", "['m',0]"), WORLD_CAPTURE("y", "['m',1]"),
              WORLD_CAPTURE("z", "['m',2]"));
    const at_obj_model *m = (const at_obj_model *)world_object("x", "MODEL");
    const at_obj_clip *c = (const at_obj_clip *)world_object("y", "CLIP");
    const at_obj_vae *v = (const at_obj_vae *)world_object("z", "VAE");
    assert_string_equal(at_arch_name(at_model_arch(m->model)), "sd15");
    assert_int_equal(c->kind, AT_CLIP_SD1);
    assert_int_equal(at_vae_channels(v->vae), 4);
}

#define TRIPLE(a, b, c)                                                                            \
    "'c':{'class_type':'TripleCLIPLoader','inputs':{'clip_name1':'" a                              \
    ".safetensors','clip_name2':'" b ".safetensors','clip_name3':'" c ".safetensors'}},"

static void three_encoders_are_stable_diffusion_3s(void **state)
{
    world *w = *state;
    world_run(w, TRIPLE("tiny_t5", "tiny_clip_l", "tiny_clip_g"), WORLD_CAPTURE("x", "['c',0]"));
    const at_obj_clip *c = (const at_obj_clip *)world_object("x", "CLIP");
    assert_int_equal(c->kind, AT_CLIP_SD3);
    assert_non_null(c->enc[AT_TE_L].encoder);
    assert_non_null(c->enc[AT_TE_G].encoder);
    assert_non_null(c->enc[AT_TE_T5].encoder);
    assert_null(c->enc[AT_TE_H].encoder);
    assert_int_equal(world_try(w, TRIPLE("tiny_clip_h", "tiny_clip_l", "tiny_clip_g"),
                               WORLD_CAPTURE("x", "['c',0]")),
                     AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "needs CLIP-L and CLIP-G and T5"));
}

static void a_checkpoint_without_a_picture_encoder_gives_none(void **state)
{
    world *w = *state;
    world_run(w,
              "'m':{'class_type':'unCLIPCheckpointLoader','inputs':{'ckpt_name':"
              "'tiny_sd2.safetensors'}},",
              WORLD_CAPTURE("x", "['m',0]"), WORLD_CAPTURE("y", "['m',1]"),
              WORLD_CAPTURE("z", "['m',3]"));
    const at_obj_model *m = (const at_obj_model *)world_object("x", "MODEL");
    const at_obj_clip *c = (const at_obj_clip *)world_object("y", "CLIP");
    assert_string_equal(at_arch_name(at_model_arch(m->model)), "sd2");
    assert_int_equal(c->kind, AT_CLIP_SD2);
    const at_value *none = world_value("z");
    assert_true(none->kind == AT_VAL_NONE || (none->kind == AT_VAL_OBJECT && !none->o));
}

int main(void)
{
#define T cmocka_unit_test
    const struct CMUnitTest tests[] = {
        T(tiny_autoencoders_are_loaded_by_name),
        T(a_folder_of_diffusers_is_one_checkpoint),
        T(three_encoders_are_stable_diffusion_3s),
        T(a_checkpoint_without_a_picture_encoder_gives_none),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
