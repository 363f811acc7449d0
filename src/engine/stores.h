// SPDX-License-Identifier: Apache-2.0
// stores.h - model files that are open, so that a second job maps and packs nothing again.
// I1: at most one store per (path, size, modification time). A file that changed on disk is opened anew.
// Owns: one reference to each store until at_stores_free.
#ifndef AT_ENGINE_STORES_H
#define AT_ENGINE_STORES_H

#include "weight/store.h"

typedef struct at_stores at_stores;
at_status at_stores_new(at_stores **out);
void at_stores_free(at_stores *s);
at_status at_stores_open(at_stores *s, const char *path, at_store **out); // the caller's reference
// Forget the files that changed or went away since they were opened; true if there were any: what was
// made from them must be made again. Called as a job begins, so that a file cut short between jobs is
// found by size and not by a fault in the middle of a picture.
bool at_stores_refresh(at_stores *s);
// Forget all of them: what nobody else holds is closed, and what devices made of its weights goes with it.
void at_stores_forget(at_stores *s);

#endif
