// SPDX-License-Identifier: Apache-2.0
// plan.h - what a workflow will cost, before anything runs: models, sizes, steps, work and memory.
// Idea: a pure walk over the checked graph; model files are mapped for their headers alone.
// Owns: the plan owns its strings; at_plan_free.
#ifndef AT_ENGINE_PLAN_H
#define AT_ENGINE_PLAN_H

#include "engine/engine.h"

typedef struct at_plan_model {
    char *node, *class_type, *file, *architecture;
    double bytes, parameters;
} at_plan_model;

// One sampler: how often the denoiser runs on which latent.
typedef struct at_plan_sampler {
    char *node, *class_type, *model_file;
    int64_t width, height, batch, steps; // 0: not known before the run
    bool guided;                         // positive and negative: two evaluations a step
    int64_t text_tokens;
    at_model_cost cost; // one evaluation
} at_plan_sampler;

// How a network is going to compute.
typedef struct at_plan_how {
    at_device *device;
    at_dtype compute;
    bool fp8; // wide layers' weights are kept in fp8
} at_plan_how;

// One network of a file, and what it takes.
typedef struct at_plan_part {
    char *file, *path;
    at_found found;
    at_device *asked; // by its loader's inputs, as ComfyUI-MultiGPU's; NULL: nobody
    at_plan_how how;
    double stored[AT_DTYPE_COUNT]; // bytes in the file, by type
    double weights, activations;   // bytes on the device; activations 0: no sampler tells the size
    double
        loading; // the most while its weights come, kernels' forms beside stored bytes; 0: unknown
} at_plan_part;

typedef struct at_plan {
    at_plan_model *models;
    size_t model_count;
    at_plan_sampler *samplers;
    size_t sampler_count;
    size_t node_count;
    at_plan_part *parts;
    size_t part_count;
    double peak_kept, peak_alone; // with every model kept on its device; with one at a time
    double
        peak_coming; // the first with files' bytes beside what is made of them, where there is room for both
    double lasting; // of all: a context, kernels' code, libraries' workspaces
} at_plan;

// The workflow must have passed at_check. compute: dtype of activations.
at_status at_plan_make(at_engine *e, const at_graph *g, at_dtype compute, at_plan *out);
// The same without memory: nothing is run.
at_status at_plan_sizes(at_engine *e, const at_graph *g, at_dtype compute, at_plan *out);
// What a sampler's steps are to the planner (par/plan.h).
at_par_task at_plan_task(const at_plan_sampler *s);
void at_plan_free(at_plan *p);

#endif
