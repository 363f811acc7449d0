// SPDX-License-Identifier: Apache-2.0
// ranks.h - from the config's words to who works on one picture, and the comms between them.
#ifndef AT_ENGINE_RANKS_H
#define AT_ENGINE_RANKS_H

#include "atelier/atelier.h"
#include "nodes/env.h"

// Fills env->ranks and env->open_comms; env->device is where one rank works. "" or NULL fields of the config: every
// GPU beside a GPU that nobody named, and a plan for each run.
at_status at_engine_ranks(const at_engine_config *c, at_env *env);

#endif
