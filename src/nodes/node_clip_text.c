// SPDX-License-Identifier: Apache-2.0
// node_clip_text.c - CLIPSetLastLayer; prompts with a text for each encoder, and with sizes:
// CLIPTextEncodeSDXL, CLIPTextEncodeSDXLRefiner, CLIPTextEncodeSD3.
// Source: ComfyUI 0.3.64 nodes.py, comfy_extras/nodes_clip_sdxl.py, nodes_sd3.py.
#include <string.h>

#include "nodes/encode.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

enum { MAX_RESOLUTION = 16384 };

// --- CLIPSetLastLayer --------------------------------------------------------------------------
typedef struct last_layer_in {
    at_object *clip;
    int64_t stop_at_clip_layer;
} last_layer_in;
static const at_in last_layer_rows[] = {
    AT_ROW_LINK_BARE(last_layer_in, clip, "CLIP"),
    AT_ROW_INT_STEP(last_layer_in, stop_at_clip_layer, -1, -24, -1, 1),
};
static const at_out clip_out[] = {AT_OUT("CLIP")};
static at_status last_layer_run(at_node_ctx *c, const void *in, at_value *out)
{
    const last_layer_in *i = in;
    (void)c;
    if (i->stop_at_clip_layer > -1)
        return at_fail(AT_EINVAL,
                       "CLIPSetLastLayer: %lld is no layer counted from the end (-1 ...)",
                       (long long)i->stop_at_clip_layer);
    at_object *clip = at_obj_clip_copy((const at_obj_clip *)i->clip);
    if (clip) ((at_obj_clip *)clip)->last_layer = at_int_of(i->stop_at_clip_layer);
    return at_give(out, clip, "CLIPSetLastLayer");
}
static const at_node node_last_layer = {.class_type = "CLIPSetLastLayer",
                                        .display = "CLIP Set Last Layer",
                                        .category = "conditioning",
                                        .python_module = "nodes",
                                        .in = last_layer_rows,
                                        .n_in = AT_COUNT(last_layer_rows),
                                        .out = clip_out,
                                        .n_out = 1,
                                        .in_size = sizeof(last_layer_in),
                                        .run = last_layer_run};

// --- prompts -----------------------------------------------------------------------------------
static const at_out cond_out[] = {AT_OUT("CONDITIONING")};

// Kinds whose tokenizer knows CLIP-L and CLIP-G.
static bool has_l_and_g(const at_obj_clip *clip)
{
    return clip->kind == AT_CLIP_SDXL || clip->kind == AT_CLIP_REFINER || clip->kind == AT_CLIP_SD3;
}

static at_status encode(at_node_ctx *c, const char *node, const at_object *clip,
                        const at_prompt_texts *texts, const at_cond_size *size, at_value *out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_object *cond = NULL;

    if (!clip)
        AT_TRY(at_fail(AT_EINVAL,
                       "%s: the clip input is None: the checkpoint holds no text encoder", node));
    AT_TRY(at_encode_open(c, (const at_obj_clip *)clip, &o));
    at_prompt_texts with_files = *texts;
    with_files.env = at_env_of(c);
    AT_TRY(at_encode_texts(o, (const at_obj_clip *)clip, &with_files, &cond));
    if (size) ((at_obj_cond *)cond)->items[0].size = *size;
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_ops_free(o);
    return st;
}

static at_status wrong_clip(const char *node, const char *wanted)
{
    return at_fail(AT_EINVAL, "%s: this CLIP is of another kind; %s is wanted", node, wanted);
}

// --- CLIPTextEncodeSDXL ------------------------------------------------------------------------
typedef struct sdxl_in {
    at_object *clip;
    int64_t width, height, crop_w, crop_h, target_width, target_height;
    const char *text_g, *text_l;
} sdxl_in;
#define SIDE(type, field, d) AT_ROW_INT(type, field, d, 0, MAX_RESOLUTION)
static const at_in sdxl_rows[] = {
    AT_ROW_LINK(sdxl_in, clip, "CLIP"), SIDE(sdxl_in, width, 1024),
    SIDE(sdxl_in, height, 1024),        SIDE(sdxl_in, crop_w, 0),
    SIDE(sdxl_in, crop_h, 0),           SIDE(sdxl_in, target_width, 1024),
    SIDE(sdxl_in, target_height, 1024), AT_ROW_PROMPT(sdxl_in, text_g),
    AT_ROW_PROMPT(sdxl_in, text_l),
};
static at_status sdxl_run(at_node_ctx *c, const void *in, at_value *out)
{
    const sdxl_in *i = in;
    at_prompt_texts texts = {
        .text = {[AT_TE_L] = i->text_l, [AT_TE_G] = i->text_g, [AT_TE_T5] = i->text_g},
        .same_chunks = true};
    at_cond_size size = {.has_size = true,
                         .has_crop = true,
                         .has_target = true,
                         .width = i->width,
                         .height = i->height,
                         .crop_w = i->crop_w,
                         .crop_h = i->crop_h,
                         .target_w = i->target_width,
                         .target_h = i->target_height};
    if (i->clip && !has_l_and_g((const at_obj_clip *)i->clip))
        return wrong_clip("CLIPTextEncodeSDXL", "that of an SDXL model (CLIP-L and CLIP-G)");
    return encode(c, "CLIPTextEncodeSDXL", i->clip, &texts, &size, out);
}
static const at_node node_sdxl = {.class_type = "CLIPTextEncodeSDXL",
                                  .category = "advanced/conditioning",
                                  .python_module = "comfy_extras.nodes_clip_sdxl",
                                  .flags = AT_NODE_V3,
                                  .in = sdxl_rows,
                                  .n_in = AT_COUNT(sdxl_rows),
                                  .out = cond_out,
                                  .n_out = 1,
                                  .in_size = sizeof(sdxl_in),
                                  .run = sdxl_run};

// --- CLIPTextEncodeSDXLRefiner -----------------------------------------------------------------
typedef struct refiner_in {
    double ascore;
    int64_t width, height;
    const char *text;
    at_object *clip;
} refiner_in;
static const at_in refiner_rows[] = {
    AT_ROW_FLOAT_STEP(refiner_in, ascore, 6.0, 0, 1000, 0.01),
    SIDE(refiner_in, width, 1024),
    SIDE(refiner_in, height, 1024),
    AT_ROW_PROMPT(refiner_in, text),
    AT_ROW_LINK(refiner_in, clip, "CLIP"),
};
static at_status refiner_run(at_node_ctx *c, const void *in, at_value *out)
{
    const refiner_in *i = in;
    at_prompt_texts texts = {.text = {i->text, i->text, i->text, i->text}};
    at_cond_size size = {.has_size = true,
                         .has_score = true,
                         .width = i->width,
                         .height = i->height,
                         .score = i->ascore};
    return encode(c, "CLIPTextEncodeSDXLRefiner", i->clip, &texts, &size, out);
}
static const at_node node_refiner = {.class_type = "CLIPTextEncodeSDXLRefiner",
                                     .category = "advanced/conditioning",
                                     .python_module = "comfy_extras.nodes_clip_sdxl",
                                     .flags = AT_NODE_V3,
                                     .in = refiner_rows,
                                     .n_in = AT_COUNT(refiner_rows),
                                     .out = cond_out,
                                     .n_out = 1,
                                     .in_size = sizeof(refiner_in),
                                     .run = refiner_run};

// --- CLIPTextEncodeSD3 -------------------------------------------------------------------------
typedef struct sd3_in {
    at_object *clip;
    const char *clip_l, *clip_g, *t5xxl, *empty_padding;
} sd3_in;
static const char *const paddings[] = {"none", "empty_prompt", NULL};
static const at_in sd3_rows[] = {
    AT_ROW_LINK(sd3_in, clip, "CLIP"),
    AT_ROW_PROMPT(sd3_in, clip_l),
    AT_ROW_PROMPT(sd3_in, clip_g),
    AT_ROW_PROMPT(sd3_in, t5xxl),
    AT_ROW(sd3_in, empty_padding, AT_IN_COMBO, .choices = paddings),
};
static at_status sd3_run(at_node_ctx *c, const void *in, at_value *out)
{
    const sd3_in *i = in;
    bool bare = strcmp(i->empty_padding, "none") == 0;
    at_prompt_texts texts = {
        .text = {[AT_TE_L] = i->clip_l, [AT_TE_G] = i->clip_g, [AT_TE_T5] = i->t5xxl},
        .none = {[AT_TE_L] = bare && !*i->clip_l,
                 [AT_TE_G] = bare && !*i->clip_g,
                 [AT_TE_T5] = bare && !*i->t5xxl},
        .same_chunks = true};
    if (i->clip && ((const at_obj_clip *)i->clip)->kind != AT_CLIP_SD3)
        return wrong_clip("CLIPTextEncodeSD3", "one loaded as type \"sd3\"");
    return encode(c, "CLIPTextEncodeSD3", i->clip, &texts, NULL, out);
}
static const at_node node_sd3 = {.class_type = "CLIPTextEncodeSD3",
                                 .category = "advanced/conditioning",
                                 .python_module = "comfy_extras.nodes_sd3",
                                 .flags = AT_NODE_V3,
                                 .in = sd3_rows,
                                 .n_in = AT_COUNT(sd3_rows),
                                 .out = cond_out,
                                 .n_out = 1,
                                 .in_size = sizeof(sd3_in),
                                 .run = sd3_run};

const at_node *const at_nodes_clip_text[] = {&node_last_layer, &node_sdxl, &node_refiner, &node_sd3,
                                             NULL};
