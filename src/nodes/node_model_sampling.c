// SPDX-License-Identifier: Apache-2.0
// node_model_sampling.c - ModelSamplingFlux and ModelSamplingSD3: other noise levels for the same weights.
// Source: comfyui-contract section 5.3.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

static const at_out model_out[] = {AT_OUT("MODEL")};

static at_status give_patched(const at_object *from, const at_model_sampling *ms, at_value *out)
{
    const at_obj_model *like = (const at_obj_model *)from;
    at_model *m = NULL;
    at_status st = at_model_with_sampling(like->model, ms, &m);
    return st == AT_OK ? at_give(out, at_obj_model_with(like, m), "MODEL") : st;
}

typedef struct flux_in {
    at_object *model;
    double max_shift, base_shift;
    int64_t width, height;
} flux_in;
static const at_in flux_rows[] = {
    AT_ROW_LINK_BARE(flux_in, model, "MODEL"),
    AT_ROW_FLOAT_STEP(flux_in, max_shift, 1.15, 0, 100, 0.01),
    AT_ROW_FLOAT_STEP(flux_in, base_shift, 0.5, 0, 100, 0.01),
    AT_ROW_INT_STEP(flux_in, width, 1024, 16, 16384, 8),
    AT_ROW_INT_STEP(flux_in, height, 1024, 16, 16384, 8),
};
// mu is linear in the number of image tokens, through (256, base) and (4096, max).
static at_status flux_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const flux_in *i = in;
    double slope = (i->max_shift - i->base_shift) / (4096.0 - 256.0);
    double tokens = (double)i->width * (double)i->height / (8.0 * 8.0 * 2.0 * 2.0);
    at_model_sampling ms = {.prediction = AT_PRED_CONST,
                            .kind = AT_SIGMA_FLUX,
                            .shift = tokens * slope + i->base_shift - slope * 256.0,
                            .sigma_data = 1.0};
    return give_patched(i->model, &ms, &out[0]);
}
static const at_node node_flux = {.class_type = "ModelSamplingFlux",
                                  .display = "ModelSamplingFlux",
                                  .category = "advanced/model",
                                  .python_module = "comfy_extras.nodes_model_advanced",
                                  .in = flux_rows,
                                  .n_in = AT_COUNT(flux_rows),
                                  .out = model_out,
                                  .n_out = 1,
                                  .in_size = sizeof(flux_in),
                                  .run = flux_run};

typedef struct sd3_in {
    at_object *model;
    double shift;
} sd3_in;
static const at_in sd3_rows[] = {AT_ROW_LINK_BARE(sd3_in, model, "MODEL"),
                                 AT_ROW_FLOAT_STEP(sd3_in, shift, 3.0, 0, 100, 0.01)};
static at_status sd3_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const sd3_in *i = in;
    at_model_sampling ms = {.prediction = AT_PRED_CONST,
                            .kind = AT_SIGMA_DISCRETE_FLOW,
                            .shift = i->shift,
                            .multiplier = 1000.0,
                            .sigma_data = 1.0};
    // The network keeps the time scale that it was trained with.
    const at_model_sampling *own = at_model_get_sampling(((const at_obj_model *)i->model)->model);
    if (own->kind == AT_SIGMA_DISCRETE_FLOW) ms.multiplier = own->multiplier;
    if (own->kind == AT_SIGMA_FLUX) ms.multiplier = 1.0;
    return give_patched(i->model, &ms, &out[0]);
}
static const at_node node_sd3 = {.class_type = "ModelSamplingSD3",
                                 .display = "ModelSamplingSD3",
                                 .category = "advanced/model",
                                 .python_module = "comfy_extras.nodes_model_advanced",
                                 .in = sd3_rows,
                                 .n_in = AT_COUNT(sd3_rows),
                                 .out = model_out,
                                 .n_out = 1,
                                 .in_size = sizeof(sd3_in),
                                 .run = sd3_run};

const at_node *const at_nodes_model_sampling[] = {&node_flux, &node_sd3, NULL};
