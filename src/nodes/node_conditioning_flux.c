// SPDX-License-Identifier: Apache-2.0
// node_conditioning_flux.c - what only Flux and its like understand: no guidance, places of
// references, lengths of T5's prompts.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_flux.py, nodes_cond.py (behaviour).
#include "nodes/cond.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

#define FLUX   "advanced/conditioning/flux"
#define MODULE "comfy_extras.nodes_flux"

typedef struct disable_in {
    at_object *conditioning;
} disable_in;
static const at_in disable_rows[] = {AT_ROW_LINK(disable_in, conditioning, "CONDITIONING")};
static void disable(at_cond *c, const void *ctx)
{
    (void)ctx;
    c->guidance_off = true;
    c->has_guidance = false;
}
static at_status disable_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("FluxDisableGuidance", ((const disable_in *)in)->conditioning, disable,
                        NULL, &out[0]);
}
static const at_node node_disable = AT_COND_NODE("FluxDisableGuidance", NULL, FLUX, MODULE,
                                                 AT_NODE_V3, disable_rows, disable_in, disable_run);

typedef struct method_in {
    at_object *conditioning;
    const char *reference_latents_method;
} method_in;
static const char *const methods[] = {"offset", "index", "uxo/uno", NULL};
static const at_in method_rows[] = {
    AT_ROW_LINK(method_in, conditioning, "CONDITIONING"),
    AT_ROW(method_in, reference_latents_method, AT_IN_COMBO, .choices = methods),
};
static void set_method(at_cond *c, const void *ctx)
{
    const char *m = ((const method_in *)ctx)->reference_latents_method;
    c->ref_method = strcmp(m, "index") == 0    ? AT_REF_INDEX
                    : strcmp(m, "offset") == 0 ? AT_REF_OFFSET
                                               : AT_REF_UXO;
}
static at_status method_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("FluxKontextMultiReferenceLatentMethod",
                        ((const method_in *)in)->conditioning, set_method, in, &out[0]);
}
static const at_node node_method =
    AT_COND_NODE("FluxKontextMultiReferenceLatentMethod", NULL, FLUX, MODULE,
                 AT_NODE_V3 | AT_NODE_EXPERIMENTAL, method_rows, method_in, method_run);

// --- T5TokenizerOptions --------------------------------------------------------------------------
typedef struct t5_in {
    at_object *clip;
    int64_t min_padding, min_length;
} t5_in;
static const at_in t5_rows[] = {
    AT_ROW_LINK(t5_in, clip, "CLIP"),
    AT_ROW_INT_STEP(t5_in, min_padding, 0, 0, 10000, 1),
    AT_ROW_INT_STEP(t5_in, min_length, 0, 0, 10000, 1),
};
static const at_out clip_out[] = {AT_OUT("CLIP")};
static at_status t5_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const t5_in *i = in;
    if (!i->clip)
        return at_fail(AT_EINVAL, "T5TokenizerOptions: clip input is invalid: None: the checkpoint "
                                  "holds no text encoder");
    if (i->min_padding < 0 || i->min_length < 0 || i->min_padding > 10000 || i->min_length > 10000)
        return at_fail(AT_EINVAL,
                       "T5TokenizerOptions: %lld of padding and a length of %lld; 0 to "
                       "10000 tokens are possible",
                       (long long)i->min_padding, (long long)i->min_length);
    at_object *o = at_obj_clip_copy((const at_obj_clip *)i->clip);
    if (o) {
        at_obj_clip *clip = (at_obj_clip *)o;
        clip->t5_sized = true;
        clip->t5_padding = i->min_padding;
        clip->t5_length = i->min_length;
    }
    return at_give(&out[0], o, "T5TokenizerOptions");
}
static const at_node node_t5 = {.class_type = "T5TokenizerOptions",
                                .category = "_for_testing/conditioning",
                                .python_module = "comfy_extras.nodes_cond",
                                .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                .in = t5_rows,
                                .n_in = AT_COUNT(t5_rows),
                                .out = clip_out,
                                .n_out = 1,
                                .in_size = sizeof(t5_in),
                                .run = t5_run};

const at_node *const at_nodes_conditioning_flux[] = {&node_disable, &node_method, &node_t5, NULL};
