// SPDX-License-Identifier: Apache-2.0
// ops_mean.c - the mean of tokens, from doors that every backend has.
// Idea: fold the second half of the tokens onto the first until one is left: as many additions as a
// plain sum, log2(t) doors, and rounding errors that grow with log2(t) only.
// Owns: see ops.h.
#include "ops/ops.h"

at_tensor *at_mean_tokens(at_ops *o, const at_tensor *x)
{
    if (!x) return NULL;
    if (x->rank != 3 || x->shape[1] < 1)
        return at_ops_poison(o, AT_EINVAL, "mean_tokens: x is [b, t, d] with t >= 1, not rank %d",
                             x->rank);
    at_dtype dtype = x->dtype;
    int64_t t = x->shape[1];
    float share = 1.0f / (float)t;
    at_tensor *sum = at_cast(o, x, AT_F32);
    at_scope_begin(o);
    while (sum && t > 1) {
        int64_t half = t / 2;
        at_tensor *left = at_narrow(o, sum, 1, 0, t - half), *right;
        right = at_narrow(o, sum, 1, t - half, half);
        // The middle token of an odd count has no partner: it is carried over.
        at_tensor *pairs = at_add(o, at_narrow(o, left, 1, 0, half), right);
        sum = t % 2
                  ? at_concat(o, 1, 2, (const at_tensor *[]){pairs, at_narrow(o, left, 1, half, 1)})
                  : pairs;
        t -= half;
    }
    return at_scope_end(o, at_cast(o, at_affine(o, sum, share, 0), dtype));
}
