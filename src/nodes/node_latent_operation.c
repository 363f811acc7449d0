// SPDX-License-Identifier: Apache-2.0
// node_latent_operation.c - LatentOperationTonemapReinhard, LatentOperationSharpen, LatentApplyOperation.
#include "nodes/latent.h"
#include "nodes/latent_operation.h"
#include "nodes/nodes.h"

#define MODULE   "comfy_extras.nodes_latent"
#define CATEGORY "latent/advanced/operations"

static const at_out operation_out[] = {AT_OUT("LATENT_OPERATION")};

typedef struct tonemap_in {
    double multiplier;
} tonemap_in;
static const at_in tonemap_rows[] = {AT_ROW_FLOAT_STEP(tonemap_in, multiplier, 1.0, 0, 100, 0.01)};
static at_status tonemap_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_latent_operation op = {.kind = AT_LATENT_TONEMAP_REINHARD,
                              .multiplier = ((const tonemap_in *)in)->multiplier};
    return at_give(&out[0], at_obj_latent_operation_new(&op), "LatentOperationTonemapReinhard");
}
static const at_node node_tonemap = {.class_type = "LatentOperationTonemapReinhard",
                                     .category = CATEGORY,
                                     .python_module = MODULE,
                                     .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                     .in = tonemap_rows,
                                     .n_in = AT_COUNT(tonemap_rows),
                                     .out = operation_out,
                                     .n_out = 1,
                                     .in_size = sizeof(tonemap_in),
                                     .run = tonemap_run};

typedef struct sharpen_in {
    int64_t sharpen_radius;
    double sigma, alpha;
} sharpen_in;
static const at_in sharpen_rows[] = {AT_ROW_INT_STEP(sharpen_in, sharpen_radius, 9, 1, 31, 1),
                                     AT_ROW_FLOAT_STEP(sharpen_in, sigma, 1.0, 0.1, 10, 0.1),
                                     AT_ROW_FLOAT_STEP(sharpen_in, alpha, 0.1, 0, 5, 0.01)};
static at_status sharpen_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const sharpen_in *i = in;
    at_latent_operation op = {.kind = AT_LATENT_SHARPEN,
                              .radius = at_int_of(i->sharpen_radius),
                              .sigma = i->sigma,
                              .alpha = i->alpha};
    return at_give(&out[0], at_obj_latent_operation_new(&op), "LatentOperationSharpen");
}
static const at_node node_sharpen = {.class_type = "LatentOperationSharpen",
                                     .category = CATEGORY,
                                     .python_module = MODULE,
                                     .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                     .in = sharpen_rows,
                                     .n_in = AT_COUNT(sharpen_rows),
                                     .out = operation_out,
                                     .n_out = 1,
                                     .in_size = sizeof(sharpen_in),
                                     .run = sharpen_run};

typedef struct apply_in {
    at_object *samples, *operation;
} apply_in;
static const at_in apply_rows[] = {AT_ROW_LINK(apply_in, samples, "LATENT"),
                                   AT_ROW_LINK(apply_in, operation, "LATENT_OPERATION")};
static at_status apply_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const apply_in *i = in;
    const at_tensor *s = at_samples(i->samples);
    at_tensor *r = NULL;

    AT_TRY(at_latent_flat("LatentApplyOperation", s));
    AT_TRY(at_latent_alloc("LatentApplyOperation", s->shape, &r));
    AT_TRY(at_latent_operate(&((const at_obj_latent_operation *)i->operation)->op, s->shape,
                             at_tensor_data(s), at_tensor_data(r)));
    st = at_latent_give("LatentApplyOperation", (const at_obj_latent *)i->samples, r, out);
    r = NULL;
out:
    at_tensor_release(&r);
    return st;
}
static const at_node node_apply =
    AT_LATENT_NODE("LatentApplyOperation", NULL, CATEGORY, MODULE,
                   AT_NODE_V3 | AT_NODE_EXPERIMENTAL, apply_rows, apply_in, apply_run);

const at_node *const at_nodes_latent_operation[] = {&node_tonemap, &node_sharpen, &node_apply,
                                                    NULL};
