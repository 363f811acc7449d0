// SPDX-License-Identifier: Apache-2.0
// cpu_conv.c - 2D convolution NHWC in plain C.
// Idea: the weight becomes f32 [kh][kw][cin][cout] once per call; then each input value is a
// multiple of a whole row of outputs, which compilers vectorise. Owns nothing; scratch lives for
// one call or range.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "cpu/cpu_impl.h"

typedef struct conv_job {
    const at_conv2d_args *a;
    const float *w; // [kh][kw][cin][cout]
    int64_t ih, iw; // after upsampling
    int64_t kh, kw, cin, cout, oh, ow;
    at_cpu_oom oom;
} conv_job;

static void pack_weight(const conv_job *j, float *w)
{
    const at_wview *s = &j->a->w;
    int64_t taps = j->kh * j->kw;

    for (int64_t o = 0; o < j->cout; o++)
        for (int64_t i = 0; i < j->cin; i++)
            for (int64_t t = 0; t < taps; t++)
                w[(t * j->cin + i) * j->cout + o] =
                    at_cpu_get(&s->v, (o * j->cin + i) * taps + t) * s->scale;
}

static void conv_pixel(const conv_job *j, int64_t b, int64_t oy, int64_t ox, float *xrow,
                       float *acc)
{
    const at_conv2d_args *a = j->a;
    int up = a->upsample2x ? 2 : 1;

    memset(acc, 0, (size_t)j->cout * sizeof *acc);
    for (int64_t ky = 0; ky < j->kh; ky++) {
        int64_t iy = oy * a->stride - a->pad_top + ky;
        if (iy < 0 || iy >= j->ih) continue;
        for (int64_t kx = 0; kx < j->kw; kx++) {
            int64_t ix = ox * a->stride - a->pad_left + kx;
            const float *w = j->w + (ky * j->kw + kx) * j->cin * j->cout;
            if (ix < 0 || ix >= j->iw) continue;
            at_cpu_load(xrow, a->x.data, a->x.dtype,
                        b * a->x.stride[0] + iy / up * a->x.stride[1] + ix / up * a->x.stride[2], 1,
                        j->cin);
            for (int64_t i = 0; i < j->cin; i++)
                for (int64_t o = 0; o < j->cout; o++)
                    acc[o] += xrow[i] * w[i * j->cout + o];
        }
    }
}

static void conv_finish(const conv_job *j, int64_t b, int64_t oy, int64_t ox, float *acc)
{
    const at_conv2d_args *a = j->a;
    const at_view *r = &a->residual, *o = &a->out;

    for (int64_t c = 0; c < j->cout; c++) {
        if (a->bias.v.data) acc[c] += at_cpu_get(&a->bias.v, c) * a->bias.scale;
        acc[c] = at_cpu_apply(acc[c], a->act);
        if (r->data)
            acc[c] += at_cpu_get(r, b * r->stride[0] + oy * r->stride[1] + ox * r->stride[2] + c);
    }
    at_cpu_store(o->data, o->dtype, b * o->stride[0] + oy * o->stride[1] + ox * o->stride[2], 1,
                 acc, j->cout);
}

static void conv_range(void *ctx, int64_t begin, int64_t end)
{
    conv_job *j = ctx;
    float *scratch =
        at_cpu_scratch(&j->oom, at_alloc((size_t)(j->cin + j->cout) * sizeof *scratch));

    if (!scratch) return;
    for (int64_t p = begin; p < end && !at_cancelled(); p++) {
        int64_t ox = p % j->ow, oy = p / j->ow % j->oh, b = p / j->ow / j->oh;
        conv_pixel(j, b, oy, ox, scratch, scratch + j->cin);
        conv_finish(j, b, oy, ox, scratch + j->cin);
    }
    at_free(scratch);
}

at_status at_cpu_ref_conv2d(void *stream, const at_conv2d_args *a)
{
    int up = a->upsample2x ? 2 : 1;
    conv_job j = {.a = a,
                  .ih = a->x.shape[1] * up,
                  .iw = a->x.shape[2] * up,
                  .kh = a->w.v.shape[2],
                  .kw = a->w.v.shape[3],
                  .cin = a->w.v.shape[1],
                  .cout = a->w.v.shape[0],
                  .oh = a->out.shape[1],
                  .ow = a->out.shape[2]};
    size_t count = (size_t)(j.kh * j.kw * j.cin * j.cout);
    float *w = at_alloc(count * sizeof *w);

    (void)stream;
    if (!w) return at_fail(AT_ENOMEM, "conv2d: no memory for %zu weights", count);
    j.w = w;
    pack_weight(&j, w);
    at_parallel_for(a->out.shape[0] * j.oh * j.ow, 16, conv_range, &j);
    at_free(w);
    return at_cpu_oom_status(&j.oom, "conv2d");
}
