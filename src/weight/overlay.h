// SPDX-License-Identifier: Apache-2.0
// overlay.h - a store over another: some records are its own, all others are the base's.
// Idea: a changed model is its file and a few tensors that differ. The bytes of those are made when
// they are first wanted, once, whatever thread asks first (at_weight_ready); the originals stay where
// they are.
// Easy to get wrong: `data` of a record that is not made yet is NULL. Who reads weights past the doors
// of ops/ calls at_weight_ready first.
// Owns: an overlay keeps its base and its maker's context alive, and owns the bytes it made.
#ifndef AT_WEIGHT_OVERLAY_H
#define AT_WEIGHT_OVERLAY_H

#include "weight/store.h"

// One record of the overlay: it stands for the base's record of that name, or is a new one.
typedef struct at_overlay_row {
    const char *name; // copied
    at_dtype dtype;
    int rank;
    int64_t shape[AT_MAX_RANK];
} at_overlay_row;

// Fill the w->bytes bytes of row `row`. Called by one thread at a time, when the overlay is complete.
typedef at_status at_overlay_make_fn(void *ctx, size_t row, const at_weight *w, void *bytes);
typedef struct at_overlay_maker {
    at_overlay_make_fn *make;
    void (*free)(void *ctx); // NULL: nothing to free
    void *ctx;
} at_overlay_maker;

// Takes maker->ctx, also on failure. AT_EINVAL: a name stands twice, a shape is out of range.
at_status at_store_overlay(at_store *base, const at_overlay_row *rows, size_t n,
                           const at_overlay_maker *maker, at_store **out);
at_store *at_store_base(at_store *s); // borrowed; NULL: s is no overlay
void *at_store_maker(const at_store *s,
                     at_overlay_make_fn *make); // its ctx; NULL: not made by that

#endif
