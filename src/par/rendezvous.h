// SPDX-License-Identifier: Apache-2.0
// rendezvous.h - from one known address to two sockets between any two processes.
// Idea: the others call rank 0, which tells everybody where the rest listens; then j calls every i below it.
// Of the two sockets of a pair one carries data, the other one alarms: it stays free for the word that a rank has
// given up, and it ends when a process does.
// Owns: on success the sockets are the caller's; after a failure none is left.
#ifndef AT_PAR_RENDEZVOUS_H
#define AT_PAR_RENDEZVOUS_H

#include "base/status.h"

enum { AT_TCP_RANKS = 64 };

typedef struct at_comm_tcp_config {
    int rank, ranks;        // this process; how many there are
    const char *rendezvous; // "HOST:PORT" where rank 0 listens, the same for all
    int listener;           // rank 0: a socket that listens there already (taken); 0: none
    const char *secret;     // shared by all; NULL: ""
    const char *job;        // any text that must be the same in all processes; NULL: ""
    double connect_seconds; // until all must be there; 0: 60
    double wait_seconds;    // how long a rank that lives may say nothing; 0: 1800
} at_comm_tcp_config;

// data[i] and alarm[i] to rank i; -1 to this one.
at_status at_rendezvous(const at_comm_tcp_config *c, int *data, int *alarm);

#endif
