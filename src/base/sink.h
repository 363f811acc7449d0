// SPDX-License-Identifier: Apache-2.0
// sink.h - the only way up: what a running job tells whoever listens.
// Idea: lower floors call at_sink_emit with a small value; they do not know whether a terminal, a
// socket or a test reads it. The sink also carries the one flag that travels down: cancel.
// Owns nothing: events are borrowed for the length of the call; a receiver copies what it keeps.
#ifndef AT_BASE_SINK_H
#define AT_BASE_SINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

// The order in one job is ComfyUI's: start, cached, then per node executing, progress*, executed;
// then success, error or interrupted.
typedef enum at_event_kind {
    AT_EV_START,
    AT_EV_CACHED,    // text: JSON array of node ids
    AT_EV_EXECUTING, // node
    AT_EV_PROGRESS,  // node, value, max
    AT_EV_PREVIEW, // node, data/bytes: RGB8 pixels, value = width, max = height; text "png": a result, not to be
                   // shrunk or to lose anything
    AT_EV_EXECUTED, // node, text: the node's ui JSON; NULL for a cached node that shows nothing
    AT_EV_ERROR,    // node, text: JSON of ComfyUI's execution_error data; value 1: the run goes on
    AT_EV_INTERRUPTED, // node, text: JSON of ComfyUI's execution_interrupted data
    AT_EV_SUCCESS,
    AT_EV_NOTE,       // text: a line for people ("loading flux1-dev.safetensors")
    AT_EV_FINISHED,   // node: its result is there (ComfyUI's progress_state "finished")
    AT_EV_APPROXIMATE // node, text: it works by a method that is not exact; for the job's record
} at_event_kind;

typedef struct at_event {
    at_event_kind kind;
    const char *job, *node, *class_type;
    // Of a node that another one put in its own place: whom people see instead, who made it, and the node of the
    // workflow that it comes from. NULLs: itself, nobody, itself.
    const char *display, *parent, *real;
    const char *text;
    double value, max;
    const void *data;
    size_t bytes;
} at_event;

typedef struct at_sink {
    void (*emit)(void *ctx, const at_event *e); // any thread of the job; must not block for long
    void *ctx;
    atomic_bool *cancel; // read between ops; NULL if the job cannot be cancelled
} at_sink;

static inline void at_sink_emit(const at_sink *s, const at_event *e)
{
    if (s && s->emit) s->emit(s->ctx, e);
}
static inline bool at_sink_cancelled(const at_sink *s)
{
    return s && s->cancel && atomic_load_explicit(s->cancel, memory_order_relaxed);
}

#endif
