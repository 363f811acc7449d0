// SPDX-License-Identifier: Apache-2.0
// events.c - what a run tells its sink, in the shape that ComfyUI's clients know.
// Source: ComfyUI 0.3.64 execution.py handle_execution_error, execution_block_cb; comfyui-contract
// 2.2, 2.3.
// Easy to get wrong: an ExecutionBlocked error does not end the run; its event carries value 1.
// Owns nothing: texts live as long as the call.
#include "flow/execute.h"

#include "base/mem.h"
#include "json/json.h"

#define NO_TEXT                                                                                    \
    "{\"exception_message\": \"out of memory\", \"exception_type\": \"MemoryError\", "             \
    "\"executed\": [], \"traceback\": [], \"current_inputs\": [], \"current_outputs\": []}"

void at_run_name_origin(const at_run *r, size_t node, at_event *e)
{
    const at_origin *o = at_run_origin(r, node);

    if (!o) return;
    e->real = r->graph->nodes[at_run_real(r, node)].id;
    e->display = o->display ? o->display : e->real;
    e->parent = r->graph->nodes[o->maker].id;
}

static void emit(const at_run *r, at_event_kind kind, size_t node, const char *text, double value)
{
    const at_graph_node *n = node == AT_NO_INDEX ? NULL : &r->graph->nodes[node];
    at_event e = {.kind = kind,
                  .job = r->args->job,
                  .node = n ? n->id : NULL,
                  .class_type = n && n->spec ? n->spec->class_type : NULL,
                  .text = text,
                  .value = value};

    at_run_name_origin(r, node, &e);
    at_sink_emit(r->args->sink, &e);
}

void at_run_emit(const at_run *r, at_event_kind kind, size_t node, const char *text)
{
    emit(r, kind, node, text, 0);
}

void at_run_emit_cached(const at_run *r)
{
    json_t *ids = json_array();
    char *text;

    for (size_t i = 0; i < r->given_count; i++) {
        if (!at_cache_get(r->cache, r->keys[i])) continue;
        (void)json_array_append_new(ids, json_string_nocheck(r->graph->nodes[i].id));
    }
    text = at_json_dump(ids, 0);
    emit(r, AT_EV_CACHED, AT_NO_INDEX, text ? text : "[]", 0);
    at_free(text);
    json_decref(ids);
}

// Fields that interruption and error share.
static json_t *common(const at_run *r, size_t node)
{
    const at_graph_node *n = &r->graph->nodes[node];
    json_t *e = json_object();

    if (!e ||
        json_object_set_new_nocheck(e, "prompt_id",
                                    json_string_nocheck(r->args->job ? r->args->job : "")) ||
        json_object_set_new_nocheck(e, "node_id", json_string_nocheck(n->id)) ||
        json_object_set_new_nocheck(e, "node_type",
                                    json_string_nocheck(n->spec ? n->spec->class_type : "")) ||
        json_object_set_new_nocheck(e, "executed", json_copy(r->executed))) {
        json_decref(e);
        return NULL;
    }
    return e;
}

// Adds the rest of an error; takes `inputs` and `outputs`. False if out of memory.
static bool add_exception(json_t *e, const char *message, const char *type, json_t *trace,
                          json_t *inputs, json_t *outputs)
{
    bool bad = json_object_set_new_nocheck(e, "exception_message",
                                           message ? json_string_nocheck(message) : NULL) != 0;

    bad |= json_object_set_new_nocheck(e, "exception_type", json_string_nocheck(type)) != 0;
    bad |= json_object_set_new_nocheck(e, "traceback", trace) != 0;
    bad |= json_object_set_new_nocheck(e, "current_inputs", inputs) != 0;
    bad |= json_object_set_new_nocheck(e, "current_outputs", outputs) != 0;
    return !bad;
}

void at_run_emit_blocked(const at_run *r, size_t node, const char *message)
{
    json_t *e = common(r, node);
    char *full = at_strprintf("Execution Blocked: %s", message), *text = NULL;

    if (e && add_exception(e, full, "ExecutionBlocked", json_array(), json_array(), json_array())) {
        text = at_json_dump(e, 0);
    }
    emit(r, AT_EV_ERROR, node, text ? text : NO_TEXT, 1);
    at_free(text);
    at_free(full);
    json_decref(e);
}

static const char *exception_of(at_status st)
{
    switch (st) {
    case AT_ENOMEM: return "torch.OutOfMemoryError";
    case AT_ENOTFOUND: return "FileNotFoundError";
    case AT_EUNSUPPORTED: return "NotImplementedError";
    case AT_EIO: return "OSError";
    case AT_EWORKFLOW: return "comfy_execution.graph.NodeInputError";
    case AT_EDEVICE:
    case AT_EINTERNAL: return "RuntimeError";
    default: return "ValueError";
    }
}

static json_t *all_ids(const at_run *r)
{
    json_t *ids = json_array();

    for (size_t i = 0; ids && i < r->given_count; i++) {
        if (json_array_append_new(ids, json_string_nocheck(r->graph->nodes[i].id))) {
            json_decref(ids);
            return NULL;
        }
    }
    return ids;
}

// The one line that stands for Python's stack: where it happened.
static json_t *trace_of(const at_run *r, size_t node)
{
    const at_graph_node *n = &r->graph->nodes[node];
    char *line = at_strprintf("  node %s, class %s\n", n->id, n->spec ? n->spec->class_type : "?");
    json_t *trace = json_array();

    if (!line || !trace || json_array_append_new(trace, json_string_nocheck(line))) {
        json_decref(trace);
        trace = NULL;
    }
    at_free(line);
    return trace;
}

void at_run_emit_failure(const at_run *r, at_status st, const char *type, size_t node,
                         const char *cause, const at_inputs *in)
{
    static const char tip[] = "This error means you ran out of memory on your GPU.\n\nTIPS: If the "
                              "workflow worked before "
                              "you might have accidentally set the batch_size to a large number.";
    json_t *e = common(r, node);
    char *message = NULL, *text = NULL;
    bool good = e != NULL;

    if (good && st != AT_ECANCELLED) {
        message = at_strprintf("%s%s%s", cause, type ? "" : "\n", st == AT_ENOMEM ? tip : "");
        good = add_exception(e, message, type ? type : exception_of(st),
                             type ? json_array() : trace_of(r, node),
                             in->linked ? at_inputs_json(in)
                             : type     ? json_array()
                                        : json_object(),
                             all_ids(r));
    }
    if (good) text = at_json_dump(e, 0);
    emit(r, st == AT_ECANCELLED ? AT_EV_INTERRUPTED : AT_EV_ERROR, node, text ? text : NO_TEXT, 0);
    at_free(text);
    at_free(message);
    json_decref(e);
}
