// SPDX-License-Identifier: Apache-2.0
// priority.c - see priority.h.
// 5 steps are a third of the share of one who stands at 0; how much of it is right was measured: docs/bench/server.md.
#include "serve/priority.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/log.h"

enum { STEPS = 5 };

// thread 0: the calling one.
static void lower(id_t thread)
{
    errno = 0;
    int now = getpriority(PRIO_PROCESS, thread);
    if (errno || setpriority(PRIO_PROCESS, thread, now + STEPS) != 0)
        at_log(AT_DEBUG, "PRIORITY", "the kernel leaves it as it is");
}

void at_priority_lower_thread(void)
{
    lower(0);
}

void at_priority_lower_process(void)
{
    DIR *threads = opendir("/proc/self/task");
    for (struct dirent *e; threads && (e = readdir(threads));)
        if (*e->d_name != '.') lower((id_t)strtoul(e->d_name, NULL, 10));
    if (threads) closedir(threads);
}
