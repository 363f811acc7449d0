// SPDX-License-Identifier: Apache-2.0
// comm_tcp.h - the comm of ranks in several processes, on one machine or on several.
// Ownership: see par/comm.h; the comm is one process's end.
#ifndef AT_PAR_COMM_TCP_H
#define AT_PAR_COMM_TCP_H

#include "par/comm.h"
#include "par/rendezvous.h"

enum { AT_TCP_WATCHERS = 16 }; // at once in a family

// Returns when all processes are there. Data lies in host memory. Errors name the rank and the address.
at_status at_comm_tcp(const at_comm_tcp_config *c, at_comm **out);

#endif
