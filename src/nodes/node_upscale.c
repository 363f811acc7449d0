// SPDX-License-Identifier: Apache-2.0
// node_upscale.c - UpscaleModelLoader and ImageUpscaleWithModel, and the UPSCALE_MODEL between them.
// Easy to get wrong: ComfyUI runs these networks in f32 whatever the others run in, in tiles of 512 pixels that
// reach 32 into the next, and halves the tiles while memory is short, down to 128.
// Source: ComfyUI 0.3.64, behaviour of comfy_extras/nodes_upscale_model.py.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "models/upscaler.h"

#define MODULE "comfy_extras.nodes_upscale_model"

// --- the object --------------------------------------------------------------------------------------
typedef struct obj_upscaler {
    at_object base;
    at_upscaler *upscaler;
} obj_upscaler;

static void upscaler_free(at_object *self)
{
    obj_upscaler *u = (obj_upscaler *)self;
    at_upscaler_release(&u->upscaler);
    at_free(u);
}
static const at_object_type upscaler_type = {"UPSCALE_MODEL", upscaler_free};

// --- UpscaleModelLoader ------------------------------------------------------------------------------
typedef struct load_in {
    const char *model_name;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, model_name, AT_IN_COMBO, .list = "upscale_models")};
static const at_out load_out[] = {AT_OUT("UPSCALE_MODEL")};

static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const load_in *i = in;
    at_store *s = NULL;
    obj_upscaler *u = at_calloc(1, sizeof *u);

    if (!u) AT_TRY(at_fail(AT_ENOMEM, "UpscaleModelLoader: no memory"));
    AT_TRY(at_env_open(at_env_of(c), "upscale_models", i->model_name, NULL, &s));
    AT_TRY(at_upscaler_load(s, at_path_base(i->model_name), &u->upscaler));
    atomic_init(&u->base.refs, 1);
    u->base.type = &upscaler_type;
    out[0] = at_value_object(&u->base);
    u = NULL;
out:
    at_free(u);
    at_store_release(&s);
    return st;
}
static const at_node node_load =
    AT_PIXEL_NODE("UpscaleModelLoader", "Load Upscale Model", "loaders", MODULE, AT_NODE_V3,
                  load_rows, load_in, load_out, load_run);

// --- ImageUpscaleWithModel ---------------------------------------------------------------------------
enum { TILE = 512, LEAST_TILE = 128, OVERLAP = 32 };

typedef struct upscale_in {
    at_object *upscale_model, *image;
} upscale_in;
static const at_in upscale_rows[] = {AT_ROW_LINK(upscale_in, upscale_model, "UPSCALE_MODEL"),
                                     AT_ROW_LINK(upscale_in, image, "IMAGE")};

static void tell(void *ctx, int64_t done, int64_t all)
{
    at_node_progress(ctx, (double)done, (double)all);
}

static at_status upscale_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const upscale_in *i = in;
    const at_upscaler *u = ((const obj_upscaler *)i->upscale_model)->upscaler;
    at_upscale_how how = {.tile = TILE, .overlap = OVERLAP, .step = tell, .ctx = c};
    at_pixels x;
    at_ops *o = NULL;
    at_tensor *t = NULL;

    AT_TRY(at_pixels_of("ImageUpscaleWithModel", i->image, &x));
    AT_TRY(at_env_ops_in(c, AT_F32, &o));
    for (; !t; how.tile /= 2) {
        t = at_ops_keep(o, at_upscale(o, u, x.t, &how));
        st = at_ops_status(o);
        if (st == AT_OK) break;
        if (st != AT_ENOMEM || how.tile / 2 < LEAST_TILE)
            AT_TRY(at_fail_context(st, "ImageUpscaleWithModel: "));
        at_ops_clear(o);
        at_log(AT_WARN, "UPSCALE-TILES", "out of memory, taking tiles of %d pixels", how.tile / 2);
    }
    st = at_give_image("ImageUpscaleWithModel", t, out);
out:
    at_ops_free(o);
    return st;
}
static const at_node node_upscale =
    AT_PIXEL_NODE("ImageUpscaleWithModel", "Upscale Image (using Model)", "image/upscaling", MODULE,
                  AT_NODE_V3, upscale_rows, upscale_in, at_image_out, upscale_run);

const at_node *const at_nodes_upscale[] = {&node_load, &node_upscale, NULL};
