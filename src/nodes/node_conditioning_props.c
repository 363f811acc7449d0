// SPDX-License-Identifier: Apache-2.0
// node_conditioning_props.c - mask, range and hooks of prompts set at once, defaults, and pairs of
// prompts.
// Idea: a pair is the same done twice, so every node is one function over one or two lists.
// Easy to get wrong: strength is that of the mask and does nothing without one; hooks that an entry
// has already are kept and the new ones join them.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_hooks.py, comfy/hooks.py (behaviour).
#include "nodes/cond.h"
#include "nodes/lora_hooks.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

#define MODULE "comfy_extras.nodes_hooks"

typedef struct props {
    const char *node;
    double strength;
    const char *set_cond_area;
    const at_object *mask, *hooks, *timesteps;
    bool is_default;
} props;

static at_status set_hooks(at_obj_cond *list, const props *p)
{
    for (size_t i = 0; p->hooks && i < list->count; i++) {
        at_object **own = &list->items[i].extra[AT_COND_HOOKS];
        at_object *both = NULL;
        at_status st = at_obj_lora_hooks_join(*own, p->hooks, &both);
        if (st != AT_OK) return st;
        at_cond_set_object(own, both);
    }
    return AT_OK;
}

static void set_props(at_cond *c, const props *p)
{
    if (p->mask) {
        at_cond_set_tensor(&c->mask, at_tensor_retain(((const at_obj_image *)p->mask)->pixels));
        c->mask_strength = (float)p->strength;
        c->mask_bounds = strcmp(p->set_cond_area, "default") != 0;
    }
    if (p->timesteps) {
        c->start_percent = ((const at_obj_range *)p->timesteps)->start;
        c->end_percent = ((const at_obj_range *)p->timesteps)->end;
    }
    if (p->is_default) c->is_default = true;
}

// `fresh` with these properties, behind `before` (NULL: alone).
static at_status apply(const props *p, const at_object *before, const at_object *fresh,
                       at_value *out)
{
    at_status st = AT_OK;
    at_object *copy = at_obj_cond_copy((const at_obj_cond *)fresh);
    at_obj_cond *list = (at_obj_cond *)copy;

    if (!copy) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", p->node));
    AT_TRY(set_hooks(list, p));
    for (size_t i = 0; i < list->count; i++)
        set_props(&list->items[i], p);
    if (before)
        AT_TRY(at_cond_give_joined(p->node, before, at_object_retain(copy), out));
    else
        *out = at_value_object(at_object_retain(copy));
out:
    at_object_release(copy);
    return st;
}

// --- inputs --------------------------------------------------------------------------------------
typedef struct props_in {
    at_object *cond, *cond_NEW, *cond_DEFAULT;
    at_object *positive, *negative, *positive_NEW, *negative_NEW;
    at_object *positive_DEFAULT, *negative_DEFAULT;
    at_object *positive_A, *negative_A, *positive_B, *negative_B;
    double strength;
    const char *set_cond_area;
    at_object *mask, *hooks, *timesteps;
} props_in;

static const char *const areas[] = {"default", "mask bounds", NULL};
#define ROW_COND(field) AT_ROW_LINK_BARE(props_in, field, "CONDITIONING")
#define ROW_OPTIONAL(field, TYPE)                                                                  \
    AT_ROW(props_in, field, AT_IN_OBJECT, .type_name = TYPE,                                       \
           .flags = AT_INF_NO_OPTIONS | AT_INF_OPTIONAL)
#define ROWS_PROPS                                                                                 \
    AT_ROW_FLOAT_STEP(props_in, strength, 1.0, 0, 10, 0.01),                                       \
        AT_ROW(props_in, set_cond_area, AT_IN_COMBO, .choices = areas,                             \
               .flags = AT_INF_NO_OPTIONS),                                                        \
        ROW_OPTIONAL(mask, "MASK"), ROW_OPTIONAL(hooks, "HOOKS"),                                  \
        ROW_OPTIONAL(timesteps, "TIMESTEPS_RANGE")

static props props_of(const char *node, const props_in *i)
{
    return (props){.node = node,
                   .strength = i->strength,
                   .set_cond_area = i->set_cond_area,
                   .mask = i->mask,
                   .hooks = i->hooks,
                   .timesteps = i->timesteps};
}

static const at_out pair_out[] = {{.type_name = "CONDITIONING", .name = "positive"},
                                  {.type_name = "CONDITIONING", .name = "negative"}};
#define NODE(cls, title, where, rows, outs, fn)                                                    \
    {                                                                                              \
        .class_type = cls, .display = title, .category = where, .python_module = MODULE,           \
        .flags = AT_NODE_EXPERIMENTAL, .in = rows, .n_in = AT_COUNT(rows), .out = outs,            \
        .n_out = AT_COUNT(outs), .in_size = sizeof(props_in), .run = fn                            \
    }

// --- one prompt ----------------------------------------------------------------------------------
static const at_in set_rows[] = {ROW_COND(cond_NEW), ROWS_PROPS};
static at_status set_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = props_of("ConditioningSetProperties", i);
    return apply(&p, NULL, i->cond_NEW, &out[0]);
}
static const at_node node_set = NODE("ConditioningSetProperties", "Cond Set Props",
                                     "advanced/hooks/cond single", set_rows, at_cond_out, set_run);

static const at_in set_combine_rows[] = {ROW_COND(cond), ROW_COND(cond_NEW), ROWS_PROPS};
static at_status set_combine_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = props_of("ConditioningSetPropertiesAndCombine", i);
    return apply(&p, i->cond, i->cond_NEW, &out[0]);
}
static const at_node node_set_combine =
    NODE("ConditioningSetPropertiesAndCombine", "Cond Set Props Combine",
         "advanced/hooks/cond single", set_combine_rows, at_cond_out, set_combine_run);

static const at_in default_rows[] = {ROW_COND(cond), ROW_COND(cond_DEFAULT),
                                     ROW_OPTIONAL(hooks, "HOOKS")};
static at_status default_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = {.node = "ConditioningSetDefaultCombine", .hooks = i->hooks, .is_default = true};
    return apply(&p, i->cond, i->cond_DEFAULT, &out[0]);
}
static const at_node node_default =
    NODE("ConditioningSetDefaultCombine", "Cond Set Default Combine", "advanced/hooks/cond single",
         default_rows, at_cond_out, default_run);

// --- pairs ---------------------------------------------------------------------------------------
static at_status apply_pair(const props *p, const at_object *const before[2],
                            const at_object *const fresh[2], at_value *out)
{
    at_status st = AT_OK;
    for (int k = 0; k < 2 && st == AT_OK; k++)
        st = apply(p, before ? before[k] : NULL, fresh[k], &out[k]);
    return st;
}
#define PAIR(a, b) ((const at_object *const[2]){a, b})

static const at_in pair_set_rows[] = {ROW_COND(positive_NEW), ROW_COND(negative_NEW), ROWS_PROPS};
static at_status pair_set_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = props_of("PairConditioningSetProperties", i);
    return apply_pair(&p, NULL, PAIR(i->positive_NEW, i->negative_NEW), out);
}
static const at_node node_pair_set =
    NODE("PairConditioningSetProperties", "Cond Pair Set Props", "advanced/hooks/cond pair",
         pair_set_rows, pair_out, pair_set_run);

static const at_in pair_set_combine_rows[] = {ROW_COND(positive), ROW_COND(negative),
                                              ROW_COND(positive_NEW), ROW_COND(negative_NEW),
                                              ROWS_PROPS};
static at_status pair_set_combine_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = props_of("PairConditioningSetPropertiesAndCombine", i);
    return apply_pair(&p, PAIR(i->positive, i->negative), PAIR(i->positive_NEW, i->negative_NEW),
                      out);
}
static const at_node node_pair_set_combine =
    NODE("PairConditioningSetPropertiesAndCombine", "Cond Pair Set Props Combine",
         "advanced/hooks/cond pair", pair_set_combine_rows, pair_out, pair_set_combine_run);

static const at_in pair_combine_rows[] = {ROW_COND(positive_A), ROW_COND(negative_A),
                                          ROW_COND(positive_B), ROW_COND(negative_B)};
static at_status pair_combine_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = {.node = "PairConditioningCombine"};
    return apply_pair(&p, PAIR(i->positive_A, i->negative_A), PAIR(i->positive_B, i->negative_B),
                      out);
}
static const at_node node_pair_combine =
    NODE("PairConditioningCombine", "Cond Pair Combine", "advanced/hooks/cond pair",
         pair_combine_rows, pair_out, pair_combine_run);

static const at_in pair_default_rows[] = {ROW_COND(positive), ROW_COND(negative),
                                          ROW_COND(positive_DEFAULT), ROW_COND(negative_DEFAULT),
                                          ROW_OPTIONAL(hooks, "HOOKS")};
static at_status pair_default_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const props_in *i = in;
    props p = {.node = "PairConditioningSetDefaultCombine", .hooks = i->hooks, .is_default = true};
    return apply_pair(&p, PAIR(i->positive, i->negative),
                      PAIR(i->positive_DEFAULT, i->negative_DEFAULT), out);
}
static const at_node node_pair_default =
    NODE("PairConditioningSetDefaultCombine", "Cond Pair Set Default Combine",
         "advanced/hooks/cond pair", pair_default_rows, pair_out, pair_default_run);

// --- ConditioningTimestepsRange ------------------------------------------------------------------
typedef struct range_in {
    double start_percent, end_percent;
} range_in;
static const at_in range_rows[] = {
    AT_ROW_FLOAT_STEP(range_in, start_percent, 0.0, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(range_in, end_percent, 1.0, 0, 1, 0.001),
};
static const at_out range_out[] = {
    {.type_name = "TIMESTEPS_RANGE", .name = "TIMESTEPS_RANGE"},
    {.type_name = "TIMESTEPS_RANGE", .name = "BEFORE_RANGE"},
    {.type_name = "TIMESTEPS_RANGE", .name = "AFTER_RANGE"},
};
static at_status range_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const range_in *i = in;
    const double from[] = {i->start_percent, 0.0, i->end_percent};
    const double to[] = {i->end_percent, i->start_percent, 1.0};
    at_status st = AT_OK;
    for (size_t k = 0; k < AT_COUNT(range_out) && st == AT_OK; k++)
        st = at_give(&out[k], at_obj_range_new(from[k], to[k]), "ConditioningTimestepsRange");
    return st;
}
static const at_node node_range = {.class_type = "ConditioningTimestepsRange",
                                   .display = "Timesteps Range",
                                   .category = "advanced/hooks",
                                   .python_module = MODULE,
                                   .flags = AT_NODE_EXPERIMENTAL,
                                   .in = range_rows,
                                   .n_in = AT_COUNT(range_rows),
                                   .out = range_out,
                                   .n_out = AT_COUNT(range_out),
                                   .in_size = sizeof(range_in),
                                   .run = range_run};

const at_node *const at_nodes_conditioning_props[] = {&node_set,
                                                      &node_set_combine,
                                                      &node_default,
                                                      &node_pair_set,
                                                      &node_pair_set_combine,
                                                      &node_pair_combine,
                                                      &node_pair_default,
                                                      &node_range,
                                                      NULL};
