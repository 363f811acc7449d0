// SPDX-License-Identifier: Apache-2.0
// process_args.c - see process_args.h.
// Easy to get wrong: the secret goes by the environment, not by the command line, which every user of the machine can
// read.
#include "cli/process_args.h"

#include <openssl/rand.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/plugins.h"
#include "par/tcp.h"
#include "tensor/device.h"

enum { MOST = 16 };
struct at_process_group {
    int n; // the others
    pid_t id[MOST];
    char rendezvous[64], secret[40];
};

// --- starting ----------------------------------------------------------------------------------
// This process's own command line, as one buffer of words.
static at_status own_words(char **buffer, char **words, size_t most)
{
    at_status st = AT_OK;
    size_t n = 0, bytes = 0, room = 1 << 16;
    FILE *f = fopen("/proc/self/cmdline", "rb");

    *buffer = at_calloc(1, room + 1);
    if (!f || !*buffer) AT_TRY(at_fail(AT_EIO, "--processes: /proc/self/cmdline cannot be read"));
    bytes = fread(*buffer, 1, room, f);
    for (size_t i = 0; i < bytes && n + 1 < most; i += strlen(*buffer + i) + 1)
        words[n++] = *buffer + i;
    words[n] = NULL;
    if (bytes == room || n + 1 == most)
        AT_TRY(at_fail(AT_EUSAGE, "--processes: the command line is too long"));
out:
    if (f) fclose(f);
    return st;
}

static at_status start(at_process_group *g, char **words, int rank, int ranks)
{
    char text[16];
    int e;

    snprintf(text, sizeof text, "%d", rank);
    (void)setenv("ATELIER_RANK", text, 1);
    snprintf(text, sizeof text, "%d", ranks);
    (void)setenv("ATELIER_RANKS", text, 1);
    (void)setenv("ATELIER_RENDEZVOUS", g->rendezvous, 1);
    (void)setenv("ATELIER_SECRET", g->secret, 1);
    e = posix_spawn(&g->id[g->n], "/proc/self/exe", NULL, NULL, words, environ);
    (void)unsetenv("ATELIER_RANK");
    if (e) return at_fail(AT_EIO, "--processes: rank %d does not start: %s", rank, strerror(e));
    g->n++;
    return AT_OK;
}

static at_status start_all(int ranks, at_processes *out, at_process_group **group)
{
    enum { WORDS = 4096 };
    at_status st = AT_OK;
    at_process_group *g = at_calloc(1, sizeof *g);
    char *buffer = NULL, **words = at_calloc(WORDS, sizeof *words);
    unsigned char random[16];
    int port = 0;

    if (!g || !words) AT_TRY(at_fail(AT_ENOMEM, "--processes: no memory"));
    AT_TRY(own_words(&buffer, words, WORDS));
    if (RAND_bytes(random, sizeof random) != 1) AT_TRY(at_fail(AT_EIO, "no random numbers"));
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(g->secret + 2 * i, 3, "%02x", random[i]);
    AT_TRY(at_tcp_listen("127.0.0.1:0", &out->listener, &port));
    snprintf(g->rendezvous, sizeof g->rendezvous, "127.0.0.1:%d", port);
    for (int i = 1; i < ranks; i++)
        AT_TRY(start(g, words, i, ranks));
    out->ranks = ranks;
    out->rendezvous = g->rendezvous;
    out->secret = g->secret;
    *group = g;
    g = NULL;
out:
    if (st != AT_OK && out->listener > 0) close(out->listener);
    (void)at_process_group_end(g, AT_EINTERNAL);
    at_free(buffer);
    at_free(words);
    return st;
}

at_status at_processes_begin(const at_process_options *o, const char *job, at_processes *out,
                             at_process_group **group)
{
    const char *rank = o->processes ? getenv("ATELIER_RANK") : o->rank;
    const char *ranks = getenv("ATELIER_RANKS");

    *group = NULL;
    *out = (at_processes){.job = job};
    if (o->processes > 1 && (o->rank || o->ranks || o->rendezvous))
        return at_fail(AT_EUSAGE, "--processes starts the other ranks itself: leave out --rank, "
                                  "--ranks and --rendezvous");
    if (o->processes > 1 && !rank) return start_all((int)o->processes, out, group);
    if (!rank && !o->ranks && !o->rendezvous) return AT_OK;
    if (!o->processes && (!rank || !o->ranks || !o->rendezvous))
        return at_fail(AT_EUSAGE, "--rank, --ranks and --rendezvous go together");
    size_t digits = rank ? strspn(rank, "0123456789") : 0;
    out->ranks = o->processes ? (ranks ? atoi(ranks) : 1) : (int)o->ranks;
    if (!digits || rank[digits] || digits > 3 || atoi(rank) >= out->ranks)
        return at_fail(AT_EUSAGE, "--rank %s: 0 to %d are possible", rank ? rank : "",
                       out->ranks - 1);
    out->rank = atoi(rank);
    out->rendezvous = o->processes ? getenv("ATELIER_RENDEZVOUS") : o->rendezvous;
    out->secret = getenv("ATELIER_SECRET");
    return AT_OK;
}

at_status at_processes_device(const at_process_options *o, const at_processes *p,
                              const char **device, const char **devices, char name[32])
{
    const char *at = *devices;

    if (o->processes < 2) return AT_OK;
    if (at && strchr(at, ',')) {
        for (int i = 0; i < p->rank && at; i++)
            at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL;
        if (!at || !*at)
            return at_fail(AT_EUSAGE, "--devices %s has no device for rank %d", *devices, p->rank);
        snprintf(name, 32, "%.*s", (int)strcspn(at, ","), at);
    } else if (!at && *device && strcmp(*device, "cuda") != 0 && strcmp(*device, "auto") != 0) {
        return AT_OK; // the CPU
    } else {
        at_engine_setup_devices();
        at_plugins_load();
        bool gpu = at_device_find("cuda:0") != NULL;
        snprintf(name, 32, "cpu");
        if (gpu) snprintf(name, 32, "cuda:%d", p->rank);
    }
    *device = name;
    *devices = NULL;
    return AT_OK;
}

// --- ending ------------------------------------------------------------------------------------
static bool ended(at_process_group *g, int i, int *code)
{
    return g->id[i] <= 0 || waitpid(g->id[i], code, WNOHANG) != 0;
}

at_status at_process_group_end(at_process_group *g, at_status st)
{
    double began = at_tcp_now();
    int failed = 0, left = g ? g->n : 0;

    if (!g) return st;
    while (left) {
        left = 0;
        for (int i = 0; i < g->n; i++) {
            int code = 0;

            if (g->id[i] <= 0) continue;
            if (!ended(g, i, &code)) {
                left++;
                if (st != AT_OK && at_tcp_now() - began > 10) (void)kill(g->id[i], SIGKILL);
                continue;
            }
            g->id[i] = 0;
            if (code && !failed) failed = i + 1;
        }
        if (left) nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    at_free(g);
    if (st == AT_OK && failed)
        return at_fail(AT_EINTERNAL, "the process of rank %d has failed; its words stand above",
                       failed);
    return st;
}
