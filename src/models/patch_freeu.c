// SPDX-License-Identifier: Apache-2.0
// patch_freeu.c - FreeU, versions 1 and 2.
// Idea: the filter keeps all frequencies but four (rows and columns -1 and 0 around the centre of
// a shifted spectrum), so no Fourier transform is needed: those four are measured and (s - 1) of
// them added.
// Easy to get wrong:
//   - only the real part of the result counts, although -1 without +1 is no symmetric choice
//   - with one row (or column) there is only frequency 0 in that direction
//   - channels are counted before the skip is joined
// Source: the paper, and the behaviour of ComfyUI 0.3.64 comfy_extras/nodes_freelunch.py.
// Owns: nothing beyond a call.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "models/patch_host.h"
#include "models/patch_unet.h"

// A map on the host: f32 [b, h, w, c].
typedef struct map {
    float *v;
    int64_t b, h, w, c;
} map;

static bool map_read(at_ops *o, const at_tensor *x, map *m)
{
    *m = (map){.v = at_patch_read(o, x, "FreeU")};
    if (!m->v) return false;
    m->b = x->shape[0];
    m->h = x->shape[1];
    m->w = x->shape[2];
    m->c = x->shape[3];
    return true;
}

// --- the skip ----------------------------------------------------------------------------------
// One frequency of one picture: measured over all pixels into re and im, or added back.
typedef struct wave {
    double u, v;     // turns per row and per column
    double *re, *im; // [c]
} wave;

static void turn(const wave *w, int64_t y, int64_t x, double *cosine, double *sine)
{
    double angle = 2.0 * M_PI * (w->u * (double)y + w->v * (double)x);
    *cosine = cos(angle);
    *sine = sin(angle);
}

static void measure(const wave *f, const map *m, const float *p)
{
    memset(f->re, 0, (size_t)(2 * m->c) * sizeof *f->re);
    for (int64_t i = 0; i < m->h * m->w; i++, p += m->c) {
        double cosine, sine;
        turn(f, i / m->w, i % m->w, &cosine, &sine);
        for (int64_t c = 0; c < m->c; c++) {
            f->re[c] += p[c] * cosine;
            f->im[c] += p[c] * sine;
        }
    }
}

static void put_back(const wave *f, const map *m, double share, float *p)
{
    for (int64_t i = 0; i < m->h * m->w; i++, p += m->c) {
        double cosine, sine;
        turn(f, i / m->w, i % m->w, &cosine, &sine);
        for (int64_t c = 0; c < m->c; c++)
            p[c] += (float)(share * (f->re[c] * cosine + f->im[c] * sine));
    }
}

// The frequencies (-1 or 0, -1 or 0) of one picture times `scale`. `room`: 8 c numbers.
static void filter(const map *m, float *picture, double scale, double *room)
{
    wave waves[4];
    int n = 0;
    double size = (double)(m->h * m->w);

    for (int row = m->h > 1 ? -1 : 0; row <= 0; row++)
        for (int col = m->w > 1 ? -1 : 0; col <= 0; col++, n++)
            waves[n] = (wave){.u = (double)row / (double)m->h,
                              .v = (double)col / (double)m->w,
                              .re = room + 2 * n * m->c,
                              .im = room + (2 * n + 1) * m->c};
    for (int i = 0; i < n; i++)
        measure(&waves[i], m, picture);
    for (int i = 0; i < n; i++)
        put_back(&waves[i], m, (scale - 1.0) / size, picture);
}

static at_tensor *filtered(at_ops *o, const at_tensor *skip, double scale)
{
    map m;
    if (!map_read(o, skip, &m)) return NULL;
    double *room = at_alloc((size_t)(8 * m.c) * sizeof *room);
    at_tensor *out = NULL;
    if (!room) {
        at_ops_poison(o, AT_ENOMEM, "FreeU: no memory for %lld channels", (long long)m.c);
    } else {
        for (int64_t b = 0; b < m.b; b++)
            filter(&m, m.v + b * m.h * m.w * m.c, scale, room);
        out = at_patch_give(o, skip->dtype, 4, skip->shape, m.v);
    }
    at_free(room);
    at_free(m.v);
    return out;
}

// --- the way through ---------------------------------------------------------------------------
// What half the channels are multiplied with: per pixel 1 + (b - 1) * brightness between the
// picture's darkest (0) and brightest (1), [b, h, w, 1].
static at_tensor *brightness(at_ops *o, const at_tensor *x, double b)
{
    map m;
    if (!map_read(o, x, &m)) return NULL;
    int64_t pixels = m.h * m.w;
    for (int64_t i = 0; i < m.b; i++) {
        float low = INFINITY, high = -INFINITY, *mean = m.v + i * pixels;
        const float *from = m.v + i * pixels * m.c;
        // The means are written over pixels that were read already.
        for (int64_t p = 0; p < pixels; p++) {
            double sum = 0;
            for (int64_t c = 0; c < m.c; c++)
                sum += from[p * m.c + c];
            mean[p] = (float)(sum / (double)m.c);
            low = fminf(low, mean[p]);
            high = fmaxf(high, mean[p]);
        }
        for (int64_t p = 0; p < pixels; p++)
            mean[p] = (float)(b - 1.0) * ((mean[p] - low) / (high - low)) + 1.0f;
    }
    at_tensor *out = at_patch_give(o, AT_F32, 4, (int64_t[]){m.b, m.h, m.w, 1}, m.v);
    at_free(m.v);
    return out;
}

static at_tensor *amplified(at_ops *o, const at_freeu *f, const at_tensor *x, double b)
{
    int64_t half = x->shape[3] / 2;
    at_tensor *first = at_narrow(o, x, 3, 0, half);
    at_tensor *rest = at_narrow(o, x, 3, half, x->shape[3] - half);
    if (f->v2)
        first = at_mul(o, first, brightness(o, x, b));
    else
        first = at_affine(o, first, (float)b, 0);
    return at_concat(o, 3, 2, (const at_tensor *[]){first, rest});
}

static void join(void *self, at_ops *o, const at_site *s, at_tensor **x, at_tensor **skip)
{
    const at_freeu *f = self;
    (void)s;
    if (!*x || !*skip) return;
    int64_t c = (*x)->shape[3];
    if (c != 4 * f->channels && c != 2 * f->channels) return;
    int i = c == 4 * f->channels ? 0 : 1;
    // In a network without a middle the last skip is the map itself, and ComfyUI writes into both.
    bool same = *x == *skip;
    *x = amplified(o, f, *x, f->b[i]);
    *skip = filtered(o, same ? *x : *skip, f->s[i]);
}

const at_patch_ops at_patch_freeu = {.name = "FreeU", .join = join};
