// SPDX-License-Identifier: Apache-2.0
// route_users.c - users and their settings.
// Idea: users.json and comfy.settings.json are ComfyUI's own files, so that a user folder moves between the two.
// Source: comfyui-contract 1.8; ComfyUI 0.3.64, behaviour of app/user_manager.py and app_settings.py.
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/users.h"

enum { MAX_SETTINGS = 16 << 20 };

// --- who it is ---------------------------------------------------------------------------------------
static json_t *read_object(const char *path)
{
    char *text = NULL;
    size_t n = 0;
    json_t *v = NULL;
    if (!at_path_exists(path)) return json_object();
    if (at_file_read(path, MAX_SETTINGS, &text, &n) != AT_OK ||
        at_json_load(path, text, n, &v) != AT_OK || !json_is_object(v)) {
        at_log(AT_WARN, "USER-FILE", "%s is not read: %s", path, at_error_text());
        json_decref(v);
        v = json_object();
    }
    at_free(text);
    return v;
}

static at_status write_object(const char *path, const json_t *v)
{
    at_status st = AT_OK;
    at_atomic_file *f = NULL;
    char *text = at_json_dump(v, 0), *dir = at_path_dir(path);

    if (!text || !dir) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    AT_TRY(at_make_dirs(dir));
    AT_TRY(at_atomic_open(path, &f));
    AT_TRY(at_atomic_write(f, text, strlen(text)));
    st = at_atomic_commit(&f);
out:
    at_atomic_abort(&f);
    at_free(text);
    at_free(dir);
    return st;
}

static json_t *known_users(const at_server *s)
{
    char *path = at_path_join(s->user_dir, "users.json");
    json_t *v = path ? read_object(path) : json_object();
    at_free(path);
    return v;
}

char *at_user_of(const at_server *s, const at_request *rq)
{
    const char *id = rq->user;
    if (!s->config->multi_user) return at_strdup("default");
    if (at_server_separates(s)) return at_strdup(id); // a token says so
    json_t *users = known_users(s);
    char *found = json_object_get(users, id) ? at_strdup(id) : NULL;
    json_decref(users);
    return found;
}

int at_user_path(const at_server *s, const at_request *rq, const char *name, char **path)
{
    char *id = at_user_of(s, rq), *root = NULL;
    int status = 0;

    *path = NULL;
    if (!id)
        status = 401;
    else if (at_path_join_safe(s->user_dir, id, &root) != AT_OK)
        status = 403;
    else if (name && at_path_join_safe(root, name, path) != AT_OK)
        status = 403;
    if (!status && !name) {
        *path = root;
        root = NULL;
    }
    at_free(id);
    at_free(root);
    return status;
}

// --- users -------------------------------------------------------------------------------------------
static at_status list_users(at_server *s, at_request *rq, at_response *rs)
{
    if (at_server_separates(s)) // who else there is, is nobody's business
        return at_reply_json(
            rs, 200, json_pack("{s:s, s:{s:s}}", "storage", "server", "users", rq->user, rq->user));
    if (s->config->multi_user)
        return at_reply_json(rs, 200,
                             json_pack("{s:s, s:o}", "storage", "server", "users", known_users(s)));
    char *dir = at_path_join(s->user_dir, "default");
    bool there = dir && at_path_is_dir(dir);
    at_free(dir);
    return at_reply_json(rs, 200,
                         json_pack("{s:s, s:b}", "storage", "server", "migrated", (int)there));
}

// Letters, digits, '-' and '_' stay; a run of anything else becomes '-'.
static char *user_id(const char *name)
{
    at_str id = {0};
    char uuid[37];
    bool gap = false;
    for (; *name; name++) {
        bool plain = (*name >= '0' && *name <= '9') || (*name >= 'A' && *name <= 'Z') ||
                     (*name >= 'a' && *name <= 'z') || *name == '-' || *name == '_';
        if (plain || !gap) at_str_append_n(&id, plain ? name : "-", 1);
        gap = !plain;
    }
    at_uuid(uuid, true);
    at_str_printf(&id, "_%s", uuid);
    return at_str_take(&id);
}

static at_status add_user(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    json_t *body = NULL, *users = known_users(s), *other;
    char *id = NULL, *path = at_path_join(s->user_dir, "users.json");
    const char *key;

    if (at_server_separates(s)) {
        st = at_reply_json(rs, 400,
                           json_pack("{s:s}", "error", "Users are made in the token file."));
        goto out;
    }
    AT_TRY(at_request_json(rq, &body));
    const char *name = json_string_value(json_object_get(body, "username"));
    if (!s->config->multi_user || !name || !name[strspn(name, " \t\r\n")] || strlen(name) > 200)
        AT_TRY(at_fail(AT_EINVAL, "username not provided"));
    json_object_foreach(users, key, other)
    {
        if (json_is_string(other) && strcmp(json_string_value(other), name) == 0) {
            st = at_reply_json(rs, 400, json_pack("{s:s}", "error", "Duplicate username."));
            goto out;
        }
    }
    id = user_id(name);
    if (!id || !path || json_object_set_new(users, id, json_string(name)))
        AT_TRY(at_fail(AT_ENOMEM, "users: no memory"));
    AT_TRY(write_object(path, users));
    st = at_reply_json(rs, 200, json_string(id));
out:
    json_decref(body);
    json_decref(users);
    at_free(id);
    at_free(path);
    return st;
}

// --- settings ----------------------------------------------------------------------------------------
// The settings of the request's user; NULL and a status if there is none.
static json_t *settings_of(const at_server *s, const at_request *rq, char **path, int *status)
{
    *status = at_user_path(s, rq, "comfy.settings.json", path);
    return *status ? NULL : read_object(*path);
}

static at_status get_settings(at_server *s, at_request *rq, at_response *rs)
{
    char *path = NULL;
    int status;
    json_t *all = settings_of(s, rq, &path, &status);
    at_free(path);
    if (!all) return at_reply_status(rs, status);
    if (!rq->param[0]) return at_reply_json(rs, 200, all);
    json_t *one = json_object_get(all, rq->param[0]);
    at_status st = at_reply_json(rs, 200, one ? json_incref(one) : json_null());
    json_decref(all);
    return st;
}

static at_status set_settings(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    char *path = NULL;
    int status;
    json_t *body = NULL, *all = settings_of(s, rq, &path, &status);

    if (!all) {
        st = at_reply_status(rs, status);
        goto out;
    }
    AT_TRY(at_request_json(rq, &body));
    if (rq->param[0])
        json_object_set(all, rq->param[0], body);
    else if (json_is_object(body))
        json_object_update(all, body);
    else
        AT_TRY(at_fail(AT_EINVAL, "settings: a JSON object is wanted"));
    AT_TRY(write_object(path, all));
    st = at_reply_status(rs, 200);
out:
    json_decref(body);
    json_decref(all);
    at_free(path);
    return st;
}

const at_route at_routes_users[] = {
    {AT_HTTP_GET, "/users", list_users, true},
    {AT_HTTP_POST, "/users", add_user, true, AT_ROLE_ADMIN},
    {AT_HTTP_GET, "/settings", get_settings, true},
    {AT_HTTP_GET, "/settings/{}", get_settings, true},
    {AT_HTTP_POST, "/settings", set_settings, true},
    {AT_HTTP_POST, "/settings/{}", set_settings, true},
    {0},
};
