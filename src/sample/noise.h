// SPDX-License-Identifier: Apache-2.0
// noise.h - normal noise, bit-exact with torch's generators.
// Idea: a seed is a picture. The CPU generator gives ComfyUI's initial noise on every machine; the
// Philox function gives what torch draws on a CUDA device; the Brownian tree is torchsde's.
// Source: comfyui-contract section 5.7 (block Box-Muller of 16, the Cephes-style log and sincos of
// avx_mathfun with its FMA order). The polynomial constants are Cephes' (see NOTICE).
// Owns: generators are the caller's values; a tree owns its scratch until at_brownian_free. One
// thread per object.
#ifndef AT_SAMPLE_NOISE_H
#define AT_SAMPLE_NOISE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

// A generator with torch's carry of the double Box-Muller pair.
typedef struct at_generator {
    at_mt19937 mt;
    double carry;
    bool has_carry;
} at_generator;
void at_generator_seed(at_generator *g, uint64_t seed); // torch.Generator().manual_seed(seed)
// torch.randn(n) in f32 from this generator; below 16 values torch takes another path, so draws of
// different sizes do not continue each other. n <= 0 draws nothing.
void at_generator_randn(at_generator *g, float *out, int64_t n);
// torch.manual_seed(seed); torch.randn(n)
void at_randn(uint64_t seed, float *out, int64_t n);
// ComfyUI's prepare_noise: shape [b, c, h, w] (rank dims) into `out`. batch_index NULL, or b
// indices
// >= 0 that say which draw each batch item takes. AT_EINVAL for a bad shape or index; AT_ENOMEM.
at_status at_prepare_noise(uint64_t seed, int rank, const int64_t *shape,
                           const int64_t *batch_index, float *out);

// torch.randn(n, device="cuda") with this seed: Philox4x32-10. *offset is the generator's offset (0
// after seeding) and moves on. `max_threads` is SM count * threads per SM / 256 * 256 (H200:
// 270336); it shapes the result when n is larger. Values agree with torch within 3e-6 (curand's
// fast intrinsics), the order exactly.
void at_philox_randn(uint64_t seed, uint64_t *offset, int64_t max_threads, float *out, int64_t n);

// torchsde's Brownian tree over [t0, t1] (0 < t0 < t1) with one integer seed: what dpmpp_sde and
// kin draw from. AT_EINVAL (interval, n), AT_ENOMEM.
typedef struct at_brownian at_brownian;
at_status at_brownian_new(uint64_t seed, double t0, double t1, int64_t n, at_brownian **out);
// (W(s1) - W(s0)) / sqrt|s1 - s0|: a unit normal step, its sign as ComfyUI's
// BrownianTreeNoiseSampler's. Zeros where s0 == s1. AT_ENOMEM.
at_status at_brownian_step(at_brownian *b, double s0, double s1, float *out);
void at_brownian_free(at_brownian *b); // NULL is fine

#endif
