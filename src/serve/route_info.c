// SPDX-License-Identifier: Apache-2.0
// route_info.c - what the server is and what it can: stats, nodes, features, and the lists that are empty here.
// Source: comfyui-contract 1.1, 1.4, 1.5, 1.9. The version that clients compare is ComfyUI's whose contract this is.
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve/server.h"

#define CONTRACT_VERSION "0.3.64"

static json_t *device_json(at_server *s)
{
    at_device_state d;
    char type[32];

    at_runner_device(s->runner, &d);
    const char *colon = strchr(d.name, ':');
    snprintf(type, sizeof type, "%.*s", (int)strcspn(d.name, ":"), d.name);
    char *name = d.host ? at_strdup("cpu") : at_strprintf("%s %s", d.name, d.description);
    json_t *v =
        json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:I}", "name", name ? name : d.name, "type", type,
                  "index", colon ? json_integer(strtoll(colon + 1, NULL, 10)) : json_null(),
                  "vram_total", (json_int_t)d.total_bytes, "vram_free", (json_int_t)d.free_bytes,
                  "torch_vram_total", (json_int_t)(d.host ? d.total_bytes : d.held_bytes),
                  "torch_vram_free", (json_int_t)(d.host ? d.free_bytes : 0));
    at_free(name);
    return v;
}

static at_status system_stats(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    uint64_t ram_free = 0, ram = 0;
    at_device *cpu = at_device_cpu();
    json_t *argv = json_array();

    if (cpu->ops->memory(cpu, &ram_free, &ram) != AT_OK) ram_free = ram = 0;
    for (int i = 0; i < s->config->argc; i++)
        json_array_append_new(argv, json_string(s->config->argv[i]));
    json_t *system = json_pack(
        "{s:s, s:I, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:o}", "os", "posix", "ram_total",
        (json_int_t)ram, "ram_free", (json_int_t)ram_free, "comfyui_version", CONTRACT_VERSION,
        "required_frontend_version", "1.27.10", "installed_templates_version", "0.1.95",
        "required_templates_version", "0.1.95", "python_version", "none (atelier " AT_VERSION ")",
        "pytorch_version", "none (atelier " AT_VERSION ")", "embedded_python", 0, "argv", argv);
    return at_reply_json(rs, 200,
                         json_pack("{s:o, s:[o]}", "system", system, "devices", device_json(s)));
}

static at_status object_info(at_server *s, at_request *rq, at_response *rs)
{
    char *json = NULL;
    const char *class_type = rq->param[0];
    if (class_type && !at_registry_find(at_engine_registry(s->engine), class_type))
        return at_reply_json(rs, 200, json_object());
    at_engine_view view;
    at_status st = at_engine_view_open(s->engine, at_request_owner(s, rq), &view);
    if (st == AT_OK) st = at_engine_view_object_info(&view, class_type, &json);
    at_engine_view_close(&view);
    return st == AT_OK ? at_reply_json_text(rs, 200, json) : st;
}

static at_status features(at_server *s, at_request *rq, at_response *rs)
{
    (void)s, (void)rq;
    return at_reply_json(rs, 200, at_server_features());
}

// Scripts below the page's folder, as URL paths. The page of the house has none.
static at_status extensions(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    at_status st = AT_OK;
    at_list l = {0};
    json_t *all = json_array();
    char *dir = s->page_dir ? at_path_join(s->page_dir, "extensions") : NULL;

    if (dir && at_path_is_dir(dir)) AT_TRY(at_list_files(dir, true, 100000, &l));
    for (size_t i = 0; i < l.count; i++)
        if (at_ends_with(l.items[i], ".js"))
            json_array_append_new(all, json_sprintf("/extensions/%s", l.items[i]));
    st = at_reply_json(rs, 200, json_incref(all));
out:
    json_decref(all);
    at_list_free(&l);
    at_free(dir);
    return st;
}

static at_status nothing(at_server *s, at_request *rq, at_response *rs)
{
    (void)s, (void)rq;
    return at_reply_json(rs, 200, json_object());
}

static void add_name(void *ctx, const char *name)
{
    json_array_append_new(ctx, json_string(name));
}
static void add_stem(void *ctx, const char *name)
{
    json_array_append_new(ctx, json_stringn(name, (size_t)(at_path_ext(name) - name)));
}

static at_status reply_list(at_server *s, at_response *rs, const char *kind,
                            void (*add)(void *ctx, const char *name))
{
    json_t *all = json_array();
    at_status st = at_paths_list(at_engine_paths(s->engine), kind, add, all);
    if (st == AT_OK) st = at_reply_json(rs, 200, json_incref(all));
    json_decref(all);
    return st;
}

static at_status embeddings(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    return reply_list(s, rs, "embeddings", add_stem);
}

static at_status model_kinds(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    json_t *all = json_array();
    const char *kind;
    for (size_t i = 0; (kind = at_paths_kind(at_engine_paths(s->engine), i)); i++)
        json_array_append_new(all, json_string(kind));
    return at_reply_json(rs, 200, all);
}

static at_status model_files(at_server *s, at_request *rq, at_response *rs)
{
    if (!at_paths_known(at_engine_paths(s->engine), rq->param[0])) return at_reply_status(rs, 404);
    return reply_list(s, rs, rq->param[0], add_name);
}

const at_route at_routes_info[] = {
    {AT_HTTP_GET, "/system_stats", system_stats, false},
    {AT_HTTP_GET, "/object_info", object_info, true},
    {AT_HTTP_GET, "/object_info/{}", object_info, true},
    {AT_HTTP_GET, "/features", features, false},
    {AT_HTTP_GET, "/extensions", extensions, true},
    {AT_HTTP_GET, "/i18n", nothing, false},
    {AT_HTTP_GET, "/embeddings", embeddings, true},
    {AT_HTTP_GET, "/models", model_kinds, false},
    {AT_HTTP_GET, "/models/{}", model_files, true},
    {0},
};
