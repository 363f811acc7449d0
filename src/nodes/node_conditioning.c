// SPDX-License-Identifier: Apache-2.0
// node_conditioning.c - CLIPTextEncode, CLIPTextEncodeFlux, FluxGuidance, ConditioningZeroOut.
#include "nodes/encode.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

static const at_out cond_out[] = {AT_OUT("CONDITIONING")};

// Encode and set guidance on the result when has_guidance.
static at_status encode(at_node_ctx *c, const at_object *clip, const char *l, const char *t5,
                        bool has_guidance, double guidance, at_value *out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_object *cond = NULL;

    if (!clip)
        AT_TRY(at_fail(AT_EINVAL,
                       "clip input is invalid: None\n\nIf the clip is from a checkpoint "
                       "loader node your checkpoint does not contain a valid clip or text "
                       "encoder model."));
    AT_TRY(at_encode_open(c, (const at_obj_clip *)clip, &o));
    AT_TRY(at_encode_prompt(at_env_of(c), o, (const at_obj_clip *)clip, l, t5, &cond));
    ((at_obj_cond *)cond)->items[0].has_guidance = has_guidance;
    ((at_obj_cond *)cond)->items[0].guidance = (float)guidance;
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_ops_free(o);
    return st;
}

typedef struct encode_in {
    const char *text;
    at_object *clip;
} encode_in;
static const at_in encode_rows[] = {AT_ROW_PROMPT(encode_in, text),
                                    AT_ROW_LINK(encode_in, clip, "CLIP")};
static at_status encode_run(at_node_ctx *c, const void *in, at_value *out)
{
    const encode_in *i = in;
    return encode(c, i->clip, i->text, i->text, false, 0, out);
}
static const at_node node_encode = {
    .class_type = "CLIPTextEncode",
    .display = "CLIP Text Encode (Prompt)",
    .category = "conditioning",
    .description = "Encodes a text prompt with a CLIP model into a conditioning that guides the "
                   "diffusion model.",
    .python_module = "nodes",
    .in = encode_rows,
    .n_in = AT_COUNT(encode_rows),
    .out = cond_out,
    .n_out = 1,
    .in_size = sizeof(encode_in),
    .run = encode_run};

typedef struct encode_flux_in {
    at_object *clip;
    const char *clip_l, *t5xxl;
    double guidance;
} encode_flux_in;
static const at_in encode_flux_rows[] = {
    AT_ROW_LINK(encode_flux_in, clip, "CLIP"),
    AT_ROW_PROMPT(encode_flux_in, clip_l),
    AT_ROW_PROMPT(encode_flux_in, t5xxl),
    AT_ROW_FLOAT_STEP(encode_flux_in, guidance, 3.5, 0, 100, 0.1),
};
static at_status encode_flux_run(at_node_ctx *c, const void *in, at_value *out)
{
    const encode_flux_in *i = in;
    return encode(c, i->clip, i->clip_l, i->t5xxl, true, i->guidance, out);
}
static const at_node node_encode_flux = {.class_type = "CLIPTextEncodeFlux",
                                         .category = "advanced/conditioning/flux",
                                         .python_module = "comfy_extras.nodes_flux",
                                         .flags = AT_NODE_V3,
                                         .in = encode_flux_rows,
                                         .n_in = AT_COUNT(encode_flux_rows),
                                         .out = cond_out,
                                         .n_out = 1,
                                         .in_size = sizeof(encode_flux_in),
                                         .run = encode_flux_run};

typedef struct guidance_in {
    at_object *conditioning;
    double guidance;
} guidance_in;
static const at_in guidance_rows[] = {
    AT_ROW_LINK(guidance_in, conditioning, "CONDITIONING"),
    AT_ROW_FLOAT_STEP(guidance_in, guidance, 3.5, 0, 100, 0.1),
};

static at_status guidance_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const guidance_in *i = in;
    at_object *o = at_obj_cond_copy((const at_obj_cond *)i->conditioning);
    for (size_t k = 0; o && k < ((at_obj_cond *)o)->count; k++) {
        ((at_obj_cond *)o)->items[k].has_guidance = true;
        ((at_obj_cond *)o)->items[k].guidance_off = false;
        ((at_obj_cond *)o)->items[k].guidance = (float)i->guidance;
    }
    return at_give(out, o, "FluxGuidance");
}
static const at_node node_guidance = {.class_type = "FluxGuidance",
                                      .category = "advanced/conditioning/flux",
                                      .python_module = "comfy_extras.nodes_flux",
                                      .flags = AT_NODE_V3,
                                      .in = guidance_rows,
                                      .n_in = AT_COUNT(guidance_rows),
                                      .out = cond_out,
                                      .n_out = 1,
                                      .in_size = sizeof(guidance_in),
                                      .run = guidance_run};

typedef struct cond_in {
    at_object *conditioning;
} cond_in;
static const at_in zero_rows[] = {AT_ROW_LINK_BARE(cond_in, conditioning, "CONDITIONING")};

static at_status zero_like(at_ops *o, at_tensor **t)
{
    if (!*t) return AT_OK;
    at_tensor *z = at_zeros(o, (*t)->dtype, (*t)->rank, (*t)->shape);
    if (!z) return at_ops_status(o);
    at_tensor_release(t);
    *t = at_ops_keep(o, z);
    return AT_OK;
}
static at_status zero_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_object *cond = at_obj_cond_copy((const at_obj_cond *)((const cond_in *)in)->conditioning);

    if (!cond) AT_TRY(at_fail(AT_ENOMEM, "ConditioningZeroOut: no memory"));
    AT_TRY(at_env_ops(c, &o));
    for (size_t i = 0; i < ((at_obj_cond *)cond)->count; i++) {
        AT_TRY(zero_like(o, &((at_obj_cond *)cond)->items[i].context));
        AT_TRY(zero_like(o, &((at_obj_cond *)cond)->items[i].pooled));
    }
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_ops_free(o);
    return st;
}
static const at_node node_zero = {.class_type = "ConditioningZeroOut",
                                  .display = "ConditioningZeroOut",
                                  .category = "advanced/conditioning",
                                  .python_module = "nodes",
                                  .in = zero_rows,
                                  .n_in = AT_COUNT(zero_rows),
                                  .out = cond_out,
                                  .n_out = 1,
                                  .in_size = sizeof(cond_in),
                                  .run = zero_run};

const at_node *const at_nodes_conditioning[] = {&node_encode, &node_encode_flux, &node_guidance,
                                                &node_zero, NULL};
