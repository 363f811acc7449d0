// SPDX-License-Identifier: Apache-2.0
// ranks.c - see ranks.h.
// Easy to get wrong: comms carry either device addresses or host memory, so the ranks are GPUs of one kind or CPU
// threads, never both; a plan that was asked for makes the ranks it needs on a CPU, but not GPUs.
#include "engine/ranks.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/log.h"
#include "engine/engine.h"
#include "engine/speeds.h"
#include "engine/world.h"
#include "tensor/wire.h"

static at_status open_comms(at_env *e, int n, at_comm **out)
{
    return at_world_within(e->ranks.comm, n, e->ranks.device, out);
}

static at_status add(at_env_ranks *r, at_device *d)
{
    if (r->n == AT_ENV_RANKS) return at_fail(AT_EUSAGE, "--devices: %d are the most", AT_ENV_RANKS);
    if (r->n && d->host != r->device[0]->host)
        return at_fail(AT_EUSAGE, "--devices: GPUs and the CPU cannot share one picture");
    for (int i = 0; i < r->n && !d->host; i++)
        if (r->device[i] == d)
            return at_fail(AT_EUSAGE, "--devices: %s stands there twice", d->name);
    r->device[r->n++] = d;
    return AT_OK;
}

static at_status add_all_like(at_env_ranks *r, const char *kind)
{
    at_status st = AT_OK;

    for (int i = 0; i < at_device_count() && st == AT_OK; i++)
        if (strncmp(at_device_at(i)->name, kind, strlen(kind)) == 0 && r->n < AT_ENV_RANKS)
            st = add(r, at_device_at(i));
    return st;
}

// "cuda:0,cuda:1", "cuda" (all of them), "cpu,cpu"
static at_status list_devices(const char *text, at_env_ranks *r)
{
    at_status st = AT_OK;

    for (const char *at = text; *at && st == AT_OK;) {
        size_t n = strcspn(at, ",");
        char name[32];
        at_device *d = NULL;

        snprintf(name, sizeof name, "%.*s", (int)(n < 31 ? n : 31), at);
        AT_TRY(at_engine_device(name, &d)); // loads the plug-ins, and says what there is
        AT_TRY(strcmp(name, "cuda") == 0 ? add_all_like(r, "cuda:") : add(r, d));
        at += n + (at[n] == ',');
    }
    if (!r->n) AT_TRY(at_fail(AT_EUSAGE, "--devices: no device is named"));
out:
    return st;
}

static at_status list_cpus(int n, at_env_ranks *r)
{
    at_status st = AT_OK;

    if (n > AT_ENV_RANKS)
        return at_fail(AT_EUSAGE, "--cpu-ranks %d: %d are the most", n, AT_ENV_RANKS);
    for (int i = 0; i < n && st == AT_OK; i++)
        st = add(r, at_device_cpu());
    return st;
}

// The slowest link between any two, where the devices know theirs.
static void ask_links(const at_env_ranks *r, at_par_site *s)
{
    const at_wire_ops *wire = r->device[0]->ops->wire;
    at_wire_link l;

    for (int i = 0; wire && wire->link && i < r->n; i++)
        for (int k = 0; k < i; k++) {
            if (wire->link(r->device[k], r->device[i], &l) != AT_OK || l.bandwidth <= 0) continue;
            if (l.bandwidth < s->bandwidth) s->bandwidth = l.bandwidth;
            if (l.seconds > s->latency) s->latency = l.seconds;
        }
}

// What plans count with. For GPUs: what a large transformer reaches on one of Hopper's kind (docs/bench), and the
// best that a link may be until it is measured; ratios, not absolute speeds, decide between plans.
static at_par_site site_of(const at_env_ranks *r)
{
    at_device *d = r->device[0];
    uint64_t rest = 0, total = 0;
    at_par_site s = {.ranks = r->n,
                     .flops = d->host ? 1e12 : 645e12,
                     .bandwidth = d->host ? 5e9 : 400e9,
                     .latency = d->host ? 50e-6 : 10e-6,
                     .load = d->host ? 2e9 : 40e9,
                     .overhead = d->host ? 1e-3 : 0.5e-3,
                     .op = d->host ? 0 : 2.4e-6,
                     .one_processor = d->host};

    if (!d->host && d->ops->memory(d, &rest, &total) == AT_OK) s.memory = (double)total;
    if (!r->world) ask_links(r, &s);
    return s;
}

// All must choose alike, so they count with what rank 0 knows and the least memory.
static at_status agree_on_site(at_env_ranks *r)
{
    at_status st = AT_OK;
    at_par_site all[AT_ENV_RANKS], mine = site_of(r);
    at_wire_link link;

    if (r->automatic) AT_TRY(at_world_link(r->world, r->device[0], &link));
    if (r->automatic) {
        mine.bandwidth = link.bandwidth;
        mine.latency = link.seconds;
        at_log(AT_INFO, "PARALLEL-LINK", "%d processes: %.2f GB/s, %.0f us", r->n,
               link.bandwidth / 1e9, link.seconds * 1e6);
    }
    AT_TRY(r->world->ops->tell(r->world, &mine, all, sizeof mine));
    r->site = all[0];
    r->all = r->n;
    r->site.one_processor = false; // as far as is known
    for (int i = 1; i < r->n; i++)
        if (all[i].memory < r->site.memory) r->site.memory = all[i].memory;
out:
    return st;
}

// Processes know nothing of each other's devices: they share evenly where nobody says anything else.
// listed: devices of all processes that share a list; this one's begin at first_rank.
static at_status set_speeds(const at_engine_config *c, at_env_ranks *r, int listed)
{
    uint8_t all[AT_SHARE_RANKS];

    if (c->shares) {
        at_status st = at_speeds_parse(c->shares, listed, all);
        for (int i = 0; st == AT_OK && i < r->n && i < AT_SHARE_RANKS; i++)
            r->site.speed[i] = all[c->first_rank + i];
        return st;
    }
    if (!r->world && !r->device[0]->host) at_speeds_measure(r->device, r->n, r->site.speed);
    return AT_OK;
}

// This process is one rank; the others say the same of themselves.
static at_status processes(const at_engine_config *c, at_env *env)
{
    at_status st = AT_OK;
    at_env_ranks *r = &env->ranks;
    int wanted = at_degrees_ranks(&r->degrees);
    char text[96];

    if (c->devices || c->cpu_ranks)
        AT_TRY(at_fail(AT_EUSAGE, "a process of several has one device: --device, not --devices or "
                                  "--cpu-ranks"));
    if (c->processes.ranks > AT_ENV_RANKS)
        AT_TRY(at_fail(AT_EUSAGE, "--ranks %d: %d are the most", c->processes.ranks, AT_ENV_RANKS));
    if (!r->automatic && wanted > 1 && wanted != c->processes.ranks)
        AT_TRY(at_fail(AT_EUSAGE, "--parallel %s is for %d ranks, and there are %d processes",
                       at_degrees_text(&r->degrees, text), wanted, c->processes.ranks));
    r->n = c->processes.ranks;
    for (int i = 0; i < r->n; i++)
        r->device[i] = env->device;
    AT_TRY(at_world_across(&c->processes, c->comm, env->device, &r->world));
    AT_TRY(agree_on_site(r));
    AT_TRY(set_speeds(c, r, r->n));
out:
    if (st != AT_OK) {
        at_comm_free(r->world);
        r->world = NULL;
    }
    return st;
}

// What steps took on these devices, also in earlier processes. Threads of one processor are for trying plans alone;
// ranks that are processes must choose alike, and each would remember something else.
static at_status remember(at_env_ranks *r)
{
    at_status st = AT_OK;
    at_str title = {0}, name = {0};
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    char *path = NULL;

    if (r->n < 2 || r->device[0]->host || r->world) return AT_OK;
    at_str_printf(&title, "atelier steps 1");
    for (int i = 0; i < r->n; i++)
        at_str_printf(&title, "; %s %s", r->device[i]->name, r->device[i]->description);
    for (const char *p = at_str_text(&title); *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    at_str_printf(&name, "steps-%016llx.txt", (unsigned long long)h);
    if (title.failed || name.failed) AT_TRY(at_fail(AT_ENOMEM, "engine: no memory"));
    path = at_path_cache(at_str_text(&name));
    AT_TRY(at_par_memory_new(path, at_str_text(&title), &r->known));
out:
    at_str_free(&title);
    at_str_free(&name);
    at_free(path);
    return st;
}

// The others work for another process.
static at_status keep_own(const at_engine_config *c, at_env_ranks *r)
{
    int first = c->first_rank, n = c->most_ranks;

    if (!n) return AT_OK;
    if (first < 0 || n < 0 || first + n > r->n)
        return at_fail(AT_EUSAGE, "devices %d to %d are wanted, and there are %d", first,
                       first + n - 1, r->n);
    memmove(r->device, r->device + first, (size_t)n * sizeof(at_device *));
    r->n = n;
    return AT_OK;
}

at_status at_engine_ranks(const at_engine_config *c, at_env *env)
{
    at_status st = AT_OK;
    at_env_ranks *r = &env->ranks;
    bool automatic = !c->parallel || strcmp(c->parallel, "auto") == 0;
    bool open = !c->device || strcmp(c->device, "auto") == 0;

    *r = (at_env_ranks){.automatic = automatic, .comm = c->comm};
    env->open_comms = open_comms;
    if (!automatic && at_degrees_parse(c->parallel, &r->degrees) != AT_OK)
        AT_TRY(at_fail(AT_EUSAGE, "--parallel: %s; or auto", at_error_text()));
    int wanted = at_degrees_ranks(&r->degrees);

    if (c->processes.ranks > 1) return processes(c, env);
    if (c->devices && c->cpu_ranks)
        AT_TRY(at_fail(AT_EUSAGE, "--devices and --cpu-ranks exclude each other"));
    if (c->devices)
        AT_TRY(list_devices(c->devices, r));
    else if (c->cpu_ranks || (wanted > 1 && env->device->host))
        AT_TRY(list_cpus(c->cpu_ranks ? c->cpu_ranks : wanted, r));
    else if (!env->device->host && (open || wanted > 1))
        AT_TRY(add_all_like(r, "cuda:"));
    else
        AT_TRY(add(r, env->device));
    int listed = r->n;
    AT_TRY(keep_own(c, r));
    r->site = site_of(r);
    AT_TRY(set_speeds(c, r, listed));
    if (wanted > r->n) {
        char text[96];
        AT_TRY(at_fail(AT_EUSAGE, "--parallel %s needs %d devices, and there are %d",
                       at_degrees_text(&r->degrees, text), wanted, r->n));
    }
    AT_TRY(remember(r));
    r->all = r->n;
out:
    return st;
}
