// SPDX-License-Identifier: Apache-2.0
// places.h - where a job's text encoders and VAEs run, with several devices.
// Idea: before a job runs its networks are weighed as `atelier plan` does (engine/plan_memory.h) and par/place.h chooses;
// what it chooses stands in the env until another job's networks or sizes ask anew. Jobs alike keep their places, so
// weights stay where they are.
// Owns: the engine owns an at_places; devices are borrowed.
#ifndef AT_ENGINE_PLACES_H
#define AT_ENGINE_PLACES_H

#include "engine/plan.h"
#include "par/place.h"

typedef struct at_places at_places;

// The flags' devices into env->text_device and env->vae_device; the rest is chosen for each job where env has several
// GPUs. AT_EDEVICE, AT_EUSAGE: no such device.
at_status at_places_open(const at_engine_config *c, at_env *env, at_places **out);
void at_places_free(at_places *p); // NULL is fine

// Places a job's networks. A workflow that cannot be weighed keeps everything with the denoiser: its own run says why.
void at_places_job(at_places *p, at_engine *e, const at_graph *g);
// The same for a plan whose memory has been measured; true: devices have changed since.
bool at_places_plan(at_places *p, at_env *env, const at_plan *plan);

// What was chosen for the last one, for people: "text encoders on cuda:1: ...". "" where nothing was to be chosen.
const char *at_places_why(const at_places *p);

// What a plan takes of one of the env's devices with every network kept there: its denoiser on all devices that share it.
typedef struct at_places_load {
    double weights, peak;
} at_places_load;
at_places_load at_places_load_of(const at_places *p, const at_env *env, const at_plan *plan, int d);

#endif
