// SPDX-License-Identifier: Apache-2.0
// comm_alone.h - one rank of several that are not there: a comm that carries nothing and tells what it was asked to.
// Idea: a forward is the same sequence of work and exchanges on every rank, and each rank knows every other's share; so
// what a rank does can be found by running it alone over a device that computes nothing (tensor/priced.h).
// Easy to get wrong: what others would say is not known: words that are told come back as one's own from everybody, and
// votes end as one's own. Nothing that needs another rank's answer may run over it.
// Owns: the mesh's comms are freed by at_mesh_alone_free; ctx is borrowed.
#ifndef AT_PAR_COMM_ALONE_H
#define AT_PAR_COMM_ALONE_H

#include "par/mesh.h"

typedef enum at_alone_when { AT_ALONE_NOW, AT_ALONE_BEGIN, AT_ALONE_END } at_alone_when;

// One exchange with `others` further ranks: bytes to and from them, this rank's own part not counted. An end has none.
typedef struct at_alone_exchange {
    at_alone_when when;
    double out, in;
    int others; // that something goes to or comes from
    bool sum;
} at_alone_exchange;
typedef void at_alone_fn(void *ctx, const at_alone_exchange *e);

// Rank `rank` of these degrees. sums: the carrier can sum, as wires can; threads cannot. AT_EINVAL: there is no such rank.
at_status at_mesh_alone(const at_degrees *degrees, int rank, bool sums, at_alone_fn *each,
                        void *ctx, at_mesh *out);
void at_mesh_alone_free(at_mesh *m); // NULL and zeroed are fine

#endif
