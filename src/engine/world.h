// SPDX-License-Identifier: Apache-2.0
// world.h - which carrier the ranks of one picture talk through: threads, GPUs of this process, or processes.
#ifndef AT_ENGINE_WORLD_H
#define AT_ENGINE_WORLD_H

#include "atelier/atelier.h"
#include "par/comm.h"
#include "tensor/device.h"

// Comms of n ranks in this process, each on its device. comm: "auto" (or NULL), "peer" or "nccl"; for GPUs alone.
at_status at_world_within(const char *comm, int n, at_device *const *devices, at_comm **out);
// This process's comm with the others: TCP alone on a CPU, NCCL beside it on a GPU. It waits until all are there.
at_status at_world_across(const at_processes *p, const char *comm, at_device *d, at_comm **out);
// What all ranks together get through it, measured now: collective, and while nothing else is under way.
at_status at_world_link(at_comm *world, at_device *d, at_wire_link *out);

#endif
