// SPDX-License-Identifier: Apache-2.0
// device_trace.c - wrappers before a device's slots that write down what was asked and how long it took.
// Idea: a wrapper marks the device's queue, calls the real slot, marks again, and adds a slice; the two
// marks become times when the device has caught up, a batch at a time.
// Easy to get wrong: a time between two marks also holds what the host was late with, so an idle device
// is held back first (mark's `ahead`). Absolute times are taken from the first mark of a batch, which an idle device
// passes between two looks at the host's clock.
// Owns: one traced device each for the life of the process.
#include "tensor/device_trace.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

enum { MAX_TRACED = 64, MARKS = 4096 };

typedef struct pending {
    size_t slice;
    int from, to;
} pending;

typedef struct traced {
    at_device *dev;
    const at_backend *slots; // the real ones
    const at_device_ops *ops;
    at_backend my_slots;
    at_device_ops my_ops;
    pending waiting[MARKS / 2];
    int n_waiting, n_marks;
    double base; // host time of mark 0
    at_status st;
} traced;

static traced g_traced[MAX_TRACED];
static int g_count;

static traced *of_stream(void *stream)
{
    for (int i = 0; i < g_count; i++)
        if (g_traced[i].dev && g_traced[i].dev->stream == stream) return &g_traced[i];
    return NULL; // unreachable: wrappers stand before registered devices alone
}

static traced *of_device(const at_device *d)
{
    for (int i = 0; i < g_count; i++)
        if (g_traced[i].dev == d) return &g_traced[i];
    return NULL;
}

// --- marks -----------------------------------------------------------------------------------
// The device catches up; what waited gets its times.
static at_status settle(traced *t)
{
    at_status st = AT_OK;

    if (t->n_waiting) AT_TRY(t->ops->synchronize(t->dev));
    for (int i = 0; i < t->n_waiting; i++) {
        const pending *p = &t->waiting[i];
        double start = 0, length = 0;

        AT_TRY(t->ops->elapsed(t->dev, 0, p->from, &start));
        AT_TRY(t->ops->elapsed(t->dev, p->from, p->to, &length));
        at_trace_device_time(p->slice, t->base + start, length);
    }
out:
    t->n_waiting = t->n_marks = 0;
    return st;
}

// A point in the device's queue; -1: this device has none, or it failed (the slice then lacks a time).
static int mark(traced *t, bool ahead)
{
    at_status st = AT_OK;

    if (!t->ops->mark || t->st != AT_OK) return -1;
    if (t->n_marks + 2 > MARKS || t->n_waiting + 1 > MARKS / 2) AT_TRY(settle(t));
    if (t->n_marks == 0) {
        AT_TRY(t->ops->synchronize(t->dev));
        double before = at_now();
        AT_TRY(t->ops->mark(t->dev, 0, false));
        AT_TRY(t->ops->synchronize(t->dev));
        t->base = 0.5 * (before + at_now());
        t->n_marks = 1;
    }
    AT_TRY(t->ops->mark(t->dev, t->n_marks, ahead));
    return t->n_marks++;
out:
    t->st = st;
    return -1;
}

// Add the slice of what began at `from`; its device time follows, or is the host's.
static void add(traced *t, at_trace_slice *s, int from)
{
    int to = from < 0 ? -1 : t->n_marks < MARKS ? mark(t, false) : -1;

    s->device = t->dev->name;
    s->device_began = s->began;
    s->device_seconds = t->ops->mark ? -1 : s->seconds;
    size_t at = at_trace_add(s);
    if (from >= 0 && to > from && at != SIZE_MAX)
        t->waiting[t->n_waiting++] = (pending){at, from, to};
}

at_device_span at_device_span_begin(at_device *d)
{
    traced *t = at_trace_now() == AT_TRACE_OFF ? NULL : of_device(d);

    if (!t) return (at_device_span){0};
    return (at_device_span){.device = d, .mark = mark(t, false), .began = at_now()};
}

void at_device_span_end(at_device_span *s, const char *category, const char *name)
{
    at_trace_slice slice = {.category = category, .began = s->began};

    if (!s->device) return;
    slice.seconds = at_now() - s->began;
    snprintf(slice.name, sizeof slice.name, "%s", name);
    add(of_device(s->device), &slice, s->mark);
}

// --- one slot call ---------------------------------------------------------------------------
typedef struct pass {
    traced *t;
    const char *slot;
    bool on;
    int mark, head;
    double bytes; // beside the views'

    double began;
} pass;

static pass enter(void *stream, const char *slot)
{
    pass p = {.t = of_stream(stream), .slot = slot, .on = at_trace_ops(), .mark = -1};

    if (!p.on) return p;
    if (p.t->slots->kernel_name) (void)p.t->slots->kernel_name(slot); // forget the last one
    p.mark = mark(p.t, true);
    p.began = at_now();
    return p;
}

static double bytes_of(const at_view *v)
{
    double n = v->data ? (double)at_dtype_size(v->dtype) : 0;

    for (int i = 0; i < v->rank; i++)
        if (v->stride[i] != 0 || v->shape[i] == 0) n *= (double)v->shape[i];
    return n;
}

// `views` NULL-terminated: what is read and written. fmt makes the detail.
static at_status leave(pass *p, at_status st, double flops, const at_view *const *views,
                       const char *name, const char *fmt, ...)
{
    at_trace_slice s = {
        .category = "op", .slot = p->slot, .began = p->began, .flops = flops, .head = p->head};
    va_list args;

    if (!p->on) return st;
    s.seconds = at_now() - p->began;
    s.bytes = p->bytes;
    for (; *views; views++)
        s.bytes += bytes_of(*views);
    snprintf(s.name, sizeof s.name, "%s%s%s", p->slot, name ? " " : "", name ? name : "");
    va_start(args, fmt);
    vsnprintf(s.detail, sizeof s.detail, fmt, args);
    va_end(args);
    const char *kernel = p->t->slots->kernel_name ? p->t->slots->kernel_name(p->slot) : NULL;
    snprintf(s.kernel, sizeof s.kernel, "%s", kernel ? kernel : p->slot);
    add(p->t, &s, p->mark);
    return st;
}

#define VIEWS(...) ((const at_view *const[]){__VA_ARGS__, NULL})

static const char *text_of(const at_view *v, char out[128])
{
    return v->data ? at_shape_text(v->dtype, v->rank, v->shape, out) : "none";
}

static double count_of(const at_view *v)
{
    double n = 1;

    for (int i = 0; i < v->rank; i++)
        n *= (double)v->shape[i];
    return n;
}

static const char *act_text(at_act a)
{
    static const char *const names[] = {"",      " silu", " gelu",   " gelu_erf", " quick_gelu",
                                        " relu", " tanh", " sigmoid"};

    return (unsigned)a < sizeof names / sizeof *names ? names[a] : " act";
}

// --- the slots -------------------------------------------------------------------------------
static at_status my_copy(void *stream, const at_view *src, const at_view *dst)
{
    pass p = enter(stream, "copy");
    at_status st = p.t->slots->copy(stream, src, dst);
    char a[128], b[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(src, dst), NULL, "%s -> %s", text_of(src, a), text_of(dst, b));
}

static at_status my_fill(void *stream, const at_view *dst, double value)
{
    pass p = enter(stream, "fill");
    at_status st = p.t->slots->fill(stream, dst, value);
    char a[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(dst), NULL, "%s", text_of(dst, a));
}

static at_status my_unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    pass p = enter(stream, "unary");
    at_status st = p.t->slots->unary(stream, x, out, act);
    char a[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(x, out), NULL, "%s%s", text_of(x, a), act_text(act));
}

static at_status my_binary(void *stream, const at_binary_args *a)
{
    static const char signs[] = "+-*/";
    pass p = enter(stream, "binary");
    at_status st = p.t->slots->binary(stream, a);
    char x[128], y[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->a, &a->b, &a->out), NULL, "%s %c %s%s", text_of(&a->a, x),
                 signs[a->op & 3], text_of(&a->b, y), act_text(a->act_a));
}

static at_status my_gate_add(void *stream, const at_gate_add_args *a)
{
    pass p = enter(stream, "gate_add");
    at_status st = p.t->slots->gate_add(stream, a);
    char x[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->x, &a->y, &a->gate, &a->out), NULL, "%s",
                 text_of(&a->out, x));
}

static at_status my_lincomb(void *stream, const at_lincomb_args *a)
{
    pass p = enter(stream, "lincomb");
    at_status st = p.t->slots->lincomb(stream, a);
    const at_view *views[AT_LINCOMB_MAX + 2] = {&a->out};
    char x[128];

    if (!p.on) return st;
    for (int i = 0; i < a->n && i < AT_LINCOMB_MAX; i++)
        views[i + 1] = &a->in[i];
    return leave(&p, st, 0, views, NULL, "%s from %d", text_of(&a->out, x), a->n);
}

static at_status my_linear(void *stream, const at_linear_args *a)
{
    pass p = enter(stream, "linear");
    at_status st = p.t->slots->linear(stream, a);
    char x[128], w[128];

    if (!p.on) return st;
    for (int i = 0; i < a->n_more; i++)
        p.bytes += bytes_of(&a->more[i].v);
    return leave(&p, st,
                 2 * (double)a->w.v.shape[1] *
                     ((a->part == 2 ? 0 : count_of(&a->out)) +
                      (a->split && a->part != 1 ? count_of(&a->out2) : 0)),
                 VIEWS(&a->x, &a->w.v, &a->bias.v, &a->residual, &a->gate, &a->out, &a->out2),
                 a->w.name, "%s x %s%s%s%s%s%s", text_of(&a->x, x), text_of(&a->w.v, w),
                 a->bias.v.data ? " bias" : "", act_text(a->act), a->gate.data ? " gate" : "",
                 a->residual.data ? " residual" : "",
                 a->split    ? " split"
                 : a->n_more ? " joined"
                             : "");
}

static at_status my_geglu(void *stream, const at_geglu_args *a)
{
    pass p = enter(stream, "geglu");
    at_status st = p.t->slots->geglu(stream, a);
    char x[128], w[128];

    if (!p.on) return st;
    return leave(&p, st, 4 * count_of(&a->out) * (double)a->w.v.shape[1],
                 VIEWS(&a->x, &a->w.v, &a->gate.v, &a->bias.v, &a->out), a->w.name, "%s x %s%s%s",
                 text_of(&a->x, x), text_of(&a->w.v, w), a->bias.v.data ? " bias" : "",
                 act_text(a->act));
}

static at_status my_attention(void *stream, const at_attention_args *a)
{
    pass p = enter(stream, "attention");
    at_status st = p.t->slots->attention(stream, a);
    double tq = (double)a->q.shape[1], tk = (double)a->k.shape[1], pairs = tq * tk;
    char q[128], k[128];

    if (!p.on) return st;
    p.head = (int)a->q.shape[3];
    if (a->causal && tq <= tk) pairs -= tq * (tq - 1) / 2;
    return leave(
        &p, st, 4 * pairs * (double)(a->q.shape[0] * a->q.shape[2]) * (double)a->q.shape[3],
        VIEWS(&a->q, &a->k, &a->v, &a->bias, &a->out), NULL, "q %s k %s%s%s", text_of(&a->q, q),
        text_of(&a->k, k), a->causal ? " causal" : "", a->bias.data ? " bias" : "");
}

static at_status my_attention_merge(void *stream, const at_attention_merge_args *a)
{
    pass p = enter(stream, "attention_merge");
    at_status st = p.t->slots->attention_merge(stream, a);
    char x[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->a, &a->b, &a->a_lse, &a->b_lse, &a->out, &a->out_lse), NULL,
                 "%s", text_of(&a->out, x));
}

static at_status my_norm(void *stream, const at_norm_args *a)
{
    pass p = enter(stream, "norm");
    at_status st = p.t->slots->norm(stream, a);
    char x[128];

    if (!p.on) return st;
    at_view changed = a->x; // written as well where something is added first
    if (!a->y.data) changed.data = NULL;
    return leave(&p, st, 0, VIEWS(&a->x, &a->y, &changed, &a->mod_scale, &a->mod_shift, &a->out),
                 a->weight.name, "%s%s%s%s", text_of(&a->x, x), a->y.data ? " + gated" : "",
                 a->rms ? " rms" : "", a->mod_scale.data ? " modulated" : "");
}

static at_status my_group_norm(void *stream, const at_group_norm_args *a)
{
    pass p = enter(stream, "group_norm");
    at_status st = p.t->slots->group_norm(stream, a);
    char x[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->x, &a->out), a->weight.name, "%s in %d%s", text_of(&a->x, x),
                 a->groups, act_text(a->act));
}

static at_status my_group_stats(void *stream, const at_group_norm_args *a)
{
    pass p = enter(stream, "group_stats");
    at_status st = p.t->slots->group_stats(stream, a);
    char x[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->x), NULL, "%s in %d", text_of(&a->x, x), a->groups);
}

static at_status my_rope(void *stream, const at_rope_args *a)
{
    pass p = enter(stream, "rope");
    at_status st = p.t->slots->rope(stream, a);
    char x[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->x, &a->cos, &a->sin, &a->out), a->weight.name, "%s%s",
                 text_of(&a->x, x), a->halves ? " halves" : "");
}

static at_status my_ropes(void *stream, const at_rope_args *a, int n)
{
    pass p = enter(stream, "ropes");
    at_status st = p.t->slots->ropes(stream, a, n);
    const at_view *views[3 * AT_ROPES + 1] = {0};
    char x[128];

    if (!p.on) return st;
    for (int i = 0; i < n && i < AT_ROPES; i++) {
        views[3 * i] = &a[i].x;
        views[3 * i + 1] = &a[i].out;
        views[3 * i + 2] = &a[i].cos;
    }
    return leave(&p, st, 0, views, a->weight.name, "%d x %s%s", n, text_of(&a->x, x),
                 a->halves ? " halves" : "");
}

static at_status my_conv2d(void *stream, const at_conv2d_args *a)
{
    pass p = enter(stream, "conv2d");
    at_status st = p.t->slots->conv2d(stream, a);
    const at_view *w = &a->w.v;
    char x[128], k[128];

    if (!p.on) return st;
    return leave(&p, st, 2 * count_of(&a->out) * (double)(w->shape[1] * w->shape[2] * w->shape[3]),
                 VIEWS(&a->x, w, &a->bias.v, &a->residual, &a->out), a->w.name, "%s x %s /%d%s%s%s",
                 text_of(&a->x, x), text_of(w, k), a->stride, a->upsample2x ? " up2" : "",
                 act_text(a->act), a->residual.data ? " residual" : "");
}

static at_status my_embedding(void *stream, const at_embedding_args *a)
{
    pass p = enter(stream, "embedding");
    at_status st = p.t->slots->embedding(stream, a);
    char x[128];

    if (!p.on) return st;
    return leave(&p, st, 0, VIEWS(&a->out), a->table.name, "%s", text_of(&a->out, x));
}

// --- the memory's slots ----------------------------------------------------------------------
static void moved(traced *t, double began, const char *what, size_t bytes)
{
    at_trace_end_bytes(began, "upload", (double)bytes, "%s %s", what, t->dev->name);
}

static at_status my_from_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    traced *t = of_device(d);
    double began = at_trace_begin();
    at_status st = t->ops->from_host(d, dst, src, bytes);

    moved(t, began, "to", bytes);
    return st;
}

static at_status my_to_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    traced *t = of_device(d);
    double began = at_trace_begin();
    at_status st = t->ops->to_host(d, dst, src, bytes);

    moved(t, began, "from", bytes);
    return st;
}

// A slot that is added to backend.h wants a wrapper above and a line below: then this number changes.
enum { SLOTS_AND_FIELDS = 22 };
_Static_assert(sizeof(at_backend) == SLOTS_AND_FIELDS * sizeof(void *),
               "at_backend changed: give its new slot a wrapper here, and count again");

// --- on and off ------------------------------------------------------------------------------
static void wrap(traced *t)
{
    at_backend *b = &t->my_slots;

    t->my_ops = *t->ops;
    t->my_ops.from_host = my_from_host;
    t->my_ops.to_host = my_to_host;
    *b = *t->slots;
#define WRAP(slot)                                                                                 \
    if (b->slot) b->slot = my_##slot
    WRAP(copy);
    WRAP(fill);
    WRAP(unary);
    WRAP(binary);
    WRAP(gate_add);
    WRAP(lincomb);
    WRAP(linear);
    WRAP(attention);
    WRAP(attention_merge);
    WRAP(norm);
    WRAP(group_norm);
    WRAP(group_stats);
    WRAP(rope);
    WRAP(ropes);
    WRAP(conv2d);
    WRAP(embedding);
    WRAP(geglu);
#undef WRAP
    t->dev->backend = b;
    if (!t->dev->host) t->dev->ops = &t->my_ops;
}

void at_device_trace_start(at_trace_level level)
{
    int n = at_device_count();

    for (int i = 0; i < n && i < MAX_TRACED; i++) {
        at_device *d = at_device_at(i);
        traced *t = &g_traced[i];

        if (!d->backend || t->dev) continue;
        *t = (traced){.dev = d, .slots = d->backend, .ops = d->ops};
        g_count = i + 1;
    }
    for (int i = 0; i < g_count; i++) {
        g_traced[i].st = AT_OK;
        g_traced[i].n_waiting = g_traced[i].n_marks = 0;
        if (g_traced[i].dev) wrap(&g_traced[i]);
    }
    at_trace_start(level);
}

at_status at_device_trace_stop(void)
{
    at_status st = AT_OK;

    for (int i = 0; i < g_count; i++) {
        traced *t = &g_traced[i];

        if (!t->dev) continue;
        if (t->st == AT_OK) t->st = settle(t);
        if (st == AT_OK) st = t->st;
        t->dev->backend = t->slots;
        t->dev->ops = t->ops;
    }
    at_trace_sources_collect();
    at_trace_stop();
    return st;
}
