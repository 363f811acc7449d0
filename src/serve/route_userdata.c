// SPDX-License-Identifier: Apache-2.0
// route_userdata.c - a user's own files: workflows, templates, key bindings.
// Easy to get wrong: libwebsockets has decoded %2F already, so the file's name takes the rest of the path.
// Source: comfyui-contract 1.8; ComfyUI 0.3.64, behaviour of app/user_manager.py.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve/users.h"

static double seconds(struct timespec t)
{
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static json_t *file_info(const char *path, const char *shown)
{
    struct stat i = {0};
    if (stat(path, &i) != 0) return json_null();
    return json_pack("{s:s, s:I, s:f, s:f}", "path", shown, "size", (json_int_t)i.st_size,
                     "modified", seconds(i.st_mtim), "created", seconds(i.st_ctim));
}

static bool hidden(const char *name)
{
    return *name == '.' || strstr(name, "/.") != NULL;
}

// "a/b.json" as ["a/b.json", "a", "b.json"].
static json_t *split_name(const char *name)
{
    json_t *all = json_pack("[s]", name);
    for (size_t n; *name; name += n + (name[n] == '/')) {
        n = strcspn(name, "/");
        json_array_append_new(all, json_stringn(name, n));
    }
    return all;
}

static at_status list(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    const char *dir = at_request_query(rq, "dir");
    char *path = NULL;
    at_list l = {0};
    json_t *all = json_array();

    if (!dir || !*dir) {
        st = at_reply_text(rs, 400, "Directory not provided");
        goto out;
    }
    int status = at_user_path(s, rq, dir, &path);
    if (status == 401)
        st = at_reply_status(rs, 401);
    else if (status)
        st = at_reply_text(rs, 403, "Invalid directory");
    else if (!at_path_is_dir(path))
        st = at_reply_text(rs, 404, "Directory not found");
    if (rs->status) goto out;
    AT_TRY(at_list_files(path, at_request_flag(rq, "recurse"), 100000, &l));
    for (size_t i = 0; i < l.count; i++) {
        if (hidden(l.items[i])) continue;
        char *full = at_path_join(path, l.items[i]);
        json_array_append_new(all, at_request_flag(rq, "full_info") && full
                                       ? file_info(full, l.items[i])
                                   : at_request_flag(rq, "split") ? split_name(l.items[i])
                                                                  : json_string(l.items[i]));
        at_free(full);
    }
    st = at_reply_json(rs, 200, json_incref(all));
out:
    json_decref(all);
    at_list_free(&l);
    at_free(path);
    return st;
}

// --- /v2/userdata ------------------------------------------------------------------------------------
enum { MAX_DEPTH = 32 };

// Everything below dir; shown paths begin with `prefix` ("" or "a/").
static void walk(const char *dir, const char *prefix, int depth, json_t *all)
{
    DIR *d = depth < MAX_DEPTH ? opendir(dir) : NULL;
    struct stat i;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *path = at_path_join(dir, e->d_name), *shown = at_strprintf("%s%s", prefix, e->d_name);
        if (path && shown && stat(path, &i) == 0 && S_ISDIR(i.st_mode)) {
            json_array_append_new(all, json_pack("{s:s, s:s, s:s}", "name", e->d_name, "path",
                                                 shown, "type", "directory"));
            char *below = at_strprintf("%s/", shown);
            if (below) walk(path, below, depth + 1, all);
            at_free(below);
        } else if (path && shown && S_ISREG(i.st_mode)) {
            json_array_append_new(all,
                                  json_pack("{s:s, s:s, s:s, s:I, s:f}", "name", e->d_name, "path",
                                            shown, "type", "file", "size", (json_int_t)i.st_size,
                                            "modified", seconds(i.st_mtim)));
        }
        at_free(path);
        at_free(shown);
    }
    if (d) closedir(d);
}

static int folders_first(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    bool dx = !json_object_get(x, "size"), dy = !json_object_get(y, "size");
    if (dx != dy) return dx ? -1 : 1;
    return strcasecmp(json_string_value(json_object_get(x, "name")),
                      json_string_value(json_object_get(y, "name")));
}

static at_status sorted(json_t *all, json_t **out)
{
    size_t n = json_array_size(all);
    json_t **rows = at_calloc(n + 1, sizeof *rows);
    if (!rows) return at_fail(AT_ENOMEM, "userdata: no memory");
    for (size_t i = 0; i < n; i++)
        rows[i] = json_array_get(all, i);
    qsort(rows, n, sizeof *rows, folders_first);
    *out = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append(*out, rows[i]);
    at_free(rows);
    return AT_OK;
}

static at_status list_v2(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    const char *given = at_request_query(rq, "path");
    char *path = NULL, *prefix = NULL;
    json_t *all = json_array(), *order = NULL;
    int status = at_user_path(s, rq, given && *given ? given : NULL, &path);

    if (status == 401)
        st = at_reply_text(rs, 403, "Invalid user specified in request");
    else if (status)
        st = at_reply_text(rs, 400, "Invalid path requested");
    else if (given && *given && !at_path_exists(path))
        st = at_reply_text(rs, 404, "Requested path not found");
    else if (at_path_exists(path) && !at_path_is_dir(path))
        st = at_reply_text(rs, 400, "Requested path is not a directory");
    if (rs->status) goto out;
    prefix = given && *given ? at_strprintf("%s/", given) : at_strdup("");
    if (prefix) walk(path, prefix, 0, all);
    AT_TRY(sorted(all, &order));
    st = at_reply_json(rs, 200, order);
out:
    json_decref(all);
    at_free(path);
    at_free(prefix);
    return st;
}

// --- single files ------------------------------------------------------------------------------------
static at_status get_file(at_server *s, at_request *rq, at_response *rs)
{
    char *path = NULL;
    int status = at_user_path(s, rq, rq->param[0], &path);
    at_status st =
        status ? at_reply_status(rs, status) : at_reply_file(rq, rs, path, at_mime_type(path));
    at_free(path);
    return st;
}

// What a write or a move answers: the name, or all about the file.
static at_status told(const at_request *rq, at_response *rs, const char *path, const char *name)
{
    return at_reply_json(
        rs, 200, at_request_flag(rq, "full_info") ? file_info(path, name) : json_string(name));
}

static bool may_overwrite(const at_request *rq)
{
    const char *v = at_request_query(rq, "overwrite");
    return !v || strcmp(v, "false") != 0;
}

static at_status make_parent(const char *path)
{
    char *dir = at_path_dir(path);
    at_status st = dir ? at_make_dirs(dir) : at_fail(AT_ENOMEM, "%s: no memory", path);
    at_free(dir);
    return st;
}

static at_status put_file(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    char *path = NULL;
    at_atomic_file *f = NULL;
    int status = at_user_path(s, rq, rq->param[0], &path);

    if (status) {
        st = at_reply_status(rs, status);
    } else if (!may_overwrite(rq) && at_path_exists(path)) {
        st = at_reply_text(rs, 409, "File already exists");
    } else {
        AT_TRY(make_parent(path));
        AT_TRY(at_atomic_open(path, &f));
        AT_TRY(at_atomic_write(f, rq->body ? rq->body : "", rq->bytes));
        AT_TRY(at_atomic_commit(&f));
        st = told(rq, rs, path, rq->param[0]);
    }
out:
    at_atomic_abort(&f);
    at_free(path);
    return st;
}

static at_status delete_file(at_server *s, at_request *rq, at_response *rs)
{
    char *path = NULL;
    int status = at_user_path(s, rq, rq->param[0], &path);
    if (!status && unlink(path) != 0) status = errno == ENOENT || errno == ENOTDIR ? 404 : 500;
    at_free(path);
    return at_reply_status(rs, status ? status : 204);
}

static at_status move_file(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    char *from = NULL, *to = NULL;
    int status = at_user_path(s, rq, rq->param[0], &from);

    if (!status && !at_path_exists(from)) status = 404;
    if (!status) status = at_user_path(s, rq, rq->param[1], &to);
    if (status) {
        st = at_reply_status(rs, status);
    } else if (!may_overwrite(rq) && at_path_exists(to)) {
        st = at_reply_text(rs, 409, "File already exists");
    } else {
        AT_TRY(make_parent(to));
        if (rename(from, to) != 0)
            AT_TRY(at_fail(AT_EIO, "%s cannot be moved to %s: %s", from, to, strerror(errno)));
        st = told(rq, rs, to, rq->param[1]);
    }
out:
    at_free(from);
    at_free(to);
    return st;
}

const at_route at_routes_userdata[] = {
    {AT_HTTP_GET, "/userdata", list, true},
    {AT_HTTP_GET, "/v2/userdata", list_v2, true},
    {AT_HTTP_POST, "/userdata/{*}/move/{*}", move_file, true},
    {AT_HTTP_GET, "/userdata/{*}", get_file, true},
    {AT_HTTP_POST, "/userdata/{*}", put_file, true},
    {AT_HTTP_DELETE, "/userdata/{*}", delete_file, true},
    {0},
};
