// SPDX-License-Identifier: Apache-2.0
// priced.c - see priced.h.
// Easy to get wrong: what a backend can do shapes what ops/ asks of it, so this one says it can what the GPUs' can.
#include "tensor/priced.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/dtype.h"

typedef struct entry {
    bool meets;
    at_cost cost;
    at_priced_when when;
    at_priced_meeting meeting;
} entry;

struct at_priced {
    at_device device; // first: the slots of memory get its address
    at_rates rates;
    entry *list;
    size_t n, room;
    bool full;      // no memory for more: at_priced_play says nothing then
    uintptr_t next; // addresses that have been given
};

enum { LEAST_FP8_TOKENS = 2048, WIDEST_FP8_NORM = 8192 }; // as cuda/attention_fp8.c, cuda/rows8.h

static void keep(at_priced *p, const entry *e)
{
    if (p->n == p->room) {
        size_t room = p->room ? 2 * p->room : 1024;
        entry *grown = at_realloc(p->list, room * sizeof *grown);
        if (!grown) {
            p->full = true;
            return;
        }
        p->list = grown;
        p->room = room;
    }
    p->list[p->n++] = *e;
}

static at_status cost(void *stream, at_cost c)
{
    at_priced *p = stream;

    if (c.clocks > 0 || c.bytes > 0 || c.seconds > 0) keep(p, &(entry){.cost = c});
    return p->full ? at_fail(AT_ENOMEM, "plan: no memory for a list of ops") : AT_OK;
}

static double bytes_of(const at_view *v)
{
    double n = v->data ? (double)at_dtype_size(v->dtype) : 0;

    for (int i = 0; i < v->rank; i++)
        if (v->stride[i] != 0 || v->shape[i] == 0) n *= (double)v->shape[i];
    return n;
}

static double count_of(const at_view *v)
{
    double n = 1;

    for (int i = 0; i < v->rank; i++)
        n *= (double)v->shape[i];
    return n;
}

static const at_rates *rates_of(void *stream)
{
    return &((at_priced *)stream)->rates;
}

static at_status pass(void *stream, double bytes)
{
    return cost(stream, at_rates_pass(rates_of(stream), bytes));
}

// --- the slots -------------------------------------------------------------------------------
static at_status my_copy(void *stream, const at_view *src, const at_view *dst)
{
    return pass(stream, bytes_of(src) + bytes_of(dst));
}

static at_status my_fill(void *stream, const at_view *dst, double value)
{
    (void)value;
    return pass(stream, bytes_of(dst));
}

static at_status my_unary(void *stream, const at_view *x, const at_view *out, at_act act)
{
    (void)act;
    return pass(stream, bytes_of(x) + bytes_of(out));
}

static at_status my_binary(void *stream, const at_binary_args *a)
{
    return pass(stream, bytes_of(&a->a) + bytes_of(&a->b) + bytes_of(&a->out));
}

static at_status my_gate_add(void *stream, const at_gate_add_args *a)
{
    return pass(stream, bytes_of(&a->x) + bytes_of(&a->y) + bytes_of(&a->out));
}

static at_status my_lincomb(void *stream, const at_lincomb_args *a)
{
    return pass(stream, (a->n + 1) * bytes_of(&a->out));
}

static bool takes_fp8(bool leave, double n, double k, const at_view *out)
{
    return leave && fmod(n, 16) == 0 && fmod(k, 16) == 0 && out->dtype != AT_F32;
}

// The halves of a split product are two kernels.
static at_status my_linear(void *stream, const at_linear_args *a)
{
    const at_rates *r = rates_of(stream);
    double k = (double)a->w.v.shape[1], n = (double)a->w.v.shape[0];
    double m = (double)(a->x.shape[0] * a->x.shape[1]), first = a->split ? (double)a->split : 0;
    at_status st = AT_OK;

    for (int i = 0; i < a->n_more; i++)
        n += (double)a->more[i].v.shape[0];
    bool fp8 = takes_fp8(a->fp8 || a->x_scale.data, n, k, &a->out);
    if (fp8 && !a->x_scale.data) st = pass(stream, 3 * m * k); // into rows of fp8 first
    if (first > 0 && a->part != 2 && st == AT_OK)
        st = cost(stream, at_rates_linear(r, m, first, k, fp8, false));
    if (a->part != 1 && st == AT_OK)
        st = cost(stream, at_rates_linear(r, m, n - first, k, fp8, false));
    return st;
}

static at_status my_geglu(void *stream, const at_geglu_args *a)
{
    double k = (double)a->w.v.shape[1], n = 2 * (double)a->out.shape[2];
    double m = (double)(a->x.shape[0] * a->x.shape[1]);
    bool fp8 = takes_fp8(a->fp8 || a->x_scale.data, n, k, &a->out);

    return cost(stream, at_rates_linear(rates_of(stream), m, n, k, fp8, true));
}

static at_status turn(void *stream, const at_rope_args *a, int n, bool fp8)
{
    double bytes = 0;

    for (int i = 0; i < n; i++)
        bytes += bytes_of(&a[i].x) * (fp8 ? 1.5 : 2);
    return pass(stream, bytes / rates_of(stream)->rope_share);
}

static at_status my_ropes(void *stream, const at_rope_args *a, int n)
{
    return turn(stream, a, n, false);
}

static at_status my_attention(void *stream, const at_attention_args *a)
{
    at_status st = AT_OK;
    double heads = (double)(a->q.shape[0] * a->q.shape[2]);
    int64_t tq = a->q.shape[1], tk = a->k.shape[1], d = a->q.shape[3];
    bool fp8 = a->fp8 && d == 128 && tq >= LEAST_FP8_TOKENS && tk >= LEAST_FP8_TOKENS;
    const at_rates *r = rates_of(stream);

    if (a->n_turns) st = turn(stream, a->turns, a->n_turns, fp8); // into e4m3 or in place
    // Casts of v, and of what was not turned.
    if (fp8 && st == AT_OK)
        st = pass(stream,
                  1.5 * (bytes_of(&a->v) + (a->n_turns ? 0 : bytes_of(&a->q) + bytes_of(&a->k))));
    if (st == AT_OK)
        st = cost(stream, at_rates_attention(r, heads, (double)tq, (double)tk, (double)d, fp8));
    if (!fp8 && a->out_scale.data && st == AT_OK) st = pass(stream, 3 * count_of(&a->out));
    return st;
}

static at_status my_attention_merge(void *stream, const at_attention_merge_args *a)
{
    return pass(stream, bytes_of(&a->a) + bytes_of(&a->b) + bytes_of(&a->out));
}

static at_status my_norm(void *stream, const at_norm_args *a)
{
    return pass(stream,
                bytes_of(&a->x) * (a->y.data ? 2 : 1) + bytes_of(&a->y) + bytes_of(&a->out));
}

static at_status group(void *stream, double bytes)
{
    const at_rates *r = rates_of(stream);
    at_cost c = at_rates_pass(r, bytes / r->group_share);

    if (bytes > 0) c.seconds += r->group_start;
    return cost(stream, c);
}

static at_status my_group_norm(void *stream, const at_group_norm_args *a)
{
    return group(stream, bytes_of(&a->x) + bytes_of(&a->out));
}

static at_status my_group_stats(void *stream, const at_group_norm_args *a)
{
    return group(stream, bytes_of(&a->x));
}

static at_status my_rope(void *stream, const at_rope_args *a)
{
    return turn(stream, a, 1, false);
}

// A doubled map's taps that meet one pixel are summed beforehand: four products of 2 x 2 instead of one of 3 x 3.
static at_status my_conv2d(void *stream, const at_conv2d_args *a)
{
    const int64_t *w = a->w.v.shape, *out = a->out.shape;
    double m = (double)(out[0] * out[1] * out[2]), k = (double)(w[1] * w[2] * w[3]);
    at_cost c;

    if (a->upsample2x && w[2] == 3) k *= 4.0 / 9;
    c = w[2] == 1 ? at_rates_linear(rates_of(stream), m, (double)w[0], k, false, false)
                  : at_rates_conv(rates_of(stream), m, (double)w[0], k);
    c.kind = AT_COST_CONV;
    if (a->upsample2x && w[2] == 3) c.seconds += bytes_of(&a->out) * 2 / rates_of(stream)->copy;
    return cost(stream, c);
}

static at_status my_embedding(void *stream, const at_embedding_args *a)
{
    return pass(stream, 2 * bytes_of(&a->out));
}

static bool my_fp8_rows(void *stream, int64_t n, int64_t k)
{
    (void)stream;
    return n % 16 == 0 && k % 16 == 0 && k > 0 && k <= WIDEST_FP8_NORM;
}

static const at_backend slots = {.abi = AT_BACKEND_ABI,
                                 .name = "priced",
                                 .copy = my_copy,
                                 .fill = my_fill,
                                 .unary = my_unary,
                                 .binary = my_binary,
                                 .gate_add = my_gate_add,
                                 .lincomb = my_lincomb,
                                 .linear = my_linear,
                                 .splits = true,
                                 .joins = true,
                                 .adds = true,
                                 .turns = true,
                                 .pieces = true,
                                 .fp8_rows = my_fp8_rows,
                                 .attention = my_attention,
                                 .attention_merge = my_attention_merge,
                                 .norm = my_norm,
                                 .group_norm = my_group_norm,
                                 .group_stats = my_group_stats,
                                 .rope = my_rope,
                                 .ropes = my_ropes,
                                 .conv2d = my_conv2d,
                                 .embedding = my_embedding,
                                 .geglu = my_geglu};

// --- memory: addresses that nobody has -----------------------------------------------------------
static at_status my_alloc(at_device *d, size_t bytes, void **out)
{
    static const uintptr_t first = (uintptr_t)1 << 60;
    at_priced *p = (at_priced *)(void *)d;

    *out = (void *)(first | (p->next & (first - 1))); // never read: only told apart from others
    p->next += (bytes + AT_ALIGN) / AT_ALIGN * AT_ALIGN;
    return AT_OK;
}

static void my_free(at_device *d, void *p)
{
    (void)d;
    (void)p;
}

static at_status my_from_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    (void)dst;
    (void)src;
    (void)bytes;
    return AT_OK;
}

static at_status my_to_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    (void)src;
    if (bytes) memset(dst, 0, bytes);
    return AT_OK;
}

static at_status my_wait(at_device *d)
{
    (void)d;
    return AT_OK;
}

static at_status my_memory(at_device *d, uint64_t *free_bytes, uint64_t *total_bytes)
{
    *free_bytes = *total_bytes = (uint64_t)((at_priced *)(void *)d)->rates.memory;
    return AT_OK;
}

static const at_device_ops memory_ops = {.alloc = my_alloc,
                                         .free = my_free,
                                         .from_host = my_from_host,
                                         .to_host = my_to_host,
                                         .synchronize = my_wait,
                                         .memory = my_memory};

// --- the list ----------------------------------------------------------------------------------
at_status at_priced_new(const at_rates *rates, at_priced **out)
{
    at_priced *p = at_calloc(1, sizeof *p);

    *out = NULL;
    if (!p) return at_fail(AT_ENOMEM, "plan: no memory for a device");
    p->rates = *rates;
    p->device = (at_device){.name = "priced", .ops = &memory_ops, .backend = &slots, .stream = p};
    *out = p;
    return AT_OK;
}

void at_priced_free(at_priced *p)
{
    if (!p) return;
    at_free(p->list);
    at_free(p);
}

at_device *at_priced_device(at_priced *p)
{
    return &p->device;
}

void at_priced_clear(at_priced *p)
{
    p->n = 0;
}

void at_priced_meet(at_priced *p, at_priced_when when, const at_priced_meeting *m)
{
    keep(p, &(entry){.meets = true, .when = when, .meeting = *m});
}

// --- played again --------------------------------------------------------------------------------
static double travel(const at_rates *r, const at_priced_meeting *m)
{
    double most = m->out > m->in ? m->out : m->in;

    return most / (m->sum ? r->link_sum : r->link);
}

static double flags(const at_rates *r, const at_priced_meeting *m)
{
    if (m->others < 1) return 0;
    return (m->sum ? r->meeting_sum : r->meeting) + (m->others - 1) * r->meeting_more;
}

static void meet(const at_rates *r, const entry *e, double *arrives, at_priced_sum *s)
{
    double wait = 0;

    if (e->when == AT_MEET_BEGIN) {
        *arrives = s->seconds + flags(r, &e->meeting) + travel(r, &e->meeting);
    } else if (e->when == AT_MEET_END) {
        wait = fmax(*arrives - s->seconds, 0);
        *arrives = 0;
    } else {
        wait = flags(r, &e->meeting) + travel(r, &e->meeting);
    }
    s->seconds += wait;
    s->exposed += wait;
    if (e->when == AT_MEET_END) return;
    s->out += e->meeting.out;
    s->meetings++;
}

static at_priced_sum play_at(const at_priced *p, double share)
{
    at_priced_sum s = {.seconds = p->rates.step, .clock = p->rates.hertz * share};
    double arrives = 0;

    for (size_t i = 0; i < p->n; i++) {
        const entry *e = &p->list[i];
        if (e->meets) {
            meet(&p->rates, e, &arrives, &s);
            continue;
        }
        double t = at_rates_seconds(&p->rates, &e->cost, share);
        s.seconds += t;
        s.kind[e->cost.kind] += t;
        s.joules += at_rates_joules(&p->rates, &e->cost, share);
        s.useful += e->cost.useful;
        s.ops++;
    }
    return s;
}

static bool below_limit(const at_rates *r, const at_priced_sum *s)
{
    return r->watts <= 0 || s->joules + r->idle_watts * s->seconds <= r->watts * s->seconds;
}

at_priced_sum at_priced_play(const at_priced *p)
{
    enum { ROUNDS = 30 };
    at_priced_sum s = play_at(p, 1);
    double low = 0.3, high = 1;

    if (p->full || below_limit(&p->rates, &s)) return s;
    for (int i = 0; i < ROUNDS; i++) {
        double middle = 0.5 * (low + high);
        s = play_at(p, middle);
        if (below_limit(&p->rates, &s))
            low = middle;
        else
            high = middle;
    }
    return play_at(p, low);
}
