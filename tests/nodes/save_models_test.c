// SPDX-License-Identifier: Apache-2.0
// save_models_test.c - models written to files: what lies in them, and that they draw the same again.
#include "world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "weight/edits.h"
#include "weight/store.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"
#define SAMPLE(id, m)                                                                              \
    "'" id "':{'class_type':'KSampler','inputs':{'model':" m ",'seed':5,'steps':2,'cfg':1,"        \
    "'sampler_name':'euler','scheduler':'simple','positive':['p',0],'negative':['n',0],"           \
    "'latent_image':['e',0],'denoise':1}},"
// A model that no file holds: twice the first minus half of it, with the same text encoders and VAE.
#define CHANGED                                                                                    \
    "'g':{'class_type':'ModelMergeSubtract','inputs':{'model1':['m',0],'model2':['m',0],"          \
    "'multiplier':0.5}},'h':{'class_type':'ModelMergeAdd','inputs':{'model1':['m',0],"             \
    "'model2':['g',0]}},"

static at_store *open_output(const world *w, const char *name)
{
    at_store *s = NULL;

    if (at_store_open(world_path(w, "output/%s", name), &s) != AT_OK)
        fail_msg("%s", at_error_text());
    return s;
}

// Every record of `want` below from_prefix is in `got` below to_prefix, byte for byte.
static size_t assert_holds(at_store *got, const char *to, at_store *want, const char *from)
{
    size_t n = 0;

    for (size_t i = 0; i < at_store_count(want); i++) {
        const at_weight *w = at_store_at(want, i), *g;
        if (!at_starts_with(w->name, from) || at_ends_with(w->name, ".position_ids")) continue;
        if (at_ends_with(w->name, "logit_scale")) continue; // ComfyUI's own, whatever the file says
        g = at_store_findf(got, "%s%s", to, w->name + strlen(from));
        if (!g) fail_msg("%s%s is not there", to, w->name + strlen(from));
        assert_int_equal(g->dtype, w->dtype);
        assert_int_equal(g->rank, w->rank);
        assert_memory_equal(g->shape, w->shape, sizeof g->shape);
        assert_memory_equal(g->data, w->data, w->bytes);
        n++;
    }
    assert_true(n > 0);
    return n;
}

static at_store *open_model(const world *w, const char *name)
{
    at_store *s = NULL;

    assert_int_equal(at_store_open(world_path(w, "models/%s", name), &s), AT_OK);
    return s;
}

static void a_checkpoint_holds_its_parts_and_draws_the_same(void **state)
{
    world *w = *state;

    world_run(w, WORLD_BASE CHANGED,
              "'k':{'class_type':'CheckpointSave','inputs':{'model':['h',0],'clip':['c',0],"
              "'vae':['v',0],'filename_prefix':'checkpoints/mine'}},",
              SAMPLE("s", "['h',0]"), WORLD_CAPTURE("a", "['s',0]"));
    at_tensor *direct = at_tensor_retain((at_tensor *)(uintptr_t)world_latent("a"));
    at_store *got = open_output(w, "checkpoints/mine_00001_.safetensors");
    at_store *clip = open_model(w, "text_encoders/tiny_clip_l.safetensors");
    at_store *t5 = open_model(w, "text_encoders/tiny_t5.safetensors");
    at_store *vae = open_model(w, "vae/tiny_ae.safetensors");
    assert_holds(got, "text_encoders.clip_l.transformer.", clip, "");
    assert_holds(got, "text_encoders.t5xxl.transformer.", t5, "");
    assert_holds(got, "vae.", vae, "");
    assert_non_null(at_store_find(got, "text_encoders.clip_l.logit_scale"));
    assert_non_null(at_store_find(got, "model.diffusion_model.img_in.weight"));
    assert_non_null(strstr(at_store_metadata(got, "prompt"), "CheckpointSave"));
    at_store_release(&clip);
    at_store_release(&t5);
    at_store_release(&vae);
    at_store_release(&got);
    char *from = at_strdup(world_path(w, "output/checkpoints/mine_00001_.safetensors"));
    assert_int_equal(rename(from, world_path(w, "models/checkpoints/mine.safetensors")), 0);
    at_free(from);
    world_run(w, WORLD_BASE,
              "'ck':{'class_type':'CheckpointLoaderSimple','inputs':{'ckpt_name':"
              "'mine.safetensors'}},",
              SAMPLE("s", "['ck',0]"), WORLD_CAPTURE("a", "['s',0]"));
    world_assert_same(world_latent("a"), direct);
    at_tensor_release(&direct);
}

static void single_parts_are_files_of_their_own(void **state)
{
    world *w = *state;

    world_run(
        w, WORLD_MODELS
        "'k1':{'class_type':'ModelSave','inputs':{'model':['m',0],"
        "'filename_prefix':'diffusion_models/one'}},"
        "'k2':{'class_type':'CLIPSave','inputs':{'clip':['c',0],'filename_prefix':'clip/one'}},"
        "'k3':{'class_type':'VAESave','inputs':{'vae':['v',0],'filename_prefix':'vae/one'}}");
    static const struct {
        const char *file, *to, *source;
        size_t beside; // tensors that the source has not
    } cases[] = {
        {"diffusion_models/one_00001_.safetensors", "model.diffusion_model.",
         "diffusion_models/tiny_dev.safetensors", 0},
        {"clip/one_clip_l_00001_.safetensors", "", "text_encoders/tiny_clip_l.safetensors", 1},
        {"clip/one_t5xxl_00001_.safetensors", "", "text_encoders/tiny_t5.safetensors", 1},
        {"vae/one_00001_.safetensors", "", "vae/tiny_ae.safetensors", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_store *got = open_output(w, cases[i].file), *want = open_model(w, cases[i].source);
        size_t n = assert_holds(got, cases[i].to, want, "");
        assert_int_equal(at_store_count(got), n + cases[i].beside);
        assert_non_null(at_store_metadata(got, "prompt"));
        if (cases[i].beside) {
            float v;
            at_weight_read_f32(at_store_find(got, "logit_scale"), 0, 1, &v);
            assert_true(v == 4.6055f);
            assert_string_equal(at_store_metadata(got, "format"), "pt");
        }
        at_store_release(&got);
        at_store_release(&want);
    }
}

// OpenCLIP's layout comes back as it was: joined q, k and v, the projection turned.
static void encoders_in_openclip_layout_come_back(void **state)
{
    static const struct {
        const char *file, *prefix;
        at_clip_kind kind;
        at_te place;
    } cases[] = {
        {GOLDEN "clip_g_open/model.safetensors", "conditioner.embedders.1.model.", AT_CLIP_SDXL,
         AT_TE_G},
        {GOLDEN "clip_h_open/model.safetensors", "cond_stage_model.model.", AT_CLIP_SD2, AT_TE_H},
    };
    world *w = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        at_store *want = NULL;
        at_found found[8];
        at_clip_encoder enc[AT_TE_COUNT] = {0};
        char name[64];
        if (at_store_open(cases[i].file, &want) != AT_OK) fail_msg("%s", at_error_text());
        size_t n = at_detect(want, found, 8);
        for (size_t k = 0; k < n; k++)
            if (found[k].part == AT_PART_TEXT && !enc[cases[i].place].encoder)
                assert_int_equal(at_encoder_load(want, &found[k], &enc[cases[i].place].encoder),
                                 AT_OK);
        assert_non_null(enc[cases[i].place].encoder);
        world_give("clip", at_value_object(at_obj_clip_new(cases[i].kind, enc)));
        world_run(w, WORLD_MODELS "'g':{'class_type':'Give','inputs':{'key':'clip'}},",
                  world_nodes("'k':{'class_type':'CheckpointSave','inputs':{'model':['m',0],"
                              "'clip':['g',0],'vae':['v',0],'filename_prefix':'open%zu'}}",
                              i));
        snprintf(name, sizeof name, "open%zu_00001_.safetensors", i);
        at_store *got = open_output(w, name);
        assert_holds(got, cases[i].prefix, want, cases[i].prefix);
        assert_non_null(at_store_findf(got, "%slogit_scale", cases[i].prefix));
        at_store_release(&got);
        at_store_release(&want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_holds_its_parts_and_draws_the_same),
        cmocka_unit_test(single_parts_are_files_of_their_own),
        cmocka_unit_test(encoders_in_openclip_layout_come_back),
    };
    return cmocka_run_group_tests_name("nodes.save_models", tests, world_open, world_close);
}
