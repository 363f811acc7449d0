// SPDX-License-Identifier: Apache-2.0
// cut.h - the shares of a weight, for ranks that split layers among them (tensor parallel).
// Idea: an architecture says once how a weight may be cut: along its rows or its columns, in runs (q, k and v of a
// fused layer; the two halves of a gated one) of units that stay whole (heads). A rank's share is its units of every
// run, behind each other: a weight of its own, so that a backend packs it and brings it to a device like any other
// and never touches the rest. Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053).
// Easy to get wrong: what one layer's rows are cut like, the next layer's columns must be cut like too; units need not
// divide, and a rank may have none.
// Owns: shares belong to the record they are of, and die with its store.
#ifndef AT_WEIGHT_CUT_H
#define AT_WEIGHT_CUT_H

#include "weight/store.h"

enum { AT_CUT_RUNS = 4, AT_CUT_UNIT = 64 }; // unit: where nothing but speed asks for one

typedef struct at_cut_run {
    int64_t length, unit; // a last unit may be shorter
} at_cut_run;

typedef struct at_cutting {
    bool columns; // of dimension 1, else rows: of dimension 0
    int n;
    at_cut_run run[AT_CUT_RUNS]; // the whole dimension
} at_cutting;

// Units first .. of a run that belong to `rank`, as the first element and (the result) how many: the first ranks have
// one unit more where they do not divide.
int64_t at_cut_share(at_cut_run run, int rank, int size, int64_t *first);

// How w may be cut, from now on. The same again is fine. AT_EINVAL: the runs are not the dimension; AT_EINTERNAL: it
// is cut in another way already. Any thread.
at_status at_weight_cut(const at_weight *w, const at_cutting *how);
const at_cutting *at_weight_how_cut(const at_weight *w); // NULL: it stays whole

// Rank `rank`'s share of w among `size`, with its bytes; w itself where it stays whole. Any thread.
at_status at_weight_share(const at_weight *w, int rank, int size, const at_weight **out);
// The same as a slot sees it. apart: what does not lie in one piece is not gathered (at_wview.apart).
at_status at_weight_share_view(const at_weight *w, int rank, int size, bool apart, at_wview *out);
// Its shape alone: what dimension 0 or 1 becomes.
void at_weight_share_shape(const at_weight *w, int rank, int size, int64_t shape[AT_MAX_RANK]);

#endif
