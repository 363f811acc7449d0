// SPDX-License-Identifier: Apache-2.0
// t5.c - T5 v1.1's encoder.
// Idea: Raffel et al. 2020 (arXiv:1910.10683), the v1.1 form: RMS norms, a gated GELU MLP, and
// positions as a learned bias per head and distance bucket, shared by all layers.
// Easy to get wrong:
//   - attention scores are not divided by sqrt(d): the scale lies in the weights
//   - distance is key minus query; 32 buckets, half for each sign: 8 exact ones, then logarithmic
//     ones up to 128
//   - the residual stream grows past what f16 holds and loses too much in bf16: it stays f32 here
//   - Flux gives no attention mask: padding (id 0) is attended to
//   - umT5 has a bias table in every block, v1.1 only in block 0
// Owns nothing: tensors belong to op scopes.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "models/arch.h"

typedef struct t5_config {
    int64_t vocab, width, layers, heads, inner, mlp, buckets;
    int64_t head_dim; // derived
} t5_config;

typedef struct t5_block {
    const at_weight *q, *k, *v, *o, *bias, *norm1, *gate, *up, *down, *norm2;
} t5_block;

typedef struct t5_weights {
    const at_weight *tokens, *final;
    t5_block *blocks;
} t5_weights;

enum { MAX_DISTANCE = 128 };
static const float norm_eps = 1e-6f;

#define SIZE(field_, how_, key_, dim_)                                                             \
    {                                                                                              \
        .name = #field_, .offset = offsetof(t5_config, field_), .how = how_, .key = key_,          \
        .dim = dim_                                                                                \
    }
#define F(field) AT_FIELD(t5_config, field)
// Shares of ranks: heads and the MLP's units.
static const at_bind_cut cut_heads = {.run = {{F(inner), F(head_dim), 1}}},
                         cut_o = {.columns = true, .run = {{F(inner), F(head_dim), 1}}},
                         cut_mlp = {.run = {{F(mlp), 0, 1}}},
                         cut_down = {.columns = true, .run = {{F(mlp), 0, 1}}};
#define MAT_CUT(field, key_, out, in, cut_)                                                        \
    {                                                                                              \
        .key = key_ ".weight", .offset = offsetof(t5_block, field), .rank = 2,                     \
        .dim = {F(out), F(in)}, .cut = &cut_                                                       \
    }
#define ATT "layer.0.SelfAttention."
#define MLP "layer.1.DenseReluDense."

static const at_size_row sizes[] = {
    SIZE(vocab, AT_SIZE_DIM, "shared.weight", 0),
    SIZE(width, AT_SIZE_DIM, "encoder.final_layer_norm.weight", 0),
    SIZE(layers, AT_SIZE_COUNT, "encoder.block.%d.layer.1.DenseReluDense.wi_0.weight", 0),
    SIZE(heads, AT_SIZE_DIM, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
         1),
    SIZE(buckets, AT_SIZE_DIM,
         "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 0),
    SIZE(inner, AT_SIZE_DIM, "encoder.block.0.layer.0.SelfAttention.q.weight", 0),
    SIZE(mlp, AT_SIZE_DIM, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0),
};

static const at_bind_row rows_outer[] = {
    {.key = "shared.weight",
     .offset = offsetof(t5_weights, tokens),
     .rank = 2,
     .dim = {F(vocab), F(width)}},
    {.key = "encoder.final_layer_norm.weight",
     .offset = offsetof(t5_weights, final),
     .rank = 1,
     .dim = {F(width)}},
};

static const at_bind_row rows_block[] = {
    MAT_CUT(q, ATT "q", inner, width, cut_heads),
    MAT_CUT(k, ATT "k", inner, width, cut_heads),
    MAT_CUT(v, ATT "v", inner, width, cut_heads),
    MAT_CUT(o, ATT "o", width, inner, cut_o),
    {.key = ATT "relative_attention_bias.weight",
     .offset = offsetof(t5_block, bias),
     .optional = true,
     .rank = 2,
     .dim = {F(buckets), F(heads)}},
    {.key = "layer.0.layer_norm.weight",
     .offset = offsetof(t5_block, norm1),
     .rank = 1,
     .dim = {F(width)}},
    MAT_CUT(gate, MLP "wi_0", mlp, width, cut_mlp),
    MAT_CUT(up, MLP "wi_1", mlp, width, cut_mlp),
    MAT_CUT(down, MLP "wo", width, mlp, cut_down),
    {.key = "layer.1.layer_norm.weight",
     .offset = offsetof(t5_block, norm2),
     .rank = 1,
     .dim = {F(width)}},
};

static const at_bind_group groups[] = {
    {.base = "", .rows = rows_outer, .n_rows = AT_LEN(rows_outer)},
    {.base = "encoder.block.%d.",
     .rows = rows_block,
     .n_rows = AT_LEN(rows_block),
     .count = F(layers),
     .array = offsetof(t5_weights, blocks),
     .size = sizeof(t5_block)},
};

static const char *derive(void *config)
{
    t5_config *c = config;
    if (c->layers < 1) return "there are no blocks";
    if (c->inner % c->heads) return "the attention width is no multiple of the heads";
    if (c->buckets % 4 || c->buckets > 1024)
        return "the number of distance buckets is no multiple of 4";
    c->head_dim = c->inner / c->heads;
    return NULL;
}

// --- forward -----------------------------------------------------------------------------------
// Bucket of the distance key - query.
static int64_t bucket_of(int64_t distance, int64_t buckets)
{
    int64_t half = buckets / 2, exact = half / 2, n = distance < 0 ? -distance : distance;
    int64_t side = distance > 0 ? half : 0;
    if (n < exact) return side + n;
    // f32 as the reference computes it; the nudge-free truncation agrees on every integer distance
    float f = logf((float)n / (float)exact) / (float)log((double)MAX_DISTANCE / (double)exact);
    int64_t far = exact + (int64_t)(f * (float)(half - exact));
    return side + (far < half - 1 ? far : half - 1);
}

// The bias of each head by distance, from key = query - (tokens - 1) on.
static void fill_lines(float *lines, const float *table, const t5_config *c, int64_t tokens)
{
    int64_t each = 2 * tokens - 1;
    for (int64_t i = 0; i < each; i++) { // the bucket takes longer than all heads
        int64_t bucket = bucket_of(i + 1 - tokens, c->buckets);
        for (int64_t h = 0; h < c->heads; h++)
            lines[h * each + i] = table[bucket * c->heads + h];
    }
}

// A line of 2t - 1 values for each head of each block that has a table: [tables * heads, 2t - 1] f32.
static at_tensor *bias_lines(at_ops *o, const at_bound *e, int64_t tokens)
{
    const t5_config *c = e->config;
    const t5_weights *w = e->weights;
    at_status st = AT_OK;
    at_tensor *lines = NULL;
    int64_t each = 2 * tokens - 1, n = c->buckets * c->heads, tables = 0;
    float *table = NULL, *to;

    for (int64_t i = 0; i < c->layers; i++)
        tables += w->blocks[i].bias != NULL;
    int64_t shape[] = {tables * c->heads, each};
    table = at_alloc((size_t)(n + shape[0] * each) * sizeof *table);
    if (!table) AT_TRY(at_fail(AT_ENOMEM, "no memory for %lld biases", (long long)n));
    to = table + n;
    for (int64_t i = 0; i < c->layers; i++) {
        if (!w->blocks[i].bias) continue;
        AT_TRY(at_weight_ready(w->blocks[i].bias));
        at_weight_read_f32(w->blocks[i].bias, 0, n, table);
        fill_lines(to, table, c, tokens);
        to += c->heads * each;
    }
    lines = at_from_host(o, AT_F32, 2, shape, table + n);
out:
    if (st != AT_OK)
        at_ops_poison(o, st, "position bias of %lld tokens: %s", (long long)tokens,
                      at_error_text());
    at_free(table);
    return lines;
}

// [1, heads, t, t] f32 of table i. A bias depends on key - query only: every row is a window on a head's
// line, one value before the last row's.
static at_tensor *position_bias(at_ops *o, const t5_config *c, const at_tensor *lines, int64_t i)
{
    if (!lines) return NULL;
    at_tensor *bias = NULL;
    int64_t each = lines->shape[1], t = (each + 1) / 2, windows[] = {1, c->heads, t, t};
    int64_t strides[] = {c->heads * each, each, -1, 1};
    at_status st = at_tensor_view(lines, 4, windows, strides, i * c->heads * each + t - 1, &bias);
    if (st != AT_OK) return at_ops_poison(o, st, "position bias: %s", at_error_text());
    return at_ops_adopt(o, bias);
}

// x f32; the result has the compute dtype.
static at_tensor *norm(at_ops *o, const at_tensor *x, const at_weight *w)
{
    at_norm_spec spec = {.weight = w, .eps = norm_eps, .rms = true};
    at_tensor *y = x ? at_empty(o, at_ops_compute(o), 3, x->shape) : NULL;
    return at_norm(at_into(o, y), x, &spec);
}

// Part i of q, k and v side by side, by heads: this rank's.
static at_tensor *heads(at_ops *o, const t5_config *c, const at_tensor *qkv, int i)
{
    int64_t width = qkv ? qkv->shape[2] / 3 : 0;
    at_tensor *y = at_narrow(o, qkv, 2, i * width, width);
    if (!y) return NULL;
    return at_reshape(o, y, 4,
                      (int64_t[]){y->shape[0], y->shape[1], width / c->head_dim, c->head_dim});
}

// Adds to x, which is f32, in place.
static void block(at_ops *o, const t5_config *c, const t5_block *w, const at_tensor *bias,
                  at_tensor *x)
{
    const at_linear_extra add = {.residual = x};
    const at_weight *parts[] = {w->q, w->k, w->v};
    at_tensor *h = norm(o, x, w->norm1);
    at_tensor *qkv = at_linear_beside(o, h, 3, parts);
    at_tensor *q = heads(o, c, qkv, 0), *k = heads(o, c, qkv, 1), *v = heads(o, c, qkv, 2);
    h = at_attention(o, q, k, v, at_share_heads(o, bias, 1), 1.0f, false);
    at_linear(at_into(o, x), h, w->o, NULL, &add);

    h = norm(o, x, w->norm2);
    h = at_geglu_apart(o, h, w->up, w->gate, AT_ACT_GELU_TANH);
    at_linear(at_into(o, x), h, w->down, NULL, &add);
}

// f32 [b, t, width]
static at_tensor *embed(at_ops *o, const at_bound *e, const at_encode_in *in)
{
    const t5_weights *w = e->weights;
    int64_t n = in->batch * in->tokens, width = w->tokens->shape[1];
    at_tensor *x = at_empty(o, AT_F32, 3, (int64_t[]){1, n, width});
    at_embedding(at_into(o, x), w->tokens, in->ids, n);
    x = at_encode_put_rows(o, x, in);
    return at_reshape(o, x, 3, (int64_t[]){in->batch, in->tokens, width});
}

static void run(at_ops *o, const at_bound *e, const at_encode_in *in, const at_tensor *lines,
                at_tensor *x, at_tensor *out[2])
{
    const t5_config *c = e->config;
    const t5_weights *w = e->weights;
    int64_t stop = in->layer < 0 ? c->layers + in->layer + 1 : c->layers, table = 0;

    if (stop < 1) {
        at_ops_poison(o, AT_EINVAL, "%s: layer %d of %lld", e->arch->title, in->layer,
                      (long long)c->layers);
        return;
    }
    at_tensor *bias = position_bias(o, c, lines, 0);
    for (int64_t i = 0; i < stop && at_ops_status(o) == AT_OK; i++) {
        const t5_block *b = &w->blocks[i];
        if (i && b->bias) bias = position_bias(o, c, lines, ++table);
        at_scope_begin(o);
        block(o, c, b, bias, x);
        at_scope_end(o, NULL);
    }
    at_norm_spec final = {.weight = w->final, .eps = norm_eps, .rms = true};
    if (in->layer == 0 || in->final_norm) x = at_norm(o, x, &final);
    out[0] = x;
}

// --- descriptor --------------------------------------------------------------------------------
static const at_encoder_ops ops = {
    .embed = embed,
    .shared = bias_lines,
    .run = run,
    .vocab = F(vocab),
    .width = F(width),
    .layers = F(layers),
    .act = AT_ACT_GELU_TANH,
};

static const at_probe probes[] = {
    {.key = "encoder.block.0.layer.0.SelfAttention.q.weight"},
    {.key = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"},
    {.key = "shared.weight"},
};

const at_arch at_arch_t5 = {
    .name = "t5",
    .title = "T5 v1.1 encoder",
    .part = AT_PART_TEXT,
    .probes = probes,
    .n_probes = AT_LEN(probes),
    .sizes = sizes,
    .n_sizes = AT_LEN(sizes),
    .config_size = sizeof(t5_config),
    .derive = derive,
    .groups = groups,
    .n_groups = AT_LEN(groups),
    .weights_size = sizeof(t5_weights),
    .encoder = &ops,
};
