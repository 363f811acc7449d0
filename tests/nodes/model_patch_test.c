// SPDX-License-Identifier: Apache-2.0
// model_patch_test.c - what model patches do to a run: ComfyUI's own nodes, samplers and random
// numbers on the same network gave the expected latents (tools/golden/patch_cases.py).
// Easy to get wrong: the network is random, so it multiplies roundings; merged tokens and blurred
// regions are choices, which such a rounding could turn: it does not with these inputs.
#include "world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#define GOLDEN AT_SOURCE_DIR "/tests/golden/"

typedef struct row {
    const char *name;
    int h, w;          // of the latent
    const char *patch; // nodes; the last one is 'z', its model input comes from 'm'
} row;

#define NODE(id, from, class, inputs)                                                              \
    "'" id "':{'class_type':'" class "','inputs':{'model':['" from "',0]," inputs "}},"
#define HYPERTILE(id, from, swap, depth, scale)                                                    \
    NODE(id, from, "HyperTile",                                                                    \
         "'tile_size':32,'swap_size':" swap ",'max_depth':" depth ",'scale_depth':" scale)
#define SHRINK(block, factor, start, end, after, down, up)                                         \
    NODE("z", "m", "PatchModelAddDownscale",                                                       \
         "'block_number':" block ",'downscale_factor':" factor ",'start_percent':" start           \
         ",'end_percent':" end ",'downscale_after_skip':" after ",'downscale_method':'" down       \
         "','upscale_method':'" up "'")
#define SAG                NODE("z", "m", "SelfAttentionGuidance", "'scale':0.75,'blur_sigma':2.0")
#define FREEU_V2(id, from) NODE(id, from, "FreeU_V2", "'b1':1.3,'b2':1.6,'s1':0.9,'s2':0.2")

static const row rows[] = {
    {"plain", 12, 16, NODE("z", "m", "TorchCompileModel", "'backend':'inductor'")},
    {"freeu", 12, 16, NODE("z", "m", "FreeU", "'b1':1.3,'b2':1.4,'s1':0.7,'s2':0.3")},
    {"freeu_v2", 11, 9, FREEU_V2("z", "m")},
    {"hypertile", 12, 16, HYPERTILE("z", "m", "4", "0", "false")},
    {"hypertile_deep", 16, 16, HYPERTILE("z", "m", "9", "1", "false")},
    {"hypertile_scaled", 16, 8, HYPERTILE("z", "m", "4", "1", "true")},
    {"tome", 12, 16, NODE("z", "m", "TomePatchModel", "'ratio':0.5")},
    {"tome_odd", 11, 9, NODE("z", "m", "TomePatchModel", "'ratio':0.9")},
    {"pag", 12, 16, NODE("z", "m", "PerturbedAttentionGuidance", "'scale':3.0")},
    {"sag", 12, 16, SAG},
    {"sag_wide", 9, 14, SAG},
    {"shrink", 12, 16, SHRINK("2", "2.0", "0.0", "1.0", "true", "bicubic", "bislerp")},
    {"shrink_before", 12, 16, SHRINK("1", "1.5", "0.0", "1.0", "false", "area", "bilinear")},
    {"shrink_late", 12, 16, SHRINK("2", "2.0", "0.3", "0.7", "true", "nearest-exact", "bicubic")},
    {"self_times", 8, 8,
     NODE("z", "m", "UNetSelfAttentionMultiply", "'q':1.2,'k':0.9,'v':1.1,'out':0.8")},
    {"cross_times", 8, 8,
     NODE("z", "m", "UNetCrossAttentionMultiply", "'q':0.5,'k':1.5,'v':1.25,'out':1.5")},
    {"time_times", 8, 8,
     NODE("z", "m", "UNetTemporalAttentionMultiply",
          "'self_structural':0.5,'self_temporal':9.0,'cross_structural':1.5,'cross_temporal':9.0")},
    {"hyper_relu", 8, 8,
     NODE("z", "m", "HypernetworkLoader", "'hypernetwork_name':'hyper_relu.pt','strength':0.8")},
    {"hyper_mish", 8, 8,
     NODE("z", "m", "HypernetworkLoader", "'hypernetwork_name':'hyper_mish.pt','strength':-1.5")},
    {"together", 12, 16,
     FREEU_V2("a", "m") HYPERTILE("b", "a", "4", "0", "false")
         NODE("c", "b", "TomePatchModel", "'ratio':0.5")
             NODE("z", "c", "PerturbedAttentionGuidance", "'scale':3.0")},
};

#define SAMPLE                                                                                     \
    "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'sd15.safetensors',"                     \
    "'weight_dtype':'default'}},"                                                                  \
    "'p':{'class_type':'Give','inputs':{'key':'positive'}},"                                       \
    "'n':{'class_type':'Give','inputs':{'key':'negative'}},"                                       \
    "'k':{'class_type':'KSampler','inputs':{'model':['z',0],'seed':42,'steps':3,'cfg':5.0,"        \
    "'sampler_name':'euler','scheduler':'normal','positive':['p',0],'negative':['n',0],"           \
    "'latent_image':['e',0],'denoise':1.0}}," WORLD_CAPTURE("out", "['k',0]")

// A record of the expected file as a tensor on the host.
static at_tensor *record(at_store *s, const char *name)
{
    at_tensor *t = NULL;
    const at_weight *w = at_store_find(s, name);
    assert_non_null(w);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, w->rank, w->shape, &t), AT_OK);
    at_weight_read_f32(w, 0, at_weight_elements(w), at_tensor_data(t));
    return t;
}

static void give_text(at_store *s, const char *key)
{
    at_obj_cond *c = (at_obj_cond *)at_obj_cond_new(1);
    assert_non_null(c);
    c->items[0].context = record(s, key);
    world_give(key, at_value_object(&c->base));
}

// A golden file under a name in the world's models.
static void link_model(world *w, const char *golden, const char *as)
{
    char *from = at_strprintf(GOLDEN "%s", golden);
    assert_non_null(from);
    assert_int_equal(symlink(from, world_path(w, "models/%s", as)), 0);
    at_free(from);
}

static void a_patched_run_gives_comfyuis_latent(void **state)
{
    world *w = *state;
    at_store *s = NULL;
    int bad = 0;

    assert_int_equal(at_make_dirs(world_path(w, "models/hypernetworks")), AT_OK);
    link_model(w, "unet_sd15/model.safetensors", "diffusion_models/sd15.safetensors");
    link_model(w, "unet_patches/hyper_relu.pt", "hypernetworks/hyper_relu.pt");
    link_model(w, "unet_patches/hyper_mish.pt", "hypernetworks/hyper_mish.pt");
    assert_int_equal(at_store_open(GOLDEN "unet_patches/expected.safetensors", &s), AT_OK);
    give_text(s, "positive");
    give_text(s, "negative");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const row *r = &rows[i];
        world_run(w, r->patch,
                  world_nodes("'e':{'class_type':'EmptyLatentImage','inputs':{'width':%d,"
                              "'height':%d,'batch_size':1}},",
                              8 * r->w, 8 * r->h),
                  SAMPLE);
        at_tensor *want = record(s, r->name);
        double e = world_distance(world_latent("out"), want);
        // The unpatched run is off by 6e-6: three steps of a random network.
        if (!(e < 1e-4)) bad++;
        print_message("%-18s rel_err=%.2e%s\n", r->name, e, e < 1e-4 ? "" : " FAIL");
        at_tensor_release(&want);
    }
    at_store_release(&s);
    assert_int_equal(bad, 0);
}

#define CLIP_TIMES(id, q, k, v)                                                                    \
    "'" id "':{'class_type':'CLIPAttentionMultiply','inputs':{'clip':['c',0],'q':" q ",'k':" k     \
    ",'v':" v ",'out':1.0}},'" id "p':{'class_type':'CLIPTextEncode','inputs':{'text':"            \
    "'a red circle','clip':['" id "',0]}}," WORLD_CAPTURE(id "c", "['" id "p',0]")

// Doubled queries and halved keys make the same logits; CLIP's pooled vector is what the tiny Flux
// takes of it.
static void clip_attention_is_scaled_by_its_parts(void **state)
{
    world *w = *state;
    world_run(w, WORLD_MODELS CLIP_TIMES("one", "1.0", "1.0", "1.0"),
              CLIP_TIMES("same", "2.0", "0.5", "1.0"), CLIP_TIMES("query", "2.0", "1.0", "1.0"),
              CLIP_TIMES("value", "1.0", "1.0", "2.0"));
    const at_tensor *one = world_cond("onec")->items[0].pooled;
    assert_true(world_distance(world_cond("samec")->items[0].pooled, one) < 1e-6);
    assert_true(world_distance(world_cond("queryc")->items[0].pooled, one) > 1e-3);
    assert_true(world_distance(world_cond("valuec")->items[0].pooled, one) > 1e-2);
}

static void what_no_unet_can_do_is_refused(void **state)
{
    world *w = *state;
    // A network without a UNet's blocks.
    assert_int_equal(
        world_try(w, WORLD_MODELS NODE("z", "m", "FreeU", "'b1':1.1,'b2':1.2,'s1':0.9,'s2':0.2")
                         WORLD_CAPTURE("out", "['z',0]")),
        AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "is no UNet"));
    // Numbers that came over a link.
    assert_int_equal(
        world_try(w, WORLD_MODELS
                  "'i':{'class_type':'PrimitiveInt','inputs':{'value':0}},"
                  "'z':{'class_type':'HyperTile','inputs':{'model':['m',0],'tile_size':256,"
                  "'swap_size':['i',0],'max_depth':0,'scale_depth':false}}," WORLD_CAPTURE(
                      "out", "['z',0]")),
        AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "swap_size 0"));
    // A layer that fits nowhere.
    assert_int_equal(at_make_dirs(world_path(w, "models/hypernetworks")), AT_OK);
    link_model(w, "unet_patches/hyper_bad.pt", "hypernetworks/hyper_bad.pt");
    assert_int_equal(
        world_try(w, WORLD_MODELS NODE("z", "m", "HypernetworkLoader",
                                       "'hypernetwork_name':'hyper_bad.pt',"
                                       "'strength':1.0") WORLD_CAPTURE("out", "['z',0]")),
        AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "no linear layer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_patched_run_gives_comfyuis_latent),
        cmocka_unit_test(clip_attention_is_scaled_by_its_parts),
        cmocka_unit_test(what_no_unet_can_do_is_refused),
    };
    return cmocka_run_group_tests_name("nodes.model_patch", tests, world_open, world_close);
}
