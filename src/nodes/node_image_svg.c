// SPDX-License-Identifier: Apache-2.0
// node_image_svg.c - the SVG object, and SaveSVGNode: drawings as files with the workflow inside.
// Easy to get wrong: every <svg ...> tag of a text gets the metadata, nested ones too.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_images.py; Python's json.dumps(indent=2).
#include "nodes/nodes.h"
#include "nodes/rows.h"

#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "nodes/saving.h"
#include "nodes/svg.h"

// --- the object --------------------------------------------------------------------------------------
static void svg_free(at_object *self)
{
    at_obj_svg *s = (at_obj_svg *)self;
    for (size_t i = 0; i < s->count; i++)
        at_free(s->texts[i]);
    at_free(s->texts);
    at_free(s);
}
static const at_object_type svg_type = {"SVG", svg_free};

at_object *at_obj_svg_new(const char *const *texts, size_t count)
{
    at_obj_svg *s = at_calloc(1, sizeof *s);
    if (!s) return NULL;
    atomic_init(&s->base.refs, 1);
    s->base.type = &svg_type;
    s->texts = at_calloc(count ? count : 1, sizeof *s->texts);
    for (size_t i = 0; s->texts && i < count; i++, s->count++)
        if (!(s->texts[i] = at_strdup(texts[i]))) break;
    if (s->count == count && s->texts) return &s->base;
    svg_free(&s->base);
    return NULL;
}

// --- metadata ----------------------------------------------------------------------------------------
static void new_line(at_str *s, int depth)
{
    at_str_printf(s, "\n%*s", 2 * depth, "");
}

// As Python's json.dumps(v, indent=2).
static void dump_indented(at_str *s, const json_t *v, int depth)
{
    const char *key;
    json_t *child;
    size_t i;
    bool object = json_is_object(v), array = json_is_array(v);
    if ((!object || !json_object_size(v)) && (!array || !json_array_size(v))) {
        at_json_append(s, v, 0);
        return;
    }
    at_str_append(s, object ? "{" : "[");
    json_object_foreach((json_t *)(uintptr_t)v, key, child)
    {
        json_t *name = json_string_nocheck(key);
        if (at_str_text(s)[s->len - 1] != '{') at_str_append(s, ",");
        new_line(s, depth + 1);
        if (name) at_json_append(s, name, 0);
        s->failed |= !name;
        json_decref(name);
        at_str_append(s, ": ");
        dump_indented(s, child, depth + 1);
    }
    json_array_foreach(v, i, child)
    {
        if (i) at_str_append(s, ",");
        new_line(s, depth + 1);
        dump_indented(s, child, depth + 1);
    }
    new_line(s, depth);
    at_str_append(s, object ? "}" : "]");
}

// {"prompt": ..., and the keys of extra_pnginfo}; empty: none.
static at_status metadata(const at_saver *s, at_str *out)
{
    at_status st = AT_OK;
    json_t *all = json_object();

    if (!all) AT_TRY(at_fail(AT_ENOMEM, "SaveSVGNode: no memory"));
    for (size_t i = 0; i < s->text_count; i++) {
        json_t *v = NULL;
        AT_TRY(at_json_load(s->text[i].key, s->text[i].value, strlen(s->text[i].value), &v));
        if (json_object_set_new_nocheck(all, s->text[i].key, v) != 0)
            AT_TRY(at_fail(AT_ENOMEM, "SaveSVGNode: no memory"));
    }
    if (json_object_size(all)) dump_indented(out, all, 0);
out:
    json_decref(all);
    return st;
}

// The text with the metadata behind every <svg ...> tag. NULL: no memory.
static char *with_metadata(const char *text, const char *json)
{
    at_str s = {0};
    const char *tag, *end;
    while (*json && (tag = strstr(text, "<svg")) && (end = strchr(tag, '>'))) {
        at_str_append_n(&s, text, (size_t)(end + 1 - text));
        at_str_append(&s, "\n  <metadata>\n                <![CDATA[\n            ");
        at_str_append(&s, json);
        at_str_append(&s, "\n                ]]>\n            </metadata>\n            ");
        text = end + 1;
    }
    at_str_append(&s, text);
    return at_str_take(&s);
}

// --- SaveSVGNode -------------------------------------------------------------------------------------
typedef struct save_in {
    at_object *svg;
    const char *filename_prefix;
    const char *prompt, *extra_pnginfo;
} save_in;
static const at_in save_rows[] = {
    AT_ROW_LINK_BARE(save_in, svg, "SVG"),
    AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "svg/ComfyUI",
           .tip = "The prefix for the file to save. This may include formatting information such "
                  "as %date:yyyy-MM-dd% or %Empty Latent Image.width% to include values from "
                  "nodes."),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

static at_status save_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    const save_in *i = in;
    const at_obj_svg *svg = (const at_obj_svg *)i->svg;
    at_saver s = {0};
    at_str json = {0};
    char *text = NULL;

    AT_TRY(at_saver_open(&s, c, "SaveSVGNode", false, i->filename_prefix, 0, 0, i->prompt,
                         i->extra_pnginfo));
    AT_TRY(metadata(&s, &json));
    if (json.failed) AT_TRY(at_fail(AT_ENOMEM, "SaveSVGNode: no memory for the metadata"));
    for (size_t k = 0; k < svg->count; k++) {
        text = with_metadata(svg->texts[k], at_str_text(&json));
        if (!text) AT_TRY(at_fail(AT_ENOMEM, "SaveSVGNode: no memory"));
        AT_TRY(at_saver_file(&s, (int64_t)k, ".svg", text, strlen(text)));
        at_free(text);
        text = NULL;
    }
    AT_TRY(at_saver_show(&s, c, NULL));
out:
    at_free(text);
    at_str_free(&json);
    at_saver_close(&s);
    return st;
}
static const at_node node_save = {.class_type = "SaveSVGNode",
                                  .category = "image/save",
                                  .description = "Save SVG files on disk.",
                                  .python_module = "comfy_extras.nodes_images",
                                  .flags = AT_NODE_OUTPUT,
                                  .in = save_rows,
                                  .n_in = AT_COUNT(save_rows),
                                  .in_size = sizeof(save_in),
                                  .run = save_run};

const at_node *const at_nodes_image_svg[] = {&node_save, NULL};
