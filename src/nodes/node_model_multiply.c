// SPDX-License-Identifier: Apache-2.0
// node_model_multiply.c - UNetSelfAttentionMultiply, UNetCrossAttentionMultiply,
// UNetTemporalAttentionMultiply, CLIPAttentionMultiply: attention layers' weights and biases
// scaled.
// Idea: a list of name ends with a factor each; every record of the network that ends so gets an
// edit that keeps factor * W and adds nothing. Networks without such names come back as they are.
// Easy to get wrong: to_q, to_k and to_v of most UNets have no bias; to_out has one, and it is
// scaled too.
// Source: ComfyUI 0.3.64 comfy_extras/nodes_attention_multiply.py (behaviour).
#include <stdio.h>
#include <string.h>

#include "nodes/edit.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

typedef struct factor {
    const char *layer; // "attn1.to_q"
    const char *among; // only names that contain this; NULL: only names without ".time_stack."
    double by;
} factor;

static bool matches(const char *name, const factor *f)
{
    static const char *const kinds[] = {".weight", ".bias"};
    size_t n = strlen(name), layer = strlen(f->layer);

    if (f->among ? !strstr(name, f->among) : strstr(name, ".time_stack.") != NULL) return false;
    for (size_t i = 0; i < AT_COUNT(kinds); i++) {
        size_t end = strlen(kinds[i]);
        if (n >= layer + end && strcmp(name + n - end, kinds[i]) == 0 &&
            memcmp(name + n - end - layer, f->layer, layer) == 0)
            return true;
    }
    return false;
}

// Edits of all records of s below prefix that match a factor.
static at_status collect(at_store *s, const char *prefix, const factor *f, size_t n, at_edits *out)
{
    at_status st = AT_OK;
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (strncmp(w->name, prefix, strlen(prefix)) != 0) continue;
        for (size_t k = 0; k < n; k++)
            if (f[k].by != 1 && matches(w->name, &f[k]))
                AT_TRY(
                    at_edits_add(out, w->name,
                                 &(at_edit){.kind = AT_EDIT_DIFF, .strength = 0, .keep = f[k].by}));
    }
out:
    return st;
}

static at_status multiply_model(const at_object *model, const factor *f, size_t n, at_value *out)
{
    at_status st = AT_OK;
    const at_obj_model *m = (const at_obj_model *)model;
    at_edits *e = NULL;
    at_object *o = NULL;

    AT_TRY(at_edits_new(&e));
    AT_TRY(collect(at_model_store(m->model), at_model_prefix(m->model), f, n, e));
    AT_TRY(at_obj_model_edit(m, e, &o));
    out[0] = at_value_object(o);
out:
    at_edits_release(&e);
    return st;
}

static const at_out model_out[] = {AT_OUT("MODEL")};
static const at_out clip_out[] = {AT_OUT("CLIP")};

// --- q, k, v, out -------------------------------------------------------------------------------
typedef struct four_in {
    at_object *what;
    double q, k, v, out;
} four_in;
#define ROW_FACTOR(st, field) AT_ROW_FLOAT_STEP(st, field, 1.0, 0, 10, 0.01)
#define FOUR_ROWS(label, TYPE)                                                                     \
    {                                                                                              \
        {.name = label,                                                                            \
         .type = AT_IN_OBJECT,                                                                     \
         .offset = offsetof(four_in, what),                                                        \
         .type_name = TYPE},                                                                       \
            ROW_FACTOR(four_in, q), ROW_FACTOR(four_in, k), ROW_FACTOR(four_in, v),                \
            ROW_FACTOR(four_in, out)                                                               \
    }
static const at_in unet_rows[] = FOUR_ROWS("model", "MODEL");
static const at_in clip_rows[] = FOUR_ROWS("clip", "CLIP");

static at_status self_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const four_in *i = in;
    const factor f[] = {{"attn1.to_q", "", i->q},
                        {"attn1.to_k", "", i->k},
                        {"attn1.to_v", "", i->v},
                        {"attn1.to_out.0", "", i->out}};
    return multiply_model(i->what, f, AT_COUNT(f), out);
}
static at_status cross_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const four_in *i = in;
    const factor f[] = {{"attn2.to_q", "", i->q},
                        {"attn2.to_k", "", i->k},
                        {"attn2.to_v", "", i->v},
                        {"attn2.to_out.0", "", i->out}};
    return multiply_model(i->what, f, AT_COUNT(f), out);
}

static at_status clip_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const four_in *i = in;
    const at_obj_clip *clip = (const at_obj_clip *)i->what;
    const factor f[] = {{"self_attn.q_proj", "", i->q},
                        {"self_attn.k_proj", "", i->k},
                        {"self_attn.v_proj", "", i->v},
                        {"self_attn.out_proj", "", i->out}};
    at_edits *edits[AT_TE_COUNT] = {0};
    at_object *o = NULL;

    (void)c;
    for (int t = 0; t < AT_TE_COUNT; t++) {
        const at_encoder *e = clip->enc[t].encoder;
        if (!e) continue;
        AT_TRY(at_edits_new(&edits[t]));
        AT_TRY(collect(at_encoder_store(e), at_encoder_prefix(e), f, AT_COUNT(f), edits[t]));
    }
    AT_TRY(at_obj_clip_edit(clip, edits, &o));
    out[0] = at_value_object(o);
out:
    for (int t = 0; t < AT_TE_COUNT; t++)
        at_edits_release(&edits[t]);
    return st;
}

// --- structure and time -------------------------------------------------------------------------
typedef struct time_in {
    at_object *model;
    double self_structural, self_temporal, cross_structural, cross_temporal;
} time_in;
static const at_in time_rows[] = {
    AT_ROW_LINK(time_in, model, "MODEL"), ROW_FACTOR(time_in, self_structural),
    ROW_FACTOR(time_in, self_temporal),   ROW_FACTOR(time_in, cross_structural),
    ROW_FACTOR(time_in, cross_temporal),
};
static at_status time_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const time_in *i = in;
    const factor f[] = {{"attn1.to_out.0", NULL, i->self_structural},
                        {"attn1.to_out.0", ".time_stack.", i->self_temporal},
                        {"attn2.to_out.0", NULL, i->cross_structural},
                        {"attn2.to_out.0", ".time_stack.", i->cross_temporal}};
    return multiply_model(i->model, f, AT_COUNT(f), out);
}

#define MULTIPLY_NODE(class_, rows, outs, in_, run_)                                               \
    {                                                                                              \
        .class_type = class_, .category = "_for_testing/attention_experiments",                    \
        .python_module = "comfy_extras.nodes_attention_multiply", .in = rows,                      \
        .n_in = AT_COUNT(rows), .out = outs, .n_out = 1,                                           \
        .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL, .in_size = sizeof(in_), .run = run_            \
    }
static const at_node node_self =
    MULTIPLY_NODE("UNetSelfAttentionMultiply", unet_rows, model_out, four_in, self_run);
static const at_node node_cross =
    MULTIPLY_NODE("UNetCrossAttentionMultiply", unet_rows, model_out, four_in, cross_run);
static const at_node node_time =
    MULTIPLY_NODE("UNetTemporalAttentionMultiply", time_rows, model_out, time_in, time_run);
static const at_node node_clip =
    MULTIPLY_NODE("CLIPAttentionMultiply", clip_rows, clip_out, four_in, clip_run);

const at_node *const at_nodes_model_multiply[] = {&node_self, &node_cross, &node_time, &node_clip,
                                                  NULL};
