// SPDX-License-Identifier: Apache-2.0
// annotated.h - files that people name in a widget: "name", perhaps with " [input]", " [output]" or
// " [temp]" behind it.
// Idea: the mark says which of the three working folders the file lies in; without one it is the
// input folder. Nodes that load such files share the check before a run and the hash that tells a
// changed file.
// Easy to get wrong: a name must not leave its folder, marked or not.
// Source: ComfyUI 0.3.64 folder_paths.py (behaviour). Owns: results are the caller's.
#ifndef AT_NODES_ANNOTATED_H
#define AT_NODES_ANNOTATED_H

#include "nodes/env.h"

at_status at_annotated_path(const at_env *e, const char *name, char **path);
// For `validate`: AT_EINVAL "Invalid WHAT file: NAME" unless there is such a file. name NULL
// (linked): AT_OK.
at_status at_annotated_check(const at_env *e, const char *name, const char *what);
// For `fingerprint`: SHA-256 of the file's bytes in hex.
at_status at_annotated_hash(const at_env *e, const char *name, char **out);

#endif
