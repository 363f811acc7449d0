// SPDX-License-Identifier: Apache-2.0
// break_gpu.c - libat_break_gpu.so: the GPU of the process that preloads it fails when a file appears.
// Idea: nothing in the product pretends. A thread polls for the file named by AT_BREAK_GPU; once it is there and this
// process works with a GPU, a kernel of two instructions runs in the same context: a trap, or a store to an address that
// nobody has. The driver then answers every call of the process with the same error, as after a real fault.
//     LD_PRELOAD=libat_break_gpu.so AT_BREAK_GPU=/tmp/now atelier serve ...     and: echo trap >/tmp/now
// Easy to get wrong: the server preloads it too but has no context and must leave the file to the engine; who unlinks it acts.
// Sources: CUDA driver API (the few calls are declared here: no header of NVIDIA's is wanted), PTX ISA 6.0.
// Owns nothing that outlives the process.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int call; // CUresult, 0: well

typedef struct driver {
    call (*init)(unsigned flags);
    call (*state)(int device, unsigned *flags, int *active);
    call (*retain)(void **context, int device);
    call (*use)(void *context);
    call (*load)(void **module, const void *image);
    call (*function)(void **function, void *module, const char *name);
    call (*launch)(void *function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   unsigned shared, void *stream, void **args, void **extra);
    call (*synchronize)(void);
} driver;

static const char program[] = ".version 6.0\n.target sm_60\n.address_size 64\n"
                              ".visible .entry trap()\n{\n    trap;\n    ret;\n}\n"
                              ".visible .entry address()\n{\n    .reg .u64 %a;\n"
                              "    mov.u64 %a, 4096;\n    st.global.u32 [%a], 1;\n    ret;\n}\n";

static int find(void *lib, const char *name, void *out)
{
    void *symbol = dlsym(lib, name);
    memcpy(out, &symbol, sizeof symbol);
    return symbol != NULL;
}

// The driver that the process has loaded itself; none: it uses no GPU.
static int open_driver(driver *d)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return lib && find(lib, "cuInit", &d->init) &&
           find(lib, "cuDevicePrimaryCtxGetState", &d->state) &&
           find(lib, "cuDevicePrimaryCtxRetain", &d->retain) &&
           find(lib, "cuCtxSetCurrent", &d->use) && find(lib, "cuModuleLoadData", &d->load) &&
           find(lib, "cuModuleGetFunction", &d->function) &&
           find(lib, "cuLaunchKernel", &d->launch) &&
           find(lib, "cuCtxSynchronize", &d->synchronize);
}

// The first GPU with a context of this process; -1: none.
static int device_in_use(const driver *d)
{
    for (int i = 0; i < 16; i++) {
        unsigned flags;
        int active = 0;
        if (d->state(i, &flags, &active) == 0 && active) return i;
    }
    return -1;
}

static void fail_device(const driver *d, int device, const char *how)
{
    void *context, *module, *kernel;
    call e = d->retain(&context, device);

    if (!e) e = d->use(context);
    if (!e) e = d->load(&module, program);
    if (!e) e = d->function(&kernel, module, how);
    if (!e) e = d->launch(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    if (!e) e = d->synchronize();
    fprintf(stderr, "break_gpu: cuda:%d, %s: the driver answers %d\n", device, how, e);
}

static void *watch(void *unused)
{
    const char *path = getenv("AT_BREAK_GPU");
    driver d;

    (void)unused;
    for (;;) {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        if (access(path, R_OK) != 0 || !open_driver(&d) || d.init(0) != 0) continue;
        int device = device_in_use(&d);
        if (device < 0) continue;
        char how[16] = "";
        FILE *f = fopen(path, "r");
        if (!f) continue;
        if (fscanf(f, "%15s", how) != 1) how[0] = 0;
        fclose(f);
        if (*how && unlink(path) == 0) fail_device(&d, device, how);
    }
    return NULL; // not reached
}

__attribute__((constructor)) static void begin(void)
{
    pthread_t id;
    if (getenv("AT_BREAK_GPU") && pthread_create(&id, NULL, watch, NULL) == 0) pthread_detach(id);
}
