// SPDX-License-Identifier: Apache-2.0
// node_testing.c - nodes of ComfyUI's own test suite: stubs of pictures, a lazy mixer, and the list of all.
// Idea: what a recorded trace of a real server ran must run here, so that a client's view can be compared.
// Source: ComfyUI 0.3.64, behaviour of tests/execution/testing_nodes/testing-pack.
// Easy to get wrong: they are in no list unless the engine was opened with test_nodes.
#include "nodes/nodes.h"
#include "nodes/pixels.h"
#include "nodes/testing.h"

#include <string.h>

#include "base/mem.h"

#define STUB_SIDES(st)                                                                             \
    AT_ROW_INT_STEP(st, height, 512, 1, 1073741824, 1),                                            \
        AT_ROW_INT_STEP(st, width, 512, 1, 68719476736, 1),                                        \
        AT_ROW_INT_STEP(st, batch_size, 1, 1, 1073741824, 1)
// --- StubImage, StubConstantImage, StubMask ----------------------------------------------------------
typedef struct stub_in {
    const char *content;
    double value;
    int64_t height, width, batch_size;
} stub_in;
static const char *const contents[] = {"WHITE", "BLACK", "NOISE", NULL};
static const at_in image_rows[] = {
    AT_ROW(stub_in, content, AT_IN_COMBO, .choices = contents, .flags = AT_INF_NO_OPTIONS),
    STUB_SIDES(stub_in)};
static const at_in value_rows[] = {AT_ROW_FLOAT_STEP(stub_in, value, 0.5, 0, 1, 0.01),
                                   STUB_SIDES(stub_in)};

static at_status stub_fill(const stub_in *i, int64_t channels, at_tensor **t)
{
    float *p;
    at_status st = at_pixels_new("StubImage", i->batch_size, i->height, i->width, channels, t, &p);
    uint32_t seed = 1;
    for (int64_t k = 0; st == AT_OK && k < at_tensor_count(*t); k++) {
        seed = seed * 1664525u + 1013904223u; // any noise does
        p[k] = !i->content                        ? (float)i->value
               : strcmp(i->content, "NOISE") == 0 ? (float)(seed >> 8) / 16777216.0f
                                                  : (float)(strcmp(i->content, "WHITE") == 0);
    }
    return st;
}
static at_status image_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    at_tensor *t = NULL;
    at_status st = stub_fill(in, 3, &t);
    return st == AT_OK ? at_give_image("StubImage", t, out) : st;
}
static at_status mask_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const stub_in *i = in;
    at_tensor *t = NULL;
    float *p;
    at_status st = at_mask_new("StubMask", i->batch_size, i->height, i->width, &t, &p);
    for (int64_t k = 0; st == AT_OK && k < at_tensor_count(t); k++)
        p[k] = (float)i->value;
    return st == AT_OK ? at_give_mask("StubMask", t, out) : st;
}
static const at_out mask_out[] = {AT_OUT("MASK")};
static const at_node node_image = AT_TEST_NODE("StubImage", "Stub Image", "Testing/Stub Nodes",
                                               image_rows, stub_in, at_image_out, image_run);
static const at_node node_constant =
    AT_TEST_NODE("StubConstantImage", "Stub Constant Image", "Testing/Stub Nodes", value_rows,
                 stub_in, at_image_out, image_run);
static const at_node node_mask = AT_TEST_NODE("StubMask", "Stub Mask", "Testing/Stub Nodes",
                                              value_rows, stub_in, mask_out, mask_run);

// --- TestLazyMixImages -------------------------------------------------------------------------------
typedef struct mix_in {
    at_object *image1, *image2, *mask;
} mix_in;
static const at_in mix_rows[] = {
    AT_ROW(mix_in, image1, AT_IN_OBJECT, .type_name = "IMAGE", .flags = AT_INF_LAZY),
    AT_ROW(mix_in, image2, AT_IN_OBJECT, .type_name = "IMAGE", .flags = AT_INF_LAZY),
    AT_ROW_LINK_BARE(mix_in, mask, "MASK")};

static at_status mask_range(const at_object *mask, at_pixels *m, float *lo, float *hi)
{
    at_status st = at_mask_of("TestLazyMixImages", mask, m);
    if (st != AT_OK) return st;
    *lo = *hi = m->p[0];
    for (int64_t k = 0; k < m->b * m->h * m->w; k++) {
        if (m->p[k] < *lo) *lo = m->p[k];
        if (m->p[k] > *hi) *hi = m->p[k];
    }
    return AT_OK;
}
static at_status mix_lazy(at_node_ctx *c, const void *in)
{
    const mix_in *i = in;
    at_pixels m;
    float lo, hi;
    at_status st = AT_OK;
    AT_TRY(mask_range(i->mask, &m, &lo, &hi));
    if (!i->image1 && (lo != 1.0f || hi != 1.0f)) AT_TRY(at_node_need(c, "image1"));
    if (!i->image2 && (lo != 0.0f || hi != 0.0f)) AT_TRY(at_node_need(c, "image2"));
out:
    return st;
}
static at_status mix_run(at_node_ctx *c, const void *in, at_value *out)
{
    (void)c;
    const mix_in *i = in;
    at_status st = AT_OK;
    at_pixels m, a, b;
    at_tensor *t = NULL;
    float lo, hi, *p;

    AT_TRY(mask_range(i->mask, &m, &lo, &hi));
    if (lo == 0.0f && hi == 0.0f) return at_give_same(i->image1, out);
    if (lo == 1.0f && hi == 1.0f) return at_give_same(i->image2, out);
    AT_TRY(at_pixels_of("TestLazyMixImages", i->image1, &a));
    AT_TRY(at_pixels_of("TestLazyMixImages", i->image2, &b));
    if (a.w != b.w || a.h != b.h || m.w != a.w || m.h != a.h) {
        bool w = a.w != b.w || m.w != a.w;
        AT_TRY(at_fail(AT_EDEVICE, // ComfyUI's RuntimeError
                       "The size of tensor a (%lld) must match the size of tensor b (%lld) at "
                       "non-singleton dimension %d",
                       (long long)(w ? (a.w != b.w ? b.w : m.w) : (a.h != b.h ? b.h : m.h)),
                       (long long)(w ? a.w : a.h), w ? 2 : 1));
    }
    AT_TRY(at_pixels_new("TestLazyMixImages", a.b, a.h, a.w, a.c, &t, &p));
    for (int64_t n = 0; n < a.b; n++)
        for (int64_t k = 0; k < a.h * a.w * a.c; k++) {
            float w = at_picture_at(&m, n)[k / a.c];
            *p++ = at_picture_at(&a, n)[k] * (1.0f - w) + at_picture_at(&b, n)[k] * w;
        }
    st = at_give_image("TestLazyMixImages", t, out);
out:
    return st;
}
static const at_node node_mix =
    AT_TEST_NODE("TestLazyMixImages", "Lazy Mix Images", "Testing/Nodes", mix_rows, mix_in,
                 at_image_out, mix_run, .lazy = mix_lazy);

const at_node *const at_nodes_test[] = {&node_image,
                                        &node_constant,
                                        &node_mask,
                                        &node_mix,
                                        &at_node_test_crash,
                                        &at_node_test_int,
                                        &at_node_test_float,
                                        &at_node_test_ints,
                                        &at_node_test_floats,
                                        &at_node_test_texts,
                                        &at_node_test_bool,
                                        &at_node_test_gate,
                                        &at_node_test_math,
                                        &at_node_test_block,
                                        &at_node_test_accumulate,
                                        &at_node_test_head,
                                        &at_node_test_tail,
                                        &at_node_test_to_list,
                                        &at_node_test_of_list,
                                        &at_node_test_length,
                                        &at_node_test_get_item,
                                        &at_node_test_set_item,
                                        &at_node_test_make_list,
                                        &at_node_test_while_open,
                                        &at_node_test_while_close,
                                        &at_node_test_for_open,
                                        &at_node_test_for_close,
                                        &at_node_test_average,
                                        &at_node_test_changed,
                                        &at_node_test_changed_constants,
                                        &at_node_test_check1,
                                        &at_node_test_check2,
                                        &at_node_test_check3,
                                        &at_node_test_check4,
                                        &at_node_test_check5,
                                        &at_node_test_scaled,
                                        &at_node_test_check_value,
                                        &at_node_test_check_max,
                                        &at_node_test_sleep,
                                        &at_node_test_async_error,
                                        &at_node_test_timeout,
                                        &at_node_test_sync_error,
                                        &at_node_test_async_lazy,
                                        &at_node_test_resource,
                                        &at_node_test_batch,
                                        &at_node_test_limit,
                                        &at_node_test_async_progress,
                                        &at_node_test_sync_progress,
                                        &at_node_test_cycle,
                                        &at_node_test_mixed,
                                        &at_node_test_sampling,
                                        &at_node_test_parallel,
                                        &at_node_test_dynamic,
                                        NULL};
