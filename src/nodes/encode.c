// SPDX-License-Identifier: Apache-2.0
// encode.c - from prompts to a conditioning.
// Idea: each encoder turns its text into one hidden state (chunks joined along tokens) and one pooled
// vector; a row per kind of CLIP object says which layer counts, and a small function joins them.
// Easy to get wrong:
//   - a weighted prompt is interpolated against the encoding of an *empty* prompt of the same length,
//     in the same batch; the pooled vector is the first chunk's and carries no weights
//   - CLIP-L pads with EOS, CLIP-G and CLIP-H with 0; an intermediate state passes the final norm in
//     SD1 and SD2 and not in SDXL and SD3; "clip skip" beyond the layers means the last one, with norm
//   - pooled is projected, but for Flux and SD3's CLIP-L
#include "nodes/encode.h"
#include "nodes/rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "nodes/embedding.h"
#include "nodes/encode_ranks.h"
#include "text/prompt.h"

enum {
    MAX_CHUNKS = 64,
    FLUX_MIN_TOKENS = 256,
    SD3_MIN_TOKENS = 77,
    SD3_WIDTH = 4096,
    CLIP_L_WIDTH = 768,
    CLIP_G_WIDTH = 1280
};

// How a kind reads its CLIP encoders; layer 0: the last.
typedef struct kind_rule {
    int clip_layer;
    bool clip_norm;    // intermediate states pass the final norm
    int t5_minimum;    // tokens
    bool l_pooled_raw; // CLIP-L's pooled vector before its projection
} kind_rule;

static const kind_rule kind_rules[AT_CLIP_KIND_COUNT] = {
    [AT_CLIP_SD1] = {0, true, 0, false},
    [AT_CLIP_SD2] = {-2, true, 0, false},
    [AT_CLIP_SDXL] = {-2, false, 0, false},
    [AT_CLIP_REFINER] = {-2, false, 0, false},
    [AT_CLIP_SD3] = {-2, false, SD3_MIN_TOKENS, true},
    [AT_CLIP_FLUX] = {0, true, FLUX_MIN_TOKENS, true},
};

// One encoder's part of a prompt: tokens, then what came of them.
typedef struct part {
    const at_clip_encoder *e; // NULL: the CLIP object has none
    at_embeddings embeddings;
    at_chunking how;
    at_chunks chunks;
    size_t extra; // empty chunks behind
    int layer;
    bool final_norm;
    at_tensor *hidden, *pooled; // [1, n * len, d], [1, d]
} part;

// --- tokens ------------------------------------------------------------------------------------
// Ids of all chunks, and one empty chunk behind them when a weight asks for it: [rows, len].
typedef struct batch {
    int32_t *ids;
    int64_t rows, len;
    at_encode_row *given; // tokens that are rows of files
    size_t n_given;
} batch;

static void batch_free(batch *b)
{
    at_free(b->ids);
    at_free(b->given);
}

static void empty_row(int32_t *row, int64_t len, const at_chunking *how)
{
    int64_t n = 0;
    if (how->has_bos && n < len) row[n++] = how->bos;
    if (how->has_eos && n < len) row[n++] = how->eos;
    while (n < len)
        row[n++] = how->pad;
}

// One chunk's row. Rows of files that are of another width than the encoder's are left out, and as many
// pads follow; weights stay with the places that they were written for.
static void fill_row(const part *p, const at_chunk *c, int64_t row, batch *out)
{
    int64_t width = at_encoder_width(p->e->encoder), n = 0, begin = row * out->len;

    for (int64_t j = 0; j < c->len; j++) {
        if (c->vectors[j].rows && c->vectors[j].width != width) {
            at_log(AT_WARN, "EMBEDDING-WIDTH",
                   "an embedding of width %lld is left out: the encoder's are %lld wide",
                   (long long)c->vectors[j].width, (long long)width);
            continue;
        }
        if (c->vectors[j].rows)
            out->given[out->n_given++] = (at_encode_row){begin + n, c->vectors[j].rows};
        out->ids[begin + n++] = c->ids[j];
    }
    while (n < out->len)
        out->ids[begin + n++] = p->how.pad;
}

static at_status batch_make(const part *p, batch *out)
{
    const at_chunks *chunks = &p->chunks;
    int64_t len = 0, n = (int64_t)chunks->count;
    for (size_t i = 0; i < chunks->count; i++)
        if (chunks->items[i].len > len) len = chunks->items[i].len;
    if (!n) len = p->extra ? p->how.max_length : p->how.has_bos + p->how.has_eos;
    out->len = len;
    out->rows = n + (chunks->weighted || p->extra || !n);
    out->ids = at_calloc((size_t)(out->rows * len), sizeof *out->ids);
    out->given = at_calloc((size_t)(out->rows * len), sizeof *out->given);
    if (!out->ids || !out->given)
        return at_fail(AT_ENOMEM, "prompt: no memory for %lld tokens", (long long)len);
    for (int64_t i = 0; i < n; i++)
        fill_row(p, &chunks->items[i], i, out);
    if (out->rows > n) empty_row(out->ids + n * len, len, &p->how);
    return AT_OK;
}

static at_chunking clip_chunking(const at_clip_encoder *e, at_te place)
{
    const at_tokenizer *t = e->tokenizer;
    return (at_chunking){.max_length = (int)at_encoder_max_tokens(e->encoder),
                         .has_bos = true,
                         .has_eos = true,
                         .bos = at_tokenizer_bos(t),
                         .eos = at_tokenizer_eos(t),
                         .pad = place == AT_TE_L ? at_tokenizer_eos(t) : 0,
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

// The layer that counts: the kind's own, or what CLIPSetLastLayer says if there are so many.
static int layer_of(const at_obj_clip *clip, const at_clip_encoder *e, int own)
{
    int asked = clip->last_layer ? clip->last_layer : own;
    return asked < 0 && -(int64_t)asked > at_encoder_layers(e->encoder) ? 0 : asked;
}

static at_status tokenize(const at_obj_clip *clip, at_te place, const at_prompt_texts *texts,
                          part *p)
{
    const kind_rule *rule = &kind_rules[clip->kind];
    const char *text = texts->text[place] ? texts->text[place] : "";
    at_status st = AT_OK;

    if (!clip->enc[place].encoder) return AT_OK;
    p->e = &clip->enc[place];
    p->how = place == AT_TE_T5 ? t5_chunking(p->e, rule->t5_minimum) : clip_chunking(p->e, place);
    if (place == AT_TE_T5 && clip->t5_sized) {
        p->how.min_length = at_int_of(clip->t5_length);
        p->how.min_padding = at_int_of(clip->t5_padding);
    }
    p->layer = layer_of(clip, p->e, place == AT_TE_T5 ? 0 : rule->clip_layer);
    p->final_norm = place == AT_TE_T5 || rule->clip_norm;
    if (texts->none[place]) return AT_OK;
    if (texts->env) {
        at_embeddings_init(&p->embeddings, texts->env, place, at_encoder_width(p->e->encoder));
        p->how.embeddings = &p->embeddings.source;
    }
    AT_TRY(at_prompt_chunks(p->e->tokenizer, text, &p->how, &p->chunks));
    if (texts->drop_group > 0) at_chunks_drop(&p->chunks, texts->drop_group);
    if (p->chunks.count > MAX_CHUNKS)
        AT_TRY(at_fail(AT_EINVAL, "the prompt has %zu chunks of %d tokens; %d is the most",
                       p->chunks.count, p->how.max_length, MAX_CHUNKS));
out:
    return st;
}

// How many chunks `place` would have; its tokenizer may be the other CLIP's, which has the same words.
static at_status chunk_count(const at_obj_clip *clip, at_te place, const at_prompt_texts *texts,
                             const part *parts, size_t *out)
{
    at_te other = place == AT_TE_L ? AT_TE_G : AT_TE_L;
    at_chunks chunks = {0};
    at_status st = AT_OK;

    *out = parts[place].chunks.count;
    if (clip->enc[place].encoder || !clip->enc[other].encoder || texts->none[place]) return AT_OK;
    at_chunking how = clip_chunking(&clip->enc[other], other);
    AT_TRY(at_prompt_chunks(clip->enc[other].tokenizer,
                            texts->text[place] ? texts->text[place] : "", &how, &chunks));
    *out = chunks.count;
out:
    at_chunks_free(&chunks);
    return st;
}

static at_status level_chunks(const at_obj_clip *clip, const at_prompt_texts *texts, part *parts)
{
    size_t l, g;
    at_status st = AT_OK;

    if (!texts->same_chunks) return AT_OK;
    AT_TRY(chunk_count(clip, AT_TE_L, texts, parts, &l));
    AT_TRY(chunk_count(clip, AT_TE_G, texts, parts, &g));
    size_t most = l > g ? l : g;
    if (most > MAX_CHUNKS)
        AT_TRY(at_fail(AT_EINVAL, "a prompt has %zu chunks; %d is the most", most, MAX_CHUNKS));
    parts[AT_TE_L].extra = most - l;
    parts[AT_TE_G].extra = most - g;
out:
    return st;
}

// --- one encoder -------------------------------------------------------------------------------
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

// Chunk i of a part's states; behind its own chunks stand empty ones.
static at_tensor *chunk_state(at_ops *o, const part *p, const batch *b, const at_tensor *hidden,
                              size_t i)
{
    if (i >= p->chunks.count) return at_narrow(o, hidden, 0, b->rows - 1, 1);
    if (!p->chunks.weighted) return at_narrow(o, hidden, 0, (int64_t)i, 1);
    return weigh(o, hidden, &p->chunks.items[i], (int64_t)i, b->rows - 1, b->len);
}

// All chunks of one encoder, joined along tokens; pooled of the first.
static at_status encode_part(at_env *env, at_ops *o, part *p, bool raw_pooled)
{
    at_status st = AT_OK;
    batch b = {0};
    at_tensor *states[MAX_CHUNKS];
    size_t n = p->chunks.count + p->extra;

    if (!p->e) return AT_OK;
    if (!n) n = 1;
    AT_TRY(batch_make(p, &b));
    at_encode_in in = {.ids = b.ids,
                       .rows = b.given,
                       .n_rows = b.n_given,
                       .batch = b.rows,
                       .tokens = b.len,
                       .layer = p->layer,
                       .final_norm = p->final_norm,
                       .eos = p->how.max_length ? p->how.eos : -1};
    at_encoded all = at_encode_forward(env, o, p->e->encoder, &in);
    AT_TRY(at_ops_status(o));
    for (size_t i = 0; i < n; i++)
        states[i] = chunk_state(o, p, &b, all.hidden, i);
    p->hidden = n == 1 ? at_contiguous(o, states[0])
                       : at_concat(o, 1, (int)n, (const at_tensor *const *)states);
    at_tensor *pooled = !raw_pooled && all.pooled_projected ? all.pooled_projected : all.pooled;
    p->pooled = pooled ? at_contiguous(o, at_narrow(o, pooled, 0, 0, 1)) : NULL;
    AT_TRY(at_ops_status(o));
out:
    batch_free(&b);
    return st;
}

// --- joining -----------------------------------------------------------------------------------
static at_tensor *zeros(at_ops *o, int64_t tokens, int64_t width)
{
    return at_zeros(o, AT_F32, 3, (int64_t[]){1, tokens, width});
}

// States side by side, cut to the shorter.
static at_tensor *side_by_side(at_ops *o, const at_tensor *a, const at_tensor *b)
{
    if (!a || !b) return NULL;
    int64_t n = a->shape[1] < b->shape[1] ? a->shape[1] : b->shape[1];
    return at_concat(o, 2, 2,
                     (const at_tensor *[]){at_narrow(o, a, 1, 0, n), at_narrow(o, b, 1, 0, n)});
}

// CLIP-L and CLIP-G as SD3 wants them: an absent CLIP-L is zeros, and zeros follow up to T5's width.
static at_tensor *sd3_clip_state(at_ops *o, const part *l, const part *g, int64_t width)
{
    at_tensor *both = l->hidden;
    if (!l->hidden && !g->hidden) return NULL;
    if (g->hidden)
        both = side_by_side(o, l->hidden ? l->hidden : zeros(o, g->hidden->shape[1], CLIP_L_WIDTH),
                            g->hidden);
    if (!both || both->shape[2] >= width) return both;
    at_tensor *rest = zeros(o, both->shape[1], width - both->shape[2]);
    return at_concat(o, 2, 2, (const at_tensor *[]){both, rest});
}

static at_tensor *sd3_pooled(at_ops *o, const part *p, int64_t width)
{
    return p->pooled ? p->pooled : at_zeros(o, AT_F32, 2, (int64_t[]){1, width});
}

static void join_sd3(at_ops *o, const part *parts, at_tensor **context, at_tensor **pooled)
{
    const part *l = &parts[AT_TE_L], *g = &parts[AT_TE_G], *t5 = &parts[AT_TE_T5];
    int64_t width = t5->hidden ? t5->hidden->shape[2] : SD3_WIDTH;
    at_tensor *clip = sd3_clip_state(o, l, g, width);

    *context = clip && t5->hidden ? at_concat(o, 1, 2, (const at_tensor *[]){clip, t5->hidden})
               : clip             ? clip
               : t5->hidden       ? t5->hidden
                                  : zeros(o, SD3_MIN_TOKENS, SD3_WIDTH);
    at_tensor *l_pooled = sd3_pooled(o, l, CLIP_L_WIDTH),
              *g_pooled = sd3_pooled(o, g, CLIP_G_WIDTH);
    *pooled = at_concat(o, 1, 2, (const at_tensor *[]){l_pooled, g_pooled});
}

static void join(at_ops *o, at_clip_kind kind, const part *parts, at_tensor **context,
                 at_tensor **pooled)
{
    const part *l = &parts[AT_TE_L], *g = &parts[AT_TE_G], *h = &parts[AT_TE_H];
    switch (kind) {
    case AT_CLIP_SD1: *context = l->hidden, *pooled = l->pooled; break;
    case AT_CLIP_SD2: *context = h->hidden, *pooled = h->pooled; break;
    case AT_CLIP_REFINER: *context = g->hidden, *pooled = g->pooled; break;
    case AT_CLIP_FLUX: *context = parts[AT_TE_T5].hidden, *pooled = l->pooled; break;
    case AT_CLIP_SDXL:
        *context = side_by_side(o, l->hidden, g->hidden);
        *pooled = g->pooled;
        break;
    case AT_CLIP_SD3: join_sd3(o, parts, context, pooled); break;
    case AT_CLIP_KIND_COUNT: break;
    }
}

// Move scope tensors into a conditioning of one entry.
static at_status give_cond(at_ops *o, at_tensor *context, at_tensor *pooled, at_object **out)
{
    if (at_ops_status(o) != AT_OK) return at_ops_status(o);
    if (!context) return at_fail(AT_EINVAL, "the CLIP lacks an encoder that its kind needs");
    at_object *cond = at_obj_cond_new(1);
    if (!cond) return at_fail(AT_ENOMEM, "conditioning: no memory");
    at_cond *c = ((at_obj_cond *)cond)->items;
    c->context = at_ops_keep(o, context);
    c->pooled = at_ops_keep(o, pooled);
    *out = cond;
    return AT_OK;
}

at_status at_encode_open(const at_node_ctx *c, const at_obj_clip *clip, at_ops **out)
{
    at_ops_config with;

    at_env_config_for(c, AT_ENV_TEXT, clip->device, AT_DTYPE_COUNT, at_obj_clip_f16(clip), &with);
    return at_ops_new(&with, out);
}

// What other nodes take and mix lies on one device.
static at_status bring_home(const at_env *env, at_object *cond)
{
    at_cond *c = ((at_obj_cond *)cond)->items;
    at_status st = env ? at_tensor_bring(env->device, &c->context) : AT_OK;

    return env && st == AT_OK ? at_tensor_bring(env->device, &c->pooled) : st;
}

at_status at_encode_texts(at_ops *o, const at_obj_clip *clip, const at_prompt_texts *texts,
                          at_object **out)
{
    at_status st = AT_OK;
    at_tensor *context = NULL, *pooled = NULL;
    at_object *cond = NULL;
    part *parts = at_calloc(AT_TE_COUNT, sizeof *parts);

    if (!parts) AT_TRY(at_fail(AT_ENOMEM, "prompt: no memory"));
    for (int i = 0; i < AT_TE_COUNT; i++)
        AT_TRY(tokenize(clip, (at_te)i, texts, &parts[i]));
    AT_TRY(level_chunks(clip, texts, parts));
    bool no_clip = clip->kind == AT_CLIP_SD3 && texts->none[AT_TE_L] && texts->none[AT_TE_G];
    for (int i = 0; i < AT_TE_COUNT; i++) {
        bool raw = i == AT_TE_L && kind_rules[clip->kind].l_pooled_raw;
        if (no_clip && i != AT_TE_T5) continue;
        AT_TRY(encode_part(texts->env, o, &parts[i], raw || texts->raw_pooled));
    }
    join(o, clip->kind, parts, &context, &pooled);
    AT_TRY(give_cond(o, context, pooled, &cond));
    AT_TRY(bring_home(texts->env, cond));
    at_cond_set_object(&((at_obj_cond *)cond)->items[0].extra[AT_COND_HOOKS],
                       at_object_retain(clip->hooks));
    *out = cond;
    cond = NULL;
out:
    at_object_release(cond);
    for (int i = 0; parts && i < AT_TE_COUNT; i++) {
        at_chunks_free(&parts[i].chunks);
        at_embeddings_free(&parts[i].embeddings);
    }
    at_free(parts);
    return st;
}

at_status at_encode_prompt(at_env *env, at_ops *o, const at_obj_clip *clip, const char *clip_text,
                           const char *t5_text, at_object **out)
{
    return at_encode_texts(
        o, clip, &(at_prompt_texts){.env = env, .text = {clip_text, clip_text, clip_text, t5_text}},
        out);
}
