// SPDX-License-Identifier: Apache-2.0
// flux_keys.c - where Flux.1's tensors lie in a file: Black Forest Labs' names and diffusers'.
// Easy to get wrong: diffusers keeps q, k and v (and a single block's MLP) apart, and calls the
// text stream "add", "added" or "context".
// Owns nothing: everything is const.
#include "models/flux_blocks.h"

#define F(field) AT_FIELD(at_flux_config, field)
#define LIN(type, field, key_, out, in)                                                            \
    {.key = key_ ".weight", .offset = offsetof(type, field.w), .rank = 2, .dim = {F(out), F(in)}}, \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field.b), .rank = 1, .dim = { F(out) }       \
    }
#define VEC(type, field, key_, size)                                                               \
    {                                                                                              \
        .key = key_, .offset = offsetof(type, field), .rank = 1, .dim = { F(size) }                \
    }

// --- shares of ranks ---------------------------------------------------------------------------
// Heads and the MLP's units: rows of the layers that make them, columns of those that read them.
#define HEADS(times_)                                                                              \
    {                                                                                              \
        F(hidden), F(head_dim), times_                                                             \
    }
#define UNITS                                                                                      \
    {                                                                                              \
        F(mlp), 0, 1                                                                               \
    }
static const at_bind_cut cut_mod6 = {.run = {{F(mod6), F(head_dim), 1}}},
                         cut_mod3 = {.run = {{F(mod3), F(head_dim), 1}}};
static const at_bind_cut cut_qkv = {.run = {HEADS(3)}}, cut_heads = {.run = {HEADS(1)}},
                         cut_mlp = {.run = {UNITS}}, cut_lin1 = {.run = {HEADS(3), UNITS}},
                         cut_proj = {.columns = true, .run = {HEADS(1)}},
                         cut_fc2 = {.columns = true, .run = {UNITS}},
                         cut_lin2 = {.columns = true, .run = {HEADS(1), UNITS}};
#define LIN_BY_ROWS(type, field, key_, out, in, cut_)                                              \
    {.key = key_ ".weight",                                                                        \
     .offset = offsetof(type, field.w),                                                            \
     .rank = 2,                                                                                    \
     .dim = {F(out), F(in)},                                                                       \
     .cut = &cut_},                                                                                \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field.b), .rank = 1, .dim = {F(out)},        \
        .cut = &cut_                                                                               \
    }
#define LIN_BY_COLUMNS(type, field, key_, out, in, cut_)                                           \
    {.key = key_ ".weight",                                                                        \
     .offset = offsetof(type, field.w),                                                            \
     .rank = 2,                                                                                    \
     .dim = {F(out), F(in)},                                                                       \
     .cut = &cut_},                                                                                \
    {                                                                                              \
        .key = key_ ".bias", .offset = offsetof(type, field.b), .rank = 1, .dim = { F(out) }       \
    }

// --- Black Forest Labs -------------------------------------------------------------------------
const at_bind_row at_flux_rows_ends[AT_FLUX_ROWS_ENDS] = {
    LIN(at_flux_weights, img_in, "img_in", hidden, patch_in),
    LIN(at_flux_weights, txt_in, "txt_in", hidden, context),
    LIN(at_flux_weights, time.in, "time_in.in_layer", hidden, time),
    LIN(at_flux_weights, time.out, "time_in.out_layer", hidden, hidden),
    LIN(at_flux_weights, vec.in, "vector_in.in_layer", hidden, vec),
    LIN(at_flux_weights, vec.out, "vector_in.out_layer", hidden, hidden),
};

const at_bind_row at_flux_rows_guidance[AT_FLUX_ROWS_GUIDANCE] = {
    LIN(at_flux_weights, guidance.in, "guidance_in.in_layer", hidden, time),
    LIN(at_flux_weights, guidance.out, "guidance_in.out_layer", hidden, hidden),
};

#define STREAM(s)                                                                                  \
    LIN_BY_ROWS(at_flux_double, s.mod, #s "_mod.lin", mod6, hidden, cut_mod6),                     \
        LIN_BY_ROWS(at_flux_double, s.qkv, #s "_attn.qkv", qkv, hidden, cut_qkv),                  \
        LIN_BY_COLUMNS(at_flux_double, s.proj, #s "_attn.proj", hidden, hidden, cut_proj),         \
        LIN_BY_ROWS(at_flux_double, s.fc1, #s "_mlp.0", mlp, hidden, cut_mlp),                     \
        LIN_BY_COLUMNS(at_flux_double, s.fc2, #s "_mlp.2", hidden, mlp, cut_fc2),                  \
        VEC(at_flux_double, s.q_norm, #s "_attn.norm.query_norm.scale", head_dim),                 \
        VEC(at_flux_double, s.k_norm, #s "_attn.norm.key_norm.scale", head_dim)

const at_bind_row at_flux_rows_double[AT_FLUX_ROWS_DOUBLE] = {STREAM(img), STREAM(txt)};

const at_bind_row at_flux_rows_single[AT_FLUX_ROWS_SINGLE] = {
    LIN_BY_ROWS(at_flux_single, mod, "modulation.lin", mod3, hidden, cut_mod3),
    LIN_BY_ROWS(at_flux_single, lin1, "linear1", lin1, hidden, cut_lin1),
    LIN_BY_COLUMNS(at_flux_single, lin2, "linear2", hidden, lin2, cut_lin2),
    VEC(at_flux_single, q_norm, "norm.query_norm.scale", head_dim),
    VEC(at_flux_single, k_norm, "norm.key_norm.scale", head_dim),
};

// --- diffusers ---------------------------------------------------------------------------------
#define TEMB "time_text_embed."
const at_bind_row at_flux_rows_ends_split[AT_FLUX_ROWS_ENDS] = {
    LIN(at_flux_weights, img_in, "x_embedder", hidden, patch_in),
    LIN(at_flux_weights, txt_in, "context_embedder", hidden, context),
    LIN(at_flux_weights, time.in, TEMB "timestep_embedder.linear_1", hidden, time),
    LIN(at_flux_weights, time.out, TEMB "timestep_embedder.linear_2", hidden, hidden),
    LIN(at_flux_weights, vec.in, TEMB "text_embedder.linear_1", hidden, vec),
    LIN(at_flux_weights, vec.out, TEMB "text_embedder.linear_2", hidden, hidden),
};

const at_bind_row at_flux_rows_guidance_split[AT_FLUX_ROWS_GUIDANCE] = {
    LIN(at_flux_weights, guidance.in, TEMB "guidance_embedder.linear_1", hidden, time),
    LIN(at_flux_weights, guidance.out, TEMB "guidance_embedder.linear_2", hidden, hidden),
};

#define STREAM_SPLIT(s, norm, q, k, v, out, ff)                                                    \
    LIN_BY_ROWS(at_flux_double, s.mod, norm ".linear", mod6, hidden, cut_mod6),                    \
        LIN_BY_ROWS(at_flux_double, s.parts[0], "attn." q, hidden, hidden, cut_heads),             \
        LIN_BY_ROWS(at_flux_double, s.parts[1], "attn." k, hidden, hidden, cut_heads),             \
        LIN_BY_ROWS(at_flux_double, s.parts[2], "attn." v, hidden, hidden, cut_heads),             \
        LIN_BY_COLUMNS(at_flux_double, s.proj, "attn." out, hidden, hidden, cut_proj),             \
        LIN_BY_ROWS(at_flux_double, s.fc1, ff ".net.0.proj", mlp, hidden, cut_mlp),                \
        LIN_BY_COLUMNS(at_flux_double, s.fc2, ff ".net.2", hidden, mlp, cut_fc2)

const at_bind_row at_flux_rows_double_split[AT_FLUX_ROWS_DOUBLE_SPLIT] = {
    STREAM_SPLIT(img, "norm1", "to_q", "to_k", "to_v", "to_out.0", "ff"),
    VEC(at_flux_double, img.q_norm, "attn.norm_q.weight", head_dim),
    VEC(at_flux_double, img.k_norm, "attn.norm_k.weight", head_dim),
    STREAM_SPLIT(txt, "norm1_context", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
                 "ff_context"),
    VEC(at_flux_double, txt.q_norm, "attn.norm_added_q.weight", head_dim),
    VEC(at_flux_double, txt.k_norm, "attn.norm_added_k.weight", head_dim),
};

const at_bind_row at_flux_rows_single_split[AT_FLUX_ROWS_SINGLE_SPLIT] = {
    LIN_BY_ROWS(at_flux_single, mod, "norm.linear", mod3, hidden, cut_mod3),
    LIN_BY_ROWS(at_flux_single, parts[0], "attn.to_q", hidden, hidden, cut_heads),
    LIN_BY_ROWS(at_flux_single, parts[1], "attn.to_k", hidden, hidden, cut_heads),
    LIN_BY_ROWS(at_flux_single, parts[2], "attn.to_v", hidden, hidden, cut_heads),
    LIN_BY_ROWS(at_flux_single, parts[3], "proj_mlp", mlp, hidden, cut_mlp),
    LIN_BY_COLUMNS(at_flux_single, lin2, "proj_out", hidden, lin2, cut_lin2),
    VEC(at_flux_single, q_norm, "attn.norm_q.weight", head_dim),
    VEC(at_flux_single, k_norm, "attn.norm_k.weight", head_dim),
};

const char *at_flux_derive(at_flux_config *c)
{
    c->qkv = 3 * c->hidden;
    c->mod6 = 6 * c->hidden;
    c->mod3 = 3 * c->hidden;
    c->mod2 = 2 * c->hidden;
    c->lin1 = 3 * c->hidden + c->mlp;
    c->lin2 = c->hidden + c->mlp;
    if (c->head_dim % 32 || c->head_dim > 1024)
        return "the head size is no multiple of 32, so rotary axes do not fit";
    if (c->time % 2) return "the time embedding has an odd size";
    if (c->depth < 1) return "there are no double blocks";
    return NULL;
}