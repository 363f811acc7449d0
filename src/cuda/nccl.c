// SPDX-License-Identifier: Apache-2.0
// nccl.c - the library by name, and what must be said to it before its first word.
// Easy to get wrong: NCCL reads its environment once. Multicast (NVLS) is off: it gains nothing for what we send, and
// where it cannot be had some versions wait for ever.
#include "cuda/nccl.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/status.h"
#include "cuda/libs.h"

#define NCCL(f)                                                                                    \
    {                                                                                              \
        offsetof(at_nccl, f), "nccl" #f                                                            \
    }
static at_nccl g_table;
static const at_nccl *g_nccl;

static void open_once(void)
{
    static const char *const names[] = {"libnccl.so.2", NULL};
    static const at_cuda_symbol rows[] = {
        NCCL(GetVersion), NCCL(GetUniqueId), NCCL(CommInitRankConfig), NCCL(CommGetAsyncError),
        NCCL(CommAbort),  NCCL(GroupStart),  NCCL(GroupEnd),           NCCL(Send),
        NCCL(Recv),       NCCL(AllReduce),   NCCL(GetErrorString),
    };

    (void)setenv("NCCL_NVLS_ENABLE", "0", 1);
    void *lib = at_cuda_library(names);
    if (lib && at_cuda_symbols(lib, &g_table, rows, sizeof rows / sizeof *rows)) g_nccl = &g_table;
}

const at_nccl *at_nccl_open(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int version = 0;

    pthread_once(&once, open_once);
    if (!g_nccl) {
        (void)at_fail(AT_EUNSUPPORTED, "NCCL (libnccl.so.2) is not found or too old; set "
                                       "LD_LIBRARY_PATH or AT_CUDA_LIBS to its folder");
        return NULL;
    }
    if (g_nccl->GetVersion(&version) != NCCL_SUCCESS || version < NCCL_SETTINGS_VERSION) {
        (void)at_fail(AT_EUNSUPPORTED, "NCCL %d.%d is too old; 2.18 is the least", version / 10000,
                      version / 100 % 100);
        return NULL;
    }
    return g_nccl;
}
