// SPDX-License-Identifier: Apache-2.0
// place.h - which device text encoders and VAEs run on, beside a denoiser that has its devices.
// Idea: a pure function, as par/plan.h. Every pair of devices is weighed: what does not fit beside the others has to be
// brought again for every picture (and costs some ms at least), what is made elsewhere has to travel, and a slower device takes longer. The least
// time wins, and a gain below a millisecond moves nothing: where everything fits one device, it stays there.
// Numbers: bytes, seconds. Owns nothing.
#ifndef AT_PAR_PLACE_H
#define AT_PAR_PLACE_H

#include <stdbool.h>

enum { AT_PLACE_DEVICES = 16 };

// A kind of network: its weights, the most that it needs beside them, what a picture spends in it on a device of
// speed 1, and what of its results travels.
typedef struct at_place_net {
    double weights, work, seconds, travels;
    int shared; // devices, from the first on, that share it while it stays with the denoiser; 0: 1
    int fixed;  // 1 + the device that somebody asked for; 0: free
} at_place_net;

typedef struct at_place_task {
    at_place_net denoiser; // shared: on each of these devices; weights and work: on each
    at_place_net text, vae;
} at_place_task;

typedef struct at_place_site {
    int n;
    double room[AT_PLACE_DEVICES];  // bytes that may be taken there
    double speed[AT_PLACE_DEVICES]; // 0: 1
    double load;                    // bytes a second of weights that come again
    double bandwidth, latency;      // between devices
} at_place_site;

typedef struct at_place {
    int text, vae;                   // devices
    double lacks;                    // bytes that all devices together have too few
    double seconds;                  // what this costs a picture
    double stay_lacks, stay_seconds; // the same with everything on the first device
} at_place;

at_place at_place_choose(const at_place_task *t, const at_place_site *s);
// What device d holds under a placement: weights, and with the most that work beside them takes.
void at_place_load(const at_place_task *t, int text, int vae, int d, double *weights, double *peak);

#endif
