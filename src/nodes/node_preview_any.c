// SPDX-License-Identifier: Apache-2.0
// node_preview_any.c - PreviewAny: whatever comes along a link, as text.
// Idea: strings as they are, numbers as Python's str() writes them, JSON as json.dumps does. Objects have no
// Python text here: they are named with their type, and pictures and latents with their shape.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_preview_any.py.
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"

typedef struct preview_in {
    at_value source;
} preview_in;
static const at_in preview_rows[] = {AT_ROW(preview_in, source, AT_IN_ANY, .type_name = "*")};

static void object_text(at_str *s, const at_object *o)
{
    const at_tensor *t = NULL;
    char shape[128];
    at_str_printf(s, "%s", o->type->name);
    if (!strcmp(o->type->name, "IMAGE") || !strcmp(o->type->name, "MASK"))
        t = ((const at_obj_image *)o)->pixels;
    if (!strcmp(o->type->name, "LATENT")) t = ((const at_obj_latent *)o)->samples;
    if (t) at_str_printf(s, " %s", at_shape_text(t->dtype, t->rank, t->shape, shape));
}

static at_status json_text(at_str *s, const char *text)
{
    json_t *v = NULL;
    at_status st = at_json_load("PreviewAny", text, strlen(text), &v);
    if (st == AT_OK) at_json_append(s, v, 0);
    json_decref(v);
    return st;
}

static at_status text_of(at_str *s, const at_value *v)
{
    char number[32];
    switch (v->kind) {
    case AT_VAL_INT: at_str_printf(s, "%lld", (long long)v->i); break;
    case AT_VAL_UINT: at_str_printf(s, "%llu", (unsigned long long)v->u); break;
    case AT_VAL_FLOAT:
        at_float_repr(v->f, number);
        at_str_append(s, number);
        break;
    case AT_VAL_BOOL: at_str_append(s, v->b ? "True" : "False"); break;
    case AT_VAL_STRING: at_str_append(s, v->s); break;
    case AT_VAL_OBJECT: object_text(s, v->o); break;
    case AT_VAL_JSON: return json_text(s, v->s);
    case AT_VAL_NONE:
    case AT_VAL_BLOCKER: at_str_append(s, "None"); break;
    }
    return AT_OK;
}

static at_status preview_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    at_str s = {0};
    json_t *ui = NULL;
    char *shown = NULL;

    AT_TRY(text_of(&s, &((const preview_in *)in)->source));
    ui = s.failed ? NULL : json_pack("{s:[s]}", "text", at_str_text(&s));
    shown = ui ? at_json_dump(ui, 0) : NULL;
    if (!shown) AT_TRY(at_fail(AT_ENOMEM, "PreviewAny: no memory"));
    AT_TRY(at_node_ui(c, shown));
out:
    at_free(shown);
    json_decref(ui);
    at_str_free(&s);
    return st;
}
static const at_node node_preview = {.class_type = "PreviewAny",
                                     .display = "Preview Any",
                                     .category = "utils",
                                     .python_module = "comfy_extras.nodes_preview_any",
                                     .flags = AT_NODE_OUTPUT,
                                     .in = preview_rows,
                                     .n_in = AT_COUNT(preview_rows),
                                     .in_size = sizeof(preview_in),
                                     .run = preview_run};

const at_node *const at_nodes_preview_any[] = {&node_preview, NULL};
