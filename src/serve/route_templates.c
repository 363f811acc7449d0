// SPDX-License-Identifier: Apache-2.0
// route_templates.c - workflows to begin with: the frontend's package of templates, and the examples of custom nodes.
// Idea: /templates/X is a file of a folder: --workflow-templates, else BASE/workflow_templates (what the package
// comfyui-workflow-templates has in its folder "templates"), else what --front-end-root has. An example lies in
// BASE/custom_nodes/NAME/example_workflows (or one of the other names that ComfyUI knows): it can be looked at here,
// also where its nodes are not known.
// Source: ComfyUI 0.3.64, behaviour of server.py and app/custom_node_manager.py.
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve/server.h"

static const char *const example_folders[] = {"example_workflows", "example", "examples",
                                              "workflow", "workflows"};
enum { FOLDERS = sizeof example_folders / sizeof *example_folders, MOST = 10000 };

static const char *base_of(const at_server *s)
{
    return s->config->engine.base_dir ? s->config->engine.base_dir : ".";
}

// The file `name` below dir, or 404; takes dir.
static at_status serve_below(const at_request *rq, at_response *rs, char *dir, const char *name)
{
    char *path = NULL;
    at_status st = dir && at_path_join_safe(dir, name, &path) == AT_OK
                       ? at_reply_file(rq, rs, path, at_mime_type(path))
                       : at_reply_status(rs, 404);
    if (st == AT_OK && rs->status == 404) st = at_reply_text(rs, 404, "404: Not Found");
    at_free(path);
    at_free(dir);
    return st;
}

static char *templates_dir(const at_server *s)
{
    if (s->config->templates_dir) return at_strdup(s->config->templates_dir);
    char *dir = at_path_join(base_of(s), "workflow_templates");
    if ((dir && at_path_is_dir(dir)) || !s->page_dir) return dir;
    at_free(dir);
    return at_path_join(s->page_dir, "templates");
}

// The frontend always asks for the list: where there is no package it is empty.
static at_status template_file(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = serve_below(rq, rs, templates_dir(s), rq->param[0]);
    if (st != AT_OK || rs->status != 404 || !at_starts_with(rq->param[0], "index")) return st;
    at_response_free(rs);
    return at_reply_json(rs, 200, json_array());
}

// BASE/custom_nodes/NAME/FOLDER (at_free).
static char *examples_dir(const at_server *s, const char *name, const char *folder)
{
    char *all = at_path_join(base_of(s), "custom_nodes"), *one = NULL, *dir = NULL;
    if (all && at_path_join_safe(all, name, &one) == AT_OK) dir = at_path_join(one, folder);
    at_free(all);
    at_free(one);
    return dir;
}

// The names of a pack's examples, without ".json".
static at_status add_examples(const at_server *s, const char *name, json_t *all)
{
    at_status st = AT_OK;
    json_t *names = json_array();

    for (int f = 0; st == AT_OK && f < FOLDERS; f++) {
        at_list l = {0};
        char *dir = examples_dir(s, name, example_folders[f]);
        if (dir && at_path_is_dir(dir)) st = at_list_files(dir, false, MOST, &l);
        for (size_t i = 0; st == AT_OK && i < l.count; i++) {
            size_t n = strlen(l.items[i]);
            if (n > 5 && at_ends_with(l.items[i], ".json"))
                json_array_append_new(names, json_stringn(l.items[i], n - 5));
        }
        at_list_free(&l);
        at_free(dir);
    }
    if (json_array_size(names)) json_object_set(all, name, names);
    json_decref(names);
    return st;
}

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static at_status example_list(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    json_t *all = json_object();
    struct dirent **packs = NULL;
    char *dir = at_path_join(base_of(s), "custom_nodes");
    int n = dir ? scandir(dir, &packs, visible, alphasort) : -1;

    (void)rq;
    for (int i = 0; i < n; i++) {
        if (st == AT_OK) st = add_examples(s, packs[i]->d_name, all);
        free(packs[i]); // scandir's, not ours
    }
    free(packs);
    at_free(dir);
    if (st != AT_OK) {
        json_decref(all);
        return st;
    }
    return at_reply_json(rs, 200, all);
}

static at_status example_file(at_server *s, at_request *rq, at_response *rs)
{
    for (int f = 0; f < FOLDERS; f++) {
        at_status st =
            serve_below(rq, rs, examples_dir(s, rq->param[0], example_folders[f]), rq->param[1]);
        if (st != AT_OK || rs->status != 404) return st;
        at_response_free(rs);
    }
    return at_reply_text(rs, 404, "404: Not Found");
}

const at_route at_routes_templates[] = {
    {AT_HTTP_GET, "/templates/{*}", template_file, true},
    {AT_HTTP_GET, "/workflow_templates", example_list, true},
    {AT_HTTP_GET, "/workflow_templates/{}/{*}", example_file, true},
    {0},
};
