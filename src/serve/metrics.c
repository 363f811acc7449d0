// SPDX-License-Identifier: Apache-2.0
// metrics.c - see metrics.h.
#include "serve/metrics.h"

#include "base/file.h"

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
    one(out, "websockets", "gauge", "Open WebSockets.", (double)g->sockets);
    head(out, "http_answers_total", "counter", "HTTP answers by the hundreds of their status.");
    for (int i = 1; i < 6; i++)
        at_str_printf(out, "atelier_http_answers_total{status=\"%dxx\"} %llu\n", i,
                      (unsigned long long)atomic_load(&m->http[i]));
    head(out, "device_memory_bytes", "gauge", "Memory of the device, and what this process holds.");
    at_str_printf(out, "atelier_device_memory_bytes{device=\"%s\",kind=\"total\"} %llu\n",
                  g->device, (unsigned long long)g->device_total);
    at_str_printf(out, "atelier_device_memory_bytes{device=\"%s\",kind=\"free\"} %llu\n", g->device,
                  (unsigned long long)g->device_free);
    at_str_printf(out, "atelier_device_memory_bytes{device=\"%s\",kind=\"held\"} %llu\n", g->device,
                  (unsigned long long)g->device_held);
}
