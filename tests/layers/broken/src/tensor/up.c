// SPDX-License-Identifier: Apache-2.0
// A lower floor that looks up, and one that climbs; tests/layers expects the complaint.
#include "ops/ops.h"
#include "../base/fine.h"
#include "base/fine.h"
