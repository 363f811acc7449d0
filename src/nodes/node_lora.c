// SPDX-License-Identifier: Apache-2.0
// node_lora.c - LoraLoader, LoraLoaderModelOnly, LoraModelLoader.
// Idea: the file is mapped and matched here; no weight is computed before a layer runs. Nodes in a row
// add their changes to one list per weight.
#include "base/mem.h"
#include "nodes/edit.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

// A strength widget as all LoRA nodes have it.
#define ROW_STRENGTH(st, field) AT_ROW_FLOAT_STEP(st, field, 1.0, -100, 100, 0.01)

static at_status open_lora(at_node_ctx *c, const char *name, at_store **out)
{
    at_env *e = at_env_of(c);
    char *path = NULL;
    at_status st = AT_OK;

    AT_TRY(e->find_file(e, "loras", name, &path));
    AT_TRY(e->open_store(e, path, out));
out:
    at_free(path);
    return st;
}

// --- LoraLoader --------------------------------------------------------------------------------------
typedef struct lora_in {
    at_object *model, *clip;
    const char *lora_name;
    double strength_model, strength_clip;
} lora_in;
static const at_in lora_rows[] = {
    AT_ROW_LINK(lora_in, model, "MODEL"),
    AT_ROW_LINK(lora_in, clip, "CLIP"),
    AT_ROW(lora_in, lora_name, AT_IN_COMBO, .list = "loras", .tip = "The name of the LoRA."),
    ROW_STRENGTH(lora_in, strength_model),
    ROW_STRENGTH(lora_in, strength_clip),
};
static const at_out lora_out[] = {AT_OUT("MODEL"), AT_OUT("CLIP")};

// A model or clip that is None stays None.
static at_status give_both(at_object *model, at_object *clip, at_value *out, size_t n)
{
    if (model) out[0] = at_value_object(model);
    if (clip && n > 1) out[1] = at_value_object(clip);
    return AT_OK;
}

static at_status lora_run(at_node_ctx *c, const void *in, at_value *out)
{
    const lora_in *i = in;
    at_object *model = NULL, *clip = NULL;
    at_store *s = NULL;
    at_status st = AT_OK;

    if (i->strength_model == 0 && i->strength_clip == 0)
        return give_both(at_object_retain(i->model), at_object_retain(i->clip), out, 2);
    AT_TRY(open_lora(c, i->lora_name, &s));
    AT_TRY(at_edit_by_lora(s, (const at_obj_model *)i->model, (const at_obj_clip *)i->clip,
                           i->strength_model, i->strength_clip, &model, &clip));
    AT_TRY(give_both(model, clip, out, 2));
out:
    at_store_release(&s);
    return st;
}
static const at_node node_lora = {
    .class_type = "LoraLoader",
    .display = "Load LoRA",
    .category = "loaders",
    .description = "LoRAs change diffusion and CLIP models and with them how latents are denoised, "
                   "for instance towards a style. Several LoRA nodes can stand in a row.",
    .python_module = "nodes",
    .in = lora_rows,
    .n_in = AT_COUNT(lora_rows),
    .out = lora_out,
    .n_out = AT_COUNT(lora_out),
    .in_size = sizeof(lora_in),
    .run = lora_run};

// --- LoraLoaderModelOnly -----------------------------------------------------------------------------
typedef struct model_only_in {
    at_object *model;
    const char *lora_name;
    double strength_model;
} model_only_in;
static const at_in model_only_rows[] = {
    AT_ROW_LINK_BARE(model_only_in, model, "MODEL"),
    AT_ROW(model_only_in, lora_name, AT_IN_COMBO, .list = "loras", .flags = AT_INF_NO_OPTIONS),
    ROW_STRENGTH(model_only_in, strength_model),
};
static const at_out model_out[] = {AT_OUT("MODEL")};
static at_status model_only_run(at_node_ctx *c, const void *in, at_value *out)
{
    const model_only_in *i = in;
    at_object *model = NULL, *clip = NULL;
    at_store *s = NULL;
    at_status st = AT_OK;

    if (i->strength_model == 0) return give_both(at_object_retain(i->model), NULL, out, 1);
    AT_TRY(open_lora(c, i->lora_name, &s));
    AT_TRY(at_edit_by_lora(s, (const at_obj_model *)i->model, NULL, i->strength_model, 0, &model,
                           &clip));
    AT_TRY(give_both(model, NULL, out, 1));
out:
    at_store_release(&s);
    return st;
}
static const at_node node_model_only = {.class_type = "LoraLoaderModelOnly",
                                        .display = "LoraLoaderModelOnly",
                                        .category = "loaders",
                                        .python_module = "nodes",
                                        .in = model_only_rows,
                                        .n_in = AT_COUNT(model_only_rows),
                                        .out = model_out,
                                        .n_out = 1,
                                        .in_size = sizeof(model_only_in),
                                        .run = model_only_run};

// --- LoraModelLoader ---------------------------------------------------------------------------------
typedef struct trained_in {
    at_object *model, *lora;
    double strength_model;
} trained_in;
static const at_in trained_rows[] = {
    AT_ROW_LINK(trained_in, model, "MODEL"),
    AT_ROW_LINK(trained_in, lora, "LORA_MODEL"),
    ROW_STRENGTH(trained_in, strength_model),
};
static at_status trained_run(at_node_ctx *c, const void *in, at_value *out)
{
    const trained_in *i = in;
    at_object *model = NULL, *clip = NULL;
    at_status st = AT_OK;

    (void)c;
    if (i->strength_model == 0) return give_both(at_object_retain(i->model), NULL, out, 1);
    AT_TRY(at_edit_by_lora(((const at_obj_lora *)i->lora)->store, (const at_obj_model *)i->model,
                           NULL, i->strength_model, 0, &model, &clip));
    AT_TRY(give_both(model, NULL, out, 1));
out:
    return st;
}
static const at_node node_trained = {.class_type = "LoraModelLoader",
                                     .display = "Load LoRA Model",
                                     .category = "loaders",
                                     .description = "Puts the LoRA of a training node on a model.",
                                     .python_module = "comfy_extras.nodes_train",
                                     .flags = AT_NODE_EXPERIMENTAL,
                                     .in = trained_rows,
                                     .n_in = AT_COUNT(trained_rows),
                                     .out = model_out,
                                     .n_out = 1,
                                     .in_size = sizeof(trained_in),
                                     .run = trained_run};

const at_node *const at_nodes_lora[] = {&node_lora, &node_model_only, &node_trained, NULL};
