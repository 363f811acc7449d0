// SPDX-License-Identifier: Apache-2.0
// boxes.c - GLIGEN objects, and a chain of boxes as a patch.
// Owns: see boxes.h.
#include "nodes/boxes.h"

#include "base/mem.h"

static void gligen_free(at_object *self)
{
    at_gligen_release(&((at_obj_gligen *)self)->net);
    at_free(self);
}
static const at_object_type gligen_type = {"GLIGEN", gligen_free};

at_object *at_obj_gligen_new(at_gligen *g)
{
    at_obj_gligen *o = at_calloc(1, sizeof *o);
    if (!o) {
        at_gligen_release(&g);
        return NULL;
    }
    atomic_init(&o->base.refs, 1);
    o->base.type = &gligen_type;
    o->net = g;
    return &o->base;
}

static void box_free(at_object *self)
{
    at_obj_box *b = (at_obj_box *)self;
    at_object_release((at_object *)b->previous);
    at_gligen_release(&b->net);
    at_tensor_release(&b->text);
    at_free(b);
}
static const at_object_type box_type = {"GLIGEN_BOX", box_free};

at_object *at_obj_box_new(at_object *previous, at_gligen *net, at_tensor *text, int64_t h,
                          int64_t w, int64_t y, int64_t x)
{
    at_obj_box *b = at_calloc(1, sizeof *b);
    if (!b) {
        at_tensor_release(&text);
        return NULL;
    }
    atomic_init(&b->base.refs, 1);
    b->base.type = &box_type;
    b->previous = (at_obj_box *)at_object_retain(previous);
    b->net = at_gligen_retain(net);
    b->text = text;
    b->h = h;
    b->w = w;
    b->y = y;
    b->x = x;
    return &b->base;
}

at_status at_boxes_patch(const at_object *box, int64_t height, int64_t width, const at_patches *set,
                         at_patches **out)
{
    const at_obj_box *last = (const at_obj_box *)box;
    at_gligen_box list[AT_GLIGEN_OBJECTS];
    size_t n = 0;

    for (const at_obj_box *b = last; b; b = b->previous)
        n++;
    if (n > AT_GLIGEN_OBJECTS)
        return at_fail(AT_EINVAL, "GLIGENTextBoxApply: %zu boxes; %d are the most", n,
                       AT_GLIGEN_OBJECTS);
    size_t i = n; // the chain goes from the newest to the oldest
    for (const at_obj_box *b = last; b; b = b->previous)
        list[--i] = (at_gligen_box){.text = b->text, .h = b->h, .w = b->w, .y = b->y, .x = b->x};
    return at_gligen_patch(last->net, list, n, height, width, set, out);
}
