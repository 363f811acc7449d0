// SPDX-License-Identifier: Apache-2.0
// lora_hooks.h - HOOKS on links: LoRAs that belong to a prompt and not to a model.
// Idea: a hook says which adapter at which strengths, and a list of keyframes scales it along the
// way from noise to picture. A conditioning carries hooks; the guide runs it on a model with them
// applied.
// Easy to get wrong: two hooks are one where they were made by the same run of a node, also with
// other keyframes; a list holds each once.
// Source: ComfyUI 0.3.64 comfy/hooks.py (behaviour). Ownership: objects are counted and immutable.
#ifndef AT_NODES_LORA_HOOKS_H
#define AT_NODES_LORA_HOOKS_H

#include "nodes/objects.h"

// From share `start` of the way on, for `guarantee` steps at least, hooks have this strength.
typedef struct at_keyframe {
    double strength, start;
    int guarantee;
} at_keyframe;
typedef struct at_obj_keyframes {
    at_object base; // "HOOK_KEYFRAMES", sorted by start
    size_t count;
    at_keyframe *items;
} at_obj_keyframes;
// `like` (NULL: none) and one more (k NULL: no more), behind all that do not start later. NULL: out
// of memory.
at_object *at_obj_keyframes_add(const at_obj_keyframes *like, const at_keyframe *k);

// What a hook applies: its identity. Either a file, or a whole model (and its text encoders) as a
// LoRA.
typedef struct at_adapter {
    at_object base;
    at_store *file;
    at_object *model, *clip; // counted; model NULL: the file; clip NULL: that checkpoint has none
    double strength_model, strength_clip;
} at_adapter;
// Apply it to a model or a CLIP, at these strengths; either of m and c may be NULL. Results are the
// caller's.
at_status at_adapter_apply(const at_adapter *a, const at_obj_model *m, const at_obj_clip *c,
                           double strength_model, double strength_clip, at_object **model_out,
                           at_object **clip_out);

typedef struct at_lora_hook {
    at_adapter *adapter;         // counted
    at_obj_keyframes *keyframes; // counted; NULL: strength 1
} at_lora_hook;
typedef struct at_obj_lora_hooks {
    at_object base; // "HOOKS"
    size_t count;
    at_lora_hook *items;
} at_obj_lora_hooks;
// `previous` (NULL: none) and one for this file (retained). NULL: out of memory.
at_object *at_obj_lora_hooks_add(const at_object *previous, at_store *file, double strength_model,
                                 double strength_clip);
// And one that moves a model towards this one (and a CLIP towards this one, or NULL): both are
// retained.
at_object *at_obj_lora_hooks_add_model(const at_object *previous, at_object *model, at_object *clip,
                                       double strength_model, double strength_clip);
// The same hooks with these keyframes. NULL: out of memory.
at_object *at_obj_lora_hooks_keyed(const at_object *hooks, const at_obj_keyframes *k);
// Those of a, then those of b that a has not; either may be NULL. *out NULL if both are.
at_status at_obj_lora_hooks_join(const at_object *a, const at_object *b, at_object **out);

#endif
