// SPDX-License-Identifier: Apache-2.0
// linear_scaled.cu - what follows an fp8 product on chips whose library knows no scales a row.
// Idea: the product of the bytes alone is a sum in units of x's row scale times w's; this kernel gives it its
// size and does everything that is left of the layer in the same pass.
// Easy to get wrong: the sum of bytes may reach 448 * 448 * k, more than f16 holds.
#include "cuda/pieces.cuh"
#include "cuda/rows8.h"

struct scaled {
    const void *y, *bias, *gate, *residual;
    const float *x_rows, *w_rows;
    void *out;
    int64_t n, tokens, yb, yt, ob, ot, rb, rt, gb; // strides: batch, token
    int dy, dbias, dgate, dres, dout, act;
    float scale;
};

__global__ void scaled_kernel(scaled a, int64_t rows)
{
    int64_t total = rows * a.n;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < total;
         i += (int64_t)gridDim.x * blockDim.x) {
        int64_t row = i / a.n, c = i - row * a.n, b = row / a.tokens, t = row - b * a.tokens;
        float v = one_at(a.y, a.dy, b * a.yb + t * a.yt + c);
        v *= a.scale * a.x_rows[row] * a.w_rows[c];
        if (a.bias) v += one_at(a.bias, a.dbias, c);
        v = activate(v, a.act);
        if (a.gate) v *= one_at(a.gate, a.dgate, b * a.gb + c);
        if (a.residual) v += one_at(a.residual, a.dres, b * a.rb + t * a.rt + c);
        put_at(a.out, a.dout, b * a.ob + t * a.ot + c, v);
    }
}

extern "C" cudaError_t at_k_linear_scaled(cudaStream_t s, const at_k_scaled_in *in)
{
    const at_view *o = &in->out, *y = &in->y;
    int64_t rows = o->shape[0] * o->shape[1], blocks = (rows * o->shape[2] + 255) / 256;
    scaled a = {};
    a.y = y->data;
    a.bias = in->bias;
    a.gate = in->gate.data;
    a.residual = in->residual.data;
    a.x_rows = in->x_rows;
    a.w_rows = in->w_rows;
    a.out = o->data;
    a.n = o->shape[2];
    a.tokens = o->shape[1];
    a.yb = y->stride[0];
    a.yt = y->stride[1];
    a.ob = o->stride[0];
    a.ot = o->stride[1];
    a.rb = in->residual.stride[0];
    a.rt = in->residual.stride[1];
    a.gb = in->gate.data && in->gate.shape[0] > 1 ? in->gate.stride[0] : 0;
    a.dy = y->dtype;
    a.dbias = in->bias_dtype;
    a.dgate = in->gate.dtype;
    a.dres = in->residual.dtype;
    a.dout = o->dtype;
    a.act = in->act;
    a.scale = in->scale;
    if (blocks == 0) return cudaSuccess;
    scaled_kernel<<<(unsigned)(blocks > 1 << 20 ? 1 << 20 : blocks), 256, 0, s>>>(a, rows);
    return cudaGetLastError();
}
