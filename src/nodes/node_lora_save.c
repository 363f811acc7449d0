// SPDX-License-Identifier: Apache-2.0
// node_lora_save.c - LoraSave: a difference of models as a LoRA file.
// Idea: rows of names, as model_file.h does it; a matrix is computed, decomposed and written before
// the next one is looked at, so that only one is ever in memory. The lower factor of a pair waits
// from the row of the upper one to its own.
// Easy to get wrong: with rank, whatever has one dimension goes out whole, and only with bias_diff;
// without (full_diff) weights always go out whole and only biases ask for bias_diff. What cannot be
// decomposed (numbers that are not finite, three dimensions) is left out with a warning, and that
// must be known before the header is written.
// Asking for many more ranks than a difference has lets the clamp cut the few columns that matter:
// of a change of rank 1 in a 64 x 32 x 3 x 3 kernel, saved with rank 48, ComfyUI keeps 1 % and this
// program 3 %.
// Differs from ComfyUI: differences are not rounded to the model's dtype first; the identity that
// stands for a missing text projection is not written, its difference being 0; factors of more than
// 2^24 numbers are written too (torch.quantile refuses them, which leaves them out there).
// Source: ComfyUI 0.3.64 comfy_extras/nodes_lora_extract.py (behaviour and names).
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "nodes/nodes.h"
#include "nodes/objects.h"
#include "nodes/rows.h"
#include "nodes/saving.h"
#include "weight/edits.h"
#include "weight/safetensors.h"
#include "weight/svd.h"

typedef enum part { WHOLE, UPPER, LOWER } part;
typedef struct row {
    const at_weight *w;
    part part;
} row;
// Rows and what is written of each, index by index; names are owned here.
typedef struct lora_out {
    row *rows;
    at_st_out *out;
    size_t count, cap;
    at_matrix lower; // of the pair whose upper factor was written last
    int64_t rank;    // 0: full_diff
    bool bias;
} lora_out;

static void lora_free(lora_out *l)
{
    for (size_t i = 0; i < l->count; i++)
        at_free((char *)(uintptr_t)l->out[i].name);
    at_free(l->rows);
    at_free(l->out);
    at_matrix_free(&l->lower);
}

static at_status grow(lora_out *l)
{
    size_t want = l->cap ? l->cap * 2 : 256, a, b;
    void *rows = NULL, *out = NULL;

    if (l->count < l->cap) return AT_OK;
    if (at_mul_size(want, sizeof *l->rows, &a) && at_mul_size(want, sizeof *l->out, &b)) {
        rows = at_realloc(l->rows, a);
        if (rows) l->rows = rows;
        out = rows ? at_realloc(l->out, b) : NULL;
        if (out) l->out = out;
    }
    if (!out) return at_fail(AT_ENOMEM, "no memory for %zu tensors", want);
    l->cap = want;
    return AT_OK;
}

// f16, as everything in the file.
static at_status add(lora_out *l, const at_weight *w, part p, const char *to, const char *key,
                     size_t stem, const char *ending, int rank, const int64_t *shape)
{
    at_status st = grow(l);

    if (st != AT_OK) return st;
    char *name = at_strprintf("%s%.*s%s", to, (int)stem, key, ending);
    if (!name) return at_fail(AT_ENOMEM, "no memory for the name of %s", key);
    l->rows[l->count] = (row){w, p};
    l->out[l->count] = (at_st_out){.name = name, .dtype = AT_F16, .rank = rank};
    memcpy(l->out[l->count].shape, shape, (size_t)rank * sizeof *shape);
    l->count++;
    return AT_OK;
}

// --- what can be decomposed ----------------------------------------------------------------------
static int64_t rank_of(const lora_out *l, const at_weight *w)
{
    int64_t rank = l->rank;

    for (int i = 0; i < 2; i++)
        rank = w->shape[i] < rank ? w->shape[i] : rank;
    return rank;
}

// A 1x1 convolution of one channel loses a dimension in ComfyUI and is no matrix any more.
static bool has_matrix_shape(const at_weight *w)
{
    if (w->rank != 2 && w->rank != 4) return false;
    if (at_weight_elements(w) == 0) return false;
    return w->rank == 2 || w->shape[2] > 1 || w->shape[3] > 1 ||
           (w->shape[0] > 1 && w->shape[1] > 1);
}

static at_status is_matrix(const at_weight *w, bool *yes)
{
    at_matrix m = {0};
    double sum = 0;
    at_status st = AT_OK;

    *yes = has_matrix_shape(w);
    if (!*yes) return AT_OK;
    AT_TRY(at_edits_read(w, &m));
    for (int64_t i = 0; i < m.rows * m.cols; i++)
        sum += fabs((double)m.v[i]);
    *yes = isfinite(sum);
out:
    at_matrix_free(&m);
    return st;
}

static at_status add_pair(lora_out *l, const at_weight *w, const char *to, const char *key,
                          size_t stem)
{
    int64_t rank = rank_of(l, w), up[4] = {w->shape[0], rank, 1, 1}, down[4];
    bool yes;
    at_status st = AT_OK;

    AT_TRY(is_matrix(w, &yes));
    if (!yes) {
        at_log(AT_WARN, "LORA-SAVE", "%s is not in the LoRA: it is no matrix of finite numbers",
               w->name);
        return AT_OK;
    }
    memcpy(down, w->shape, sizeof down);
    down[0] = rank;
    AT_TRY(add(l, w, UPPER, to, key, stem, ".lora_up.weight", w->rank, up));
    AT_TRY(add(l, w, LOWER, to, key, stem, ".lora_down.weight", w->rank, down));
out:
    return st;
}

// Every difference below `prefix` of a store, under `to` + its key.
static at_status add_all(lora_out *l, at_store *s, const char *prefix, const char *to,
                         bool (*without)(const char *key))
{
    size_t skip = strlen(prefix);
    at_status st = AT_OK;

    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        const char *key = w->name + skip;
        if (strncmp(w->name, prefix, skip) != 0 || !at_dtype_is_float(w->dtype)) continue;
        if (without && without(key)) continue;
        size_t length = strlen(key);
        if (l->bias && at_ends_with(key, ".bias"))
            AT_TRY(
                add(l, w, WHOLE, to, key, length - strlen(".bias"), ".diff_b", w->rank, w->shape));
        if (!at_ends_with(key, ".weight")) continue;
        size_t stem = length - strlen(".weight");
        if (l->rank > 0 && w->rank > 1)
            AT_TRY(add_pair(l, w, to, key, stem));
        else if (l->rank == 0 || l->bias)
            AT_TRY(add(l, w, WHOLE, to, key, stem, ".diff", w->rank, w->shape));
    }
out:
    return st;
}

// T5's table stands in its file twice.
static bool is_second_table(const char *key)
{
    return !strcmp(key, "encoder.embed_tokens.weight");
}

static at_status add_clip(lora_out *l, const at_obj_clip *clip)
{
    static const char *const places[AT_TE_COUNT] = {
        [AT_TE_L] = "clip_l", [AT_TE_G] = "clip_g", [AT_TE_H] = "clip_h", [AT_TE_T5] = "t5xxl"};
    char to[64];
    at_status st = AT_OK;

    for (int i = 0; i < AT_TE_COUNT; i++) {
        const at_encoder *e = clip->enc[i].encoder;
        if (!e) continue;
        snprintf(to, sizeof to, "text_encoders.%s.transformer.", places[i]);
        AT_TRY(add_all(l, at_encoder_store(e), at_encoder_prefix(e), to,
                       i == AT_TE_T5 ? is_second_table : NULL));
    }
out:
    return st;
}

// --- writing -------------------------------------------------------------------------------------
static at_status decompose(lora_out *l, const at_weight *w, at_matrix *m)
{
    at_matrix upper = {0};
    at_status st = AT_OK;

    at_matrix_free(&l->lower);
    AT_TRY(at_matrix_svd(m, rank_of(l, w), &upper, &l->lower));
    AT_TRY(at_lora_clamp(&upper, &l->lower));
    at_matrix_free(m);
    *m = upper;
    upper = (at_matrix){0};
out:
    at_matrix_free(&upper);
    return st;
}

static at_status make(void *ctx, size_t i, void *bytes)
{
    lora_out *l = ctx;
    const row *r = &l->rows[i];
    at_matrix m = {0};
    at_status st = AT_OK;

    if (r->part == LOWER) { // made with the row before
        m = l->lower;
        l->lower = (at_matrix){0};
    } else {
        AT_TRY(at_edits_read(r->w, &m));
    }
    if (r->part == UPPER) AT_TRY(decompose(l, r->w, &m));
    AT_TRY(at_matrix_store(m.v, m.rows * m.cols, AT_F16, bytes));
out:
    at_matrix_free(&m);
    return at_fail_context(st, "%s: ", l->out[i].name);
}

// --- the node ------------------------------------------------------------------------------------
typedef struct lora_in {
    at_object *model_diff, *text_encoder_diff;
    const char *filename_prefix, *lora_type, *prompt, *extra_pnginfo;
    int64_t rank;
    bool bias_diff;
} lora_in;
static const char *const types[] = {"standard", "full_diff", NULL};
static const at_in rows_in[] = {
    AT_ROW(lora_in, filename_prefix, AT_IN_STRING, .sdef = "loras/ComfyUI_extracted_lora",
           .flags = AT_INF_SINGLE_LINE),
    AT_ROW_INT_STEP(lora_in, rank, 8, 1, 4096, 1),
    AT_ROW(lora_in, lora_type, AT_IN_COMBO, .choices = types),
    AT_ROW(lora_in, bias_diff, AT_IN_BOOL, .def = 1),
    AT_ROW(lora_in, model_diff, AT_IN_OBJECT, .type_name = "MODEL", .flags = AT_INF_OPTIONAL,
           .tip = "What ModelMergeSubtract gives, to become a LoRA."),
    AT_ROW(lora_in, text_encoder_diff, AT_IN_OBJECT, .type_name = "CLIP", .flags = AT_INF_OPTIONAL,
           .tip = "What CLIPMergeSubtract gives, to become a LoRA."),
    AT_ROW_HIDDEN(lora_in, prompt, "PROMPT"),
    AT_ROW_HIDDEN(lora_in, extra_pnginfo, "EXTRA_PNGINFO"),
};

static at_status lora_run(at_node_ctx *c, const void *in, at_value *out)
{
    const lora_in *i = in;
    const at_obj_model *m = (const at_obj_model *)i->model_diff;
    bool whole = !strcmp(i->lora_type, "full_diff");
    lora_out l = {.rank = whole ? 0 : i->rank, .bias = i->bias_diff};
    at_saver s = {0};
    char *name = NULL, *path = NULL;
    at_status st = AT_OK;

    (void)out;
    if (!m && !i->text_encoder_diff) return AT_OK;
    if (i->rank < 1) AT_TRY(at_fail(AT_EINVAL, "a rank of %lld", (long long)i->rank));
    AT_TRY(at_saver_open(&s, c, "LoraSave", false, i->filename_prefix, 0, 0, i->prompt,
                         i->extra_pnginfo));
    if (m)
        AT_TRY(add_all(&l, at_model_store(m->model), at_model_prefix(m->model), "diffusion_model.",
                       NULL));
    if (i->text_encoder_diff) AT_TRY(add_clip(&l, (const at_obj_clip *)i->text_encoder_diff));
    AT_TRY(at_saver_name(&s, 0, ".safetensors", &name, &path));
    AT_TRY(at_st_write_made(path, l.out, l.count, NULL, 0, make, &l));
out:
    at_free(name);
    at_free(path);
    at_saver_close(&s);
    lora_free(&l);
    return at_fail_context(st, "LoraSave: ");
}

static const at_node node_lora_save = {.class_type = "LoraSave",
                                       .display = "Extract and Save Lora",
                                       .category = "_for_testing",
                                       .python_module = "comfy_extras.nodes_lora_extract",
                                       .flags = AT_NODE_OUTPUT | AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                       .in = rows_in,
                                       .n_in = AT_COUNT(rows_in),
                                       .in_size = sizeof(lora_in),
                                       .run = lora_run};
const at_node *const at_nodes_lora_save[] = {&node_lora_save, NULL};
