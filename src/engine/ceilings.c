// SPDX-License-Identifier: Apache-2.0
// ceilings.c - measuring the rates of one device. Sizes differ for the CPU, where seconds count.
#include "engine/ceilings.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/bench_fill.h"
#include "engine/trace_table.h"
#include "ops/ops.h"
#include "sample/noise.h"

enum { BLOCK = 512 * 1024, ROUNDS = 4 };

typedef struct sizes {
    int64_t m, n, k;                                   // linear
    int64_t tokens, wide_heads;                        // attention with heads of 128
    int64_t narrow_batch, narrow_tokens, narrow_heads; // of 64
    int64_t side, channels;                            // conv
    int64_t copied;                                    // bytes
} sizes;

static const sizes for_gpu = {8192, 8192, 8192, 4608, 24, 2, 4096, 10, 256, 512, 512 << 20};
static const sizes for_cpu = {2048, 3072, 3072, 1024, 4, 1, 1024, 8, 64, 128, 64 << 20};

// What is timed: one call of `go` queues the work once.
typedef struct task {
    at_ops *o;
    const sizes *s;
    at_dtype compute;
    const at_weight *w;
    const at_tensor *x, *y, *z;
    at_view from, to;
    void *host;
    void (*go)(struct task *t);
} task;

static at_status wait_for(at_device *d)
{
    return d->ops->synchronize(d);
}

// Seconds of `n` calls, on the device's clock where it has one.
static at_status run_n(task *t, int n, double *seconds)
{
    at_status st = AT_OK;
    at_device *d = at_ops_device(t->o);
    double began = at_now();

    if (d->ops->mark) AT_TRY(d->ops->mark(d, 0, false));
    for (int i = 0; i < n; i++) {
        at_scope_begin(t->o);
        t->go(t);
        at_scope_end(t->o, NULL);
    }
    if (d->ops->mark) AT_TRY(d->ops->mark(d, 1, false));
    AT_TRY(wait_for(d));
    *seconds = at_now() - began;
    if (d->ops->mark) AT_TRY(d->ops->elapsed(d, 0, 1, seconds));
    AT_TRY(at_ops_status(t->o));
out:
    return st;
}

// Seconds of one call: the best of some rounds of about 10 ms each.
static at_status best(task *t, double *seconds)
{
    at_status st = AT_OK;
    double one, all;

    AT_TRY(run_n(t, 1, &one)); // makes weights resident, chooses plans
    AT_TRY(run_n(t, 1, &one));
    int n = one > 0.01 || one <= 0 ? 1 : (int)(0.01 / one) + 1;
    if (n > 1000) n = 1000;
    *seconds = one;
    for (int i = 0; i < ROUNDS && (i < 1 || one < 0.25); i++) {
        AT_TRY(run_n(t, n, &all));
        if (all / n < *seconds) *seconds = all / n;
    }
out:
    return st;
}

// Noise of any size: one block of it repeated along dimension 0 of [n, width].
static at_tensor *noise(at_ops *o, at_dtype dtype, uint64_t seed, int rank, const int64_t *shape)
{
    int64_t count = 1, width = shape[rank - 1];
    for (int i = 0; i < rank; i++)
        count *= shape[i];
    int64_t rows = count / width, block = BLOCK / width < rows ? BLOCK / width : rows;
    while (rows % block)
        block--;
    float *values = at_alloc((size_t)(block * width) * sizeof *values);
    if (!values) return at_ops_poison(o, AT_ENOMEM, "ceilings: no memory");
    at_randn(seed, values, block * width);
    at_tensor *one =
        at_cast(o, at_from_host(o, AT_F32, 2, (int64_t[]){block, width}, values), dtype);
    at_tensor *all = at_empty(o, dtype, 2, (int64_t[]){rows, width});
    at_free(values);
    for (int64_t at = 0; at < rows && all; at += block)
        at_unary(at_into(o, at_narrow(o, all, 0, at, block)), one, AT_ACT_NONE);
    return at_reshape(o, all, rank, shape);
}

static void go_linear(task *t)
{
    at_linear(t->o, t->x, t->w, NULL, NULL);
}
static void go_attention(task *t)
{
    at_attention(t->o, t->x, t->y, t->z, NULL, 0, false);
}
static void go_conv(task *t)
{
    at_conv_spec spec = {.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    at_conv2d(t->o, t->x, t->w, NULL, &spec);
}
static void go_copy(task *t)
{
    at_device *d = at_ops_device(t->o);
    d->backend->copy(d->stream, &t->from, &t->to);
}
static void go_upload(task *t)
{
    at_device *d = at_ops_device(t->o);
    d->ops->from_host(d, t->to.data, t->host, (size_t)t->s->copied);
}
static void go_download(task *t)
{
    at_device *d = at_ops_device(t->o);
    d->ops->to_host(d, t->host, t->to.data, (size_t)t->s->copied);
}

// Rate of a task that does `work` a call.
static at_status rate(task *t, void (*go)(task *), double work, double *out)
{
    double seconds = 0;
    t->go = go;
    at_status st = best(t, &seconds);
    *out = seconds > 0 ? work / seconds : 0;
    return st;
}

static at_status measure_linear(task *t, at_store *weights, at_dtype storage, double *out)
{
    const sizes *s = t->s;
    at_filler f = at_fill_start(weights, (at_fill_as){.dtype = storage});
    const char *name = at_dtype_name(storage);

    if (!at_store_find(weights, name)) at_fill_matrix(&f, name, s->n, s->k);
    if (f.st != AT_OK) return f.st;
    at_scope_begin(t->o);
    t->w = at_store_find(weights, name);
    t->x = noise(t->o, t->compute, 1, 3, (int64_t[]){1, s->m, s->k});
    at_status st = rate(t, go_linear, 2.0 * (double)s->m * (double)s->n * (double)s->k, out);
    at_scope_end(t->o, NULL);
    return st;
}

static at_status measure_attention(task *t, int64_t b, int64_t tokens, int64_t heads, int64_t dim,
                                   double *out)
{
    const int64_t shape[] = {b, tokens, heads, dim};
    double pairs = (double)(b * heads) * (double)tokens * (double)tokens;

    at_scope_begin(t->o);
    t->x = noise(t->o, t->compute, 2, 4, shape);
    t->y = noise(t->o, t->compute, 3, 4, shape);
    t->z = noise(t->o, t->compute, 4, 4, shape);
    at_status st = rate(t, go_attention, 4 * pairs * (double)dim, out);
    at_scope_end(t->o, NULL);
    return st;
}

// The large layer once more where products may be rounded, and attention if it is asked for.
static at_status measure_rounded(task *t, at_store *weights, bool fp8, bool int8, double *out,
                                 double *attention)
{
    at_status st = AT_OK;
    at_ops *exact = t->o;
    at_ops_config config = {
        .device = at_ops_device(exact), .compute = t->compute, .fp8 = fp8, .int8 = int8};

    AT_TRY(at_ops_new(&config, &t->o));
    st = measure_linear(t, weights, t->compute, out);
    if (st == AT_OK && attention)
        st = measure_attention(t, 1, t->s->tokens, t->s->wide_heads, 128, attention);
    at_ops_free(t->o);
out:
    t->o = exact;
    return st;
}

static at_status measure_conv(task *t, at_store *weights, double *out)
{
    const sizes *s = t->s;
    at_filler f = at_fill_start(weights, (at_fill_as){.dtype = t->compute});
    double c = (double)s->channels;

    at_fill_conv(&f, "conv", s->channels, s->channels, 3);
    if (f.st != AT_OK) return f.st;
    at_scope_begin(t->o);
    t->w = at_store_find(weights, "conv.weight");
    t->x = noise(t->o, t->compute, 5, 4, (int64_t[]){1, s->side, s->side, s->channels});
    at_status st = rate(t, go_conv, 2.0 * (double)(s->side * s->side) * c * c * 9, out);
    at_scope_end(t->o, NULL);
    return st;
}

static at_status measure_copies(task *t, at_ceilings *c)
{
    at_status st = AT_OK;
    at_device *d = at_ops_device(t->o);
    int64_t n = t->s->copied / 4;
    double bytes = (double)t->s->copied;

    at_scope_begin(t->o);
    const at_tensor *a = noise(t->o, AT_F32, 6, 2, (int64_t[]){n / 1024, 1024});
    const at_tensor *b = at_empty(t->o, AT_F32, 2, (int64_t[]){n / 1024, 1024});
    AT_TRY(at_ops_status(t->o));
    t->from = at_tensor_as_view(a);
    t->to = at_tensor_as_view(b);
    AT_TRY(rate(t, go_copy, 2 * bytes, &c->copy));
    if (d->host) goto out;
    t->host = at_alloc((size_t)t->s->copied);
    if (!t->host) AT_TRY(at_fail(AT_ENOMEM, "ceilings: no memory"));
    memset(t->host, 1, (size_t)t->s->copied);
    AT_TRY(rate(t, go_upload, bytes, &c->upload));
    AT_TRY(rate(t, go_download, bytes, &c->download));
out:
    at_free(t->host);
    t->host = NULL;
    at_scope_end(t->o, NULL);
    return st;
}

// Half a second to warm the chip, then a quarter that counts: bursts are over before a power limit acts.
static at_status measure_sustained(task *t, at_store *weights, double burst, double *out)
{
    const sizes *s = t->s;
    double work = 2.0 * (double)s->m * (double)s->n * (double)s->k, seconds = 0;
    int n = (int)(0.25 * burst / work) + 1;
    at_status st = AT_OK;

    at_scope_begin(t->o);
    t->go = go_linear;
    t->w = at_store_find(weights, at_dtype_name(t->compute));
    t->x = noise(t->o, t->compute, 1, 3, (int64_t[]){1, s->m, s->k});
    for (int i = 0; i < 3 && st == AT_OK; i++)
        st = run_n(t, n, &seconds);
    at_scope_end(t->o, NULL);
    *out = seconds > 0 ? n * work / seconds : 0;
    return st;
}

at_status at_ceilings_measure(at_device *d, at_dtype compute, bool fp8, bool int8, at_ceilings *out)
{
    at_status st = AT_OK;
    at_store *weights = NULL;
    task t = {.s = d->host ? &for_cpu : &for_gpu, .compute = compute};
    const sizes *s = t.s;
    at_ops_config config = {.device = d, .compute = compute};

    *out = (at_ceilings){.compute = compute};
    AT_TRY(at_store_new("ceilings", &weights));
    AT_TRY(at_ops_new(&config, &t.o));
    AT_TRY(measure_linear(&t, weights, compute, &out->linear));
    if (!d->host) AT_TRY(measure_sustained(&t, weights, out->linear, &out->linear_sustained));
    if (fp8)
        AT_TRY(measure_rounded(&t, weights, true, false, &out->linear_fp8, &out->attention_fp8));
    if (int8) AT_TRY(measure_rounded(&t, weights, false, true, &out->linear_int8, NULL));
    AT_TRY(measure_attention(&t, 1, s->tokens, s->wide_heads, 128, &out->attention_wide));
    AT_TRY(measure_attention(&t, s->narrow_batch, s->narrow_tokens, s->narrow_heads, 64,
                             &out->attention_narrow));
    AT_TRY(measure_conv(&t, weights, &out->conv));
    AT_TRY(measure_copies(&t, out));
out:
    at_ops_free(t.o);
    at_store_release(&weights);
    return st;
}

double at_ceilings_floor(const at_ceilings *c, const at_trace_slice *s)
{
    double by_bytes = c->copy > 0 ? s->bytes / c->copy : 0, peak = 0;

    if (!s->slot) return 0;
    switch (at_op_class_of(s->slot)) {
    case AT_CLASS_LINEAR:
        peak = c->linear;
        if (c->linear_fp8 > 0 && strstr(s->kernel, "fp8")) peak = c->linear_fp8;
        if (c->linear_int8 > 0 && strstr(s->kernel, "int8")) peak = c->linear_int8;
        break;
    case AT_CLASS_ATTENTION:
        peak = s->head > 96 ? c->attention_wide : c->attention_narrow;
        if (c->attention_fp8 > peak && strstr(s->kernel, "fp8")) peak = c->attention_fp8;
        break;
    case AT_CLASS_CONV: peak = c->conv; break;
    default: break;
    }
    double by_flops = peak > 0 ? s->flops / peak : 0;
    return by_flops > by_bytes ? by_flops : by_bytes;
}
