// SPDX-License-Identifier: Apache-2.0
// node_image_composite.c - ImageCompositeMasked and PorterDuffImageComposite: one picture over another.
// Idea: Porter-Duff works on colours multiplied by their alpha; a row of the table says what a mode does to one
// channel and to the alpha, and the loop around it is the same for all.
// Easy to get wrong: the masks that come in are what is transparent (1 - alpha), and so is the mask given.
// Sources: ComfyUI 0.3.64, behaviour of nodes_mask.py and nodes_compositing.py; Porter and Duff 1984.
#include "nodes/nodes.h"
#include "nodes/pixels.h"

#include <math.h>
#include <string.h>

#include "image/paste.h"

// --- ImageCompositeMasked ----------------------------------------------------------------------------
typedef struct over_in {
    at_object *destination, *source;
    int64_t x, y;
    bool resize_source;
    at_object *mask;
} over_in;
static const at_in over_rows[] = {AT_ROW_LINK_BARE(over_in, destination, "IMAGE"),
                                  AT_ROW_LINK_BARE(over_in, source, "IMAGE"),
                                  AT_ROW_INT_STEP(over_in, x, 0, 0, AT_MAX_RESOLUTION, 1),
                                  AT_ROW_INT_STEP(over_in, y, 0, 0, AT_MAX_RESOLUTION, 1),
                                  AT_ROW(over_in, resize_source, AT_IN_BOOL, .def = 0),
                                  AT_ROW(over_in, mask, AT_IN_OBJECT, .type_name = "MASK",
                                         .flags = AT_INF_OPTIONAL | AT_INF_NO_OPTIONS)};

// The source with the destination's channels: more are cut off.
static at_status over_channels(const at_pixels *d, const at_pixels *s, at_tensor **out)
{
    at_status st = AT_OK;
    at_tensor *part = NULL;
    float *p;

    if (s->c < d->c)
        AT_TRY(at_fail(AT_EINVAL,
                       "ImageCompositeMasked: the destination has %lld channels and the source "
                       "%lld: take the destination's alpha away (SplitImageWithAlpha)",
                       (long long)d->c, (long long)s->c));
    AT_TRY(at_pixels_new("ImageCompositeMasked", s->b, s->h, s->w, d->c, &part, &p));
    for (int64_t n = 0; n < s->b * s->h * s->w; n++)
        memcpy(p + n * d->c, s->p + n * s->c, (size_t)d->c * sizeof *p);
    *out = part;
    part = NULL;
out:
    at_tensor_release(&part);
    return st;
}

static at_status over_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const over_in *i = in;
    at_paste_spec how = {.x = i->x, .y = i->y, .unit = 1, .resize = i->resize_source};
    at_pixels d, s, m = {0};
    at_tensor *cut = NULL, *t = NULL;

    AT_TRY(at_pixels_of("ImageCompositeMasked", i->destination, &d));
    AT_TRY(at_pixels_of("ImageCompositeMasked", i->source, &s));
    if (i->mask) AT_TRY(at_mask_of("ImageCompositeMasked", i->mask, &m));
    how.mask = m.t;
    if (s.c != d.c) AT_TRY(over_channels(&d, &s, &cut));
    st = at_paste(d.t, cut ? cut : s.t, AT_ORDER_NHWC, &how, &t);
    if (st != AT_OK) AT_TRY(at_fail_context(st, "ImageCompositeMasked: "));
    st = at_give_image("ImageCompositeMasked", t, out);
out:
    at_tensor_release(&cut);
    return st;
}
static const at_node node_over =
    AT_PIXEL_NODE("ImageCompositeMasked", NULL, "image", "comfy_extras.nodes_mask", 0, over_rows,
                  over_in, at_image_out, over_run);

// --- PorterDuffImageComposite ------------------------------------------------------------------------
typedef struct duff_in {
    at_object *source, *source_alpha, *destination, *destination_alpha;
    const char *mode;
} duff_in;

// s, d: colours times alpha; sa, da: alphas. Each gives a channel, or the alpha.
typedef float duff_channel(float s, float sa, float d, float da);
typedef struct duff_mode {
    const char *name;
    duff_channel *color, *alpha;
} duff_mode;

#define DUFF(name, expression)                                                                     \
    static float name(float s, float sa, float d, float da)                                        \
    {                                                                                              \
        (void)s, (void)sa, (void)d, (void)da;                                                      \
        return expression;                                                                         \
    }
DUFF(c_zero, 0.0f)
DUFF(c_add, at_clamp01(s + d))
DUFF(a_add, at_clamp01(sa + da))
DUFF(a_union, sa + da - sa * da)
DUFF(a_both, sa *da)
DUFF(c_darken, (1 - da) * s + (1 - sa) * d + (s < d ? s : d))
DUFF(c_lighten, (1 - da) * s + (1 - sa) * d + (s > d ? s : d))
DUFF(c_source, s)
DUFF(a_source, sa)
DUFF(c_destination, d)
DUFF(a_destination, da)
DUFF(c_dst_atop, sa *d + (1 - da) * s)
DUFF(c_dst_in, d *sa)
DUFF(c_dst_out, (1 - sa) * d)
DUFF(a_dst_out, (1 - sa) * da)
DUFF(c_dst_over, d + (1 - da) * s)
DUFF(a_dst_over, da + (1 - da) * sa)
DUFF(c_multiply, s *d)
DUFF(c_overlay, 2 * d < da ? 2 * s * d : sa * da - 2 * (da - s) * (sa - d))
DUFF(c_screen, s + d - s * d)
DUFF(c_src_atop, da *s + (1 - sa) * d)
DUFF(c_src_in, s *da)
DUFF(c_src_out, (1 - da) * s)
DUFF(a_src_out, (1 - da) * sa)
DUFF(c_src_over, s + (1 - sa) * d)
DUFF(a_src_over, sa + (1 - sa) * da)
DUFF(c_xor, (1 - da) * s + (1 - sa) * d)
DUFF(a_xor, (1 - da) * sa + (1 - sa) * da)

static const duff_mode modes[] = {
    {"ADD", c_add, a_add},
    {"CLEAR", c_zero, c_zero},
    {"DARKEN", c_darken, a_union},
    {"DST", c_destination, a_destination},
    {"DST_ATOP", c_dst_atop, a_source},
    {"DST_IN", c_dst_in, a_both},
    {"DST_OUT", c_dst_out, a_dst_out},
    {"DST_OVER", c_dst_over, a_dst_over},
    {"LIGHTEN", c_lighten, a_union},
    {"MULTIPLY", c_multiply, a_both},
    {"OVERLAY", c_overlay, a_union},
    {"SCREEN", c_screen, a_union},
    {"SRC", c_source, a_source},
    {"SRC_ATOP", c_src_atop, a_destination},
    {"SRC_IN", c_src_in, a_both},
    {"SRC_OUT", c_src_out, a_src_out},
    {"SRC_OVER", c_src_over, a_src_over},
    {"XOR", c_xor, a_xor},
};
static const char *const mode_names[] = {"ADD",     "CLEAR",    "DARKEN",   "DST",      "DST_ATOP",
                                         "DST_IN",  "DST_OUT",  "DST_OVER", "LIGHTEN",  "MULTIPLY",
                                         "OVERLAY", "SCREEN",   "SRC",      "SRC_ATOP", "SRC_IN",
                                         "SRC_OUT", "SRC_OVER", "XOR",      NULL};
static const at_in duff_rows[] = {
    AT_ROW_LINK(duff_in, source, "IMAGE"), AT_ROW_LINK(duff_in, source_alpha, "MASK"),
    AT_ROW_LINK(duff_in, destination, "IMAGE"), AT_ROW_LINK(duff_in, destination_alpha, "MASK"),
    AT_ROW(duff_in, mode, AT_IN_COMBO, .choices = mode_names, .sdef = "DST")};

// x at the destination's size: bicubic, cut around the middle, as ComfyUI does for all of them.
static at_status duff_fit(const at_pixels *to, at_pixels *x, at_tensor **fit)
{
    if (x->h == to->h && x->w == to->w) return AT_OK;
    at_status st = at_pixels_resize("PorterDuffImageComposite", x->t, to->w, to->h,
                                    AT_RESIZE_BICUBIC, true, fit);
    return st == AT_OK ? at_pixels_look("PorterDuffImageComposite", *fit, x) : st;
}

typedef struct duff {
    at_pixels s, sa, d, da;
    at_tensor *fit[3];
} duff;

static at_status duff_inputs(const duff_in *i, duff *x)
{
    at_status st = AT_OK;
    AT_TRY(at_pixels_of("PorterDuffImageComposite", i->source, &x->s));
    AT_TRY(at_mask_of("PorterDuffImageComposite", i->source_alpha, &x->sa));
    AT_TRY(at_pixels_of("PorterDuffImageComposite", i->destination, &x->d));
    AT_TRY(at_mask_of("PorterDuffImageComposite", i->destination_alpha, &x->da));
    if (x->s.c != x->d.c)
        AT_TRY(at_fail(AT_EINVAL,
                       "PorterDuffImageComposite: the source has %lld channels and the "
                       "destination %lld: they must be equal",
                       (long long)x->s.c, (long long)x->d.c));
    AT_TRY(duff_fit(&x->d, &x->da, &x->fit[0]));
    AT_TRY(duff_fit(&x->d, &x->s, &x->fit[1]));
    AT_TRY(duff_fit(&x->d, &x->sa, &x->fit[2]));
out:
    return st;
}

static void duff_pixels(const duff *x, const duff_mode *m, int64_t count, float *p, float *mask)
{
    int64_t c = x->d.c;
    for (int64_t n = 0; n < count; n++) {
        float sa = 1 - x->sa.p[n], da = 1 - x->da.p[n], a = m->alpha(0, sa, 0, da);
        for (int64_t k = 0; k < c; k++) {
            float v = m->color(x->s.p[n * c + k] * sa, sa, x->d.p[n * c + k] * da, da);
            p[n * c + k] = a > 1e-5f ? at_clamp01(v / a) : 0.0f;
        }
        mask[n] = 1 - a;
    }
}

static at_status duff_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_status st = AT_OK;
    const duff_in *i = in;
    duff x = {0};
    at_tensor *t = NULL, *mask = NULL;
    float *p, *m;
    size_t mode = 0;

    AT_TRY(duff_inputs(i, &x));
    while (mode < AT_COUNT(modes) - 1 && strcmp(modes[mode].name, i->mode) != 0)
        mode++;
    int64_t b = x.s.b;
    for (int k = 0; k < 3; k++) {
        int64_t other = (const int64_t[]){x.sa.b, x.d.b, x.da.b}[k];
        b = other < b ? other : b;
    }
    AT_TRY(at_pixels_new("PorterDuffImageComposite", b, x.d.h, x.d.w, x.d.c, &t, &p));
    AT_TRY(at_mask_new("PorterDuffImageComposite", b, x.d.h, x.d.w, &mask, &m));
    duff_pixels(&x, &modes[mode], b * x.d.h * x.d.w, p, m);
    AT_TRY(at_give(&out[0], at_obj_image_new(at_tensor_retain(t)), "PorterDuffImageComposite"));
    AT_TRY(at_give(&out[1], at_obj_mask_new(at_tensor_retain(mask)), "PorterDuffImageComposite"));
out:
    for (size_t k = 0; k < AT_COUNT(x.fit); k++)
        at_tensor_release(&x.fit[k]);
    at_tensor_release(&t);
    at_tensor_release(&mask);
    return st;
}
static const at_node node_duff = AT_PIXEL_NODE(
    "PorterDuffImageComposite", "Porter-Duff Image Composite", "mask/compositing",
    "comfy_extras.nodes_compositing", AT_NODE_V3, duff_rows, duff_in, at_image_mask_out, duff_run);

const at_node *const at_nodes_image_composite[] = {&node_over, &node_duff, NULL};
