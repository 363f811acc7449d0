// SPDX-License-Identifier: Apache-2.0
// node_loaders.c - CheckpointLoaderSimple, UNETLoader.
// Idea: a loader finds a file by its ComfyUI name, maps it and lets the detection tables say what is in it.
#include "nodes/loaders.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

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

    AT_TRY(at_load_encoders(e, s, path, enc, &encoders));
    if (encoders) {
        at_object *clip = NULL;
        AT_TRY(at_checkpoint_clip(enc, at_path_base(path), &clip));
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
    at_drop_encoders(enc);
    return st;
}

at_status at_load_checkpoint(at_env *e, const char *name, at_value *out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    char *path = NULL;
    at_model *m = NULL;

    AT_TRY(at_env_open(e, "checkpoints", name, &path, &s));
    AT_TRY(at_model_load(s, at_path_base(path), &m));
    AT_TRY(at_give(&out[0], at_obj_model_new(m), "MODEL"));
    AT_TRY(checkpoint_parts(e, s, path, out));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}

static at_status checkpoint_run(at_node_ctx *c, const void *in, at_value *out)
{
    return at_load_checkpoint(at_env_of(c), ((const checkpoint_in *)in)->ckpt_name, out);
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

at_status at_load_unet(at_node_ctx *c, const char *name, const char *weight_dtype, at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    at_store *s = NULL;
    char *path = NULL;
    at_model *m = NULL;

    AT_TRY(at_env_open(e, "diffusion_models", name, &path, &s));
    AT_TRY(at_model_load(s, at_path_base(path), &m));
    // A GPU that multiplies in fp8 keeps wide layers in it, with a scale a row, whichever of the types was
    // chosen. The CPU reads weights in the file's own format: a smaller type would only lose precision.
    if (strcmp(weight_dtype, "default") != 0 && !e->device->host) {
        at_model *plain = m;
        m = NULL;
        st = at_model_with_fp8(plain, &m);
        at_model_release(&plain);
        AT_TRY(st);
    } else if (strcmp(weight_dtype, "default") != 0) {
        at_sink_emit(
            at_node_sink(c),
            &(at_event){.kind = AT_EV_NOTE,
                        .node = at_node_id(c),
                        .text = "weight_dtype: weights are read in the file's own format"});
    }
    AT_TRY(at_give(out, at_obj_model_new(m), "MODEL"));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}

static at_status unet_run(at_node_ctx *c, const void *in, at_value *out)
{
    const unet_in *i = in;
    return at_load_unet(c, i->unet_name, i->weight_dtype, &out[0]);
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

const at_node *const at_nodes_loaders[] = {&node_checkpoint, &node_unet, NULL};
