// SPDX-License-Identifier: Apache-2.0
// cmd_version.c - atelier version.
#include <stdio.h>

#include "cli/commands.h"
#include "engine/engine.h"

static at_status version(void *options, const at_arg_list *operands)
{
    (void)options, (void)operands;
    at_engine_setup_devices();
    printf("atelier %s (%s, backend ABI %d)\n", AT_VERSION, at_device_cpu()->description,
           AT_BACKEND_ABI);
    return AT_OK;
}

const at_command at_command_version = {
    .name = "version",
    .summary = "print the version and what this build can use",
    .run = version,
};
