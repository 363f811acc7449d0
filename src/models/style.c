// SPDX-License-Identifier: Apache-2.0
// style.c - style models: Flux Redux, and the style adapter of T2I.
// Idea: what a picture encoder saw becomes text tokens. Redux is a small MLP over each of SigLIP's
// tokens; the adapter lets eight tokens of its own look at CLIP's and keeps those.
// Easy to get wrong: the adapter's own tokens stand behind the picture's; its last matrix is
// multiplied from the right.
// Source: ComfyUI 0.3.64 comfy/ldm/flux/redux.py, comfy/t2i_adapter/adapter.py (StyleAdapter).
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>

#include "models/convert.h"

enum { HEADS = 8 };
static const float norm_eps = 1e-5f;

// --- Redux -------------------------------------------------------------------------------------
typedef struct redux_config {
    int64_t seen, middle, text;
} redux_config;
typedef struct redux_weights {
    at_lin up, down;
} redux_weights;

#define R(field) AT_FIELD(redux_config, field)
#define LIN(type, field_, key_, out_, in_)                                                         \
    {.key = key_ ".weight", .offset = offsetof(type, field_.w), .rank = 2, .dim = {out_, in_}},    \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field_.b), .rank = 1, .dim = { out_ }        \
    }
#define SIZE(type, field_, how_, key_, dim_)                                                       \
    {                                                                                              \
        .name = #field_, .offset = offsetof(type, field_), .how = how_, .key = key_, .dim = dim_   \
    }
static const at_size_row redux_sizes[] = {
    SIZE(redux_config, seen, AT_SIZE_DIM, "redux_up.weight", 1),
    SIZE(redux_config, middle, AT_SIZE_DIM, "redux_up.weight", 0),
    SIZE(redux_config, text, AT_SIZE_DIM, "redux_down.weight", 0),
};
static const at_bind_row redux_rows[] = {
    LIN(redux_weights, up, "redux_up", R(middle), R(seen)),
    LIN(redux_weights, down, "redux_down", R(text), R(middle)),
};
static const at_bind_group redux_groups[] = {
    {.base = "", .rows = redux_rows, .n_rows = AT_LEN(redux_rows)}};

static at_tensor *check_width(at_ops *o, const at_bound *m, const at_tensor *seen, int64_t want)
{
    if (seen->rank == 3 && seen->shape[2] == want) return (at_tensor *)seen;
    return at_ops_poison(o, AT_EINVAL,
                         "%s takes tokens of width %lld, the picture encoder gave %lld; use the "
                         "encoder that belongs to it",
                         m->arch->title, (long long)want, (long long)seen->shape[seen->rank - 1]);
}

static at_tensor *redux_style(at_ops *o, const at_bound *m, const at_tensor *seen)
{
    const redux_config *c = m->config;
    const redux_weights *w = m->weights;
    at_tensor *x = check_width(o, m, seen, c->seen);
    x = at_linear(o, x, w->up.w, w->up.b, &(at_linear_extra){.act = AT_ACT_SILU});
    return at_linear(o, x, w->down.w, w->down.b, NULL);
}

// --- T2I's adapter -----------------------------------------------------------------------------
typedef struct adapter_config {
    int64_t width, tokens, text, layers, qkv;
} adapter_config;
typedef struct adapter_layer {
    at_lin qkv, out, norm1, norm2, fc1, fc2;
} adapter_layer;
typedef struct adapter_weights {
    const at_weight *tokens, *projection;
    at_lin before, after;
    adapter_layer *layers;
} adapter_weights;

#define A(field) AT_FIELD(adapter_config, field)
#define VEC(type, field_, key_, size_)                                                             \
    {                                                                                              \
        .key = key_, .offset = offsetof(type, field_), .rank = 1, .dim = { size_ }                 \
    }
#define NORM(type, field_, key_)                                                                   \
    VEC(type, field_.w, key_ ".weight", A(width)), VEC(type, field_.b, key_ ".bias", A(width))
static const at_size_row adapter_sizes[] = {
    SIZE(adapter_config, width, AT_SIZE_DIM, "style_embedding", 2),
    SIZE(adapter_config, tokens, AT_SIZE_DIM, "style_embedding", 1),
    SIZE(adapter_config, text, AT_SIZE_DIM, "proj.weight", 0),
    SIZE(adapter_config, qkv, AT_SIZE_DIM, "transformer_layes.0.attn.in_proj_weight", 0),
    SIZE(adapter_config, layers, AT_SIZE_COUNT, "transformer_layes.%d.attn.in_proj_weight", 0),
};
static const at_bind_row adapter_rows[] = {
    {.key = "style_embedding",
     .offset = offsetof(adapter_weights, tokens),
     .rank = 3,
     .dim = {0, A(tokens), A(width)}},
    {.key = "proj.weight",
     .offset = offsetof(adapter_weights, projection),
     .rank = 2,
     .dim = {A(text), A(width)}},
    NORM(adapter_weights, before, "ln_pre"),
    NORM(adapter_weights, after, "ln_post"),
};
static const at_bind_row adapter_layer_rows[] = {
    {.key = "attn.in_proj_weight",
     .offset = offsetof(adapter_layer, qkv.w),
     .rank = 2,
     .dim = {A(qkv), A(width)}},
    VEC(adapter_layer, qkv.b, "attn.in_proj_bias", A(qkv)),
    LIN(adapter_layer, out, "attn.out_proj", A(width), A(width)),
    NORM(adapter_layer, norm1, "ln_1"),
    NORM(adapter_layer, norm2, "ln_2"),
    LIN(adapter_layer, fc1, "mlp.c_fc", 0, A(width)),
    LIN(adapter_layer, fc2, "mlp.c_proj", A(width), 0),
};
static const at_bind_group adapter_groups[] = {
    {.base = "", .rows = adapter_rows, .n_rows = AT_LEN(adapter_rows)},
    {.base = "transformer_layes.%d.",
     .rows = adapter_layer_rows,
     .n_rows = AT_LEN(adapter_layer_rows),
     .count = A(layers),
     .array = offsetof(adapter_weights, layers),
     .size = sizeof(adapter_layer)},
};

static const char *adapter_derive(void *config)
{
    const adapter_config *c = config;
    if (c->width % HEADS) return "its width does not split into 8 heads";
    if (c->qkv != 3 * c->width) return "q, k and v are not as wide as the tokens";
    return NULL;
}

static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin n)
{
    return at_norm(o, x, &(at_norm_spec){.weight = n.w, .bias = n.b, .eps = norm_eps});
}

static at_tensor *adapter_block(at_ops *o, const adapter_config *c, const adapter_layer *w,
                                const at_tensor *x)
{
    if (!x) return NULL;
    int64_t shape[] = {x->shape[0], x->shape[1], HEADS, c->width / HEADS};
    at_tensor *qkv = at_linear(o, norm(o, x, w->norm1), w->qkv.w, w->qkv.b, NULL), *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = at_reshape(o, at_narrow(o, qkv, 2, i * c->width, c->width), 4, shape);
    at_tensor *y = at_attention(o, part[0], part[1], part[2], NULL, 0, false);
    at_tensor *z = at_linear(o, y, w->out.w, w->out.b, &(at_linear_extra){.residual = x});
    y = at_linear(o, norm(o, z, w->norm2), w->fc1.w, w->fc1.b,
                  &(at_linear_extra){.act = AT_ACT_QUICK_GELU});
    return at_linear(o, y, w->fc2.w, w->fc2.b, &(at_linear_extra){.residual = z});
}

static at_tensor *adapter_style(at_ops *o, const at_bound *m, const at_tensor *seen)
{
    const adapter_config *c = m->config;
    const adapter_weights *w = m->weights;
    at_tensor *x = check_width(o, m, seen, c->width);
    if (!x) return NULL;
    int64_t b = x->shape[0], t = x->shape[1];
    at_tensor *own = at_zeros(o, AT_F32, 3, (int64_t[]){b, c->tokens, c->width});
    own = at_add(o, own, at_weight_tensor(o, w->tokens, AT_F32));
    x = at_concat(o, 1, 2, (const at_tensor *[]){at_cast(o, x, AT_F32), own});
    x = norm(o, at_cast(o, x, at_ops_compute(o)), w->before);
    for (int64_t i = 0; i < c->layers; i++)
        x = adapter_block(o, c, &w->layers[i], x);
    x = at_contiguous(o, at_narrow(o, x, 1, t, c->tokens));
    return at_linear(o, norm(o, x, w->after), w->projection, NULL, NULL);
}

// --- the adapter's file: its matrix turned on its side -----------------------------------------
static size_t rename_one(const void *ctx, const at_weight *w, const char *name, at_alias_row *rows)
{
    (void)ctx, (void)w;
    return snprintf(rows->name, sizeof rows->name, "%s", name) < (int)sizeof rows->name;
}

static at_status convert(at_store *s, const char *prefix, at_store **out)
{
    at_status st = AT_OK;
    at_store *as = NULL;
    const at_weight *projection = at_store_findf(s, "%sproj", prefix);

    *out = NULL;
    AT_TRY(at_convert_names(s, prefix, rename_one, NULL, &as));
    if (projection) AT_TRY(at_convert_turned(&as, "proj.weight", s, projection));
    *out = as;
    as = NULL;
out:
    at_store_release(&as);
    return st;
}

// --- descriptors -------------------------------------------------------------------------------
static const at_vision_ops redux_ops = {.style = redux_style};
static const at_vision_ops adapter_ops = {.style = adapter_style};
static const at_probe redux_probes[] = {{.key = "redux_down.weight"}, {.key = "redux_up.weight"}};
static const at_probe adapter_probes[] = {{.key = "style_embedding"},
                                          {.key = "transformer_layes.0.attn.in_proj_weight"}};

const at_arch at_arch_redux = {.name = "redux",
                               .title = "Flux Redux",
                               .part = AT_PART_STYLE,
                               .probes = redux_probes,
                               .n_probes = AT_LEN(redux_probes),
                               .sizes = redux_sizes,
                               .n_sizes = AT_LEN(redux_sizes),
                               .config_size = sizeof(redux_config),
                               .groups = redux_groups,
                               .n_groups = AT_LEN(redux_groups),
                               .weights_size = sizeof(redux_weights),
                               .vision = &redux_ops};

static const at_arch adapter = {.name = "t2i_style",
                                .title = "T2I style adapter",
                                .part = AT_PART_STYLE,
                                .sizes = adapter_sizes,
                                .n_sizes = AT_LEN(adapter_sizes),
                                .config_size = sizeof(adapter_config),
                                .derive = adapter_derive,
                                .groups = adapter_groups,
                                .n_groups = AT_LEN(adapter_groups),
                                .weights_size = sizeof(adapter_weights),
                                .vision = &adapter_ops};
const at_arch at_arch_t2i_style = {.name = "t2i_style",
                                   .title = "T2I style adapter",
                                   .part = AT_PART_STYLE,
                                   .probes = adapter_probes,
                                   .n_probes = AT_LEN(adapter_probes),
                                   .convert = convert,
                                   .as = &adapter};
