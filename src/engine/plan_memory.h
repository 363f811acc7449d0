// SPDX-License-Identifier: Apache-2.0
// plan_memory.h - what a network takes of a device's memory, found by running it on a device that only counts.
// Idea: the same functions run on any device; `plan` asks the dry one (tensor/dry.h), tests compare that with the CPU.
// Owns nothing.
#ifndef AT_ENGINE_PLAN_MEMORY_H
#define AT_ENGINE_PLAN_MEMORY_H

#include "engine/plan.h"
#include "models/models.h"

typedef struct at_peak_shape {
    int64_t batch; // rows of one evaluation: guided pictures count twice
    int64_t latent_h, latent_w, text_tokens, steps;
    bool fp8; // wide layers are rounded to fp8
} at_peak_shape;

// The most bytes alive on `d` at once while the network works, beyond what is alive there before and its
// weights. Nothing stays.
at_status at_peak_denoiser(at_device *d, at_model *m, const at_peak_shape *s, at_dtype compute,
                           double *bytes);
at_status at_peak_encoder(at_device *d, at_encoder *e, int64_t tokens, at_dtype compute,
                          double *bytes);
at_status at_peak_decoder(at_device *d, at_vae *v, const at_peak_shape *s, at_dtype compute,
                          double *bytes);

// Behind a forward on the dry device in place of how->device: what the weights take there. On the CPU the file's mapping;
// on a device the forms that the forward asked for, and what nobody asked for as it is stored, for a network's weights
// are all brought ahead. While they come, stored bytes and the form that is made of them lie side by side.
typedef struct at_peak_held {
    double weights, loading; // loading: the most while they come; 0: not known
} at_peak_held;
at_peak_held at_peak_weights(const at_plan_how *how, at_store *s, const char *prefix);
// What lives as long as the device: a context, kernels' code, workspaces.
double at_peak_lasting(at_device *d);

// What a plan's peak is to be held against: the most in use by this process since the books began, and what lasts. 0: the
// device keeps no books.
double at_peak_measured(at_device *d);

// Fills p->parts and p->peak_*: every network of the workflow's files on env's devices, at the sizes of the
// plan's samplers. fp8: wide layers of denoisers are kept in fp8.
at_status at_plan_memory(at_engine *e, at_plan *p);

#endif
