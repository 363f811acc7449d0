// SPDX-License-Identifier: Apache-2.0
// ops.c - the op context: sticky errors, scopes, and the steps that all doors share.
// Idea: scopes are marks in one list of references; ending a scope releases what lies behind its
// mark. Owns: the list; see ops.h.
#include "ops/ops_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/thread.h"

// --- life ------------------------------------------------------------------------------------
at_status at_ops_new(const at_ops_config *config, at_ops **out)
{
    at_device *dev = config->device ? config->device : at_device_cpu();
    const char *off = getenv("AT_OFF");
    at_ops *o;

    *out = NULL;
    if (!dev->backend) {
        return at_fail(AT_EUNSUPPORTED, "device %s has no backend", dev->name);
    }
    if (dev->backend->abi != AT_BACKEND_ABI) {
        return at_fail(AT_EUNSUPPORTED, "device %s: its backend speaks ABI %d, this program %d",
                       dev->name, dev->backend->abi, AT_BACKEND_ABI);
    }
    if (config->compute != AT_F32 && config->compute != AT_BF16 && config->compute != AT_F16) {
        return at_fail(AT_EINVAL, "activations in %s; f32, bf16 and f16 are possible",
                       at_dtype_name(config->compute));
    }
    o = at_calloc(1, sizeof *o);
    if (!o) return at_fail(AT_ENOMEM, "no memory for the op context");
    o->dev = dev;
    atomic_fetch_add(&dev->epoch, 1);
    o->be = dev->backend;
    o->compute = config->compute;
    o->int8 = config->int8;
    o->fp8 = config->fp8;
    o->weights8 = config->weights8;
    o->ring = at_has_word(off, "gather") ? OPS_RING_HOPS
              : at_has_word(off, "hops") ? OPS_RING_GATHERS
                                         : OPS_RING_AUTO;
    o->late = at_has_word(off, "early");
    o->mesh = config->mesh   ? *config->mesh
              : config->comm ? at_mesh_tokens(config->comm)
                             : at_mesh_self();
    o->comm = o->mesh.world;
    op_aside_choose(o);
    o->sink = config->sink;
    *out = o;
    return AT_OK;
}

void at_ops_free(at_ops *o)
{
    if (!o) return;
    while (o->count > 0)
        at_tensor_release(&o->owned[--o->count]);
    at_free(o->owned);
    at_free(o);
}

at_device *at_ops_device(const at_ops *o)
{
    return o->dev;
}

at_dtype at_ops_compute(const at_ops *o)
{
    return o->compute;
}

int at_ops_leave(const at_ops *o)
{
    return o->int8 | o->fp8 << 1 | o->weights8 << 2;
}

at_comm *at_ops_comm(const at_ops *o)
{
    return o->comm;
}

const at_sink *at_ops_sink(const at_ops *o)
{
    return o->sink;
}

// --- the sticky error ------------------------------------------------------------------------
// The thread's message becomes ours; the other ranks are told, so that none waits for this one.
static void stick(at_ops *o, at_status st)
{
    if (o->st != AT_OK) return;
    o->st = st;
    snprintf(o->error, sizeof o->error, "%s", at_error_text());
    o->comm->ops->abort(o->comm, (int)st);
}

at_tensor *at_ops_poison(at_ops *o, at_status st, const char *fmt, ...)
{
    char text[OPS_ERROR_BYTES];
    va_list args;

    if (o->st != AT_OK) return NULL;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    at_fail(st, "%s", text);
    stick(o, st);
    return NULL;
}

at_status at_ops_status(const at_ops *o)
{
    return o->st == AT_OK ? AT_OK : at_fail(o->st, "%s", o->error);
}

at_status at_ops_clear(at_ops *o)
{
    at_status st = at_ops_status(o);

    o->st = AT_OK;
    o->error[0] = '\0';
    o->told = false;
    o->split.open = false;
    o->ahead.arrived = NULL;
    return st;
}

// --- scopes ----------------------------------------------------------------------------------
void at_scope_begin(at_ops *o)
{
    if (o->depth < OPS_MAX_DEPTH) {
        o->marks[o->depth] = o->count;
    } else {
        at_ops_poison(o, AT_EINTERNAL, "more than %d op scopes in each other", OPS_MAX_DEPTH);
    }
    o->depth++;
}

at_tensor *at_scope_end(at_ops *o, at_tensor *keep)
{
    size_t begin, kept = 0;

    if (o->depth == 0) return at_ops_poison(o, AT_EINTERNAL, "an op scope ends that never began");
    if (--o->depth >= OPS_MAX_DEPTH) return keep;
    begin = o->marks[o->depth];
    for (size_t i = o->count; i-- > begin;) {
        if (o->owned[i] == keep && keep && !kept) {
            kept = 1;
        } else {
            at_tensor_release(&o->owned[i]);
        }
    }
    if (kept) o->owned[begin] = keep;
    o->count = begin + kept;
    return keep;
}

at_status op_own(at_ops *o, at_tensor *t)
{
    if (o->count == o->cap) {
        size_t cap = o->cap ? 2 * o->cap : 256;
        at_tensor **grown = at_realloc(o->owned, cap * sizeof *grown);

        if (!grown) {
            at_tensor_release(&t);
            return at_fail(AT_ENOMEM, "no memory for a scope of %zu tensors", cap);
        }
        o->owned = grown;
        o->cap = cap;
    }
    o->owned[o->count++] = t;
    return AT_OK;
}

at_tensor *at_ops_keep(at_ops *o, at_tensor *t)
{
    (void)o;
    return at_tensor_retain(t);
}

at_tensor *at_ops_adopt(at_ops *o, at_tensor *t)
{
    at_status st;

    if (!t) return NULL;
    st = op_own(o, t);
    if (st == AT_OK) return t;
    stick(o, st);
    return NULL;
}

// --- the steps of a door ---------------------------------------------------------------------
bool op_enter(op_pass *p, at_ops *o, const char *name, double *seconds)
{
    at_tensor *into = o->into;

    o->into = NULL;
    if (o->st != AT_OK) return false;
    if (at_sink_cancelled(o->sink)) {
        at_ops_poison(o, AT_ECANCELLED, "%s: cancelled", name);
        return false;
    }
    *p = (op_pass){.o = o, .name = name, .began = at_now(), .seconds = seconds, .into = into};
    o->stats.calls++;
    if (o->dev->host && o->sink) at_threads_watch(o->sink->cancel);
    return true;
}

at_tensor *op_leave(op_pass *p, at_status st, at_tensor *result)
{
    *p->seconds += at_now() - p->began;
    at_threads_watch(NULL);
    // The host's slots leave tiles out when they see it.
    if (st == AT_OK && p->o->dev->host && at_sink_cancelled(p->o->sink))
        st = at_fail(AT_ECANCELLED, "cancelled");
    if (st == AT_OK && p->into) st = at_fail(AT_EINTERNAL, "it cannot write into a given tensor");
    if (st == AT_OK) return result;
    stick(p->o, at_fail_context(st, "%s: ", p->name));
    return NULL;
}

at_status op_takes_rows(const op_pass *p, const char *what, const at_tensor *t)
{
    char text[128];

    if (!t) return at_fail(AT_EINVAL, "%s is missing", what);
    if (at_tensor_device(t) == p->o->dev) return AT_OK;
    return at_fail(AT_EINVAL, "%s %s lies on %s, the work is done on %s", what,
                   at_shape_text(t->dtype, t->rank, t->shape, text), at_tensor_device(t)->name,
                   p->o->dev->name);
}

at_status op_takes(const op_pass *p, const char *what, const at_tensor *t)
{
    char text[128];

    if (t && t->row_scale)
        return at_fail(AT_EINVAL, "%s %s is fp8 rows, which linear layers read and nothing else",
                       what, at_shape_text(t->dtype, t->rank, t->shape, text));
    return op_takes_rows(p, what, t);
}

const char *op_weight_text(const at_weight *w, char out[256])
{
    char shape[128];

    snprintf(out, 256, "%.120s %s", w->name, at_shape_text(w->dtype, w->rank, w->shape, shape));
    return out;
}

at_status op_takes_weight(const op_pass *p, const char *what, const at_weight *w, at_wview *out)
{
    const at_comm *tp = p->o->mesh.axis[AT_AXIS_TP];
    char text[256];

    if (!w) return at_fail(AT_EINVAL, "%s is missing", what);
    at_status made = at_weight_share_view(w, tp->rank, tp->size, p->o->be->pieces, out);
    if (made == AT_OK && !out->v.data)
        made = at_fail(AT_EUNSUPPORTED, "%s %s is a shape without bytes", what,
                       op_weight_text(w, text));
    return made;
}

at_status op_takes_vector(const op_pass *p, const char *what, const at_weight *w, int64_t n,
                          at_wview *out)
{
    at_status st = AT_OK;
    char text[256];

    *out = (at_wview){.scale = 1};
    if (!w) return AT_OK;
    AT_TRY(op_takes_weight(p, what, w, out));
    if (at_view_count(&out->v) != n) {
        AT_TRY(at_fail(AT_EINVAL, "%s %s must have %lld elements", what, op_weight_text(w, text),
                       (long long)n));
    }
    out->v.rank = 1;
    out->v.shape[0] = n;
    out->v.stride[0] = 1;
out:
    return st;
}

at_status op_make(at_ops *o, at_dtype dtype, int rank, const int64_t *shape, at_tensor **out)
{
    at_tensor *t = NULL;
    at_status st = at_tensor_new(o->dev, dtype, rank, shape, &t);

    *out = NULL;
    if (st == AT_OK) st = op_own(o, t);
    if (st == AT_OK) *out = t;
    return st;
}

at_ops *at_into(at_ops *o, at_tensor *out)
{
    o->into = out;
    return o;
}

at_status op_result(op_pass *p, at_dtype dtype, int rank, const int64_t *shape, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *into = p->into;
    char text[128], want[128];

    if (!into) return op_make(p->o, dtype, rank, shape, out);
    p->into = NULL;
    *out = NULL;
    AT_TRY(op_takes(p, "the given result", into));
    if (into->rank != rank || memcmp(into->shape, shape, (size_t)rank * sizeof *shape) != 0 ||
        !at_dtype_is_float(into->dtype) || at_dtype_size(into->dtype) < 2 ||
        (rank && into->shape[rank - 1] > 1 && into->stride[rank - 1] != 1)) {
        AT_TRY(at_fail(AT_EINVAL, "the given result %s must be %s with a contiguous last dimension",
                       at_shape_text(into->dtype, into->rank, into->shape, text),
                       at_shape_text(dtype, rank, shape, want)));
    }
    *out = into;
out:
    return st;
}

at_status op_inner_contiguous(at_ops *o, const at_tensor *x, const at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *copy = NULL;
    at_view from, to;

    *out = x;
    if (x->rank == 0 || x->shape[x->rank - 1] == 1 || x->stride[x->rank - 1] == 1) return AT_OK;
    AT_TRY(op_make(o, x->dtype, x->rank, x->shape, &copy));
    from = at_tensor_as_view(x);
    to = at_tensor_as_view(copy);
    AT_TRY(o->be->copy(o->dev->stream, &from, &to));
    *out = copy;
out:
    return st;
}

at_view op_rows(const at_tensor *x)
{
    at_view v = at_tensor_as_view(x);

    if (v.rank == 2) {
        v.rank = 3;
        v.shape[2] = v.shape[1];
        v.stride[2] = v.stride[1];
        v.shape[1] = v.shape[0];
        v.stride[1] = v.stride[0];
        v.shape[0] = 1;
        v.stride[0] = 0;
    }
    return v;
}

at_status op_takes_modulation(const op_pass *p, const char *what, const at_tensor *t, int64_t batch,
                              int64_t n, at_view *out)
{
    at_status st = AT_OK;
    const at_tensor *inner;
    char text[128];

    *out = (at_view){0};
    if (!t) return AT_OK;
    AT_TRY(op_takes(p, what, t));
    if (t->rank != 2 || t->shape[1] != n || (t->shape[0] != batch && t->shape[0] != 1)) {
        AT_TRY(at_fail(AT_EINVAL, "%s %s must be [%lld or 1, %lld]", what,
                       at_shape_text(t->dtype, t->rank, t->shape, text), (long long)batch,
                       (long long)n));
    }
    AT_TRY(op_inner_contiguous(p->o, t, &inner));
    *out = at_tensor_as_view(inner);
    if (out->shape[0] == 1) out->stride[0] = 0;
    out->shape[0] = batch;
out:
    return st;
}

at_view op_part(at_view v, int dim, int64_t start, int64_t length)
{
    v.data = (char *)v.data + start * v.stride[dim] * (int64_t)at_dtype_size(v.dtype);
    v.shape[dim] = length;
    return v;
}

at_status op_scalar(at_ops *o, float value, at_tensor **out)
{
    at_status st = AT_OK;
    at_view v;

    // Filled, not copied: a copy would wait for the device, and cannot be recorded.
    AT_TRY(op_make(o, AT_F32, 1, &(int64_t){1}, out));
    v = at_tensor_as_view(*out);
    AT_TRY(o->be->fill(o->dev->stream, &v, (double)value));
out:
    return st;
}

// --- looking ---------------------------------------------------------------------------------
void at_ops_stats_get(const at_ops *o, at_ops_stats *out)
{
    *out = o->stats;
}

void at_ops_stats_reset(at_ops *o)
{
    o->stats = (at_ops_stats){0};
}

void at_ops_stats_set(at_ops *o, const at_ops_stats *s)
{
    o->stats = *s;
}

void at_ops_stats_add(at_ops *o, const at_ops_stats *s)
{
    o->stats.flops_linear += s->flops_linear;
    o->stats.flops_attention += s->flops_attention;
    o->stats.flops_conv += s->flops_conv;
    o->stats.seconds_linear += s->seconds_linear;
    o->stats.seconds_attention += s->seconds_attention;
    o->stats.seconds_conv += s->seconds_conv;
    o->stats.seconds_other += s->seconds_other;
    o->stats.calls += s->calls;
}
