// SPDX-License-Identifier: Apache-2.0
// comm_traced.h - a comm of host memory whose exchanges are slices of the trace: waiting, then sending.
// Idea: before each exchange the ranks meet; until then a rank waits for the others, behind it bytes move. A carrier
// on devices needs none of this: its wire notes times by itself (comm_peer.c).
// Ownership: takes the comm that it stands before.
#ifndef AT_PAR_COMM_TRACED_H
#define AT_PAR_COMM_TRACED_H

#include "par/comm.h"

// *c, of which every rank does the same, now notes its exchanges. Nothing happens to comms on devices.
at_status at_comm_traced(at_comm **c);

#endif
