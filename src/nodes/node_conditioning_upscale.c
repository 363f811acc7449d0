// SPDX-License-Identifier: Apache-2.0
// node_conditioning_upscale.c - SD_4XUpscale_Conditioning: an empty latent of a quarter of the new
// size.
// Idea: the picture that the node adds to prompts is read by Stable Diffusion's x4 upscaling
// network alone, and no loader takes that one (it says so); for every other network the prompts are
// as they were.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_sdupscale.py (behaviour).
#include <math.h>
#include <string.h>

#include "nodes/nodes.h"
#include "nodes/pixels.h"

typedef struct upscale_in {
    at_object *images, *positive, *negative;
    double scale_ratio, noise_augmentation;
} upscale_in;
static const at_in upscale_rows[] = {
    AT_ROW_LINK(upscale_in, images, "IMAGE"),
    AT_ROW_LINK(upscale_in, positive, "CONDITIONING"),
    AT_ROW_LINK(upscale_in, negative, "CONDITIONING"),
    AT_ROW_FLOAT_STEP(upscale_in, scale_ratio, 4.0, 0, 10, 0.01),
    AT_ROW_FLOAT_STEP(upscale_in, noise_augmentation, 0.0, 0, 1, 0.001),
};
static const at_out upscale_out[] = {{.type_name = "CONDITIONING", .name = "positive"},
                                     {.type_name = "CONDITIONING", .name = "negative"},
                                     {.type_name = "LATENT", .name = "latent"}};
#define NAME "SD_4XUpscale_Conditioning"
static at_status upscale_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const upscale_in *i = in;
    at_status st = AT_OK;
    at_tensor *t = NULL;
    at_pixels px;

    AT_TRY(at_pixels_of(NAME, i->images, &px));
    double w = fmax(1, rint((double)px.w * i->scale_ratio)); // Python's round is to even
    double h = fmax(1, rint((double)px.h * i->scale_ratio));
    if (!(w >= 4 && h >= 4 && w <= 4 * AT_MAX_RESOLUTION && h <= 4 * AT_MAX_RESOLUTION))
        AT_TRY(at_fail(AT_EINVAL, NAME ": %g x %g pixels make no latent; 4 to %d are possible", w,
                       h, 4 * AT_MAX_RESOLUTION));
    int64_t shape[] = {px.b, 4, (int64_t)h / 4, (int64_t)w / 4};
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, shape, &t));
    memset(at_tensor_data(t), 0, at_tensor_bytes(t));
    AT_TRY(at_give(&out[2], at_obj_latent_new(t), NAME));
    out[0] = at_value_object(at_object_retain(i->positive));
    out[1] = at_value_object(at_object_retain(i->negative));
out:
    return st;
}
static const at_node node_upscale = {.class_type = NAME,
                                     .category = "conditioning/upscale_diffusion",
                                     .python_module = "comfy_extras.nodes_sdupscale",
                                     .flags = AT_NODE_V3,
                                     .in = upscale_rows,
                                     .n_in = AT_COUNT(upscale_rows),
                                     .out = upscale_out,
                                     .n_out = AT_COUNT(upscale_out),
                                     .in_size = sizeof(upscale_in),
                                     .run = upscale_run};

const at_node *const at_nodes_conditioning_upscale[] = {&node_upscale, NULL};
