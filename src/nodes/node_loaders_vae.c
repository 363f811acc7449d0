// SPDX-License-Identifier: Apache-2.0
// node_loaders_vae.c - VAELoader: a file of models/vae, or a tiny autoencoder by its name.
// Idea: a tiny autoencoder is two files among vae_approx; they become one store, as ComfyUI joins them.
// Source: ComfyUI 0.3.64 nodes.py, VAELoader.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"

typedef struct vae_in {
    const char *vae_name;
} vae_in;
static const at_in vae_rows[] = {
    AT_ROW(vae_in, vae_name, AT_IN_COMBO, .list = "vae", .flags = AT_INF_NO_OPTIONS)};
static const at_out vae_out[] = {AT_OUT("VAE")};

// --- tiny autoencoders -------------------------------------------------------------------------
static const struct {
    const char *name;
    float scale, shift;
} tiny_vaes[] = {{"taesd", 0.18215f, 0.0f},
                 {"taesdxl", 0.13025f, 0.0f},
                 {"taesd3", 1.5305f, 0.0609f},
                 {"taef1", 0.3611f, 0.1159f}};

static void copy_bytes(void *ctx, void *bytes, size_t n)
{
    memcpy(bytes, ctx, n);
}

// The file NAME_HALF.EXT among vae_approx. AT_ENOTFOUND of the last extension.
static at_status open_half(at_env *e, const char *name, const char *half, at_store **out)
{
    static const char *const extensions[] = {"sft", "pth", "pt", "bin", "ckpt", "safetensors"};
    char file[64];
    at_status st = AT_ENOTFOUND;
    for (size_t i = 0; i < AT_COUNT(extensions) && st == AT_ENOTFOUND; i++) {
        snprintf(file, sizeof file, "%s_%s.%s", name, half, extensions[i]);
        st = at_env_open(e, "vae_approx", file, NULL, out);
    }
    return st;
}

static at_status add_half(at_env *e, const char *name, const char *half, at_store *to)
{
    at_status st = AT_OK;
    at_store *from = NULL;
    char key[256];

    AT_TRY(open_half(e, name, half, &from));
    for (size_t i = 0; i < at_store_count(from); i++) {
        const at_weight *w = at_store_at(from, i);
        int n = snprintf(key, sizeof key, "taesd_%s.%s", half, w->name);
        if (n < 0 || (size_t)n >= sizeof key) continue;
        AT_TRY(at_weight_ready(w));
        AT_TRY(at_store_add(to, key, w->dtype, w->rank, w->shape, copy_bytes,
                            (void *)(uintptr_t)w->data));
    }
out:
    at_store_release(&from);
    return st;
}

static at_status add_number(at_store *to, const char *key, float v)
{
    return at_store_add(to, key, AT_F32, 0, NULL, copy_bytes, &v);
}

static at_status open_tiny(at_env *e, size_t which, at_store **out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    const char *name = tiny_vaes[which].name;

    AT_TRY(at_store_new(name, &s));
    AT_TRY(add_half(e, name, "encoder", s));
    AT_TRY(add_half(e, name, "decoder", s));
    AT_TRY(add_number(s, "vae_scale", tiny_vaes[which].scale));
    AT_TRY(add_number(s, "vae_shift", tiny_vaes[which].shift));
    *out = s;
    s = NULL;
out:
    at_store_release(&s);
    return st;
}

// --- the node ----------------------------------------------------------------------------------
static at_status open_vae(at_env *e, const char *name, at_store **out)
{
    if (strcmp(name, "pixel_space") == 0)
        return at_fail(AT_EUNSUPPORTED,
                       "pixel_space: models that work on pixels are not built yet");
    for (size_t i = 0; i < AT_COUNT(tiny_vaes); i++)
        if (strcmp(name, tiny_vaes[i].name) == 0) return open_tiny(e, i, out);
    return at_env_open(e, "vae", name, NULL, out);
}

static at_status vae_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const char *name = ((const vae_in *)in)->vae_name;
    at_store *s = NULL;
    at_vae *v = NULL;

    AT_TRY(open_vae(at_env_of(c), name, &s));
    AT_TRY(at_vae_load(s, name, &v));
    AT_TRY(at_give(&out[0], at_obj_vae_new(v), "VAE"));
out:
    at_store_release(&s);
    return st;
}
static const at_node node_vae = {.class_type = "VAELoader",
                                 .display = "Load VAE",
                                 .category = "loaders",
                                 .python_module = "nodes",
                                 .in = vae_rows,
                                 .n_in = AT_COUNT(vae_rows),
                                 .out = vae_out,
                                 .n_out = 1,
                                 .in_size = sizeof(vae_in),
                                 .run = vae_run};

const at_node *const at_nodes_loaders_vae[] = {&node_vae, NULL};
