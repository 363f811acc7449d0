// SPDX-License-Identifier: Apache-2.0
// resize_antialias.c - bicubic with a filter as wide as the reduction, for picture encoders.
// Idea: rows and columns are separate sums; each output place has its run of input places and their
// weights, which are normalised where the border cuts them.
// Easy to get wrong: the cubic here has a = -0.5 (as Pillow's), torch's plain bicubic -0.75; places
// are computed in f32 and runs are cut by truncation, as torch does.
// Source: torch's upsample_bicubic2d_aa (aten UpSampleKernel), Keys 1981.
// Owns: the result is the caller's.
#include "image/resize.h"

#include <math.h>

#include "base/mem.h"

enum { MAX_SIDE = 16384 * 8 };

// The run of inputs of one output place, and where its weights lie.
typedef struct run {
    int64_t first, count;
    const float *weights;
} run;
typedef struct runs {
    run *items;
    float *weights;
} runs;

static float cubic(float x)
{
    const float a = -0.5f;
    x = fabsf(x);
    if (x < 1.0f) return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
    if (x < 2.0f) return (((x - 5.0f) * x + 8.0f) * x - 4.0f) * a;
    return 0.0f;
}

static void runs_free(runs *r)
{
    at_free(r->items);
    at_free(r->weights);
}

static at_status runs_make(int64_t in, int64_t out, runs *r)
{
    float scale = (float)in / (float)out, wide = scale >= 1.0f ? scale : 1.0f;
    float support = 2.0f * wide, inverse = 1.0f / wide;
    int64_t most = (int64_t)ceilf(support) * 2 + 1;

    r->items = at_calloc((size_t)out, sizeof *r->items);
    r->weights = at_calloc((size_t)(out * most), sizeof *r->weights);
    if (!r->items || !r->weights)
        return at_fail(AT_ENOMEM, "resize: no memory for %lld places", (long long)out);
    for (int64_t i = 0; i < out; i++) {
        float centre = scale * ((float)i + 0.5f), total = 0.0f;
        float *w = r->weights + i * most;
        int64_t first = (int64_t)(centre - support + 0.5f),
                end = (int64_t)(centre + support + 0.5f);
        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        if (end - first > most) end = first + most;
        for (int64_t j = 0; j < end - first; j++) {
            w[j] = cubic(((float)(j + first) - centre + 0.5f) * inverse);
            total += w[j];
        }
        for (int64_t j = 0; j < end - first && total != 0.0f; j++)
            w[j] /= total;
        r->items[i] = (run){first, end - first, w};
    }
    return AT_OK;
}

// One side of `outer` blocks: in [outer][side][inner] -> out [outer][places][inner].
static void pass(const float *in, float *out, int64_t outer, int64_t side, int64_t places,
                 int64_t inner, const runs *r)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t p = 0; p < places; p++) {
            const run *t = &r->items[p];
            float *to = out + (o * places + p) * inner;
            for (int64_t k = 0; k < inner; k++) {
                float sum = 0.0f;
                for (int64_t j = 0; j < t->count; j++)
                    sum += in[(o * side + t->first + j) * inner + k] * t->weights[j];
                to[k] = sum;
            }
        }
}

at_status at_resize_antialias(const at_tensor *in, int64_t width, int64_t height, at_tensor **out)
{
    at_status st = AT_OK;
    runs across = {0}, down = {0};
    float *wide = NULL;
    size_t bytes;

    *out = NULL;
    if (in->rank != 4 || in->dtype != AT_F32 || width < 1 || height < 1 || width > MAX_SIDE ||
        height > MAX_SIDE || in->shape[1] < 1 || in->shape[2] < 1)
        AT_TRY(at_fail(AT_EINVAL, "resize: no picture [b, h, w, c] to %lldx%lld", (long long)width,
                       (long long)height));
    int64_t b = in->shape[0], h = in->shape[1], w = in->shape[2], c = in->shape[3];
    AT_TRY(runs_make(w, width, &across));
    AT_TRY(runs_make(h, height, &down));
    if (!at_mul_size((size_t)(b * h), (size_t)(width * c) * sizeof *wide, &bytes) ||
        (wide = at_alloc(bytes)) == NULL)
        AT_TRY(at_fail(AT_ENOMEM, "resize: no memory for %lldx%lld pixels", (long long)width,
                       (long long)h));
    AT_TRY(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){b, height, width, c}, out));
    pass(at_tensor_data(in), wide, b * h, w, width, c, &across);
    pass(wide, at_tensor_data(*out), b, h, height, width * c, &down);
out:
    runs_free(&across);
    runs_free(&down);
    at_free(wide);
    return st;
}
