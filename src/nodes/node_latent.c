// SPDX-License-Identifier: Apache-2.0
// node_latent.c - EmptyLatentImage, EmptySD3LatentImage, EmptyHunyuanImageLatent,
// EmptyChromaRadianceLatentImage: where a picture starts; SetLatentNoiseMask: where it may change.
// Source: ComfyUI 0.3.64, shapes of nodes.py and comfy_extras (nodes_sd3, nodes_hunyuan,
// nodes_chroma_radiance).
#include "nodes/latent.h"
#include "nodes/nodes.h"

#include <string.h>

typedef struct empty_in {
    int64_t width, height, batch_size;
} empty_in;

static at_status empty_latent(const empty_in *in, int channels, int downscale, at_value *out)
{
    at_tensor *t = NULL;
    int64_t shape[4] = {in->batch_size, channels, in->height / downscale, in->width / downscale};
    at_status st = at_latent_alloc("empty latent", shape, &t);
    if (st != AT_OK) return st;
    memset(at_tensor_data(t), 0, at_tensor_bytes(t));
    return at_give(out, at_obj_latent_new(t), "empty latent");
}

#define EMPTY_RUN(name, channels, downscale)                                                       \
    static at_status name(at_node_ctx *c, const void *in, at_value *out)                           \
    {                                                                                              \
        (void)c;                                                                                   \
        return empty_latent(in, channels, downscale, out);                                         \
    }
EMPTY_RUN(empty_run, 4, 8)
EMPTY_RUN(empty_sd3_run, 16, 8)
EMPTY_RUN(empty_hunyuan_run, 64, 32)
EMPTY_RUN(empty_radiance_run, 3, 1) // pixels are its latents

static const at_in empty_rows[] = {
    AT_ROW_INT_STEP(empty_in, width, 512, 16, 16384, 8),
    AT_ROW_INT_STEP(empty_in, height, 512, 16, 16384, 8),
    AT_ROW_INT(empty_in, batch_size, 1, 1, 4096),
};
static const at_in empty_sd3_rows[] = {
    AT_ROW_INT_STEP(empty_in, width, 1024, 16, 16384, 16),
    AT_ROW_INT_STEP(empty_in, height, 1024, 16, 16384, 16),
    AT_ROW_INT(empty_in, batch_size, 1, 1, 4096),
};
static const at_in empty_hunyuan_rows[] = {
    AT_ROW_INT_STEP(empty_in, width, 2048, 64, 16384, 32),
    AT_ROW_INT_STEP(empty_in, height, 2048, 64, 16384, 32),
    AT_ROW_INT(empty_in, batch_size, 1, 1, 4096),
};

static const at_node node_empty = {.class_type = "EmptyLatentImage",
                                   .display = "Empty Latent Image",
                                   .category = "latent",
                                   .description =
                                       "A batch of empty latents to be filled by sampling.",
                                   .python_module = "nodes",
                                   .in = empty_rows,
                                   .n_in = AT_COUNT(empty_rows),
                                   .out = at_latent_out,
                                   .n_out = 1,
                                   .in_size = sizeof(empty_in),
                                   .run = empty_run};
static const at_node node_empty_sd3 =
    AT_LATENT_NODE("EmptySD3LatentImage", NULL, "latent/sd3", "comfy_extras.nodes_sd3", AT_NODE_V3,
                   empty_sd3_rows, empty_in, empty_sd3_run);
static const at_node node_empty_hunyuan = AT_LATENT_NODE(
    "EmptyHunyuanImageLatent", "EmptyHunyuanImageLatent", "latent", "comfy_extras.nodes_hunyuan", 0,
    empty_hunyuan_rows, empty_in, empty_hunyuan_run);
static const at_node node_empty_radiance = AT_LATENT_NODE(
    "EmptyChromaRadianceLatentImage", NULL, "latent/chroma_radiance",
    "comfy_extras.nodes_chroma_radiance", AT_NODE_V3, empty_sd3_rows, empty_in, empty_radiance_run);

// --- SetLatentNoiseMask ------------------------------------------------------------------------------
typedef struct mask_in {
    at_object *samples, *mask;
} mask_in;
static const at_in mask_rows[] = {AT_ROW_LINK_BARE(mask_in, samples, "LATENT"),
                                  AT_ROW_LINK_BARE(mask_in, mask, "MASK")};

static at_status mask_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const mask_in *i = in;
    const at_obj_latent *l = (const at_obj_latent *)i->samples;
    const at_tensor *m = ((const at_obj_image *)i->mask)->pixels;
    at_tensor *shaped = NULL;
    int64_t h = m->shape[m->rank - 2], w = m->shape[m->rank - 1];

    if (h < 1 || w < 1)
        AT_TRY(at_fail(AT_EINVAL, "SetLatentNoiseMask: a mask of %lld x %lld", (long long)w,
                       (long long)h));
    AT_TRY(at_tensor_reshape(m, 4, (int64_t[]){at_tensor_count(m) / (h * w), 1, h, w}, &shaped));
    AT_TRY(at_latent_give("SetLatentNoiseMask", l, at_tensor_retain(l->samples), out));
    at_obj_latent *made = (at_obj_latent *)out->o;
    at_tensor_release(&made->noise_mask);
    made->noise_mask = shaped;
    shaped = NULL;
out:
    at_tensor_release(&shaped);
    return st;
}
static const at_node node_mask =
    AT_LATENT_NODE("SetLatentNoiseMask", "Set Latent Noise Mask", "latent/inpaint", "nodes", 0,
                   mask_rows, mask_in, mask_run);

const at_node *const at_nodes_latent[] = {
    &node_empty, &node_empty_sd3, &node_empty_hunyuan, &node_empty_radiance, &node_mask, NULL};
