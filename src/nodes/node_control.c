// SPDX-License-Identifier: Apache-2.0
// node_control.c - ControlNetLoader, DiffControlNetLoader, SetUnionControlNetType.
// Source: ComfyUI 0.3.64 nodes.py, comfy_extras/nodes_controlnet.py.
#include "nodes/control.h"
#include "nodes/env.h"
#include "nodes/loaders.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

static const at_out control_out[] = {AT_OUT("CONTROL_NET")};

// --- ControlNetLoader, DiffControlNetLoader ------------------------------------------------------
// Files named ..._shuffle give one residual for the whole picture.
static bool is_shuffle(const char *path)
{
    const char *base = at_path_base(path), *dot = strrchr(base, '.');
    size_t n = dot ? (size_t)(dot - base) : strlen(base);
    static const char *const ends[] = {"_shuffle", "_shuffle_fp16"};
    for (size_t i = 0; i < AT_COUNT(ends); i++) {
        size_t e = strlen(ends[i]);
        if (n >= e && strncmp(base + n - e, ends[i], e) == 0) return true;
    }
    return false;
}

at_status at_load_control(at_node_ctx *c, const char *name, const at_object *model, at_value *out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    char *path = NULL;
    at_control_net *net = NULL;
    const at_model *add_to = model ? ((const at_obj_model *)model)->model : NULL;

    AT_TRY(at_env_open(at_env_of(c), "controlnet", name, &path, &s));
    AT_TRY(at_control_net_load(s, at_path_base(path), add_to, &net));
    at_object *o = at_obj_control_new(net);
    if (o) ((at_obj_control *)o)->pooled = is_shuffle(path);
    AT_TRY(at_give(out, o, "ControlNetLoader"));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}

typedef struct load_in {
    const char *control_net_name;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, control_net_name, AT_IN_COMBO, .list = "controlnet",
           .flags = AT_INF_NO_OPTIONS),
};
static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    return at_load_control(c, ((const load_in *)in)->control_net_name, NULL, out);
}
static const at_node node_load = {.class_type = "ControlNetLoader",
                                  .display = "Load ControlNet Model",
                                  .category = "loaders",
                                  .python_module = "nodes",
                                  .in = load_rows,
                                  .n_in = AT_COUNT(load_rows),
                                  .out = control_out,
                                  .n_out = 1,
                                  .in_size = sizeof(load_in),
                                  .run = load_run};

typedef struct diff_in {
    at_object *model;
    const char *control_net_name;
} diff_in;
static const at_in diff_rows[] = {
    AT_ROW_LINK_BARE(diff_in, model, "MODEL"),
    AT_ROW(diff_in, control_net_name, AT_IN_COMBO, .list = "controlnet",
           .flags = AT_INF_NO_OPTIONS),
};
static at_status diff_run(at_node_ctx *c, const void *in, at_value *out)
{
    const diff_in *i = in;
    return at_load_control(c, i->control_net_name, i->model, out);
}
static const at_node node_diff = {.class_type = "DiffControlNetLoader",
                                  .display = "Load ControlNet Model (diff)",
                                  .category = "loaders",
                                  .python_module = "nodes",
                                  .in = diff_rows,
                                  .n_in = AT_COUNT(diff_rows),
                                  .out = control_out,
                                  .n_out = 1,
                                  .in_size = sizeof(diff_in),
                                  .run = diff_run};

// --- SetUnionControlNetType ----------------------------------------------------------------------
// "auto", then the kinds by their numbers (comfy/cldm/control_types.py).
static const char *const union_types[] = {"auto",
                                          "openpose",
                                          "depth",
                                          "hed/pidi/scribble/ted",
                                          "canny/lineart/anime_lineart/mlsd",
                                          "normal",
                                          "segment",
                                          "tile",
                                          "repaint",
                                          NULL};

typedef struct union_in {
    at_object *control_net;
    const char *type;
} union_in;
static const at_in union_rows[] = {
    AT_ROW_LINK_BARE(union_in, control_net, "CONTROL_NET"),
    AT_ROW(union_in, type, AT_IN_COMBO, .choices = union_types, .flags = AT_INF_NO_OPTIONS),
};
static at_status union_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const union_in *i = in;
    at_object *o = at_obj_control_copy((const at_obj_control *)i->control_net);
    if (o) ((at_obj_control *)o)->type = -1;
    for (int k = 1; o && union_types[k]; k++)
        if (strcmp(union_types[k], i->type) == 0) ((at_obj_control *)o)->type = k - 1;
    return at_give(out, o, "SetUnionControlNetType");
}
static const at_node node_union = {.class_type = "SetUnionControlNetType",
                                   .display = "SetUnionControlNetType",
                                   .category = "conditioning/controlnet",
                                   .python_module = "comfy_extras.nodes_controlnet",
                                   .in = union_rows,
                                   .n_in = AT_COUNT(union_rows),
                                   .out = control_out,
                                   .n_out = 1,
                                   .in_size = sizeof(union_in),
                                   .run = union_run};

const at_node *const at_nodes_control[] = {&node_load, &node_diff, &node_union, NULL};
