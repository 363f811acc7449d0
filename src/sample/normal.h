// SPDX-License-Identifier: Apache-2.0
// normal.h - the block Box-Muller transform behind torch.randn, in two twins with the same bits.
// Idea: sixteen uniforms become sixteen normals; element j and element j + 8 of a block share a
// radius. Internal to noise.c. The caller asks normal_block_avx2_usable() once; other machines take
// fmaf. Owns nothing.
#ifndef AT_SAMPLE_NORMAL_H
#define AT_SAMPLE_NORMAL_H

#include <stdbool.h>
#include <stdint.h>

// Transform `blocks` groups of 16 uniforms in place.
void at_normal_blocks_portable(float *u, int64_t blocks);
void at_normal_blocks_avx2(float *u, int64_t blocks); // only where at_normal_avx2_usable()
bool at_normal_avx2_usable(void);

// Constants of Cephes' single precision log, sin and cos (see NOTICE).
#define AT_LOG_SQRTHF 0.707106781186547524f
#define AT_LOG_Q1     -2.12194440e-4f
#define AT_LOG_Q2     0.693359375f
#define AT_LOG_POLY                                                                                \
    {                                                                                              \
        7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f,                  \
            1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f,              \
            3.3333331174e-1f                                                                       \
    }
#define AT_TRIG_4_OVER_PI 1.27323954473516f
#define AT_TRIG_DP1       -0.78515625f
#define AT_TRIG_DP2       -2.4187564849853515625e-4f
#define AT_TRIG_DP3       -3.77489497744594108e-8f
#define AT_SIN_POLY                                                                                \
    {                                                                                              \
        -1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f                                     \
    }
#define AT_COS_POLY                                                                                \
    {                                                                                              \
        2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f                       \
    }
#define AT_TWO_PI 6.28318530717958647692f

#endif
