// SPDX-License-Identifier: Apache-2.0
// node_conditioning_mix.c - prompts mixed with prompts: ConditioningCombine, -Average, -Concat.
// Easy to get wrong: average and concat take only the first entry of `from`; an average pads a
// shorter `from` with zeros and cuts a longer one, and a pooled vector that only one side has is
// not scaled.
// Source: ComfyUI 0.3.64 nodes.py (behaviour).
#include "base/log.h"
#include "nodes/cond.h"
#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

typedef struct combine_in {
    at_object *conditioning_1, *conditioning_2;
} combine_in;
static const at_in combine_rows[] = {
    AT_ROW_LINK_BARE(combine_in, conditioning_1, "CONDITIONING"),
    AT_ROW_LINK_BARE(combine_in, conditioning_2, "CONDITIONING"),
};
static at_status combine_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const combine_in *i = in;
    return at_cond_give_joined("ConditioningCombine", i->conditioning_1,
                               at_object_retain(i->conditioning_2), &out[0]);
}
static const at_node node_combine =
    AT_COND_NODE("ConditioningCombine", "Conditioning (Combine)", "conditioning", "nodes", 0,
                 combine_rows, combine_in, combine_run);

// --- two into one --------------------------------------------------------------------------------
// The first entry of `from`, with a warning about others.
static at_status first_of(const char *node, const at_object *from, const at_cond **out)
{
    const at_obj_cond *f = (const at_obj_cond *)from;
    if (f->count == 0 || !f->items[0].context)
        return at_fail(AT_EINVAL, "%s: conditioning_from is empty", node);
    if (f->count > 1)
        at_log(AT_WARN, "COND-FIRST",
               "%s: conditioning_from has %zu conditionings; only the first one is used", node,
               f->count);
    *out = &f->items[0];
    return AT_OK;
}

// What a mix does with the text of one entry; results in the current scope.
typedef void mix_fn(at_ops *o, at_cond *to, const at_cond *from, double strength);

static at_status mixed(at_node_ctx *c, const char *node, const at_object *to, const at_object *from,
                       double strength, mix_fn *mix, at_value *out)
{
    at_status st = AT_OK;
    const at_cond *f = NULL;
    at_ops *o = NULL;
    at_object *copy = at_obj_cond_copy((const at_obj_cond *)to);
    at_obj_cond *list = (at_obj_cond *)copy;

    if (!copy) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", node));
    AT_TRY(first_of(node, from, &f));
    AT_TRY(at_env_ops(c, &o));
    for (size_t i = 0; i < list->count && at_ops_status(o) == AT_OK; i++)
        mix(o, &list->items[i], f, strength);
    AT_TRY(at_ops_status(o));
    *out = at_value_object(copy);
    copy = NULL;
out:
    if (st != AT_OK) at_fail_context(st, "%s: ", node);
    at_object_release(copy);
    at_ops_free(o);
    return st;
}

static at_tensor *blend(at_ops *o, const at_tensor *a, const at_tensor *b, double share)
{
    const float coef[2] = {(float)share, (float)(1.0 - share)};
    return at_lincomb(o, 2, coef,
                      (const at_tensor *const[]){at_contiguous(o, a), at_contiguous(o, b)});
}

// `from` at the length of `to`.
static at_tensor *at_length(at_ops *o, const at_tensor *from, const at_tensor *to)
{
    int64_t have = from->shape[1], want = to->shape[1];
    if (have >= want) return at_narrow(o, from, 1, 0, want);
    int64_t rest[3] = {from->shape[0], want - have, to->shape[2]};
    at_tensor *zeros = at_zeros(o, from->dtype, 3, rest);
    return at_concat(o, 1, 2, (const at_tensor *const[]){from, zeros});
}

static void average(at_ops *o, at_cond *to, const at_cond *from, double share)
{
    at_tensor *text = blend(o, to->context, at_length(o, from->context, to->context), share);
    at_cond_set_tensor(&to->context, at_ops_keep(o, text));
    if (!from->pooled) return;
    const at_tensor *own = to->pooled ? to->pooled : from->pooled;
    at_cond_set_tensor(&to->pooled, at_ops_keep(o, blend(o, own, from->pooled, share)));
}

typedef struct average_in {
    at_object *conditioning_to, *conditioning_from;
    double conditioning_to_strength;
} average_in;
static const at_in average_rows[] = {
    AT_ROW_LINK_BARE(average_in, conditioning_to, "CONDITIONING"),
    AT_ROW_LINK_BARE(average_in, conditioning_from, "CONDITIONING"),
    AT_ROW_FLOAT_STEP(average_in, conditioning_to_strength, 1.0, 0, 1, 0.01),
};
static at_status average_run(at_node_ctx *c, const void *in, at_value *out)
{
    const average_in *i = in;
    return mixed(c, "ConditioningAverage", i->conditioning_to, i->conditioning_from,
                 i->conditioning_to_strength, average, &out[0]);
}
static const at_node node_average =
    AT_COND_NODE("ConditioningAverage", "ConditioningAverage", "conditioning", "nodes", 0,
                 average_rows, average_in, average_run);

static void append(at_ops *o, at_cond *to, const at_cond *from, double unused)
{
    (void)unused;
    at_tensor *text = at_concat(o, 1, 2, (const at_tensor *const[]){to->context, from->context});
    at_cond_set_tensor(&to->context, at_ops_keep(o, text));
}

typedef struct concat_in {
    at_object *conditioning_to, *conditioning_from;
} concat_in;
static const at_in concat_rows[] = {
    AT_ROW_LINK_BARE(concat_in, conditioning_to, "CONDITIONING"),
    AT_ROW_LINK_BARE(concat_in, conditioning_from, "CONDITIONING"),
};
static at_status concat_run(at_node_ctx *c, const void *in, at_value *out)
{
    const concat_in *i = in;
    return mixed(c, "ConditioningConcat", i->conditioning_to, i->conditioning_from, 0, append,
                 &out[0]);
}
static const at_node node_concat =
    AT_COND_NODE("ConditioningConcat", "Conditioning (Concat)", "conditioning", "nodes", 0,
                 concat_rows, concat_in, concat_run);

const at_node *const at_nodes_conditioning_mix[] = {&node_combine, &node_average, &node_concat,
                                                    NULL};
