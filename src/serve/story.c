// SPDX-License-Identifier: Apache-2.0
// story.c - from events to messages; see story.h.
#include "serve/story.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "image/image.h"
#include "image/resize.h"
#include "tensor/tensor.h"

static json_t *whole_or_real(double v)
{
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

static json_int_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (json_int_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static json_t *parsed(const char *text)
{
    json_t *v = NULL;
    if (!text || at_json_load("event", text, strlen(text), &v) != AT_OK) return json_null();
    return v;
}

// One of the messages that the history keeps; `always`: also without a client.
static void tell(at_story *s, const char *type, json_t *data, bool always)
{
    json_object_set_new(data, "timestamp", json_integer(now_ms()));
    json_array_append_new(s->messages, json_pack("[s, O]", type, data));
    if (s->client || always)
        at_hub_post(s->hub, s->user, s->client, type, data, false);
    else
        json_decref(data);
}

static void tell_client(at_story *s, const char *type, json_t *data)
{
    if (s->client)
        at_hub_post(s->hub, s->user, s->client, type, data, false);
    else
        json_decref(data);
}

static void tell_progress_state(at_story *s)
{
    at_hub_post(s->hub, s->user, s->client, "progress_state",
                json_pack("{s:s, s:O}", "prompt_id", s->job, "nodes", s->progress), false);
}

// Whom people see for the node, and the node of the workflow that it comes from.
static const char *display_of(const at_event *e)
{
    return e->display ? e->display : e->node;
}
static const char *real_of(const at_event *e)
{
    return e->real ? e->real : e->node;
}

// value NULL: the same as max; max NULL: as it was, 1 for a node that was not seen yet.
static void set_progress(at_story *s, const at_event *e, json_t *value, json_t *max,
                         const char *state)
{
    const char *node = e->node;
    json_t *entry = json_object_get(s->progress, node);
    if (!entry) {
        entry = json_pack("{s:i, s:i, s:s, s:s, s:s, s:s, s:s?, s:s}", "value", 0, "max", 1,
                          "state", state, "node_id", node, "prompt_id", s->job, "display_node_id",
                          display_of(e), "parent_node_id", e->parent, "real_node_id", real_of(e));
        json_object_set_new_nocheck(s->progress, node, entry);
    }
    if (max) json_object_set_new(entry, "max", max);
    json_object_set_new(entry, "value", value ? value : json_incref(json_object_get(entry, "max")));
    json_object_set_new(entry, "state", json_string(state));
    tell_progress_state(s);
}

// --- pictures ----------------------------------------------------------------------------------------
static void put_u32(unsigned char *at, size_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(v >> (24 - 8 * i));
}

// Both binary forms of an encoded picture. NULLs if out of memory.
static void frame_picture(at_story *s, const char *node, bool png, const uint8_t *bytes, size_t n)
{
    at_str meta = {0};
    json_t *m = json_pack("{s:s, s:s, s:s, s:n, s:s, s:s}", "node_id", node, "prompt_id", s->job,
                          "display_node_id", node, "parent_node_id", "real_node_id", node,
                          "image_type", png ? "image/png" : "image/jpeg");
    if (m) at_json_append(&meta, m, 0);
    json_decref(m);
    if (!meta.failed && meta.len) {
        at_message_release(s->preview);
        at_message_release(s->plain);
        s->preview = at_message_new(NULL, 8 + meta.len + n, true);
        s->plain = at_message_new(NULL, 8 + n, true);
    }
    if (s->preview && s->plain) {
        put_u32(s->preview->data, 4); // PREVIEW_IMAGE_WITH_METADATA
        put_u32(s->preview->data + 4, meta.len);
        memcpy(s->preview->data + 8, meta.data, meta.len);
        memcpy(s->preview->data + 8 + meta.len, bytes, n);
        put_u32(s->plain->data, 1); // PREVIEW_IMAGE
        put_u32(s->plain->data + 4, png ? 2 : 1);
        memcpy(s->plain->data + 8, bytes, n);
        s->preview->droppable = s->plain->droppable = !png; // a result is not left out
    }
    at_str_free(&meta);
}

// Fitted into preview_size a side, as Pillow's "contain" does: small pictures grow.
static at_status fit(const at_story *s, const float *pixels, int64_t *w, int64_t *h, float **out)
{
    at_status st = AT_OK;
    at_tensor *in = NULL, *small = NULL;
    double scale = (double)s->preview_size / (double)(*w > *h ? *w : *h);
    int64_t to_w = (int64_t)((double)*w * scale + 0.5), to_h = (int64_t)((double)*h * scale + 0.5);
    size_t bytes;

    if (to_w < 1) to_w = 1;
    if (to_h < 1) to_h = 1;
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, *h, *w, 3}, &in));
    memcpy(at_tensor_data(in), pixels, (size_t)(*w * *h * 3) * sizeof *pixels);
    AT_TRY(at_resize(in, AT_ORDER_NHWC, to_w, to_h, scale > 1 ? AT_RESIZE_BILINEAR : AT_RESIZE_AREA,
                     false, &small));
    bytes = (size_t)(to_w * to_h * 3) * sizeof *pixels;
    *out = at_alloc(bytes);
    if (!*out) AT_TRY(at_fail(AT_ENOMEM, "preview: no memory"));
    memcpy(*out, at_tensor_data(small), bytes);
    *w = to_w;
    *h = to_h;
out:
    at_tensor_release(&in);
    at_tensor_release(&small);
    return st;
}

// RGB8 pixels as a JPEG (a preview) or a PNG (a result) that waits for the node's next progress.
static void keep_picture(at_story *s, const at_event *e)
{
    at_status st = AT_OK;
    int64_t w = (int64_t)e->value, h = (int64_t)e->max, count = w * h * 3;
    const uint8_t *rgb = e->data;
    uint8_t *bytes = NULL;
    float *pixels = NULL, *fitted = NULL;
    size_t n = 0;
    bool png = e->text != NULL;

    if (w < 1 || h < 1 || (size_t)count != e->bytes) return;
    pixels = at_alloc((size_t)count * sizeof *pixels);
    if (!pixels) AT_TRY(at_fail(AT_ENOMEM, "preview: no memory"));
    for (int64_t i = 0; i < count; i++)
        pixels[i] = ((float)rgb[i] + 0.5f) / 255.0f; // the encoders cut down to bytes
    if (png) {
        AT_TRY(at_png_encode(pixels, w, h, 3, 1, NULL, 0, &bytes, &n));
    } else {
        AT_TRY(fit(s, pixels, &w, &h, &fitted));
        AT_TRY(at_jpeg_encode(fitted, w, h, 3, 95, &bytes, &n));
    }
    frame_picture(s, e->node, png, bytes, n);
out:
    if (st != AT_OK) at_log(AT_WARN, "PREVIEW", "%s", at_error_text());
    at_free(bytes);
    at_free(fitted);
    at_free(pixels);
}

static void send_picture(at_story *s)
{
    if (s->preview && s->plain) {
        at_hub_post_picture(s->hub, s->user, s->client, s->preview, s->plain);
    } else {
        at_message_release(s->preview);
        at_message_release(s->plain);
    }
    s->preview = s->plain = NULL;
}

// --- events ------------------------------------------------------------------------------------------
static json_t *about(const at_story *s, const at_event *e)
{
    return json_pack("{s:s, s:s, s:s}", "node", e->node, "display_node", display_of(e), "prompt_id",
                     s->job);
}

static void on_node(at_story *s, const at_event *e)
{
    json_t *data;

    switch (e->kind) {
    case AT_EV_EXECUTING:
        at_free(s->node);
        at_free(s->class_type);
        s->node = at_strdup(e->node);
        s->class_type = e->class_type ? at_strdup(e->class_type) : NULL;
        set_progress(s, e, json_real(0), json_real(1), "running");
        at_hub_set_current(s->hub, s->lane, s->user, s->client, e->node);
        tell_client(s, "executing", about(s, e));
        break;
    case AT_EV_PREVIEW: keep_picture(s, e); break;
    case AT_EV_PROGRESS:
        set_progress(s, e, whole_or_real(e->value), whole_or_real(e->max), "running");
        send_picture(s);
        at_hub_post(s->hub, s->user, s->client, "progress",
                    json_pack("{s:o, s:o, s:s, s:s}", "value", whole_or_real(e->value), "max",
                              whole_or_real(e->max), "prompt_id", s->job, "node", e->node),
                    true);
        break;
    case AT_EV_EXECUTED:
        data = about(s, e);
        json_object_set_new(data, "output", parsed(e->text));
        tell_client(s, "executed", data);
        break;
    case AT_EV_FINISHED:
        send_picture(s);
        set_progress(s, e, NULL, NULL, "finished");
        break;
    default: break;
    }
}

static void on_error(at_story *s, const at_event *e)
{
    json_t *data = parsed(e->text);
    if (e->value == 1) { // ExecutionBlocked: the run goes on, the history does not hear of it
        tell_client(s, "execution_error", data);
        return;
    }
    s->failed = true;
    if (e->node && json_object_get(s->progress, e->node))
        json_object_set_new(json_object_get(s->progress, e->node), "state", json_string("error"));
    tell(s, "execution_error", data, false);
}

// ComfyUI has no such member: an array of methods, each once.
static void keep_approximate(at_story *s, const char *text)
{
    json_t *one;
    size_t i;

    if (!s->approximate) s->approximate = json_array();
    json_array_foreach(s->approximate, i, one)
    {
        if (strcmp(json_string_value(one), text) == 0) return;
    }
    json_array_append_new(s->approximate, json_string(text));
}

void at_story_hear(void *ctx, const at_event *e)
{
    at_story *s = ctx;
    json_t *data;

    switch (e->kind) {
    case AT_EV_START:
        tell(s, "execution_start", json_pack("{s:s}", "prompt_id", s->job), false);
        break;
    case AT_EV_CACHED:
        data = json_pack("{s:o, s:s}", "nodes", parsed(e->text), "prompt_id", s->job);
        tell(s, "execution_cached", data, false);
        break;
    case AT_EV_SUCCESS:
        tell(s, "execution_success", json_pack("{s:s}", "prompt_id", s->job), false);
        break;
    case AT_EV_ERROR: on_error(s, e); break;
    case AT_EV_INTERRUPTED:
        s->failed = true;
        tell(s, "execution_interrupted", parsed(e->text), true);
        break;
    case AT_EV_NOTE: break;
    case AT_EV_APPROXIMATE: keep_approximate(s, e->text); break;
    default:
        if (e->node) on_node(s, e);
        break;
    }
}

void at_story_fail(at_story *s, const char *type, const char *message)
{
    at_str text = {0};
    at_str_append(&text, message);
    at_str_append(&text, "\n");
    s->failed = true;
    if (s->node && json_object_get(s->progress, s->node))
        json_object_set_new(json_object_get(s->progress, s->node), "state", json_string("error"));
    tell(s, "execution_error",
         json_pack("{s:s, s:s, s:s, s:[], s:s, s:s, s:[], s:{}, s:[]}", "prompt_id", s->job,
                   "node_id", s->node ? s->node : "", "node_type",
                   s->class_type ? s->class_type : "", "executed", "exception_message",
                   at_str_text(&text), "exception_type", type, "traceback", "current_inputs",
                   "current_outputs"),
         false);
    at_str_free(&text);
}

json_t *at_story_status(const at_story *s, bool success)
{
    json_t *status = json_pack("{s:s, s:b, s:O}", "status_str", success ? "success" : "error",
                               "completed", (int)success, "messages", s->messages);

    if (s->approximate) json_object_set(status, "approximate", s->approximate);
    return status;
}

at_status at_story_begin(at_story *s, at_hub *hub, const char *job, const char *user,
                         const char *client, int preview_size)
{
    *s = (at_story){.hub = hub,
                    .user = user,
                    .job = job,
                    .client = client,
                    .preview_size = preview_size,
                    .progress = json_object(),
                    .messages = json_array()};
    if (s->progress && s->messages) return AT_OK;
    at_story_end(s);
    return at_fail(AT_ENOMEM, "job %s: no memory", job);
}

void at_story_end(at_story *s)
{
    json_decref(s->progress);
    json_decref(s->messages);
    json_decref(s->approximate);
    at_message_release(s->preview);
    at_message_release(s->plain);
    at_free(s->node);
    at_free(s->class_type);
    *s = (at_story){0};
}
