// SPDX-License-Identifier: Apache-2.0
// route_files.c - /view: pictures and other files of the input, output and temp folders; and their lists.
// Easy to get wrong: nothing may be read outside the three folders, and nothing that a browser would run may be
// shown as such.
// Source: comfyui-contract 1.6 and 1.9; ComfyUI 0.3.64, behaviour of server.py and folder_paths.py.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <dirent.h>

#include "base/file.h"
#include "base/mem.h"
#include "image/image.h"
#include "serve/files.h"

char *at_server_folder(const at_server *s, const at_request *rq, const char *type)
{
    const at_env *e = at_engine_env(s->engine);
    const char *owner = at_request_owner(s, rq), *dir = NULL;
    if (strcmp(type, "output") == 0) dir = e->output_dir;
    if (strcmp(type, "input") == 0) dir = e->input_dir;
    if (strcmp(type, "temp") == 0) dir = e->temp_dir;
    return !dir ? NULL : owner ? at_path_join(dir, owner) : at_strdup(dir);
}

// "name.png [output]" names its folder itself.
const char *at_annotated_folder(char *name)
{
    static const char *const types[] = {"output", "input", "temp"};
    for (size_t i = 0; i < 3; i++) {
        char mark[16];
        snprintf(mark, sizeof mark, "[%s]", types[i]);
        if (at_ends_with(name, mark)) { // ComfyUI cuts one more byte: the blank
            size_t keep = strlen(name) - strlen(mark);
            name[keep ? keep - 1 : 0] = 0;
            return types[i];
        }
    }
    return NULL;
}

int at_find_file(const at_server *s, const at_request *rq, const char *given, const char *type,
                 const char *subfolder, char **path)
{
    char *name = at_strdup(given), *dir = NULL;
    const char *own = name ? at_annotated_folder(name) : NULL;
    char *root = at_server_folder(s, rq, own ? own : type ? type : "output");
    int status = 0;

    *path = NULL;
    if (!name || !*name || *name == '/' || strstr(name, "..") || !root)
        status = 400;
    else if (subfolder && *subfolder && at_path_join_safe(root, subfolder, &dir) != AT_OK)
        status = 403;
    else if (at_path_join_safe(dir ? dir : root, at_path_base(name), path) != AT_OK)
        status = 400;
    at_free(name);
    at_free(root);
    at_free(dir);
    return status;
}

// --- pictures in another form ------------------------------------------------------------------------
// Interleaved f32 of the first frame; channels 3, or 4 with its alpha (1 if it has none).
static float *interleave(const at_picture *p, int channels, bool black)
{
    int64_t n = p->width * p->height;
    float *out = at_alloc((size_t)(n * channels) * sizeof *out);
    for (int64_t i = 0; out && i < n; i++) {
        for (int c = 0; c < 3; c++) {
            float v = black ? 0 : p->rgb[3 * i + c];
            out[channels * i + c] = v + 0.25f / 255.0f; // the encoders cut down to bytes
        }
        if (channels == 4) out[4 * i + 3] = (p->alpha ? p->alpha[i] : 1) + 0.25f / 255.0f;
    }
    return out;
}

static void name_it(at_response *rs, const char *path)
{
    char *value = at_strprintf("filename=\"%s\"", at_path_base(path));
    if (value) at_response_header(rs, "Content-Disposition", value);
    at_free(value);
}

at_status at_reply_picture(at_response *rs, const char *path, const char *channel,
                           const char *format, int quality, int side)
{
    at_status st = AT_OK;
    at_picture p = {0};
    uint8_t *bytes = NULL;
    size_t n = 0;
    float *pixels = NULL;
    const char *type = "image/png";

    AT_TRY(at_picture_load(path, &p));
    AT_TRY(at_thumbnail_shrink(&p, side));
    bool only_alpha = strcmp(channel, "a") == 0 && strcmp(format, "png") == 0;
    bool alpha = only_alpha || (p.alpha && strcmp(channel, "rgb") != 0 && *format != 'j');
    pixels = interleave(&p, alpha ? 4 : 3, only_alpha);
    if (!pixels) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    if (*format == 'p') {
        AT_TRY(at_png_encode(pixels, p.width, p.height, alpha ? 4 : 3, 4, NULL, 0, &bytes, &n));
    } else if (*format == 'j') {
        type = "image/jpeg";
        AT_TRY(at_jpeg_encode(pixels, p.width, p.height, 3, quality < 1 ? 1 : quality, &bytes, &n));
    } else {
        type = "image/webp";
        at_frames f = {pixels, 1, p.width, p.height, alpha ? 4 : 3, 0};
        AT_TRY(at_webp_encode(&f, &(at_webp_how){.quality = quality, .method = 4}, &bytes, &n));
    }
    st = at_reply_bytes(rs, type, bytes, n);
    name_it(rs, path);
out:
    at_free(pixels);
    at_picture_free(&p);
    return st;
}

// "webp;90"
static at_status reply_preview(at_response *rs, const char *path, const char *preview,
                               const char *channel, int side)
{
    bool jpeg = strcspn(preview, ";") == 4 && strncmp(preview, "jpeg", 4) == 0;
    const char *last = strrchr(preview, ';');
    int quality = 90;
    last = last ? last + 1 : preview;
    if (*last && strspn(last, "0123456789") == strlen(last)) quality = atoi(last);
    if (quality > 100) quality = 100;
    if (strchr(channel, 'a')) jpeg = false;
    return at_reply_picture(rs, path, channel, jpeg ? "jpeg" : "webp", quality, side);
}

// What a page's own scripts could be is not shown, but given as a file.
static const char *safe_type(const char *name)
{
    static const char *const unsafe[] = {"text/html",
                                         "application/xhtml+xml",
                                         "text/javascript",
                                         "text/css",
                                         "application/javascript; charset=utf-8",
                                         "image/svg+xml"};
    const char *type = at_mime_type(name);
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++)
        if (strcmp(type, unsafe[i]) == 0) return "application/octet-stream";
    return type;
}

static at_status view(at_server *s, at_request *rq, at_response *rs)
{
    const char *name = at_request_query(rq, "filename");
    const char *preview = at_request_query(rq, "preview");
    const char *channel = at_request_query(rq, "channel");
    char *path = NULL;
    at_status st = AT_OK;

    if (!name) return at_reply_status(rs, 404);
    int status = at_find_file(s, rq, name, at_request_query(rq, "type"),
                              at_request_query(rq, "subfolder"), &path);
    struct stat info;
    if (!status && (stat(path, &info) != 0 || !S_ISREG(info.st_mode))) status = 404;
    if (status) {
        st = at_reply_status(rs, status);
    } else if (preview) {
        int side = at_thumbnail_side(at_request_query(rq, "side")); // ours
        if (!side || !at_thumbnail_known(rq, rs, &info, side))
            st = reply_preview(rs, path, preview, channel ? channel : "", side);
    } else if (channel && (strcmp(channel, "rgb") == 0 || strcmp(channel, "a") == 0)) {
        st = at_reply_picture(rs, path, channel, "png", 0, 0);
    } else {
        st = at_reply_file(rq, rs, path, safe_type(path));
        name_it(rs, path);
    }
    at_free(path);
    return st;
}

// --- /internal/files ---------------------------------------------------------------------------------
typedef struct dated {
    char *name;
    struct timespec at;
} dated;

static int newest_first(const void *a, const void *b)
{
    const dated *x = a, *y = b;
    if (x->at.tv_sec != y->at.tv_sec) return x->at.tv_sec < y->at.tv_sec ? 1 : -1;
    if (x->at.tv_nsec != y->at.tv_nsec) return x->at.tv_nsec < y->at.tv_nsec ? 1 : -1;
    return strcmp(x->name, y->name);
}

static at_status list(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    char *dir = at_server_folder(s, rq, rq->param[0]);
    at_list l = {0};
    dated *files = NULL;
    size_t n = 0;
    struct stat info;
    json_t *all = json_array();

    if (!dir) {
        st = at_reply_json(rs, 400, json_pack("{s:s}", "error", "Invalid directory type"));
        goto out;
    }
    if (at_path_is_dir(dir)) AT_TRY(at_list_files(dir, false, 100000, &l));
    files = at_calloc(l.count + 1, sizeof *files);
    if (!files) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", dir));
    for (size_t i = 0; i < l.count; i++) {
        char *path = l.items[i][0] == '.' ? NULL : at_path_join(dir, l.items[i]);
        if (path && stat(path, &info) == 0) files[n++] = (dated){l.items[i], info.st_mtim};
        at_free(path);
    }
    qsort(files, n, sizeof *files, newest_first);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, json_string(files[i].name));
    st = at_reply_json(rs, 200, json_incref(all));
out:
    json_decref(all);
    at_free(dir);
    at_free(files);
    at_list_free(&l);
    return st;
}

const at_route at_routes_files[] = {
    {AT_HTTP_GET, "/view", view, true},
    {AT_HTTP_GET, "/internal/files/{}", list, true},
    {0},
};
