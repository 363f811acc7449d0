// SPDX-License-Identifier: Apache-2.0
// fake_cudart.h - what tests set and look at.
#ifndef AT_TESTS_FAKE_CUDART_H
#define AT_TESTS_FAKE_CUDART_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

typedef struct fake_gpu {
    size_t room, taken;
    int mallocs, events;
    _Atomic size_t uploaded;
    _Atomic int
        bare_copies; // large ones to the device whose thread had not let the stream wait just before
    int frees;
    cudaError_t copy_error;
    bool apart;   // no GPU reaches another one's memory
    void *pinned; // the one block: the uploader's
} fake_gpu;
extern fake_gpu fake;
enum { FAKE_WIRE_AHEAD = 5000000 }; // nanoseconds that a device's clock is ahead of the host's
extern int fake_wire_late;          // microseconds by which a push of the peer of rank 0 comes late
extern bool fake_wire_waits;        // of fake_wire.c; false: one thread plays both ends

#endif
