// SPDX-License-Identifier: Apache-2.0
// device.h - the devices of this process: memory with byte counters, a stream, and the op slots.
// Idea: CPU and CUDA differ behind one small vtable; nothing above asks which one it is.
// Owns: the registry owns every device for the life of the process; pointers are borrowed.
#ifndef AT_TENSOR_DEVICE_H
#define AT_TENSOR_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "atelier/backend.h"
#include "atelier/types.h"
#include "base/status.h"
#include "tensor/channel.h"
#include "tensor/needs.h"
#include "tensor/wire.h"

typedef struct at_device at_device;

// What a device is doing, for metrics: busy ones 0..1; -1 or 0 where it is not known.
enum {
    AT_LIMIT_POWER = 1,
    AT_LIMIT_HEAT = 2,
    AT_LIMIT_OTHER = 4
}; // why its clock is below its best
typedef struct at_device_usage {
    double busy, memory_busy, watts, limit_watts, celsius, mhz, max_mhz;
    double joules;                                   // since the driver was loaded
    uint64_t used_bytes, total_bytes, process_bytes; // of the whole device; of this process
    unsigned limits;
} at_device_usage;
// Where this process's share of a device's memory is, as the device's own books have it. A driver counts more: a
// context, and the code of kernels.
typedef struct at_device_holds {
    uint64_t weights;    // device forms of weights
    uint64_t tensors;    // everything else that is in use
    uint64_t kept;       // blocks that nobody uses, for the next one of their size
    uint64_t recordings; // likewise, of recorded forwards
    uint64_t fixed;      // what lives as long as the device: the libraries' workspaces
    uint64_t driver;     // about what the driver takes for a context and the kernels' code
    uint64_t most;       // of the first four together, since at_device_reset_peak
    uint64_t most_used;  // of the first two together: kept blocks go back when room is wanted
    uint64_t pinned;     // host memory, for uploads
} at_device_holds;
typedef void at_device_fact_fn(void *ctx, const char *name, const char *value);

// Work beside work: what is queued from BEGIN to END needs nothing that comes behind BEGIN and may run together with
// what is queued from END to JOIN; behind JOIN both are done. END follows every BEGIN that went well, and JOIN every
// END; no recording begins or ends in between.
typedef enum at_aside { AT_ASIDE_BEGIN, AT_ASIDE_END, AT_ASIDE_JOIN } at_aside;

// Memory and ordering of one device kind. All slots are set unless they say otherwise.
typedef struct at_device_ops {
    at_status (*alloc)(at_device *d, size_t bytes, void **out); // AT_ALIGN aligned; AT_ENOMEM
    void (*free)(at_device *d, void *p);
    at_status (*from_host)(at_device *d, void *dst, const void *src, size_t bytes);
    at_status (*to_host)(at_device *d, void *dst, const void *src, size_t bytes); // waits
    at_status (*synchronize)(at_device *d);
    at_status (*memory)(at_device *d, uint64_t *free_bytes, uint64_t *total_bytes);

    // Recording; NULL on a device that cannot. Between begin and end the slots' work is kept instead of
    // done, and memory comes from blocks that stay at their addresses while any recording lives. The
    // work of everything that is recorded must have been done once before (weights resident, plans made):
    // copies from the host are refused meanwhile. end gives NULL in *out if anything failed, also what
    // was no slot's failure. A replay does the work again, over the same addresses, in stream order.
    at_status (*record_begin)(at_device *d);
    at_status (*record_end)(at_device *d, void **out);
    at_status (*replay)(at_device *d, void *recording);
    void (*recording_free)(at_device *d, void *recording);
    // Waits until all work that was queued before the call before this one is done: a caller in a loop
    // stays one round ahead of the device. NULL: the device does everything at once.
    at_status (*throttle)(at_device *d);

    // These weights are wanted soon, in this order: begin to bring their bytes here, and return. As many as there is
    // room for; the host bytes stay where they are as long as their `packed` lives. NULL: nothing to bring.
    at_status (*prefetch)(at_device *d, const at_wview *list, size_t n);
    // Points in the device's queue, for traces; both NULL where work is done when a slot returns (the CPU).
    // mark: point `i` (small numbers, used again) stands behind what is queued. `ahead`: the host is about
    // to queue many small things; an idle device waits some ms, so that none of them waits for the host.
    at_status (*mark)(at_device *d, int i, bool ahead);
    at_status (*elapsed)(at_device *d, int from, int to, double *seconds); // both have been reached

    // What is worth knowing about it, for people (versions, links, peers); and what it does right now, from
    // any thread. NULL: nothing is known.
    void (*facts)(at_device *d, at_device_fact_fn *each, void *ctx);
    at_status (*usage)(at_device *d, at_device_usage *out);
    const at_wire_ops *wire;       // to others of its kind; NULL: there is none
    const at_channel_ops *channel; // to those of other processes; NULL: there is none
    // Memory that is kept for reuse goes back: all of it, or what nobody has taken since the last call of this. NULL: nothing
    // is kept.
    void (*trim)(at_device *d, bool all);
    // Bytes of weights that the current piece of work has not used: they go when their room is wanted. NULL: none can.
    size_t (*idle)(at_device *d);
    at_status (*aside)(at_device *d, at_aside step); // NULL: one thing after the other
    // Any thread; out NULL: the highest marks begin anew from what is held now. NULL: it keeps no books.
    void (*holds)(at_device *d, at_device_holds *out);
    // What a slot would take for these arguments, whose data is never read. NULL: nothing is known.
    void (*needs)(at_device *d, at_needs_of slot, const void *args, at_needs *out);
} at_device_ops;

// What program and plug-in tell each other before anything else: the slots' number, and how large the tables are
// that either fills for the other, so that one that has grown is noticed where the number was forgotten.
#define AT_PLUGIN_ABI                                                                              \
    (AT_BACKEND_ABI * 100000 +                                                                     \
     (int)(sizeof(at_backend) + sizeof(at_device_ops) + sizeof(at_wire_ops) +                      \
           sizeof(at_channel_ops) + sizeof(struct at_device)))

struct at_device {
    char name[32];        // "cpu", "cuda:0"
    char description[96]; // "AMD EPYC, 2 threads, AVX2"
    bool host;            // data pointers can be read by the CPU
    const at_device_ops *ops;
    const at_backend *backend;
    void *stream; // passed to every slot
    atomic_size_t live_bytes, peak_bytes;

    // What of its memory may be taken: set by the engine before work begins. Nobody reads them for the CPU.
    size_t reserve_bytes; // to be left free for others
    size_t weight_bytes;  // most that weights may keep; 0: no limit
    bool drop_idle; // weights that the current piece of work has not used go when it wants one more
    atomic_ulong epoch; // pieces of work that have begun here: at_ops_new counts
    char lost[160]; // why nothing can be done here any more in this process; "" while all is well
    // Gives back memory that could be made again (recordings); how much was found, 0: nothing. Set by the
    // engine; called when an allocation does not fit. NULL: there is none.
    int (*reclaim)(at_device *d);
    // Counts weights' device forms that have left. What remembers their addresses (a recorded forward) is
    // valid only while this has the value that it had then.
    atomic_ulong moved;
};

// The CPU device always exists (its backend is put in by at_device_set_cpu_backend, from engine/).
at_device *at_device_cpu(void);
void at_device_set_cpu_backend(const at_backend *b, const char *description);
at_status at_device_register(at_device *d);
int at_device_count(void);
at_device *at_device_at(int i);
at_device *at_device_find(const char *name); // NULL if unknown

// Allocation through the byte counters; fails with the device's name and the numbers.
at_status at_device_alloc(at_device *d, size_t bytes, void **out);
void at_device_free(at_device *d, void *p, size_t bytes);
void at_device_reset_peak(at_device *d);
// at_device_ops.trim on every device.
void at_devices_trim(bool all);
// at_device_ops.holds in a line: "weights 5.1 GiB, tensors 0 B, ..."; "" where there is none.
enum { AT_HOLDS_TEXT = 256 };
const char *at_device_holds_text(at_device *d, char text[AT_HOLDS_TEXT]);
// AT_ENOMEM with the device's name, what was wanted, what is there, and what helps.
at_status at_device_no_memory(at_device *d, size_t bytes);

// A device that has failed for good (CUDA calls it sticky: an illegal address, a hardware fault) answers
// every later call with the same error until the process ends. The first reason is kept.
void at_device_lose(at_device *d, const char *why);
at_status
at_device_check(const at_device *d); // AT_OK, or AT_EDEVICE with that reason and what to do

#endif
