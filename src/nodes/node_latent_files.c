// SPDX-License-Identifier: Apache-2.0
// node_latent_files.c - SaveLatent, LoadLatent: latents as files.
// Idea: a ".latent" is a safetensors file of two tensors: latent_tensor, and an empty one whose
// name says which version of the format this is; the workflow lies in its metadata.
// Easy to get wrong: files without the version are older ones, whose numbers were scaled for Stable
// Diffusion 1; a mask or batch indices of the latent are not saved.
// Source: ComfyUI 0.3.64, behaviour of nodes.py.
#include "nodes/annotated.h"
#include "nodes/latent.h"
#include "nodes/nodes.h"
#include "nodes/saving.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "weight/store.h"

#define VERSION       "latent_format_version_0"
#define TENSOR        "latent_tensor"
#define OLDER_SCALE   (1.0 / 0.18215)
#define TESTING_NODES "_for_testing"

// --- SaveLatent --------------------------------------------------------------------------------
typedef struct save_in {
    at_object *samples;
    const char *filename_prefix, *prompt, *extra_pnginfo;
} save_in;
static const at_in save_rows[] = {
    AT_ROW_LINK_BARE(save_in, samples, "LATENT"),
    AT_ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "latents/ComfyUI"),
    AT_ROW_HIDDEN(save_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(save_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

static at_status save_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)out;
    at_status st = AT_OK;
    const save_in *i = in;
    const at_tensor *t = at_samples(i->samples);
    at_saver s = {0};
    at_st_pair meta[AT_SAVER_TEXTS + 1];
    at_st_out rows[] = {
        {.name = VERSION, .dtype = AT_F32, .rank = 1},
        {.name = TENSOR, .dtype = AT_F32, .rank = t->rank, .data = at_tensor_data(t)},
    };
    char *name = NULL, *path = NULL;

    memcpy(rows[1].shape, t->shape, sizeof rows[1].shape);
    AT_TRY(at_saver_open(&s, c, "SaveLatent", false, i->filename_prefix, 0, 0, i->prompt,
                         i->extra_pnginfo));
    AT_TRY(at_saver_name(&s, 0, ".latent", &name, &path));
    AT_TRY(at_st_write(path, rows, AT_COUNT(rows), meta, at_saver_metadata(&s, c, meta)));
    AT_TRY(at_saver_add(&s, name));
    AT_TRY(at_saver_show_as(&s, c, "latents"));
out:
    at_free(name);
    at_free(path);
    at_saver_close(&s);
    return at_fail_context(st, "SaveLatent: ");
}
static const at_node node_save = {.class_type = "SaveLatent",
                                  .category = TESTING_NODES,
                                  .python_module = "nodes",
                                  .flags = AT_NODE_OUTPUT,
                                  .in = save_rows,
                                  .n_in = AT_COUNT(save_rows),
                                  .in_size = sizeof(save_in),
                                  .run = save_run};

// --- LoadLatent --------------------------------------------------------------------------------
typedef struct load_in {
    const char *latent;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, latent, AT_IN_COMBO, .list = "input_latents", .flags = AT_INF_NO_OPTIONS)};

static at_status load_validate(at_node_ctx *c, const void *in)
{
    return at_annotated_check(at_env_of(c), ((const load_in *)in)->latent, "latent");
}

static at_status load_fingerprint(at_node_ctx *c, const void *in, char **out)
{
    return at_annotated_hash(at_env_of(c), ((const load_in *)in)->latent, out);
}

static at_status check_tensor(const char *path, const at_weight *w)
{
    if (!w)
        return at_fail(AT_EFORMAT, "%s: no tensor \"" TENSOR "\" in it: is this a latent?", path);
    if (!at_dtype_is_float(w->dtype))
        return at_fail(AT_EFORMAT, "%s: " TENSOR " is of %s, expected floating point numbers", path,
                       at_dtype_name(w->dtype));
    if (w->rank != 4)
        return at_fail(AT_EUNSUPPORTED,
                       "%s: " TENSOR " has %d dimensions; only latents of pictures (4) are built",
                       path, w->rank);
    return at_weight_ready(w);
}

static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    char *path = NULL;
    at_store *s = NULL;
    at_tensor *t = NULL;

    AT_TRY(at_annotated_path(at_env_of(c), ((const load_in *)in)->latent, &path));
    AT_TRY(at_store_open(path, &s));
    const at_weight *w = at_store_find(s, TENSOR);
    AT_TRY(check_tensor(path, w));
    AT_TRY(at_latent_alloc("LoadLatent", w->shape, &t));
    float *p = at_tensor_data(t);
    at_weight_read_f32(w, 0, at_weight_elements(w), p);
    if (!at_store_find(s, VERSION))
        for (int64_t i = 0; i < at_tensor_count(t); i++)
            p[i] *= (float)OLDER_SCALE;
    st = at_give(&out[0], at_obj_latent_new(t), "LoadLatent");
    t = NULL;
out:
    at_tensor_release(&t);
    at_store_release(&s);
    at_free(path);
    return at_fail_context(st, "LoadLatent: ");
}
static const at_node node_load = {.class_type = "LoadLatent",
                                  .category = TESTING_NODES,
                                  .python_module = "nodes",
                                  .in = load_rows,
                                  .n_in = AT_COUNT(load_rows),
                                  .out = at_latent_out,
                                  .n_out = 1,
                                  .in_size = sizeof(load_in),
                                  .run = load_run,
                                  .validate = load_validate,
                                  .fingerprint = load_fingerprint,
                                  .validates = "latent"};

const at_node *const at_nodes_latent_files[] = {&node_save, &node_load, NULL};
