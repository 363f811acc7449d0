// SPDX-License-Identifier: Apache-2.0
// world.c - see world.h.
#include "engine/world.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/trace.h"
#include "par/comm_nccl.h"
#include "par/comm_tcp.h"
#include "par/comm_traced.h"

static at_status known(const char *comm)
{
    if (!comm || !strcmp(comm, "auto") || !strcmp(comm, "peer") || !strcmp(comm, "nccl"))
        return AT_OK;
    return at_fail(AT_EUSAGE, "--comm %s: auto, peer or nccl", comm);
}

static bool is(const char *comm, const char *word)
{
    return comm && strcmp(comm, word) == 0;
}

// Two H200 under NCCL 2.28.9 wait for ever there, and why is not known yet; processes do not.
static at_status within_by_nccl(int n, at_device *const *devices, at_comm **out)
{
    if (!getenv("ATELIER_NCCL_THREADS"))
        return at_fail(AT_EUSAGE,
                       "--comm nccl: within one process it was seen to wait for ever; "
                       "take --processes %d, or peer (ATELIER_NCCL_THREADS=1 tries it)",
                       n);
    return at_comm_nccl_threads(n, devices, out);
}

static at_status within_by_threads(int n, at_comm **out)
{
    at_status st = at_comm_threads(n, out);

    for (int i = 0; i < n && st == AT_OK && at_trace_wanted(); i++)
        st = at_comm_traced(&out[i]);
    for (int i = 0; i < n && st != AT_OK; i++) {
        at_comm_free(out[i]);
        out[i] = NULL;
    }
    return st;
}

at_status at_world_within(const char *comm, int n, at_device *const *devices, at_comm **out)
{
    at_status st = known(comm);

    if (st != AT_OK) return st;
    if (devices[0]->host) return within_by_threads(n, out);
    if (is(comm, "nccl")) return within_by_nccl(n, devices, out);
    return at_comm_peer(n, devices, out);
}

at_status at_world_across(const at_processes *p, const char *comm, at_device *d, at_comm **out)
{
    at_status st = known(comm);
    at_str job = {0};
    at_comm *control = NULL;
    at_comm_tcp_config c = {.rank = p->rank,
                            .ranks = p->ranks,
                            .rendezvous = p->rendezvous,
                            .listener = p->listener,
                            .secret = p->secret};

    *out = NULL;
    if (st == AT_OK && is(comm, "peer"))
        st = at_fail(AT_EUSAGE, "--comm peer reaches the GPUs of one process alone");
    if (st == AT_OK && !p->rendezvous)
        st = at_fail(AT_EUSAGE, "rank %d of %d: --rendezvous HOST:PORT is missing", p->rank,
                     p->ranks);
    if (st != AT_OK && p->listener > 0) close(p->listener); // it would have been taken
    AT_TRY(st);
    at_str_printf(&job, "%s|%s|%s", AT_VERSION, d->host ? "cpu" : "gpu", p->job ? p->job : "");
    c.job = at_str_text(&job);
    AT_TRY(at_comm_tcp(&c, &control));
    if (d->host) {
        if (at_trace_wanted()) AT_TRY(at_comm_traced(&control));
        *out = control;
        control = NULL;
        goto out;
    }
    st = at_comm_nccl(control, d, out);
    control = NULL; // taken
out:
    at_comm_free(control);
    at_str_free(&job);
    return st;
}

// Seconds of one gather of `bytes` from each, the least of `rounds`; the first one connects and is not counted.
static at_status time_gather(at_comm *world, at_device *d, const void *from, void *to, size_t bytes,
                             int rounds, double *seconds)
{
    at_status st = AT_OK;

    *seconds = 1e30;
    for (int i = 0; i <= rounds; i++) {
        double began = at_now();

        AT_TRY(world->ops->all_gather(world, from, to, bytes));
        AT_TRY(d->ops->synchronize(d));
        double took = at_now() - began;
        if (i && took < *seconds) *seconds = took;
    }
out:
    return st;
}

at_status at_world_link(at_comm *world, at_device *d, at_wire_link *out)
{
    at_status st = AT_OK;
    size_t bytes = d->host ? (size_t)2 << 20 : (size_t)32 << 20, n = (size_t)world->size;
    void *from = NULL, *to = NULL;
    double many = 0;

    AT_TRY(at_device_alloc(d, bytes, &from));
    AT_TRY(at_device_alloc(d, bytes * n, &to));
    if (d->host) memset(from, 0, bytes);
    AT_TRY(time_gather(world, d, from, to, 256, 10, &out->seconds));
    AT_TRY(time_gather(world, d, from, to, bytes, 3, &many));
    out->bandwidth = (double)(bytes * (n - 1)) / (many > 0 ? many : 1e-9);
out:
    if (st != AT_OK) world->ops->abort(world, (int)st); // nobody waits for the next round
    if (from) at_device_free(d, from, bytes);
    if (to) at_device_free(d, to, bytes * n);
    return st;
}
