// SPDX-License-Identifier: Apache-2.0
// svg.h - SVG on a link: a list of texts.
// Owns: as objects.h.
#ifndef AT_NODES_SVG_H
#define AT_NODES_SVG_H

#include "atelier/node.h"

typedef struct at_obj_svg {
    at_object base;
    char **texts; // UTF-8
    size_t count;
} at_obj_svg;
// Copies the texts. NULL if out of memory.
at_object *at_obj_svg_new(const char *const *texts, size_t count);

#endif
