// SPDX-License-Identifier: Apache-2.0
// text_bias.c - see text_bias.h.
// Idea: a mask over all tokens would be hundreds of megabytes, but few of its rows differ: runs of
// queries with equal rows attend together, with one row of bias for all of them.
// Easy to get wrong: text stands first in the joint order; networks with other attentions (UNets)
// are left alone, as ComfyUI's ignore the mask.
// Source: ComfyUI 0.3.64 nodes.py (StyleModelApply), comfy/utils.py (upscale_dit_mask).
// Owns: the patch owns one reference to the bias.
#include "models/text_bias.h"

#include <string.h>

#include "base/mem.h"

enum { MAX_RUNS = 64 };

typedef struct text_bias {
    at_tensor *bias;
} text_bias;

static void bias_free(void *self)
{
    at_tensor_release(&((text_bias *)self)->bias);
    at_free(self);
}

// The row of `n + 1` numbers over all keys, for every head and `queries` rows: strides of 0.
static at_tensor *spread(at_ops *o, const float *row, int64_t text, int64_t keys, int64_t heads,
                         int64_t queries)
{
    at_tensor *view = NULL;
    float *all = at_alloc((size_t)keys * sizeof *all);
    if (!all)
        return at_ops_poison(o, AT_ENOMEM, "text bias: no memory for %lld keys", (long long)keys);
    for (int64_t i = 0; i < keys; i++)
        all[i] = row[i < text ? i : text];
    at_tensor *t = at_from_host(o, AT_F32, 1, &keys, all);
    at_free(all);
    if (!t) return NULL;
    at_status st = at_tensor_view(t, 4, (int64_t[]){1, heads, queries, keys},
                                  (int64_t[]){0, 0, 0, 1}, 0, &view);
    return st == AT_OK ? at_ops_adopt(o, view) : at_ops_poison(o, st, "%s", at_error_text());
}

// The first query behind `from` whose row differs; `text` stands for all tokens behind the text.
static int64_t run_end(const float *m, int64_t text, int64_t from, int64_t tokens)
{
    size_t bytes = (size_t)(text + 1) * sizeof *m;
    int64_t i = from;
    while (i < text && memcmp(m + i * (text + 1), m + from * (text + 1), bytes) == 0)
        i++;
    if (i < text) return i;
    return memcmp(m + text * (text + 1), m + from * (text + 1), bytes) == 0 ? tokens : text;
}

static at_tensor *attn(void *self, at_ops *o, const at_site *s, const at_tensor *q,
                       const at_tensor *k, const at_tensor *v)
{
    const at_tensor *bias = ((text_bias *)self)->bias, *parts[MAX_RUNS];
    int64_t text = bias->shape[1] - 1;
    int n = 0;

    if (s->part != AT_SITE_DOUBLE && s->part != AT_SITE_SINGLE) return NULL;
    if (!q || !k) return NULL;
    if (at_ops_token_ranks(o) > 1)
        return at_ops_poison(o, AT_EUNSUPPORTED,
                             "StyleModelApply: strength_type \"attn_bias\" does not run on several "
                             "ranks; use \"multiply\", or one device");
    int64_t tokens = q->shape[1];
    if (text > tokens || k->shape[1] != tokens)
        return at_ops_poison(
            o, AT_EINVAL, "StyleModelApply: a bias over %lld text tokens does not fit %lld tokens",
            (long long)text, (long long)tokens);
    for (int64_t at = 0, end; at < tokens; at = end) {
        const float *m = at_tensor_data(bias);
        int64_t row = at < text ? at : text;
        end = at < text ? run_end(m, text, at, tokens) : tokens;
        if (n == MAX_RUNS)
            return at_ops_poison(o, AT_EUNSUPPORTED, "StyleModelApply: more than %d style models",
                                 MAX_RUNS);
        at_tensor *own = spread(o, m + row * (text + 1), text, tokens, q->shape[2], end - at);
        parts[n++] = at_attention(o, at_narrow(o, q, 1, at, end - at), k, v, own, 0, false);
    }
    return at_ops_status(o) == AT_OK ? at_concat(o, 1, n, parts) : NULL;
}

static const at_patch_ops patch_ops = {.name = "StyleModelApply", .free = bias_free, .attn = attn};

at_status at_text_bias_patch(const at_tensor *bias, const at_patches *set, at_patches **out)
{
    text_bias *b = at_calloc(1, sizeof *b);
    if (!b) return at_fail(AT_ENOMEM, "StyleModelApply: no memory for a patch");
    b->bias = at_tensor_retain(bias);
    return at_patches_add(set, &patch_ops, b, out);
}
