// SPDX-License-Identifier: Apache-2.0
// node_loaders.c - CheckpointLoaderSimple, UNETLoader, CLIPLoader, DualCLIPLoader, VAELoader.
// Idea: a loader finds a file by its ComfyUI name, maps it and lets the detection tables say what is in it.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

// Find `name` under `kind` and map it. *path (may be NULL) gets the caller's copy of the path.
static at_status open_named(at_env *e, const char *kind, const char *name, char **path,
                            at_store **store)
{
    char *found = NULL;
    at_status st = e->find_file(e, kind, name, &found);
    if (st == AT_OK) st = e->open_store(e, found, store);
    if (st == AT_OK && path)
        *path = found;
    else
        at_free(found);
    return st;
}

// The encoder found at `where` with its vocabulary.
static at_status load_encoder(at_env *e, at_store *s, const char *path, const at_found *where,
                              at_clip_encoder *out)
{
    at_status st = at_encoder_load(s, where, &out->encoder);
    if (st != AT_OK) return st;
    at_tokenizer_kind kind =
        at_encoder_max_tokens(out->encoder) ? AT_TOK_CLIP_BPE : AT_TOK_T5_UNIGRAM;
    return e->find_tokenizer(e, kind, path, &out->tokenizer);
}

// Load every text encoder of a file into its place. A second one of the same sort is an error.
static at_status load_encoders(at_env *e, at_store *s, const char *path,
                               at_clip_encoder enc[AT_TE_COUNT], size_t *loaded)
{
    at_found found[8];
    size_t n = at_detect(s, found, AT_COUNT(found));
    *loaded = 0;
    for (size_t i = 0; i < n; i++) {
        if (found[i].part != AT_PART_TEXT) continue;
        at_clip_encoder one = {0};
        at_status st = load_encoder(e, s, path, &found[i], &one);
        at_clip_encoder *slot = NULL;
        if (st == AT_OK) {
            slot = &enc[at_encoder_max_tokens(one.encoder) ? AT_TE_L : AT_TE_T5];
            if (slot->encoder)
                st = at_fail(AT_EINVAL, "%s: a second %s text encoder; give one CLIP-L and one T5",
                             at_path_base(path), at_arch_name(at_encoder_arch(one.encoder)));
        }
        if (st != AT_OK) {
            at_encoder_release(&one.encoder);
            at_tokenizer_release(&one.tokenizer);
            return st;
        }
        *slot = one;
        ++*loaded;
    }
    return AT_OK;
}

static void drop_encoders(at_clip_encoder enc[AT_TE_COUNT])
{
    for (size_t i = 0; i < AT_TE_COUNT; i++)
        at_clip_encoder_drop(&enc[i]);
}

// --- CheckpointLoaderSimple --------------------------------------------------------------------------
typedef struct checkpoint_in {
    const char *ckpt_name;
} checkpoint_in;
static const at_in checkpoint_rows[] = {AT_ROW(checkpoint_in, ckpt_name, AT_IN_COMBO,
                                               .list = "checkpoints",
                                               .tip = "The name of the checkpoint to load.")};
static const at_out checkpoint_out[] = {AT_OUT("MODEL"), AT_OUT("CLIP"), AT_OUT("VAE")};

// CLIP and VAE may be missing from a checkpoint: ComfyUI gives None then, and so do we.
static at_status checkpoint_parts(at_env *e, at_store *s, const char *path, at_value *out)
{
    at_status st = AT_OK;
    at_clip_encoder enc[AT_TE_COUNT] = {0};
    at_found found[8];
    size_t encoders = 0, n = at_detect(s, found, AT_COUNT(found));

    AT_TRY(load_encoders(e, s, path, enc, &encoders));
    if (encoders) {
        at_object *clip = at_obj_clip_new(enc[AT_TE_T5].encoder ? AT_CLIP_FLUX : AT_CLIP_SD1, enc);
        AT_TRY(at_give(&out[1], clip, "CLIP"));
    }
    for (size_t i = 0; i < n; i++) {
        if (found[i].part != AT_PART_VAE) continue;
        at_vae *vae = NULL;
        AT_TRY(at_vae_load(s, at_path_base(path), &vae));
        AT_TRY(at_give(&out[2], at_obj_vae_new(vae), "VAE"));
        break;
    }
out:
    drop_encoders(enc);
    return st;
}

static at_status checkpoint_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    at_store *s = NULL;
    char *path = NULL;
    at_model *m = NULL;

    AT_TRY(open_named(e, "checkpoints", ((const checkpoint_in *)in)->ckpt_name, &path, &s));
    AT_TRY(at_model_load(s, at_path_base(path), &m));
    AT_TRY(at_give(&out[0], at_obj_model_new(m), "MODEL"));
    AT_TRY(checkpoint_parts(e, s, path, out));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}
static const at_node node_checkpoint = {
    .class_type = "CheckpointLoaderSimple",
    .display = "Load Checkpoint",
    .category = "loaders",
    .description =
        "Loads a diffusion model checkpoint; diffusion models are used to denoise latents.",
    .python_module = "nodes",
    .in = checkpoint_rows,
    .n_in = AT_COUNT(checkpoint_rows),
    .out = checkpoint_out,
    .n_out = AT_COUNT(checkpoint_out),
    .in_size = sizeof(checkpoint_in),
    .run = checkpoint_run};

// --- UNETLoader --------------------------------------------------------------------------------------
typedef struct unet_in {
    const char *unet_name, *weight_dtype;
} unet_in;
static const char *const weight_dtypes[] = {"default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2",
                                            NULL};
static const at_in unet_rows[] = {
    AT_ROW(unet_in, unet_name, AT_IN_COMBO, .list = "diffusion_models", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(unet_in, weight_dtype, AT_IN_COMBO, .choices = weight_dtypes,
           .flags = AT_INF_NO_OPTIONS),
};
static const at_out unet_out[] = {AT_OUT("MODEL")};

static at_status unet_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    const unet_in *i = in;
    at_store *s = NULL;
    char *path = NULL;
    at_model *m = NULL;

    AT_TRY(open_named(e, "diffusion_models", i->unet_name, &path, &s));
    AT_TRY(at_model_load(s, at_path_base(path), &m));
    // Weights stay in the file's own format on disk and in memory; a smaller storage type would only
    // lose precision here, so the choice has nothing to do on this device.
    if (strcmp(i->weight_dtype, "default") != 0)
        at_sink_emit(
            at_node_sink(c),
            &(at_event){.kind = AT_EV_NOTE,
                        .node = at_node_id(c),
                        .text = "weight_dtype: weights are read in the file's own format"});
    AT_TRY(at_give(&out[0], at_obj_model_new(m), "MODEL"));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}
static const at_node node_unet = {.class_type = "UNETLoader",
                                  .display = "Load Diffusion Model",
                                  .category = "advanced/loaders",
                                  .python_module = "nodes",
                                  .in = unet_rows,
                                  .n_in = AT_COUNT(unet_rows),
                                  .out = unet_out,
                                  .n_out = 1,
                                  .in_size = sizeof(unet_in),
                                  .run = unet_run};

// --- CLIPLoader, DualCLIPLoader ----------------------------------------------------------------------
static const char *const clip_devices[] = {"default", "cpu", NULL};
static const char *const clip_types[] = {
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi",  "ltxv", "pixart",
    "cosmos",           "lumina2",        "wan", "hidream",      "chroma", "ace",  "omnigen2",
    "qwen_image",       "hunyuan_image",  NULL};
static const char *const dual_types[] = {"sdxl",    "sd3",           "flux", "hunyuan_video",
                                         "hidream", "hunyuan_image", NULL};

// Which encoders a loader's `type` joins, and how. Types that are not here need encoders still to come.
typedef struct clip_wiring {
    const char *type;
    bool clip_l, t5;
    at_clip_kind kind;
} clip_wiring;
static const clip_wiring single_wirings[] = {
    {"stable_diffusion", true, false, AT_CLIP_SD1},
    {"sd3", false, true, AT_CLIP_SD3},
};
static const clip_wiring dual_wirings[] = {{"flux", true, true, AT_CLIP_FLUX}};

static at_status wire_clip(const clip_wiring *rows, size_t n, const char *type,
                           at_clip_encoder enc[AT_TE_COUNT], at_value *out)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].type, type) != 0) continue;
        if (rows[i].clip_l != (enc[AT_TE_L].encoder != NULL) ||
            rows[i].t5 != (enc[AT_TE_T5].encoder != NULL))
            return at_fail(AT_EINVAL, "type \"%s\" needs %s%s%s; the file%s given hold%s %s%s%s",
                           type, rows[i].clip_l ? "a CLIP-L" : "",
                           rows[i].clip_l && rows[i].t5 ? " and " : "", rows[i].t5 ? "a T5" : "",
                           n == 1 ? "s" : "", n == 1 ? "" : "s",
                           enc[AT_TE_L].encoder ? "CLIP-L " : "", enc[AT_TE_T5].encoder ? "T5" : "",
                           enc[AT_TE_L].encoder || enc[AT_TE_T5].encoder ? "" : "neither");
        at_object *clip = at_obj_clip_new(rows[i].kind, enc);
        return at_give(out, clip, "CLIP");
    }
    return at_fail(AT_EUNSUPPORTED,
                   "text encoders of type \"%s\" are not built yet; CLIPLoader does "
                   "stable_diffusion (CLIP-L) and sd3 (T5), DualCLIPLoader does flux",
                   type);
}

static at_status load_clip_files(at_node_ctx *c, const char *const *names, size_t n,
                                 const clip_wiring *rows, size_t n_rows, const char *type,
                                 at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    at_clip_encoder enc[AT_TE_COUNT] = {0};
    at_store *s = NULL;
    char *path = NULL;

    for (size_t i = 0; i < n; i++) {
        size_t loaded = 0;
        AT_TRY(open_named(e, "text_encoders", names[i], &path, &s));
        AT_TRY(load_encoders(e, s, path, enc, &loaded));
        if (!loaded)
            AT_TRY(at_fail(AT_EFORMAT,
                           "%s: no text encoder of a known kind in this file (CLIP-L in the "
                           "text_model.* layout or a T5 v1.1 encoder is wanted); "
                           "`atelier inspect` shows what it holds",
                           names[i]));
        at_store_release(&s);
        at_free(path);
        path = NULL;
    }
    AT_TRY(wire_clip(rows, n_rows, type, enc, out));
out:
    drop_encoders(enc);
    at_store_release(&s);
    at_free(path);
    return st;
}

typedef struct clip_in {
    const char *clip_name, *type, *device;
} clip_in;
static const at_in clip_rows[] = {
    AT_ROW(clip_in, clip_name, AT_IN_COMBO, .list = "text_encoders", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(clip_in, type, AT_IN_COMBO, .choices = clip_types, .flags = AT_INF_NO_OPTIONS),
    AT_ROW(clip_in, device, AT_IN_COMBO, .choices = clip_devices,
           .flags = AT_INF_OPTIONAL | AT_INF_ADVANCED),
};
static const at_out clip_out[] = {AT_OUT("CLIP")};
static at_status clip_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clip_in *i = in;
    return load_clip_files(c, &i->clip_name, 1, single_wirings, AT_COUNT(single_wirings), i->type,
                           out);
}
static const at_node node_clip = {.class_type = "CLIPLoader",
                                  .display = "Load CLIP",
                                  .category = "advanced/loaders",
                                  .python_module = "nodes",
                                  .in = clip_rows,
                                  .n_in = AT_COUNT(clip_rows),
                                  .out = clip_out,
                                  .n_out = 1,
                                  .in_size = sizeof(clip_in),
                                  .run = clip_run};

typedef struct dual_in {
    const char *clip_name1, *clip_name2, *type, *device;
} dual_in;
static const at_in dual_rows[] = {
    AT_ROW(dual_in, clip_name1, AT_IN_COMBO, .list = "text_encoders", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(dual_in, clip_name2, AT_IN_COMBO, .list = "text_encoders", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(dual_in, type, AT_IN_COMBO, .choices = dual_types, .flags = AT_INF_NO_OPTIONS),
    AT_ROW(dual_in, device, AT_IN_COMBO, .choices = clip_devices,
           .flags = AT_INF_OPTIONAL | AT_INF_ADVANCED),
};
static at_status dual_run(at_node_ctx *c, const void *in, at_value *out)
{
    const dual_in *i = in;
    return load_clip_files(c, (const char *const[]){i->clip_name1, i->clip_name2}, 2, dual_wirings,
                           AT_COUNT(dual_wirings), i->type, out);
}
static const at_node node_dual = {.class_type = "DualCLIPLoader",
                                  .display = "DualCLIPLoader",
                                  .category = "advanced/loaders",
                                  .python_module = "nodes",
                                  .in = dual_rows,
                                  .n_in = AT_COUNT(dual_rows),
                                  .out = clip_out,
                                  .n_out = 1,
                                  .in_size = sizeof(dual_in),
                                  .run = dual_run};

// --- VAELoader ---------------------------------------------------------------------------------------
typedef struct vae_in {
    const char *vae_name;
} vae_in;
static const at_in vae_rows[] = {
    AT_ROW(vae_in, vae_name, AT_IN_COMBO, .list = "vae", .flags = AT_INF_NO_OPTIONS)};
static const at_out vae_out[] = {AT_OUT("VAE")};
static at_status vae_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const char *name = ((const vae_in *)in)->vae_name;
    at_store *s = NULL;
    at_vae *v = NULL;

    if (strcmp(name, "pixel_space") == 0)
        AT_TRY(
            at_fail(AT_EUNSUPPORTED, "pixel_space: models that work on pixels are not built yet"));
    AT_TRY(open_named(at_env_of(c), "vae", name, NULL, &s));
    AT_TRY(at_vae_load(s, name, &v));
    AT_TRY(at_give(&out[0], at_obj_vae_new(v), "VAE"));
out:
    at_store_release(&s);
    return st;
}
static const at_node node_vae = {.class_type = "VAELoader",
                                 .display = "Load VAE",
                                 .category = "loaders",
                                 .python_module = "nodes",
                                 .in = vae_rows,
                                 .n_in = AT_COUNT(vae_rows),
                                 .out = vae_out,
                                 .n_out = 1,
                                 .in_size = sizeof(vae_in),
                                 .run = vae_run};

const at_node *const at_nodes_loaders[] = {&node_checkpoint, &node_unet, &node_clip,
                                           &node_dual,       &node_vae,  NULL};
