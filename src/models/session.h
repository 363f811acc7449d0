// SPDX-License-Identifier: Apache-2.0
// session.h - what a denoiser or a text encoder keeps from evaluation to evaluation.
// Idea: a run asks the same network over and over at one shape. What depends on the shape alone
// (rotary tables) is made once; what depends on the step's number but not on x (modulations, time
// embeddings) is made once for all steps of a run, where reading those layers' weights counts; and
// on a device that can record, everything else is one recording, replayed for each step.
// Easy to get wrong:
//   - a recording reads addresses, not tensors: its inputs are copied into tensors of the session
//   - patches and ControlNets act by host code, so forwards with them are not recorded
//   - ranks that meet inside a forward evaluate, record or replay it together: all do what each of them can
// Ownership: sessions belong to an at_bound and die with it. An entry is used by one thread at a
// time; a second thread at the same shape works without one.
#ifndef AT_MODELS_SESSION_H
#define AT_MODELS_SESSION_H

#include "models/arch.h"

typedef struct at_sessions at_sessions;

// One evaluation through the sessions of m. The raw output [b, c, h, w] f32 in the current scope.
at_tensor *at_session_forward(at_ops *o, at_bound *m, const at_model_in *in);

// The layers of a text encoder through its sessions (at_encoder_ops.run): one recording for each shape and
// each kind of result, on devices that record. x and out belong to the current scope.
void at_session_encode(at_ops *o, at_bound *m, const at_encode_in *in, at_tensor *x,
                       at_tensor *out[2]);

void at_sessions_free(at_sessions *s); // NULL is fine
// Gives back the device memory that idle sessions of all models hold on `d` (recordings, tables);
// they are made again when they are wanted. For an allocator that has run dry, and for weights that
// leave the device. Returns how many were dropped.
int at_sessions_reclaim(at_device *d);
// The same for one model alone (its weights are going to change place).
void at_sessions_drop(at_bound *m);

// Never record (for tracing and for comparing): process-wide, off at the start.
void at_sessions_record(bool yes);

#endif
