// SPDX-License-Identifier: Apache-2.0
// status.h - the one list of outcomes, and the message that goes with a failure.
// Idea: a function returns a code; the sentence for a person lies in a thread-local buffer until the
// next failure on that thread. The message says what, where and the numbers, and what to do.
// Owns: one message buffer per thread; at_error_text() is valid until the next at_fail() there.
#ifndef AT_BASE_STATUS_H
#define AT_BASE_STATUS_H

#include <stdarg.h>

typedef enum at_status {
    AT_OK = 0,
    AT_EINVAL,       // a caller, workflow value or argument is out of range
    AT_EUSAGE,       // the command line is wrong
    AT_EWORKFLOW,    // the workflow is not valid
    AT_ENOTFOUND,    // a file, model, tensor or vocabulary is missing
    AT_EFORMAT,      // a file is truncated, hostile or of an unknown kind
    AT_EUNSUPPORTED, // understood, but this build or device cannot do it
    AT_EIO,          // the system refused a read, write or rename
    AT_ENOMEM,       // host or device memory ran out
    AT_EDEVICE,      // a device or its driver failed
    AT_ECANCELLED,   // somebody asked us to stop
    AT_EINTERNAL,    // a broken promise of our own
    AT_STATUS_COUNT
} at_status;

// One row of facts per status: stable name ("not_found"), the process exit status of design section 11
// and the HTTP status.
typedef struct at_status_info {
    const char *name;
    int exit_code;
    int http;
} at_status_info;

const at_status_info *at_status_facts(at_status st);

// Record the message for `st` on this thread and return `st`. `st` must not be AT_OK. Any thread.
at_status at_fail(at_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Put words in front of the current message ("node 7 (VAELoader): " + message); returns `st`.
// Does nothing when `st` is AT_OK.
at_status at_fail_context(at_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ // it sees one file at a time: what was given comes back, so it is not AT_OK
#define at_fail(st, ...)         ((at_fail)(st, __VA_ARGS__), (st))
#define at_fail_context(st, ...) ((at_fail_context)(st, __VA_ARGS__), (st))
#endif

// The message of the last failure on this thread; "" if there was none. Borrowed.
const char *at_error_text(void);
void at_error_clear(void);

// Evaluate a call; on failure leave through the function's one `out:` label with the code in `st`.
#define AT_TRY(call)                                                                               \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != AT_OK) goto out;                                                                 \
    } while (0)

#endif
