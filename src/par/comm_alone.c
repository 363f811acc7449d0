// SPDX-License-Identifier: Apache-2.0
// comm_alone.c - see comm_alone.h.
#include "par/comm_alone.h"

#include <string.h>

#include "base/mem.h"
#include "tensor/tensor.h"

typedef struct alone {
    at_comm base;
    at_alone_fn *each;
    void *ctx;
} alone;

static void say(at_comm *c, const at_alone_exchange *e)
{
    alone *a = (alone *)c;

    if (e->others > 0 || e->when == AT_ALONE_END) a->each(a->ctx, e);
}

static at_status all_gather(at_comm *c, const void *send, void *recv, size_t bytes)
{
    double others = c->size - 1;

    (void)send;
    (void)recv;
    if (!bytes) return AT_OK;
    say(c, &(at_alone_exchange){
               .out = others * (double)bytes, .in = others * (double)bytes, .others = c->size - 1});
    return AT_OK;
}

static at_status all_to_all(at_comm *c, const void *send, void *recv, size_t bytes)
{
    return all_gather(c, send, recv, bytes);
}

static at_status exchange(at_comm *c, const at_comm_part *send, const at_comm_part *recv)
{
    at_alone_exchange e = {.when = AT_ALONE_NOW};

    for (int i = 0; i < c->size; i++) {
        if (i == c->rank) continue;
        e.out += (double)send[i].bytes;
        e.in += (double)recv[i].bytes;
        e.others += send[i].bytes || recv[i].bytes;
    }
    say(c, &e);
    return AT_OK;
}

static double bytes_of(const at_view *v)
{
    return v->data ? (double)at_view_count(v) * (double)at_dtype_size(v->dtype) : 0;
}

static void scattered(at_comm *c, at_alone_when when, const at_view *send, const at_view *recv)
{
    at_alone_exchange e = {.when = when};

    for (int i = 0; i < c->size; i++) {
        if (i == c->rank) continue;
        double out = bytes_of(&send[i]), in = bytes_of(&recv[i]);
        e.out += out;
        e.in += in;
        e.others += out > 0 || in > 0;
    }
    say(c, &e);
}

static at_status scatter(at_comm *c, const at_view *send, const at_view *recv)
{
    scattered(c, AT_ALONE_NOW, send, recv);
    return AT_OK;
}

static at_status scatter_begin(at_comm *c, const at_view *send, const at_view *recv)
{
    scattered(c, AT_ALONE_BEGIN, send, recv);
    return AT_OK;
}

static at_status scatter_end(at_comm *c)
{
    say(c, &(at_alone_exchange){.when = AT_ALONE_END});
    return AT_OK;
}

// Each adds its run of what all have, and hands it to everybody.
static at_status sum(at_comm *c, at_dtype dtype, void *inout, size_t count)
{
    double bytes = (double)count * (double)at_dtype_size(dtype) * 2 * (c->size - 1) / c->size;

    (void)inout;
    if (count)
        say(c, &(at_alone_exchange){.out = bytes, .in = bytes, .others = c->size - 1, .sum = true});
    return AT_OK;
}

static at_status all_reduce_sum(at_comm *c, float *inout, size_t count)
{
    return sum(c, AT_F32, inout, count);
}

static at_status vote(at_comm *c, int mine, int *result)
{
    (void)c;
    *result = mine;
    return AT_OK;
}

static at_status tell(at_comm *c, const void *send, void *recv, size_t bytes)
{
    for (int i = 0; i < c->size; i++)
        memcpy((char *)recv + (size_t)i * bytes, send, bytes);
    return AT_OK;
}

static at_status split(at_comm *c, int colour, at_comm **out)
{
    (void)colour;
    *out = NULL;
    return at_fail(AT_EUNSUPPORTED, "rank %d of %d is alone and cannot be split", c->rank, c->size);
}

static void give_up(at_comm *c, int code)
{
    (void)c;
    (void)code;
}

static void watch(at_comm *c, void (*fn)(void *ctx), void *ctx, bool on)
{
    (void)c;
    (void)fn;
    (void)ctx;
    (void)on;
}

static void alone_free(at_comm *c)
{
    at_free(c);
}

#define SLOTS                                                                                      \
    .all_gather = all_gather, .all_to_all = all_to_all, .exchange = exchange, .scatter = scatter,  \
    .scatter_begin = scatter_begin, .scatter_end = scatter_end, .all_reduce_sum = all_reduce_sum,  \
    .vote = vote, .tell = tell, .split = split, .abort = give_up, .watch = watch,                  \
    .free = alone_free
static const at_comm_ops plain_ops = {SLOTS};
static const at_comm_ops sum_ops = {SLOTS, .sum = sum};

static at_status comm_new(int rank, int size, const alone *like, at_comm **out)
{
    alone *a;

    *out = at_comm_self();
    if (size == 1) return AT_OK;
    a = at_calloc(1, sizeof *a);
    if (!a) return at_fail(AT_ENOMEM, "plan: no memory for a rank");
    *a = *like;
    a->base.rank = rank;
    a->base.size = size;
    *out = &a->base;
    return AT_OK;
}

static int degree(const at_degrees *d, int axis)
{
    return d->of[axis] > 1 ? d->of[axis] : 1;
}

at_status at_mesh_alone(const at_degrees *degrees, int rank, bool sums, at_alone_fn *each,
                        void *ctx, at_mesh *out)
{
    at_status st = AT_OK;
    int n = at_degrees_ranks(degrees), left = rank, place[AT_AXES];
    const alone like = {
        .base = {.ops = sums ? &sum_ops : &plain_ops, .on_device = true}, .each = each, .ctx = ctx};

    *out = (at_mesh){.degrees = *degrees};
    if (rank < 0 || rank >= n) AT_TRY(at_fail(AT_EINVAL, "there is no rank %d of %d", rank, n));
    for (int i = AT_AXES - 1; i >= 0; i--) { // inner axes count fastest, as in mesh.c
        place[i] = left % degree(degrees, i);
        left /= degree(degrees, i);
    }
    AT_TRY(comm_new(rank, n, &like, &out->world));
    for (int i = 0; i < AT_AXES; i++)
        AT_TRY(comm_new(place[i], degree(degrees, i), &like, &out->axis[i]));
    int u = degree(degrees, AT_AXIS_ULYSSES);
    AT_TRY(comm_new(place[AT_AXIS_RING] * u + place[AT_AXIS_ULYSSES],
                    u * degree(degrees, AT_AXIS_RING), &like, &out->tokens));
out:
    if (st != AT_OK) at_mesh_alone_free(out);
    return st;
}

void at_mesh_alone_free(at_mesh *m)
{
    if (!m) return;
    for (int i = 0; i < AT_AXES; i++)
        at_comm_free(m->axis[i]);
    at_comm_free(m->tokens);
    at_comm_free(m->world);
    *m = (at_mesh){0};
}
