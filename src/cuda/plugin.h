// SPDX-License-Identifier: Apache-2.0
// plugin.h - the one function that libat_cuda.so gives to the program.
#ifndef AT_CUDA_PLUGIN_H
#define AT_CUDA_PLUGIN_H

#include "atelier/backend.h"

// Puts every usable GPU into the device registry as "cuda:0", "cuda:1" ... `abi` is the program's
// AT_BACKEND_ABI. AT_OK with no device is possible; AT_EUNSUPPORTED: another build's plug-in;
// AT_EDEVICE: no driver, or one that is too old, in one line.
at_status at_cuda_register(int abi);
typedef at_status at_cuda_register_fn(int abi);

#endif
