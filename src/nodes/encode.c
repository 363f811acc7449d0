// SPDX-License-Identifier: Apache-2.0
// encode.c - from a prompt to a conditioning.
// Easy to get wrong: a weighted prompt is interpolated against the encoding of an *empty* prompt of the same
// length, in the same batch; the pooled vector is the first chunk's and carries no weights.
#include "nodes/encode.h"

#include <string.h>

#include "base/mem.h"
#include "text/prompt.h"

// Ids of all chunks, and one empty chunk behind them when a weight asks for it: [rows, len].
typedef struct batch {
    int32_t *ids;
    int64_t rows, len;
} batch;

static void empty_row(int32_t *row, int64_t len, const at_chunking *how)
{
    int64_t n = 0;
    if (how->has_bos && n < len) row[n++] = how->bos;
    if (how->has_eos && n < len) row[n++] = how->eos;
    while (n < len)
        row[n++] = how->pad;
}

static at_status batch_make(const at_chunks *chunks, const at_chunking *how, batch *out)
{
    int64_t len = 0;
    for (size_t i = 0; i < chunks->count; i++)
        if (chunks->items[i].len > len) len = chunks->items[i].len;
    out->len = len;
    out->rows = (int64_t)chunks->count + (chunks->weighted ? 1 : 0);
    out->ids = at_calloc((size_t)(out->rows * len), sizeof *out->ids);
    if (!out->ids) return at_fail(AT_ENOMEM, "prompt: no memory for %lld tokens", (long long)len);
    for (size_t i = 0; i < chunks->count; i++) {
        int32_t *row = out->ids + (int64_t)i * len;
        for (int64_t j = 0; j < len; j++)
            row[j] = j < chunks->items[i].len ? chunks->items[i].ids[j] : how->pad;
    }
    if (chunks->weighted) empty_row(out->ids + (int64_t)chunks->count * len, len, how);
    return AT_OK;
}

// z = (z - z_empty) * w + z_empty for every token: w varies along tokens, so as [1, t, 1].
static at_tensor *weigh(at_ops *o, const at_tensor *hidden, const at_chunk *chunk, int64_t row,
                        int64_t empty_row_index, int64_t len)
{
    at_tensor *z = at_narrow(o, hidden, 0, row, 1);
    at_tensor *empty = at_narrow(o, hidden, 0, empty_row_index, 1);
    at_tensor *w = at_from_host(o, AT_F32, 3, (int64_t[]){1, len, 1}, chunk->weights);
    at_tensor *delta = at_binary(o, AT_SUB, z, empty, AT_ACT_NONE);
    return at_add(o, at_mul(o, delta, w), empty);
}

// All chunks of one encoder, joined along tokens: hidden [1, n * len, d].
static at_status encode_one(at_ops *o, const at_clip_encoder *e, const char *text,
                            const at_chunking *how, int layer, bool final_norm, at_encoded *out)
{
    at_status st = AT_OK;
    at_chunks chunks = {0};
    batch b = {0};
    at_tensor *parts[64];

    AT_TRY(at_prompt_chunks(e->tokenizer, text, how, &chunks));
    if (chunks.count > AT_COUNT(parts))
        AT_TRY(at_fail(AT_EINVAL, "the prompt has %zu chunks of %d tokens; %zu is the most",
                       chunks.count, how->max_length, AT_COUNT(parts)));
    AT_TRY(batch_make(&chunks, how, &b));
    at_encode_in in = {.ids = b.ids,
                       .batch = b.rows,
                       .tokens = b.len,
                       .layer = layer,
                       .final_norm = final_norm,
                       .eos = how->max_length ? how->eos : -1};
    at_encoded all = at_encoder_forward(o, e->encoder, &in);
    AT_TRY(at_ops_status(o));
    for (size_t i = 0; i < chunks.count; i++)
        parts[i] = chunks.weighted
                       ? weigh(o, all.hidden, &chunks.items[i], (int64_t)i, b.rows - 1, b.len)
                       : at_narrow(o, all.hidden, 0, (int64_t)i, 1);
    out->hidden = chunks.count == 1
                      ? at_contiguous(o, parts[0])
                      : at_concat(o, 1, (int)chunks.count, (const at_tensor *const *)parts);
    out->pooled = all.pooled ? at_contiguous(o, at_narrow(o, all.pooled, 0, 0, 1)) : NULL;
    AT_TRY(at_ops_status(o));
out:
    at_free(b.ids);
    at_chunks_free(&chunks);
    return st;
}

static at_chunking clip_chunking(const at_clip_encoder *e)
{
    const at_tokenizer *t = e->tokenizer;
    return (at_chunking){.max_length = (int)at_encoder_max_tokens(e->encoder),
                         .has_bos = true,
                         .has_eos = true,
                         .bos = at_tokenizer_bos(t),
                         .eos = at_tokenizer_eos(t),
                         .pad = at_tokenizer_eos(t),
                         .max_word_length = 8,
                         .weights = true};
}

// A tokenizer whose own file asks for a fixed length wins over the family's minimum.
static at_chunking t5_chunking(const at_clip_encoder *e, int family_minimum)
{
    const at_tokenizer *t = e->tokenizer;
    int fixed = at_tokenizer_fixed_length(t);
    return (at_chunking){.min_length = fixed ? fixed : family_minimum,
                         .has_eos = true,
                         .eos = at_tokenizer_eos(t),
                         .pad = at_tokenizer_pad(t),
                         .max_word_length = 8,
                         .weights = true};
}

#define FLUX_MIN_TOKENS  256
#define SD3_MIN_TOKENS   77
#define SD3_POOLED_WIDTH 2048

// Move scope tensors into a conditioning of one entry.
static at_status give_cond(at_ops *o, at_tensor *context, at_tensor *pooled, at_object **out)
{
    at_object *cond = at_obj_cond_new(1);
    if (!cond) return at_fail(AT_ENOMEM, "conditioning: no memory");
    at_cond *c = ((at_obj_cond *)cond)->items;
    c->context = at_ops_keep(o, context);
    c->pooled = at_ops_keep(o, pooled);
    *out = cond;
    return AT_OK;
}

at_status at_encode_prompt(at_ops *o, const at_obj_clip *clip, const char *clip_l_text,
                           const char *t5_text, at_object **out)
{
    at_status st = AT_OK;
    at_encoded l = {0}, t5 = {0};
    int layer = clip->last_layer;

    if (clip->enc[AT_TE_L].encoder) {
        at_chunking how = clip_chunking(&clip->enc[AT_TE_L]);
        AT_TRY(encode_one(o, &clip->enc[AT_TE_L], clip_l_text, &how, layer, true, &l));
    }
    if (clip->enc[AT_TE_T5].encoder) {
        at_chunking how = t5_chunking(&clip->enc[AT_TE_T5],
                                      clip->kind == AT_CLIP_SD3 ? SD3_MIN_TOKENS : FLUX_MIN_TOKENS);
        AT_TRY(encode_one(o, &clip->enc[AT_TE_T5], t5_text, &how, 0, true, &t5));
    }
    switch (clip->kind) {
    case AT_CLIP_SD1: AT_TRY(give_cond(o, l.hidden, l.pooled, out)); break;
    case AT_CLIP_FLUX: AT_TRY(give_cond(o, t5.hidden, l.pooled, out)); break;
    case AT_CLIP_SD3: {
        at_tensor *none = at_zeros(o, AT_F32, 2, (int64_t[]){1, SD3_POOLED_WIDTH});
        AT_TRY(at_ops_status(o));
        AT_TRY(give_cond(o, t5.hidden, none, out));
        break;
    }
    }
out:
    return st;
}
