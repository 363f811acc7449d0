// SPDX-License-Identifier: Apache-2.0
// node_vision.c - picture encoders and what is made of them: CLIPVisionLoader, CLIPVisionEncode,
// StyleModelLoader, StyleModelApply, unCLIPConditioning.
// Easy to get wrong: a style model's tokens of all pictures stand one behind the other in one text,
// and that one text goes behind every entry.
// Source: ComfyUI 0.3.64 nodes.py.
#include "nodes/env.h"
#include "nodes/look.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "base/mem.h"

static const at_out cond_out[] = {AT_OUT("CONDITIONING")};

// A vision network of one part from a folder.
static at_status load(at_node_ctx *c, const char *kind, const char *name, at_part part,
                      at_vision **out)
{
    at_status st = AT_OK;
    at_store *s = NULL;

    AT_TRY(at_env_open(at_env_of(c), kind, name, NULL, &s));
    AT_TRY(at_vision_load(s, part, at_path_base(name), out));
out:
    at_store_release(&s);
    return st;
}

// --- CLIPVisionLoader --------------------------------------------------------------------------
typedef struct load_in {
    const char *clip_name;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, clip_name, AT_IN_COMBO, .list = "clip_vision", .flags = AT_INF_NO_OPTIONS)};
static const at_out load_out[] = {AT_OUT("CLIP_VISION")};
static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_vision *v = NULL;
    at_status st = load(c, "clip_vision", ((const load_in *)in)->clip_name, AT_PART_VISION, &v);
    return st == AT_OK ? at_give(out, at_obj_vision_new(v), "CLIPVisionLoader") : st;
}
static const at_node node_load = {.class_type = "CLIPVisionLoader",
                                  .display = "Load CLIP Vision",
                                  .category = "loaders",
                                  .python_module = "nodes",
                                  .in = load_rows,
                                  .n_in = AT_COUNT(load_rows),
                                  .out = load_out,
                                  .n_out = 1,
                                  .in_size = sizeof(load_in),
                                  .run = load_run};

// --- CLIPVisionEncode --------------------------------------------------------------------------
typedef struct encode_in {
    at_object *clip_vision, *image;
    const char *crop;
} encode_in;
static const char *const crops[] = {"center", "none", NULL};
static const at_in encode_rows[] = {
    AT_ROW_LINK_BARE(encode_in, clip_vision, "CLIP_VISION"),
    AT_ROW_LINK_BARE(encode_in, image, "IMAGE"),
    AT_ROW(encode_in, crop, AT_IN_COMBO, .choices = crops, .flags = AT_INF_NO_OPTIONS),
};
static const at_out encode_out[] = {AT_OUT("CLIP_VISION_OUTPUT")};
static at_status encode_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const encode_in *i = in;
    at_ops *o = NULL;

    if (!i->clip_vision)
        AT_TRY(at_fail(AT_EINVAL, "CLIPVisionEncode: clip_vision is None: the checkpoint holds no "
                                  "picture encoder"));
    const at_vision *v = ((const at_obj_vision *)i->clip_vision)->vision;
    AT_TRY(at_env_ops(c, &o));
    at_tensor *pixels = at_look_pixels(o, v, ((const at_obj_image *)i->image)->pixels,
                                       strcmp(i->crop, "center") == 0);
    at_seen seen = at_vision_look(o, v, pixels);
    AT_TRY(at_ops_status(o));
    AT_TRY(at_give(out,
                   at_obj_seen_new(at_ops_keep(o, seen.last), at_ops_keep(o, seen.penultimate),
                                   at_ops_keep(o, seen.embeds)),
                   "CLIPVisionEncode"));
out:
    at_ops_free(o);
    return st;
}
static const at_node node_encode = {.class_type = "CLIPVisionEncode",
                                    .display = "CLIP Vision Encode",
                                    .category = "conditioning",
                                    .python_module = "nodes",
                                    .in = encode_rows,
                                    .n_in = AT_COUNT(encode_rows),
                                    .out = encode_out,
                                    .n_out = 1,
                                    .in_size = sizeof(encode_in),
                                    .run = encode_run};

// --- StyleModelLoader --------------------------------------------------------------------------
typedef struct style_in {
    const char *style_model_name;
} style_in;
static const at_in style_rows[] = {AT_ROW(style_in, style_model_name, AT_IN_COMBO,
                                          .list = "style_models", .flags = AT_INF_NO_OPTIONS)};
static const at_out style_out[] = {AT_OUT("STYLE_MODEL")};
static at_status style_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_vision *v = NULL;
    at_status st =
        load(c, "style_models", ((const style_in *)in)->style_model_name, AT_PART_STYLE, &v);
    return st == AT_OK ? at_give(out, at_obj_style_new(v), "StyleModelLoader") : st;
}
static const at_node node_style = {.class_type = "StyleModelLoader",
                                   .display = "Load Style Model",
                                   .category = "loaders",
                                   .python_module = "nodes",
                                   .in = style_rows,
                                   .n_in = AT_COUNT(style_rows),
                                   .out = style_out,
                                   .n_out = 1,
                                   .in_size = sizeof(style_in),
                                   .run = style_run};

// --- StyleModelApply ---------------------------------------------------------------------------
typedef struct apply_in {
    at_object *conditioning, *style_model, *clip_vision_output;
    double strength;
    const char *strength_type;
} apply_in;
static const char *const strength_types[] = {"multiply", "attn_bias", NULL};
static const at_in apply_rows[] = {
    AT_ROW_LINK_BARE(apply_in, conditioning, "CONDITIONING"),
    AT_ROW_LINK_BARE(apply_in, style_model, "STYLE_MODEL"),
    AT_ROW_LINK_BARE(apply_in, clip_vision_output, "CLIP_VISION_OUTPUT"),
    AT_ROW_FLOAT_STEP(apply_in, strength, 1.0, 0, 10, 0.001),
    AT_ROW(apply_in, strength_type, AT_IN_COMBO, .choices = strength_types,
           .flags = AT_INF_NO_OPTIONS),
};

// The style's tokens of all pictures, one behind the other: [1, b * t, d].
static at_tensor *style_tokens(at_ops *o, const apply_in *i)
{
    const at_obj_seen *seen = (const at_obj_seen *)i->clip_vision_output;
    at_tensor *t = at_style_tokens(o, ((const at_obj_vision *)i->style_model)->vision, seen->last);
    if (!t) return NULL;
    t = at_reshape(o, t, 3, (int64_t[]){1, t->shape[0] * t->shape[1], t->shape[2]});
    bool times = strcmp(i->strength_type, "multiply") == 0 && i->strength != 1.0;
    return times ? at_affine(o, t, (float)i->strength, 0) : t;
}

// The entry's bias for `more` tokens behind its text: what was there keeps its place, and all older
// tokens and the picture (the last row) look at the new ones with log(strength), kept in f16.
static at_status grow_bias(const apply_in *i, at_cond *e, int64_t more)
{
    at_status st = AT_OK;
    bool biased = strcmp(i->strength_type, "attn_bias") == 0;
    float by = biased ? at_f16_to_f32(at_f32_to_f16(logf((float)i->strength))) : 0.0f;
    int64_t old = e->context->shape[1], n = old + more + 1;
    at_tensor *t = NULL;

    if (!e->attn_bias && (!biased || i->strength == 1.0)) goto out;
    if (e->attn_bias && e->attn_bias->shape[1] != old + 1)
        AT_TRY(
            at_fail(AT_EINVAL,
                    "StyleModelApply: the text has %lld tokens, the style before it was applied to "
                    "%lld; apply style models last",
                    (long long)old, (long long)(e->attn_bias->shape[1] - 1)));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){1, n, n}, &t));
    float *to = at_tensor_data(t);
    const float *from = e->attn_bias ? at_tensor_data(e->attn_bias) : NULL;
    memset(to, 0, at_tensor_bytes(t));
    for (int64_t y = 0; y <= old; y++) { // row and column `old` are the picture's: they move behind
        float *row = to + (y < old ? y : n - 1) * n;
        for (int64_t x = 0; from && x <= old; x++)
            row[x < old ? x : n - 1] = from[y * (old + 1) + x];
        for (int64_t x = old; x < old + more; x++)
            row[x] = by;
    }
    at_cond_set_tensor(&e->attn_bias, t);
out:
    return st;
}

static at_status apply_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const apply_in *i = in;
    at_ops *o = NULL;
    at_object *cond = NULL;

    AT_TRY(at_env_ops(c, &o));
    at_tensor *tokens = style_tokens(o, i);
    AT_TRY(at_ops_status(o));
    cond = at_obj_cond_copy((const at_obj_cond *)i->conditioning);
    if (!cond) AT_TRY(at_fail(AT_ENOMEM, "StyleModelApply: no memory"));
    at_obj_cond *list = (at_obj_cond *)cond;
    for (size_t k = 0; k < list->count; k++) {
        at_tensor *text = list->items[k].context;
        at_tensor *both = at_concat(o, 1, 2, (const at_tensor *[]){text, tokens});
        AT_TRY(at_ops_status(o));
        AT_TRY(grow_bias(i, &list->items[k], tokens->shape[1]));
        at_cond_set_tensor(&list->items[k].context, at_ops_keep(o, both));
    }
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_ops_free(o);
    return st;
}
static const at_node node_apply = {.class_type = "StyleModelApply",
                                   .display = "Apply Style Model",
                                   .category = "conditioning/style_model",
                                   .python_module = "nodes",
                                   .in = apply_rows,
                                   .n_in = AT_COUNT(apply_rows),
                                   .out = cond_out,
                                   .n_out = 1,
                                   .in_size = sizeof(apply_in),
                                   .run = apply_run};

// --- unCLIPConditioning ------------------------------------------------------------------------
typedef struct unclip_in {
    at_object *conditioning, *clip_vision_output;
    double strength, noise_augmentation;
} unclip_in;
static const at_in unclip_rows[] = {
    AT_ROW_LINK_BARE(unclip_in, conditioning, "CONDITIONING"),
    AT_ROW_LINK_BARE(unclip_in, clip_vision_output, "CLIP_VISION_OUTPUT"),
    AT_ROW_FLOAT_STEP(unclip_in, strength, 1.0, -10, 10, 0.01),
    AT_ROW_FLOAT_STEP(unclip_in, noise_augmentation, 0.0, 0, 1, 0.01),
};
static at_status unclip_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const unclip_in *i = in;
    at_object *cond = NULL;

    if (i->strength == 0) {
        *out = at_value_object(at_object_retain(i->conditioning));
        goto out;
    }
    cond = at_obj_cond_copy((const at_obj_cond *)i->conditioning);
    if (!cond) AT_TRY(at_fail(AT_ENOMEM, "unCLIPConditioning: no memory"));
    at_obj_cond *list = (at_obj_cond *)cond;
    for (size_t k = 0; k < list->count; k++) {
        at_object **place = &list->items[k].extra[AT_COND_UNCLIP];
        at_object *one =
            at_obj_unclip_new(*place, i->clip_vision_output, i->strength, i->noise_augmentation);
        if (!one) AT_TRY(at_fail(AT_ENOMEM, "unCLIPConditioning: no memory"));
        at_cond_set_object(place, one);
    }
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    return st;
}
static const at_node node_unclip = {.class_type = "unCLIPConditioning",
                                    .display = "unCLIPConditioning",
                                    .category = "conditioning",
                                    .python_module = "nodes",
                                    .in = unclip_rows,
                                    .n_in = AT_COUNT(unclip_rows),
                                    .out = cond_out,
                                    .n_out = 1,
                                    .in_size = sizeof(unclip_in),
                                    .run = unclip_run};

const at_node *const at_nodes_vision[] = {&node_load,  &node_encode, &node_style,
                                          &node_apply, &node_unclip, NULL};
