// SPDX-License-Identifier: Apache-2.0
// wire.h - messages between the server and the process that runs its jobs.
// Idea: a message is its length and its bytes; what is in it is put and taken in the same order on both sides, which are
// one program: there are no versions and no names.
// Easy to get wrong: the other side may die in the middle of a message, so every read is checked.
// Owns: a reader borrows the message's bytes.
#ifndef AT_SERVE_WIRE_H
#define AT_SERVE_WIRE_H

#include "base/str.h"

enum { AT_WIRE_MOST = 1 << 30 }; // bytes of one message

// What a message begins with.
typedef enum at_wire_kind {
    AT_WIRE_HELLO, // up: status, text, device's name, description, host, devices, of these wanted by a job
    AT_WIRE_DEVICE, // up: at_wire_device
    AT_WIRE_LOG,    // up: level, id, text
    AT_WIRE_EVENT,  // up: an at_event without its job
    AT_WIRE_RESULT, // up: status, text, outputs, error, node_errors, seconds, ranks, joules, lost
    AT_WIRE_JOB,    // down: id, owner, claims, text, ranks, waiting, count of targets, each
    AT_WIRE_CANCEL, // down
    AT_WIRE_FORGET  // down
} at_wire_kind;

// --- writing: into an at_str, whose failure is sticky --------------------------------------------
void at_wire_begin(at_str *m, at_wire_kind kind);
void at_wire_number(at_str *m, double v); // whole numbers up to 2^53
void at_wire_bytes(at_str *m, const void *bytes, size_t n);
void at_wire_text(at_str *m, const char *text); // NULL is kept
// The whole message, waiting as long as the other side takes. AT_EIO: it is gone; AT_ENOMEM.
at_status at_wire_send(int fd, const at_str *m);
// Behind those that wait in `out`, to go with them in one call of at_wire_flush. A failure is sticky in `out`.
void at_wire_queue(at_str *out, const at_str *m);
at_status at_wire_flush(int fd, at_str *out); // clears it

// --- reading -------------------------------------------------------------------------------------
// What was read and not asked for yet: several small messages come with one call of the kernel. Zeroed at first.
typedef struct at_wire_in {
    size_t from, to;
    char bytes[16384];
} at_wire_in;
// The next message into `m` (cleared first), waiting. AT_EIO: the other side is gone.
at_status at_wire_receive(int fd, at_wire_in *in, at_str *m);
bool at_wire_ready(const at_wire_in *in); // a whole message was read already: no need to wait
typedef struct at_wire_reader {
    const char *at, *end;
    bool failed; // the message was too short; what was taken since is 0, "" or NULL
} at_wire_reader;
at_wire_reader at_wire_open(const at_str *m, at_wire_kind *kind);
double at_wire_take_number(at_wire_reader *r);
const char *at_wire_take_text(at_wire_reader *r); // borrowed; may be NULL
const void *at_wire_take_bytes(at_wire_reader *r, size_t *n);

#endif
