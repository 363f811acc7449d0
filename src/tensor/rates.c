// SPDX-License-Identifier: Apache-2.0
// rates.c - see rates.h.
#include "tensor/rates.h"

#include <math.h>
#include <stddef.h>

// Tiles of a library's kernels: it takes the one that is done first.
typedef struct tile {
    double m, n;
} tile;
static const tile tiles[] = {{64, 64},   {64, 128},  {128, 64},  {128, 128}, {128, 160},
                             {128, 192}, {128, 256}, {256, 128}, {256, 64},  {64, 256},
                             {192, 192}, {192, 128}, {256, 96},  {96, 128},  {64, 192}};

enum { Q_TILE = 128, K_TILE = 128 };

typedef struct tiled {
    double clocks, flops;
} tiled;

// fp8 rows over scales of their own have one kernel of these sizes.
static const tile tiles8[] = {{64, 128}, {128, 128}};

typedef struct multiplied {
    double m, n, k, share, speed, waves;
} multiplied;

static tiled multiply(const at_rates *r, const multiplied *x, const tile *list, size_t count)
{
    tiled best = {0};

    for (size_t i = 0; i < count; i++) {
        double tm = list[i].m, tn = list[i].n, blocks = ceil(x->m / tm) * ceil(x->n / tn);
        double waves = blocks / r->units;
        double at = x->share / (1 + r->edge * (32 / tm + 32 / tn));

        waves = fmax(1, (1 - x->waves) * waves + x->waves * ceil(waves));
        double clocks = r->product_start +
                        waves * tm * tn * (2 * x->k / (x->speed * r->unit_flops * at) + r->store);
        if (best.clocks <= 0 || clocks < best.clocks)
            best = (tiled){clocks, 2 * blocks * tm * tn * x->k};
    }
    return best;
}

static tiled multiply16(const at_rates *r, double m, double n, double k, double share)
{
    return multiply(r, &(multiplied){m, n, k, share, 1, r->waves}, tiles,
                    sizeof tiles / sizeof *tiles);
}

static tiled multiply8(const at_rates *r, double m, double n, double k)
{
    return multiply(r, &(multiplied){m, n, k, r->product8, 2, r->waves8}, tiles8,
                    sizeof tiles8 / sizeof *tiles8);
}

at_cost at_rates_linear(const at_rates *r, double m, double n, double k, bool fp8, bool gated)
{
    double width = fp8 ? 1 : 2;
    tiled t = fp8 ? multiply8(r, m, n, k) : multiply16(r, m, n, k, r->product);
    at_cost c = {.kind = AT_COST_LINEAR,
                 .clocks = t.clocks,
                 .bytes = width * (m * k + n * k) + 2 * m * n,
                 .seconds = r->op,
                 .useful = 2 * m * n * k};

    if (!(m > 0 && n > 0 && k > 0)) return (at_cost){.kind = AT_COST_LINEAR};
    if (fp8)
        c.flops8 = t.flops;
    else
        c.flops16 = t.flops;
    if (gated) c.seconds += r->op + 3 * m * n / r->copy;
    return c;
}

at_cost at_rates_conv(const at_rates *r, double m, double n, double k)
{
    tiled t = multiply16(r, m, n, k, r->product * r->conv);

    if (!(m > 0 && n > 0 && k > 0)) return (at_cost){.kind = AT_COST_CONV};
    return (at_cost){.kind = AT_COST_CONV,
                     .clocks = t.clocks,
                     .bytes = 2 * (m * k / 9 + n * k + m * n),
                     .seconds = r->op,
                     .flops16 = t.flops,
                     .useful = 2 * m * n * k};
}

at_cost at_rates_attention(const at_rates *r, double heads, double tq, double tk, double channels,
                           bool fp8)
{
    double blocks = heads * ceil(tq / Q_TILE), keys = ceil(tk / K_TILE);
    double padded = channels <= 64 ? 64 : 128;
    bool wide = channels > 64;
    double each = !wide ? r->narrow : fp8 ? r->wide8 : r->wide;
    double start = !wide ? r->narrow_start : fp8 ? r->wide8_start : r->wide_start;
    at_cost c = {.kind = AT_COST_ATTENTION,
                 .bytes = 4 * heads * channels * (tq + tk),
                 .seconds = r->op,
                 .useful = 4 * heads * tq * tk * channels};

    if (!(heads > 0 && tq > 0 && tk > 0)) return (at_cost){.kind = AT_COST_ATTENTION};
    if (channels > 128) {
        c.clocks = c.useful / (r->huge * r->units);
        c.flops16 = c.useful;
        return c;
    }
    c.clocks = ceil(blocks / r->units) * (keys * each + start);
    double flops = 4 * blocks * Q_TILE * keys * K_TILE * padded;
    if (fp8)
        c.flops8 = flops;
    else
        c.flops16 = flops;
    return c;
}

at_cost at_rates_pass(const at_rates *r, double bytes)
{
    return (at_cost){.kind = AT_COST_PASS, .bytes = bytes, .seconds = bytes > 0 ? r->op : 0};
}

double at_rates_seconds(const at_rates *r, const at_cost *c, double share)
{
    return fmax(c->clocks / (r->hertz * share), c->bytes / r->copy) + c->seconds;
}

double at_rates_joules(const at_rates *r, const at_cost *c, double share)
{
    return (c->flops16 * r->joule16 + c->flops8 * r->joule8) * pow(share, r->volts) +
           c->bytes * r->joule_byte;
}

// One H200 SXM of 700 W with our kernels and NVIDIA's libraries, and NVLink of 18 links; see docs/bench/several-gpus.md.
const at_rates at_rates_h200 = {.name = "H200",
                                .memory = 150e9,
                                .units = 132,
                                .hertz = 1.98e9,
                                .watts = 700,
                                .idle_watts = 122,
                                .unit_flops = 4096,
                                .copy = 3.63e+12,
                                .upload = 46e9,
                                .op = 9.76e-07,
                                .step = 20e-6,
                                .product = 0.949,
                                .product8 = 0.9,
                                .edge = 0.133,
                                .product_start = 8.88e+03,
                                .store = 0.0894,
                                .waves = 0.224,
                                .waves8 = 0.61,
                                .conv = 1.03,
                                .narrow = 2.16e+03,
                                .narrow_start = 5.39e+03,
                                .wide = 3e+03,
                                .wide_start = 6.68e+03,
                                .wide8 = 2.25e+03,
                                .wide8_start = 3.61e+03,
                                .huge = 1.15e+03,
                                .group_start = 1.12e-05,
                                .rope_share = 0.83,
                                .group_share = 0.584,
                                .joule16 = 1.39e-12,
                                .joule8 = 7.44e-13,
                                .joule_byte = 8.79e-11,
                                .volts = 2.15,
                                .together = 0.0369,
                                .spread = 0.012,
                                .link = 3.47e+11,
                                .link_sum = 3.05e+11,
                                .meeting = 1.05e-05,
                                .meeting_sum = 1.24e-05,
                                .meeting_more = 0.7e-6};
