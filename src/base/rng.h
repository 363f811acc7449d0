// SPDX-License-Identifier: Apache-2.0
// rng.h - MT19937 as torch's CPU generator seeds and reads it.
// Sources: Matsumoto & Nishimura 1998; ATen/core/MT19937RNGEngine.h and CPUGeneratorImpl for the
// bit layout of floats. The normal distribution is built on it in sample/noise.
// Owns nothing: the state is the caller's. One thread per state.
#ifndef AT_BASE_RNG_H
#define AT_BASE_RNG_H

#include <stdint.h>

typedef struct at_mt19937 {
    uint32_t state[624];
    int left; // words unread before the next twist
    int next;
} at_mt19937;

void at_mt_seed(at_mt19937 *r, uint64_t seed); // only seed mod 2^32 matters
uint32_t at_mt_u32(at_mt19937 *r);
float at_mt_f32(at_mt19937 *r); // 24 bits, [0, 1)
// The next n values of at_mt_f32, several times faster.
void at_mt_fill_f32(at_mt19937 *r, float *out, int64_t n);
double at_mt_f64(at_mt19937 *r); // 53 bits, [0, 1): the first word is the high one

#endif
