// SPDX-License-Identifier: Apache-2.0
// objects.h - what travels on links between nodes: MODEL, CLIP, VAE, CONDITIONING, LATENT, IMAGE, ...
// Idea: each is an immutable, counted at_object; a node that changes something makes a new one that
// shares the parts. Tensors are on the env's device, pictures and masks on the host.
// Ownership: at_*_new takes the references it is given (also when it fails) and returns one reference.
#ifndef AT_NODES_OBJECTS_H
#define AT_NODES_OBJECTS_H

#include "atelier/node.h"
#include "models/models.h"
#include "nodes/cond.h"
#include "sample/sample.h"
#include "text/tokenizer.h"

// Zeroed, with one reference; NULL if out of memory. `bytes` is the whole struct's, at_object first.
void *at_object_new(size_t bytes, const at_object_type *type);

// A network with what nodes changed about it: sampling facts and weights (in `model`), hooks in its
// forward, hooks around it (guidance). Nodes make a new one that shares what they leave alone.
typedef struct at_obj_model {
    at_object base;
    at_model *model;
    at_patches *patches;    // models/patch.h; NULL: none
    struct at_hooks *hooks; // nodes/hooks.h; NULL: none
    at_device *device; // where its loader put it; NULL: where the env says. So for CLIP and VAE
} at_obj_model;
at_object *at_obj_model_new(at_model *m);
// `like` over another network (taken, also on failure), patches and hooks shared.
at_object *at_obj_model_with(const at_obj_model *like, at_model *m);
// `like` with one more network patch; takes self.
at_status at_obj_model_patch(const at_obj_model *like, const at_patch_ops *ops, void *self,
                             at_object **out);

typedef struct at_obj_vae {
    at_object base;
    at_vae *vae;
    at_device *device;
} at_obj_vae;
at_object *at_obj_vae_new(at_vae *v);

// How the encoders of a CLIP object work together: one row per ComfyUI "clip type".
typedef enum at_clip_kind {
    AT_CLIP_SD1,     // CLIP-L alone: its last hidden state
    AT_CLIP_FLUX,    // T5 hidden state, CLIP-L pooled
    AT_CLIP_SD3,     // CLIP-L, CLIP-G and T5 in SD3's padding
    AT_CLIP_SD2,     // CLIP-H: the state before the last
    AT_CLIP_SDXL,    // CLIP-L and CLIP-G side by side, CLIP-G pooled
    AT_CLIP_REFINER, // CLIP-G alone
    AT_CLIP_KIND_COUNT
} at_clip_kind;

// The places of a CLIP object's encoders.
typedef enum at_te { AT_TE_L, AT_TE_G, AT_TE_H, AT_TE_T5, AT_TE_COUNT } at_te;
typedef struct at_clip_encoder {
    at_encoder *encoder;
    at_tokenizer *tokenizer;
} at_clip_encoder;
void at_clip_encoder_drop(at_clip_encoder *e); // releases both, nulls them
typedef struct at_obj_clip {
    at_object base;
    at_clip_kind kind;
    at_clip_encoder enc[AT_TE_COUNT]; // encoder NULL: absent
    at_device *device;
    int last_layer;   // CLIPSetLastLayer; 0: the kind's own
    at_object *hooks; // SetClipHooks: HOOKS that its conditionings get, counted; or NULL
    bool t5_sized;    // T5TokenizerOptions: the two below stand for the kind's own
    int64_t t5_padding, t5_length;
} at_obj_clip;
// Takes the references of all AT_TE_COUNT places and empties them, also on failure.
at_object *at_obj_clip_new(at_clip_kind kind, at_clip_encoder enc[AT_TE_COUNT]);
// Shares everything; its places may then be changed.
at_object *at_obj_clip_copy(const at_obj_clip *c);
bool at_obj_clip_f16(const at_obj_clip *c); // at_arch_f16 of all its encoders

typedef struct at_obj_latent {
    at_object base;
    at_tensor *samples;    // f32 [b, c, h, w] on the host
    at_tensor *noise_mask; // f32 [b or 1, 1, h, w], any size, or NULL
    int64_t *batch_index;  // one per batch item, or NULL
} at_obj_latent;
at_object *at_obj_latent_new(at_tensor *samples);
// The same mask and indices with other samples (taken).
at_object *at_obj_latent_with(const at_obj_latent *l, at_tensor *samples);

typedef struct at_obj_image {
    at_object base;
    at_tensor *pixels; // f32 [b, h, w, c] 0..1 on the host; masks [b, h, w]
} at_obj_image;
at_object *at_obj_image_new(at_tensor *pixels);
at_object *at_obj_mask_new(at_tensor *mask);

typedef struct at_obj_noise {
    at_object base;
    bool disabled;
    uint64_t seed;
} at_obj_noise;
at_object *at_obj_noise_new(bool disabled, uint64_t seed);

typedef struct at_obj_sampler {
    at_object base;
    char name[48];
    at_sampler_options options;
} at_obj_sampler;
at_object *at_obj_sampler_new(const char *name);

typedef struct at_obj_sigmas {
    at_object base;
    float *values;
    size_t count;
} at_obj_sigmas;
at_object *at_obj_sigmas_new(float *values, size_t count); // takes values

typedef enum at_guider_kind {
    AT_GUIDER_CFG,    // CFGGuider; BasicGuider where negative is NULL
    AT_GUIDER_DUAL,   // DualCFGGuider: third is cond2, cfg between the conds, cfg2 to the negative
    AT_GUIDER_NESTED, // the same, style "nested"
    AT_GUIDER_PERP_NEG, // PerpNegGuider: third is the empty prompt, cfg2 is neg_scale
} at_guider_kind;
typedef struct at_obj_guider {
    at_object base;
    at_obj_model *model;
    at_obj_cond *positive, *negative; // negative NULL: BasicGuider
    double cfg;
    at_guider_kind kind;
    at_obj_cond *third; // NULL for AT_GUIDER_CFG
    double cfg2;
} at_obj_guider;
at_object *at_obj_guider_new(const at_obj_model *m, const at_obj_cond *positive,
                             const at_obj_cond *negative, double cfg); // borrows and retains
// The kinds with three prompts; borrows and retains.
at_object *at_obj_guider_third(const at_obj_model *m, at_guider_kind kind,
                               const at_obj_cond *positive, const at_obj_cond *third,
                               const at_obj_cond *negative, double cfg, double cfg2);

// Adapter weights of a training node (LORA_MODEL).
typedef struct at_obj_lora {
    at_object base;
    at_store *store;
} at_obj_lora;
at_object *at_obj_lora_new(at_store *s);

// Put a new object into an output slot: AT_ENOMEM if it is NULL.
at_status at_give(at_value *out, at_object *o, const char *what);

#endif
