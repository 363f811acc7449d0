// SPDX-License-Identifier: Apache-2.0
// edit_impl.h - private to the edits: the arithmetic of one change.
// Owns nothing.
#ifndef AT_WEIGHT_EDIT_IMPL_H
#define AT_WEIGHT_EDIT_IMPL_H

#include "weight/edits.h"
#include "weight/matrix.h"

// The window of a weight that one change works on: a borrowed matrix and its shape.
typedef struct at_edit_window {
    at_matrix m;
    int rank;
    int64_t shape[AT_MAX_RANK];
    const at_weight *base; // the whole record before all changes
} at_edit_window;

// What a low-rank or rotating edit adds at strength 1, before `scale`: *delta has the window's elements.
// AT_EINVAL: the tensors do not fit the weight. edit_delta.c, edit_turn.c
at_status at_edit_delta(const at_edit *e, const at_edit_window *w, at_matrix *delta, double *scale);
at_status at_edit_turn(const at_edit *e, const at_edit_window *w, at_matrix *delta);

// `base` under these changes in f32, before rounding: [rows, cols] of its new shape. edit_apply.c
at_status at_edit_list(const at_weight *base, const at_edit *const *list, size_t n, at_matrix *out);
// The changes of a record of an edited store and the base record they start from; 0: not edited.
size_t at_edits_of(const at_weight *w, const at_edit *const **list, const at_weight **base);

#endif
