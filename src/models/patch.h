// SPDX-License-Identifier: Apache-2.0
// patch.h - what model-patch nodes change inside a forward: hooks at named sites.
// Idea: an architecture calls at_patch_* at its sites and knows no patch by name; a patch (FreeU,
// HyperTile, GLIGEN ...) is one table of hooks with its own parameters and knows no architecture
// beyond what the site tells. Hooks run in the order in which they were added (ComfyUI's lists of
// patches). Source of the sites: comfyui-contract section 4, ComfyUI's transformer_options.
// Ownership: a set is counted and immutable; "adding" makes a new set that shares the patches.
#ifndef AT_MODELS_PATCH_H
#define AT_MODELS_PATCH_H

#include "ops/ops.h"

typedef enum at_site_part {
    AT_SITE_INPUT,  // UNet input blocks
    AT_SITE_MIDDLE, // UNet middle block
    AT_SITE_OUTPUT, // UNet output blocks
    AT_SITE_DOUBLE, // DiT blocks with two streams
    AT_SITE_SINGLE  // DiT blocks with one stream
} at_site_part;

// Where in which forward a hook is called; valid for the call.
typedef struct at_site {
    const struct at_model_in *in; // sigma, which rows are positive ...
    at_site_part part;
    int block;      // ComfyUI's number of the block in its part: ("input", 4)
    int depth;      // transformer inside the block, from 0
    int index;      // transformers before this one in the whole forward ("transformer_index")
    bool cross;     // attn2 (text) instead of attn1 (self)
    int heads, dim; // heads and head size of the attention at this site
    int64_t h, w;   // size of the feature map
} at_site;

// Any hook may be NULL. Tensors are made in the current scope of `o`; in place changes are not
// allowed (make a new tensor). `self` is the patch's own struct.
typedef struct at_patch_ops {
    const char *name;
    void (*free)(void *self); // last reference gone; NULL: at_free
    // What q, k and v are projected from: q [b, t, d], k and v [b, tk, dk] (attn1_patch, attn2_patch).
    void (*attn_in)(void *self, at_ops *o, const at_site *s, const at_tensor **q,
                    const at_tensor **k, const at_tensor **v);
    // Stands for the attention itself: q [b, t, h, d], k, v [b, tk, h, d] -> [b, t, h * d]. NULL
    // means: not concerned, the next patch or the plain attention does it. The last added comes first.
    at_tensor *(*attn)(void *self, at_ops *o, const at_site *s, const at_tensor *q,
                       const at_tensor *k, const at_tensor *v);
    // After attention's output projection, before it is added to the tokens: [b, t, c]
    // (attn1_output_patch, attn2_output_patch).
    at_tensor *(*attn_out)(void *self, at_ops *o, const at_site *s, at_tensor *x);
    // Tokens between self attention and cross attention of a UNet transformer (middle_patch).
    at_tensor *(*between)(void *self, at_ops *o, const at_site *s, at_tensor *x);
    // UNet feature map [b, h, w, c] after input block s->block; `skip` is what the output half will
    // see. before_skip: both follow *x; after_skip: only the way on (input_block_patch[_after_skip]).
    at_tensor *(*before_skip)(void *self, at_ops *o, const at_site *s, at_tensor *x);
    at_tensor *(*after_skip)(void *self, at_ops *o, const at_site *s, at_tensor *x);
    // Before output block s->block joins *x with its *skip (output_block_patch).
    void (*join)(void *self, at_ops *o, const at_site *s, at_tensor **x, at_tensor **skip);
    // DiT: true leaves this block out.
    bool (*skips)(void *self, const at_site *s);
} at_patch_ops;

typedef struct at_patch {
    const at_patch_ops *ops;
    void *self;
} at_patch;
typedef struct at_patches at_patches; // NULL is the empty set

// A set with one more patch at its end; takes `self` (freed when it fails: AT_ENOMEM).
at_status at_patches_add(const at_patches *set, const at_patch_ops *ops, void *self,
                         at_patches **out);
at_patches *at_patches_retain(at_patches *set);
void at_patches_release(at_patches **set); // nulls it; NULL is fine
size_t at_patches_count(const at_patches *set);
const at_patch *at_patches_at(const at_patches *set, size_t i);

// --- what an architecture calls at a site -------------------------------------------------------
void at_patch_attn_in(at_ops *o, const at_patches *set, const at_site *s, const at_tensor **q,
                      const at_tensor **k, const at_tensor **v);
// The attention at this site, patched or plain: at_attention(o, q, k, v, NULL, 0, false).
at_tensor *at_patch_attn(at_ops *o, const at_patches *set, const at_site *s, const at_tensor *q,
                         const at_tensor *k, const at_tensor *v);
at_tensor *at_patch_attn_out(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x);
at_tensor *at_patch_between(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x);
at_tensor *at_patch_before_skip(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x);
at_tensor *at_patch_after_skip(at_ops *o, const at_patches *set, const at_site *s, at_tensor *x);
void at_patch_join(at_ops *o, const at_patches *set, const at_site *s, at_tensor **x,
                   at_tensor **skip);
bool at_patch_skips(const at_patches *set, const at_site *s);

#endif
