// SPDX-License-Identifier: Apache-2.0
// route_models.c - models with their folders and sizes, and what a file's header says of itself.
// Source: comfyui-contract 1.1 (/view_metadata) and 1.9.
// Easy to get wrong: a header is hostile input: its length is checked against the file before it is read.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve/files.h"

enum { MAX_HEADER = 1 << 20 };

static json_t *dirs_json(at_server *s, const char *kind)
{
    const char *const *dirs = NULL;
    size_t n = at_paths_dirs(at_engine_paths(s->engine), kind, &dirs);
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, json_string(dirs[i]));
    return all;
}

static at_status folders(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    json_t *all = json_array();
    const char *kind;
    for (size_t i = 0; (kind = at_paths_kind(at_engine_paths(s->engine), i)); i++)
        if (strcmp(kind, "configs") != 0 && strcmp(kind, "custom_nodes") != 0)
            json_array_append_new(
                all, json_pack("{s:s, s:o}", "name", kind, "folders", dirs_json(s, kind)));
    return at_reply_json(rs, 200, all);
}

static at_status folder_paths(at_server *s, at_request *rq, at_response *rs)
{
    (void)rq;
    json_t *all = json_object();
    const char *kind;
    for (size_t i = 0; (kind = at_paths_kind(at_engine_paths(s->engine), i)); i++)
        json_object_set_new(all, kind, dirs_json(s, kind));
    return at_reply_json(rs, 200, all);
}

static bool is_model(const char *name)
{
    static const char *const extensions[] = {".ckpt", ".pt",          ".pt2", ".bin",
                                             ".pth",  ".safetensors", ".pkl", ".sft"};
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
        if (at_equal_nocase(at_path_ext(name), extensions[i])) return true;
    return false;
}

static double seconds(struct timespec t)
{
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static at_status list_dir(const char *dir, size_t index, json_t *all)
{
    at_status st = AT_OK;
    at_list l = {0};
    struct stat info;

    if (!at_path_is_dir(dir)) return AT_OK;
    AT_TRY(at_list_files(dir, true, 100000, &l));
    for (size_t i = 0; i < l.count; i++) {
        char *path = is_model(l.items[i]) ? at_path_join(dir, l.items[i]) : NULL;
        if (path && stat(path, &info) == 0)
            json_array_append_new(
                all, json_pack("{s:s, s:I, s:f, s:f, s:I}", "name", l.items[i], "pathIndex",
                               (json_int_t)index, "modified", seconds(info.st_mtim), "created",
                               seconds(info.st_ctim), "size", (json_int_t)info.st_size));
        at_free(path);
    }
out:
    at_list_free(&l);
    return st;
}

static at_status files(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    const char *const *dirs = NULL;
    json_t *all = json_array();

    if (!at_paths_known(at_engine_paths(s->engine), rq->param[0])) {
        st = at_reply_status(rs, 404);
        goto out;
    }
    size_t n = at_paths_dirs(at_engine_paths(s->engine), rq->param[0], &dirs);
    for (size_t i = 0; i < n; i++)
        AT_TRY(list_dir(dirs[i], i, all));
    st = at_reply_json(rs, 200, json_incref(all));
out:
    json_decref(all);
    return st;
}

// The header of a safetensors file as text; NULL if it is none, or too long.
static char *read_header(const char *path, size_t *n)
{
    unsigned char length[8];
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && read(fd, length, 8) == 8) {
        uint64_t bytes = 0;
        for (int i = 7; i >= 0; i--)
            bytes = bytes << 8 | length[i];
        if (bytes > 0 && bytes <= MAX_HEADER) text = at_alloc((size_t)bytes);
        *n = (size_t)bytes;
        if (text && read(fd, text, *n) != (ssize_t)*n) {
            at_free(text);
            text = NULL;
        }
    }
    if (fd >= 0) close(fd);
    return text;
}

// The picture that lies beside a model, as people put it there: NAME.png or NAME.preview.png; NULL if there is none.
static char *picture_beside(const char *dir, const char *name)
{
    static const char *const ends[] = {".png",          ".jpg",         ".jpeg",
                                       ".webp",         ".preview.png", ".preview.jpg",
                                       ".preview.jpeg", ".preview.webp"};
    char *path = NULL, *found = NULL;

    if (at_path_join_safe(dir, name, &path) != AT_OK) return NULL;
    int stem = (int)(at_path_ext(path) - path);
    for (size_t i = 0; i < sizeof ends / sizeof *ends && !found; i++) {
        found = at_strprintf("%.*s%s", stem, path, ends[i]);
        if (found && at_path_exists(found)) break;
        at_free(found);
        found = NULL;
    }
    at_free(path);
    return found;
}

static at_status preview(at_server *s, at_request *rq, at_response *rs)
{
    const char *const *dirs = NULL;
    char *end = NULL, *path = NULL;
    size_t n = at_paths_known(at_engine_paths(s->engine), rq->param[0])
                   ? at_paths_dirs(at_engine_paths(s->engine), rq->param[0], &dirs)
                   : 0;
    unsigned long index = strtoul(rq->param[1], &end, 10);

    if (!*end && index < n) path = picture_beside(dirs[index], rq->param[2]);
    if (!path || at_reply_picture(rs, path, "", "webp", 80, 0) != AT_OK) {
        at_response_free(rs);
        *rs = (at_response){0};
        (void)at_reply_status(rs, 404); // none, or none that can be read
    }
    at_free(path);
    return AT_OK;
}

static at_status view_metadata(at_server *s, at_request *rq, at_response *rs)
{
    const char *name = at_request_query(rq, "filename");
    char *path = NULL, *text = NULL;
    json_t *header = NULL;
    size_t n = 0;

    at_reply_status(rs, 404);
    if (name && at_ends_with(name, ".safetensors") &&
        at_paths_find(at_engine_paths(s->engine), rq->param[0], name, &path) == AT_OK)
        text = read_header(path, &n);
    if (text && at_json_load(name, text, n, &header) == AT_OK) {
        json_t *meta = json_object_get(header, "__metadata__");
        if (meta) (void)at_reply_json(rs, 200, json_incref(meta));
    }
    json_decref(header);
    at_free(text);
    at_free(path);
    return AT_OK;
}

const at_route at_routes_models[] = {
    {AT_HTTP_GET, "/experiment/models", folders, false},
    {AT_HTTP_GET, "/experiment/models/{}", files, true},
    {AT_HTTP_GET, "/experiment/models/preview/{}/{}/{*}", preview, true},
    {AT_HTTP_GET, "/internal/folder_paths", folder_paths, false},
    {AT_HTTP_GET, "/view_metadata/{}", view_metadata, true},
    {0},
};
