// SPDX-License-Identifier: Apache-2.0
// mesh.h - the ranks of one picture along several axes.
// Idea: every method cuts along an axis of its own: conditionings (cfg), rows of weights (tp), rows of a
// feature map (patch), tokens (ring x ulysses). The ranks are a box with these sides; a rank talks on each
// axis to those who differ from it there alone. Ulysses is innermost: it wants the fastest links.
// Owns: a mesh owns the comms of its axes, not the world's.
#ifndef AT_PAR_MESH_H
#define AT_PAR_MESH_H

#include "par/comm.h"
#include "par/shares.h"

typedef enum at_axis {
    AT_AXIS_CFG,
    AT_AXIS_TP,
    AT_AXIS_PATCH,
    AT_AXIS_RING,
    AT_AXIS_ULYSSES,
    AT_AXIS_PIPE // blocks of the network, one behind the other
} at_axis;
enum { AT_AXES = 6 };

// How many ranks stand along each axis; 0 reads as 1.
typedef struct at_degrees {
    int of[AT_AXES];
    // Approximate methods (ops/ops_held.c, models/pipe.c): keys and values of other ranks, or of other pieces of the
    // picture, may be those of the evaluation before, behind `warmup` exact ones.
    int stale;   // 1: along ring, or along patch where the network shares rows (at_degrees_fit)
    int warmup;  // 0: the method's own number, at_degrees_warmup
    int patches; // pieces that go through the pipe; 0: two for each rank of it
    // What each rank takes of tokens, rows, heads (ulysses) and forwards (cfg), against the others; zeros: the same.
    uint8_t shares[AT_SHARE_RANKS];
} at_degrees;

typedef struct at_mesh {
    at_degrees degrees;
    at_comm *world;         // all ranks: votes
    at_comm *axis[AT_AXES]; // of size 1 where nothing is cut
    at_comm *tokens;        // ring x ulysses: who shares the tokens of one forward
    int share[AT_AXES][AT_SHARE_RANKS], token_share[AT_SHARE_RANKS]; // of those comms' ranks
} at_mesh;

const char *at_axis_name(at_axis a);       // "cfg"
int at_degrees_ranks(const at_degrees *d); // their product
bool at_degrees_same(const at_degrees *a, const at_degrees *b);
// "cfg=2,ulysses=4", "none", "ulysses=2"; AT_EINVAL names what is not understood.
at_status at_degrees_parse(const char *text, at_degrees *out);
const char *at_degrees_text(const at_degrees *d, char out[96]); // the same way back
// What is not exact about this way, for people; NULL: nothing is.
const char *at_degrees_approximation(const at_degrees *d);
int at_degrees_warmup(const at_degrees *d);  // exact evaluations before approximate ones
int at_degrees_patches(const at_degrees *d); // pieces of a picture in the pipe
// Stale keys and values go along the axis that the network knows: `axes` has 1 << at_axis for each.
void at_degrees_fit(at_degrees *d, unsigned axes);

// Shares by the speeds of the devices, where none were asked for and the way can have them.
void at_degrees_take_speeds(at_degrees *d, const uint8_t speeds[AT_SHARE_RANKS]);
// The slowest rank's time for its part of `units` forwards at the shares that these speeds give, against what it takes
// where all devices are like the first.
double at_degrees_pace(const at_degrees *d, const uint8_t speeds[AT_SHARE_RANKS], double units);

// One rank, which needs no free.
at_mesh at_mesh_self(void);
// All tokens over one comm (borrowed): what at_ops does with a comm and no mesh. Needs no free.
at_mesh at_mesh_tokens(at_comm *world);
// Collective. AT_EINVAL if the degrees do not make up the world.
at_status at_mesh_open(at_comm *world, const at_degrees *degrees, at_mesh *out);
void at_mesh_close(at_mesh *m); // NULL and zeroed are fine

#endif
