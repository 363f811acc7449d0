// SPDX-License-Identifier: Apache-2.0
// route_upload.c - /upload/image and /upload/mask.
// Idea: the name is made free first, then the bytes are written whole or not at all.
// Easy to get wrong: the same picture under the same name is not stored twice; the name is the client's and may try to
// climb out of its folder.
// Source: comfyui-contract 1.7; ComfyUI 0.3.64, behaviour of server.py.
#include <openssl/evp.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "image/image.h"
#include "image/resize.h"
#include "serve/files.h"
#include "serve/multipart.h"

typedef struct upload {
    at_form form;
    const at_form_part *image;
    char *type, *subfolder, *name; // what the answer says
    char *root, *dir, *path;
    bool duplicate;
} upload;

static void upload_free(upload *u)
{
    at_form_free(&u->form);
    at_free(u->type);
    at_free(u->subfolder);
    at_free(u->name);
    at_free(u->root);
    at_free(u->dir);
    at_free(u->path);
}

static bool hash(const char *method, const void *bytes, size_t n,
                 unsigned char out[EVP_MAX_MD_SIZE])
{
    const EVP_MD *md = EVP_get_digestbyname(method ? method : "sha256");
    return md && EVP_Digest(bytes, n, out, NULL, md, NULL) == 1;
}

static bool same_file(const char *method, const char *path, const at_form_part *p)
{
    unsigned char a[EVP_MAX_MD_SIZE] = {0}, b[EVP_MAX_MD_SIZE] = {0};
    at_map m = {0};
    if (at_map_open(path, &m) != AT_OK) return false;
    bool same = hash(method, m.data ? (const void *)m.data : "", m.size, a) &&
                hash(method, p->bytes, p->n, b) && memcmp(a, b, sizeof a) == 0;
    at_map_close(&m);
    return same;
}

// A name that nobody has: "a.png", "a (1).png", ... ; or the one that holds the same bytes.
static at_status free_name(const at_server *s, upload *u)
{
    char *stem = at_strdup(u->image->filename);
    if (!stem) return at_fail(AT_ENOMEM, "upload: no memory");
    char *ext = stem + (at_path_ext(stem) - stem), *tail = at_strdup(ext);
    *ext = 0;
    at_status st = tail ? AT_OK : at_fail(AT_ENOMEM, "upload: no memory");
    for (int i = 1; st == AT_OK && at_path_exists(u->path); i++) {
        if (same_file(s->config->hash, u->path, u->image)) {
            u->duplicate = true;
            break;
        }
        at_free(u->name);
        at_free(u->path);
        u->path = NULL;
        u->name = at_strprintf("%s (%d)%s", stem, i, tail);
        st = u->name ? at_path_join_safe(u->dir, u->name, &u->path)
                     : at_fail(AT_ENOMEM, "upload: no memory");
    }
    at_free(stem);
    at_free(tail);
    return st;
}

// 0, or the status of the refusal.
static int place(at_server *s, at_request *rq, upload *u)
{
    if (at_form_parse(rq->header[AT_HEADER_CONTENT_TYPE], rq->body ? rq->body : "", rq->bytes,
                      &u->form) != AT_OK)
        return 400;
    u->image = at_form_find(&u->form, "image");
    u->type = at_form_text(&u->form, "type");
    u->subfolder = at_form_text(&u->form, "subfolder");
    char *overwrite = at_form_text(&u->form, "overwrite");
    bool over = overwrite && (strcmp(overwrite, "true") == 0 || strcmp(overwrite, "1") == 0);
    at_free(overwrite);
    if (!u->type) u->type = at_strdup("input");
    if (!u->subfolder) u->subfolder = at_strdup("");
    if (!u->type || !u->subfolder) return 503;
    char *root = u->root = at_server_folder(s, rq, u->type);
    if (!root || !u->image || !u->image->filename || !*u->image->filename) return 400;
    bool deep = *u->subfolder && strcmp(u->subfolder, ".") != 0;
    if (deep && at_path_join_safe(root, u->subfolder, &u->dir) != AT_OK) return 400;
    if (!u->dir) u->dir = at_strdup(root);
    u->name = at_strdup(u->image->filename);
    if (!u->dir || !u->name) return 503;
    if (at_path_join_safe(u->dir, u->name, &u->path) != AT_OK) return 400;
    if (at_make_dirs(u->dir) != AT_OK) return 500;
    if (!over && free_name(s, u) != AT_OK) return 500;
    return 0;
}

static at_status write_whole(const char *path, const void *bytes, size_t n)
{
    at_status st = AT_OK;
    at_atomic_file *f = NULL;
    AT_TRY(at_atomic_open(path, &f));
    AT_TRY(at_atomic_write(f, bytes, n));
    st = at_atomic_commit(&f);
out:
    at_atomic_abort(&f);
    return st;
}

static at_status done(upload *u, at_response *rs)
{
    return at_reply_json(
        rs, 200,
        json_pack("{s:s, s:s, s:s}", "name", u->name, "subfolder", u->subfolder, "type", u->type));
}

static at_status upload_image(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    upload u = {0};
    int status = place(s, rq, &u);

    if (status) {
        st = at_reply_status(rs, status);
        goto out;
    }
    if (!u.duplicate) AT_TRY(write_whole(u.path, u.image->bytes, u.image->n));
    st = done(&u, rs);
out:
    upload_free(&u);
    return st;
}

// --- the mask ----------------------------------------------------------------------------------------
// {"filename", "subfolder", "type"} of the picture that is masked: 0 and its path, or a status.
static int original(const at_server *s, const at_request *rq, const upload *u, char **path)
{
    char *text = at_form_text(&u->form, "original_ref");
    json_t *ref = NULL;
    int status = 500; // as ComfyUI: json.loads raises

    if (text && at_json_load("original_ref", text, strlen(text), &ref) == AT_OK) {
        const char *name = json_string_value(json_object_get(ref, "filename"));
        status = name ? at_find_file(s, rq, name, json_string_value(json_object_get(ref, "type")),
                                     json_string_value(json_object_get(ref, "subfolder")), path)
                      : 400;
    }
    json_decref(ref);
    at_free(text);
    return status;
}

// The picture's colours with the mask's alpha, under the mask's name; its texts stay.
static at_status write_masked(const char *path, const char *from, const at_form_part *mask)
{
    at_status st = AT_OK;
    at_picture p = {0}, m = {0};
    float *rgba = NULL;

    AT_TRY(at_picture_load(from, &p));
    AT_TRY(at_picture_decode("mask", mask->bytes, mask->n, &m));
    if (p.width != m.width || p.height != m.height)
        AT_TRY(at_fail(AT_EINVAL, "upload: the mask is %lldx%lld, the picture %lldx%lld",
                       (long long)m.width, (long long)m.height, (long long)p.width,
                       (long long)p.height));
    int64_t n = p.width * p.height;
    rgba = at_alloc((size_t)n * 4 * sizeof *rgba);
    if (!rgba) AT_TRY(at_fail(AT_ENOMEM, "upload: no memory"));
    for (int64_t i = 0; i < n; i++) {
        for (int c = 0; c < 3; c++)
            rgba[4 * i + c] = p.rgb[3 * i + c] + 0.25f / 255.0f; // the encoder cuts down to bytes
        rgba[4 * i + 3] = (m.alpha ? m.alpha[i] : 1) + 0.25f / 255.0f;
    }
    AT_TRY(at_png_save(path, rgba, p.width, p.height, 4, 4, p.text, p.text_count));
out:
    at_free(rgba);
    at_picture_free(&p);
    at_picture_free(&m);
    return st;
}

static at_status upload_mask(at_server *s, at_request *rq, at_response *rs)
{
    at_status st = AT_OK;
    upload u = {0};
    char *from = NULL;
    int status = place(s, rq, &u);

    if (!status && !u.duplicate) status = original(s, rq, &u, &from);
    if (status) {
        st = at_reply_status(rs, status);
        goto out;
    }
    if (from && at_path_exists(from)) AT_TRY(write_masked(u.path, from, u.image));
    st = done(&u, rs);
out:
    at_free(from);
    upload_free(&u);
    return st;
}

const at_route at_routes_upload[] = {
    {AT_HTTP_POST, "/upload/image", upload_image, true, AT_ROLE_NONE, true},
    {AT_HTTP_POST, "/upload/mask", upload_mask, true, AT_ROLE_NONE, true},
    {0},
};
