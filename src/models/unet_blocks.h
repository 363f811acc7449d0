// SPDX-License-Identifier: Apache-2.0
// unet_blocks.h - the parts of latent-diffusion UNets, shared by the denoiser and by ControlNets
// (which are a UNet's input half and middle with more behind them).
// Idea: Rombach et al. 2022 (arXiv:2112.10752), the key layout of CompVis' and Stability's files.
// Everything about a net is read off its tensors' shapes into an at_unet_shape; binding checks every
// tensor against it. Feature maps are [b, h, w, c], so tokens are a free reshape.
// Ownership: weights point into the store; tensors belong to op scopes.
#ifndef AT_MODELS_UNET_BLOCKS_H
#define AT_MODELS_UNET_BLOCKS_H

#include "models/arch.h"

enum { AT_UNET_BLOCKS = 24, AT_UNET_LAYERS = 160 };

// --- sizes -------------------------------------------------------------------------------------
typedef enum at_unet_kind { AT_UNET_CONV, AT_UNET_RES, AT_UNET_DOWN } at_unet_kind;

typedef struct at_unet_block_shape {
    at_unet_kind kind;
    int64_t in, out;
    int64_t depth; // layers of its transformer; -1: it has none
    bool up;       // output half: an upsampler follows
} at_unet_block_shape;

typedef struct at_unet_shape {
    int64_t channels, in, out; // model channels, network inputs and outputs
    int64_t emb, adm;          // time embedding; width of the vector input y, 0: none
    int64_t context, linear;   // text width (0: no transformer); proj_in is a matrix
    int64_t blocks, levels;    // of the input half
    int64_t middle; // -2: no middle, -1: one residual block, else its transformer's depth
    int64_t width;  // of the middle
    int64_t layers; // transformer layers of all blocks
    at_unet_block_shape input[AT_UNET_BLOCKS], output[AT_UNET_BLOCKS];
} at_unet_shape;

// The input half, the middle and the embeddings of a net under prefix (*s zeroed before): NULL, or
// why no UNet can look so.
const char *at_unet_measure_input(at_store *store, const char *prefix, at_unet_shape *s);
// The output half, behind a measured input half.
const char *at_unet_measure_output(at_store *store, const char *prefix, at_unet_shape *s);
// Attention heads of a transformer of this width: SD1 has 8 always, later nets heads of 64.
int64_t at_unet_heads(const at_unet_shape *s, int64_t width);

// --- weights -----------------------------------------------------------------------------------
typedef struct at_unet_res {
    at_lin norm1, conv1, emb, norm2, conv2, skip; // skip.w NULL: the widths agree
} at_unet_res;

typedef struct at_unet_attention {
    const at_weight *q, *k, *v;
    at_lin out;
} at_unet_attention;

typedef struct at_unet_layer {
    at_lin norm1, norm2, norm3, ff_in, ff_out;
    at_unet_attention self, cross;
} at_unet_layer;

typedef struct at_unet_transformer {
    at_lin norm, proj_in, proj_out;
    const at_unet_layer *layers;
    int64_t depth, heads;
} at_unet_transformer;

typedef struct at_unet_block {
    at_lin conv; // of AT_UNET_CONV and AT_UNET_DOWN
    at_unet_res res;
    at_unet_transformer transformer; // norm.w NULL: none
    at_lin up;                       // w NULL: none
} at_unet_block;

typedef struct at_unet_embedding {
    at_lin time1, time2, label1, label2; // label1.w NULL: no vector input
} at_unet_embedding;

// The layers of all transformers stand in one array.
typedef struct at_unet_pool {
    at_unet_layer items[AT_UNET_LAYERS];
    int64_t used;
} at_unet_pool;

void at_unet_bind_embedding(at_binder *b, const at_unet_shape *s, at_unet_embedding *e);
void at_unet_bind_res(at_binder *b, const char *base, int64_t in, int64_t out, int64_t emb,
                      at_unet_res *r);
void at_unet_bind_transformer(at_binder *b, const char *base, const at_unet_shape *s, int64_t width,
                              int64_t depth, at_unet_pool *pool, at_unet_transformer *t);
// Block i of the input or output half, and the middle's three parts.
void at_unet_bind_block(at_binder *b, const at_unet_shape *s, bool output, int i,
                        at_unet_pool *pool, at_unet_block *block);
void at_unet_bind_middle(at_binder *b, const at_unet_shape *s, at_unet_pool *pool,
                         at_unet_block *first, at_unet_res *last);

// --- forward -----------------------------------------------------------------------------------
// What every block of one forward shares.
typedef struct at_unet_pass {
    const at_model_in *in;
    const at_tensor *context; // [b, t, d]
    const at_tensor *emb;     // silu(time + label) [b, emb]; NULL with terms
    // What each residual block makes of emb, side by side in the order of the blocks [b, any], or NULL:
    // made one by one; and where the next block's begins.
    const at_tensor *terms;
    int64_t next_term;
    // Keys, then values of each cross attention in the order of the layers, flat, or NULL; and where the
    // next layer's begin.
    const at_tensor *text;
    int64_t next_text;
    at_site site; // part and block are set by the caller; index counts transformers
} at_unet_pass;

// silu(time + label + more): y NULL without a vector input; more [b or 1, emb] or NULL.
at_tensor *at_unet_embed(at_ops *o, const at_unet_embedding *e, const at_unet_shape *s,
                         const float *timestep, const at_tensor *y, const at_tensor *more,
                         int64_t batch);
// x [b, c, h, w] (and what goes behind it, or NULL) as a feature map in the compute dtype.
at_tensor *at_unet_pixels(at_ops *o, const at_tensor *x, const at_tensor *behind);
at_tensor *at_unet_res_forward(at_ops *o, const at_unet_res *w, at_unet_pass *p,
                               const at_tensor *x);
at_tensor *at_unet_transform(at_ops *o, const at_unet_transformer *w, at_unet_pass *p,
                             const at_tensor *x);
// Convolution with one pixel of padding.
at_tensor *at_unet_conv(at_ops *o, const at_tensor *x, at_lin l, int stride);
// All of a block but its upsampler.
at_tensor *at_unet_block_forward(at_ops *o, const at_unet_block *w, at_unet_kind kind,
                                 at_unet_pass *p, const at_tensor *x);
// Nearest to h x w pixels, then the convolution.
at_tensor *at_unet_upsample(at_ops *o, at_lin l, const at_tensor *x, int64_t h, int64_t w);

// Multiply and add are two: work of one block on h x w pixels of one image, and the elements that
// are alive at its widest moment.
// One layer of the block's transformer.
double at_unet_layer_flops(const at_unet_shape *s, const at_unet_block_shape *b, double pixels,
                           double text_tokens);
double at_unet_block_flops(const at_unet_shape *s, const at_unet_block_shape *b, double pixels,
                           double text_tokens, double *peak);

#endif
