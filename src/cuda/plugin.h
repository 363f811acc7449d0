// SPDX-License-Identifier: Apache-2.0
// plugin.h - the one function that libat_cuda.so gives to the program.
#ifndef AT_CUDA_PLUGIN_H
#define AT_CUDA_PLUGIN_H

#include "tensor/device.h"

// Puts every usable GPU into the device registry as "cuda:0", "cuda:1" ... `abi` is the program's
// AT_PLUGIN_ABI. AT_OK with no device is possible; AT_EUNSUPPORTED: another build's plug-in;
// AT_EDEVICE: no driver, or one that is too old, in one line.
at_status at_cuda_register(int abi);
typedef at_status at_cuda_register_fn(int abi);

// AT_EUNSUPPORTED, in one line: the program speaks another ABI than this plug-in.
static inline at_status at_plugin_meets(int program, int own)
{
    if (program == own) return AT_OK;
    return at_fail(AT_EUNSUPPORTED,
                   "libat_cuda.so speaks ABI %d.%05d, this program %d.%05d; use the plug-in that "
                   "came with this build",
                   own / 100000, own % 100000, program / 100000, program % 100000);
}

#endif
