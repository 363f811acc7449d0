// SPDX-License-Identifier: Apache-2.0
// node_merge.c - ModelMergeSimple, ModelMergeSubtract, ModelMergeAdd and their CLIP counterparts.
// Idea: each node is a pair of shares of its one number.
#include "nodes/merge.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

static at_merge_share whole(const void *ctx, const char *key)
{
    (void)key;
    return *(const at_merge_share *)ctx;
}

static at_status merge_models(const at_object *a, const at_object *b, double keep, double take,
                              at_value *out)
{
    at_merge_share s = {keep, take};
    at_object *o = NULL;
    at_status st = at_merge_models(a, b, whole, &s, &o);

    return st == AT_OK ? at_give(out, o, "MODEL") : st;
}

static at_status merge_clips(const at_object *a, const at_object *b, double keep, double take,
                             at_value *out)
{
    at_object *o = NULL;
    at_status st = at_merge_clips(a, b, (at_merge_share){keep, take}, &o);

    return st == AT_OK ? at_give(out, o, "CLIP") : st;
}

// --- models ------------------------------------------------------------------------------------------
typedef struct models_in {
    at_object *model1, *model2;
    double ratio, multiplier;
} models_in;
#define MODELS                                                                                     \
    AT_ROW_LINK_BARE(models_in, model1, "MODEL"), AT_ROW_LINK_BARE(models_in, model2, "MODEL")
static const at_in simple_rows[] = {MODELS, AT_ROW_FLOAT_STEP(models_in, ratio, 1.0, 0, 1, 0.01)};
static const at_in subtract_rows[] = {MODELS,
                                      AT_ROW_FLOAT_STEP(models_in, multiplier, 1.0, -10, 10, 0.01)};
static const at_in add_rows[] = {MODELS};
static const at_out model_out[] = {AT_OUT("MODEL")};

// ComfyUI's ratio is the share of model1.
static at_status simple_run(at_node_ctx *c, const void *in, at_value *out)
{
    const models_in *i = in;

    (void)c;
    return merge_models(i->model1, i->model2, i->ratio, 1.0 - i->ratio, out);
}

// multiplier * (model1 - model2)
static at_status subtract_run(at_node_ctx *c, const void *in, at_value *out)
{
    const models_in *i = in;

    (void)c;
    return merge_models(i->model1, i->model2, i->multiplier, -i->multiplier, out);
}

static at_status add_run(at_node_ctx *c, const void *in, at_value *out)
{
    const models_in *i = in;

    (void)c;
    return merge_models(i->model1, i->model2, 1, 1, out);
}

#define MERGE_NODE(id, name, rows, in_struct, outs, fn)                                            \
    static const at_node id = {.class_type = name,                                                 \
                               .display = name,                                                    \
                               .category = "advanced/model_merging",                               \
                               .python_module = "comfy_extras.nodes_model_merging",                \
                               .in = rows,                                                         \
                               .n_in = AT_COUNT(rows),                                             \
                               .out = outs,                                                        \
                               .n_out = 1,                                                         \
                               .in_size = sizeof(in_struct),                                       \
                               .run = fn}
MERGE_NODE(node_simple, "ModelMergeSimple", simple_rows, models_in, model_out, simple_run);
MERGE_NODE(node_subtract, "ModelMergeSubtract", subtract_rows, models_in, model_out, subtract_run);
MERGE_NODE(node_add, "ModelMergeAdd", add_rows, models_in, model_out, add_run);

// --- text encoders -----------------------------------------------------------------------------------
typedef struct clips_in {
    at_object *clip1, *clip2;
    double ratio, multiplier;
} clips_in;
#define CLIPS AT_ROW_LINK_BARE(clips_in, clip1, "CLIP"), AT_ROW_LINK_BARE(clips_in, clip2, "CLIP")
static const at_in clip_simple_rows[] = {CLIPS,
                                         AT_ROW_FLOAT_STEP(clips_in, ratio, 1.0, 0, 1, 0.01)};
static const at_in clip_subtract_rows[] = {
    CLIPS, AT_ROW_FLOAT_STEP(clips_in, multiplier, 1.0, -10, 10, 0.01)};
static const at_in clip_add_rows[] = {CLIPS};
static const at_out clip_out[] = {AT_OUT("CLIP")};

static at_status clip_simple_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clips_in *i = in;

    (void)c;
    return merge_clips(i->clip1, i->clip2, i->ratio, 1.0 - i->ratio, out);
}

static at_status clip_subtract_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clips_in *i = in;

    (void)c;
    return merge_clips(i->clip1, i->clip2, i->multiplier, -i->multiplier, out);
}

static at_status clip_add_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clips_in *i = in;

    (void)c;
    return merge_clips(i->clip1, i->clip2, 1, 1, out);
}
MERGE_NODE(node_clip_simple, "CLIPMergeSimple", clip_simple_rows, clips_in, clip_out,
           clip_simple_run);
MERGE_NODE(node_clip_subtract, "CLIPMergeSubtract", clip_subtract_rows, clips_in, clip_out,
           clip_subtract_run);
MERGE_NODE(node_clip_add, "CLIPMergeAdd", clip_add_rows, clips_in, clip_out, clip_add_run);

const at_node *const at_nodes_merge[] = {
    &node_simple,        &node_subtract, &node_add, &node_clip_simple,
    &node_clip_subtract, &node_clip_add, NULL};
