// SPDX-License-Identifier: Apache-2.0
// trace_ranks.c - see trace_ranks.h. Intervals are sorted once; a step is then a walk over those that meet it.
#include "engine/trace_ranks.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct span {
    double from, to, bytes;
    size_t step; // of a window: its slice
} span;

typedef struct list {
    span *at;
    size_t n;
} list;

// Of one rank, all on one clock.
typedef struct facts {
    list steps, busy, send, wait, beside;
    bool on_device, replays, ops;
} facts;

static bool is(const at_trace_slice *s, const char *category)
{
    return strcmp(s->category, category) == 0;
}

static int by_start(const void *a, const void *b)
{
    double x = ((const span *)a)->from, y = ((const span *)b)->from;
    return (x > y) - (x < y);
}

static void put(list *l, double from, double to, double bytes)
{
    l->at[l->n++] = (span){.from = from, .to = to, .bytes = bytes};
}

static bool works(const at_trace_slice *s)
{
    return is(s, "op") || is(s, "replay");
}

// A device with a clock of its own: its slices have two times.
static bool apart(const at_trace_slice *s)
{
    return s->device && (s->device_only || is(s, "replay") ||
                         (s->device_seconds >= 0 && s->device_began != s->began));
}

// Also how many spans there will be.
static size_t look(int rank, facts *f)
{
    size_t n = 0;

    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);

        if (s->rank != rank) continue;
        f->on_device |= apart(s);
        f->replays |= is(s, "replay");
        f->ops |= is(s, "op");
        n += is(s, "step") || is(s, "wait") || is(s, "send") || works(s);
    }
    return n;
}

static void gather(int rank, facts *f)
{
    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);
        double from = f->on_device ? s->device_began : s->began;
        double to = from + (f->on_device ? s->device_seconds : s->seconds);

        if (s->rank != rank) continue;
        if (is(s, "step")) put(&f->steps, s->began, s->began + s->seconds, 0);
        if (f->on_device && (!s->device || s->device_seconds < 0)) continue;
        if (works(s)) put(&f->busy, from, to, 0);
        if (is(s, "wait") && !s->beside) put(&f->wait, from, to, 0);
        if (is(s, "send")) put(s->beside ? &f->beside : &f->send, from, to, s->bytes);
    }
    list *all[] = {&f->steps, &f->busy, &f->send, &f->wait, &f->beside};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        qsort(all[i]->at, all[i]->n, sizeof *all[i]->at, by_start);
}

// --- windows -------------------------------------------------------------------------------------
// The host's steps on the device's clock: what was queued in a step began there at the first of it.
// Steps that queued nothing of the kind are left out.
static void onto_device(int rank, facts *f)
{
    const char *kind = f->replays ? "replay" : "op";
    size_t n = 0;
    double last = 0;

    for (size_t k = 0; k < f->steps.n; k++)
        f->steps.at[k].step = SIZE_MAX;
    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);
        size_t k = 0;

        if (s->rank != rank || !is(s, kind) || s->device_seconds < 0) continue;
        while (k < f->steps.n && !(f->steps.at[k].from <= s->began && s->began < f->steps.at[k].to))
            k++;
        if (k == f->steps.n) continue;
        span *w = &f->steps.at[k];
        if (w->step == SIZE_MAX || s->device_began < w->bytes) w->bytes = s->device_began;
        w->step = 0;
        if (s->device_began + s->device_seconds > last) last = s->device_began + s->device_seconds;
    }
    for (size_t k = 0; k < f->steps.n; k++)
        if (f->steps.at[k].step == 0) f->steps.at[n++].from = f->steps.at[k].bytes;
    f->steps.n = n;
    for (size_t k = 0; k < n; k++)
        f->steps.at[k].to = k + 1 < n ? f->steps.at[k + 1].from : last;
}

// --- sums ----------------------------------------------------------------------------------------
static double clipped(const span *s, const span *w)
{
    double from = s->from > w->from ? s->from : w->from, to = s->to < w->to ? s->to : w->to;
    return to > from ? to - from : 0;
}

// Seconds of w that any of them covers; sorted by start.
static double covered(const list *l, const span *w)
{
    double sum = 0, reached = w->from;

    for (size_t i = 0; i < l->n && l->at[i].from < w->to; i++) {
        span rest = {.from = l->at[i].from > reached ? l->at[i].from : reached, .to = l->at[i].to};
        double more = clipped(&rest, w);

        sum += more;
        if (more > 0) reached = rest.to;
    }
    return sum;
}

static void merge(const list *from[3], list *out)
{
    out->n = 0;
    for (int i = 0; i < 3; i++) {
        if (from[i]->n) memcpy(out->at + out->n, from[i]->at, from[i]->n * sizeof *out->at);
        out->n += from[i]->n;
    }
    qsort(out->at, out->n, sizeof *out->at, by_start);
}

static void add_step(const facts *f, const list *work, const span *w, at_trace_rank_row *r)
{
    double length = w->to - w->from, send = covered(&f->send, w), wait = covered(&f->wait, w);
    bool blind =
        !f->on_device && !f->ops; // spans alone: what a host's step is made of is not known
    double work_or_all = blind ? length : covered(work, w);

    r->step += length;
    r->send += send;
    r->wait += wait;
    r->compute += work_or_all - send - wait;
    r->rest += length - work_or_all;
    r->beside += covered(&f->beside, w);
    for (int k = 0; k < 2; k++) {
        const list *l = k ? &f->beside : &f->send;
        for (size_t i = 0; i < l->n && l->at[i].from < w->to; i++) {
            if (l->at[i].from < w->from || l->at[i].bytes <= 0) continue;
            r->exchanges += 1;
            r->bytes += l->at[i].bytes;
        }
    }
    r->steps++;
}

static void mean(at_trace_rank_row *r)
{
    double *parts[] = {&r->step, &r->compute, &r->send,      &r->wait,
                       &r->rest, &r->beside,  &r->exchanges, &r->bytes};

    for (size_t i = 0; i < sizeof parts / sizeof *parts && r->steps; i++)
        *parts[i] /= r->steps;
}

static void name_device(int rank, at_trace_rank_row *r)
{
    snprintf(r->device, sizeof r->device, "cpu");
    for (size_t i = 0; i < at_trace_count(); i++) {
        const at_trace_slice *s = at_trace_at(i);

        if (s->rank != rank || !s->device || (!works(s) && !s->device_only)) continue;
        snprintf(r->device, sizeof r->device, "%s", s->device);
        return;
    }
}

// Without memory there are no rows.
static void sum_rank(int rank, at_trace_rank_row *r)
{
    facts f = {.ops = false};
    size_t n = look(rank, &f);
    span *room = n ? at_alloc(6 * n * sizeof *room) : NULL;
    list *each[] = {&f.steps, &f.busy, &f.send, &f.wait, &f.beside}, work;
    const list *parts[3] = {&f.busy, &f.send, &f.wait};

    *r = (at_trace_rank_row){.rank = rank};
    if (!room) return;
    for (size_t i = 0; i < 5; i++)
        each[i]->at = room + i * n;
    work = (list){room + 5 * n, 0};
    name_device(rank, r);
    gather(rank, &f);
    if (f.on_device) onto_device(rank, &f);
    merge(parts, &work);
    for (size_t k = 0; k < f.steps.n; k++)
        add_step(&f, &work, &f.steps.at[k], r);
    mean(r);
    at_free(room);
}

int at_trace_by_rank(at_trace_rank_row out[AT_TRACE_RANKS])
{
    bool there[AT_TRACE_RANKS] = {false};
    int n = 0;

    for (size_t i = 0; i < at_trace_count(); i++)
        if (at_trace_at(i)->rank < AT_TRACE_RANKS) there[at_trace_at(i)->rank] = true;
    for (int rank = 0; rank < AT_TRACE_RANKS; rank++) {
        if (!there[rank]) continue;
        sum_rank(rank, &out[n]);
        n += out[n].steps > 0;
    }
    return n;
}

static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

void at_trace_print_ranks(FILE *f, const at_trace_rank_row *rows, int n)
{
    if (!n) return;
    fprintf(f, "  by rank, ms a step   step %17s %17s %17s %17s   beside  exchanges\n", "compute",
            "sending", "waiting", "rest");
    for (int i = 0; i < n; i++) {
        const at_trace_rank_row *r = &rows[i];

        fprintf(f,
                "  rank %-3d%-9s %8.2f %8.2f %6.1f %% %8.3f %6.1f %% %8.3f %6.1f %% %8.3f %6.1f %% "
                "%8.3f %4.0f of %.1f MB (%d steps)\n",
                r->rank, r->device, r->step * 1e3, r->compute * 1e3, share(r->compute, r->step),
                r->send * 1e3, share(r->send, r->step), r->wait * 1e3, share(r->wait, r->step),
                r->rest * 1e3, share(r->rest, r->step), r->beside * 1e3, r->exchanges,
                r->bytes / 1e6, r->steps);
    }
}
