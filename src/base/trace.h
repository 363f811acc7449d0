// SPDX-License-Identifier: Apache-2.0
// trace.h - where the time of a run went: slices with a beginning and an end, kept until someone reads them.
// Idea: one recorder for the process, off by default: a span then costs one relaxed load. Spans are for
// people's units (a node, a step, a load); ops are recorded by tensor/device_trace.h, which also knows the
// device's clock. A slice belongs to the rank whose thread added it. Easy to get wrong: a slice is filled after the
// fact where the device is still working; what devices write down themselves comes from sources, at the end.
// Owns: the slices, until the next at_trace_start; sources are their makers'.
#ifndef AT_BASE_TRACE_H
#define AT_BASE_TRACE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef enum at_trace_level {
    AT_TRACE_OFF,
    AT_TRACE_SPANS, // nodes, steps, loads, uploads; recorded graphs are replayed as ever
    AT_TRACE_OPS    // and every op by itself: nothing is replayed from a recording
} at_trace_level;

typedef struct at_trace_slice {
    // static: "node", "step", "load", "upload", "op", "replay"; of what ranks exchange "wait" (for the others) and "send"
    const char *category;
    const char *slot;   // static: the backend's slot for ops, else NULL
    const char *device; // static: "cuda:0"; NULL for what is the host's alone
    char name[96];      // "linear", "KSampler 7"
    char kernel[72];    // what served it: "cublasLt bf16 bias gelu"; empty for spans
    char detail[160];   // shapes
    int thread;       // small numbers, in the order in which threads appeared; set by at_trace_add
    int rank;         // set by at_trace_add
    bool beside;      // other work of this rank went on meanwhile
    bool device_only; // no host's time: `began` and `seconds` are the device's
    double began, seconds;               // on the host, at_now()
    double device_began, device_seconds; // on the device, on the host's clock; < 0: not known
    int head;                            // channels of a head, for attention
    // Of the work as the paper counts it: multiply and add are two; each operand once.
    double flops, bytes;
} at_trace_slice;

at_trace_level at_trace_now(void);
static inline bool at_trace_ops(void)
{
    return at_trace_now() == AT_TRACE_OPS;
}

// Begin with no slices; AT_TRACE_OFF stops and keeps what is there. No job may be running.
void at_trace_start(at_trace_level level);
void at_trace_stop(void);

// A trace will be asked for: what is made from now on (recordings, comms) should be able to tell more than it costs
// nothing to tell. Before devices and comms are opened.
void at_trace_expect(bool yes);
bool at_trace_wanted(void); // expected, or going on

// Whose this thread's slices are, and those of threads that never say: 0, or a process's own.
void at_trace_set_rank(int rank); // < 0: back to the process's
void at_trace_set_home(int rank);
int at_trace_rank(void);

// Whoever writes times down by itself (a wire between GPUs) and hands them in when a trace ends. Both functions are
// called while no job runs: begin forgets what was noted so far, collect adds slices.
typedef struct at_trace_source {
    void (*begin)(void *ctx);
    void (*collect)(void *ctx);
    void *ctx;
    struct at_trace_source *next; // at_trace_source_add's
} at_trace_source;
void at_trace_source_add(at_trace_source *s);
void at_trace_source_remove(at_trace_source *s); // collects, while a trace goes on
void at_trace_sources_collect(void);             // before at_trace_stop

enum { AT_TRACE_MOST = 2000000 }; // slices; what comes later is counted and dropped
// A copy of `s` is kept; its number, or SIZE_MAX where it was dropped. Any thread.
size_t at_trace_add(const at_trace_slice *s);
// The device's times of slice `i`, when they are known. SIZE_MAX does nothing.
void at_trace_device_time(size_t i, double began, double seconds);

// The slices: only while nothing is recorded. `i` below the count.
size_t at_trace_count(void);
size_t at_trace_dropped(void);
const at_trace_slice *at_trace_at(size_t i);

// A span on the host:  double t = at_trace_begin(); ...; at_trace_end(t, "node", "%s %s", type, id);
// at_trace_begin is 0 when nothing is traced, and at_trace_end(0, ...) does nothing.
double at_trace_begin(void);
void at_trace_end(double began, const char *category, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// The same with bytes that were moved.
void at_trace_end_bytes(double began, const char *category, double bytes, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
