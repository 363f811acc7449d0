// SPDX-License-Identifier: Apache-2.0
// onednn_pack.h - weights in the layout and number format that a oneDNN kernel wants.
// Owns: a packed weight belongs to its at_packed.
#ifndef AT_CPU_ONEDNN_PACK_H
#define AT_CPU_ONEDNN_PACK_H

#include "cpu/cpu_impl.h"
#include "cpu/kernels.h"
#include "cpu/onednn.h"

typedef struct at_dnnl_packed {
    at_cpu_packed head;
    int layout;
    at_dnnl_type type;
    size_t block_bytes, blocks; // blocks of equal numbers of rows (output channels)
    const float *scales;        // s8: of every row
    _Alignas(64) char data[];
} at_dnnl_packed;

// The type in which the library should multiply; false: our own kernels should serve. f32_too: also where only a
// comparison is wanted.
bool at_dnnl_choose(at_dtype x, const at_wview *w, bool int8, bool f32_too, at_dnnl_type *out);
// The published block of this type, or NULL.
const at_dnnl_packed *at_dnnl_packed_get(at_packed *slot, at_dnnl_type type);
// Pack a weight for kernel k and publish it. NULL if there is no place to keep it, or it fails: then our own
// kernels, which need no copy, do the work.
const at_dnnl_packed *at_dnnl_pack_weight(const at_cpu_kernels *t, const at_dnnl_kernel *k,
                                          at_dnnl_type type, const at_wview *w, size_t blocks);

// The slots' work (onednn_linear.c, onednn_conv.c).
at_status at_dnnl_linear(const at_linear_args *a, bool f32_too);
at_status at_dnnl_geglu(const at_geglu_args *a, bool f32_too);
at_status at_dnnl_conv2d(const at_conv2d_args *a, bool f32_too);

#endif
