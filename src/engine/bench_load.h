// SPDX-License-Identifier: Apache-2.0
// bench_load.h - clock and power of a device while something is timed.
// Idea: a chip at its power limit lowers its clock, and every rate with it; a time means little without both.
// A thread of its own asks every few milliseconds; power is energy over time, because a gauge is a mean of a
// second. Owns: the watch is the caller's until at_load_stop.
#ifndef AT_ENGINE_BENCH_LOAD_H
#define AT_ENGINE_BENCH_LOAD_H

#include "tensor/device.h"

typedef struct at_load {
    int samples;                                    // 0: nothing is known
    double first_mhz, least_mhz, mean_mhz, max_mhz; // max: what the chip can do
    double watts, limit_watts;                      // 0: not known
    unsigned limits;                                // AT_LIMIT_* seen in any sample
} at_load;

typedef struct at_load_watch at_load_watch;

// NULL where the device tells nothing, or no thread could be had: at_load_stop then gives no samples.
at_load_watch *at_load_start(at_device *d);
at_load at_load_stop(at_load_watch *w);

#endif
