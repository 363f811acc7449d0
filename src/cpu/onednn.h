// SPDX-License-Identifier: Apache-2.0
// onednn.h - oneDNN behind a shape and five calls; no type of the library leaves onednn.c.
// Owns: kernels belong to the process.
#ifndef AT_CPU_ONEDNN_H
#define AT_CPU_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum at_dnnl_type {
    AT_DNNL_F32,
    AT_DNNL_BF16,
    AT_DNNL_S8 // sums are s32
} at_dnnl_type;

// What decides a primitive; compared bytewise, so zero it first. Sums are f32 (s32 for s8), [oh][oc] (linear) or
// [oh][ow][oc] (convolution), contiguous.
//   linear       oh rows of ic inputs, sx elements from row to row, oc outputs; the rest is 0
//   convolution  input [ih, iw, ic] with sy and sx elements from row to row and pixel to pixel
typedef struct at_dnnl_shape {
    int64_t ih, iw, ic, oh, ow, oc, kh, kw, sy, sx, stride, top, left, bottom, right;
    int conv, type;  // at_dnnl_type of x and w
    int layout, pad; // 0: let oneDNN choose how the weight lies; else what another kernel chose
} at_dnnl_shape;

typedef struct at_dnnl_kernel {
    const void *own;
    size_t scratch; // bytes that at_dnnl_run needs
    int layout;     // number of the weight's layout
} at_dnnl_kernel;

// False if oneDNN cannot be used. Call on every thread before the calls below.
bool at_dnnl_ready(void);
const char *at_dnnl_version(void);
// False if the library has no fast kernel for the shape. Any thread; about 1 ms the first
// time.
bool at_dnnl_kernel_get(const at_dnnl_shape *s, at_dnnl_kernel *out);
size_t at_dnnl_weight_bytes(const at_dnnl_kernel *k);
// Bring a weight from [n, k] or [oc, ic, kh, kw] into the kernel's layout.
bool at_dnnl_pack(const at_dnnl_kernel *k, const void *from, void *to);
bool at_dnnl_run(const at_dnnl_kernel *k, const void *src, const void *weights, void *dst,
                 void *scratch);

#endif
