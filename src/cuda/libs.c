// SPDX-License-Identifier: Apache-2.0
// libs.c - cublasLt, cuDNN and NVML, opened by name.
// Idea: first where the loader finds them, then the folders of AT_CUDA_LIBS (colon-separated), for
// people whose libraries came with a Python environment.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cuda/cublaslt.h"
#include "cuda/cudnn.h"
#include "cuda/libs.h"
#include "cuda/nvml.h"

static void *open_in(const char *folder, size_t n, const char *name)
{
    char path[1024];
    int len = snprintf(path, sizeof path, "%.*s/%s", (int)n, folder, name);
    if (len < 0 || (size_t)len >= sizeof path) return NULL;
    return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

void *at_cuda_library(const char *const *names)
{
    for (int i = 0; names[i]; i++) {
        void *lib = dlopen(names[i], RTLD_NOW | RTLD_GLOBAL);
        if (lib) return lib;
        const char *at = getenv("AT_CUDA_LIBS");
        while (at && *at) {
            size_t n = strcspn(at, ":");
            lib = n ? open_in(at, n, names[i]) : NULL;
            if (lib) return lib;
            at += n + (at[n] == ':');
        }
    }
    at_fail(AT_ENOTFOUND, "%s is not found; set LD_LIBRARY_PATH or AT_CUDA_LIBS to its folder",
            names[0]);
    return NULL;
}

int at_cuda_symbols(void *lib, void *table, const at_cuda_symbol *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *f = dlsym(lib, rows[i].name);
        if (!f) {
            at_fail(AT_EUNSUPPORTED, "%s is missing in the library found: it is too old",
                    rows[i].name);
            return 0;
        }
        memcpy((char *)table + rows[i].offset, &f, sizeof f);
    }
    return 1;
}

#define LT(f)                                                                                      \
    {                                                                                              \
        offsetof(at_cublaslt, f), "cublasLt" #f                                                    \
    }
const at_cublaslt *at_cublaslt_open(void)
{
    static at_cublaslt table;
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
    static const at_cuda_symbol rows[] = {
        LT(Create),
        LT(MatmulDescCreate),
        LT(MatmulDescDestroy),
        LT(MatmulDescSetAttribute),
        LT(MatrixLayoutCreate),
        LT(MatrixLayoutDestroy),
        LT(MatrixLayoutSetAttribute),
        LT(MatmulPreferenceCreate),
        LT(MatmulPreferenceDestroy),
        LT(MatmulPreferenceSetAttribute),
        LT(MatmulAlgoGetHeuristic),
        LT(MatmulAlgoConfigSetAttribute),
        LT(MatmulAlgoCheck),
        LT(Matmul),
        LT(GetVersion),
    };
    void *lib = at_cuda_library(names);
    return lib && at_cuda_symbols(lib, &table, rows, sizeof rows / sizeof *rows) ? &table : NULL;
}

#define DNN(f)                                                                                     \
    {                                                                                              \
        offsetof(at_cudnn, f), "cudnn" #f                                                          \
    }
const at_cudnn *at_cudnn_open(void)
{
    static at_cudnn table;
    static const char *const names[] = {"libcudnn.so.9", NULL};
    static const at_cuda_symbol rows[] = {
        DNN(Create),
        DNN(SetStream),
        DNN(GetVersion),
        DNN(GetErrorString),
        DNN(GetLastErrorString),
        DNN(BackendCreateDescriptor),
        DNN(BackendDestroyDescriptor),
        DNN(BackendSetAttribute),
        DNN(BackendGetAttribute),
        DNN(BackendFinalize),
        DNN(BackendExecute),
    };
    void *lib = at_cuda_library(names);
    return lib && at_cuda_symbols(lib, &table, rows, sizeof rows / sizeof *rows) ? &table : NULL;
}

#define NVML(f)                                                                                    \
    {                                                                                              \
        offsetof(at_nvml, f), "nvml" #f                                                            \
    }
static const at_nvml *g_nvml;

static void nvml_once(void)
{
    static at_nvml table;
    static const at_cuda_symbol rows[] = {
        NVML(Init_v2),
        NVML(SystemGetDriverVersion),
        NVML(DeviceGetHandleByPciBusId_v2),
        NVML(DeviceGetMaxPcieLinkGeneration),
        NVML(DeviceGetMaxPcieLinkWidth),
        NVML(DeviceGetNvLinkState),
        NVML(DeviceGetUtilizationRates),
        NVML(DeviceGetMemoryInfo),
        NVML(DeviceGetTemperature),
        NVML(DeviceGetPowerUsage),
        NVML(DeviceGetEnforcedPowerLimit),
        NVML(DeviceGetTotalEnergyConsumption),
        NVML(DeviceGetClockInfo),
        NVML(DeviceGetMaxClockInfo),
        NVML(DeviceGetCurrentClocksThrottleReasons),
        NVML(DeviceGetComputeRunningProcesses_v3),
    };
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL); // the driver's: nowhere else
    if (lib && at_cuda_symbols(lib, &table, rows, sizeof rows / sizeof *rows) && !table.Init_v2())
        g_nvml = &table;
}

const at_nvml *at_nvml_open(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, nvml_once);
    return g_nvml;
}
