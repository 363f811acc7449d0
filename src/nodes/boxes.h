// SPDX-License-Identifier: Apache-2.0
// boxes.h - GLIGEN on links, and its boxes in a conditioning (at_cond.extra[AT_COND_GLIGEN]).
// Ownership: as objects.h.
#ifndef AT_NODES_BOXES_H
#define AT_NODES_BOXES_H

#include "models/gligen.h"
#include "nodes/objects.h"

typedef struct at_obj_gligen {
    at_object base;
    at_gligen *net;
} at_obj_gligen;
at_object *at_obj_gligen_new(at_gligen *g); // takes the reference

// One box behind others; the newest names the net for all of them.
typedef struct at_obj_box {
    at_object base;
    struct at_obj_box *previous; // or NULL
    at_gligen *net;
    at_tensor *text;    // [1, d] on the device
    int64_t h, w, y, x; // latent cells
} at_obj_box;
// Retains previous and net, takes text.
at_object *at_obj_box_new(at_object *previous, at_gligen *net, at_tensor *text, int64_t h,
                          int64_t w, int64_t y, int64_t x);

// `set` with the boxes' patch behind it, for latents of height x width.
at_status at_boxes_patch(const at_object *box, int64_t height, int64_t width, const at_patches *set,
                         at_patches **out);

#endif
