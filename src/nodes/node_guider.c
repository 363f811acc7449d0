// SPDX-License-Identifier: Apache-2.0
// node_guider.c - guiders of three prompts: DualCFGGuider and PerpNegGuider.
// Idea: a guider is a value; what it does is in guide.c.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_custom_sampler.py, nodes_perpneg.py (behaviour).
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

static const at_out guider_out[] = {AT_OUT("GUIDER")};

typedef struct dual_in {
    at_object *model, *cond1, *cond2, *negative;
    double cfg_conds, cfg_cond2_negative;
    const char *style;
} dual_in;
static const char *const styles[] = {"regular", "nested", NULL};
static const at_in dual_rows[] = {
    AT_ROW_LINK_BARE(dual_in, model, "MODEL"),
    AT_ROW_LINK_BARE(dual_in, cond1, "CONDITIONING"),
    AT_ROW_LINK_BARE(dual_in, cond2, "CONDITIONING"),
    AT_ROW_LINK_BARE(dual_in, negative, "CONDITIONING"),
    AT_ROW_CFG(dual_in, cfg_conds),
    AT_ROW_CFG(dual_in, cfg_cond2_negative),
    AT_ROW(dual_in, style, AT_IN_COMBO, .choices = styles, .flags = AT_INF_NO_OPTIONS),
};
static at_status dual_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const dual_in *i = in;
    at_guider_kind kind = strcmp(i->style, "nested") == 0 ? AT_GUIDER_NESTED : AT_GUIDER_DUAL;
    return at_give(&out[0],
                   at_obj_guider_third((const at_obj_model *)i->model, kind,
                                       (const at_obj_cond *)i->cond1, (const at_obj_cond *)i->cond2,
                                       (const at_obj_cond *)i->negative, i->cfg_conds,
                                       i->cfg_cond2_negative),
                   "DualCFGGuider");
}
static const at_node node_dual = {.class_type = "DualCFGGuider",
                                  .display = "DualCFGGuider",
                                  .category = "sampling/custom_sampling/guiders",
                                  .python_module = "comfy_extras.nodes_custom_sampler",
                                  .in = dual_rows,
                                  .n_in = AT_COUNT(dual_rows),
                                  .out = guider_out,
                                  .n_out = 1,
                                  .in_size = sizeof(dual_in),
                                  .run = dual_run};

typedef struct perp_in {
    at_object *model, *positive, *negative, *empty_conditioning;
    double cfg, neg_scale;
} perp_in;
static const at_in perp_rows[] = {
    AT_ROW_LINK(perp_in, model, "MODEL"),
    AT_ROW_LINK(perp_in, positive, "CONDITIONING"),
    AT_ROW_LINK(perp_in, negative, "CONDITIONING"),
    AT_ROW_LINK(perp_in, empty_conditioning, "CONDITIONING"),
    AT_ROW_CFG(perp_in, cfg),
    AT_ROW_FLOAT_STEP(perp_in, neg_scale, 1.0, 0, 100, 0.01),
};
static at_status perp_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const perp_in *i = in;
    return at_give(&out[0],
                   at_obj_guider_third((const at_obj_model *)i->model, AT_GUIDER_PERP_NEG,
                                       (const at_obj_cond *)i->positive,
                                       (const at_obj_cond *)i->empty_conditioning,
                                       (const at_obj_cond *)i->negative, i->cfg, i->neg_scale),
                   "PerpNegGuider");
}
static const at_node node_perp = {.class_type = "PerpNegGuider",
                                  .category = "_for_testing",
                                  .python_module = "comfy_extras.nodes_perpneg",
                                  .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                  .in = perp_rows,
                                  .n_in = AT_COUNT(perp_rows),
                                  .out = guider_out,
                                  .n_out = 1,
                                  .in_size = sizeof(perp_in),
                                  .run = perp_run};

const at_node *const at_nodes_guider[] = {&node_dual, &node_perp, NULL};
