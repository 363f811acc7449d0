// SPDX-License-Identifier: Apache-2.0
// loaders_test.c - models found by their ComfyUI names, together or apart, and what is said when not.
#include "world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define SAMPLE(m)                                                                                  \
    "'s':{'class_type':'KSampler','inputs':{'model':[" m ",0],'seed':5,'steps':2,'cfg':1.5,"       \
    "'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':['n',0],"           \
    "'latent_image':['e',0],'denoise':1}},"                                                        \
    "'d':{'class_type':'VAEDecode','inputs':{'samples':['s',0],'vae':['v',0]}},"

static void assert_error_has(const char *text)
{
    if (!strstr(at_error_text(), text)) fail_msg("\"%s\" lacks \"%s\"", at_error_text(), text);
}

static void flux_draws_end_to_end(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE, SAMPLE("'m'"),
              "'o':{'class_type':'SaveImage','inputs':{'images':['d',0],'"
              "filename_prefix':'e2e'}},",
              WORLD_CAPTURE("x", "['d',0]"));
    const at_tensor *t = world_image("x");
    assert_int_equal(t->shape[0], 1);
    assert_int_equal(t->shape[1], 64);
    assert_int_equal(t->shape[2], 64);
    assert_int_equal(t->shape[3], 3);
    const float *p = world_floats(t);
    double sum = 0, squares = 0, n = (double)at_tensor_count(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++) {
        assert_true(p[i] >= 0 && p[i] <= 1);
        sum += (double)p[i];
        squares += (double)p[i] * (double)p[i];
    }
    // random weights: some picture, not a plain one
    assert_true(squares / n - sum / n * (sum / n) > 1e-4);

    at_picture saved = {0};
    world_load(w, "output/e2e_00001_.png", &saved);
    assert_int_equal(saved.width, 64);
    for (int64_t i = 0; i < 64 * 64 * 3; i++) { // truncated to 8 bits
        int level = (int)(p[i] * 255.0f);
        assert_int_equal((int)(saved.rgb[i] * 255.0f + 0.5f), level);
    }
    assert_string_equal(w->result.node_errors, "{}");
    assert_non_null(strstr(w->result.outputs, "\"filename\": \"e2e_00001_.png\""));
    at_picture_free(&saved);
}

static void a_checkpoint_gives_what_its_parts_give(void **state)
{
    world *w = *state;
    world_run(w, WORLD_BASE, SAMPLE("'m'"),
              "'ck':{'class_type':'CheckpointLoaderSimple','inputs':{'ckpt_name':"
              "'tiny_full.safetensors'}},"
              "'p2':{'class_type':'CLIPTextEncode','inputs':{'text':'a red "
              "circle','clip':['ck',1]}},"
              "'n2':{'class_type':'CLIPTextEncode','inputs':{'text':'','clip':['ck',1]}},"
              "'s2':{'class_type':'KSampler','inputs':{'model':['ck',0],'seed':5,'steps':2,"
              "'cfg':1.5,"
              "'sampler_name':'euler','scheduler':'simple','positive':['p2',0],'negative':["
              "'n2',0],"
              "'latent_image':['e',0],'denoise':1}},"
              "'d2':{'class_type':'VAEDecode','inputs':{'samples':['s2',0],'vae':['ck',2]}}",
              WORLD_CAPTURE("a", "['d',0]"), WORLD_CAPTURE("b", "['d2',0]"));
    world_assert_same(world_image("a"), world_image("b"));
}

static void a_checkpoint_without_clip_and_vae_gives_none(void **state)
{
    world *w = *state;
    static const char loader[] =
        "'ck':{'class_type':'CheckpointLoaderSimple','inputs':{'ckpt_name':"
        "'tiny_model_only.safetensors'}},";
    world_run(w, WORLD_MODELS, WORLD_PROMPTS, WORLD_EMPTY(64, 64, 1), loader, SAMPLE("'ck'"),
              WORLD_CAPTURE("x", "['d',0]"));
    assert_non_null(world_image("x"));

    assert_int_not_equal(
        world_try(w, loader,
                  "'p':{'class_type':'CLIPTextEncode','inputs':{'text':'a','clip':['ck',1]}}",
                  WORLD_CAPTURE("x", "['p',0]")),
        AT_OK);
    assert_error_has("clip input is invalid");
    assert_error_has("CLIPTextEncode");
    assert_int_not_equal(world_try(w, loader, WORLD_EMPTY(64, 64, 1),
                                   "'d':{'class_type':'VAEDecode','inputs':{'samples':['e',0],"
                                   "'vae':['ck',2]}},",
                                   WORLD_CAPTURE("x", "['d',0]")),
                         AT_OK);
    assert_error_has("vae input is invalid");
}

static void schnell_and_other_encoder_order_work(void **state)
{
    world *w = *state;
    world_run(w,
              "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'tiny_schnell.safetensors',"
              "'weight_dtype':'fp8_e4m3fn'}},"
              "'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_t5.safetensors',"
              "'clip_name2':'tiny_clip_l.safetensors','type':'flux','device':'cpu'}},"
              "'v':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae.safetensors'}},",
              WORLD_PROMPTS, WORLD_EMPTY(64, 64, 1), SAMPLE("'m'"), WORLD_CAPTURE("x", "['d',0]"));
    assert_int_equal(world_image("x")->shape[1], 64);
}

static void a_file_that_is_not_listed_fails_the_check(void **state)
{
    world *w = *state;
    assert_int_equal(world_try(w,
                               "'v':{'class_type':'VAELoader','inputs':{'vae_name':'absent."
                               "safetensors'}},",
                               WORLD_CAPTURE("x", "['v',0]")),
                     AT_EWORKFLOW);
    assert_non_null(w->result.error);
    assert_non_null(strstr(w->result.node_errors, "value_not_in_list"));
    assert_non_null(strstr(w->result.node_errors, "absent.safetensors"));
}

static void the_wrong_kind_of_file_is_named(void **state)
{
    world *w = *state;
    // a text encoder in the place of a denoiser, and so on round
    char *from = at_strdup(world_path(w, "models/text_encoders/tiny_t5.safetensors"));
    assert_int_equal(symlink(from, world_path(w, "models/diffusion_models/t5.safetensors")), 0);
    assert_int_equal(symlink(from, world_path(w, "models/vae/t5.safetensors")), 0);
    at_free(from);
    from = at_strdup(world_path(w, "models/vae/tiny_ae.safetensors"));
    assert_int_equal(symlink(from, world_path(w, "models/text_encoders/ae.safetensors")), 0);
    at_free(from);

    assert_int_equal(world_try(w,
                               "'m':{'class_type':'UNETLoader','inputs':{'unet_name':"
                               "'t5.safetensors','weight_dtype':'default'}},",
                               WORLD_CAPTURE("x", "['m',0]")),
                     AT_EFORMAT);
    assert_error_has("t5.safetensors");
    assert_error_has("UNETLoader");
    assert_int_equal(world_try(w,
                               "'m':{'class_type':'VAELoader','inputs':{'vae_name':"
                               "'t5.safetensors'}},",
                               WORLD_CAPTURE("x", "['m',0]")),
                     AT_EFORMAT);
    assert_error_has("no VAE");
    assert_int_equal(world_try(w,
                               "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':"
                               "'ae.safetensors','type':'sd3'}},",
                               WORLD_CAPTURE("x", "['c',0]")),
                     AT_EFORMAT);
    assert_error_has("no text encoder");
}

static void encoders_that_do_not_fit_the_type_are_refused(void **state)
{
    world *w = *state;
    assert_int_equal(world_try(w,
                               "'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':"
                               "'tiny_t5.safetensors','clip_name2':'tiny_t5.safetensors','type':"
                               "'flux'}},",
                               WORLD_CAPTURE("x", "['c',0]")),
                     AT_EINVAL);
    assert_error_has("a second t5 text encoder");
    assert_int_equal(world_try(w,
                               "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':"
                               "'tiny_t5.safetensors','type':'stable_diffusion'}},",
                               WORLD_CAPTURE("x", "['c',0]")),
                     AT_EINVAL);
    assert_error_has("\"stable_diffusion\" needs CLIP-L, CLIP-G or CLIP-H; the file "
                     "given holds T5");
    assert_int_equal(
        world_try(w,
                  "'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':"
                  "'tiny_t5.safetensors','clip_name2':'tiny_clip_l.safetensors','type':"
                  "'hidream'}},",
                  WORLD_CAPTURE("x", "['c',0]")),
        AT_EUNSUPPORTED);
    assert_error_has("\"hidream\"");
}

static void a_vocabulary_that_is_missing_is_asked_for(void **state)
{
    world *w = *state;
    char *from = at_strdup(world_path(w, "models/text_encoders/tiny_t5.safetensors"));
    // alone in a folder, under a name that has no vocabulary folder, and no tokenizers/ beside
    char *hidden = at_strdup(world_path(w, "models/tokenizers"));
    assert_int_equal(rename(hidden, world_path(w, "models/away")), 0);
    assert_int_equal(at_make_dirs(world_path(w, "models/text_encoders/alone")), AT_OK);
    assert_int_equal(symlink(from, world_path(w, "models/text_encoders/alone/other.safetensors")),
                     0);
    at_status st = world_try(w,
                             "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':"
                             "'alone/other.safetensors','type':'sd3'}},",
                             WORLD_CAPTURE("x", "['c',0]"));
    assert_int_equal(rename(world_path(w, "models/away"), hidden), 0);
    at_free(from);
    at_free(hidden);
    if (st == AT_OK) skip(); // this machine has a T5 vocabulary of its own
    assert_int_equal(st, AT_ENOTFOUND);
    assert_error_has("alone"); // where it looked
    assert_error_has("tokenizer.json");
}

static void a_model_file_is_mapped_once(void **state)
{
    world *w = *state;
    world_run(w,
              "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'tiny_dev.safetensors',"
              "'weight_dtype':'default'}},"
              "'m2':{'class_type':'UNETLoader','inputs':{'unet_name':'tiny_dev.safetensors',"
              "'weight_dtype':'fp8_e5m2'}},",
              WORLD_CAPTURE("a", "['m',0]"), WORLD_CAPTURE("b", "['m2',0]"));
    const at_obj_model *a = (const at_obj_model *)world_object("a", "MODEL");
    const at_obj_model *b = (const at_obj_model *)world_object("b", "MODEL");
    at_env *env = at_engine_env(w->engine);
    at_store *s = NULL, *again = NULL;
    const char *path = world_path(w, "models/diffusion_models/tiny_dev.safetensors");
    assert_int_equal(env->open_store(env, path, &s), AT_OK);
    assert_int_equal(env->open_store(env, path, &again), AT_OK);
    assert_ptr_equal(s, again);
    assert_int_equal(at_model_arch(a->model) == at_model_arch(b->model), true);
    at_store_release(&s);
    at_store_release(&again);
}

// Bytes over an existing file, in place: what a mapping of it sees.
static void overwrite(const world *w, const char *name, const char *bytes, size_t n)
{
    FILE *f = fopen(world_path(w, "%s", name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void a_model_that_changed_on_disk_is_loaded_again(void **state)
{
#define DRAW                                                                                       \
    WORLD_MODELS, WORLD_PROMPTS, WORLD_EMPTY(64, 64, 1),                                           \
        "'q':{'class_type':'UNETLoader','inputs':{'unet_name':'live.safetensors',"                 \
        "'weight_dtype':'default'}}",                                                              \
        SAMPLE("'q'"), WORLD_CAPTURE("x", "['s',0]")
    static const char live[] = "models/diffusion_models/live.safetensors";
    world *w = *state;
    char *dev = NULL, *schnell = NULL;
    size_t dev_n = 0, schnell_n = 0;
    assert_int_equal(at_file_read(world_path(w, "models/diffusion_models/tiny_dev.safetensors"),
                                  1u << 24, &dev, &dev_n),
                     AT_OK);
    assert_int_equal(at_file_read(world_path(w, "models/diffusion_models/tiny_schnell.safetensors"),
                                  1u << 24, &schnell, &schnell_n),
                     AT_OK);
    overwrite(w, live, dev, dev_n);
    world_run(w, DRAW);
    at_tensor *first = at_tensor_retain(world_latent("x"));
    overwrite(w, live, schnell, schnell_n);
    world_run(w, DRAW);
    assert_true(world_distance(world_latent("x"), first) > 1e-3);
    overwrite(w, live, dev, dev_n / 2); // cut down: an error and not a crash
    assert_int_equal(world_try(w, DRAW), AT_EFORMAT);
    assert_error_has("live.safetensors");
    overwrite(w, live, dev, dev_n);
    world_run(w, DRAW);
    world_assert_same(world_latent("x"), first);
    at_tensor_release(&first);
    at_free(dev);
    at_free(schnell);
}

static void a_path_that_leaves_the_folder_is_refused(void **state)
{
    world *w = *state;
    at_env *env = at_engine_env(w->engine);
    static const char *const bad[] = {"../input/x.png", "/etc/passwd", "a/../../b", ".."};
    for (size_t i = 0; i < AT_COUNT(bad); i++) {
        char *path = NULL;
        at_status st = env->find_file(env, "vae", bad[i], &path);
        assert_int_equal(st, AT_EINVAL);
        assert_null(path);
        assert_error_has(bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flux_draws_end_to_end),
        cmocka_unit_test(a_checkpoint_gives_what_its_parts_give),
        cmocka_unit_test(a_checkpoint_without_clip_and_vae_gives_none),
        cmocka_unit_test(schnell_and_other_encoder_order_work),
        cmocka_unit_test(a_file_that_is_not_listed_fails_the_check),
        cmocka_unit_test(the_wrong_kind_of_file_is_named),
        cmocka_unit_test(encoders_that_do_not_fit_the_type_are_refused),
        cmocka_unit_test(a_vocabulary_that_is_missing_is_asked_for),
        cmocka_unit_test(a_model_file_is_mapped_once),
        cmocka_unit_test(a_model_that_changed_on_disk_is_loaded_again),
        cmocka_unit_test(a_path_that_leaves_the_folder_is_refused),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
