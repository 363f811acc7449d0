// SPDX-License-Identifier: Apache-2.0
// node_image.c - LoadImage, SaveImage, PreviewImage.
// Source: comfyui-contract section 3.7 for names, counters and metadata.
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"
#include "image/image.h"

// --- LoadImage ---------------------------------------------------------------------------------------
typedef struct load_in {
    const char *image;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, image, AT_IN_COMBO, .list = "input", .flags = AT_INF_IMAGE_UPLOAD)};
static const at_out load_out[] = {AT_OUT("IMAGE"), AT_OUT("MASK")};

// "name [output]" reads from the output folder, "[temp]" from the temporary one; otherwise the input folder.
static at_status annotated_path(const at_env *e, const char *name, char **path)
{
    static const char *const marks[] = {" [input]", " [output]", " [temp]"};
    const char *const dirs[] = {e->input_dir, e->output_dir, e->temp_dir};
    const char *dir = e->input_dir;
    char *plain = at_strdup(name);
    if (!plain) return at_fail(AT_ENOMEM, "LoadImage: no memory");
    for (size_t i = 0; i < AT_COUNT(marks); i++)
        if (at_ends_with(plain, marks[i])) {
            plain[strlen(plain) - strlen(marks[i])] = 0;
            dir = dirs[i];
            break;
        }
    at_status st = at_path_join_safe(dir, plain, path);
    at_free(plain);
    return st;
}

static at_status load_validate(at_node_ctx *c, const void *in)
{
    const char *name = ((const load_in *)in)->image;
    if (!name) return AT_OK; // linked
    char *path = NULL;
    at_status st = annotated_path(at_env_of(c), name, &path);
    if (st == AT_OK && !at_path_exists(path)) st = AT_EINVAL;
    at_free(path);
    if (st == AT_OK || st == AT_ENOMEM) return st;
    return at_fail(AT_EINVAL, "Invalid image file: %s", name);
}

static at_status load_fingerprint(at_node_ctx *c, const void *in, char **out)
{
    const char *name = ((const load_in *)in)->image;
    char *path = NULL;
    at_map map = {0};
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    at_status st = annotated_path(at_env_of(c), name ? name : "", &path);
    if (st == AT_OK) st = at_map_open(path, &map);
    at_free(path);
    if (st != AT_OK) return st;
    EVP_Digest(map.data ? (const void *)map.data : "", map.size, digest, &n, EVP_sha256(), NULL);
    at_map_close(&map);
    *out = at_alloc(2 * (size_t)n + 1);
    if (!*out) return at_fail(AT_ENOMEM, "LoadImage: no memory");
    for (unsigned int i = 0; i < n; i++)
        snprintf(*out + 2 * i, 3, "%02x", digest[i]);
    return AT_OK;
}

// The mask is what is transparent; a picture without alpha gives ComfyUI's 64 x 64 zeros.
static at_status picture_mask(const at_picture *p, at_tensor **out)
{
    int64_t shape[3] = {1, p->alpha ? p->height : 64, p->alpha ? p->width : 64};
    at_status st = at_tensor_new(at_device_cpu(), AT_F32, 3, shape, out);
    if (st != AT_OK) return st;
    float *m = at_tensor_data(*out);
    for (int64_t i = 0; i < shape[1] * shape[2]; i++)
        m[i] = p->alpha ? 1.0f - p->alpha[i] : 0.0f;
    return AT_OK;
}

static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    char *path = NULL;
    at_picture p = {0};
    at_tensor *pixels = NULL, *mask = NULL;

    AT_TRY(annotated_path(at_env_of(c), ((const load_in *)in)->image, &path));
    AT_TRY(at_png_load(path, &p));
    AT_TRY(
        at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){1, p.height, p.width, 3}, &pixels));
    memcpy(at_tensor_data(pixels), p.rgb, at_tensor_bytes(pixels));
    AT_TRY(picture_mask(&p, &mask));
    AT_TRY(at_give(&out[0], at_obj_image_new(pixels), "LoadImage"));
    pixels = NULL;
    AT_TRY(at_give(&out[1], at_obj_mask_new(mask), "LoadImage"));
    mask = NULL;
out:
    at_tensor_release(&pixels);
    at_tensor_release(&mask);
    at_picture_free(&p);
    at_free(path);
    return st;
}
static const at_node node_load = {.class_type = "LoadImage",
                                  .display = "Load Image",
                                  .category = "image",
                                  .python_module = "nodes",
                                  .in = load_rows,
                                  .n_in = AT_COUNT(load_rows),
                                  .out = load_out,
                                  .n_out = 2,
                                  .in_size = sizeof(load_in),
                                  .run = load_run,
                                  .validate = load_validate,
                                  .fingerprint = load_fingerprint};

// --- SaveImage, PreviewImage -------------------------------------------------------------------------
typedef struct save_in {
    at_object *images;
    const char *filename_prefix;
    const char *prompt, *extra_pnginfo;
} save_in;
static const at_in save_rows[] = {
    AT_ROW_LINK(save_in, images, "IMAGE"),
    AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "ComfyUI"),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};
static const at_in preview_rows[] = {
    AT_ROW_LINK_BARE(save_in, images, "IMAGE"),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

#define MAX_TEXT 32
// The PNG's text chunks: `prompt`, then one per key of extra_pnginfo (normally `workflow`).
typedef struct texts {
    at_text_chunk chunk[MAX_TEXT];
    size_t count;
    json_t *extra;
} texts;

static at_status texts_add(texts *t, const char *key, char *text)
{
    if (!text) return at_fail(AT_ENOMEM, "SaveImage: no memory for the metadata");
    t->chunk[t->count++] = (at_text_chunk){key, text};
    return AT_OK;
}

static at_status texts_make(const save_in *in, texts *t)
{
    at_status st = AT_OK;
    const char *key;
    json_t *value;
    if (in->prompt) AT_TRY(texts_add(t, "prompt", at_strdup(in->prompt)));
    if (in->extra_pnginfo)
        AT_TRY(
            at_json_load("extra_pnginfo", in->extra_pnginfo, strlen(in->extra_pnginfo), &t->extra));
    json_object_foreach(t->extra, key, value)
    {
        if (t->count == MAX_TEXT) break;
        AT_TRY(texts_add(t, key, at_json_dump(value, 0)));
    }
out:
    return st;
}
static void texts_free(texts *t)
{
    for (size_t i = 0; i < t->count; i++)
        at_free((void *)t->chunk[i].value);
    json_decref(t->extra);
}

static at_status ui_add(json_t *images, const char *file, const char *subfolder, const char *type)
{
    json_t *row =
        json_pack("{s:s, s:s, s:s}", "filename", file, "subfolder", subfolder, "type", type);
    if (!row || json_array_append_new(images, row) != 0)
        return at_fail(AT_ENOMEM, "SaveImage: no memory");
    return AT_OK;
}

// "%batch_num%" in a file name becomes the picture's index in its batch. The caller frees; NULL: no memory.
static char *file_name(const char *prefix, int64_t index, int counter)
{
    static const char mark[] = "%batch_num%";
    at_str s = {0};
    for (const char *at; (at = strstr(prefix, mark)); prefix = at + strlen(mark)) {
        at_str_append_n(&s, prefix, (size_t)(at - prefix));
        at_str_printf(&s, "%lld", (long long)index);
    }
    at_str_printf(&s, "%s_%05d_.png", prefix, counter);
    return at_str_take(&s);
}

// Picture `index` of the batch, and its row for the UI.
static at_status save_one(const save_in *in, const at_save_path *where, int64_t index, int level,
                          const char *type, const texts *text, json_t *images)
{
    at_status st = AT_OK;
    const at_tensor *t = ((const at_obj_image *)in->images)->pixels;
    int64_t h = t->shape[1], w = t->shape[2], channels = t->shape[3];
    char *name = file_name(where->filename, index, where->counter + (int)index);
    char *path = name ? at_path_join(where->folder, name) : NULL;

    if (!path) AT_TRY(at_fail(AT_ENOMEM, "SaveImage: no memory"));
    AT_TRY(at_png_save(path, (const float *)at_tensor_data(t) + index * h * w * channels, w, h,
                       (int)channels, level, text->chunk, text->count));
    AT_TRY(ui_add(images, name, where->subfolder, type));
out:
    at_free(name);
    at_free(path);
    return st;
}

static at_status save_batch(at_node_ctx *c, const save_in *in, const char *dir, const char *type,
                            const char *prefix, int level)
{
    at_status st = AT_OK;
    const at_tensor *t = ((const at_obj_image *)in->images)->pixels;
    at_save_path where = {0};
    texts text = {0};
    json_t *images = json_array(), *ui = NULL;
    char *ui_text = NULL;

    if (!images) AT_TRY(at_fail(AT_ENOMEM, "SaveImage: no memory"));
    AT_TRY(at_save_path_next(dir, prefix, t->shape[2], t->shape[1], &where));
    if (!at_env_of(c)->disable_metadata) AT_TRY(texts_make(in, &text));
    for (int64_t i = 0; i < t->shape[0]; i++)
        AT_TRY(save_one(in, &where, i, level, type, &text, images));
    ui = json_pack("{s:O}", "images", images);
    ui_text = ui ? at_json_dump(ui, 0) : NULL;
    if (!ui_text) AT_TRY(at_fail(AT_ENOMEM, "SaveImage: no memory"));
    AT_TRY(at_node_ui(c, ui_text));
out:
    at_free(ui_text);
    json_decref(ui);
    json_decref(images);
    texts_free(&text);
    at_save_path_free(&where);
    return st;
}

static at_status save_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    const save_in *i = in;
    return save_batch(c, i, at_env_of(c)->output_dir, "output", i->filename_prefix, 4);
}
static const at_node node_save = {.class_type = "SaveImage",
                                  .display = "Save Image",
                                  .category = "image",
                                  .description =
                                      "Saves the input images to your ComfyUI output directory.",
                                  .python_module = "nodes",
                                  .flags = AT_NODE_OUTPUT,
                                  .in = save_rows,
                                  .n_in = AT_COUNT(save_rows),
                                  .in_size = sizeof(save_in),
                                  .run = save_run};

// A preview's prefix carries five random letters, so that two sessions do not overwrite each other.
static at_status preview_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    char prefix[] = "ComfyUI_temp_xxxxx";
    unsigned char random[5];
    FILE *f = fopen("/dev/urandom", "rb");
    if (!f || fread(random, 1, sizeof random, f) != sizeof random) memset(random, 7, sizeof random);
    if (f) fclose(f);
    for (size_t i = 0; i < sizeof random; i++)
        prefix[13 + i] = (char)('a' + random[i] % 26);
    return save_batch(c, in, at_env_of(c)->temp_dir, "temp", prefix, 1);
}
static const at_node node_preview = {.class_type = "PreviewImage",
                                     .display = "Preview Image",
                                     .category = "image",
                                     .description =
                                         "Saves the input images to your ComfyUI output directory.",
                                     .python_module = "nodes",
                                     .flags = AT_NODE_OUTPUT,
                                     .in = preview_rows,
                                     .n_in = AT_COUNT(preview_rows),
                                     .in_size = sizeof(save_in),
                                     .run = preview_run};

const at_node *const at_nodes_image[] = {&node_load, &node_save, &node_preview, NULL};
