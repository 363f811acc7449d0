// SPDX-License-Identifier: Apache-2.0
// guide_test.c - guidance against ComfyUI's own on a toy network, and against itself in other
// batches.
// Idea: a hook around the network that does not ask it is a network; tools/golden/guide_cases.py
// has the same one in Python, and guide_cases.h what ComfyUI's samplers.py and patch nodes make of
// it.
#include "world.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "guide_cases.h"
#include "nodes/guide.h"

enum { B = 2, C = 3, H = 12, W = 10, COUNT = B * C * H * W };
static const int64_t shape[4] = {B, C, H, W};

// --- the toy -------------------------------------------------------------------------------------
static int toy_calls, toy_rows; // since they were last set to 0: forwards, and rows of all

static double text_mean(const float *t, int64_t tokens, int64_t column)
{
    double sum = 0;
    for (int64_t i = 0; i < tokens; i++)
        sum += (double)t[2 * i + column];
    return sum / (double)tokens;
}

static int toy_skipped(const at_model_in *in)
{
    int n = 0;
    for (int i = 0; i < 100; i++) {
        at_site d = {.in = in, .part = AT_SITE_DOUBLE, .block = i};
        at_site s = {.in = in, .part = AT_SITE_SINGLE, .block = i};
        n += at_patch_skips(in->patches, &d) + at_patch_skips(in->patches, &s);
    }
    return n;
}

static at_tensor *toy_forward(void *self, void *run, at_ops *o, const at_forward *f)
{
    (void)self, (void)run;
    const at_model_in *in = f->in;
    const float *t = at_tensor_data(in->context), *x = at_tensor_data(in->x);
    int64_t rows = in->x->shape[0], tokens = in->context->shape[1];
    int64_t each = at_tensor_count(in->x) / rows;
    double skipped = toy_skipped(in);
    float *raw = at_alloc(at_tensor_bytes(in->x));

    assert_non_null(raw);
    assert_int_equal(in->context->shape[0], rows);
    assert_int_equal(rows % in->chunks, 0);
    toy_calls++;
    toy_rows += (int)rows;
    for (int64_t i = 0; i < rows; i++) {
        double m = text_mean(t + i * tokens * 2, tokens, 0),
               n = text_mean(t + i * tokens * 2, tokens, 1);
        int kind = in->kinds[i / (rows / in->chunks)];
        for (int64_t k = i * each; k < (i + 1) * each; k++)
            raw[k] = (float)((0.3 * m + 0.05 * skipped) * (double)x[k] + 0.2 * n + 0.01 * kind);
    }
    at_tensor *out = at_from_host(o, AT_F32, 4, in->x->shape, raw);
    at_free(raw);
    return out;
}
static const at_hook_ops toy_ops = {.name = "toy", .forward = toy_forward};

// --- inputs as the script makes them -------------------------------------------------------------
static at_tensor *wave(int rank, const int64_t *dims, double a, double b, double scale, double lift)
{
    at_tensor *t = NULL;
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, rank, dims, &t), AT_OK);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; i < at_tensor_count(t); i++)
        p[i] = (float)(sin(a * (double)i + b) * scale + lift);
    return t;
}
static at_tensor *text(int k)
{
    return wave(3, (int64_t[]){1, 3, 2}, 0.7, 1.3 * k, 1, 0);
}
static at_tensor *mask(int k)
{
    if (k == 2) return wave(3, (int64_t[]){2, 24, 20}, 0.017, 2, 0.5, 0.5);
    at_tensor *t = wave(3, (int64_t[]){1, H, W}, 0.31, 1, 0.5, 0.5);
    float *p = at_tensor_data(t);
    for (int64_t i = 0; k != 1 && i < H * W; i++) {
        int64_t y = i / W, x = i % W;
        p[i] = k == 3 && y >= 2 && y < 5 && x >= 1 && x < 4 ? 0.75f : 0.0f;
    }
    return t;
}

// Where and when a text holds; zeros mean ComfyUI's own values.
typedef struct spec {
    int text;
    double strength; // -1: 0
    at_area area;
    int mask;
    double mask_strength;
    bool bounds;
    double start, end;
    bool is_default;
} spec;
#define CELLS(h_, w_, y_, x_) .area = {.kind = AT_AREA_CELLS, .h = h_, .w = w_, .y = y_, .x = x_}

static at_object *list_of(const spec *s, size_t n)
{
    at_object *o = at_obj_cond_new(n);
    assert_non_null(o);
    for (size_t i = 0; i < n; i++) {
        at_cond *c = &((at_obj_cond *)o)->items[i];
        c->context = text(s[i].text);
        if (s[i].strength != 0) c->strength = s[i].strength < 0 ? 0 : (float)s[i].strength;
        c->area = s[i].area;
        if (s[i].mask) c->mask = mask(s[i].mask);
        if (s[i].mask_strength != 0) c->mask_strength = (float)s[i].mask_strength;
        c->mask_bounds = s[i].bounds;
        c->start_percent = s[i].start;
        if (s[i].end != 0) c->end_percent = s[i].end;
        c->is_default = s[i].is_default;
    }
    return o;
}

// --- asking --------------------------------------------------------------------------------------
// The MODEL that Capture x saw, with the toy in its network's place: the innermost hook.
static at_object *with_toy(void)
{
    at_object *o = NULL;
    const at_obj_model *m = (const at_obj_model *)world_object("x", "MODEL");
    assert_int_equal(at_obj_model_hook(m, &toy_ops, NULL, &o), AT_OK);
    return o;
}
static at_object *toy_model(world *w)
{
    world_run(w, WORLD_MODELS, WORLD_CAPTURE("x", "['m',0]"));
    return with_toy();
}

static at_ops *ops_new(void)
{
    at_ops *o = NULL;
    at_ops_config config = {.compute = AT_F32};
    assert_int_equal(at_ops_new(&config, &o), AT_OK);
    return o;
}

static at_tensor *picture(at_ops *o, int k)
{
    at_tensor *t = wave(4, shape, 0.37, 0.1 * k, 1.5, 0);
    at_tensor *x = at_from_host(o, AT_F32, 4, shape, at_tensor_data(t));
    at_tensor_release(&t);
    return x;
}

static const guide_case *expected(const char *name)
{
    for (size_t i = 0; i < AT_COUNT(guide_cases); i++)
        if (strcmp(guide_cases[i].name, name) == 0) return &guide_cases[i];
    fail_msg("no case %s", name);
    return NULL;
}

// f32 sums of a few terms of size 5
static void assert_case(const char *name, const at_tensor *t)
{
    const guide_case *c = expected(name);
    const float *p = at_tensor_data(t);
    double sum = 0, squares = 0;
    assert_int_equal(at_tensor_count(t), COUNT);
    for (int i = 0; i < COUNT; i++) {
        sum += (double)p[i];
        squares += (double)p[i] * (double)p[i];
    }
    for (int i = 0; i < 8; i++)
        if (!(fabs((double)p[i * 89 % COUNT] - (double)c->picks[i]) <= 2e-5))
            fail_msg("%s: value %d is %.9g, ComfyUI has %.9g", name, i * 89 % COUNT,
                     (double)p[i * 89 % COUNT], (double)c->picks[i]);
    if (!(fabs(sum - c->sum) <= 1e-3) || !(fabs(squares - c->squares) <= 2e-5 * c->squares + 1e-3))
        fail_msg("%s: sum %.9g and squares %.9g, ComfyUI has %.9g and %.9g", name, sum, squares,
                 c->sum, c->squares);
}

static at_status ask(at_guide_config *config, const float *sigmas, size_t n, at_tensor **out)
{
    at_status st = AT_OK;
    at_ops *o = ops_new();
    at_guide *g = NULL;

    *out = NULL;
    config->shape = shape;
    AT_TRY(at_guide_open(o, config, &g));
    at_denoiser d = at_guide_denoiser(g);
    for (size_t i = 0; i < n; i++) {
        at_denoised r = d.call(d.ctx, o, picture(o, (int)i), sigmas[i], false);
        if (i + 1 == n) *out = at_ops_keep(o, r.out ? at_contiguous(o, r.out) : NULL);
    }
    AT_TRY(at_ops_status(o));
out:
    at_guide_close(g);
    at_ops_free(o);
    return st;
}

static void check(const char *name, at_guide_config *config, const float *sigmas, size_t n)
{
    at_tensor *t = NULL;
    at_status st = ask(config, sigmas, n, &t);
    if (st != AT_OK) fail_msg("%s: %s", name, at_error_text());
    assert_case(name, t);
    at_tensor_release(&t);
}

// --- lists ---------------------------------------------------------------------------------------
typedef struct list_case {
    const char *name;
    spec positive[3], negative[2];
    double cfg, sigma; // 0: 3 and 0.7
} list_case;
#define POS                                                                                        \
    {                                                                                              \
        .text = 1                                                                                  \
    }
#define NEG                                                                                        \
    {                                                                                              \
        {                                                                                          \
            .text = 2                                                                              \
        }                                                                                          \
    }
static const list_case list_cases[] = {
    {"plain", {POS}, NEG, 0, 0},
    {"cfg 1", {POS}, NEG, 1, 0},
    {"two texts", {POS, {3, 0.5}}, NEG, 0, 0},
    {"strength 0", {{1, -1}}, NEG, 0, 0},
    {"area", {POS, {3, 1.5, CELLS(8, 5, 2, 3)}}, NEG, 0, 0},
    {"area to the edge", {{3, 0, CELLS(20, 20, 4, 0)}}, NEG, 0, 0},
    {"area in shares",
     {POS, {3, 0, {.kind = AT_AREA_SHARES, .h = 0.45, .w = 0.55, .y = 0.25, .x = 0.35}}},
     NEG,
     0,
     0},
    {"areas on both sides",
     {POS, {3, 0, CELLS(9, 9, 0, 1)}},
     {{.text = 2}, {4, 0, CELLS(6, 6, 1, 2)}},
     0,
     0},
    {"mask", {POS, {.text = 3, .mask = 1, .mask_strength = 0.8}}, NEG, 0, 0},
    {"two masks resized",
     {{.text = 1, .mask = 2, .strength = 0.5}},
     {{.text = 2, .mask = 1}},
     0,
     0},
    {"mask bounds", {POS, {.text = 3, .mask = 3, .bounds = true}}, NEG, 0, 0},
    {"empty mask bounds", {POS, {.text = 3, .mask = 4, .bounds = true}}, NEG, 0, 0},
    {"mask and area", {POS, {.text = 3, .mask = 1, CELLS(8, 5, 2, 3)}}, NEG, 0, 0},
    {"range before", {POS, {.text = 3, .start = 0.5}}, NEG, 0, 0.9},
    {"range inside", {POS, {.text = 3, .start = 0.5}}, NEG, 0, 0.4},
    {"range over", {POS, {.text = 3, .end = 0.5}}, NEG, 0, 0.4},
    {"nothing holds", {{.text = 1, .start = 0.5}}, NEG, 0, 0.9},
    {"default", {{1, 0, CELLS(8, 8, 0, 0)}, {.text = 3, .is_default = true}}, NEG, 0, 0},
    {"default of masks",
     {{.text = 1, .mask = 1},
      {.text = 4, .mask = 1, .strength = 0.25},
      {.text = 3, .is_default = true}},
     {{.text = 2, .mask = 1}, {.text = 5, .is_default = true}},
     0,
     0},
    {"default with nothing left", {POS, {.text = 3, .is_default = true}}, NEG, 0, 0},
};

static size_t count_of(const spec *s, size_t most)
{
    size_t n = 0;
    while (n < most && s[n].text)
        n++;
    return n;
}

static void each_list(world *w, double memory, at_tensor **results)
{
    at_object *m = toy_model(w);
    for (size_t i = 0; i < AT_COUNT(list_cases); i++) {
        const list_case *c = &list_cases[i];
        at_object *p = list_of(c->positive, count_of(c->positive, 3));
        at_object *n = list_of(c->negative, count_of(c->negative, 2));
        at_guide_config config = {.model = (const at_obj_model *)m,
                                  .positive = (const at_obj_cond *)p,
                                  .negative = (const at_obj_cond *)n,
                                  .cfg = c->cfg != 0 ? c->cfg : 3,
                                  .memory = memory};
        float sigma = c->sigma != 0 ? (float)c->sigma : 0.7f;
        if (ask(&config, &sigma, 1, &results[i]) != AT_OK)
            fail_msg("%s: %s", c->name, at_error_text());
        at_object_release(p);
        at_object_release(n);
    }
    at_object_release(m);
}

static void lists_weigh_as_comfyui_weighs_them(void **state)
{
    at_tensor *t[AT_COUNT(list_cases)] = {0};
    each_list(*state, 0, t);
    for (size_t i = 0; i < AT_COUNT(list_cases); i++) {
        assert_case(list_cases[i].name, t[i]);
        at_tensor_release(&t[i]);
    }
}

static void little_memory_changes_batches_and_no_result(void **state)
{
    at_tensor *whole[AT_COUNT(list_cases)] = {0}, *parts[AT_COUNT(list_cases)] = {0};
    toy_calls = toy_rows = 0;
    each_list(*state, 0, whole);
    int calls = toy_calls, rows = toy_rows;
    toy_calls = toy_rows = 0;
    each_list(*state, 1, parts); // one byte: one latent and one conditioning at a time
    assert_int_equal(toy_rows, rows);
    assert_int_equal(toy_calls, rows);
    assert_true(calls < rows);
    for (size_t i = 0; i < AT_COUNT(list_cases); i++) {
        assert_true(world_distance(parts[i], whole[i]) < 1e-6);
        at_tensor_release(&whole[i]);
        at_tensor_release(&parts[i]);
    }
}

// Positive and negative of one size are one forward; other lengths of text are not, for a network
// that joins text and picture.
static void what_fits_together_runs_together(void **state)
{
    at_object *m = toy_model(*state);
    at_object *p = list_of((spec[]){{.text = 1}}, 1), *n = list_of((spec[]){{.text = 2}}, 1);
    at_guide_config config = {.model = (const at_obj_model *)m,
                              .positive = (const at_obj_cond *)p,
                              .negative = (const at_obj_cond *)n,
                              .cfg = 3};
    const float sigma = 0.7f;
    at_tensor *t = NULL;

    toy_calls = toy_rows = 0;
    assert_int_equal(ask(&config, &sigma, 1, &t), AT_OK);
    assert_int_equal(toy_calls, 1);
    assert_int_equal(toy_rows, 2 * B);
    at_tensor_release(&t);
    config.cfg = 1;
    toy_calls = toy_rows = 0;
    assert_int_equal(ask(&config, &sigma, 1, &t), AT_OK);
    assert_int_equal(toy_rows, B);
    at_tensor_release(&t);
    config.cfg = 3;
    at_cond_set_tensor(&((at_obj_cond *)n)->items[0].context,
                       wave(3, (int64_t[]){1, 6, 2}, 0.7, 2, 1, 0));
    toy_calls = 0;
    assert_int_equal(ask(&config, &sigma, 1, &t), AT_OK);
    assert_int_equal(toy_calls, 2);
    at_tensor_release(&t);
    at_object_release(p);
    at_object_release(n);
    at_object_release(m);
}

static void what_cannot_be_is_refused(void **state)
{
    static const struct {
        spec s;
        const char *says;
    } bad[] = {
        {{1, 0, CELLS(8, 8, 12, 0)}, "lies outside"},
        {{1, 0, CELLS(8, 8, -1, 0)}, "lies outside"},
        {{1, 0, CELLS(0, 8, 0, 0)}, "lies outside"},
        {{.text = 1, .is_default = true, CELLS(8, 8, 0, 0)}, "default conditioning"},
    };
    at_object *m = toy_model(*state);
    for (size_t i = 0; i < AT_COUNT(bad); i++) {
        at_object *p = list_of((spec[]){bad[i].s}, 1);
        at_guide_config config = {
            .model = (const at_obj_model *)m, .positive = (const at_obj_cond *)p, .cfg = 1};
        const float sigma = 0.7f;
        at_tensor *t = NULL;
        assert_int_equal(ask(&config, &sigma, 1, &t), AT_EINVAL);
        if (!strstr(at_error_text(), bad[i].says)) fail_msg("%zu: %s", i, at_error_text());
        at_object_release(p);
    }
    at_object_release(m);
}

// --- nodes that change guidance ------------------------------------------------------------------
typedef struct patch_case {
    const char *name, *node; // the node's class and its inputs but model
    double cfg;              // 0: 3
    float sigmas[8];         // 0: 0.7
} patch_case;
#define SLOW0 0.98f, 0.93f, 0.88f
static const patch_case patch_cases[] = {
    {"RescaleCFG", "'RescaleCFG','inputs':{'multiplier':0.7", 0, {0}},
    {"RenormCFG", "'RenormCFG','inputs':{'cfg_trunc':100,'renorm_cfg':0.5", 0, {0}},
    {"RenormCFG late", "'RenormCFG','inputs':{'cfg_trunc':0.5,'renorm_cfg':0.5", 0, {0}},
    {"VideoLinear", "'VideoLinearCFGGuidance','inputs':{'min_cfg':1.5", 0, {0}},
    {"VideoTriangle", "'VideoTriangleCFGGuidance','inputs':{'min_cfg':1.5", 0, {0}},
    {"CFGZeroStar", "'CFGZeroStar','inputs':{", 0, {0}},
    {"CFGZeroStar at 1", "'CFGZeroStar','inputs':{", 1, {0}},
    {"CFGNorm", "'CFGNorm','inputs':{'strength':0.9", 0, {0}},
    {"Epsilon Scaling", "'Epsilon Scaling','inputs':{'scaling_factor':1.1", 0, {0}},
    {"APG", "'APG','inputs':{'eta':0.5,'norm_threshold':5,'momentum':0", 0, {0}},
    {"APG momentum",
     "'APG','inputs':{'eta':0.5,'norm_threshold':3,'momentum':-0.5",
     0,
     {0.9f, 0.8f, 0.65f, 0.5f}},
    {"APG unbounded",
     "'APG','inputs':{'eta':2,'norm_threshold':0,'momentum':0.3",
     0,
     {0.5f, 0.9f, 0.7f}},
    {"TCFG", "'TCFG','inputs':{", 0, {0}},
    {"TCFG at 1", "'TCFG','inputs':{", 1, {0}},
    {"Mahiro", "'Mahiro','inputs':{", 0, {0}},
    {"FreSca", "'FreSca','inputs':{'scale_low':0.8,'scale_high':1.25,'freq_cutoff':3", 0, {0}},
    {"FreSca wide",
     "'FreSca','inputs':{'scale_low':0.8,'scale_high':1.25,'freq_cutoff':20",
     0,
     {0}},
    {"LatentApplyOperationCFG", "'LatentApplyOperationCFG','inputs':{'operation':['op',0]", 0, {0}},
    {"SLG",
     "'SkipLayerGuidanceDiT','inputs':{'double_layers':'7, 8','single_layers':'3','scale':2,"
     "'start_percent':0.01,'end_percent':0.9,'rescaling_scale':0",
     0,
     {0}},
    {"SLG rescaled",
     "'SkipLayerGuidanceDiT','inputs':{'double_layers':'7, 8','single_layers':'3','scale':2,"
     "'start_percent':0.01,'end_percent':0.9,'rescaling_scale':0.4",
     0,
     {0}},
    {"SLG outside",
     "'SkipLayerGuidanceDiT','inputs':{'double_layers':'7, 8','single_layers':'3','scale':2,"
     "'start_percent':0.5,'end_percent':0.9,'rescaling_scale':0.4",
     0,
     {0.9f}},
    {"SLG SD3",
     "'SkipLayerGuidanceSD3','inputs':{'layers':'1x2','scale':3,'start_percent':0,'end_percent':1",
     0,
     {0}},
    {"SLG simple",
     "'SkipLayerGuidanceDiTSimple','inputs':{'double_layers':'7','single_layers':'3, 4',"
     "'start_percent':0,'end_percent':1",
     0,
     {0}},
    {"PerpNeg", "'PerpNeg','inputs':{'empty_conditioning':['em',0],'neg_scale':0.8", 0, {0}},
    {"two hooks", "'Epsilon Scaling','inputs':{'scaling_factor':0.9", 0, {0}},
#define EASY                                                                                       \
    "'EasyCache','inputs':{'reuse_threshold':0.3,'start_percent':0.1,'end_percent':0.95,"          \
    "'verbose':false"
#define LAZY                                                                                       \
    "'LazyCache','inputs':{'reuse_threshold':0.3,'start_percent':0.1,'end_percent':0.95,"          \
    "'verbose':false"
    {"EasyCache 3", EASY, 1, {SLOW0}},
    {"EasyCache 4", EASY, 1, {SLOW0, 0.83f}},
    {"EasyCache 5", EASY, 1, {SLOW0, 0.83f, 0.78f}},
    {"EasyCache 6", EASY, 1, {SLOW0, 0.83f, 0.78f, 0.73f}},
    {"EasyCache 7", EASY, 1, {SLOW0, 0.83f, 0.78f, 0.73f, 0.68f}},
    {"LazyCache 3", LAZY, 0, {SLOW0}},
    {"LazyCache 4", LAZY, 0, {SLOW0, 0.83f}},
    {"LazyCache 5", LAZY, 0, {SLOW0, 0.83f, 0.78f}},
    {"LazyCache 6", LAZY, 0, {SLOW0, 0.83f, 0.78f, 0.73f}},
    {"LazyCache 7", LAZY, 0, {SLOW0, 0.83f, 0.78f, 0.73f, 0.68f}},
};

static void run_patch(world *w, const patch_case *c, at_object *p, at_object *n)
{
    const char *from = strcmp(c->name, "two hooks") == 0 ? "no" : "m";
    const char *comma = c->node[strlen(c->node) - 1] == '{' ? "" : ",";
    world_run(w, WORLD_MODELS, "'em':{'class_type':'Give','inputs':{'key':'empty'}}",
              "'op':{'class_type':'LatentOperationTonemapReinhard','inputs':{'multiplier':1.2}}",
              "'no':{'class_type':'CFGNorm','inputs':{'model':['m',0],'strength':1}}",
              world_nodes("'p':{'class_type':%s%s'model':['%s',0]}}", c->node, comma, from),
              WORLD_CAPTURE("x", "['p',0]"));
    at_object *m = with_toy();
    at_guide_config config = {.model = (const at_obj_model *)m,
                              .positive = (const at_obj_cond *)p,
                              .negative = (const at_obj_cond *)n,
                              .cfg = c->cfg != 0 ? c->cfg : 3};
    static const float usual = 0.7f;
    size_t steps = 0;
    while (steps < AT_COUNT(c->sigmas) && c->sigmas[steps] > 0)
        steps++;
    toy_calls = 0;
    check(c->name, &config, steps ? c->sigmas : &usual, steps ? steps : 1);
    at_object_release(m);
}

static void patches_guide_as_comfyuis_do(void **state)
{
    at_object *p = list_of((spec[]){{.text = 1}}, 1), *n = list_of((spec[]){{.text = 2}}, 1);
    world_give("empty", at_value_object(list_of((spec[]){{.text = 3}}, 1)));
    for (size_t i = 0; i < AT_COUNT(patch_cases); i++)
        run_patch(*state, &patch_cases[i], p, n);
    // the last of them asked the network less often than there were steps
    assert_true(toy_calls < 7);
    at_object_release(p);
    at_object_release(n);
}

// Conditionings in one forward and in forwards of their own guess the same; so do latents of a
// batch that goes by parts, though only the first of them decides then.
static void step_caches_keep_conditionings_apart(void **state)
{
    static const float slow[] = {SLOW0, 0.83f};
    world *w = *state;
    at_tensor *t[3] = {0};
    at_object *p = list_of((spec[]){{.text = 1}}, 1), *n = list_of((spec[]){{.text = 2}}, 1);

    world_run(w, WORLD_MODELS, "'p':{'class_type':" EASY ",'model':['m',0]}}",
              WORLD_CAPTURE("x", "['p',0]"));
    at_object *m = with_toy();
    const at_model *net = ((const at_obj_model *)m)->model;
    double three = 1.5 * at_model_estimate(net, 3, H, W, 3, AT_F32).activation_bytes;
    const double memory[3] = {0, three, 1};
    const int calls[3] = {3, 6, 12};
    for (int i = 0; i < 3; i++) {
        at_guide_config config = {.model = (const at_obj_model *)m,
                                  .positive = (const at_obj_cond *)p,
                                  .negative = (const at_obj_cond *)n,
                                  .cfg = 2,
                                  .memory = memory[i]};
        toy_calls = 0;
        assert_int_equal(ask(&config, slow, 4, &t[i]), AT_OK);
        assert_int_equal(toy_calls, calls[i]); // the fourth step is guessed
    }
    assert_true(world_distance(t[1], t[0]) < 1e-6);
    assert_true(world_distance(t[2], t[0]) < 1e-6);
    for (int i = 0; i < 3; i++)
        at_tensor_release(&t[i]);
    at_object_release(m);
    at_object_release(p);
    at_object_release(n);
}

// --- guiders -------------------------------------------------------------------------------------
static void guiders_of_three_prompts_are_comfyuis(void **state)
{
    static const struct {
        const char *name;
        at_guider_kind kind;
        double cfg, cfg2;
    } cases[] = {
        {"dual regular", AT_GUIDER_DUAL, 4, 2.5},
        {"dual nested", AT_GUIDER_NESTED, 4, 2.5},
        {"dual at 1", AT_GUIDER_DUAL, 1, 1},
        {"perp neg 0.8 at 3", AT_GUIDER_PERP_NEG, 3, 0.8},
        {"perp neg 0 at 3", AT_GUIDER_PERP_NEG, 3, 0},
        {"perp neg 0 at 1", AT_GUIDER_PERP_NEG, 1, 0},
        {"basic", AT_GUIDER_CFG, 1, 0},
    };
    at_object *m = toy_model(*state), *p = list_of((spec[]){{.text = 1}}, 1);
    at_object *n = list_of((spec[]){{.text = 2}}, 1), *e = list_of((spec[]){{.text = 3}}, 1);
    const float sigma = 0.7f;
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        bool three = cases[i].kind != AT_GUIDER_CFG;
        at_guide_config config = {.model = (const at_obj_model *)m,
                                  .kind = cases[i].kind,
                                  .positive = (const at_obj_cond *)p,
                                  .negative = three ? (const at_obj_cond *)n : NULL,
                                  .third = three ? (const at_obj_cond *)e : NULL,
                                  .cfg = cases[i].cfg,
                                  .cfg2 = cases[i].cfg2};
        check(cases[i].name, &config, &sigma, 1);
    }
    at_object_release(m);
    at_object_release(p);
    at_object_release(n);
    at_object_release(e);
}

static void guider_nodes_carry_their_numbers(void **state)
{
    world *w = *state;
    world_run(
        w, WORLD_MODELS, WORLD_PROMPTS,
        "'q':{'class_type':'CLIPTextEncode','inputs':{'text':'x','clip':['c',0]}}",
        "'d':{'class_type':'DualCFGGuider','inputs':{'model':['m',0],'cond1':['p',0],'cond2':"
        "['q',0],'negative':['n',0],'cfg_conds':4,'cfg_cond2_negative':2.5,'style':'nested'}}",
        "'g':{'class_type':'PerpNegGuider','inputs':{'model':['m',0],'positive':['p',0],"
        "'negative':['n',0],'empty_conditioning':['q',0],'cfg':3,'neg_scale':0.8}}",
        WORLD_CAPTURE("1", "['d',0]"), WORLD_CAPTURE("2", "['g',0]"), WORLD_CAPTURE("3", "['p',0]"),
        WORLD_CAPTURE("4", "['q',0]"));
    const at_obj_guider *d = (const at_obj_guider *)world_object("1", "GUIDER");
    const at_obj_guider *g = (const at_obj_guider *)world_object("2", "GUIDER");
    assert_true(d->kind == AT_GUIDER_NESTED && d->cfg == 4 && d->cfg2 == 2.5);
    assert_true(g->kind == AT_GUIDER_PERP_NEG && g->cfg == 3 && g->cfg2 == 0.8);
    assert_ptr_equal(d->positive, world_cond("3"));
    assert_ptr_equal(d->third, world_cond("4"));
    assert_ptr_equal(g->third, world_cond("4"));
}

// --- the denoise mask ----------------------------------------------------------------------------
static void a_mask_moves_as_comfyuis_does(void **state)
{
    static const struct {
        const char *name, *strength;
        float sigma;
    } cases[] = {{"mask 1 0.95", "1", 0.95f},
                 {"mask 1 0.6", "1", 0.6f},
                 {"mask 0.25 0.95", "0.25", 0.95f},
                 {"mask 0.25 0.6", "0.25", 0.6f}};
    static const float sigmas[] = {1.0f, 0.5f, 0.0f};
    world *w = *state;
    at_object *p = list_of((spec[]){{.text = 1}}, 1);
    at_tensor *flat = mask(1), *m = NULL;

    assert_int_equal(at_tensor_reshape(flat, 4, (int64_t[]){1, 1, H, W}, &m), AT_OK);
    for (size_t i = 0; i < AT_COUNT(cases); i++) {
        at_ops *o = ops_new();
        at_guide *g = NULL;
        world_run(w, WORLD_MODELS,
                  world_nodes("'d':{'class_type':'DifferentialDiffusion','inputs':{'model':['m',0],"
                              "'strength':%s}}",
                              cases[i].strength),
                  WORLD_CAPTURE("x", "['d',0]"));
        at_guide_config config = {.model = (const at_obj_model *)world_object("x", "MODEL"),
                                  .positive = (const at_obj_cond *)p,
                                  .cfg = 1,
                                  .shape = shape,
                                  .mask = m,
                                  .sigmas = sigmas,
                                  .n_sigmas = 3};
        assert_int_equal(at_guide_open(o, &config, &g), AT_OK);
        assert_true(at_guide_moves_mask(g));
        at_tensor *zero = at_zeros(o, AT_F32, 4, shape);
        assert_case(cases[i].name, at_add(o, zero, at_guide_mask(g, o, cases[i].sigma)));
        at_guide_close(g);
        at_ops_free(o);
    }
    at_tensor_release(&flat);
    at_tensor_release(&m);
    at_object_release(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_weigh_as_comfyui_weighs_them),
        cmocka_unit_test(little_memory_changes_batches_and_no_result),
        cmocka_unit_test(what_fits_together_runs_together),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(patches_guide_as_comfyuis_do),
        cmocka_unit_test(step_caches_keep_conditionings_apart),
        cmocka_unit_test(guiders_of_three_prompts_are_comfyuis),
        cmocka_unit_test(guider_nodes_carry_their_numbers),
        cmocka_unit_test(a_mask_moves_as_comfyuis_does),
    };
    return cmocka_run_group_tests(tests, world_open, world_close);
}
