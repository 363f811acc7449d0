// SPDX-License-Identifier: Apache-2.0
// linspace.h - torch.linspace in f32: the second half counts back from the end.
#ifndef AT_SAMPLE_LINSPACE_H
#define AT_SAMPLE_LINSPACE_H

// Value i of n points from `start` to `end` (n 1: start).
static inline float at_linspace_f32(float start, float end, int n, int i)
{
    if (n < 2) return start;
    float step = (end - start) / (float)(n - 1);
    return i < n / 2 ? start + step * (float)i : end - step * (float)(n - 1 - i);
}

#endif
