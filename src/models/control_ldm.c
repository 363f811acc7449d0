// SPDX-License-Identifier: Apache-2.0
// control_ldm.c - ControlNets for Stable Diffusion 1, 2 and XL: a UNet's input half and middle with
// a zero convolution behind each block (Zhang et al. 2023, arXiv:2302.05543).
// Idea: the UNet's parts are unet_blocks.h's; here is what comes before (the hint's convolutions)
// and behind. A union net (xinsir's ProMax) also takes the kind of hint: as a term of the
// embedding, and as an offset of the hint's features that a small transformer makes of their mean.
// Easy to get wrong:
//   - the hint joins behind the first convolution, before the first zero convolution
//   - told no kind, a union net embeds zeros (a cosine of ones, not nothing) and leaves the hint
//     alone
//   - diffusers counts the hint's convolutions conv_in, blocks.0 .., conv_out; here they are 0, 2,
//     4 ..
// Source: ComfyUI 0.3.64 comfy/cldm/cldm.py, comfy/controlnet.py.
// Owns nothing: tensors belong to op scopes.
#include <stdio.h>
#include <string.h>

#include "models/convert.h"
#include "models/unet_keys.h"

enum { HINT_CONVS = 8, UNION_HEADS = 8, TYPE_DIM = 256 };
static const float layer_eps = 1e-5f;

typedef struct ldm_config {
    at_unet_shape unet;
    int64_t hint;               // channels of the hint
    int64_t types, task, width; // union nets: kinds of hint, and widths; 0: no union
} ldm_config;

typedef struct ldm_union {
    const at_weight *task, *qkv_w, *qkv_b;
    at_lin out, norm1, norm2, fc1, fc2, spread, add1, add2;
} ldm_union;

typedef struct ldm_weights {
    at_unet_embedding embedding;
    at_unet_pool pool;
    at_unet_block input[AT_UNET_BLOCKS], middle;
    at_unet_res middle_last;
    at_lin hint[HINT_CONVS], zero[AT_UNET_BLOCKS], middle_out;
    ldm_union u;
} ldm_weights;

// --- shape and weights -------------------------------------------------------------------------
static const char *measure(at_store *s, const char *prefix, void *config)
{
    ldm_config *c = config;
    const at_weight *hint = at_store_findf(s, "%sinput_hint_block.0.weight", prefix);
    const at_weight *task = at_store_findf(s, "%stask_embedding", prefix);
    const char *why = at_unet_measure_input(s, prefix, &c->unet);

    if (why) return why;
    if (c->unet.middle < -1) return "there is no middle block";
    if (!hint || hint->rank != 4 || hint->shape[1] < 1) return "the hint has no channels";
    c->hint = hint->shape[1];
    if (!task || !at_store_findf(s, "%scontrol_add_embedding.linear_1.weight", prefix)) return NULL;
    if (task->rank != 2 || task->shape[0] < 1 || task->shape[0] > 64 ||
        task->shape[1] % UNION_HEADS)
        return "the task embedding has no usable shape";
    c->types = task->shape[0];
    c->task = task->shape[1];
    c->width = c->types * TYPE_DIM;
    return NULL;
}

// A layer's weight and bias of any shape but for the rank; a convolution's input and output.
static void bind_lin(at_binder *b, const char *key, int rank, at_lin *l)
{
    at_bind_row rows[] = {{.key = "weight", .offset = offsetof(at_lin, w), .rank = rank},
                          {.key = "bias", .offset = offsetof(at_lin, b), .rank = 1}};
    at_bind_rows(b, key, rows, 2, NULL, l);
}

#define U(field)   AT_FIELD(ldm_config, field)
#define EMB        AT_FIELD(at_unet_shape, emb)
#define OFF(field) offsetof(ldm_union, field)
#define PAIR(f, key_)                                                                              \
    {.key = key_ ".weight", .offset = OFF(f.w)},                                                   \
    {                                                                                              \
        .key = key_ ".bias", .offset = OFF(f.b)                                                    \
    }
static const at_bind_row rows_union[] = {
    {.key = "task_embedding", .offset = OFF(task), .rank = 2, .dim = {U(types), U(task)}},
    {.key = "transformer_layes.0.attn.in_proj_weight",
     .offset = OFF(qkv_w),
     .rank = 2,
     .dim = {0, U(task)}},
    {.key = "transformer_layes.0.attn.in_proj_bias", .offset = OFF(qkv_b), .rank = 1},
    PAIR(out, "transformer_layes.0.attn.out_proj"),
    PAIR(norm1, "transformer_layes.0.ln_1"),
    PAIR(norm2, "transformer_layes.0.ln_2"),
    PAIR(fc1, "transformer_layes.0.mlp.c_fc"),
    PAIR(fc2, "transformer_layes.0.mlp.c_proj"),
    PAIR(spread, "spatial_ch_projs"),
    {.key = "control_add_embedding.linear_1.weight",
     .offset = OFF(add1.w),
     .rank = 2,
     .dim = {EMB, U(width)}},
    {.key = "control_add_embedding.linear_1.bias", .offset = OFF(add1.b), .rank = 1, .dim = {EMB}},
    {.key = "control_add_embedding.linear_2.weight",
     .offset = OFF(add2.w),
     .rank = 2,
     .dim = {EMB, EMB}},
    {.key = "control_add_embedding.linear_2.bias", .offset = OFF(add2.b), .rank = 1, .dim = {EMB}},
};

static void bind(at_binder *b, const void *config, void *weights)
{
    const ldm_config *c = config;
    const at_unet_shape *s = &c->unet;
    ldm_weights *w = weights;
    char key[64];

    at_unet_bind_embedding(b, s, &w->embedding);
    for (int i = 0; i < s->blocks; i++) {
        at_unet_bind_block(b, s, false, i, &w->pool, &w->input[i]);
        snprintf(key, sizeof key, "zero_convs.%d.0.", i);
        bind_lin(b, key, 4, &w->zero[i]);
    }
    at_unet_bind_middle(b, s, &w->pool, &w->middle, &w->middle_last);
    bind_lin(b, "middle_block_out.0.", 4, &w->middle_out);
    for (int i = 0; i < HINT_CONVS; i++) {
        snprintf(key, sizeof key, "input_hint_block.%d.", 2 * i);
        bind_lin(b, key, 4, &w->hint[i]);
    }
    if (c->types) at_bind_rows(b, "", rows_union, AT_LEN(rows_union), c, &w->u);
}

// --- forward -----------------------------------------------------------------------------------
static at_tensor *linear(at_ops *o, const at_tensor *x, at_lin l, at_act act)
{
    return at_linear(o, x, l.w, l.b, &(at_linear_extra){.act = act});
}

// A picture [b, c, 8h, 8w] as features [b, h, w, model channels], of this rank's rows.
static at_tensor *hint_features(at_ops *o, const ldm_weights *w, const at_tensor *hint)
{
    static const int stride[HINT_CONVS] = {1, 1, 2, 1, 2, 1, 2, 1};
    at_tensor *x = at_split_rows(o, at_unet_pixels(o, hint, NULL));
    for (int i = 0; i < HINT_CONVS; i++) {
        at_conv_spec spec = {.stride = stride[i],
                             .pad_top = 1,
                             .pad_left = 1,
                             .pad_bottom = 1,
                             .pad_right = 1,
                             .act = i < HINT_CONVS - 1 ? AT_ACT_SILU : AT_ACT_NONE};
        x = at_conv2d(o, x, w->hint[i].w, w->hint[i].b, &spec);
    }
    return x;
}

// The embedding's term for a kind of hint (-1: none): [1, emb].
static at_tensor *type_embedding(at_ops *o, const ldm_config *c, const ldm_union *u, int type)
{
    float told[64] = {0};
    if (type >= 0) told[type] = 1.0f;
    at_tensor *t = at_timestep_embedding(o, told, c->types, TYPE_DIM, 10000.0, true);
    t = at_reshape(o, t, 2, (int64_t[]){1, c->width});
    return linear(o, linear(o, t, u->add1, AT_ACT_SILU), u->add2, AT_ACT_NONE);
}

static at_tensor *norm(at_ops *o, const at_tensor *x, at_lin n)
{
    return at_norm(o, x, &(at_norm_spec){.weight = n.w, .bias = n.b, .eps = layer_eps});
}

// One transformer layer over tokens [b, t, d].
static at_tensor *union_layer(at_ops *o, const ldm_union *u, const at_tensor *x)
{
    if (!x) return NULL;
    int64_t b = x->shape[0], t = x->shape[1], d = x->shape[2];
    at_tensor *qkv = at_linear(o, norm(o, x, u->norm1), u->qkv_w, u->qkv_b, NULL), *part[3];
    for (int i = 0; i < 3; i++)
        part[i] = at_reshape(o, at_narrow(o, qkv, 2, i * d, d), 4,
                             (int64_t[]){b, t, UNION_HEADS, d / UNION_HEADS});
    at_tensor *y = at_attention(o, part[0], part[1], part[2], NULL, 0, false);
    at_tensor *z = at_linear(o, y, u->out.w, u->out.b, &(at_linear_extra){.residual = x});
    y = linear(o, norm(o, z, u->norm2), u->fc1, AT_ACT_QUICK_GELU);
    return at_linear(o, y, u->fc2.w, u->fc2.b, &(at_linear_extra){.residual = z});
}

// Features moved by what the transformer makes of their mean and the kind's embedding.
static at_tensor *move_features(at_ops *o, const ldm_config *c, const ldm_union *u,
                                const at_tensor *features, int type)
{
    if (!features) return NULL;
    int64_t b = features->shape[0], d = features->shape[3];
    if (d != c->task)
        return at_ops_poison(o, AT_EFORMAT, "union ControlNet: features of %lld, tasks of %lld",
                             (long long)d, (long long)c->task);
    at_tensor *mean = at_mean_tokens(o, at_reshape(o, features, 3, (int64_t[]){b, -1, d}));
    at_tensor *task = at_narrow(o, at_weight_tensor(o, u->task, AT_F32), 0, type, 1);
    at_tensor *x = union_layer(o, u, at_add(o, mean, at_reshape(o, task, 3, (int64_t[]){1, 1, d})));
    at_tensor *offset = linear(o, x, u->spread, AT_ACT_NONE);
    return at_add(o, features, at_reshape(o, offset, 4, (int64_t[]){b, 1, 1, -1}));
}

static at_tensor *residual(at_ops *o, const at_control_in *in, const at_tensor *x, at_lin l)
{
    at_tensor *r = at_conv2d(o, x, l.w, l.b, &(at_conv_spec){0});
    return in->whole ? at_gather_rows(o, r) : r;
}

static bool check(at_ops *o, const at_bound *m, const at_control_in *in)
{
    const ldm_config *c = m->config;
    const at_tensor *x = in->model->x;

    if (x->shape[1] != c->unet.in || (c->unet.context && in->context->shape[2] != c->unet.context))
        at_ops_poison(o, AT_EINVAL,
                      "this ControlNet takes latents of %lld channels and text of width %lld, the "
                      "model that is sampled has %lld and %lld: they are of different families",
                      (long long)c->unet.in, (long long)c->unet.context, (long long)x->shape[1],
                      (long long)in->context->shape[2]);
    if (in->hint->shape[1] != c->hint)
        at_ops_poison(o, AT_EINVAL, "this ControlNet takes hints of %lld channels, not %lld",
                      (long long)c->hint, (long long)in->hint->shape[1]);
    if (c->types && in->type >= c->types)
        at_ops_poison(
            o, AT_EINVAL,
            "kind of hint %d: this union ControlNet knows 0 to %lld; the ProMax one knows "
            "more",
            in->type, (long long)c->types - 1);
    return at_ops_status(o) == AT_OK;
}

static void forward(at_ops *o, const at_bound *m, const at_control_in *in, at_control *out)
{
    const ldm_config *c = m->config;
    const ldm_weights *w = m->weights;
    at_model_in mi = *in->model;
    at_unet_pass p = {.in = &mi};

    if (!check(o, m, in)) return;
    mi.patches = NULL;
    mi.control = NULL;
    p.site.in = &mi;
    at_tensor *more = c->types ? type_embedding(o, c, &w->u, in->type) : NULL;
    at_tensor *hint = hint_features(o, w, in->hint);
    if (c->types && in->type >= 0) // by their mean over the picture
        hint = at_split_rows(o, move_features(o, c, &w->u, at_gather_rows(o, hint), in->type));
    p.emb = at_unet_embed(o, &w->embedding, &c->unet, mi.timestep, mi.pooled, more, mi.x->shape[0]);
    p.context = at_cast(o, in->context, at_ops_compute(o));
    at_tensor *h = at_split_rows(o, at_unet_pixels(o, mi.x, NULL));
    for (int i = 0; i < c->unet.blocks; i++) {
        at_scope_begin(o);
        h = at_unet_block_forward(o, &w->input[i], c->unet.input[i].kind, &p, h);
        if (i == 0) h = at_add(o, h, hint);
        at_tensor *r = at_ops_keep(o, residual(o, in, h, w->zero[i]));
        h = at_scope_end(o, h);
        out->skip[i] = r ? at_ops_adopt(o, r) : NULL;
    }
    h = at_unet_block_forward(o, &w->middle, AT_UNET_RES, &p, h);
    if (c->unet.middle >= 0) h = at_unet_res_forward(o, &w->middle_last, &p, h);
    out->middle = residual(o, in, h, w->middle_out);
}

static void facts(const at_bound *m, at_control_facts *f)
{
    const ldm_config *c = m->config;
    f->channels = (int)c->hint;
    f->types = (int)c->types;
}

// --- diffusers' names --------------------------------------------------------------------------
typedef struct layout {
    at_unet_levels levels;
    int hint_blocks;
} layout;

// "controlnet_down_blocks.3.weight" -> "zero_convs.3.0.weight"
static bool control_key(const layout *l, const char *name, char *out, size_t size)
{
    static const char zero[] = "controlnet_down_blocks.", mid[] = "controlnet_mid_block.";
    static const char hint[] = "controlnet_cond_embedding.";
    int i = 0, end = -1;

    if (strncmp(name, mid, strlen(mid)) == 0)
        return snprintf(out, size, "middle_block_out.0.%s", name + strlen(mid)) < (int)size;
    if (strncmp(name, zero, strlen(zero)) == 0) {
        name += strlen(zero);
        if (sscanf(name, "%d.%n", &i, &end) != 1 || end < 0) return false;
        return snprintf(out, size, "zero_convs.%d.0.%s", i, name + end) < (int)size;
    }
    if (strncmp(name, hint, strlen(hint)) != 0) return false;
    name += strlen(hint);
    if (sscanf(name, "blocks.%d.%n", &i, &end) == 1 && end > 0) {
        i++;
    } else if (strncmp(name, "conv_in.", end = 8) == 0) {
        i = 0;
    } else if (strncmp(name, "conv_out.", end = 9) == 0) {
        i = l->hint_blocks + 1;
    } else {
        return false;
    }
    return snprintf(out, size, "input_hint_block.%d.%s", 2 * i, name + end) < (int)size;
}

static size_t rename_one(const void *ctx, const at_weight *w, const char *name, at_alias_row *rows)
{
    const layout *l = ctx;
    static const char *const kept[] = {"control_add_embedding.", "task_embedding",
                                       "transformer_layes.", "spatial_ch_projs."};
    (void)w;
    for (size_t i = 0; i < AT_LEN(kept); i++)
        if (strncmp(name, kept[i], strlen(kept[i])) == 0)
            return snprintf(rows->name, sizeof rows->name, "%s", name) < (int)sizeof rows->name;
    return control_key(l, name, rows->name, sizeof rows->name) ||
           at_unet_original_key(&l->levels, name, rows->name, sizeof rows->name);
}

static at_status convert(at_store *s, const char *prefix, at_store **out)
{
    layout l = {0};
    at_unet_levels_read(s, prefix, &l.levels);
    while (l.hint_blocks < 64 &&
           at_store_findf(s, "%scontrolnet_cond_embedding.blocks.%d.weight", prefix, l.hint_blocks))
        l.hint_blocks++;
    return at_convert_names(s, prefix, rename_one, &l, out);
}

// --- descriptors -------------------------------------------------------------------------------
static const at_control_ops ops = {.forward = forward, .facts = facts};
#define MEASURED(name_, field_)                                                                    \
    {                                                                                              \
        .name = name_, .offset = offsetof(ldm_config, field_), .how = AT_SIZE_MEASURED             \
    }
static const at_size_row sizes[] = {
    MEASURED("channels", unet.channels),
    MEASURED("blocks", unet.blocks),
    MEASURED("context", unet.context),
    MEASURED("vector", unet.adm),
    MEASURED("hint", hint),
    MEASURED("kinds", types),
};
static const at_probe probes[] = {{.key = "zero_convs.0.0.weight"},
                                  {.key = "input_hint_block.0.weight"},
                                  {.key = "input_blocks.0.0.weight"}};
static const at_probe probes_diffusers[] = {{.key = "controlnet_cond_embedding.conv_in.weight"},
                                            {.key = "conv_in.weight"}};

const at_arch at_arch_control_ldm = {.name = "control_ldm",
                                     .title = "Stable Diffusion ControlNet",
                                     .part = AT_PART_CONTROL,
                                     .probes = probes,
                                     .n_probes = AT_LEN(probes),
                                     .sizes = sizes,
                                     .n_sizes = AT_LEN(sizes),
                                     .config_size = sizeof(ldm_config),
                                     .measure = measure,
                                     .weights_size = sizeof(ldm_weights),
                                     .bind = bind,
                                     .control = &ops};
const at_arch at_arch_control_ldm_diffusers = {.name = "control_ldm_diffusers",
                                               .title = "ControlNet in diffusers' layout",
                                               .part = AT_PART_CONTROL,
                                               .probes = probes_diffusers,
                                               .n_probes = AT_LEN(probes_diffusers),
                                               .convert = convert,
                                               .as = &at_arch_control_ldm};
