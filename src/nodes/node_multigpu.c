// SPDX-License-Identifier: Apache-2.0
// node_multigpu.c - the loaders of ComfyUI-MultiGPU, so that its workflows run: a loader of ComfyUI's with a device.
// Idea: the object that a loader gives remembers the device; whoever opens an op context for it asks the object first
// (at_env_config_for). Where nothing is said, or the device is not here, the engine places it (engine/places.h).
// Easy to get wrong: a denoiser that is put on another device than the job's samples there alone; a VAE likewise.
// What is about spreading one network's layers over devices (DisTorch) has no counterpart: weights that do not fit
// stream, or --parallel tp=N cuts them.
// Source: names and rows of ComfyUI-MultiGPU's nodes.py, wrappers.py and checkpoint_multigpu.py (2026-03), behaviour
// only. Owns nothing.
#include "nodes/control.h"
#include "nodes/loaders.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#define MODULE   "custom_nodes.comfyui-multigpu"
#define CATEGORY "multigpu"

// The first is what the editor offers; a row without a value leaves the choice to the engine.
static const char *const devices[] = {"cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4",
                                      "cuda:5", "cuda:6", "cuda:7", "cpu",    NULL};
#define ROW_FILE(T, field, KIND)                                                                   \
    AT_ROW(T, field, AT_IN_COMBO, .list = KIND, .flags = AT_INF_NO_OPTIONS)
#define ROW_CHOICE(T, field, CHOICES)                                                              \
    AT_ROW(T, field, AT_IN_COMBO, .choices = CHOICES, .flags = AT_INF_NO_OPTIONS)
#define ROW_DEVICE(T, field, FLAGS)                                                                \
    AT_ROW(T, field, AT_IN_COMBO, .choices = devices, .flags = FLAGS)
#define NODE(name, CLASS, DISPLAY, T, ROWS, OUT, RUN)                                              \
    static const at_node name = {.class_type = CLASS,                                              \
                                 .display = DISPLAY,                                               \
                                 .category = CATEGORY,                                             \
                                 .python_module = MODULE,                                          \
                                 .in = ROWS,                                                       \
                                 .n_in = AT_COUNT(ROWS),                                           \
                                 .out = OUT,                                                       \
                                 .n_out = AT_COUNT(OUT),                                           \
                                 .in_size = sizeof(T),                                             \
                                 .run = RUN}

static const at_out model_out[] = {AT_OUT("MODEL")};
static const at_out clip_out[] = {AT_OUT("CLIP")};
static const at_out vae_out[] = {AT_OUT("VAE")};
static const at_out control_out[] = {AT_OUT("CONTROL_NET")};
static const at_out all_out[] = {AT_OUT("MODEL"), AT_OUT("CLIP"), AT_OUT("VAE")};

// --- one network a file ------------------------------------------------------------------------------
typedef struct unet_in {
    const char *unet_name, *weight_dtype, *device;
} unet_in;
static const char *const weight_dtypes[] = {"default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2",
                                            NULL};
static const at_in unet_rows[] = {
    ROW_FILE(unet_in, unet_name, "diffusion_models"),
    ROW_CHOICE(unet_in, weight_dtype, weight_dtypes),
    ROW_DEVICE(unet_in, device, AT_INF_OPTIONAL),
};
static at_status unet_run(at_node_ctx *c, const void *in, at_value *out)
{
    const unet_in *i = in;
    at_status st = at_load_unet(c, i->unet_name, i->weight_dtype, &out[0]);
    if (st == AT_OK) ((at_obj_model *)out[0].o)->device = at_loader_device(c, i->device);
    return st;
}
NODE(node_unet, "UNETLoaderMultiGPU", "UNETLoaderMultiGPU", unet_in, unet_rows, model_out,
     unet_run);

typedef struct vae_in {
    const char *vae_name, *device;
} vae_in;
static const at_in vae_rows[] = {ROW_FILE(vae_in, vae_name, "vae"),
                                 ROW_DEVICE(vae_in, device, AT_INF_OPTIONAL)};
static at_status vae_run(at_node_ctx *c, const void *in, at_value *out)
{
    const vae_in *i = in;
    at_status st = at_load_vae(at_env_of(c), i->vae_name, &out[0]);
    if (st == AT_OK) ((at_obj_vae *)out[0].o)->device = at_loader_device(c, i->device);
    return st;
}
NODE(node_vae, "VAELoaderMultiGPU", "VAELoaderMultiGPU", vae_in, vae_rows, vae_out, vae_run);

typedef struct control_in {
    const char *control_net_name, *device;
} control_in;
static const at_in control_rows[] = {ROW_FILE(control_in, control_net_name, "controlnet"),
                                     ROW_DEVICE(control_in, device, AT_INF_OPTIONAL)};
static at_status control_run(at_node_ctx *c, const void *in, at_value *out)
{
    const control_in *i = in;
    at_status st = at_load_control(c, i->control_net_name, NULL, &out[0]);
    if (st == AT_OK) ((at_obj_control *)out[0].o)->device = at_loader_device(c, i->device);
    return st;
}
NODE(node_control, "ControlNetLoaderMultiGPU", "ControlNetLoaderMultiGPU", control_in, control_rows,
     control_out, control_run);

// --- text encoders -------------------------------------------------------------------------------------
typedef struct clip_in {
    const char *clip_name, *clip_name2, *clip_name3, *type, *device;
} clip_in;
static const at_in clip_rows[] = {
    ROW_FILE(clip_in, clip_name, "text_encoders"),
    ROW_CHOICE(clip_in, type, at_clip_types),
    ROW_DEVICE(clip_in, device, AT_INF_OPTIONAL),
};
static at_status clip_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clip_in *i = in;
    return at_load_clip_files(c, &i->clip_name, 1, i->type, at_loader_device(c, i->device), out);
}
NODE(node_clip, "CLIPLoaderMultiGPU", "CLIPLoaderMultiGPU", clip_in, clip_rows, clip_out, clip_run);

#define ROW_NAMED(label, field)                                                                    \
    {                                                                                              \
        .name = label, .type = AT_IN_COMBO, .offset = offsetof(clip_in, field),                    \
        .list = "text_encoders", .flags = AT_INF_NO_OPTIONS                                        \
    }
static const at_in dual_rows[] = {
    ROW_NAMED("clip_name1", clip_name),
    ROW_NAMED("clip_name2", clip_name2),
    ROW_CHOICE(clip_in, type, at_dual_clip_types),
    ROW_DEVICE(clip_in, device, AT_INF_OPTIONAL),
};
static at_status dual_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clip_in *i = in;
    return at_load_clip_files(c, (const char *const[]){i->clip_name, i->clip_name2}, 2, i->type,
                              at_loader_device(c, i->device), out);
}
NODE(node_dual, "DualCLIPLoaderMultiGPU", "DualCLIPLoaderMultiGPU", clip_in, dual_rows, clip_out,
     dual_run);

static const at_in triple_rows[] = {
    ROW_NAMED("clip_name1", clip_name),
    ROW_NAMED("clip_name2", clip_name2),
    ROW_NAMED("clip_name3", clip_name3),
    ROW_DEVICE(clip_in, device, AT_INF_OPTIONAL),
};
static at_status triple_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clip_in *i = in;
    return at_load_clip_files(c, (const char *const[]){i->clip_name, i->clip_name2, i->clip_name3},
                              3, "stable_diffusion", at_loader_device(c, i->device), out);
}
NODE(node_triple, "TripleCLIPLoaderMultiGPU", "TripleCLIPLoaderMultiGPU", clip_in, triple_rows,
     clip_out, triple_run);

// --- checkpoints -----------------------------------------------------------------------------------------
typedef struct checkpoint_in {
    const char *ckpt_name, *device, *unet_device, *clip_device, *vae_device;
} checkpoint_in;

static at_status load_parts(at_node_ctx *c, const checkpoint_in *i, const char *clip_device,
                            at_value *out)
{
    at_status st = at_load_checkpoint(at_env_of(c), i->ckpt_name, out);

    if (st != AT_OK) return st;
    ((at_obj_model *)out[0].o)->device = at_loader_device(c, i->unet_device);
    if (out[1].o) ((at_obj_clip *)out[1].o)->device = at_loader_device(c, clip_device);
    if (out[2].o) ((at_obj_vae *)out[2].o)->device = at_loader_device(c, i->vae_device);
    return AT_OK;
}

static const at_in simple_rows[] = {ROW_FILE(checkpoint_in, ckpt_name, "checkpoints"),
                                    ROW_DEVICE(checkpoint_in, device, AT_INF_OPTIONAL)};
// Its text encoders stay where text encoders run, as in MultiGPU.
static at_status simple_run(at_node_ctx *c, const void *in, at_value *out)
{
    checkpoint_in i = *(const checkpoint_in *)in;
    i.unet_device = i.vae_device = i.device;
    return load_parts(c, &i, NULL, out);
}
NODE(node_simple, "CheckpointLoaderSimpleMultiGPU", "CheckpointLoaderSimpleMultiGPU", checkpoint_in,
     simple_rows, all_out, simple_run);

static const at_in advanced_rows[] = {
    ROW_FILE(checkpoint_in, ckpt_name, "checkpoints"),
    ROW_DEVICE(checkpoint_in, unet_device, 0),
    ROW_DEVICE(checkpoint_in, clip_device, 0),
    ROW_DEVICE(checkpoint_in, vae_device, 0),
};
static at_status advanced_run(at_node_ctx *c, const void *in, at_value *out)
{
    const checkpoint_in *i = in;
    return load_parts(c, i, i->clip_device, out);
}
NODE(node_advanced, "CheckpointLoaderAdvancedMultiGPU", "CheckpointLoaderAdvancedMultiGPU",
     checkpoint_in, advanced_rows, all_out, advanced_run);

const at_node *const at_nodes_multigpu[] = {&node_unet,     &node_vae,     &node_clip,
                                            &node_dual,     &node_triple,  &node_simple,
                                            &node_advanced, &node_control, NULL};
