// SPDX-License-Identifier: Apache-2.0
// loaders.h - what loader nodes share: text encoders put into their places.
// Ownership: a place owns one reference to its encoder and its vocabulary.
#ifndef AT_NODES_LOADERS_H
#define AT_NODES_LOADERS_H

#include "nodes/env.h"
#include "nodes/objects.h"

// MODEL, CLIP and VAE of a checkpoint into out[0..2]; CLIP and VAE stay empty if it holds none.
// What UNETLoader and VAELoader give: a MODEL, a VAE.
at_status at_load_unet(at_node_ctx *c, const char *name, const char *weight_dtype, at_value *out);
at_status at_load_vae(at_env *e, const char *name, at_value *out);
// What ControlNetLoader gives; model: a difference net's base, or NULL.
at_status at_load_control(at_node_ctx *c, const char *name, const at_object *model, at_value *out);
at_status at_load_checkpoint(at_env *e, const char *name, at_value *out);

// Load every text encoder of a file into its place; *loaded counts them. AT_EINVAL: a place is taken.
at_status at_load_encoders(at_env *e, at_store *s, const char *path,
                           at_clip_encoder enc[AT_TE_COUNT], size_t *loaded);
void at_drop_encoders(at_clip_encoder enc[AT_TE_COUNT]);
// The CLIP that a checkpoint's encoders make. Takes the places, also on failure.
at_status at_checkpoint_clip(at_clip_encoder enc[AT_TE_COUNT], const char *file, at_object **out);
// The CLIP of the named files of "text_encoders" under a loader's `type` (DualCLIPLoader ...).
// device: where its encoders run; NULL: where the env says.
at_status at_load_clip_files(at_node_ctx *c, const char *const *names, size_t n, const char *type,
                             at_device *device, at_value *out);
// What CLIPLoader and DualCLIPLoader know as `type`.
extern const char *const at_clip_types[], *const at_dual_clip_types[];
// What a loader's `device` means: NULL ("default", absent), the CPU, a GPU that is here; another name is NULL and a
// note, so that workflows of larger machines run.
at_device *at_loader_device(at_node_ctx *c, const char *name);
// The same from paths.
at_status at_load_clip_paths(at_node_ctx *c, const char *const *paths, size_t n, const char *type,
                             at_value *out);

#endif
