// SPDX-License-Identifier: Apache-2.0
// known.h - what steps took on these devices: measured by the runs themselves, remembered.
// Idea: a prediction is as good as the rates behind it, and those of small layers, of other chips and of a chip at
// its power limit are not in them. A run tells what its steps took; the next choice for the same work counts with it.
// The key is whatever the caller says two equal pieces of work have in common. A file keeps them between processes:
// the title in its first line, then "HASH SECONDS DEGREES" lines; any other content is not believed.
// Owns: the table. Calls from any thread.
#ifndef AT_PAR_KNOWN_H
#define AT_PAR_KNOWN_H

#include "par/plan.h"

typedef struct at_par_memory at_par_memory;

enum { AT_PAR_KNOWN = 16 }; // of one piece of work

// path NULL: only for this process. title: which machine it holds for, one line. AT_ENOMEM alone.
at_status at_par_memory_new(const char *path, const char *title, at_par_memory **out);
// The newest step stands; nothing is kept of a time that is not above 0. A file that cannot be written is said in
// the log, and does no harm.
void at_par_learn(at_par_memory *m, const char *key, const at_degrees *degrees, double step);
// How many of out[AT_PAR_KNOWN] are filled. m NULL: none.
int at_par_recall(at_par_memory *m, const char *key, at_par_known *out);
void at_par_memory_free(at_par_memory *m); // NULL is fine

#endif
