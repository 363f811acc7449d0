// SPDX-License-Identifier: Apache-2.0
// comm_nccl.h - the comm of GPUs that talk through a channel (tensor/channel.h: NCCL), in one process or in several.
// Ownership: see par/comm.h.
#ifndef AT_PAR_COMM_NCCL_H
#define AT_PAR_COMM_NCCL_H

#include "par/comm.h"

// This process's rank: words go over `control` (at_comm_tcp), which is taken, also after a failure.
// AT_EUNSUPPORTED: the device has no channel, or there is no library. Freeing it is collective while all is well.
at_status at_comm_nccl(at_comm *control, at_device *device, at_comm **out);
// Ranks that are threads of this process; devices[size], no device twice. All NULL after a failure.
at_status at_comm_nccl_threads(int size, at_device *const *devices, at_comm **out);

#endif
