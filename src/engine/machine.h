// SPDX-License-Identifier: Apache-2.0
// machine.h - a description of devices that need not be here: how many, and their rates (tensor/rates.h).
// Idea: one JSON object, docs/machines/*.json. `rates` names what differs from `like`, a machine that this program knows;
// so a description of a chip with half of the multiprocessors is one line. All devices are alike.
// Owns nothing.
#ifndef AT_ENGINE_MACHINE_H
#define AT_ENGINE_MACHINE_H

#include "par/plan.h"
#include "tensor/device.h"
#include "tensor/rates.h"

typedef struct at_machine {
    char name[96];
    int devices;
    at_rates rates;
} at_machine;

// A known name ("h200", "h200-x8": so many of them; "here": the GPUs of this machine), or a file. AT_EUSAGE names what is not understood, AT_ENOTFOUND.
at_status at_machine_find(const char *name, at_machine *out);
// The same as text, every rate in it. NULL: no memory; at_free.
char *at_machine_text(const at_machine *m);
// The rates of a device that is here: those of the machine it is like, with its own multiprocessors, clock, power, memory
// and link. False: nothing is known that it is like.
bool at_machine_here(at_device *d, const at_par_site *site, at_machine *out);
// What a plan counts with on `ranks` of its devices.
at_par_site at_machine_site(const at_machine *m, int ranks);

#endif
