// SPDX-License-Identifier: Apache-2.0
// control_net.h - ControlNets and T2I adapters: networks that turn a hint into residuals.
// Idea: each kind is one architecture row (AT_PART_CONTROL) with one forward that fills an
// at_control; what differs around them (is the hint a picture or a latent, how large, does it
// depend on the step) is a plain struct of facts, so that nobody outside asks which kind it is.
// Easy to get wrong: a control-LoRA has no network of its own until it is laid over the base
// model's weights (at_control_net_over).
// Ownership: counted and immutable after loading; keeps its store alive.
#ifndef AT_MODELS_CONTROL_NET_H
#define AT_MODELS_CONTROL_NET_H

#include "models/models.h"

typedef struct at_control_net at_control_net;

// What the hint must look like.
typedef struct at_control_facts {
    int channels; // of the hint as the network takes it; 1: colours are averaged
    int step;     // hint sides are rounded up to multiples of it; 1: none
    // The hint is what a VAE makes of the picture, in this format; NULL: the picture itself.
    const at_latent_format *latent;
    bool concat_mask; // latent hints: one more channel behind, the mask of what stays
    bool once;        // residuals depend on the hint alone (T2I adapters)
    bool needs_base;  // a control-LoRA: at_control_net_over
    int types;        // union nets: how many kinds of hint; 0: no union
} at_control_facts;

// AT_EFORMAT if the file holds no ControlNet of a known kind, AT_EUNSUPPORTED with its name if it
// is one that is not built. The store is retained. add_to: the model whose weights a "difference"
// file is added to (DiffControlNetLoader), NULL: taken as it is.
at_status at_control_net_load(at_store *s, const char *label, const at_model *add_to,
                              at_control_net **out);
// The net over the weights of the model that it will steer; `net` itself where it needs none.
at_status at_control_net_over(const at_control_net *net, const at_model *base,
                              at_control_net **out);
at_control_net *at_control_net_retain(at_control_net *n);
void at_control_net_release(at_control_net **n); // nulls it; NULL is fine
const char *at_control_net_label(const at_control_net *n);
const at_control_facts *at_control_net_facts(const at_control_net *n);

typedef struct at_control_in {
    const at_model_in *model; // x, timestep, pooled, guidance as the denoiser gets them
    const at_tensor *context; // [b, t, d]
    const at_tensor *hint;    // f32 [b or 1, c, h, w]
    int type;                 // union nets: which kind of hint; -1: not told
    // Ranks have their own tokens or rows of the residuals unless these are wanted whole on each.
    bool whole;
} at_control_in;
// Fills *out (zeroed before) with tensors of the current scope, at full strength. Failures are
// sticky in `o`.
void at_control_net_forward(at_ops *o, const at_control_net *n, const at_control_in *in,
                            at_control *out);

#endif
