// SPDX-License-Identifier: Apache-2.0
// known.h - the nodes that ComfyUI 0.3.64 has, so that what is missing here can be told by name.
// Idea: a list of names with the family each belongs to; what the registry lacks is missing.
// Owns nothing: const tables.
#ifndef AT_NODES_KNOWN_H
#define AT_NODES_KNOWN_H

#include <stddef.h>

// What a node is about. CORE is what this program sets out to have; the rest waits.
typedef enum at_known_family {
    AT_KNOWN_CORE,
    AT_KNOWN_OTHER, // image models other than Stable Diffusion and Flux
    AT_KNOWN_VIDEO,
    AT_KNOWN_AUDIO,
    AT_KNOWN_THREE_D,
    AT_KNOWN_TRAINING,
    AT_KNOWN_FAMILIES
} at_known_family;

typedef struct at_known_node {
    const char *class_type;
    at_known_family family;
} at_known_node;

extern const at_known_node at_known_nodes[];
extern const size_t at_known_count;
const char *at_known_family_title(at_known_family f);       // "video"
const at_known_node *at_known_find(const char *class_type); // NULL: ComfyUI has no such node

#endif
