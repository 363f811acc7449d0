// SPDX-License-Identifier: Apache-2.0
// bind.h - from names in a file to typed structs, by tables.
// Idea: a config row reads one size off a tensor's shape; a bind row puts one tensor's record into
// a struct after checking its shape against the config. Everything that is missing or wrong is
// collected, so the message of one failed load names all of it.
// Ownership: an at_bound owns its config and weight structs and keeps the store alive; counted.
#ifndef AT_MODELS_BIND_H
#define AT_MODELS_BIND_H

#include <stdatomic.h>

#include "base/str.h"
#include "tensor/device.h"
#include "weight/cut.h"

struct at_arch;

// --- sizes read off shapes ---------------------------------------------------------------------
typedef enum at_size_how {
    AT_SIZE_DIM,     // shape[dim] of the tensor, divided by `div` (config field) or by `by`
    AT_SIZE_COUNT,   // how many tensors key(0), key(1), ... follow each other; key has one %d
    AT_SIZE_HAS,     // 1 if the tensor is there, else 0
    AT_SIZE_MEASURED // filled by the architecture's measure function
} at_size_how;

// One int64_t of the config struct.
typedef struct at_size_row {
    const char *name; // what `inspect` prints
    size_t offset;    // into the config
    at_size_how how;
    const char *key;
    int dim;
    int by;          // 0: not divided
    size_t by_field; // 1 + offset of an earlier field to divide by; 0: none
} at_size_row;

// --- how ranks may cut a tensor ------------------------------------------------------------------
// `times` runs of `length` each, in units that stay whole; both 1 + the offset of an int64_t in the config. unit 0:
// AT_CUT_UNIT.
typedef struct at_bind_run {
    size_t length, unit;
    int times;
} at_bind_run;
typedef struct at_bind_cut {
    bool columns;
    at_bind_run run[2]; // times 0: none
} at_bind_cut;

// --- tensors put into structs ------------------------------------------------------------------
// One `const at_weight *` of a weights struct. A dimension is 1 + the offset of an int64_t in the
// config, 0 for any size; rank 0: not checked.
typedef struct at_bind_row {
    const char *key;
    size_t offset;
    bool optional; // may be absent; if present, its shape is checked all the same
    int rank;
    size_t dim[4];
    const at_bind_cut *cut; // NULL: every rank has all of it
} at_bind_row;

// Rows below one base key. With a count, the base has one %d and the rows fill an array of structs
// that at_bound allocates; without, they fill the weights struct itself.
typedef struct at_bind_group {
    const char *base; // "double_blocks.%d."
    const at_bind_row *rows;
    size_t n_rows;
    size_t count; // 1 + offset of the number of blocks in the config; 0: one, in place
    size_t array; // offset of the array's pointer in the weights struct
    size_t size;  // bytes of one block struct
} at_bind_group;

// Collects what is missing while rows are bound.
typedef struct at_binder {
    at_store *store;
    const char *prefix;
    at_str problems; // one line each
    size_t count;
} at_binder;

// The record of prefix + base + row->key if it has the right shape, else NULL and a line in
// problems (none if it is optional and absent). config: what the row's dims point into.
const at_weight *at_bind_one(at_binder *b, const char *base, const at_bind_row *row,
                             const void *config);
void at_bind_rows(at_binder *b, const char *base, const at_bind_row *rows, size_t n,
                  const void *config, void *target);
// Every group of an architecture; allocates the block arrays. AT_ENOMEM only.
at_status at_bind_groups(at_binder *b, const at_bind_group *groups, size_t n, const void *config,
                         void *weights);

// Read all sizes of an architecture into a zeroed config. AT_EFORMAT names the row that could not
// be read.
at_status at_read_sizes(at_store *s, const char *prefix, const at_size_row *rows, size_t n,
                        void *config);

// --- a component, bound ------------------------------------------------------------------------
enum { AT_BROUGHT = 16 };
typedef struct at_bound {
    atomic_int refs;
    const struct at_arch *arch;
    at_store *store;
    char prefix[64];
    void *config, *weights;
    // Where they were prefetched to, and what d->moved was then. Ranks share a network: bind.c has the lock.
    struct {
        at_device *to;
        unsigned long moved;
        int rank, size; // whose share
    } brought[AT_BROUGHT];
    unsigned brought_count;       // the oldest goes
    struct at_sessions *sessions; // session.h; NULL until a denoiser is asked
} at_bound;

// AT_EFORMAT: "FILE: 3 tensors are missing or have a wrong shape: ..." (the first eight by name).
at_status at_bound_new(const struct at_arch *arch, at_store *s, const char *prefix, at_bound **out);
at_bound *at_bound_retain(at_bound *b);
// Its weights are going to be wanted on `d` (of a cut one, rank `rank`'s share among `size`): they begin to come, in
// the order of the blocks. Cheap where they are there; a failure shows when they are used.
void at_bound_prefetch(at_bound *b, at_device *d, int rank, int size);
void at_bound_release(at_bound **b); // nulls it; NULL is fine

// What is wrong with a component, one line each; the caller frees *text. Never AT_EFORMAT.
at_status at_bound_problems(const struct at_arch *arch, at_store *s, const char *prefix,
                            char **text, size_t *count);

#endif
