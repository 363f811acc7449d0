// SPDX-License-Identifier: Apache-2.0
// lanes.h - which devices the next job gets while others run or wait.
// Idea: devices are slots (of `unit` devices each), and jobs get blocks of slots as in a buddy allocator: the lane of
// number i is an engine of its own that holds slot i and, if i is a multiple of 2, 4 ..., as many behind it. A job that
// is alone gets all devices (the shortest time); jobs that wait share what is free as evenly as blocks allow (the most
// pictures an hour: sharing a picture never gains all of what its devices could do apart).
// Easy to get wrong: lane 0 holds all devices, so its job may be any block that begins at 0; two lanes never work on
// one device at a time, though both may hold memory there.
// Owns nothing; the caller locks.
#ifndef AT_SERVE_LANES_H
#define AT_SERVE_LANES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

enum { AT_LANES_MOST = 16 };

typedef struct at_lanes {
    int devices, slots, unit;
    int least;      // slots that a job should have even while others wait (a power of two, or all)
    unsigned taken; // slots of jobs that run
    int held[AT_LANES_MOST]; // slots of each lane's job; 0: it has none
} at_lanes;

// devices: of the engine that has all; wanted: how many a job wants by --parallel (1: it does not say); most: --lanes,
// 0: as many as pay. host: ranks of one processor, which gains nothing by lanes. AT_EUSAGE: there are not so many.
at_status at_lanes_open(int devices, int wanted, int most, bool host, at_lanes *out);
// Slots that the engine of this lane holds, from `lane` on.
int at_lanes_reach(const at_lanes *l, int lane);
// The lane for the next of `waiting` jobs, and its slots; -1: none is free. up: lanes whose engines are there.
int at_lanes_place(const at_lanes *l, unsigned up, size_t waiting, int *slots);
void at_lanes_take(at_lanes *l, int lane, int slots);
void at_lanes_leave(at_lanes *l, int lane);
// Devices for a job of so many slots, as at_job.ranks.
int at_lanes_ranks(const at_lanes *l, int slots);
// The engines that so many jobs at once should find.
unsigned at_lanes_wanted(const at_lanes *l, size_t jobs);
// What a run said of the devices that runs like it should have (at_job_result.ranks).
void at_lanes_learn(at_lanes *l, int ranks);

#endif
