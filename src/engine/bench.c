// SPDX-License-Identifier: Apache-2.0
// bench.c - timing one component step by step.
// Easy to get wrong: a device works behind the host's back. Where it has marks, a step's time is what lies
// between two of them while the host stays one step ahead, as in a job; where it has none, the host's clock
// around a step that has ended.
#include "engine/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/bench_ranks.h"
#include "engine/plan_memory.h"
#include "engine/trace_file.h"
#include "tensor/device_trace.h"
#include "tensor/dry.h"

enum { MAX_STEPS = 1000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static at_status caught_up(const at_bench_options *b)
{
    return b->device->ops->synchronize(b->device);
}

// One step that has ended, by the host's clock.
static at_status one_step(const at_bench_options *b, at_ops *o, at_bench_subject *u, int i,
                          double *seconds)
{
    double start = at_now();
    at_status st = at_bench_step(o, u, i);
    if (st == AT_OK) st = caught_up(b);
    *seconds = at_now() - start;
    return st;
}

// n steps behind each other, the host one ahead; times between the device's marks.
static at_status steps_by_marks(const at_bench_options *b, at_ops *o, at_bench_subject *u, int n,
                                double *times)
{
    at_status st = AT_OK;
    at_device *d = b->device;

    AT_TRY(d->ops->mark(d, 0, false));
    for (int i = 0; i < n; i++) {
        AT_TRY(at_bench_step(o, u, i + 3));
        AT_TRY(d->ops->mark(d, i + 1, false));
        if (d->ops->throttle) AT_TRY(d->ops->throttle(d));
    }
    AT_TRY(caught_up(b));
    for (int i = 0; i < n; i++)
        AT_TRY(d->ops->elapsed(d, i, i + 1, &times[i]));
out:
    return st;
}

static at_status timed_steps(const at_bench_options *b, at_ops *o, at_bench_subject *u,
                             at_bench_report *r)
{
    at_status st = AT_OK;
    double times[MAX_STEPS], third;
    int n = b->steps < 1 ? 1 : b->steps > MAX_STEPS ? MAX_STEPS : b->steps;

    if (b->first)
        r->first_step = r->first_ops.wall;
    else
        AT_TRY(one_step(b, o, u, 0, &r->first_step));
    if (!b->device->host) { // the second records; the third is the first replay
        AT_TRY(one_step(b, o, u, 1, &r->second_step));
        AT_TRY(one_step(b, o, u, 2, &third));
    }
    at_ops_stats_reset(o);
    at_wire_spent spent[AT_BENCH_RANKS] = {{0}};
    at_load_watch *watch[AT_BENCH_RANKS] = {NULL};
    if (u->team) at_bench_team_spent(u->team, spent);
    for (int i = 0; i < (b->world ? 1 : b->ranks); i++)
        watch[i] = at_load_start(b->devices[i]);
    if (!b->ranks) watch[0] = at_load_start(b->device);
    double start = at_now();
    if (b->device->ops->mark) st = steps_by_marks(b, o, u, n, times);
    for (int i = 0; i < n && !b->device->ops->mark && st == AT_OK; i++)
        st = one_step(b, o, u, i + 1, &times[i]);
    r->wall_step = (at_now() - start) / n;
    for (int i = 0; i < AT_BENCH_RANKS; i++)
        r->ranks[i].load = at_load_stop(watch[i]);
    r->load = r->ranks[0].load;
    AT_TRY(st);
    if (u->team) at_bench_team_spent(u->team, spent);
    for (int i = 0; i < AT_BENCH_RANKS; i++)
        r->ranks[i].spent =
            (at_wire_spent){spent[i].waited / n, spent[i].moved / n, spent[i].pushes / (uint64_t)n};
    r->step = median(times, (size_t)n);
    at_ops_stats_get(o, &r->work);
    r->work.flops_linear /= n;
    r->work.flops_attention /= n;
    r->work.flops_conv /= n;
    r->work.seconds_linear /= n;
    r->work.seconds_attention /= n;
    r->work.seconds_conv /= n;
    r->work.seconds_other /= n;
out:
    return st;
}

// --- op by op --------------------------------------------------------------------------------
static void per_step(at_trace_sum *rows, size_t n, int steps)
{
    for (size_t i = 0; i < n; i++) {
        rows[i].calls /= steps;
        rows[i].seconds /= steps;
        rows[i].host_seconds /= steps;
        rows[i].device_seconds /= steps;
        rows[i].flops /= steps;
        rows[i].bytes /= steps;
        rows[i].floor /= steps;
        rows[i].products /= steps;
    }
}

// A few more steps (or the first) with ops of their own: these see the wrapped slots.
static at_status trace(const at_bench_options *b, const at_ops_config *config, at_bench_subject *u,
                       bool first, const at_ceilings *c, at_bench_ops *r)
{
    int steps = b->device->host || first ? 1 : 3;
    at_status st = AT_OK;
    at_ops *o = NULL;

    at_device_trace_start(AT_TRACE_OPS);
    st = at_ops_new(config, &o);
    for (int i = 0; i < steps && st == AT_OK; i++) {
        double began = at_trace_begin();
        st = at_bench_step(o, u, first ? 0 : i + 1);
        if (st == AT_OK) st = caught_up(b);
        r->wall = at_now() - began;
        if (!u->team) at_trace_end(began, "step", "step %d", i + 1);
    }
    at_status stopped = at_device_trace_stop();
    if (st == AT_OK) st = stopped;
    at_ops_free(o);
    if (st != AT_OK) return st;
    r->steps = steps;
    at_trace_by_class(c, first, r->classes);
    per_step(r->classes, AT_CLASSES, steps);
    r->n_kernels = at_trace_by_kernel(c, first, r->kernels, AT_BENCH_KERNELS);
    per_step(r->kernels, r->n_kernels, steps);
    return b->trace && b->ranks < 2 && first == b->first ? at_trace_write(b->trace) : AT_OK;
}

// Some more steps of all ranks, as they run: where each one's time went.
static at_status trace_ranks(const at_bench_options *b, const at_ops_config *config, at_ops *o,
                             at_bench_subject *u, at_bench_report *r)
{
    enum { STEPS = 5 };
    at_status st = at_bench_team_trace_begin(u->team, b->trace_ops);
    at_ops *own = NULL;
    at_device *d = b->device;

    AT_TRY(st);
    if (b->trace_ops) AT_TRY(at_ops_new(config, &own));
    for (int i = 0; i < STEPS; i++) {
        AT_TRY(at_bench_step(own ? own : o, u, i + 1));
        if (d->ops->throttle) AT_TRY(d->ops->throttle(d));
    }
    AT_TRY(caught_up(b));
out:
    at_ops_free(own);
    if (st != AT_OK) return st;
    return at_bench_team_trace_end(u->team, b->trace, r->by_rank, &r->n_by_rank);
}

static at_status check(const at_bench_options *b)
{
    if (b->batch < 1 || b->batch > AT_BENCH_BATCH)
        return at_fail(AT_EINVAL, "bench: a batch of %d; 1 to %d are possible", b->batch,
                       AT_BENCH_BATCH);
    if (b->compute == AT_F16 && b->device->host)
        return at_fail(AT_EUNSUPPORTED, "bench: the CPU does not compute in f16; take bf16 or f32");
    return AT_OK;
}

at_status at_bench_store(const at_bench_options *b, at_store **out)
{
    at_status st = AT_OK;

    AT_TRY(at_store_new(b->shape->name, out));
    AT_TRY(b->shape->fill(*out, (at_fill_as){.dtype = b->storage}, b->doubles, b->singles));
out:
    if (st != AT_OK) at_store_release(out);
    return st;
}

// The most in use of the device's pool, as a plan has it: the same steps on the device that only counts.
static at_status predict(const at_bench_options *b, at_store *s, double *bytes)
{
    at_status st = AT_OK;
    at_bench_subject u = {0};
    at_ops *o = NULL;
    at_device *dry = at_device_dry_like(b->device);
    size_t before = atomic_load(&dry->live_bytes);

    at_device_reset_peak(dry);
    AT_TRY(at_ops_new(
        &(at_ops_config){.device = dry, .compute = b->compute, .int8 = b->int8, .fp8 = b->fp8},
        &o));
    AT_TRY(at_bench_prepare(b, o, s, &u));
    for (int i = 0; i < 3; i++)
        AT_TRY(at_bench_step(o, &u, i));
    double most = (double)(atomic_load(&dry->peak_bytes) - before);
    at_peak_held held = at_peak_weights(&(at_plan_how){b->device, b->compute, b->fp8}, s, "");
    *bytes = held.weights + most > held.loading ? held.weights + most : held.loading;
out:
    at_ops_free(o);
    at_bench_subject_free(&u);
    at_dry_forget();
    return st;
}

at_status at_bench_run(const at_bench_options *b, at_bench_report *out)
{
    at_status st = AT_OK;
    at_ops *o = NULL;
    at_store *s = NULL;
    at_bench_subject u = {0};
    at_bench_team *team = NULL;
    at_ops_config config = {
        .device = b->device, .compute = b->compute, .int8 = b->int8, .fp8 = b->fp8};

    *out = (at_bench_report){0};
    AT_TRY(check(b));
    if (b->trace && !(b->world && b->world->rank)) AT_TRY(at_trace_check(b->trace));
    if (!b->quick)
        AT_TRY(at_ceilings_measure(b->device, b->compute, b->fp8, b->int8, &out->ceilings));
    at_mem_reset_peak();
    at_device_reset_peak(b->device);
    double start = at_now();
    if (b->store)
        s = at_store_retain(b->store);
    else
        AT_TRY(at_bench_store(b, &s));
    if (b->ranks > 1) {
        AT_TRY(at_bench_team_start(b, &config, s, &u, &team));
        config.mesh = at_bench_team_mesh(team);
        u.team = team;
    }
    if (b->world && b->world->rank) {
        AT_TRY(at_bench_follow(team));
        goto out;
    }
    AT_TRY(at_ops_new(&config, &o));
    AT_TRY(at_bench_prepare(b, o, s, &u));
    out->load_seconds = at_now() - start;
    if (b->first) AT_TRY(trace(b, &config, &u, true, &out->ceilings, &out->first_ops));
    AT_TRY(timed_steps(b, o, &u, out));
    if (u.model && b->device->host)
        out->block_count =
            at_model_block_seconds(out->blocks, sizeof out->blocks / sizeof *out->blocks);
    out->peak_bytes = at_mem_get_stats().peak_bytes;
    out->device_peak_bytes = atomic_load(&b->device->peak_bytes);
    if (b->device->ops->holds) b->device->ops->holds(b->device, &out->holds);
    if (b->device->ops->needs && b->ranks <= 1) AT_TRY(predict(b, s, &out->planned_bytes));
    if (!b->quick && (b->by_op || (b->trace && !b->first && !team) || b->device->ops->mark))
        AT_TRY(trace(b, &config, &u, false, &out->ceilings, &out->ops));
    if (b->trace && team) AT_TRY(trace_ranks(b, &config, o, &u, out));
    if (team) AT_TRY(at_bench_team_compare(team, o, &out->difference));
out:
    at_bench_team_end(team);
    at_ops_free(o);
    at_bench_subject_free(&u);
    at_store_release(&s);
    return st;
}
