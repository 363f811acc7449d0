// SPDX-License-Identifier: Apache-2.0
// node_model_patch.c - FreeU, FreeU_V2, HyperTile, TomePatchModel, HypernetworkLoader,
// TorchCompileModel.
// Idea: a node fills the patch's struct (models/patch_unet.h) and hangs it on the MODEL. Patches
// that draw random numbers or remember something go through a hook, whose block is new in every
// run.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_freelunch.py, nodes_hypertile.py, nodes_tomesd.py,
// nodes_hypernetwork.py, nodes_torch_compile.py (behaviour).
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "models/patch_unet.h"
#include "nodes/guide.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#define EXTRAS "comfy_extras."
static const at_out model_out[] = {AT_OUT("MODEL")};

// A copy of `size` bytes for a patch or hook to own.
static void *keep(const void *what, size_t size)
{
    void *p = at_alloc(size);
    if (p) memcpy(p, what, size);
    return p;
}

static at_status no_memory(const char *node)
{
    return at_fail(AT_ENOMEM, "%s: no memory for a model patch", node);
}

// --- FreeU --------------------------------------------------------------------------------------
typedef struct freeu_in {
    at_object *model;
    double b1, b2, s1, s2;
} freeu_in;
#define FREEU_ROWS(b1_, b2_)                                                                       \
    {                                                                                              \
        AT_ROW_LINK_BARE(freeu_in, model, "MODEL"),                                                \
            AT_ROW_FLOAT_STEP(freeu_in, b1, b1_, 0, 10, 0.01),                                     \
            AT_ROW_FLOAT_STEP(freeu_in, b2, b2_, 0, 10, 0.01),                                     \
            AT_ROW_FLOAT_STEP(freeu_in, s1, 0.9, 0, 10, 0.01),                                     \
            AT_ROW_FLOAT_STEP(freeu_in, s2, 0.2, 0, 10, 0.01)                                      \
    }
static const at_in freeu_rows[] = FREEU_ROWS(1.1, 1.2);
static const at_in freeu_v2_rows[] = FREEU_ROWS(1.3, 1.4);

static at_status freeu(const freeu_in *i, const char *node, bool v2, at_value *out)
{
    const at_obj_model *model = (const at_obj_model *)i->model;
    const at_weight *first = at_store_findf(
        at_model_store(model->model), "%sinput_blocks.0.0.weight", at_model_prefix(model->model));
    at_object *o = NULL;

    if (!first || first->rank != 4)
        return at_fail(AT_EINVAL,
                       "%s: %s is no UNet; FreeU changes UNets (Stable Diffusion 1, 2 and XL) only",
                       node, at_model_label(model->model));
    at_freeu f = {.channels = first->shape[0], .b = {i->b1, i->b2}, .s = {i->s1, i->s2}, .v2 = v2};
    void *self = keep(&f, sizeof f);
    if (!self) return no_memory(node);
    at_status st = at_obj_model_patch(model, &at_patch_freeu, self, &o);
    if (st == AT_OK) out[0] = at_value_object(o);
    return st;
}

static at_status freeu_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return freeu(in, "FreeU", false, out);
}
static at_status freeu_v2_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    return freeu(in, "FreeU_V2", true, out);
}
static const at_node node_freeu = {.class_type = "FreeU",
                                   .display = "FreeU",
                                   .category = "model_patches/unet",
                                   .python_module = EXTRAS "nodes_freelunch",
                                   .in = freeu_rows,
                                   .n_in = AT_COUNT(freeu_rows),
                                   .out = model_out,
                                   .n_out = 1,
                                   .in_size = sizeof(freeu_in),
                                   .run = freeu_run};
static const at_node node_freeu_v2 = {.class_type = "FreeU_V2",
                                      .display = "FreeU_V2",
                                      .category = "model_patches/unet",
                                      .python_module = EXTRAS "nodes_freelunch",
                                      .in = freeu_v2_rows,
                                      .n_in = AT_COUNT(freeu_v2_rows),
                                      .out = model_out,
                                      .n_out = 1,
                                      .in_size = sizeof(freeu_in),
                                      .run = freeu_v2_run};

// --- HyperTile ----------------------------------------------------------------------------------
typedef struct hypertile_in {
    at_object *model;
    int64_t tile_size, swap_size, max_depth;
    bool scale_depth;
} hypertile_in;
static const at_in hypertile_rows[] = {
    AT_ROW_LINK(hypertile_in, model, "MODEL"),
    AT_ROW_INT(hypertile_in, tile_size, 256, 1, 2048),
    AT_ROW_INT(hypertile_in, swap_size, 2, 1, 128),
    AT_ROW_INT(hypertile_in, max_depth, 0, 0, 10),
    AT_ROW(hypertile_in, scale_depth, AT_IN_BOOL, .def = 0),
};

// A run begins with the node's numbers and torch's generator behind the noise.
static at_status hypertile_begin(void *self, void *run, at_guide *g)
{
    at_hypertile *t = run;
    *t = *(const at_hypertile *)self;
    return at_guide_random(g, &t->random);
}
static const at_hook_ops hypertile_hook = {.name = "HyperTile",
                                           .run_size = sizeof(at_hypertile),
                                           .begin = hypertile_begin,
                                           .patch = &at_patch_hypertile};

static at_status give_hook(const at_object *model, const at_hook_ops *ops, void *self,
                           at_value *out)
{
    at_object *o = NULL;
    if (!self) return no_memory(ops->name);
    at_status st = at_obj_model_hook((const at_obj_model *)model, ops, self, &o);
    if (st == AT_OK) out[0] = at_value_object(o);
    return st;
}

static at_status hypertile_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const hypertile_in *i = in;
    if (i->swap_size < 1 || i->max_depth < 0)
        return at_fail(AT_EINVAL, "HyperTile: swap_size %lld and max_depth %lld; at least 1 and 0",
                       (long long)i->swap_size, (long long)i->max_depth);
    at_hypertile t = {.tile = (i->tile_size > 32 ? i->tile_size : 32) / 8,
                      .swap = i->swap_size,
                      .depth = i->max_depth < 32 ? i->max_depth : 32,
                      .scale_depth = i->scale_depth};
    return give_hook(i->model, &hypertile_hook, keep(&t, sizeof t), out);
}
static const at_node node_hypertile = {.class_type = "HyperTile",
                                       .category = "model_patches/unet",
                                       .python_module = EXTRAS "nodes_hypertile",
                                       .in = hypertile_rows,
                                       .n_in = AT_COUNT(hypertile_rows),
                                       .out = model_out,
                                       .n_out = 1,
                                       .flags = AT_NODE_V3,
                                       .in_size = sizeof(hypertile_in),
                                       .run = hypertile_run};

// --- TomePatchModel -----------------------------------------------------------------------------
typedef struct tome_in {
    at_object *model;
    double ratio;
} tome_in;
static const at_in tome_rows[] = {AT_ROW_LINK(tome_in, model, "MODEL"),
                                  AT_ROW_FLOAT_STEP(tome_in, ratio, 0.3, 0, 1, 0.01)};

static at_status tome_begin(void *self, void *run, at_guide *g)
{
    at_tome *t = run;
    t->ratio = ((const at_tome *)self)->ratio;
    return at_guide_random(g, &t->random);
}
static void tome_end(void *self, void *run)
{
    (void)self;
    at_tome_clear(run);
}
static const at_hook_ops tome_hook = {.name = "TomePatchModel",
                                      .run_size = sizeof(at_tome),
                                      .begin = tome_begin,
                                      .end = tome_end,
                                      .patch = &at_patch_tome};

static at_status tome_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const tome_in *i = in;
    // A number over a link has passed no range check.
    at_tome t = {.ratio = i->ratio < 0 ? 0 : i->ratio > 1 ? 1 : i->ratio};
    return give_hook(i->model, &tome_hook, keep(&t, sizeof t), out);
}
static const at_node node_tome = {.class_type = "TomePatchModel",
                                  .category = "model_patches/unet",
                                  .python_module = EXTRAS "nodes_tomesd",
                                  .in = tome_rows,
                                  .n_in = AT_COUNT(tome_rows),
                                  .out = model_out,
                                  .n_out = 1,
                                  .flags = AT_NODE_V3,
                                  .in_size = sizeof(tome_in),
                                  .run = tome_run};

// --- HypernetworkLoader -------------------------------------------------------------------------
typedef struct hypernet_in {
    at_object *model;
    const char *hypernetwork_name;
    double strength;
} hypernet_in;
static const at_in hypernet_rows[] = {
    AT_ROW_LINK_BARE(hypernet_in, model, "MODEL"),
    AT_ROW(hypernet_in, hypernetwork_name, AT_IN_COMBO, .list = "hypernetworks",
           .flags = AT_INF_NO_OPTIONS),
    AT_ROW_FLOAT_STEP(hypernet_in, strength, 1.0, -10, 10, 0.01),
};
static at_status hypernet_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const hypernet_in *i = in;
    at_env *e = at_env_of(c);
    char *path = NULL;
    at_store *s = NULL;
    void *self = NULL;
    at_object *o = NULL;

    AT_TRY(e->find_file(e, "hypernetworks", i->hypernetwork_name, &path));
    AT_TRY(e->open_store(e, path, &s));
    AT_TRY(at_hypernet_open(s, i->strength, &self));
    if (self)
        AT_TRY(at_obj_model_patch((const at_obj_model *)i->model, &at_patch_hypernet, self, &o));
    else
        o = at_object_retain(i->model);
    out[0] = at_value_object(o);
out:
    at_free(path);
    at_store_release(&s);
    return st;
}
static const at_node node_hypernet = {.class_type = "HypernetworkLoader",
                                      .display = "HypernetworkLoader",
                                      .category = "loaders",
                                      .python_module = EXTRAS "nodes_hypernetwork",
                                      .in = hypernet_rows,
                                      .n_in = AT_COUNT(hypernet_rows),
                                      .out = model_out,
                                      .n_out = 1,
                                      .in_size = sizeof(hypernet_in),
                                      .run = hypernet_run};

// --- TorchCompileModel --------------------------------------------------------------------------
typedef struct compile_in {
    at_object *model;
    const char *backend;
} compile_in;
static const char *const backends[] = {"inductor", "cudagraphs", NULL};
static const at_in compile_rows[] = {
    AT_ROW_LINK(compile_in, model, "MODEL"),
    AT_ROW(compile_in, backend, AT_IN_COMBO, .choices = backends, .flags = AT_INF_NO_OPTIONS),
};
// The network is compiled already. The result cache runs a node once per workflow, so this is said
// once.
static at_status compile_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const compile_in *i = in;
    at_log(AT_WARN, "NODE-COMPILE", "TorchCompileModel: nothing to do, kernels are native (%s)",
           i->backend);
    out[0] = at_value_object(at_object_retain(i->model));
    return AT_OK;
}
static const at_node node_compile = {.class_type = "TorchCompileModel",
                                     .category = "_for_testing",
                                     .python_module = EXTRAS "nodes_torch_compile",
                                     .in = compile_rows,
                                     .n_in = AT_COUNT(compile_rows),
                                     .out = model_out,
                                     .n_out = 1,
                                     .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                     .in_size = sizeof(compile_in),
                                     .run = compile_run};

const at_node *const at_nodes_model_patch[] = {
    &node_freeu, &node_freeu_v2, &node_hypertile, &node_tome, &node_hypernet, &node_compile, NULL};
