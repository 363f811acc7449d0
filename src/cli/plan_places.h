// SPDX-License-Identifier: Apache-2.0
// plan_places.h - the part of `atelier plan` about several devices' memory. Owns nothing.
#ifndef AT_CLI_PLAN_PLACES_H
#define AT_CLI_PLAN_PLACES_H

#include "engine/plan.h"

// Where each kind of network goes and why, then a line for each device. Nothing with one device.
void at_plan_places_print(at_engine *e, const at_plan *p);

#endif
