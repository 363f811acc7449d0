// SPDX-License-Identifier: Apache-2.0
// nccl.h - the part of NVIDIA's collective library that we call: its binary interface, by our own names.
// Source: NCCL user guide 2.28 and the library's behaviour; the layout of the settings is that of 2.18, which newer
// ones take (they look at `version`). Owns: the library stays open for the life of the process.
#ifndef AT_CUDA_NCCL_H
#define AT_CUDA_NCCL_H

#include <cuda_runtime_api.h>
#include <stddef.h>

enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7 };
enum { NCCL_UINT8 = 1, NCCL_FLOAT32 = 7 };
enum { NCCL_SUM = 0 };
enum { NCCL_MAGIC = (int)0xcafebeef, NCCL_SETTINGS_VERSION = 21800, NCCL_UNSET = (int)0x80000000 };

typedef struct at_nccl_id {
    char bytes[128];
} at_nccl_id;

typedef struct at_nccl_settings {
    size_t size;
    int magic, version;
    int blocking; // 0: calls return NCCL_IN_PROGRESS, and GetAsyncError says when they are done
    int cluster_size, least_blocks, most_blocks;
    const char *network;
    int split_shares;
} at_nccl_settings;

typedef struct at_nccl {
    int (*GetVersion)(int *version);
    int (*GetUniqueId)(at_nccl_id *id);
    int (*CommInitRankConfig)(void **comm, int size, at_nccl_id id, int rank,
                              at_nccl_settings *settings);
    int (*CommGetAsyncError)(void *comm, int *state);
    int (*CommAbort)(void *comm);
    int (*GroupStart)(void);
    int (*GroupEnd)(void);
    int (*Send)(const void *from, size_t count, int type, int peer, void *comm,
                cudaStream_t stream);
    int (*Recv)(void *to, size_t count, int type, int peer, void *comm, cudaStream_t stream);
    int (*AllReduce)(const void *from, void *to, size_t count, int type, int operation, void *comm,
                     cudaStream_t stream);
    const char *(*GetErrorString)(int result);
} at_nccl;

// Opened when first asked for, with multicast off (NCCL_NVLS_ENABLE=0); NULL with a message. Any thread.
const at_nccl *at_nccl_open(void);

#endif
