// SPDX-License-Identifier: Apache-2.0
// env.h - what a node may ask of the engine: files by their ComfyUI names, opened models, ops, settings.
// Idea: nodes stay below the engine; the engine fills this struct and hands it down as at_node_engine().
// Owns: the engine owns the env for the length of a run; results follow each comment.
#ifndef AT_NODES_ENV_H
#define AT_NODES_ENV_H

#include "atelier/atelier.h"
#include "atelier/node.h"
#include "models/models.h"
#include "ops/ops.h"
#include "par/known.h"
#include "par/mesh.h"
#include "par/plan.h"
#include "text/tokenizer.h"

typedef struct at_env at_env;
typedef struct at_team_comms at_team_comms;

// What a kind of network computes in, and what its wide layers' weights are kept in; AT_DTYPE_COUNT:
// nobody said.
typedef struct at_env_part {
    at_dtype compute, storage;
} at_env_part;
enum { AT_ENV_UNET, AT_ENV_VAE, AT_ENV_TEXT, AT_ENV_PARTS };

// Who may work on one picture: rank i on device[i] (the CPU may stand there several times).
enum { AT_ENV_RANKS = 16 };
typedef struct at_env_ranks {
    int n; // 0 or 1: one rank, on at_env.device
    at_device *device[AT_ENV_RANKS];
    bool automatic;       // degrees are chosen for each run
    at_degrees degrees;   // else these, of n ranks
    at_par_site site;     // what a choice counts with
    at_team_comms *kept;  // comms between runs (nodes/team.h); NULL: each run opens its own
    at_par_memory *known; // what steps took; NULL: nobody remembers
    at_comm *
        world; // all ranks are processes, this is this one's comm, and all of device[] is its own; NULL: threads
    const char *comm; // of threads: at_engine_config.comm
    int all; // how many there are; `n` and site.ranks are what the job that runs may take of them
    int waiting; // jobs that could run on the others meanwhile
    int *apart;  // gets how many a run like this should have while jobs wait; NULL: nobody asks
} at_env_ranks;

struct at_env {
    at_device *device;
    at_env_ranks ranks;
    at_device *vae_device, *text_device; // where VAEs and text encoders run; NULL: the same
    at_env_part parts[AT_ENV_PARTS];
    bool fast_fp8; // wide layers of denoisers may multiply in fp8
    at_dtype
        dtype; // compute dtype; AT_DTYPE_COUNT: the device's best for each network ("auto"); AT_F16: the
               // same with f16 wherever it fits; AT_I8: the device's best, and wide layers may
               // multiply in int8; AT_F8E4M3: the same, those of denoisers in fp8
    const char *input_dir, *output_dir, *temp_dir;
    bool disable_metadata;
    char approximate
        [192]; // the last approximate way that a sampler of this process took: for saved files
    at_previews previews; // what samplers show after each step; of the job that runs
    void *engine;         // for the slots below

    // The path of `name` in the folders of `kind` ("vae", "text_encoders" ...). *path is the caller's.
    // AT_ENOTFOUND lists where it looked.
    at_status (*find_file)(at_env *e, const char *kind, const char *name, char **path);
    // Every file of `kind` by its name, sorted.
    at_status (*list_files)(at_env *e, const char *kind, void (*each)(void *ctx, const char *name),
                            void *ctx);
    // A mapped store, shared by every caller as long as someone holds it (I: a file is mapped once).
    at_status (*open_store)(at_env *e, const char *path, at_store **out);
    // The path of this node's next output file: `path`, or what it was called when this job ran before and did not come to
    // its end. The caller's; NULL if out of memory. NULL slot: nobody remembers.
    char *(*claim_file)(at_env *e, const char *node, const char *path);
    // Comms for the first n ranks; the caller frees each. May be NULL where there is one rank.
    at_status (*open_comms)(at_env *e, int n, at_comm **out);
    // A vocabulary for an encoder of `kind` that lies in the file at model_path.
    at_status (*find_tokenizer)(at_env *e, at_tokenizer_kind kind, const char *model_path,
                                at_tokenizer **out);
};

static inline at_env *at_env_of(const at_node_ctx *c)
{
    return at_node_engine(c);
}

// How the ranks share this work: as the flags ask, else as the workflow wishes (wish NULL: it does not say) where the
// network and the devices can, else by a plan (par/plan.h); one rank where there are no others.
at_degrees at_env_degrees(const at_env *e, const at_par_task *task, const at_degrees *wish);
// A VAE's share of pixels [b, h, w]: rows of its maps over all ranks, where they are worth it.
at_degrees at_env_vae_degrees(const at_env *e, int64_t height, int64_t width);

// A fresh op context on the env's device that watches the job's cancel flag. at_ops_free.
at_status at_env_ops(const at_node_ctx *c, at_ops **out);
// The same with activations of `compute` (at_model_compute); AT_DTYPE_COUNT: the env's own.
at_status at_env_ops_in(const at_node_ctx *c, at_dtype compute, at_ops **out);
// The same for one kind of network (AT_ENV_VAE ...): its device, and what flags say it computes in, unless
// the model itself says (compute; AT_DTYPE_COUNT: it does not). f16: at_arch_f16 of the network.
at_status at_env_ops_for(const at_node_ctx *c, int part, at_dtype compute, bool f16, at_ops **out);
// What it chooses. *device: where a loader has put the network, or NULL.
void at_env_choose(const at_env *e, int part, at_dtype compute, bool f16, at_device **device,
                   at_dtype *out);
// The same for a denoiser: what it was loaded for, and fp8 where somebody asked for it (--dtype fp8,
// --fp8_e4m3fn-unet, UNETLoader's weight_dtype; --fast for files in fp8).
at_status at_env_ops_denoiser(const at_node_ctx *c, const at_model *m, at_ops **out);
void at_env_config_denoiser(const at_node_ctx *c, const at_model *m, at_device *device,
                            at_ops_config *out);
// What at_env_ops_for opens; `device`: where a loader has put the network, or NULL.
void at_env_config_for(const at_node_ctx *c, int part, at_device *device, at_dtype compute,
                       bool f16, at_ops_config *out);
bool at_env_fp8(const at_env *e, const at_model *m);
// Find `name` among the files of `kind` ("vae", "controlnet" ...) and map it. *path (may be NULL) gets
// the caller's copy of the path.
at_status at_env_open(at_env *e, const char *kind, const char *name, char **path, at_store **store);
// The dtype that the env's means on this device for networks that do not fit f16, and for one.
at_dtype at_env_compute(const at_env *e);
at_dtype at_env_compute_for(const at_env *e, bool f16);

#endif
