// SPDX-License-Identifier: Apache-2.0
// plugins.h - device plug-ins: libat_cuda.so, beside the program or in its lib folder.
// Idea: loaded once, when somebody asks for more than the CPU; a machine without a GPU, a driver or
// the plug-in goes on with the CPU and can say in one line why.
// Owns: a loaded plug-in stays for the life of the process.
#ifndef AT_ENGINE_PLUGINS_H
#define AT_ENGINE_PLUGINS_H

#include <stdbool.h>

#include "base/status.h"

// Load what is there and register its devices; the work is done once. Any thread.
void at_plugins_load(void);
// Why there is no GPU: "no CUDA driver ..." ; "" if there is one.
const char *at_plugins_reason(void);
// There seems to be a GPU, and it cannot be used: worth a line even if nobody asked for it.
bool at_plugins_failed(void);

#endif
