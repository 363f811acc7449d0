// SPDX-License-Identifier: Apache-2.0
// check_device.h - the check rows on another device's slots.
// Idea: a row's blocks are mirrored on the device, the same arguments are pointed at the mirror, the
// slot runs there and every block comes back, so guards and inputs are judged as on the CPU. Weights
// stay where they are: a device backend makes its own form of them.
// Owns: the mirror lives as long as the row.
#ifndef AT_TESTS_CHECK_DEVICE_H
#define AT_TESTS_CHECK_DEVICE_H

#include "check.h"
#include "tensor/device.h"

// Load the plug-in at `path` and find the device; NULL with a printed reason.
at_device *ck_device_open(const char *plugin, const char *name);

typedef struct ck_mirror {
    at_device *dev;
    ck_run *host;
    ck_run run; // the same row with device addresses
    void *blocks[CK_TENSORS];
} ck_mirror;
bool ck_mirror_make(ck_mirror *m, at_device *dev, ck_run *r);
// Send the blocks, call the slot, fetch the blocks.
at_status ck_mirror_run(ck_mirror *m);
// Milliseconds of one call with blocks resident, median of several.
double ck_mirror_time(ck_mirror *m);
void ck_mirror_drop(ck_mirror *m);

#endif
