// SPDX-License-Identifier: Apache-2.0
// merge.c - see merge.h.
#include "nodes/merge.h"

#include <string.h>

#include "base/str.h"

// Records that are no parameters of the network, or are not merged: scales of fp8 files, counters.
static bool is_parameter(const char *key)
{
    static const char *const others[] = {".scale_weight", ".scale_input", ".weight_scale",
                                         ".input_scale",  ".comfy_quant", ".position_ids",
                                         ".logit_scale",  "scaled_fp8"};

    for (size_t i = 0; i < AT_COUNT(others); i++)
        if (at_ends_with(key, others[i])) return false;
    return true;
}

// Edits of `to`'s records below to_prefix by those of `from` with the same key.
static at_status merge_stores(at_store *to, const char *to_prefix, at_store *from,
                              const char *from_prefix, at_merge_fn *share, const void *ctx,
                              at_edits *edits)
{
    size_t skip = strlen(from_prefix);
    at_status st = AT_OK;

    for (size_t i = 0; i < at_store_count(from); i++) {
        const at_weight *w2 = at_store_at(from, i), *w1;
        const char *key = w2->name + skip;
        if (strncmp(w2->name, from_prefix, skip) != 0 || !is_parameter(key)) continue;
        w1 = at_store_findf(to, "%s%s", to_prefix, key);
        if (!w1 || !at_dtype_is_float(w1->dtype) || !at_dtype_is_float(w2->dtype)) continue;
        at_merge_share s = share(ctx, key);
        if (s.keep == 1 && s.take == 0) continue;
        at_edit e = {.kind = AT_EDIT_MERGE, .strength = s.take, .keep = s.keep, .t = {w2}};
        AT_TRY(at_edits_add(edits, w1->name, &e));
    }
    AT_TRY(at_edits_hold(edits, from));
out:
    return st;
}

at_status at_merge_models(const at_object *model1, const at_object *model2, at_merge_fn *share,
                          const void *ctx, at_object **out)
{
    const at_obj_model *a = (const at_obj_model *)model1, *b = (const at_obj_model *)model2;
    at_edits *edits = NULL;
    at_status st = AT_OK;

    *out = NULL;
    AT_TRY(at_edits_new(&edits));
    AT_TRY(merge_stores(at_model_store(a->model), at_model_prefix(a->model),
                        at_model_store(b->model), at_model_prefix(b->model), share, ctx, edits));
    AT_TRY(at_obj_model_edit(a, edits, out));
out:
    at_edits_release(&edits);
    return st;
}

static at_merge_share same_share(const void *ctx, const char *key)
{
    (void)key;
    return *(const at_merge_share *)ctx;
}

at_status at_merge_clips(const at_object *clip1, const at_object *clip2, at_merge_share share,
                         at_object **out)
{
    const at_obj_clip *a = (const at_obj_clip *)clip1, *b = (const at_obj_clip *)clip2;
    at_edits *edits[AT_TE_COUNT] = {0};
    at_status st = AT_OK;

    *out = NULL;
    for (int i = 0; i < AT_TE_COUNT; i++) {
        const at_encoder *to = a->enc[i].encoder, *from = b->enc[i].encoder;
        if (!to || !from) continue;
        AT_TRY(at_edits_new(&edits[i]));
        AT_TRY(merge_stores(at_encoder_store(to), at_encoder_prefix(to), at_encoder_store(from),
                            at_encoder_prefix(from), same_share, &share, edits[i]));
    }
    AT_TRY(at_obj_clip_edit(a, edits, out));
out:
    for (int i = 0; i < AT_TE_COUNT; i++)
        at_edits_release(&edits[i]);
    return st;
}
