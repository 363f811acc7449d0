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

// A merger leaves out what does not fit; a difference that cannot be taken is an error.
static at_status check_shapes(const at_weight *w1, const at_weight *w2)
{
    char a[128], b[128];

    if (w1->rank == w2->rank &&
        memcmp(w1->shape, w2->shape, (size_t)w1->rank * sizeof *w1->shape) == 0)
        return AT_OK;
    return at_fail(AT_EINVAL,
                   "%s is %s in one model and %s in the other: they are not of one kind, so one "
                   "cannot be a LoRA of the other",
                   w1->name, at_shape_text(w1->dtype, w1->rank, w1->shape, a),
                   at_shape_text(w2->dtype, w2->rank, w2->shape, b));
}

// Edits of `to`'s records below to_prefix by those of `from` with the same key.
static at_status merge_stores(at_store *to, const char *to_prefix, at_store *from,
                              const char *from_prefix, at_edit_kind kind, at_merge_fn *share,
                              const void *ctx, at_edits *edits)
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
        if (kind == AT_EDIT_TOWARD) AT_TRY(check_shapes(w1, w2));
        at_edit e = {.kind = kind, .strength = s.take, .keep = s.keep, .t = {w2}};
        AT_TRY(at_edits_add(edits, w1->name, &e));
    }
    AT_TRY(at_edits_hold(edits, from));
out:
    return st;
}

static at_status edit_model(const at_obj_model *a, const at_obj_model *b, at_edit_kind kind,
                            at_merge_fn *share, const void *ctx, at_object **out)
{
    at_edits *edits = NULL;
    at_status st = AT_OK;

    *out = NULL;
    AT_TRY(at_edits_new(&edits));
    AT_TRY(merge_stores(at_model_store(a->model), at_model_prefix(a->model),
                        at_model_store(b->model), at_model_prefix(b->model), kind, share, ctx,
                        edits));
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

static at_status edit_clip(const at_obj_clip *a, const at_obj_clip *b, at_edit_kind kind,
                           at_merge_share share, at_object **out)
{
    at_edits *edits[AT_TE_COUNT] = {0};
    at_status st = AT_OK;

    *out = NULL;
    for (int i = 0; i < AT_TE_COUNT; i++) {
        const at_encoder *to = a->enc[i].encoder, *from = b->enc[i].encoder;
        if (!to || !from) continue;
        AT_TRY(at_edits_new(&edits[i]));
        AT_TRY(merge_stores(at_encoder_store(to), at_encoder_prefix(to), at_encoder_store(from),
                            at_encoder_prefix(from), kind, same_share, &share, edits[i]));
    }
    AT_TRY(at_obj_clip_edit(a, edits, out));
out:
    for (int i = 0; i < AT_TE_COUNT; i++)
        at_edits_release(&edits[i]);
    return st;
}

at_status at_merge_models(const at_object *model1, const at_object *model2, at_merge_fn *share,
                          const void *ctx, at_object **out)
{
    return edit_model((const at_obj_model *)model1, (const at_obj_model *)model2, AT_EDIT_MERGE,
                      share, ctx, out);
}

at_status at_merge_clips(const at_object *clip1, const at_object *clip2, at_merge_share share,
                         at_object **out)
{
    return edit_clip((const at_obj_clip *)clip1, (const at_obj_clip *)clip2, AT_EDIT_MERGE, share,
                     out);
}

at_status at_move_model(const at_obj_model *model, const at_obj_model *target, double strength,
                        at_object **out)
{
    const at_merge_share share = {1, strength};
    return edit_model(model, target, AT_EDIT_TOWARD, same_share, &share, out);
}

at_status at_move_clip(const at_obj_clip *clip, const at_obj_clip *target, double strength,
                       at_object **out)
{
    return edit_clip(clip, target, AT_EDIT_TOWARD, (at_merge_share){1, strength}, out);
}
