// SPDX-License-Identifier: Apache-2.0
// node_conditioning_flux.c - what only Flux and its like understand: no guidance, places of references.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_flux.py (behaviour).
#include "nodes/cond.h"
#include "nodes/nodes.h"
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

const at_node *const at_nodes_conditioning_flux[] = {&node_disable, &node_method, NULL};
