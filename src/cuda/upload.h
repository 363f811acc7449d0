// SPDX-License-Identifier: Apache-2.0
// upload.h - host bytes to the device at the speed of the link.
// Idea: the copy engine wants pinned memory and reading wants several threads. Pieces of what is to be sent
// are read by a few threads into slots of a pinned ring (from the file itself where the bytes lie in a
// mapping: no page is faulted in) and sent on a stream of their own, so that reading, sending and
// computing overlap. Small things go through a pinned ring of their own on the compute stream.
// Easy to get wrong: memory that the pool hands out again may still be read by kernels in the compute
// stream; the copies wait for these unless the memory is fresh.
// Ownership: an uploader belongs to its at_cuda for the life of the process; an upload is its starter's and
// must stay where it is until it was joined or dropped.
#ifndef AT_CUDA_UPLOAD_H
#define AT_CUDA_UPLOAD_H

#include "cuda/cuda.h"

typedef struct at_cuda_transfer {
    struct at_cuda_transfer *next;
    char *dst;
    const char *src;
    const at_pieces *apart; // of what lies at src; NULL: it is in one piece
    int file;               // -1: src is memory
    uint64_t offset;
    size_t bytes, taken, queued;
    int error;        // errno of a read; -1: the file ended
    cudaError_t cuda; // of a copy
    // Behind the last copy, once all is queued; before, if `behind`, what the compute stream had queued when it began.
    cudaEvent_t done;
    bool active, joined, behind;
} at_cuda_transfer;

// Make the rings and the threads ready (again: nothing happens).
at_status at_cuda_uploader_open(at_cuda *g);
size_t at_cuda_uploader_bytes(const at_cuda *g); // of pinned memory
// Begin. `urgent`: before all that waits. `fresh`: nothing in the compute stream uses dst.
at_status at_cuda_transfer_start(at_cuda *g, at_cuda_transfer *t, void *dst, const void *src,
                                 size_t bytes, bool urgent, bool fresh);
// The same for the `bytes` bytes of a weight, which may lie apart.
at_status at_cuda_transfer_weight(at_cuda *g, at_cuda_transfer *t, void *dst, const at_wview *w,
                                  size_t bytes, bool urgent);
// at_cuda_upload of them.
at_status at_cuda_upload_weight(at_cuda *g, void *dst, const at_wview *w, size_t bytes);
// The compute stream waits for it from here on; the host until all has been read.
at_status at_cuda_transfer_join(at_cuda *g, at_cuda_transfer *t);
// For what will not be used: the host waits until nothing reads src any more. NULL or joined: nothing to do
// but free the event.
void at_cuda_transfer_drop(at_cuda *g, at_cuda_transfer *t);

#endif
