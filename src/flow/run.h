// SPDX-License-Identifier: Apache-2.0
// run.h - the inside of at_node_ctx, for flow/ alone; nodes use the functions in atelier/node.h.
#ifndef AT_FLOW_RUN_H
#define AT_FLOW_RUN_H

#include "flow/flow.h"

#endif
