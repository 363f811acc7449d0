// SPDX-License-Identifier: Apache-2.0
// node_loaders_vae.c - VAELoader: a file of models/vae, or a tiny autoencoder by its name.
// Source: ComfyUI 0.3.64 nodes.py, VAELoader.
#include <string.h>

#include "nodes/loaders.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "nodes/tiny_vae.h"

typedef struct vae_in {
    const char *vae_name;
} vae_in;
static const at_in vae_rows[] = {
    AT_ROW(vae_in, vae_name, AT_IN_COMBO, .list = "vae", .flags = AT_INF_NO_OPTIONS)};
static const at_out vae_out[] = {AT_OUT("VAE")};

// --- the node ----------------------------------------------------------------------------------
static at_status open_vae(at_env *e, const char *name, at_store **out)
{
    if (strcmp(name, "pixel_space") == 0)
        return at_fail(AT_EUNSUPPORTED,
                       "pixel_space: models that work on pixels are not built yet");
    if (at_tiny_vae_known(name)) return at_tiny_vae_open(e, name, out);
    return at_env_open(e, "vae", name, NULL, out);
}

at_status at_load_vae(at_env *e, const char *name, at_value *out)
{
    at_status st = AT_OK;
    at_store *s = NULL;
    at_vae *v = NULL;

    AT_TRY(open_vae(e, name, &s));
    AT_TRY(at_vae_load(s, name, &v));
    AT_TRY(at_give(out, at_obj_vae_new(v), "VAE"));
out:
    at_store_release(&s);
    return st;
}
static at_status vae_run(at_node_ctx *c, const void *in, at_value *out)
{
    return at_load_vae(at_env_of(c), ((const vae_in *)in)->vae_name, &out[0]);
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
