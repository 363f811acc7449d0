// SPDX-License-Identifier: Apache-2.0
// hooks.h - what model-patch nodes change around a network: before, instead of and after guidance.
// Idea: as models/patch.h, one table of functions per kind of hook; the guide calls them in the
// order in which they were added and knows none by name. What a hook remembers from step to step
// lies in a zeroed block that lives as long as one sampling run, so that a MODEL on a link stays
// immutable.
// Easy to get wrong: estimates are x0, not noise: ComfyUI's args["cond"] is x - x0[0] here; a list
// that is not evaluated (cfg 1, no negative prompt) has an estimate all the same: zeros.
// Source: ComfyUI 0.3.64's model_options (sampler_calc_cond_batch_function,
// sampler_pre_cfg_function, sampler_cfg_function, sampler_post_cfg_function, denoise_mask_function)
// and its wrappers.
// Ownership: a set is counted and immutable; results of hooks belong to the current op scope.
#ifndef AT_NODES_HOOKS_H
#define AT_NODES_HOOKS_H

#include "atelier/node.h"
#include "base/rng.h"
#include "models/models.h"

typedef struct at_guide at_guide; // one sampling run's guidance: nodes/guide.h
struct at_obj_model;

enum { AT_GUIDE_LISTS = 3 };
// The prompts of a guider.
typedef enum at_list_id {
    AT_LIST_NONE = -1,
    AT_LIST_POSITIVE,
    AT_LIST_THIRD, // DualCFGGuider's cond2, PerpNegGuider's empty one
    AT_LIST_NEGATIVE
} at_list_id;

// One question of the sampler, as hooks see it. x and the estimates are f32 [b, c, h, w].
typedef struct at_guided {
    at_guide *guide;
    const at_tensor *x;
    float sigma;
    double cfg;
    int n; // places: 0 positive, 1 negative; 2: PerpNegGuider's empty prompt
    at_list_id list[AT_GUIDE_LISTS]; // behind each place; AT_LIST_NONE: not evaluated, zeros
    at_tensor *x0[AT_GUIDE_LISTS];
    at_tensor *denoised; // post_cfg: the guided result so far
} at_guided;

// One forward of the network: what hooks around it see.
typedef struct at_forward {
    at_guide *guide;
    const at_model_in *in;
    const size_t *ids; // which conditioning each of in->chunks parts is: the same in every step
    int64_t row;       // the first latent of the batch in it: larger batches go by parts
    at_model *network; // what is asked in the end
    size_t next;       // hooks that were entered
} at_forward;
// The raw output [b, c, h, w]: the hooks that are left, then the network.
at_tensor *at_forward_next(at_ops *o, const at_forward *f);

// One whole answer: what hooks around everything see.
typedef struct at_predict {
    at_guide *guide;
    const at_tensor *x;
    float sigma;
    bool want_uncond;
    size_t next;
} at_predict;
typedef struct at_predicted {
    at_tensor *out, *uncond; // uncond NULL unless wanted
} at_predicted;
at_predicted at_predict_next(at_ops *o, const at_predict *p);

// Any function may be NULL. `run` is the hook's own block of this sampling run.
typedef struct at_hook_ops {
    const char *name;
    void (*free)(void *self); // last reference gone; NULL: at_free
    bool always_uncond;       // the negative prompt is evaluated at cfg 1, too
    size_t run_size;
    at_status (*begin)(void *self, void *run, at_guide *g);
    void (*end)(void *self, void *run); // also after a begin that failed; the block is freed after
    // Added to the network's patches for the run, with `run` as its self. Its free: at_hook_patch_free.
    const at_patch_ops *patch;
    // A CONDITIONING of its own (borrowed), to be asked for as AT_LIST_THIRD; CFGGuider only.
    const at_object *(*third)(void *self);
    void (*asked)(void *self, void *run); // before each evaluation of lists
    // Stands for the evaluation: fills d->x0[0 .. n) for d->list. Only the last one added is called.
    void (*estimate)(void *self, void *run, at_ops *o, at_guided *d);
    void (*pre_cfg)(void *self, void *run, at_ops *o, at_guided *d); // may replace d->x0[i]
    // Stands for negative + (positive - negative) * cfg. Only the last one added is called.
    at_tensor *(*cfg)(void *self, void *run, at_ops *o, const at_guided *d);
    at_tensor *(*post_cfg)(void *self, void *run, at_ops *o, const at_guided *d);
    // The denoise mask at this sigma; `mask` [b or 1, c or 1, h, w] on the host, 1: paint. Returns a
    // device tensor. Only the last one added is called.
    at_tensor *(*mask)(void *self, void *run, at_ops *o, const at_tensor *mask, float sigma);
    at_tensor *(*forward)(void *self, void *run, at_ops *o, const at_forward *f);
    at_predicted (*predict)(void *self, void *run, at_ops *o, const at_predict *p);
} at_hook_ops;
void at_hook_patch_free(void *run); // does nothing: the run owns its blocks

typedef struct at_hook {
    const at_hook_ops *ops;
    void *self;
} at_hook;
typedef struct at_hooks at_hooks; // NULL is the empty set

// A set with one more hook at its end; takes `self` (freed when it fails: AT_ENOMEM).
at_status at_hooks_add(const at_hooks *set, const at_hook_ops *ops, void *self, at_hooks **out);
at_hooks *at_hooks_retain(at_hooks *h);
void at_hooks_release(at_hooks **h); // nulls it; NULL is fine
size_t at_hooks_count(const at_hooks *h);
const at_hook *at_hooks_at(const at_hooks *h, size_t i);

// A MODEL that is `like` with one more hook; takes self, also on failure (AT_ENOMEM).
at_status at_obj_model_hook(const struct at_obj_model *like, const at_hook_ops *ops, void *self,
                            at_object **out);

// --- what a hook may ask of the guide ------------------------------------------------------------
// x0 of any x under each of n <= AT_GUIDE_LISTS lists, without guidance: what calc_cond_batch
// gives. Patches see place i as kind i. AT_LIST_NONE gives zeros. `patches`: NULL for the model's
// own, else all that are to hold (at_patches_add to at_guide_patches). x0[i] are NULL after a
// failure.
void at_guide_estimate(at_guide *g, at_ops *o, const at_tensor *x, float sigma, int n,
                       const at_list_id *list, const at_patches *patches, at_tensor **x0);
const at_patches *at_guide_patches(const at_guide *g); // borrowed for the run
const at_model_sampling *at_guide_sampling(const at_guide *g);
const float *at_guide_sigmas(const at_guide *g, size_t *n); // the whole schedule
// torch's default generator as it stands when sampling begins: behind the noise. AT_ENOMEM.
at_status at_guide_random(const at_guide *g, at_mt19937 *out);

#endif
