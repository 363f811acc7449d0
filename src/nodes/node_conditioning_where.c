// SPDX-License-Identifier: Apache-2.0
// node_conditioning_where.c - where and when a prompt holds: areas, masks, strengths, ranges.
// Easy to get wrong: areas in pixels are cut to cells of 8 downwards; setting an area takes "mask
// bounds" back, setting a mask leaves the area.
// Source: ComfyUI 0.3.64 nodes.py (behaviour).
#include "nodes/cond.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

#define ROW_STRENGTH(st) AT_ROW_FLOAT_STEP(st, strength, 1.0, 0, 10, 0.01)

// Python's v // 8, also below zero.
static double cells(int64_t v)
{
    return (double)(v >= 0 ? v / 8 : -((7 - v) / 8));
}

// --- ConditioningSetArea -------------------------------------------------------------------------
typedef struct area_in {
    at_object *conditioning;
    int64_t width, height, x, y;
    double strength;
} area_in;
static const at_in area_rows[] = {
    AT_ROW_LINK_BARE(area_in, conditioning, "CONDITIONING"),
    AT_ROW_INT_STEP(area_in, width, 64, 64, 16384, 8),
    AT_ROW_INT_STEP(area_in, height, 64, 64, 16384, 8),
    AT_ROW_INT_STEP(area_in, x, 0, 0, 16384, 8),
    AT_ROW_INT_STEP(area_in, y, 0, 0, 16384, 8),
    ROW_STRENGTH(area_in),
};
static void set_area(at_cond *c, const void *ctx)
{
    const area_in *i = ctx;
    c->area = (at_area){.kind = AT_AREA_CELLS,
                        .h = cells(i->height),
                        .w = cells(i->width),
                        .y = cells(i->y),
                        .x = cells(i->x)};
    c->strength = (float)i->strength;
    c->mask_bounds = false;
}
static at_status area_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("ConditioningSetArea", ((const area_in *)in)->conditioning, set_area, in,
                        &out[0]);
}
static const at_node node_area =
    AT_COND_NODE("ConditioningSetArea", "Conditioning (Set Area)", "conditioning", "nodes", 0,
                 area_rows, area_in, area_run);

// --- ConditioningSetAreaPercentage ---------------------------------------------------------------
typedef struct share_in {
    at_object *conditioning;
    double width, height, x, y, strength;
} share_in;
#define ROW_SHARE(field, d, form)                                                                  \
    AT_ROW(share_in, field, AT_IN_FLOAT, .def = d, .min = 0, .max = 1, .step = 0.01,               \
           .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP, .alt = form)
static const at_in share_rows[] = {
    AT_ROW_LINK_BARE(share_in, conditioning, "CONDITIONING"),
    ROW_SHARE(width, 1.0, AT_ALT_MIN),
    ROW_SHARE(height, 1.0, AT_ALT_MIN),
    ROW_SHARE(x, 0, AT_ALT_DEF | AT_ALT_MIN),
    ROW_SHARE(y, 0, AT_ALT_DEF | AT_ALT_MIN),
    ROW_STRENGTH(share_in),
};
static void set_share(at_cond *c, const void *ctx)
{
    const share_in *i = ctx;
    c->area =
        (at_area){.kind = AT_AREA_SHARES, .h = i->height, .w = i->width, .y = i->y, .x = i->x};
    c->strength = (float)i->strength;
    c->mask_bounds = false;
}
static at_status share_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("ConditioningSetAreaPercentage", ((const share_in *)in)->conditioning,
                        set_share, in, &out[0]);
}
static const at_node node_share =
    AT_COND_NODE("ConditioningSetAreaPercentage", "Conditioning (Set Area with Percentage)",
                 "conditioning", "nodes", 0, share_rows, share_in, share_run);

// --- ConditioningSetAreaStrength -----------------------------------------------------------------
typedef struct strength_in {
    at_object *conditioning;
    double strength;
} strength_in;
static const at_in strength_rows[] = {
    AT_ROW_LINK_BARE(strength_in, conditioning, "CONDITIONING"),
    ROW_STRENGTH(strength_in),
};
static void set_strength(at_cond *c, const void *ctx)
{
    c->strength = (float)((const strength_in *)ctx)->strength;
}
static at_status strength_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("ConditioningSetAreaStrength", ((const strength_in *)in)->conditioning,
                        set_strength, in, &out[0]);
}
static const at_node node_strength =
    AT_COND_NODE("ConditioningSetAreaStrength", "ConditioningSetAreaStrength", "conditioning",
                 "nodes", 0, strength_rows, strength_in, strength_run);

// --- ConditioningSetMask -------------------------------------------------------------------------
typedef struct mask_in {
    at_object *conditioning, *mask;
    double strength;
    const char *set_cond_area;
} mask_in;
static const char *const areas[] = {"default", "mask bounds", NULL};
static const at_in mask_rows[] = {
    AT_ROW_LINK_BARE(mask_in, conditioning, "CONDITIONING"),
    AT_ROW_LINK_BARE(mask_in, mask, "MASK"),
    ROW_STRENGTH(mask_in),
    AT_ROW(mask_in, set_cond_area, AT_IN_COMBO, .choices = areas, .flags = AT_INF_NO_OPTIONS),
};
static void set_mask(at_cond *c, const void *ctx)
{
    const mask_in *i = ctx;
    at_cond_set_tensor(&c->mask, at_tensor_retain(((const at_obj_image *)i->mask)->pixels));
    c->mask_strength = (float)i->strength;
    c->mask_bounds = strcmp(i->set_cond_area, "default") != 0;
}
static at_status mask_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("ConditioningSetMask", ((const mask_in *)in)->conditioning, set_mask, in,
                        &out[0]);
}
static const at_node node_mask =
    AT_COND_NODE("ConditioningSetMask", "Conditioning (Set Mask)", "conditioning", "nodes", 0,
                 mask_rows, mask_in, mask_run);

// --- ConditioningSetTimestepRange ----------------------------------------------------------------
typedef struct range_in {
    at_object *conditioning;
    double start, end;
} range_in;
static const at_in range_rows[] = {
    AT_ROW_LINK_BARE(range_in, conditioning, "CONDITIONING"),
    AT_ROW_FLOAT_STEP(range_in, start, 0.0, 0, 1, 0.001),
    AT_ROW_FLOAT_STEP(range_in, end, 1.0, 0, 1, 0.001),
};
static void set_range(at_cond *c, const void *ctx)
{
    c->start_percent = ((const range_in *)ctx)->start;
    c->end_percent = ((const range_in *)ctx)->end;
}
static at_status range_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return at_cond_give("ConditioningSetTimestepRange", ((const range_in *)in)->conditioning,
                        set_range, in, &out[0]);
}
static const at_node node_range =
    AT_COND_NODE("ConditioningSetTimestepRange", "ConditioningSetTimestepRange",
                 "advanced/conditioning", "nodes", 0, range_rows, range_in, range_run);

const at_node *const at_nodes_conditioning_where[] = {&node_area, &node_share, &node_strength,
                                                      &node_mask, &node_range, NULL};
