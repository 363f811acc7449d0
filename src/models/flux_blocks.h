// SPDX-License-Identifier: Apache-2.0
// flux_blocks.h - the parts of Flux.1 that its ControlNets share: sizes, weights, blocks.
// Idea: a ControlNet is the same network with fewer blocks, so the blocks live apart from the one
// architecture row that owns the final layer. Two key layouts name the same tensors: Black Forest
// Labs' (q, k and v in one) and diffusers' (apart); a fused layer may therefore come in parts.
// Source: see flux.c; diffusers' names as in ComfyUI 0.3.64 (comfy/utils.py, flux_to_diffusers).
// Owns nothing: tensors belong to op scopes.
#ifndef AT_MODELS_FLUX_BLOCKS_H
#define AT_MODELS_FLUX_BLOCKS_H

#include "models/arch.h"

typedef struct at_flux_config {
    int64_t hidden, patch_in, channels, patch_out, head_dim, heads, context, vec, depth, single,
        mlp;
    int64_t guidance, time;
    int64_t qkv, mod6, mod3, mod2, lin1, lin2; // derived: widths of the fused layers
} at_flux_config;

typedef struct at_flux_stream {
    at_lin mod, proj, fc1, fc2;
    at_lin qkv, parts[3]; // one of them: rows of q, k, v together, or apart
    const at_weight *q_norm, *k_norm;
} at_flux_stream;

typedef struct at_flux_double {
    at_flux_stream img, txt;
} at_flux_double;

typedef struct at_flux_single {
    at_lin mod, lin2;
    at_lin lin1, parts[4]; // q, k, v, mlp: together or apart
    const at_weight *q_norm, *k_norm;
} at_flux_single;

typedef struct at_flux_embedder {
    at_lin in, out;
} at_flux_embedder;

typedef struct at_flux_weights {
    at_lin img_in, txt_in, final_mod, final; // ControlNets have no final layer
    at_flux_embedder time, vec, guidance;
    at_flux_double *doubles;
    at_flux_single *singles;
} at_flux_weights;

typedef struct at_flux_state {
    int64_t batch, text, image; // tokens of this rank
    int64_t all_image;          // image tokens of all ranks, those of reference latents too
    int64_t height, width;      // of the latent
    int64_t rows, cols;         // of patches
    int64_t heads, inner, mlp;  // this rank's heads, their width, and its units of the MLP
    at_tensor *vec;             // silu(time + guidance + pooled) [b, hidden]; NULL with mods
    const at_tensor *mods;      // all modulations [b, at_flux_mods_width], or NULL: made one by one
    at_rope_table rope, rope_text, rope_image;
    const at_control *control; // or NULL
    const at_model_in *in;     // for patches, where there are any; or NULL
    // What the block before left to be added to the stream, so that the next norm does it in the same pass:
    // h += gate * due. NULL: such sums are made at once (devices that gain nothing; ControlNets, which read
    // the stream between blocks).
    at_tensor *due;
    int64_t due_gates[2]; // text's and the picture's, in mods; -1: nothing is due
} at_flux_state;

enum { AT_FLUX_MAX_BATCH = 512 };
extern const at_latent_format at_latent_flux;

// --- tables ------------------------------------------------------------------------------------
// Rows of each layout for at_bind_group; offsets are into the structs above.
enum {
    AT_FLUX_ROWS_ENDS = 12,
    AT_FLUX_ROWS_GUIDANCE = 4,
    AT_FLUX_ROWS_DOUBLE = 24,
    AT_FLUX_ROWS_SINGLE = 8,
    AT_FLUX_ROWS_DOUBLE_SPLIT = 32,
    AT_FLUX_ROWS_SINGLE_SPLIT = 14
};
extern const at_bind_row at_flux_rows_ends[AT_FLUX_ROWS_ENDS]; // all but the final layer
extern const at_bind_row at_flux_rows_guidance[AT_FLUX_ROWS_GUIDANCE];
extern const at_bind_row at_flux_rows_double[AT_FLUX_ROWS_DOUBLE];
extern const at_bind_row at_flux_rows_single[AT_FLUX_ROWS_SINGLE];
extern const at_bind_row at_flux_rows_ends_split[AT_FLUX_ROWS_ENDS]; // diffusers' names
extern const at_bind_row at_flux_rows_guidance_split[AT_FLUX_ROWS_GUIDANCE];
extern const at_bind_row at_flux_rows_double_split[AT_FLUX_ROWS_DOUBLE_SPLIT];
extern const at_bind_row at_flux_rows_single_split[AT_FLUX_ROWS_SINGLE_SPLIT];

// Size rows; a config that begins with an at_flux_config takes them too.
#define AT_FLUX_SIZE(field_, how_, key_, ...)                                                      \
    {                                                                                              \
        .name = #field_, .offset = offsetof(at_flux_config, field_), .how = how_, .key = key_,     \
        __VA_ARGS__                                                                                \
    }
#define AT_FLUX_SIZES                                                                              \
    AT_FLUX_SIZE(hidden, AT_SIZE_DIM, "img_in.weight", .dim = 0),                                  \
        AT_FLUX_SIZE(patch_in, AT_SIZE_DIM, "img_in.weight", .dim = 1),                            \
        AT_FLUX_SIZE(channels, AT_SIZE_DIM, "img_in.weight", .dim = 1, .by = 4),                   \
        AT_FLUX_SIZE(head_dim, AT_SIZE_DIM, "double_blocks.0.img_attn.norm.key_norm.scale",        \
                     .dim = 0),                                                                    \
        AT_FLUX_SIZE(heads, AT_SIZE_DIM, "img_in.weight", .dim = 0,                                \
                     .by_field = AT_FIELD(at_flux_config, head_dim)),                              \
        AT_FLUX_SIZE(context, AT_SIZE_DIM, "txt_in.weight", .dim = 1),                             \
        AT_FLUX_SIZE(vec, AT_SIZE_DIM, "vector_in.in_layer.weight", .dim = 1),                     \
        AT_FLUX_SIZE(depth, AT_SIZE_COUNT, "double_blocks.%d.img_attn.qkv.weight"),                \
        AT_FLUX_SIZE(single, AT_SIZE_COUNT, "single_blocks.%d.linear1.weight"),                    \
        AT_FLUX_SIZE(mlp, AT_SIZE_DIM, "double_blocks.0.img_mlp.0.weight", .dim = 0),              \
        AT_FLUX_SIZE(guidance, AT_SIZE_HAS, "guidance_in.in_layer.weight"),                        \
        AT_FLUX_SIZE(time, AT_SIZE_DIM, "time_in.in_layer.weight", .dim = 1)
#define AT_FLUX_SIZES_SPLIT                                                                        \
    AT_FLUX_SIZE(hidden, AT_SIZE_DIM, "x_embedder.weight", .dim = 0),                              \
        AT_FLUX_SIZE(patch_in, AT_SIZE_DIM, "x_embedder.weight", .dim = 1),                        \
        AT_FLUX_SIZE(channels, AT_SIZE_DIM, "x_embedder.weight", .dim = 1, .by = 4),               \
        AT_FLUX_SIZE(head_dim, AT_SIZE_DIM, "transformer_blocks.0.attn.norm_k.weight", .dim = 0),  \
        AT_FLUX_SIZE(heads, AT_SIZE_DIM, "x_embedder.weight", .dim = 0,                            \
                     .by_field = AT_FIELD(at_flux_config, head_dim)),                              \
        AT_FLUX_SIZE(context, AT_SIZE_DIM, "context_embedder.weight", .dim = 1),                   \
        AT_FLUX_SIZE(vec, AT_SIZE_DIM, "time_text_embed.text_embedder.linear_1.weight", .dim = 1), \
        AT_FLUX_SIZE(depth, AT_SIZE_COUNT, "transformer_blocks.%d.attn.to_q.weight"),              \
        AT_FLUX_SIZE(single, AT_SIZE_COUNT, "single_transformer_blocks.%d.attn.to_q.weight"),      \
        AT_FLUX_SIZE(mlp, AT_SIZE_DIM, "transformer_blocks.0.ff.net.0.proj.weight", .dim = 0),     \
        AT_FLUX_SIZE(guidance, AT_SIZE_HAS, "time_text_embed.guidance_embedder.linear_1.weight"),  \
        AT_FLUX_SIZE(time, AT_SIZE_DIM, "time_text_embed.timestep_embedder.linear_1.weight",       \
                     .dim = 1)

// Groups of blocks over an at_flux_weights at offset 0 of the weights struct.
#define AT_FLUX_GROUP(base_, rows_, n_, count_, array_, type_)                                     \
    {                                                                                              \
        .base = base_, .rows = rows_, .n_rows = n_, .count = AT_FIELD(at_flux_config, count_),     \
        .array = offsetof(at_flux_weights, array_), .size = sizeof(type_)                          \
    }
#define AT_FLUX_BLOCKS                                                                             \
    AT_FLUX_GROUP("double_blocks.%d.", at_flux_rows_double, AT_FLUX_ROWS_DOUBLE, depth, doubles,   \
                  at_flux_double),                                                                 \
        AT_FLUX_GROUP("single_blocks.%d.", at_flux_rows_single, AT_FLUX_ROWS_SINGLE, single,       \
                      singles, at_flux_single)
#define AT_FLUX_BLOCKS_SPLIT                                                                       \
    AT_FLUX_GROUP("transformer_blocks.%d.", at_flux_rows_double_split, AT_FLUX_ROWS_DOUBLE_SPLIT,  \
                  depth, doubles, at_flux_double),                                                 \
        AT_FLUX_GROUP("single_transformer_blocks.%d.", at_flux_rows_single_split,                  \
                      AT_FLUX_ROWS_SINGLE_SPLIT, single, singles, at_flux_single)

// Derived widths, and what no such network can have: a sentence or NULL.
const char *at_flux_derive(at_flux_config *c);

// --- forward -----------------------------------------------------------------------------------
// Checks x and context against the config, and fills sizes, vec, rope and control of the state;
// `more_text` tokens are going to stand before the text. in->refs have positions behind the
// picture's. Failures are sticky.
bool at_flux_begin(at_ops *o, const at_arch *a, const at_flux_config *c, const at_flux_weights *w,
                   at_flux_state *s, const at_model_in *in, int64_t more_text);
// One more row and column that repeat the first ones, where a side is odd: [b, c, h, w].
const at_tensor *at_flux_pad_even(at_ops *o, const at_tensor *x);
// [b, c, h, w] -> [b, h/2 * w/2, c * 4]
at_tensor *at_flux_tokens(at_ops *o, const at_tensor *x);
// Blocks work on text and image tokens in one buffer [b, text + image, hidden], in place; i is the
// block's number for its residual.
at_tensor *at_flux_double_block(at_ops *o, const at_flux_config *c, const at_flux_double *w,
                                at_flux_state *s, int i, at_tensor *h);
at_tensor *at_flux_single_block(at_ops *o, const at_flux_config *c, const at_flux_single *w,
                                at_flux_state *s, int i, at_tensor *h);
// All modulations of n rows of timestep, guidance and pooled, side by side: those of double block i
// (picture, then text) at i * 2 * mod6, of single block i behind all doubles, the final layer's last.
at_tensor *at_flux_mods(at_ops *o, const at_flux_config *c, const at_flux_weights *w,
                        const at_model_in *in, int64_t n);
// Where the final layer's begins.
int64_t at_flux_mods_final(const at_flux_config *c);
// The rope tables of picture and text in the order rope.cos, rope.sin.
void at_flux_tables(at_ops *o, const at_flux_config *c, const at_model_in *in,
                    at_tensor *out[AT_MADE_TABLES]);
// A modulation [b, n * hidden], which is `width` columns from `at` on where all are made already;
// and LayerNorm with its chunks `first` (shift) and `first` + 1 (scale), for the layers of `then` alone
// (at_norm_spec) or, NULL, for anybody.
at_tensor *at_flux_modulation(at_ops *o, const at_flux_config *c, const at_flux_state *s, at_lin l,
                              int64_t at, int64_t width);
at_tensor *at_flux_modulate(at_ops *o, const at_flux_config *c, const at_tensor *x,
                            const at_tensor *mod, int first, const at_weight *then);
// The same of a part of the stream, tokens from `first` on, after what is due there: x becomes the sum.
// stream: AT_FLUX_TEXT or AT_FLUX_PICTURE, whose gate it is; where both have one, either.
enum { AT_FLUX_TEXT, AT_FLUX_PICTURE };
at_tensor *at_flux_enter(at_ops *o, const at_flux_config *c, const at_flux_state *s, at_tensor *x,
                         int64_t first, int stream, const at_tensor *mod, int chunk,
                         const at_weight *then);
// From here on sums may be left to the next norm; the prologue's scope is open.
void at_flux_leave_sums(at_ops *o, const at_flux_config *c, at_flux_state *s);

#endif
