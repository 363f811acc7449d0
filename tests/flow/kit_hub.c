// SPDX-License-Identifier: Apache-2.0
// kit_hub.c - turns a run's events into the WebSocket messages of ComfyUI (contract 2.2, 2.3), so
// that recorded traces can be compared message by message. Proves that the sink says enough for a
// server.
#include <string.h>

#include "kit.h"

static void send(kit *k, const char *type, json_t *data)
{
    json_t *m = json_object();

    json_object_set_new(m, "type", json_string(type));
    json_object_set_new(m, "data", data);
    json_array_append_new(k->messages, m);
}

static json_t *about(const kit *k, const at_event *e, bool node)
{
    json_t *data = json_object();

    if (node) {
        json_object_set_new(data, "node", json_string(e->node));
        json_object_set_new(data, "display_node", json_string(e->node));
    }
    json_object_set_new(data, "prompt_id", json_string(k->job));
    return data;
}

static void send_progress_state(kit *k)
{
    json_t *data = json_object();

    json_object_set_new(data, "prompt_id", json_string(k->job));
    json_object_set_new(data, "nodes", json_deep_copy(k->progress));
    send(k, "progress_state", data);
}

static void set_progress(kit *k, const at_event *e, json_t *value, json_t *max, const char *state)
{
    json_t *entry = json_object_get(k->progress, e->node);

    if (!entry) {
        entry = json_object();
        json_object_set_new(entry, "value", json_integer(0));
        json_object_set_new(entry, "max", json_integer(1));
        json_object_set_new(entry, "node_id", json_string(e->node));
        json_object_set_new(entry, "prompt_id", json_string(k->job));
        json_object_set_new(entry, "display_node_id", json_string(e->node));
        json_object_set_new(entry, "parent_node_id", json_null());
        json_object_set_new(entry, "real_node_id", json_string(e->node));
        json_object_set_new(k->progress, e->node, entry);
    }
    if (max) json_object_set_new(entry, "max", max);
    if (!value) value = json_incref(json_object_get(entry, "max"));
    json_object_set_new(entry, "value", value);
    json_object_set_new(entry, "state", json_string(state));
    send_progress_state(k);
}

static void send_parsed(kit *k, const char *type, const char *text)
{
    send(k, type, kit_json(text));
}

static void on_node(kit *k, const at_event *e)
{
    json_t *data;

    switch (e->kind) {
    case AT_EV_EXECUTING:
        set_progress(k, e, json_real(0), json_real(1), "running");
        send(k, "executing", about(k, e, true));
        break;
    case AT_EV_PROGRESS:
        set_progress(k, e, json_real(e->value), json_real(e->max), "running");
        data = about(k, e, false);
        json_object_set_new(data, "node", json_string(e->node));
        json_object_set_new(data, "value", json_real(e->value));
        json_object_set_new(data, "max", json_real(e->max));
        send(k, "progress", data);
        break;
    case AT_EV_EXECUTED:
        data = about(k, e, true);
        json_object_set_new(data, "output", e->text ? kit_json(e->text) : json_null());
        send(k, "executed", data);
        break;
    case AT_EV_FINISHED: set_progress(k, e, NULL, NULL, "finished"); break;
    default: break;
    }
}

void kit_hub(void *ctx, const at_event *e)
{
    kit *k = ctx;
    json_t *data;

    if (!k->messages || !k->progress) return; // a test that does not listen
    assert_string_equal(e->job, k->job);
    switch (e->kind) {
    case AT_EV_START: send(k, "execution_start", about(k, e, false)); break;
    case AT_EV_CACHED:
        data = about(k, e, false);
        json_object_set_new(data, "nodes", kit_json(e->text));
        send(k, "execution_cached", data);
        break;
    case AT_EV_SUCCESS: send(k, "execution_success", about(k, e, false)); break;
    case AT_EV_ERROR: send_parsed(k, "execution_error", e->text); break;
    case AT_EV_INTERRUPTED: send_parsed(k, "execution_interrupted", e->text); break;
    default: on_node(k, e); break;
    }
}
