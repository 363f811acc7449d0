// SPDX-License-Identifier: Apache-2.0
// node_latent.c - EmptyLatentImage, EmptySD3LatentImage: where a picture starts.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

typedef struct empty_in {
    int64_t width, height, batch_size;
} empty_in;

static at_status empty_latent(const empty_in *in, int channels, int downscale, at_value *out)
{
    at_tensor *t = NULL;
    int64_t shape[4] = {in->batch_size, channels, in->height / downscale, in->width / downscale};
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 4, shape, &t);
    if (st != AT_OK) return st;
    memset(at_tensor_data(t), 0, at_tensor_bytes(t));
    return at_give(out, at_obj_latent_new(t), "empty latent");
}

static at_status empty_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return empty_latent(in, 4, 8, out);
}
static at_status empty_sd3_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return empty_latent(in, 16, 8, out);
}

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
static const at_out latent_out[] = {AT_OUT("LATENT")};

static const at_node node_empty = {.class_type = "EmptyLatentImage",
                                   .display = "Empty Latent Image",
                                   .category = "latent",
                                   .description =
                                       "A batch of empty latents to be filled by sampling.",
                                   .python_module = "nodes",
                                   .in = empty_rows,
                                   .n_in = AT_COUNT(empty_rows),
                                   .out = latent_out,
                                   .n_out = 1,
                                   .in_size = sizeof(empty_in),
                                   .run = empty_run};
static const at_node node_empty_sd3 = {.class_type = "EmptySD3LatentImage",
                                       .category = "latent/sd3",
                                       .python_module = "comfy_extras.nodes_sd3",
                                       .flags = AT_NODE_V3,
                                       .in = empty_sd3_rows,
                                       .n_in = AT_COUNT(empty_sd3_rows),
                                       .out = latent_out,
                                       .n_out = 1,
                                       .in_size = sizeof(empty_in),
                                       .run = empty_sd3_run};

const at_node *const at_nodes_latent[] = {&node_empty, &node_empty_sd3, NULL};
