// SPDX-License-Identifier: Apache-2.0
// gemm_conv.h - the convolution as its drivers see it (gemm_conv.c, onednn_conv.c).
// Owns: a conv owns its bias until at_cpu_conv_close.
#ifndef AT_CPU_GEMM_CONV_H
#define AT_CPU_GEMM_CONV_H

#include "cpu/cpu_impl.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"

enum {
    CONV_NC = 256,  // output channels of a sweep, and that are finished at a time, at most
    CONV_PAD = 16,  // floats between rows of scratch
    CONV_MAX_K = 16 // filter rows and columns
};

typedef struct conv {
    const at_cpu_kernels *k;
    const at_conv2d_args *a;
    int64_t ih, iw, kh, kw, cin, cout, oh, ow; // ih, iw: as read, after upsampling
    int64_t kk, row;                           // kh * kw * cin, kw * cin
    int64_t band, bands;                       // output rows of a task, tasks in an image
    int64_t wide;                              // pixels of a padded band row
    const void *panels;                        // [cout / nr][kk][nr], K in the order ky, kx, cin
    at_dtype panel_dtype;                      // that of the weight
    const float *bias;
    bool direct; // x can be read where it lies
    at_cpu_oom oom;
} conv;

bool at_cpu_conv_supported(const at_conv2d_args *a);
at_status at_cpu_conv_open(conv *c, const at_cpu_kernels *k, const at_conv2d_args *a);
void at_cpu_conv_close(conv *c);
// Finish sums s [rows * ow][ld] of output rows oy0.. and channels [n0, n0 + count), and store them.
void at_cpu_conv_finish(const conv *c, int64_t b, int64_t oy0, int64_t rows, int64_t n0,
                        int64_t count, float *s, int64_t ld);
void at_cpu_conv_finish_pixel(const conv *c, int64_t b, int64_t y, int64_t x, int64_t n0,
                              int64_t count, float *s);

// Whether Winograd's form (winograd.c) is the faster one for a supported convolution, and its work.
bool at_cpu_winograd_pays(const at_cpu_kernels *k, const at_conv2d_args *a);
at_status at_cpu_winograd_run(conv *c);
// A 1x1 convolution of stride 1 without padding as a linear layer; false if it is none.
bool at_cpu_conv_as_linear(const at_conv2d_args *a, at_linear_args *out);

#endif
