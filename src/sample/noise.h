// SPDX-License-Identifier: Apache-2.0
// noise.h - normal noise, bit-exact with torch's CPU generator.
// Source: comfyui-contract section 5.7 (block Box-Muller of 16, the Cephes-style log and sincos of
// avx_mathfun with its FMA order). The polynomial constants are Cephes' (see NOTICE).
#ifndef AT_SAMPLE_NOISE_H
#define AT_SAMPLE_NOISE_H

#include <stdbool.h>

#include "base/rng.h"
#include "base/status.h"

// A generator with torch's carry of the double Box-Muller pair.
typedef struct at_generator {
    at_mt19937 mt;
    double carry;
    bool has_carry;
} at_generator;
void at_generator_seed(at_generator *g, uint64_t seed);
// torch.randn(n) in f32 from this generator.
void at_generator_randn(at_generator *g, float *out, int64_t n);
// torch.manual_seed(seed); torch.randn(n)
void at_randn(uint64_t seed, float *out, int64_t n);
// ComfyUI's prepare_noise: shape [b, c, h, w] (rank dims); batch_index NULL or one index per batch item.
at_status at_prepare_noise(uint64_t seed, int rank, const int64_t *shape, const int64_t *batch_index,
                           float *out);

// torchsde's Brownian tree over [t0, t1] with one integer seed: what dpmpp_sde and kin draw from.
typedef struct at_brownian at_brownian;
at_status at_brownian_new(uint64_t seed, double t0, double t1, int64_t n, at_brownian **out);
// W(s1) - W(s0), divided by sqrt|s1 - s0|: a unit normal step, sign as ComfyUI's BrownianTreeNoiseSampler.
at_status at_brownian_step(at_brownian *b, double s0, double s1, float *out);
void at_brownian_free(at_brownian *b);

#endif
