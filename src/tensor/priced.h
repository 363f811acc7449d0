// SPDX-License-Identifier: Apache-2.0
// priced.h - a device that computes nothing and keeps what each op would cost on a machine that need not be here.
// Idea: a forward reaches arithmetic through a device alone, as tensor/dry.h has it. This one writes down the cost of every op that comes
// (rates.h), and of every exchange that a comm of nobody tells it of (par/comm_alone.h), in their order. Played again at
// a clock, the list gives the time and the energy; the clock is the highest at which the chip stays below its limit.
// Easy to get wrong: an exchange in two halves travels beside what stands between them, and only what is left when it is
// wanted is waited for. All ranks are taken to come at the same time.
// Owns: the device owns its list; freed by at_priced_free. One thread.
#ifndef AT_TENSOR_PRICED_H
#define AT_TENSOR_PRICED_H

#include "tensor/device.h"
#include "tensor/rates.h"

typedef struct at_priced at_priced;

at_status at_priced_new(const at_rates *rates, at_priced **out);
void at_priced_free(at_priced *p); // NULL is fine
at_device *at_priced_device(at_priced *p);
void at_priced_clear(at_priced *p); // forget what has come so far

// What a rank sends and gets in one exchange, and with how many others.
typedef struct at_priced_meeting {
    double out, in; // bytes
    int others;
    bool sum; // by the one kernel that sums (slower than stores)
} at_priced_meeting;
typedef enum at_priced_when { AT_MEET_NOW, AT_MEET_BEGIN, AT_MEET_END } at_priced_when;
void at_priced_meet(at_priced *p, at_priced_when when, const at_priced_meeting *m);

typedef struct at_priced_sum {
    double seconds;             // of all, at `clock`
    double clock;               // hertz
    double joules;              // dynamic ones
    double kind[AT_COST_KINDS]; // seconds of each
    double exposed;             // seconds that nothing but exchanges took
    double out;                 // bytes that this rank sent
    double useful;              // floating point operations
    int ops, meetings;
} at_priced_sum;
// The list at the clock that the power limit allows.
at_priced_sum at_priced_play(const at_priced *p);

#endif
