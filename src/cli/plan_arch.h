// SPDX-License-Identifier: Apache-2.0
// plan_arch.h - atelier plan --arch: what a known architecture's step would take on devices that need not be here.
#ifndef AT_CLI_PLAN_ARCH_H
#define AT_CLI_PLAN_ARCH_H

#include <stdbool.h>

#include "base/status.h"

typedef struct at_plan_arch_options {
    const char *arch, *like; // arch NULL: a workflow is planned instead
    long width, height, size, batch, tokens;
    bool json, describe;
} at_plan_arch_options;

// dtype: as --dtype has it; NULL is auto.
at_status at_plan_arch(const at_plan_arch_options *o, const char *dtype);

#endif
