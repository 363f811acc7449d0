// SPDX-License-Identifier: Apache-2.0
// metrics.c - see metrics.h.
#include "serve/metrics.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

// The least is a quick answer of HTTP, the most a job of an hour.
static const double bounds[AT_METRIC_BUCKETS] = {0.01, 0.03, 0.1, 0.3, 1,    3,
                                                 10,   30,   100, 300, 1000, 3600};

void at_histogram_add(at_histogram *h, double seconds)
{
    int i = 0;
    if (!(seconds > 0)) seconds = 0; // a clock that was set back
    while (i < AT_METRIC_BUCKETS && seconds > bounds[i])
        i++;
    atomic_fetch_add(&h->buckets[i], 1);
    atomic_fetch_add(&h->count, 1);
    atomic_fetch_add(&h->milliseconds, (unsigned long long)(seconds * 1e3));
}

static void head(at_str *s, const char *name, const char *kind, const char *help)
{
    at_str_printf(s, "# HELP atelier_%s %s\n# TYPE atelier_%s %s\n", name, help, name, kind);
}

static void one(at_str *s, const char *name, const char *kind, const char *help, double value)
{
    head(s, name, kind, help);
    at_str_printf(s, "atelier_%s %.17g\n", name, value);
}

static void write_histogram(at_str *s, const char *name, const char *help, const at_histogram *h)
{
    unsigned long long sum = 0;
    head(s, name, "histogram", help);
    for (int i = 0; i < AT_METRIC_BUCKETS; i++) {
        sum += atomic_load(&h->buckets[i]);
        at_str_printf(s, "atelier_%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], sum);
    }
    sum += atomic_load(&h->buckets[AT_METRIC_BUCKETS]);
    at_str_printf(s, "atelier_%s_bucket{le=\"+Inf\"} %llu\n", name, sum);
    at_str_printf(s, "atelier_%s_sum %.3f\natelier_%s_count %llu\n", name,
                  (double)atomic_load(&h->milliseconds) / 1e3, name, sum);
}

static double whole(const atomic_ullong *v, double scale)
{
    return (double)atomic_load(v) / scale;
}

// What the jobs did.
static void write_jobs_work(const at_metrics *m, at_str *out)
{
    one(out, "steps_total", "counter", "Steps of samplers.", whole(&m->steps, 1));
    one(out, "steps_per_second", "gauge", "Pace of the sampler that ran last, or runs.",
        whole(&m->pace, 1e3));
    head(out, "nodes_total", "counter",
         "Nodes of jobs: run, or kept from an earlier job (cached).");
    at_str_printf(out, "atelier_nodes_total{result=\"run\"} %.17g\n", whole(&m->nodes_run, 1));
    at_str_printf(out, "atelier_nodes_total{result=\"cached\"} %.17g\n", whole(&m->nodes_kept, 1));
    head(out, "device_seconds_total", "counter", "Time that jobs held the device, by stage.");
    for (int i = 0; i < AT_STAGES; i++)
        at_str_printf(out, "atelier_device_seconds_total{stage=\"%s\"} %.3f\n", at_stage_name(i),
                      whole(&m->stage_ms[i], 1e3));
    one(out, "job_energy_joules_total", "counter",
        "Energy of the device while jobs ran; 0 where the driver does not tell.",
        whole(&m->millijoules, 1e3));
    one(out, "engine_crashes_total", "counter", "Jobs that ended the engine's process.",
        whole(&m->crashes, 1));
}

static void device_row(at_str *out, const at_device_state *d, const char *name, const char *help,
                       double value, bool known)
{
    head(out, name, "gauge", help);
    if (known && value >= 0)
        at_str_printf(out, "atelier_%s{device=\"%s\"} %.17g\n", name, d->name, value);
}

static void write_device(const at_device_state *d, at_str *out)
{
    const struct {
        const char *kind;
        uint64_t bytes;
    } kinds[] = {{"total", d->total_bytes},
                 {"free", d->free_bytes},
                 {"held", d->held_bytes},
                 {"peak", d->peak_bytes}};
    head(out, "device_memory_bytes", "gauge",
         "Memory of the device: all, free, held by the engine, and the most that it held.");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        at_str_printf(out, "atelier_device_memory_bytes{device=\"%s\",kind=\"%s\"} %llu\n", d->name,
                      kinds[i].kind, (unsigned long long)kinds[i].bytes);
    device_row(out, d, "device_busy_ratio", "Utilisation: a GPU's, or the engine's of the CPU.",
               d->usage.busy, d->usage_known);
    device_row(out, d, "device_power_watts", "Power that it draws.", d->usage.watts,
               d->usage_known);
    device_row(out, d, "device_temperature_celsius", "Its temperature.", d->usage.celsius,
               d->usage_known);
    head(out, "info", "gauge", "What this is.");
    at_str_printf(out, "atelier_info{version=\"%s\",device=\"%s\"} 1\n", AT_VERSION, d->name);
}

// The server's own process, under the names that every dashboard knows.
static void write_process(at_str *out)
{
    struct timespec spent;
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f && fscanf(f, "%*u %llu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    at_str_printf(out,
                  "# HELP process_resident_memory_bytes Memory of the server's process.\n"
                  "# TYPE process_resident_memory_bytes gauge\n"
                  "process_resident_memory_bytes %llu\n"
                  "# HELP process_cpu_seconds_total CPU time of the server's process.\n"
                  "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n",
                  pages * (unsigned long long)sysconf(_SC_PAGESIZE),
                  (double)spent.tv_sec + (double)spent.tv_nsec / 1e9);
}

void at_metrics_write(const at_metrics *m, const at_gauges *g, at_str *out)
{
    static const char *const outcomes[AT_OUTCOMES] = {"success", "error", "interrupted"};

    one(out, "uptime_seconds", "gauge", "Time since the server started.", at_now() - m->started);
    one(out, "jobs_accepted_total", "counter", "Jobs that were taken into the queue.",
        (double)atomic_load(&m->accepted));
    one(out, "jobs_refused_total", "counter",
        "Prompts that were not valid, or came to a full queue.", (double)atomic_load(&m->refused));
    head(out, "jobs_ended_total", "counter", "Jobs that ended, by outcome.");
    for (int i = 0; i < AT_OUTCOMES; i++)
        at_str_printf(out, "atelier_jobs_ended_total{outcome=\"%s\"} %llu\n", outcomes[i],
                      (unsigned long long)atomic_load(&m->jobs[i]));
    one(out, "jobs_waiting", "gauge", "Jobs in the queue that wait.", (double)g->waiting);
    one(out, "jobs_running", "gauge", "Jobs that run.", (double)g->running);
    write_histogram(out, "job_wait_seconds", "From acceptance to start.", &m->wait);
    write_histogram(out, "job_run_seconds", "From start to end.", &m->run);
    write_histogram(out, "http_answer_seconds", "From a request's headers to its answer's.",
                    &m->answer);
    one(out, "websockets", "gauge", "Open WebSockets.", (double)g->sockets);
    head(out, "http_answers_total", "counter", "HTTP answers by the hundreds of their status.");
    for (int i = 1; i < 6; i++)
        at_str_printf(out, "atelier_http_answers_total{status=\"%dxx\"} %llu\n", i,
                      (unsigned long long)atomic_load(&m->http[i]));
    write_jobs_work(m, out);
    write_device(g->device, out);
    write_process(out);
}
