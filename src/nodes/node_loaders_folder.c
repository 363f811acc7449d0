// SPDX-License-Identifier: Apache-2.0
// node_loaders_folder.c - the older loaders: CheckpointLoader (with a config file),
// unCLIPCheckpointLoader, ImageOnlyCheckpointLoader, DiffusersLoader (a folder with a file for each part).
// Source: ComfyUI 0.3.64 nodes.py, comfy/sd.py (load_checkpoint), comfy/diffusers_load.py.
// Easy to get wrong: of a config two values count, where a v-prediction is said and which layer of the
// text encoder is read; all else is detected from the file as usual.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "nodes/loaders.h"
#include "nodes/look.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

static const at_out checkpoint_out[] = {AT_OUT("MODEL"), AT_OUT("CLIP"), AT_OUT("VAE"),
                                        AT_OUT("CLIP_VISION")};

// --- a config file -----------------------------------------------------------------------------
enum { MAX_DEPTH = 16, MAX_CONFIG = 1 << 20 };

typedef struct level {
    size_t indent, len;
    const char *key;
} level;

// The levels' keys joined by dots are `path`.
static bool is_path(const level *levels, int n, const char *path)
{
    for (int i = 0; i < n; i++) {
        if (strncmp(path, levels[i].key, levels[i].len) != 0) return false;
        path += levels[i].len;
        if (*path != (i + 1 < n ? '.' : '\0')) return false;
        path += i + 1 < n;
    }
    return n > 0;
}

// The value of "key: value" at a path of nested keys in block YAML, without quotes or comment; true if
// it is there. These files hold nothing but nested mappings on the way to what is asked.
static bool config_value(const char *text, const char *path, char *out, size_t size)
{
    level levels[MAX_DEPTH];
    int n = 0;
    for (const char *line = text, *next; *line; line = next) {
        size_t len = strcspn(line, "\n");
        next = line + len + (line[len] == '\n');
        size_t indent = strspn(line, " ");
        if (indent >= len || line[indent] == '#' || line[indent] == '-') continue;
        size_t colon = indent + strcspn(line + indent, ":\n");
        if (colon >= len) continue;
        while (n > 0 && levels[n - 1].indent >= indent)
            n--;
        if (n == MAX_DEPTH) return false;
        levels[n++] = (level){indent, colon - indent, line + indent};
        if (!is_path(levels, n, path)) continue;
        const char *v = line + colon + 1;
        v += strspn(v, " \t\"'");
        size_t value = strcspn(v, " \t\r\n\"'#");
        if (value >= size) return false;
        memcpy(out, v, value);
        out[value] = '\0';
        return true;
    }
    return false;
}

static at_status read_config(at_env *e, const char *name, char **text)
{
    at_status st = AT_OK;
    char *path = NULL;
    size_t n = 0;

    AT_TRY(e->find_file(e, "configs", name, &path));
    AT_TRY(at_file_read(path, MAX_CONFIG, text, &n));
out:
    at_free(path);
    return st;
}

// --- CheckpointLoader --------------------------------------------------------------------------
typedef struct config_in {
    const char *config_name, *ckpt_name;
} config_in;
static const at_in config_rows[] = {
    AT_ROW(config_in, config_name, AT_IN_COMBO, .list = "configs", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(config_in, ckpt_name, AT_IN_COMBO, .list = "checkpoints", .flags = AT_INF_NO_OPTIONS),
};

static at_status predict_v(at_value *slot)
{
    at_status st = AT_OK;
    const at_obj_model *m = (const at_obj_model *)slot->o;
    at_model_sampling ms = *at_model_get_sampling(m->model);
    at_model *with = NULL;
    at_object *o;

    ms.prediction = AT_PRED_V;
    ms.kind = AT_SIGMA_DISCRETE;
    AT_TRY(at_model_with_sampling(m->model, &ms, &with));
    o = at_obj_model_with(m, with);
    if (!o) AT_TRY(at_fail(AT_ENOMEM, "CheckpointLoader: no memory"));
    at_object_release(slot->o);
    slot->o = o;
out:
    return st;
}

// A layer counted from the front is one counted from the end.
static at_status stop_at(at_value *slot, int layer)
{
    at_object *o = at_obj_clip_copy((const at_obj_clip *)slot->o);
    at_obj_clip *clip = (at_obj_clip *)o;
    if (!o) return at_fail(AT_ENOMEM, "CheckpointLoader: no memory");
    for (int i = 0; layer >= 0 && i < AT_TE_COUNT; i++)
        if (clip->enc[i].encoder) layer -= (int)at_encoder_layers(clip->enc[i].encoder);
    clip->last_layer = layer;
    at_object_release(slot->o);
    slot->o = o;
    return AT_OK;
}

static at_status config_run(at_node_ctx *c, const void *in, at_value *out)
{
    const config_in *i = in;
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    char *text = NULL, value[64];

    AT_TRY(at_load_checkpoint(e, i->ckpt_name, out));
    AT_TRY(read_config(e, i->config_name, &text));
    if (config_value(text, "model.params.parameterization", value, sizeof value) &&
        strcmp(value, "v") == 0)
        AT_TRY(predict_v(&out[0]));
    if (config_value(text, "model.params.cond_stage_config.params.layer_idx", value,
                     sizeof value) &&
        out[1].kind == AT_VAL_OBJECT)
        AT_TRY(stop_at(&out[1], atoi(value)));
out:
    at_free(text);
    return st;
}
static const at_node node_config = {.class_type = "CheckpointLoader",
                                    .display = "Load Checkpoint With Config (DEPRECATED)",
                                    .category = "advanced/loaders",
                                    .python_module = "nodes",
                                    .flags = AT_NODE_DEPRECATED,
                                    .in = config_rows,
                                    .n_in = AT_COUNT(config_rows),
                                    .out = checkpoint_out,
                                    .n_out = 3,
                                    .in_size = sizeof(config_in),
                                    .run = config_run};

// --- unCLIPCheckpointLoader --------------------------------------------------------------------
typedef struct unclip_in {
    const char *ckpt_name;
} unclip_in;
static const at_in unclip_rows[] = {
    AT_ROW(unclip_in, ckpt_name, AT_IN_COMBO, .list = "checkpoints", .flags = AT_INF_NO_OPTIONS)};
// The fourth output is None where the checkpoint has no picture encoder.
static at_status unclip_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    const char *name = ((const unclip_in *)in)->ckpt_name;
    at_store *s = NULL;
    at_found found;
    at_vision *v = NULL;

    AT_TRY(at_load_checkpoint(e, name, out));
    AT_TRY(at_env_open(e, "checkpoints", name, NULL, &s)); // the same store again
    if (at_detect_part(s, AT_PART_VISION, NULL, &found)) {
        AT_TRY(at_vision_load(s, AT_PART_VISION, at_path_base(name), &v));
        AT_TRY(at_give(&out[3], at_obj_vision_new(v), "CLIP_VISION"));
    }
out:
    at_store_release(&s);
    return st;
}
static const at_node node_unclip = {.class_type = "unCLIPCheckpointLoader",
                                    .display = "unCLIPCheckpointLoader",
                                    .category = "loaders",
                                    .python_module = "nodes",
                                    .in = unclip_rows,
                                    .n_in = AT_COUNT(unclip_rows),
                                    .out = checkpoint_out,
                                    .n_out = 4,
                                    .in_size = sizeof(unclip_in),
                                    .run = unclip_run};

// --- ImageOnlyCheckpointLoader -----------------------------------------------------------------
static const at_out image_only_out[] = {AT_OUT("MODEL"), AT_OUT("CLIP_VISION"), AT_OUT("VAE")};
static at_status image_only_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_value all[4] = {0};
    at_status st = unclip_run(c, in, all);

    if (st == AT_OK) {
        out[0] = all[0];
        out[1] = all[3];
        out[2] = all[2];
        all[0] = all[2] = all[3] = (at_value){0};
    }
    for (int i = 0; i < 4; i++)
        at_value_clear(&all[i]);
    return st;
}
static const at_node node_image_only = {.class_type = "ImageOnlyCheckpointLoader",
                                        .display = "Image Only Checkpoint Loader (img2vid model)",
                                        .category = "loaders/video_models",
                                        .python_module = "comfy_extras.nodes_video_model",
                                        .in = unclip_rows,
                                        .n_in = AT_COUNT(unclip_rows),
                                        .out = image_only_out,
                                        .n_out = 3,
                                        .in_size = sizeof(unclip_in),
                                        .run = image_only_run};

// --- DiffusersLoader ---------------------------------------------------------------------------
typedef struct folder_in {
    const char *model_path;
} folder_in;
static const at_in folder_rows[] = {
    AT_ROW(folder_in, model_path, AT_IN_COMBO, .list = "diffusers", .flags = AT_INF_NO_OPTIONS)};

static const char *const network_files[] = {
    "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bin", NULL};
static const char *const encoder_files[] = {"model.fp16.safetensors", "model.safetensors",
                                            "pytorch_model.fp16.bin", "pytorch_model.bin", NULL};

// The first of the names that is in dir/part; *path NULL if none is.
static at_status first_file(const char *dir, const char *part, const char *const *names,
                            char **path)
{
    char *folder = at_path_join(dir, part), *p = NULL;
    *path = NULL;
    for (; folder && *names && !*path; names++) {
        p = at_path_join(folder, *names);
        if (!p) break;
        if (at_path_exists(p))
            *path = p;
        else
            at_free(p);
    }
    bool failed = !folder || (*names && !*path);
    at_free(folder);
    return failed ? at_fail(AT_ENOMEM, "%s: no memory", dir) : AT_OK;
}

static at_status need_file(const char *dir, const char *part, const char *const *names, char **path)
{
    at_status st = first_file(dir, part, names, path);
    if (st == AT_OK && !*path)
        st = at_fail(AT_ENOTFOUND, "%s: there is no %s/%s", dir, part, names[1]);
    return st;
}

static at_status folder_network(at_env *e, const char *dir, at_value *out)
{
    at_status st = AT_OK;
    char *path = NULL;
    at_store *s = NULL;
    at_model *m = NULL;

    AT_TRY(need_file(dir, "unet", network_files, &path));
    AT_TRY(e->open_store(e, path, &s));
    AT_TRY(at_model_load(s, at_path_base(dir), &m));
    AT_TRY(at_give(out, at_obj_model_new(m), "MODEL"));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}

static at_status folder_clip(at_node_ctx *c, const char *dir, at_value *out)
{
    at_status st = AT_OK;
    char *first = NULL, *second = NULL;

    AT_TRY(need_file(dir, "text_encoder", encoder_files, &first));
    AT_TRY(first_file(dir, "text_encoder_2", encoder_files, &second));
    AT_TRY(at_load_clip_paths(c, (const char *const[]){first, second}, second ? 2 : 1,
                              second ? "sdxl" : "stable_diffusion", out));
out:
    at_free(first);
    at_free(second);
    return st;
}

static at_status folder_vae(at_env *e, const char *dir, at_value *out)
{
    at_status st = AT_OK;
    char *path = NULL;
    at_store *s = NULL;
    at_vae *v = NULL;

    AT_TRY(need_file(dir, "vae", network_files, &path));
    AT_TRY(e->open_store(e, path, &s));
    AT_TRY(at_vae_load(s, at_path_base(dir), &v));
    AT_TRY(at_give(out, at_obj_vae_new(v), "VAE"));
out:
    at_free(path);
    at_store_release(&s);
    return st;
}

static at_status folder_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    char *dir = NULL;

    AT_TRY(e->find_file(e, "diffusers", ((const folder_in *)in)->model_path, &dir));
    AT_TRY(folder_network(e, dir, &out[0]));
    AT_TRY(folder_clip(c, dir, &out[1]));
    AT_TRY(folder_vae(e, dir, &out[2]));
out:
    at_free(dir);
    return st;
}
static const at_node node_folder = {.class_type = "DiffusersLoader",
                                    .display = "DiffusersLoader",
                                    .category = "advanced/loaders/deprecated",
                                    .python_module = "nodes",
                                    .in = folder_rows,
                                    .n_in = AT_COUNT(folder_rows),
                                    .out = checkpoint_out,
                                    .n_out = 3,
                                    .in_size = sizeof(folder_in),
                                    .run = folder_run};

const at_node *const at_nodes_loaders_folder[] = {&node_config, &node_unclip, &node_image_only,
                                                  &node_folder, NULL};
