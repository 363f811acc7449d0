// SPDX-License-Identifier: Apache-2.0
// world.h - a temporary ComfyUI folder with small models, an engine on it, and eyes in its workflows.
// Idea: tests go through at_engine_run; a test node "Capture" (one input of any type) keeps what came along
// its link under its node id, and "Give" puts a prepared value on a link.
// Workflows are written with ' for " so that they can be read.
// Owns: the world owns folder, engine and captured values until world_close.
#ifndef AT_TESTS_NODES_WORLD_H
#define AT_TESTS_NODES_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/engine.h"
#include "image/image.h"
#include "nodes/objects.h"

typedef struct world {
    char dir[64]; // models/, input/, output/, temp/ below
    at_engine *engine;
    at_job_result result; // of the last run
    at_status status;
} world;

// Group setup and teardown: *state is a world. Fails the test program when it cannot be made.
int world_open(void **state);
int world_close(void **state);

// Run a workflow of these nodes, texts that are joined by commas; ' is read as ". The status is also in
// w->status.
at_status world_try_list(world *w, const char *const *nodes);
void world_run_list(world *w, const char *const *nodes); // it must succeed
#define world_try(w, ...) world_try_list(w, (const char *const[]){__VA_ARGS__, NULL})
#define world_run(w, ...) world_run_list(w, (const char *const[]){__VA_ARGS__, NULL})
// Nodes with something filled in, valid until the eighth call after.
const char *world_nodes(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The text as it is: an editor's workflow, a client's body.
at_status world_run_text(world *w, const char *text);

// What Capture node `id` saw in this run; it must have run.
const at_value *world_value(const char *id);
const at_object *world_object(const char *id, const char *type);
const at_tensor *world_latent(const char *id);
const at_tensor *world_image(const char *id); // IMAGE or MASK
const at_obj_cond *world_cond(const char *id);
const at_obj_sigmas *world_sigmas(const char *id);
// The value that Give nodes with this key put out: takes the reference.
void world_give(const char *key, at_value v);

// || a - b || / || b ||, and whether all bits agree; shapes must.
double world_distance(const at_tensor *a, const at_tensor *b);
void world_assert_same(const at_tensor *a, const at_tensor *b);
float *world_floats(const at_tensor *t); // contiguous f32 host data, borrowed

// Paths and pictures. world_path is valid until the call after the next.
const char *world_path(const world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void world_load(const world *w, const char *name, at_picture *out); // below the folder
const char *world_text(const at_picture *p, const char *key);       // a text chunk, or NULL
// Width x height RGB(A) noise into input/`name`.
void world_paint(const world *w, const char *name, int64_t width, int64_t height, int channels);

// The nodes of a usual Flux workflow: m(odel), c(lip), v(ae), p(ositive), n(egative), e(mpty latent).
#define WORLD_MODELS                                                                               \
    "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'tiny_dev.safetensors',"                 \
    "'weight_dtype':'default'}},"                                                                  \
    "'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetensors',"         \
    "'clip_name2':'tiny_t5.safetensors','type':'flux'}},"                                          \
    "'v':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae.safetensors'}},"
#define WORLD_PROMPTS                                                                              \
    "'p':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['c',0]}},"         \
    "'n':{'class_type':'CLIPTextEncode','inputs':{'text':'','clip':['c',0]}},"
#define WORLD_EMPTY(w, h, b)                                                                       \
    "'e':{'class_type':'EmptySD3LatentImage','inputs':{'width':" #w ",'height':" #h                \
    ",'batch_size':" #b "}},"
#define WORLD_BASE                WORLD_MODELS WORLD_PROMPTS WORLD_EMPTY(64, 64, 1)
#define WORLD_CAPTURE(id, source) "'" id "':{'class_type':'Capture','inputs':{'value':" source "}}"

#endif
