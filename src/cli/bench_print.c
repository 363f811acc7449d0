// SPDX-License-Identifier: Apache-2.0
// bench_print.c - what people and programs read of a bench.
// Idea: every line names its rate and the share of the floor that it reached, floor being work over this
// machine's measured rates; a step's floor is that of its products alone, because the rest can be fused away.
#include "cli/bench_print.h"

#include <jansson.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"

// 1.23e12 FLOP/s -> "1.2 TFLOP/s"; "-" for what was not measured.
static const char *flop_rate(double rate, char out[32])
{
    if (rate <= 0)
        snprintf(out, 32, "-");
    else if (rate >= 1e12)
        snprintf(out, 32, "%.1f TFLOP/s", rate / 1e12);
    else
        snprintf(out, 32, "%.1f GFLOP/s", rate / 1e9);
    return out;
}

static const char *byte_rate(double rate, char out[32])
{
    if (rate <= 0)
        snprintf(out, 32, "-");
    else
        snprintf(out, 32, "%.1f GB/s", rate / 1e9);
    return out;
}

// Work over time in the unit that bounds it.
static const char *rate_of(const at_trace_sum *s, char out[32])
{
    if (s->seconds <= 0) return byte_rate(0, out);
    return s->flops > 0 ? flop_rate(s->flops / s->seconds, out)
                        : byte_rate(s->bytes / s->seconds, out);
}

static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static double products_of(const at_bench_report *r)
{
    double floor = 0;
    for (int c = 0; c < AT_CLASSES; c++)
        floor += r->ops.classes[c].products;
    return floor;
}

static double flops_of(const at_bench_report *r)
{
    return r->work.flops_linear + r->work.flops_attention + r->work.flops_conv;
}

static void print_ceilings(const at_ceilings *c)
{
    char a[32], w[32], n[32], v[32], m[32], u[32];
    printf("  ceilings   matmul %s", flop_rate(c->linear, a));
    if (c->linear_sustained > 0) printf(" (sustained %s)", flop_rate(c->linear_sustained, a));
    printf(", ");
    if (c->linear_fp8 > 0) printf("fp8 %s, ", flop_rate(c->linear_fp8, a));
    if (c->attention_fp8 > 0) printf("fp8 attention %s, ", flop_rate(c->attention_fp8, a));
    if (c->linear_int8 > 0) printf("int8 %s, ", flop_rate(c->linear_int8, a));
    printf("attention %s (heads of 128) %s (64), conv %s, copy %s", flop_rate(c->attention_wide, w),
           flop_rate(c->attention_narrow, n), flop_rate(c->conv, v), byte_rate(c->copy, m));
    if (c->upload > 0) printf(", upload %s", byte_rate(c->upload, u));
    putchar('\n');
}

static void print_load(const at_load *l)
{
    if (l->samples < 3) return;
    printf("  clock      %9.0f MHz of %.0f", l->mean_mhz, l->max_mhz);
    if (l->least_mhz < l->first_mhz)
        printf(" (from %.0f down to %.0f)", l->first_mhz, l->least_mhz);
    if (l->watts > 0) printf(", %.0f W of %.0f", l->watts, l->limit_watts);
    printf("%s%s%s\n", l->limits & AT_LIMIT_POWER ? ", at its power limit" : "",
           l->limits & AT_LIMIT_HEAT ? ", at its heat limit" : "",
           l->limits & AT_LIMIT_OTHER ? ", slowed down" : "");
}

// Who waits for whom: a rank that waits less than the others is the slow one.
static void print_ranks(const at_bench_options *b, const at_bench_report *r)
{
    for (int i = 0; i < (b->world ? 1 : b->ranks); i++) {
        const at_wire_spent *s = &r->ranks[i].spent;
        const at_load *l = &r->ranks[i].load;

        if (!s->pushes) continue;
        printf("  rank %-5d %10.2f ms busy, %.3f waiting, %.3f sending in %.0f exchanges", i,
               (r->step - s->waited) * 1e3, s->waited * 1e3, s->moved * 1e3, (double)s->pushes);
        if (l->samples >= 3) printf(", %.0f MHz", l->mean_mhz);
        if (l->samples >= 3 && l->watts > 0) printf(", %.0f W", l->watts);
        printf("\n");
    }
}

static void print_ops(const at_bench_ops *r, bool kernels)
{
    double all = 0;
    char rate[32];

    for (int c = 0; c < AT_CLASSES; c++)
        all += r->classes[c].seconds;
    printf("  op by op   %9.2f ms, %8s %7s %7s %18s %10s\n", all * 1e3, "calls", "ms", "share",
           "rate", "of floor");
    for (int c = 0; c < AT_CLASSES; c++) {
        const at_trace_sum *s = &r->classes[c];
        if (s->calls > 0)
            printf("    %-19s %8.0f %9.3f %5.1f %% %18s %8.0f %%\n", at_op_class_name(s->kind),
                   s->calls, s->seconds * 1e3, share(s->seconds, all), rate_of(s, rate),
                   share(s->floor, s->seconds));
    }
    if (!kernels) return;
    printf("  kernels    %9s %7s %7s %10s %16s %9s\n", "ms", "share", "calls", "us a call", "rate",
           "of floor");
    for (size_t i = 0; i < r->n_kernels; i++) {
        const at_trace_sum *s = &r->kernels[i];
        printf("    %9.3f %5.1f %% %6.0f %10.2f %18s %6.0f %%  %s, %s  %s\n", s->seconds * 1e3,
               share(s->seconds, all), s->calls, s->seconds / s->calls * 1e6, rate_of(s, rate),
               share(s->floor, s->seconds), s->slot, s->kernel, s->detail);
    }
}

// The first step: what the host was busy with (plans, weights) beside what the device then did.
static void print_first(const at_bench_ops *r, bool kernels)
{
    double all = 0;

    for (int c = 0; c < AT_CLASSES; c++)
        all += r->classes[c].host_seconds;
    printf("  first step %9.1f ms with its trace, ops %.1f on the host %7s %9s %7s %12s\n",
           r->wall * 1e3, all * 1e3, "calls", "host ms", "share", "device ms");
    for (int c = 0; c < AT_CLASSES; c++) {
        const at_trace_sum *s = &r->classes[c];
        if (s->calls > 0)
            printf("    %-47s %8.0f %9.2f %5.1f %% %12.3f\n", at_op_class_name(s->kind), s->calls,
                   s->host_seconds * 1e3, share(s->host_seconds, all), s->device_seconds * 1e3);
    }
    for (size_t i = 0; kernels && i < r->n_kernels; i++) {
        const at_trace_sum *s = &r->kernels[i];
        printf("    %9.2f host ms %5.1f %% %6.0f calls %9.3f device ms  %s, %s  %s\n",
               s->host_seconds * 1e3, share(s->host_seconds, all), s->calls,
               s->device_seconds * 1e3, s->slot, s->kernel, s->detail);
    }
}

// Where the ops were not taken apart: what the host saw of each kind.
static void print_kind(const char *name, double flops, double seconds, double step, double ceiling)
{
    char rate[32];
    if (flops <= 0 || seconds <= 0) return;
    printf("  %-10s %9.1f ms  %4.0f %%  %16s  %4.0f %% of the ceiling\n", name, seconds * 1e3,
           share(seconds, step), flop_rate(flops / seconds, rate), share(flops / seconds, ceiling));
}

static void print_kinds(const at_bench_report *r)
{
    const at_ops_stats *w = &r->work;
    print_kind("linear", w->flops_linear, w->seconds_linear, r->step, r->ceilings.linear);
    print_kind("attention", w->flops_attention, w->seconds_attention, r->step,
               r->ceilings.attention_wide);
    print_kind("conv", w->flops_conv, w->seconds_conv, r->step, r->ceilings.conv);
    printf("  %-10s %9.1f ms  %4.0f %%\n", "other", w->seconds_other * 1e3,
           share(w->seconds_other, r->step));
}

static int tokens_of(const at_bench_options *b)
{
    return b->text_tokens ? b->text_tokens : b->shape->text_tokens;
}

static void print_steps(const at_bench_options *b, const at_bench_report *r)
{
    char rate[32];
    double flops = flops_of(r), floor = products_of(r);

    printf("  step       %9.2f ms median of %d (first %.1f ms", r->step * 1e3, b->steps,
           r->first_step * 1e3);
    if (r->second_step > 0) printf(", second %.1f ms", r->second_step * 1e3);
    printf("), %s, %.2f TFLOP of work\n", flop_rate(flops / r->step, rate), flops / 1e12);
    if (r->wall_step > r->step * 1.03)
        printf("  wall       %9.2f ms a step on the host's clock\n", r->wall_step * 1e3);
    if (floor > 0)
        printf("  floor      %9.2f ms, products at these rates: the step is at %.1f %%\n",
               floor * 1e3, share(floor, r->step));
}

// The highest of the device's books beside what a plan says before anything runs.
static void print_holds(const at_bench_report *r)
{
    char used[16], plan[16], all[16], lasting[16];

    if (!r->holds.most_used) return;
    at_human_bytes((double)r->holds.most_used, used);
    at_human_bytes(r->planned_bytes, plan);
    at_human_bytes((double)r->holds.most, all);
    at_human_bytes((double)(r->holds.fixed + r->holds.driver), lasting);
    printf("  in use     %s at the highest", used);
    if (r->planned_bytes > 0)
        printf(" (a plan says %s: %+.1f %%)", plan,
               100 * (r->planned_bytes / (double)r->holds.most_used - 1));
    printf(", %s with what is kept for reuse, and %s for driver and libraries\n", all, lasting);
}

void at_bench_print(const at_bench_options *b, const at_bench_report *r, bool kernels)
{
    char peak[16], device_peak[16], degrees[96];
    at_human_bytes((double)r->peak_bytes, peak);
    at_human_bytes((double)r->device_peak_bytes, device_peak);
    printf("%s (%s)\n", b->shape->name, b->shape->title);
    printf("  device     %s, %s\n", b->device->name, b->device->description);
    if (b->ranks > 1)
        printf("  ranks      %d by %s, relative difference from one rank %.2e\n", b->ranks,
               at_degrees_text(&b->degrees, degrees), r->difference);
    print_ranks(b, r);
    at_trace_print_ranks(stdout, r->by_rank, r->n_by_rank);
    printf("  run        %d x %d, batch %d", b->width, b->height, b->batch);
    if (tokens_of(b)) printf(", %d text tokens", tokens_of(b));
    printf(", weights %s, compute %s%s\n", at_dtype_name(b->storage), at_dtype_name(b->compute),
           b->int8  ? ", int8 where faster"
           : b->fp8 ? ", fp8 where faster"
                    : "");
    print_ceilings(&r->ceilings);
    print_steps(b, r);
    print_load(&r->load);
    if (r->first_ops.steps) print_first(&r->first_ops, kernels);
    if (r->ops.steps)
        print_ops(&r->ops, kernels);
    else
        print_kinds(r);
    for (size_t i = 0; i < r->block_count && !kernels; i++)
        printf("  block %-4zu %9.1f ms\n", i, r->blocks[i] * 1e3);
    printf("  memory     %s on the host", peak);
    if (!b->device->host) printf(", %s on the device", device_peak);
    printf(" at the highest, weights made in %.1f s\n", r->load_seconds);
    print_holds(r);
}

// --- JSON ------------------------------------------------------------------------------------
static json_t *ranks_json(const at_bench_options *b, const at_bench_report *r)
{
    json_t *list = json_array();

    for (int i = 0; i < (b->world ? 1 : b->ranks); i++) {
        const at_wire_spent *s = &r->ranks[i].spent;
        const at_load *l = &r->ranks[i].load;

        json_array_append_new(list, json_pack("{s:f, s:f, s:I, s:f, s:f}", "exchange_wait_ms",
                                              s->waited * 1e3, "exchange_send_ms", s->moved * 1e3,
                                              "exchanges", (json_int_t)s->pushes, "mean_mhz",
                                              l->mean_mhz, "watts", l->watts));
    }
    return list;
}

static json_t *trace_json(const at_bench_report *r)
{
    json_t *list = json_array();

    for (int i = 0; i < r->n_by_rank; i++) {
        const at_trace_rank_row *t = &r->by_rank[i];

        json_array_append_new(
            list, json_pack("{s:i, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "rank",
                            t->rank, "device", t->device, "steps", t->steps, "step_ms",
                            t->step * 1e3, "compute_ms", t->compute * 1e3, "send_ms", t->send * 1e3,
                            "wait_ms", t->wait * 1e3, "rest_ms", t->rest * 1e3, "beside_ms",
                            t->beside * 1e3, "exchanges", t->exchanges, "mbytes", t->bytes / 1e6));
    }
    return list;
}

static json_t *ceilings_json(const at_ceilings *c)
{
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "compute",
                     at_dtype_name(c->compute), "matmul_tflops", c->linear / 1e12,
                     "matmul_sustained_tflops", c->linear_sustained / 1e12, "matmul_fp8_tflops",
                     c->linear_fp8 / 1e12, "matmul_int8_tflops", c->linear_int8 / 1e12,
                     "attention_128_tflops", c->attention_wide / 1e12, "attention_64_tflops",
                     c->attention_narrow / 1e12, "conv_tflops", c->conv / 1e12, "copy_gb_per_s",
                     c->copy / 1e9, "upload_gb_per_s", c->upload / 1e9, "download_gb_per_s",
                     c->download / 1e9);
}

static json_t *sum_json(const at_trace_sum *s, bool kernel)
{
    json_t *o = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", kernel ? "slot" : "class",
                          kernel ? s->slot : at_op_class_name(s->kind), "calls", s->calls, "ms",
                          s->seconds * 1e3, "gflop", s->flops / 1e9, "mbytes", s->bytes / 1e6,
                          "floor_ms", s->floor * 1e3);
    if (kernel && o) {
        json_object_set_new(o, "kernel", json_string(s->kernel));
        json_object_set_new(o, "shapes", json_string(s->detail));
    }
    return o;
}

static at_status put(json_t *o)
{
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    if (!text) return at_fail(AT_ENOMEM, "bench: no memory");
    puts(text);
    at_free(text);
    return AT_OK;
}

// Null where the ops were not taken apart.
static json_t *ops_json(const at_bench_ops *r, bool kernels)
{
    json_t *classes = json_array(), *rows = json_array();

    for (int c = 0; c < AT_CLASSES && r->steps; c++)
        json_array_append_new(classes, sum_json(&r->classes[c], false));
    for (size_t i = 0; i < r->n_kernels && kernels; i++)
        json_array_append_new(rows, sum_json(&r->kernels[i], true));
    return json_pack("{s:f, s:o, s:o}", "wall_ms", r->wall * 1e3, "classes", classes, "kernels",
                     rows);
}

at_status at_bench_print_json(const at_bench_options *b, const at_bench_report *r, bool kernels)
{
    const at_ops_stats *w = &r->work;
    json_t *blocks = json_array();
    for (size_t i = 0; i < r->block_count; i++)
        json_array_append_new(blocks, json_real(r->blocks[i] * 1e3));
    char degrees[96];
    const at_load *l = &r->load;
    json_t *load = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:i}", "samples", l->samples, "mhz",
                             l->mean_mhz, "least_mhz", l->least_mhz, "max_mhz", l->max_mhz, "watts",
                             l->watts, "limit_watts", l->limit_watts, "limits", (int)l->limits);
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:o, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, "
        "s:f, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, "
        "s:I, s:o, s:o, s:o, s:o, s:o, s:o}",
        "arch", b->shape->name, "device", b->device->name, "chip", b->device->description,
        "weights", at_dtype_name(b->storage), "compute", at_dtype_name(b->compute), "int8", b->int8,
        "fp8", b->fp8, "load", load, "width", b->width, "height", b->height, "batch", b->batch,
        "text_tokens", tokens_of(b), "steps", b->steps, "step_ms", r->step * 1e3, "wall_step_ms",
        r->wall_step * 1e3, "first_step_ms", r->first_step * 1e3, "second_step_ms",
        r->second_step * 1e3, "ranks", b->ranks > 1 ? b->ranks : 1, "parallel",
        at_degrees_text(&b->degrees, degrees), "difference", r->difference, "exchange_wait_ms",
        r->ranks[0].spent.waited * 1e3, "exchange_send_ms", r->ranks[0].spent.moved * 1e3,
        "floor_ms", products_of(r) * 1e3, "linear_gflop", w->flops_linear / 1e9, "linear_ms",
        w->seconds_linear * 1e3, "attention_gflop", w->flops_attention / 1e9, "attention_ms",
        w->seconds_attention * 1e3, "conv_gflop", w->flops_conv / 1e9, "conv_ms",
        w->seconds_conv * 1e3, "other_ms", w->seconds_other * 1e3, "peak_bytes",
        (json_int_t)r->peak_bytes, "device_peak_bytes", (json_int_t)r->device_peak_bytes,
        "most_used_bytes", (json_int_t)r->holds.most_used, "most_bytes", (json_int_t)r->holds.most,
        "planned_bytes", (json_int_t)r->planned_bytes, "ceilings", ceilings_json(&r->ceilings),
        "ops", ops_json(&r->ops, kernels), "first_ops", ops_json(&r->first_ops, kernels),
        "block_ms", blocks, "by_rank", ranks_json(b, r), "trace_by_rank", trace_json(r));
    return put(o);
}

// --- ceilings alone --------------------------------------------------------------------------
at_status at_ceilings_print(at_device *d, bool json)
{
    static const at_dtype types[] = {AT_F32, AT_BF16, AT_F16};
    at_status st = AT_OK;
    json_t *list = json_array();

    if (!json) printf("%s, %s\n", d->name, d->description);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        at_ceilings c;
        char a[32], w[32], n[32], v[32];
        if (types[i] == AT_F16 && d->host) continue; // the CPU's activations are f32 or bf16
        AT_TRY(at_ceilings_measure(d, types[i], types[i] == AT_BF16 && !d->host,
                                   types[i] == AT_BF16 && d->host, &c));
        json_array_append_new(list, ceilings_json(&c));
        if (json) continue;
        printf("  %-5s matmul %s, attention %s (heads of 128) %s (64), conv %s\n",
               at_dtype_name(types[i]), flop_rate(c.linear, a), flop_rate(c.attention_wide, w),
               flop_rate(c.attention_narrow, n), flop_rate(c.conv, v));
        if (c.linear_sustained > 0)
            printf("  %-5s matmul %s on end\n", "", flop_rate(c.linear_sustained, a));
        if (c.linear_fp8 > 0)
            printf("  fp8   matmul %s, attention %s (heads of 128)\n", flop_rate(c.linear_fp8, a),
                   flop_rate(c.attention_fp8, w));
        if (c.linear_int8 > 0) printf("  int8  matmul %s\n", flop_rate(c.linear_int8, a));
        if (i == 0) {
            printf("  copy  %s", byte_rate(c.copy, a));
            if (!d->host)
                printf(", upload %s, download %s", byte_rate(c.upload, w),
                       byte_rate(c.download, n));
            putchar('\n');
        }
    }
    if (json)
        st = put(json_pack("{s:s, s:s, s:O}", "device", d->name, "chip", d->description, "ceilings",
                           list));
out:
    json_decref(list);
    return st;
}
