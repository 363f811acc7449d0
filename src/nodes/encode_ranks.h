// SPDX-License-Identifier: Apache-2.0
// encode_ranks.h - a text encoder's forward, its layers shared by several devices where a plan says so.
// Idea: text encoders of billions of parameters are there for one forward; sharing their layers (tp) is a matter of
// memory, not of time. What comes of it lies on the first device, like the forward of one.
// Owns: see at_encoder_forward: results belong to o's scope.
#ifndef AT_NODES_ENCODE_RANKS_H
#define AT_NODES_ENCODE_RANKS_H

#include "nodes/env.h"

// at_encoder_forward on o; over the ranks of env's plan along tp, or, where plans are chosen, over as many as the
// encoder's weights need. env NULL: on o alone.
at_encoded at_encode_forward(at_env *env, at_ops *o, at_encoder *e, const at_encode_in *in);

#endif
