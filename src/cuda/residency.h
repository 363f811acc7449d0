// SPDX-License-Identifier: Apache-2.0
// residency.h - which weights stay on a device, and which one goes when their room is wanted.
// Idea: two rules. What the current piece of work has not used goes first, longest unused first. Of what
// it uses, the newest goes: a step reads its weights in a circle, and whoever throws out the oldest of
// a circle throws out exactly what is wanted next (Belady: the best victim is the one wanted last). So
// a part of a model that does not fit stays, and the rest streams.
// Easy to get wrong: the weights of the call that is being prepared are wanted now: what was touched in
// the last AT_RESIDENT_NOW touches never goes.
// Ownership: entries are the caller's; the list only links them. The caller locks.
#ifndef AT_CUDA_RESIDENCY_H
#define AT_CUDA_RESIDENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Vectors stay while the model is at work: they free nothing, and each would cost a trip.
enum { AT_RESIDENT_NOW = 16, AT_RESIDENT_SMALL = 64 << 10 };

typedef struct at_resident {
    struct at_resident *newer, *older;
    size_t bytes;
    unsigned long epoch; // the piece of work that touched it last
    uint64_t tick;
    bool busy;   // must not go
    bool wanted; // brought ahead and not used yet: goes last
} at_resident;

typedef struct at_residency_list {
    at_resident *newest, *oldest;
} at_residency_list;

// Small ones lie in a list of their own: a UNet has a thousand, and who looks for one that may go would pass them all.
typedef struct at_residency {
    at_residency_list large, small;
    size_t bytes;
    uint64_t tick;
} at_residency;

void at_residency_add(at_residency *r, at_resident *x,
                      unsigned long epoch); // as touched now, unless `wanted`
void at_residency_touch(at_residency *r, at_resident *x, unsigned long epoch);
void at_residency_remove(at_residency *r, at_resident *x);
// Bytes of what `epoch` has not touched.
size_t at_residency_idle(const at_residency *r, unsigned long epoch);
// Who goes next, still in the list; NULL: nobody. like: only who has so many bytes (whose block can be taken as it
// is); 0: any.
typedef enum at_residency_who {
    AT_GO_IDLE, // what `epoch` has not touched
    AT_GO_USED, // what it has used
    AT_GO_WANTED // what was brought ahead and is still not used: it may be for something that never comes
} at_residency_who;
at_resident *at_residency_victim(const at_residency *r, unsigned long epoch, at_residency_who who,
                                 size_t like);

#endif
