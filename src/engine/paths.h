// SPDX-License-Identifier: Apache-2.0
// paths.h - where models lie: ComfyUI's folder layout over several roots, and extra_model_paths.yaml.
// Source: comfyui-contract sections 8.2 and 8.3.
// Idea: a table of kinds (key, folders, extensions); each root contributes its folders to each kind.
// Owns: all strings; lists and paths it hands out are the caller's.
#ifndef AT_ENGINE_PATHS_H
#define AT_ENGINE_PATHS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct at_paths at_paths;
at_status at_paths_new(at_paths **out);
void at_paths_free(at_paths *p);

// A folder that holds `checkpoints`, `vae`, ... (ComfyUI's models/). It need not exist.
at_status at_paths_add_root(at_paths *p, const char *models_dir);
// One more folder for one kind; `front`: looked in first.
at_status at_paths_add(at_paths *p, const char *kind, const char *dir, bool front);
// ComfyUI's extra_model_paths.yaml. AT_ENOTFOUND, AT_EFORMAT with the line.
at_status at_paths_add_yaml(at_paths *p, const char *yaml_path);

size_t at_paths_roots(const at_paths *p, const char *const **roots); // borrowed
// Every kind in ComfyUI's order, then those of the user's yaml; NULL behind the last. Borrowed.
const char *at_paths_kind(const at_paths *p, size_t i);
size_t at_paths_dirs(const at_paths *p, const char *kind, const char *const **dirs); // borrowed
bool at_paths_known(const at_paths *p, const char *kind);
// Every file of a kind by its name relative to its folder, sorted, without doubles.
at_status at_paths_list(const at_paths *p, const char *kind,
                        void (*each)(void *ctx, const char *name), void *ctx);
// AT_ENOTFOUND names every folder that was looked in.
at_status at_paths_find(const at_paths *p, const char *kind, const char *name, char **path);

#endif
