// SPDX-License-Identifier: Apache-2.0
// node_merge_blocks.c - ModelMergeBlocks and its model-specific forms: a share of model1 per group of
// layers.
// Idea: an input's name is the beginning of the keys that it rules; the longest name that fits a key
// wins, and keys that none fits take the first input's number. A node is its list of names.
// Source of the names: ComfyUI 0.3.64 comfy_extras/nodes_model_merging_model_specific.py (facts).
#include <string.h>

#include "base/str.h"
#include "nodes/merge.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

enum { MOST = 80 }; // numbers of one node
typedef struct blocks_in {
    at_object *model1, *model2;
    double share[MOST];
} blocks_in;

enum { FIRST = 2 }; // rows before the numbers
typedef struct blocks_call {
    const at_in *rows;
    size_t n;
    const double *share;
} blocks_call;

static at_merge_share share_of(const void *ctx, const char *key)
{
    const blocks_call *b = ctx;
    double ratio = b->share[0];
    size_t longest = 0;

    for (size_t i = 0; i < b->n; i++) {
        size_t len = strlen(b->rows[i].name);
        if (len <= longest || strncmp(key, b->rows[i].name, len) != 0) continue;
        ratio = b->share[i];
        longest = len;
    }
    return (at_merge_share){ratio, 1.0 - ratio};
}

static at_status run_rows(const at_in *rows, size_t n, const blocks_in *in, at_value *out)
{
    blocks_call call = {rows + FIRST, n - FIRST, in->share};
    at_object *o = NULL;
    at_status st = at_merge_models(in->model1, in->model2, share_of, &call, &o);

    return st == AT_OK ? at_give(out, o, "MODEL") : st;
}

// --- names -------------------------------------------------------------------------------------------
#define MODELS                                                                                     \
    AT_ROW_LINK_BARE(blocks_in, model1, "MODEL"), AT_ROW_LINK_BARE(blocks_in, model2, "MODEL")
// Number i goes by `label`; a run of ten goes by `label` + tens + digit + `end`.
#define R(i, label)                                                                                \
    {                                                                                              \
        .name = label, .type = AT_IN_FLOAT,                                                        \
        .offset = offsetof(blocks_in, share) + (i) * sizeof(double), .def = 1, .min = 0, .max = 1, \
        .step = 0.01, .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP                   \
    }
#define R2(i, l, t, e)  R(i, l t "0" e), R((i) + 1, l t "1" e)
#define R3(i, l, t, e)  R2(i, l, t, e), R((i) + 2, l t "2" e)
#define R4(i, l, t, e)  R3(i, l, t, e), R((i) + 3, l t "3" e)
#define R6(i, l, t, e)  R4(i, l, t, e), R((i) + 4, l t "4" e), R((i) + 5, l t "5" e)
#define R8(i, l, t, e)  R6(i, l, t, e), R((i) + 6, l t "6" e), R((i) + 7, l t "7" e)
#define R9(i, l, t, e)  R8(i, l, t, e), R((i) + 8, l t "8" e)
#define R10(i, l, t, e) R9(i, l, t, e), R((i) + 9, l t "9" e)
#define R12(i, l, e)    R10(i, l, "", e), R2((i) + 10, l, "1", e)
#define R19(i, l, e)    R10(i, l, "", e), R9((i) + 10, l, "1", e)
#define R20(i, l, e)    R10(i, l, "", e), R10((i) + 10, l, "1", e)
#define R24(i, l, e)    R20(i, l, e), R4((i) + 20, l, "2", e)
#define R28(i, l, e)    R20(i, l, e), R8((i) + 20, l, "2", e)
#define R30(i, l, e)    R20(i, l, e), R10((i) + 20, l, "2", e)
#define R32(i, l, e)    R30(i, l, e), R2((i) + 30, l, "3", e)
#define R36(i, l, e)    R30(i, l, e), R6((i) + 30, l, "3", e)
#define R38(i, l, e)    R30(i, l, e), R8((i) + 30, l, "3", e)
#define R40(i, l, e)    R30(i, l, e), R10((i) + 30, l, "3", e)
#define R48(i, l, e)    R40(i, l, e), R8((i) + 40, l, "4", e)
#define R60(i, l, e)    R40(i, l, e), R10((i) + 40, l, "4", e), R10((i) + 50, l, "5", e)

static const at_in rows_blocks[] = {MODELS, R(0, "input"), R(1, "middle"), R(2, "out")};
static const at_in rows_sd1[] = {MODELS,
                                 R(0, "time_embed."),
                                 R(1, "label_emb."),
                                 R12(2, "input_blocks.", "."),
                                 R3(14, "middle_block.", "", "."),
                                 R12(17, "output_blocks.", "."),
                                 R(29, "out.")};
static const at_in rows_sdxl[] = {MODELS,
                                  R(0, "time_embed."),
                                  R(1, "label_emb."),
                                  R9(2, "input_blocks.", "", ""),
                                  R3(11, "middle_block.", "", ""),
                                  R9(14, "output_blocks.", "", ""),
                                  R(23, "out.")};
#define SD3_HEAD                                                                                   \
    MODELS, R(0, "pos_embed."), R(1, "x_embedder."), R(2, "context_embedder."),                    \
        R(3, "y_embedder."), R(4, "t_embedder.")
static const at_in rows_sd3[] = {SD3_HEAD, R24(5, "joint_blocks.", "."), R(29, "final_layer.")};
static const at_in rows_sd35[] = {SD3_HEAD, R38(5, "joint_blocks.", "."), R(43, "final_layer.")};
static const at_in rows_aura[] = {MODELS,
                                  R(0, "init_x_linear."),
                                  R(1, "positional_encoding"),
                                  R(2, "cond_seq_linear."),
                                  R(3, "register_tokens"),
                                  R(4, "t_embedder."),
                                  R4(5, "double_layers.", "", "."),
                                  R32(9, "single_layers.", "."),
                                  R(41, "modF."),
                                  R(42, "final_linear.")};
static const at_in rows_flux[] = {MODELS,
                                  R(0, "img_in."),
                                  R(1, "time_in."),
                                  R(2, "guidance_in"),
                                  R(3, "vector_in."),
                                  R(4, "txt_in."),
                                  R19(5, "double_blocks.", "."),
                                  R38(24, "single_blocks.", "."),
                                  R(62, "final_layer.")};
static const at_in rows_mochi[] = {MODELS,
                                   R(0, "pos_frequencies."),
                                   R(1, "t_embedder."),
                                   R(2, "t5_y_embedder."),
                                   R(3, "t5_yproj."),
                                   R48(4, "blocks.", "."),
                                   R(52, "final_layer.")};
static const at_in rows_ltxv[] = {MODELS,
                                  R(0, "patchify_proj."),
                                  R(1, "adaln_single."),
                                  R(2, "caption_projection."),
                                  R28(3, "transformer_blocks.", "."),
                                  R(31, "scale_shift_table"),
                                  R(32, "proj_out.")};
#define COSMOS_HEAD                                                                                \
    MODELS, R(0, "pos_embedder."), R(1, "extra_pos_embedder."), R(2, "x_embedder."),               \
        R(3, "t_embedder."), R(4, "affline_norm.")
static const at_in rows_cosmos7[] = {COSMOS_HEAD, R28(5, "blocks.block", "."),
                                     R(33, "final_layer.")};
static const at_in rows_cosmos14[] = {COSMOS_HEAD, R36(5, "blocks.block", "."),
                                      R(41, "final_layer.")};
static const at_in rows_wan[] = {MODELS,
                                 R(0, "patch_embedding."),
                                 R(1, "time_embedding."),
                                 R(2, "time_projection."),
                                 R(3, "text_embedding."),
                                 R(4, "img_emb."),
                                 R40(5, "blocks.", "."),
                                 R(45, "head.")};
#define PREDICT_HEAD                                                                               \
    MODELS, R(0, "pos_embedder."), R(1, "x_embedder."), R(2, "t_embedder."),                       \
        R(3, "t_embedding_norm.")
static const at_in rows_predict2[] = {PREDICT_HEAD, R28(4, "blocks.", "."), R(32, "final_layer.")};
static const at_in rows_predict14[] = {PREDICT_HEAD, R36(4, "blocks.", "."), R(40, "final_layer.")};
static const at_in rows_qwen[] = {MODELS,
                                  R(0, "pos_embeds."),
                                  R(1, "img_in."),
                                  R(2, "txt_norm."),
                                  R(3, "txt_in."),
                                  R(4, "time_text_embed."),
                                  R60(5, "transformer_blocks.", "."),
                                  R(65, "proj_out.")};

// --- nodes -------------------------------------------------------------------------------------------
static const at_out blocks_out[] = {AT_OUT("MODEL")};
#define NODE(id, rows_, name, where, module, ...)                                                  \
    static at_status run_##id(at_node_ctx *c, const void *in, at_value *out)                       \
    {                                                                                              \
        (void)c;                                                                                   \
        return run_rows(rows_, AT_COUNT(rows_), in, out);                                          \
    }                                                                                              \
    static const at_node node_##id = {.class_type = name,                                          \
                                      .display = name,                                             \
                                      .category = "advanced/model_merging" where,                  \
                                      .python_module = "comfy_extras.nodes_model_merging" module,  \
                                      .in = rows_,                                                 \
                                      .n_in = AT_COUNT(rows_),                                     \
                                      .out = blocks_out,                                           \
                                      .n_out = 1,                                                  \
                                      .in_size = sizeof(blocks_in),                                \
                                      .run = run_##id,                                             \
                                      __VA_ARGS__}
#define SPECIFIC(id, rows_, name, ...)                                                             \
    NODE(id, rows_, name, "/model_specific", "_model_specific", __VA_ARGS__)

NODE(blocks, rows_blocks, "ModelMergeBlocks", "", "");
SPECIFIC(sd1, rows_sd1, "ModelMergeSD1");
SPECIFIC(sd2, rows_sd1, "ModelMergeSD2");
SPECIFIC(sdxl, rows_sdxl, "ModelMergeSDXL");
SPECIFIC(sd3, rows_sd3, "ModelMergeSD3_2B");
SPECIFIC(aura, rows_aura, "ModelMergeAuraflow");
SPECIFIC(flux, rows_flux, "ModelMergeFlux1");
SPECIFIC(sd35, rows_sd35, "ModelMergeSD35_Large");
SPECIFIC(mochi, rows_mochi, "ModelMergeMochiPreview");
SPECIFIC(ltxv, rows_ltxv, "ModelMergeLTXV");
SPECIFIC(cosmos7, rows_cosmos7, "ModelMergeCosmos7B");
SPECIFIC(cosmos14, rows_cosmos14, "ModelMergeCosmos14B");
SPECIFIC(wan, rows_wan, "ModelMergeWAN2_1",
         .description = "The 1.3B model has 30 blocks, the 14B model 40. Models that begin with a "
                        "picture have img_emb as well.");
SPECIFIC(predict2, rows_predict2, "ModelMergeCosmosPredict2_2B");
SPECIFIC(predict14, rows_predict14, "ModelMergeCosmosPredict2_14B");
SPECIFIC(qwen, rows_qwen, "ModelMergeQwenImage");

const at_node *const at_nodes_merge_blocks[] = {
    &node_blocks, &node_sd1,      &node_sd2,       &node_sdxl, &node_sd3,     &node_aura,
    &node_flux,   &node_sd35,     &node_mochi,     &node_ltxv, &node_cosmos7, &node_cosmos14,
    &node_wan,    &node_predict2, &node_predict14, &node_qwen, NULL};
