// SPDX-License-Identifier: Apache-2.0
// node_post_edges.c - Canny and Morphology: what the neighbourhood of a pixel says.
// Idea: a maximum over k x k is one along x and one along y, and each doubles its window in log k steps; Canny
// is grey, a 5 x 5 Gaussian, Sobel, thinning along the gradient, and edges that grow from strong to weak.
// Easy to get wrong: an even kernel reaches one pixel further to the left and up; thinning demands a strict
// maximum, so two equal neighbours both go; beyond the border the gradient is 0.
// Source: kornia 0.8.1 (canny, morphology) as ComfyUI 0.3.64 calls it; Canny 1986.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"

// --- Morphology --------------------------------------------------------------------------------------
typedef struct morph_in {
    at_object *image;
    const char *operation;
    int64_t kernel_size;
} morph_in;
static const char *const operations[] = {"erode",    "dilate",     "open",    "close",
                                         "gradient", "bottom_hat", "top_hat", NULL};
static const at_in morph_rows[] = {AT_ROW_LINK(morph_in, image, "IMAGE"),
                                   AT_ROW(morph_in, operation, AT_IN_COMBO, .choices = operations),
                                   AT_ROW_INT_STEP(morph_in, kernel_size, 3, 3, 999, 1)};

#define OUTSIDE -1e4f // what lies beyond the border, before the sign

// line[i] becomes the maximum of its next k values; n + k - 1 values are there.
static void window_max(float *line, int64_t n, int64_t k)
{
    int64_t length = 1, all = n + k - 1;
    for (; 2 * length <= k; length *= 2)
        for (int64_t i = 0; i + length < all; i++)
            if (line[i + length] > line[i]) line[i] = line[i + length];
    for (int64_t i = 0; i < n; i++)
        if (line[i + k - length] > line[i]) line[i] = line[i + k - length];
}

typedef struct morph {
    float *p; // [b, h, w, c], in place
    int64_t h, w, c, k;
    float sign; // -1: minima
    bool x;
    _Atomic bool no_memory;
} morph;

// Lines of one direction: (picture, row, channel) or (picture, column, channel).
static void morph_lines(void *ctx, int64_t begin, int64_t end)
{
    morph *m = ctx;
    int64_t n = m->x ? m->w : m->h, step = m->x ? m->c : m->w * m->c, before = m->k / 2;
    float *line = at_alloc((size_t)(n + m->k - 1) * sizeof *line);
    if (!line) m->no_memory = true;
    for (int64_t l = begin; line && l < end; l++) {
        int64_t lines = (m->x ? m->h : m->w) * m->c, b = l / lines, at = l % lines;
        float *p = m->p + b * m->h * m->w * m->c;
        p += m->x ? at / m->c * m->w * m->c + at % m->c : at;
        for (int64_t i = 0; i < n + m->k - 1; i++)
            line[i] = i < before || i - before >= n ? OUTSIDE : m->sign * p[(i - before) * step];
        window_max(line, n, m->k);
        for (int64_t i = 0; i < n; i++)
            p[i * step] = m->sign * line[i];
    }
    at_free(line);
}

static at_status morph_pass(const at_pixels *x, float *p, int64_t k, float sign)
{
    morph m = {.p = p, .h = x->h, .w = x->w, .c = x->c, .k = k, .sign = sign, .x = true};
    at_parallel_for(x->b * x->h * x->c, 16, morph_lines, &m);
    m.x = false;
    at_parallel_for(x->b * x->w * x->c, 16, morph_lines, &m);
    return m.no_memory ? at_fail(AT_ENOMEM, "Morphology: no memory") : AT_OK;
}

// First pass, second pass (0: none), and what the result is: 0 itself, 1 picture - result, 2 result -
// picture; gradient is dilated - eroded.
static at_status morph_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const morph_in *i = in;
    at_pixels x;
    at_tensor *t = NULL, *other = NULL;
    float *p, *q;
    char op = i->operation[0];
    bool erode_first = op == 'e' || op == 'o' || op == 't';
    int64_t k = i->kernel_size, n;

    AT_TRY(at_pixels_of("Morphology", i->image, &x));
    if (k < 1 || k > AT_MAX_RESOLUTION)
        AT_TRY(at_fail(AT_EINVAL, "Morphology: kernel_size %lld is not 1 to %d", (long long)k,
                       AT_MAX_RESOLUTION));
    AT_TRY(at_pixels_new("Morphology", x.b, x.h, x.w, x.c, &t, &p));
    n = at_tensor_count(t);
    memcpy(p, x.p, at_tensor_bytes(t));
    AT_TRY(morph_pass(&x, p, k, erode_first ? -1.0f : 1.0f));
    if (op == 'g') {
        AT_TRY(at_pixels_new("Morphology", x.b, x.h, x.w, x.c, &other, &q));
        memcpy(q, x.p, at_tensor_bytes(t));
        AT_TRY(morph_pass(&x, q, k, -1.0f));
        for (int64_t v = 0; v < n; v++)
            p[v] -= q[v];
    } else if (op != 'e' && op != 'd') {
        AT_TRY(morph_pass(&x, p, k, erode_first ? 1.0f : -1.0f));
    }
    for (int64_t v = 0; v < n && (op == 't' || op == 'b'); v++)
        p[v] = op == 't' ? x.p[v] - p[v] : p[v] - x.p[v];
    AT_TRY(at_give_image("Morphology", at_tensor_retain(t), out));
out:
    at_tensor_release(&t);
    at_tensor_release(&other);
    return st;
}
static const at_node node_morph = AT_PIXEL_NODE(
    "Morphology", "ImageMorphology", "image/postprocessing", "comfy_extras.nodes_morphology",
    AT_NODE_V3, morph_rows, morph_in, at_image_out, morph_run);

// --- Canny -------------------------------------------------------------------------------------------
typedef struct canny_in {
    at_object *image;
    double low_threshold, high_threshold;
} canny_in;
static const at_in canny_rows[] = {
    AT_ROW_LINK(canny_in, image, "IMAGE"),
    AT_ROW_FLOAT_STEP(canny_in, low_threshold, 0.4, 0.01, 0.99, 0.01),
    AT_ROW_FLOAT_STEP(canny_in, high_threshold, 0.8, 0.01, 0.99, 0.01)};

enum { NONE, WEAK, STRONG };

typedef struct canny {
    int64_t h, w;
    float *grey, *blurred; // then: magnitudes
    float *direction;      // in eighths of a turn, rounded
    uint8_t *edge;         // NONE, WEAK, STRONG
    int32_t *stack;        // strong places whose neighbours are to be looked at
} canny;

static void canny_free(canny *k)
{
    at_free(k->grey);
    at_free(k->blurred);
    at_free(k->direction);
    at_free(k->edge);
    at_free(k->stack);
}

static at_status canny_new(canny *k, int64_t h, int64_t w)
{
    size_t n = (size_t)(h * w);
    k->h = h, k->w = w;
    if (h < 3 || w < 3)
        return at_fail(AT_EINVAL, "Canny: a picture of %lld x %lld is too small: 3 x 3 at least",
                       (long long)w, (long long)h);
    if (h * w > INT32_MAX)
        return at_fail(AT_EINVAL, "Canny: a picture of %lld x %lld is too large", (long long)w,
                       (long long)h);
    k->grey = at_alloc(n * sizeof *k->grey);
    k->blurred = at_alloc(n * sizeof *k->blurred);
    k->direction = at_alloc(n * sizeof *k->direction);
    k->edge = at_alloc(n);
    k->stack = at_alloc(n * sizeof *k->stack);
    if (!k->grey || !k->blurred || !k->direction || !k->edge || !k->stack)
        return at_fail(AT_ENOMEM, "Canny: no memory for %lld x %lld pixels", (long long)w,
                       (long long)h);
    return AT_OK;
}

static int64_t mirrored(int64_t i, int64_t n)
{
    return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
}
static int64_t nearest(int64_t i, int64_t n)
{
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

// Gaussian of 5 taps with sigma 1, along x into `to`, or along y.
static void canny_blur(const canny *k, const float *from, float *to, bool x)
{
    float w[5], sum = 0;
    for (int i = 0; i < 5; i++)
        sum += w[i] = expf(-(float)((i - 2) * (i - 2)) / 2.0f);
    for (int64_t r = 0; r < k->h; r++)
        for (int64_t c = 0; c < k->w; c++) {
            float v = 0;
            for (int64_t i = -2; i <= 2; i++)
                v += w[i + 2] / sum *
                     (x ? from[r * k->w + mirrored(c + i, k->w)]
                        : from[mirrored(r + i, k->h) * k->w + c]);
            to[r * k->w + c] = v;
        }
}

// Sobel: strength into `grey` (no longer needed), direction beside it.
static void canny_gradient(const canny *k)
{
    for (int64_t r = 0; r < k->h; r++)
        for (int64_t c = 0; c < k->w; c++) {
            const float *row[3];
            int64_t l = nearest(c - 1, k->w), g = nearest(c + 1, k->w);
            for (int64_t i = -1; i <= 1; i++)
                row[i + 1] = k->blurred + nearest(r + i, k->h) * k->w;
            float gx =
                -row[0][l] + row[0][g] - 2 * row[1][l] + 2 * row[1][g] - row[2][l] + row[2][g];
            float gy =
                -row[0][l] - 2 * row[0][c] - row[0][g] + row[2][l] + 2 * row[2][c] + row[2][g];
            k->grey[r * k->w + c] = sqrtf(gx * gx + gy * gy + 1e-6f);
            float turn = rintf(atan2f(gy, gx) * (float)(4 / 3.14159265358979323846));
            k->direction[r * k->w + c] = isnan(turn) ? 0.0f : turn;
        }
}

// The strength at a place, 0 outside.
static float strength(const canny *k, int64_t r, int64_t c)
{
    return r < 0 || c < 0 || r >= k->h || c >= k->w ? 0.0f : k->grey[r * k->w + c];
}

// Keep strict maxima along the gradient; returns how many strong places lie on the stack.
static int64_t canny_thin(const canny *k, float low, float high)
{
    static const int dx[8] = {1, 1, 0, -1, -1, -1, 0, 1}, dy[8] = {0, 1, 1, 1, 0, -1, -1, -1};
    int64_t n = 0;
    for (int64_t r = 0; r < k->h; r++)
        for (int64_t c = 0; c < k->w; c++) {
            int64_t at = r * k->w + c;
            int d = (int)k->direction[at] & 7; // -4 .. 4
            float v = k->grey[at];
            bool top =
                v > strength(k, r + dy[d], c + dx[d]) && v > strength(k, r - dy[d], c - dx[d]);
            k->edge[at] = !top ? NONE : v > high ? STRONG : v > low ? WEAK : NONE;
            if (k->edge[at] == STRONG) k->stack[n++] = (int32_t)at;
        }
    return n;
}

// Weak places beside strong ones become strong, and so on.
static void canny_grow(const canny *k, int64_t n)
{
    while (n > 0) {
        int64_t at = k->stack[--n], r = at / k->w, c = at % k->w;
        for (int64_t y = r - 1; y <= r + 1; y++)
            for (int64_t x = c - 1; x <= c + 1; x++) {
                if (y < 0 || x < 0 || y >= k->h || x >= k->w || k->edge[y * k->w + x] != WEAK)
                    continue;
                k->edge[y * k->w + x] = STRONG;
                k->stack[n++] = (int32_t)(y * k->w + x);
            }
    }
}

static void canny_picture(canny *k, const float *p, int64_t channels, const canny_in *i, float *out)
{
    for (int64_t n = 0; n < k->h * k->w; n++, p += channels)
        k->grey[n] = channels == 3 ? 0.299f * p[0] + 0.587f * p[1] + 0.114f * p[2] : p[0];
    canny_blur(k, k->grey, k->direction, true);
    canny_blur(k, k->direction, k->blurred, false);
    canny_gradient(k);
    canny_grow(k, canny_thin(k, (float)i->low_threshold, (float)i->high_threshold));
    for (int64_t n = 0; n < 3 * k->h * k->w; n++)
        out[n] = k->edge[n / 3] == STRONG ? 1.0f : 0.0f;
}

static at_status canny_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const canny_in *i = in;
    at_pixels x;
    at_tensor *t = NULL;
    float *p;
    canny k = {0};

    AT_TRY(at_pixels_of("Canny", i->image, &x));
    if (x.c != 1 && x.c != 3)
        AT_TRY(
            at_fail(AT_EINVAL, "Canny: the picture has %lld channels, not 1 or 3", (long long)x.c));
    if (!(0 < i->low_threshold && i->low_threshold <= i->high_threshold && i->high_threshold < 1))
        AT_TRY(at_fail(AT_EINVAL,
                       "Canny: low_threshold %g and high_threshold %g must lie between 0 and 1, "
                       "and low not above high",
                       i->low_threshold, i->high_threshold));
    AT_TRY(canny_new(&k, x.h, x.w));
    AT_TRY(at_pixels_new("Canny", x.b, x.h, x.w, 3, &t, &p));
    for (int64_t b = 0; b < x.b; b++)
        canny_picture(&k, at_picture_at(&x, b), x.c, i, p + b * x.h * x.w * 3);
    st = at_give_image("Canny", t, out);
out:
    canny_free(&k);
    return st;
}
static const at_node node_canny =
    AT_PIXEL_NODE("Canny", NULL, "image/preprocessors", "comfy_extras.nodes_canny", AT_NODE_V3,
                  canny_rows, canny_in, at_image_out, canny_run);

const at_node *const at_nodes_post_edges[] = {&node_morph, &node_canny, NULL};
