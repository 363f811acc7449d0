// SPDX-License-Identifier: Apache-2.0
// node_testing_crash.c - TestCrash: takes its process with it, or its memory, so that a test sees what is left.
// Easy to get wrong: only behind test_nodes (see node_testing.c): whoever may run it may stop the engine.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nodes/env.h"
#include "nodes/nodes.h"
#include "nodes/pixels.h"
#include "nodes/testing.h"

typedef struct crash_in {
    at_value value;
    const char *how;
    const char *once; // a path: it goes well if there is such a file, which is made
} crash_in;
static const char *const ways[] = {"SEGV",  "ABRT", "FPE",  "KILL",       "EXIT",
                                   "NOMEM", "HANG", "LOSE", "LOSE_LATER", NULL};
static const at_in rows[] = {AT_ROW(crash_in, value, AT_IN_ANY, .type_name = "*"),
                             AT_ROW(crash_in, how, AT_IN_COMBO, .choices = ways),
                             AT_ROW(crash_in, once, AT_IN_STRING, .sdef = "")};
static const at_out any_out[] = {AT_OUT("*")};

static void *lose_later(void *device)
{
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    at_device_lose(device, "TestCrash");
    return NULL;
}

static at_status crash(const at_node_ctx *c, const char *how)
{
    static const struct {
        const char *name;
        int number;
    } signals[] = {{"SEGV", SIGSEGV}, {"ABRT", SIGABRT}, {"FPE", SIGFPE}, {"KILL", SIGKILL}};
    for (size_t i = 0; i < AT_COUNT(signals); i++)
        if (strcmp(how, signals[i].name) == 0) {
            signal(signals[i].number, SIG_DFL);
            raise(signals[i].number);
        }
    if (strcmp(how, "EXIT") == 0) _exit(7);
    while (strcmp(how, "HANG") == 0)
        pause();                    // deaf to the cancel flag, too
    if (strcmp(how, "LOSE") == 0) { // as an illegal address on a GPU does
        at_device *d = at_env_of(c)->device;
        at_device_lose(d, "TestCrash");
        return at_device_check(d);
    }
    return at_fail(AT_ENOMEM, "TestCrash: no memory"); // an honest failure
}

static at_status run(at_node_ctx *c, const void *in, at_value *out)
{
    const crash_in *i = in;
    int fd = *i->once ? open(i->once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) close(fd);
    pthread_t id;
    if (strcmp(i->how, "LOSE_LATER") == 0) { // when this job has ended
        if (pthread_create(&id, NULL, lose_later, at_env_of(c)->device) == 0) pthread_detach(id);
    } else if (!*i->once || fd >= 0) {
        return crash(c, i->how);
    }
    *out = at_value_copy(&i->value);
    return out->kind == i->value.kind ? AT_OK : at_fail(AT_ENOMEM, "TestCrash: no memory");
}

const at_node at_node_test_crash = {.class_type = "TestCrash",
                                    .display = "Test Crash",
                                    .category = "_for_testing",
                                    .flags = AT_NODE_TEST,
                                    .python_module = "custom_nodes.testing-pack",
                                    .in = rows,
                                    .n_in = AT_COUNT(rows),
                                    .in_size = sizeof(crash_in),
                                    .out = any_out,
                                    .n_out = AT_COUNT(any_out),
                                    .run = run};
