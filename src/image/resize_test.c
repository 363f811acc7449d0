// SPDX-License-Identifier: Apache-2.0
// resize_test.c - resizing against the numbers of torch 2.13, Pillow 11.3 and ComfyUI's bislerp.
#include "image/resize.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

typedef struct row {
    const char *how;
    int n, c, h, w, width, height;
    bool centre;
    int at; // in want[], as NHWC
} row;

static const row rows[] = {
    {"nearest-exact", 1, 3, 4, 5, 7, 3, false, 0}, {"nearest-exact", 1, 1, 7, 6, 3, 2, false, 63},
    {"bilinear", 1, 3, 4, 3, 5, 2, false, 69},     {"bilinear", 2, 1, 3, 5, 2, 7, true, 99},
    {"area", 1, 2, 5, 7, 3, 2, false, 127},        {"area", 1, 1, 2, 3, 4, 5, false, 139},
    {"bicubic", 1, 3, 4, 3, 5, 2, false, 159},     {"bicubic", 1, 1, 6, 9, 4, 4, true, 189},
    {"lanczos", 1, 3, 6, 9, 4, 5, false, 205},     {"lanczos", 1, 4, 5, 3, 3, 7, false, 265},
    {"lanczos", 1, 2, 4, 4, 6, 2, false, 349},     {"lanczos", 1, 3, 9, 4, 5, 9, true, 373},
    {"bislerp", 1, 4, 3, 4, 5, 4, false, 508},     {"bislerp", 1, 3, 6, 5, 3, 4, true, 588},
};
static const float want[] = {0.1145833f,  0.5729167f,
                             0.1666667f,  0.9166667f,
                             0.8020833f,  0.8333333f,
                             0.9166667f,  0.8020833f,
                             0.8333333f,  0,
                             0.3229167f,  0.7916667f,
                             0.3958333f,  0.1458333f,
                             0.04166667f, 0.3958333f,
                             0.1458333f,  0.04166667f,
                             0.08333334f, 0.2708333f,
                             0.6041667f,  0.5104167f,
                             0.2916667f,  0.21875f,
                             0.2916667f,  0.5104167f,
                             0.875f,      0.2916667f,
                             0.5104167f,  0.875f,
                             0.375f,      0.02083333f,
                             0.8229167f,  0.7604167f,
                             0.84375f,    0.0625f,
                             0.7604167f,  0.84375f,
                             0.0625f,     0.4375f,
                             0.9583333f,  0.6145833f,
                             0.4166667f,  0.3645833f,
                             0.4583333f,  0.6979167f,
                             0.07291666f, 0.6041667f,
                             0.6979167f,  0.07291666f,
                             0.6041667f,  0.2708333f,
                             0.08333334f, 0.04166667f,
                             0.1458333f,  0.3958333f,
                             0.7916667f,  0.1458333f,
                             0.3958333f,  0.7916667f,
                             0.3229167f,  0,
                             0.8333333f,  0.3229167f,
                             0.3958333f,  0.04166667f,
                             0.2916667f,  0.2916667f,
                             0.875f,      0.2552083f,
                             0.359375f,   0.1041667f,
                             0.353125f,   0.4302083f,
                             0.35f,       0.5f,
                             0.5364583f,  0.71875f,
                             0.221875f,   0.5208333f,
                             0.6625f,     0.03645833f,
                             0.5104167f,  0.625f,
                             0.1927083f,  0.3958333f,
                             0.7447916f,  0.409375f,
                             0.3833333f,  0.503125f,
                             0.734375f,   0.3645833f,
                             0.140625f,   0.634375f,
                             0.5270834f,  0.5656251f,
                             0.5677084f,  0.6354167f,
                             0.8489584f,  0.1666667f,
                             0.1666667f,  0.1889881f,
                             0.1889881f,  0.2559524f,
                             0.2559524f,  0.3229167f,
                             0.3229167f,  0.2202381f,
                             0.2202381f,  0.1175595f,
                             0.1175595f,  0.08333334f,
                             0.08333334f, 0.4583333f,
                             0.4583333f,  0.4553572f,
                             0.4553572f,  0.4464286f,
                             0.4464286f,  0.4375f,
                             0.4375f,     0.2589286f,
                             0.2589285f,  0.08035711f,
                             0.08035711f, 0.02083333f,
                             0.02083333f, 0.4282407f,
                             0.5254629f,  0.4571759f,
                             0.4641204f,  0.5740741f,
                             0.2662037f,  0.4571759f,
                             0.5960647f,  0.4282407f,
                             0.4768519f,  0.4872685f,
                             0.3333334f,  0.1145833f,
                             0.34375f,    0.3697917f,
                             0.1666667f,  0.1145833f,
                             0.34375f,    0.3697917f,
                             0.1666667f,  0.515625f,
                             0.6015625f,  0.59375f,
                             0.5f,        0.9166667f,
                             0.859375f,   0.8177083f,
                             0.8333333f,  0.9166667f,
                             0.859375f,   0.8177083f,
                             0.8333333f,  0.2427943f,
                             0.3160469f,  -0.01857547f,
                             0.3528242f,  0.4076537f,
                             0.3423244f,  0.4179688f,
                             0.5208333f,  0.7695312f,
                             0.1517656f,  0.5243255f,
                             0.7119334f,  -0.07936978f,
                             0.5029949f,  0.5736642f,
                             0.1296225f,  0.4251615f,
                             0.8665339f,  0.4456134f,
                             0.386513f,   0.4664257f,
                             0.8164062f,  0.3802083f,
                             0.08984375f, 0.7535468f,
                             0.5370287f,  0.5243167f,
                             0.6230366f,  0.6663387f,
                             0.9592944f,  0.1789129f,
                             0.7448356f,  0.8432613f,
                             0.07544498f, 0.4908062f,
                             0.6917871f,  0.1579517f,
                             0.6680033f,  0.8645817f,
                             0.4627208f,  0.2538136f,
                             0.2602326f,  0.5627502f,
                             0.5634962f,  0.3885476f,
                             0.3328155f,  0.4156863f,
                             0.6117647f,  0.5843138f,
                             0.254902f,   0.2745098f,
                             0.4823529f,  0.2627451f,
                             0.5294118f,  0.4235294f,
                             0.7568628f,  0.4313726f,
                             0.4431373f,  0.2588235f,
                             0.2588235f,  0.6235294f,
                             0.5176471f,  0.427451f,
                             0.6392157f,  0.4745098f,
                             0.6745098f,  0.5647059f,
                             0.5529412f,  0.3098039f,
                             0.3843137f,  0.3803922f,
                             0.6156863f,  0.7686275f,
                             0.7843137f,  0.4627451f,
                             0.454902f,   0.454902f,
                             0.4627451f,  0.7843137f,
                             0.7686275f,  0.6156863f,
                             0.3803922f,  0.3843137f,
                             0.3098039f,  0.5529412f,
                             0.5647059f,  0.6745098f,
                             0.4745098f,  0.6392157f,
                             0.427451f,   0.5176471f,
                             0.6235294f,  0.2588235f,
                             0.2588235f,  0.4431373f,
                             0.4313726f,  0.7568628f,
                             0.4235294f,  0.5294118f,
                             0.2627451f,  0.4823529f,
                             0.2745098f,  0.254902f,
                             0.5843138f,  0.6117647f,
                             0.4156863f,  0.1098039f,
                             0.5686275f,  0.1568628f,
                             0.9803922f,  0.8078431f,
                             0.8823529f,  0,
                             0.3098039f,  0.6f,
                             0.2666667f,  0.2f,
                             0.05882353f, 0.1098039f,
                             0.5176471f,  0.2235294f,
                             0.4901961f,  0.7764706f,
                             0.5215687f,  0.2117647f,
                             0.4039216f,  0.01960784f,
                             0.01176471f, 0,
                             0,           0,
                             0,           0,
                             0,           0.5529412f,
                             0.6f,        0.4313726f,
                             0.345098f,   0.227451f,
                             0.3843137f,  0.509804f,
                             0.3058824f,  0.8f,
                             0.8f,        0.8f,
                             0.01960784f, 0.3764706f,
                             0.8745098f,  0.509804f,
                             0.2901961f,  0.2117647f,
                             0.2901961f,  0.509804f,
                             0.8745098f,  0.3568628f,
                             0.02745098f, 0.8196079f,
                             0.6431373f,  0.8470588f,
                             0.1333333f,  0.4588235f,
                             0.8588235f,  0.372549f,
                             0.3647059f,  0.5137255f,
                             0.5647059f,  0.4352941f,
                             0.02352941f, 0.772549f,
                             0.6078432f,  0.682353f,
                             0.01176471f, 0.3607843f,
                             0.7686275f,  0.8117647f,
                             0.372549f,   0.08235294f,
                             0.5647059f,  0.8117647f,
                             0.09019608f, 0.5333334f,
                             0.2117647f,  0,
                             0.04705882f, 0.07058824f,
                             0.3294118f,  0.7803922f,
                             0.3137255f,  0,
                             0.8705882f,  0.4156863f,
                             0.4588235f,  0.2117647f,
                             0.4588235f,  0.2784314f,
                             0.5333334f,  0.6f,
                             0.6235294f,  0.5686275f,
                             0.3647059f,  0.08235294f,
                             0.1372549f,  0.827451f,
                             0.6392157f,  0.8666667f,
                             0.2980392f,  0.3803922f,
                             0.2156863f,  0.4431373f,
                             0.7960784f,  0.4823529f,
                             0.5333334f,  0.7254902f,
                             0.08627451f, 0.02745098f,
                             0.1882353f,  0.6039216f,
                             0.0627451f,  0.6f,
                             0.427451f,   0.1372549f,
                             0.6509804f,  0.5960785f,
                             0.5803922f,  0.3882353f,
                             0.4705882f,  1,
                             0.4352941f,  0,
                             0.682353f,   0.6705883f,
                             0.7215686f,  0.1098039f,
                             0.5176471f,  0.8509804f,
                             0.09803922f, 0.2745098f,
                             0.5294118f,  0.5490196f,
                             0.3137255f,  0.3686275f,
                             0.5019608f,  0.509804f,
                             0.6705883f,  0.7333333f,
                             0.5215687f,  0.8745098f,
                             0.4745098f,  0.5803922f,
                             0.7215686f,  0.4666667f,
                             0.6039216f,  0.3490196f,
                             0.4745098f,  0.5882353f,
                             0.4352941f,  0.2313726f,
                             0.4901961f,  0.8039216f,
                             0.3294118f,  0,
                             0.8666667f,  0.654902f,
                             0.4588235f,  0.1098039f,
                             0.572549f,   0.9568627f,
                             0.2196078f,  0.3294118f,
                             0.6941177f,  0.7254902f,
                             0.4588235f,  0.2235294f,
                             0.4235294f,  0.7176471f,
                             0.07450981f, 0.6509804f,
                             0.4235294f,  0.03529412f,
                             0.1411765f,  0.1215686f,
                             0.2941177f,  0.3254902f,
                             0.2f,        0.3019608f,
                             0.8980392f,  0.3333333f,
                             0,           0.8196079f,
                             0.8235294f,  0.8745098f,
                             0.172549f,   0.5607843f,
                             0.172549f,   0.5647059f,
                             0.5176471f,  0.1764706f,
                             0.7960784f,  0.372549f,
                             0.5490196f,  0.8313726f,
                             0.01960784f, 0.2901961f,
                             0.9882353f,  0.8f,
                             0.7333333f,  0.282353f,
                             0.6784314f,  0.6666667f,
                             0.5019608f,  0.8431373f,
                             0.6745098f,  0.6235294f,
                             0.6666667f,  0.6705883f,
                             0.772549f,   0.1803922f,
                             0.5843138f,  1,
                             0.5568628f,  0.5882353f,
                             0.627451f,   0.5450981f,
                             0.8313726f,  0.4941176f,
                             0.8392157f,  0.7411765f,
                             0.2392157f,  0.8980392f,
                             0.5411765f,  0.4509804f,
                             0.6078432f,  0.6509804f,
                             0.8470588f,  0.3333333f,
                             1,           0.6392157f,
                             0.4f,        0.654902f,
                             0.7921569f,  0.8039216f,
                             0.3490196f,  0.2666667f,
                             0.9568627f,  0.4823529f,
                             0.1098039f,  0.7333333f,
                             0.6313726f,  0.6784314f,
                             -1.541667f,  0.2916667f,
                             -1.333333f,  1.666667f,
                             0.3367767f,  1.307219f,
                             -2.381411f,  0.160766f,
                             1.295243f,   0.4728619f,
                             -1.855165f,  -1.404388f,
                             0.2810093f,  -0.7407025f,
                             -1.021904f,  -2.274376f,
                             -1.666667f,  -0.9166666f,
                             0.4166667f,  -1.708333f,
                             0.5966469f,  -0.1406773f,
                             -1.502135f,  0.2148694f,
                             0.861219f,   1.342578f,
                             -1.369997f,  -1.056989f,
                             1.241953f,   1.302185f,
                             -0.4633988f, -1.992039f,
                             0.6457922f,  0.7620344f,
                             0.2000845f,  -2.368259f,
                             -1.12683f,   0.981823f,
                             0.206516f,   -1.444488f,
                             0.6218988f,  -0.8138535f,
                             -0.8901241f, 0.3930865f,
                             1.257442f,   -0.8498915f,
                             0.4612695f,  -1.573415f,
                             1.983558f,   -0.1197971f,
                             1.55381f,    -1.062311f,
                             2.127133f,   0.3346623f,
                             0.3600554f,  -1.104956f,
                             0.1971749f,  0.8052775f,
                             -0.6915523f, -0.9191852f,
                             -1.125f,     -0.8333334f,
                             0.04166675f, 1.5f,
                             -0.7843174f, -1.651971f,
                             0.9108565f,  1.305489f,
                             0.4354367f,  -2.082058f,
                             0.6394254f,  1.602938f,
                             1.313805f,   -1.414665f,
                             -0.7108663f, 0.9507824f,
                             0.4583333f,  -0.3333334f,
                             -0.5416666f, -0.1666666f,
                             -1.275164f,  1.466706f,
                             -0.5616481f, -1.659319f,
                             -1.805612f,  0.04625413f,
                             -1.765499f,  -1.169706f,
                             0.4029709f,  -1.083717f,
                             -1.020873f,  -0.2507366f,
                             0.3759398f,  -2.31184f,
                             0.5686746f,  -0.1545638f,
                             2.083425f,   0.5531f,
                             0.3626542f,  -1.315274f,
                             -0.2484832f, 0.1013354f,
                             -2.23545f,   -0.5166977f,
                             -0.4017445f, -1.120888f,
                             1.709101f,   1.459231f,
                             1.296314f,   -0.4266054f,
                             0.1709771f,  0.5557827f,
                             1.554547f,   0.1806722f,
                             0.513166f,   1.101933f};

// ((7 i i + 37 i + 11) mod 97) / 96 in NHWC order; -2 to 2 for bislerp.
static float input_at(const row *r, int64_t i)
{
    float v = (float)((i * i * 7 + i * 37 + 11) % 97) / 96.0f;
    return strcmp(r->how, "bislerp") ? v : v * 4 - 2;
}

static at_tensor *input(const row *r, at_pixel_order order)
{
    int64_t n = r->n, c = r->c, h = r->h, w = r->w;
    at_tensor *t = NULL, *view = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 4, (int64_t[]){n, h, w, c}, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = input_at(r, i);
    if (order == AT_ORDER_NHWC) return t;
    // the same elements seen as NCHW or as a mask: a view with strides
    if (order == AT_ORDER_NCHW)
        assert_int_equal(at_tensor_permute(t, (int[]){0, 3, 1, 2}, &view), AT_OK);
    else
        assert_int_equal(at_tensor_reshape(t, 3, (int64_t[]){n, h, w}, &view), AT_OK);
    at_tensor_release(&t);
    return view;
}

static void expect(const row *r, at_pixel_order order, const at_tensor *t)
{
    const float *p = at_tensor_data(t);
    int64_t plane = (int64_t)r->height * r->width;
    // bislerp: acos near 1 turns the last bit of f32 into some 1e-5
    double tolerance = !strcmp(r->how, "lanczos") || !strcmp(r->how, "nearest-exact") ? 0
                       : !strcmp(r->how, "bislerp")                                   ? 2e-5
                                                                                      : 2e-6;
    assert_int_equal(at_tensor_count(t), r->n * plane * r->c);
    for (int64_t i = 0; i < at_tensor_count(t); i++) {
        int64_t c = i % r->c, xy = i / r->c % plane, n = i / r->c / plane;
        float got = order == AT_ORDER_NCHW ? p[(n * r->c + c) * plane + xy] : p[i];
        if (!(fabs((double)got - (double)want[r->at + i]) <= tolerance + 1e-7))
            fail_msg("%s %dx%d to %dx%d, order %d, value %lld: %.8g, not %.8g", r->how, r->w, r->h,
                     r->width, r->height, (int)order, (long long)i, (double)got,
                     (double)want[r->at + i]);
    }
}

static void every_way_gives_torchs_numbers_in_every_layout(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int order = 0; order <= (rows[i].c == 1 ? AT_ORDER_NHW : AT_ORDER_NCHW); order++) {
            const row *r = &rows[i];
            at_resize_how how;
            at_tensor *in = input(r, order), *out = NULL;
            assert_int_equal(at_resize_how_of(r->how, &how), AT_OK);
            assert_int_equal(at_resize(in, order, r->width, r->height, how, r->centre, &out),
                             AT_OK);
            assert_true(at_tensor_contiguous(out));
            expect(r, order, out);
            at_tensor_release(&in);
            at_tensor_release(&out);
        }
}

static void what_cannot_be_resized_is_refused(void **state)
{
    static const row one = {"area", 1, 1, 4, 5, 0, 0, false, 0},
                     thin = {"area", 1, 3, 1, 40, 0, 0, false, 0};
    at_tensor *in = input(&one, AT_ORDER_NHWC), *flat = input(&thin, AT_ORDER_NHWC), *out = NULL;
    at_resize_how how;
    (void)state;

    assert_int_equal(at_resize_how_of("cubic", &how), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "cubic"));
    assert_int_equal(at_resize_how_of(NULL, &how), AT_EINVAL);
    assert_int_equal(at_resize(in, AT_ORDER_NHWC, 0, 4, AT_RESIZE_AREA, false, &out), AT_EINVAL);
    assert_int_equal(at_resize(in, AT_ORDER_NHWC, 4, -1, AT_RESIZE_AREA, false, &out), AT_EINVAL);
    assert_int_equal(at_resize(in, AT_ORDER_NHWC, INT64_MAX, 4, AT_RESIZE_AREA, false, &out),
                     AT_EINVAL);
    assert_int_equal(at_resize(in, AT_ORDER_NHW, 4, 4, AT_RESIZE_AREA, false, &out), AT_EINVAL);
    assert_int_equal(at_resize(in, AT_ORDER_NHWC, 4, 4, AT_RESIZE_LANCZOS, false, &out),
                     AT_EUNSUPPORTED);
    // a line of pixels cut to a tall picture: rounding leaves nothing
    assert_int_equal(at_resize(flat, AT_ORDER_NHWC, 1, 100, AT_RESIZE_AREA, true, &out), AT_EINVAL);
    assert_null(out);
    at_tensor_release(&in);
    at_tensor_release(&flat);
}

static void failed_allocations_leak_nothing(void **state)
{
    size_t live = at_mem_get_stats().live_bytes;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at_resize_how how;
        bool hit = true;
        assert_int_equal(at_resize_how_of(rows[i].how, &how), AT_OK);
        for (uint64_t n = 1; hit; n++) {
            at_tensor *in = input(&rows[i], AT_ORDER_NHWC), *out = NULL;
            at_mem_fail_at(n, false);
            at_status st = at_resize(in, AT_ORDER_NHWC, rows[i].width, rows[i].height, how,
                                     rows[i].centre, &out);
            hit = at_mem_fault_hit();
            at_mem_fail_at(0, false);
            assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
            at_tensor_release(&in);
            at_tensor_release(&out);
        }
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_gives_torchs_numbers_in_every_layout),
        cmocka_unit_test(what_cannot_be_resized_is_refused),
        cmocka_unit_test(failed_allocations_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
