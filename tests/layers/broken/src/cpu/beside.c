// SPDX-License-Identifier: Apache-2.0
// A floor that looks at its neighbour and at a name without a floor.
#include "weight/store.h"
#include "png/png.h"
