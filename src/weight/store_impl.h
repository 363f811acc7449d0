// SPDX-License-Identifier: Apache-2.0
// store_impl.h - what a store is inside, shared by its makers (store.c, overlay.c, alias.c).
// Idea: records never move (I3 of store.h), so two arrays of pointers give them in order and sorted by
// name; an overlay's arrays point at its base's records where it has none of its own.
// Owns: see store.h.
#ifndef AT_WEIGHT_STORE_IMPL_H
#define AT_WEIGHT_STORE_IMPL_H

#include <stdatomic.h>

#include "base/file.h"
#include "weight/cut.h"
#include "weight/overlay.h"
#include "weight/safetensors.h"
#include "weight/store.h"

// Bytes that are made when they are first wanted.
struct at_lazy {
    atomic_bool ready;
    size_t row; // of its overlay
    at_store *store;
};

typedef struct at_share at_share; // cut.c
struct at_cuts {
    atomic_bool known; // else it stays whole
    at_cutting how;
    _Atomic(at_share *) first;
};
void at_cuts_close(at_cuts *c);

typedef struct at_record {
    at_weight w;
    at_packed packed;
    void *own; // bytes of a record that is not in the mapping
    char *own_name;
    at_lazy lazy;
    at_cuts cuts;
} at_record;

typedef struct at_overlay at_overlay; // overlay.c

struct at_store {
    atomic_int refs;
    char *path;
    at_map map;
    at_st_file st;
    at_record *block; // records that were made together (a file's, an overlay's), or NULL
    size_t block_count;
    at_record **order; // file order, then order of adding
    at_record **sorted;
    size_t count, cap;
    at_overlay *overlay; // NULL: no overlay
    void *zeros;         // read-only pages that every record of zeros shows; NULL: not wanted yet
    at_store *under;     // counted: whose bytes an alias shows; or NULL
};

int at_record_by_name(const void *a, const void *b); // for qsort over pointers to records
void at_overlay_close(at_overlay *o);                // NULL is fine

#endif
