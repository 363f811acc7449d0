// SPDX-License-Identifier: Apache-2.0
// wave_test.h - inputs for tests of networks: f32 values that are the same everywhere and nowhere alike.
#ifndef AT_MODELS_WAVE_TEST_H
#define AT_MODELS_WAVE_TEST_H

#include <math.h>

#include "base/mem.h"
#include "ops/ops.h"

// Element i is sin(0.37 i + phase). In the current scope.
static inline at_tensor *wave(at_ops *o, int rank, const int64_t *shape, float phase)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= shape[i];
    float *p = at_alloc((size_t)(n ? n : 1) * sizeof *p);
    if (!p) return at_ops_poison(o, AT_ENOMEM, "wave");
    for (int64_t i = 0; i < n; i++)
        p[i] = sinf(0.37f * (float)i + phase);
    at_tensor *t = at_from_host(o, AT_F32, rank, shape, p);
    at_free(p);
    return t;
}

#endif
