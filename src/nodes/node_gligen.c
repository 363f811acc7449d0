// SPDX-License-Identifier: Apache-2.0
// node_gligen.c - GLIGENLoader, GLIGENTextBoxApply.
// Easy to get wrong: a box's text is the unprojected pooled vector; sizes are given in pixels and
// kept in latent cells, rounded down.
// Source: ComfyUI 0.3.64 nodes.py.
#include "nodes/boxes.h"
#include "nodes/encode.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include "base/file.h"

typedef struct load_in {
    const char *gligen_name;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, gligen_name, AT_IN_COMBO, .list = "gligen", .flags = AT_INF_NO_OPTIONS)};
static const at_out load_out[] = {AT_OUT("GLIGEN")};
static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const char *name = ((const load_in *)in)->gligen_name;
    at_store *s = NULL;
    at_gligen *g = NULL;

    AT_TRY(at_env_open(at_env_of(c), "gligen", name, NULL, &s));
    AT_TRY(at_gligen_load(s, at_path_base(name), &g));
    AT_TRY(at_give(out, at_obj_gligen_new(g), "GLIGENLoader"));
out:
    at_store_release(&s);
    return st;
}
static const at_node node_load = {.class_type = "GLIGENLoader",
                                  .display = "GLIGENLoader",
                                  .category = "loaders",
                                  .python_module = "nodes",
                                  .in = load_rows,
                                  .n_in = AT_COUNT(load_rows),
                                  .out = load_out,
                                  .n_out = 1,
                                  .in_size = sizeof(load_in),
                                  .run = load_run};

typedef struct box_in {
    at_object *conditioning_to, *clip, *gligen_textbox_model;
    const char *text;
    int64_t width, height, x, y;
} box_in;
static const at_in box_rows[] = {
    AT_ROW_LINK_BARE(box_in, conditioning_to, "CONDITIONING"),
    AT_ROW_LINK_BARE(box_in, clip, "CLIP"),
    AT_ROW_LINK_BARE(box_in, gligen_textbox_model, "GLIGEN"),
    AT_ROW_PROMPT(box_in, text),
    AT_ROW_INT_STEP(box_in, width, 64, 8, 16384, 8),
    AT_ROW_INT_STEP(box_in, height, 64, 8, 16384, 8),
    AT_ROW_INT_STEP(box_in, x, 0, 0, 16384, 8),
    AT_ROW_INT_STEP(box_in, y, 0, 0, 16384, 8),
};
static const at_out box_out[] = {AT_OUT("CONDITIONING")};
static at_status box_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const box_in *i = in;
    at_ops *o = NULL;
    at_object *text = NULL, *cond = NULL;
    at_prompt_texts texts = {.env = at_env_of(c), .raw_pooled = true};

    if (!i->clip) AT_TRY(at_fail(AT_EINVAL, "clip input is invalid: None"));
    for (int k = 0; k < AT_TE_COUNT; k++)
        texts.text[k] = i->text;
    AT_TRY(at_encode_open(c, (const at_obj_clip *)i->clip, &o));
    AT_TRY(at_encode_texts(o, (const at_obj_clip *)i->clip, &texts, &text));
    at_tensor *pooled = ((at_obj_cond *)text)->items[0].pooled;
    if (!pooled) AT_TRY(at_fail(AT_EINVAL, "GLIGENTextBoxApply: this CLIP gives no pooled text"));
    cond = at_obj_cond_copy((const at_obj_cond *)i->conditioning_to);
    if (!cond) AT_TRY(at_fail(AT_ENOMEM, "GLIGENTextBoxApply: no memory"));
    at_obj_cond *list = (at_obj_cond *)cond;
    for (size_t k = 0; k < list->count; k++) {
        at_object **place = &list->items[k].extra[AT_COND_GLIGEN];
        at_object *one = at_obj_box_new(
            *place, ((const at_obj_gligen *)i->gligen_textbox_model)->net, at_tensor_retain(pooled),
            i->height / 8, i->width / 8, i->y / 8, i->x / 8);
        if (!one) AT_TRY(at_fail(AT_ENOMEM, "GLIGENTextBoxApply: no memory"));
        at_cond_set_object(place, one);
    }
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_object_release(text);
    at_ops_free(o);
    return st;
}
static const at_node node_box = {.class_type = "GLIGENTextBoxApply",
                                 .display = "GLIGENTextBoxApply",
                                 .category = "conditioning/gligen",
                                 .python_module = "nodes",
                                 .in = box_rows,
                                 .n_in = AT_COUNT(box_rows),
                                 .out = box_out,
                                 .n_out = 1,
                                 .in_size = sizeof(box_in),
                                 .run = box_run};

const at_node *const at_nodes_gligen[] = {&node_load, &node_box, NULL};
