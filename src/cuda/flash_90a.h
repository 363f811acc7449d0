// SPDX-License-Identifier: Apache-2.0
// flash_90a.h - attention on Hopper's matrix units (flash_90a.cu; compute capability 9.0 alone), for what `suits`
// and at_k_flash_suits say: heads of 40 or 64, no mask or (64) a bias by distance, out like q.
#ifndef AT_CUDA_FLASH_90A_H
#define AT_CUDA_FLASH_90A_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

bool at_k_flash_90a_suits(const at_k_attention_in *a);
cudaError_t at_k_flash_90a(cudaStream_t s, const at_k_attention_in *a);

#ifdef __cplusplus
}
#endif

#endif
