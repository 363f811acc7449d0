// SPDX-License-Identifier: Apache-2.0
// rates.h - what one op takes on a GPU of a kind that need not be here, from a few named rates.
// Idea: products and attention are tiles, dealt to multiprocessors in waves; what they cost is counted in clocks, so that
// the clock at a power limit can be found afterwards. Everything else is bytes and a beginning. A cost is of one op
// alone; what an op waits for is not in it.
// Where the numbers come from: docs/bench/several-gpus.md, with how far each is from what was measured.
// Easy to get wrong: `flops` count what fills up the last tiles too, because that takes power as the rest does.
// Owns nothing. Pure functions.
#ifndef AT_TENSOR_RATES_H
#define AT_TENSOR_RATES_H

#include <stdbool.h>
#include <stdint.h>

typedef struct at_rates {
    char name[64];
    double memory; // bytes
    // The chip.
    double units, hertz;      // multiprocessors, and their highest clock
    double watts, idle_watts; // the limit, and what it takes doing nothing
    double unit_flops;        // of 16-bit products, a clock of one multiprocessor; fp8: twice that
    double copy;              // bytes a second, read and written ones counted
    double upload;            // from the host
    double op;                // seconds between one op of a recording and the next
    double step;              // seconds between one forward and the next
    // Products: share of unit_flops that a tile of 128 x 128 reaches, what its edges cost, clocks of a beginning, clocks to
    // store one value, and how much of a started wave is lost (1: all of it; 0: tiles flow on).
    double product, product8, edge, product_start, store, waves, waves8;
    double conv; // share of `product` that convolutions reach
    // Attention: clocks of 128 queries over 128 keys, and of a wave's beginning; heads of up to 64, of up to 128, in fp8.
    double narrow, narrow_start, wide, wide_start, wide8, wide8_start;
    // Operations a clock of one multiprocessor with wider heads, as a VAE's.
    double huge;
    double group_start, rope_share, group_share; // passes that are slower than a copy
    // Power: joules of an operation in 16 and in 8 bits and of a byte at the highest clock, and how they fall with the clock.
    double joule16, joule8, joule_byte, volts;
    // At the limit several chips are slower than the one whose rates these are: two by `together`, more by the slowest of
    // so many draws with this deviation.
    double together, spread;
    // Links between any two: bytes a second each way of a rank, by stores of a kernel, and by sums; seconds of an exchange
    // with one other rank, of a sum, and of each further rank.
    double link, link_sum, meeting, meeting_sum, meeting_more;
} at_rates;

typedef enum at_cost_kind {
    AT_COST_LINEAR,
    AT_COST_ATTENTION,
    AT_COST_CONV,
    AT_COST_PASS, // norms, rotations, copies: bytes
    AT_COST_KINDS
} at_cost_kind;

typedef struct at_cost {
    at_cost_kind kind;
    double clocks;          // of a chip at work
    double bytes;           // that go beside
    double seconds;         // that the clock does not change
    double flops16, flops8; // multiplied, filled-up tiles included
    double useful;          // operations as the paper counts them
} at_cost;

extern const at_rates at_rates_h200; // as measured

// x [m, k] times w [n, k]; gated: n holds both halves, of which one pass makes [m, n / 2].
at_cost at_rates_linear(const at_rates *r, double m, double n, double k, bool fp8, bool gated);
at_cost at_rates_conv(const at_rates *r, double m, double n, double k);
// Of so many heads of all samples.
at_cost at_rates_attention(const at_rates *r, double heads, double tq, double tk, double channels,
                           bool fp8);
at_cost at_rates_pass(const at_rates *r, double bytes);
// Seconds at a clock that is `share` of the highest, and joules.
double at_rates_seconds(const at_rates *r, const at_cost *c, double share);
double at_rates_joules(const at_rates *r, const at_cost *c, double share);

#endif
