// SPDX-License-Identifier: Apache-2.0
// known.c - the list of ComfyUI's nodes and its families.
#include "nodes/known.h"

#include <string.h>

#include "atelier/node.h"

#define AT_KNOWN(name, family) {name, AT_KNOWN_##family},
const at_known_node at_known_nodes[] = {
#include "nodes/known_list.h"
};
#undef AT_KNOWN
const size_t at_known_count = AT_COUNT(at_known_nodes);

const char *at_known_family_title(at_known_family f)
{
    static const char *const titles[AT_KNOWN_FAMILIES] = {
        [AT_KNOWN_CORE] = "images, latents, masks, conditioning, sampling, models",
        [AT_KNOWN_OTHER] = "other image models",
        [AT_KNOWN_VIDEO] = "video",
        [AT_KNOWN_AUDIO] = "audio",
        [AT_KNOWN_THREE_D] = "3D",
        [AT_KNOWN_TRAINING] = "training",
    };
    return titles[f];
}

const at_known_node *at_known_find(const char *class_type)
{
    for (size_t i = 0; i < at_known_count; i++)
        if (strcmp(at_known_nodes[i].class_type, class_type) == 0) return &at_known_nodes[i];
    return NULL;
}
