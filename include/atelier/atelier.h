// SPDX-License-Identifier: Apache-2.0
// atelier.h - the whole engine behind six calls, for programs that embed it and for our own command line.
// Idea: open an engine (devices, model folders, nodes), give it workflows, listen to events.
// Ownership: the caller closes the engine; a result's strings belong to the result. One job at a time per
// engine; events come on the thread that called at_engine_run.
#ifndef ATELIER_ATELIER_H
#define ATELIER_ATELIER_H

#include <stdbool.h>
#include <stddef.h>

#include "atelier/types.h"
#include "base/sink.h"
#include "base/status.h"

typedef struct at_engine at_engine;

// Where weights stay on a GPU: until their room is wanted; at most in half of it; not at all.
typedef enum at_vram { AT_VRAM_NORMAL = 0, AT_VRAM_LOW, AT_VRAM_NONE } at_vram;

// What a sampler shows after each step (AT_EV_PREVIEW): nothing, the latent's colours, what a tiny autoencoder of
// models/vae_approx makes of it.
typedef enum at_previews {
    AT_PREVIEWS_NONE = 0,
    AT_PREVIEWS_LATENT2RGB,
    AT_PREVIEWS_TAESD
} at_previews;

// A zeroed config is fine: every field has a default.
// One picture by several processes, each with a device of its own: all open an engine and run the same jobs in the
// same order; every one gets the results. Nothing between them is encrypted: a private network is wanted.
typedef struct at_processes {
    int rank, ranks;        // this process of so many; ranks 0 or 1: there are no others
    const char *rendezvous; // "HOST:PORT" where rank 0 listens, known to all
    int listener;           // rank 0: a socket that listens there already (taken); 0: none
    const char *secret;     // known to all; NULL: ""
    const char *job;        // a text that must be the same in all, such as the workflow; NULL: ""
} at_processes;

typedef struct at_engine_config {
    const char *base_dir;           // a ComfyUI folder: models/, input/, output/, temp/ below it
    const char *const *models_dirs; // more folders in ComfyUI's layout, looked in first
    size_t models_count;
    const char *const *yaml_files; // extra_model_paths.yaml files
    size_t yaml_count;
    const char *input_dir, *output_dir, *temp_dir; // default: below base_dir, or the current folder
    const char *device; // "cpu", "cuda:0"; NULL or "auto": the first GPU, else the CPU
    int dtype; // an at_dtype (AT_I8, AT_F8E4M3: auto, with wide layers in int8 or fp8), or AT_DTYPE_COUNT with auto_dtype
    bool auto_dtype;       // take the device's best compute type
    bool disable_metadata; // write no workflow into pictures

    // What denoisers, VAEs and text encoders compute in: 1 + an at_dtype; 0: as `dtype` says. An fp8
    // type: as `dtype` says, with the wide layers' weights kept in it.
    int unet_dtype, vae_dtype, text_dtype;
    bool fast_fp8; // wide layers of denoisers may multiply in fp8
    bool cpu_vae;  // VAEs run on the CPU
    // "cuda:1": text encoders, VAEs run there; NULL or "auto": where there is room (`devices`).
    const char *text_device, *vae_device;
    at_vram vram;
    bool drop_idle_models; // a model's weights leave the GPU when another model is used
    double reserve_gib;    // GPU memory left to others; 0: 0.4 GiB, negative: none
    // Results kept between jobs. 0: those of the last job (ComfyUI's default); > 0: this many nodes' results, the
    // last used; < 0: none.
    long cache_results;
    at_previews previews; // a job's extra_data.preview_method goes before
    bool test_nodes;      // also the nodes of ComfyUI's own test suite
    // Several devices on one picture: "cuda:0,cuda:1", "cuda" (all of them), "cpu,cpu"; or a number of CPU threads'
    // ranks. NULL and 0: all GPUs where `device` is not given either, else one rank.
    const char *devices;
    int cpu_ranks;
    const char *parallel; // "none", "cfg=2", "cfg=2,ulysses=2"; NULL or "auto": chosen for each run
    const char *shares;   // "3,2": what each device takes against the others; NULL: by their speeds
    const char
        *comm; // between GPUs: "peer", "nccl"; NULL or "auto": the faster one that can be had
    at_processes processes;
    // Of the devices above only so many from that one on: another process has the others. 0: all.
    int first_rank, most_ranks;
} at_engine_config;

at_status at_engine_open(const at_engine_config *config, at_engine **out);
void at_engine_close(at_engine *e); // NULL is fine

typedef struct at_job {
    const char *label; // names the workflow in messages: its path
    const char *text;  // the workflow: API format or the editor's
    size_t bytes;
    const char *const *sets; // "NODE.INPUT=VALUE"
    size_t set_count;
    const char *const *targets; // output nodes to run; none: all
    size_t target_count;
    const char *id; // job id for events; NULL: "job"
    const char
        *owner; // files are read from and written to folders of this name below input, output
                // and temp; NULL: these folders themselves
    const at_sink *sink; // may be NULL
    int ranks;           // devices that it may take, the first ones; 0: all
    int waiting;         // jobs behind it that could run on the others
    // A file that remembers what this job has written: if the job is run again after a crash, its files keep their
    // names. NULL: nothing is remembered. Whoever gives it removes it in the end.
    const char *claims;
} at_job;

typedef struct at_job_result {
    char *
        outputs; // JSON {"node": {"images": [...]}}; after a failure what was shown until then, or NULL
    char *error;       // JSON of the validation error, NULL if valid
    char *node_errors; // JSON per node, "{}" if none
    double seconds;
    int ranks; // devices a job like this should have while others wait: most pictures an hour; 0: nobody knows
} at_job_result;

// AT_OK; AT_EWORKFLOW with error and node_errors filled; AT_ECANCELLED; or the failing node's status.
at_status at_engine_run(at_engine *e, const at_job *job, at_job_result *out);
void at_job_result_free(at_job_result *r);

// Forget the results of earlier jobs and the model files that only they hold; devices give their memory back, but
// what lives as long as they do. Not while a job runs.
void at_engine_forget(at_engine *e);

// /object_info of every node, or of one: JSON text (free with at_free); NULL class: all.
at_status at_engine_object_info(at_engine *e, const char *class_type, char **json);

#endif
