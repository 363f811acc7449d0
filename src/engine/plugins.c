// SPDX-License-Identifier: Apache-2.0
// plugins.c - finding and loading libat_cuda.so.
#include "engine/plugins.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "tensor/device.h"

static pthread_once_t g_once = PTHREAD_ONCE_INIT;
static char g_reason[512];
static bool g_failed;

// What NVIDIA's driver makes, or WSL's.
static bool driver_is_there(void)
{
    return at_path_exists("/dev/nvidiactl") || at_path_exists("/dev/dxg");
}

typedef at_status register_fn(int abi);

static bool load(const char *dir)
{
    char *path = dir ? at_path_join(dir, "libat_cuda.so") : NULL;
    bool there = path && at_path_exists(path);
    void *lib = there ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    register_fn *enter = NULL;

    if (there && !lib) snprintf(g_reason, sizeof g_reason, "%s", dlerror());
    void *symbol = lib ? dlsym(lib, "at_cuda_register") : NULL;
    if (lib && !symbol) snprintf(g_reason, sizeof g_reason, "%s is no device plug-in", path);
    memcpy(&enter, &symbol, sizeof enter);
    if (enter) {
        at_status st = enter(AT_PLUGIN_ABI);
        snprintf(g_reason, sizeof g_reason, "%s",
                 st != AT_OK             ? at_error_text()
                 : at_device_count() > 1 ? ""
                                         : "no CUDA GPU on this machine");
        g_failed = st != AT_OK && st != AT_ENOTFOUND;
    }
    at_free(path);
    return there;
}

static void load_once(void)
{
    const char *asked = getenv("AT_PLUGINS");
    char *root = at_program_root();
    char *lib = root ? at_path_join(root, "lib") : NULL;

    snprintf(g_reason, sizeof g_reason, "this build has no CUDA plug-in (libat_cuda.so)");
    if (!(asked && load(asked))) load(lib);
    if (*g_reason && driver_is_there()) g_failed = true;
    at_free(lib);
    at_free(root);
}

void at_plugins_load(void)
{
    pthread_once(&g_once, load_once);
}

bool at_plugins_failed(void)
{
    return g_failed;
}

const char *at_plugins_reason(void)
{
    return g_reason;
}
