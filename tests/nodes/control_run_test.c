// SPDX-License-Identifier: Apache-2.0
// control_run_test.c - what a sampling run is told by a chain of ControlNets.
// Numbers named "ComfyUI's" are get_control's of ComfyUI 0.3.64 on the golden T2I adapters.
#include "control_kit.h"

#include <math.h>

#include "image/resize.h"
#include "sample/sigmas.h"

static int open_world(void **state)
{
    int failed = world_open(state);
    if (failed) return failed;
    install(*state, "controlnet", "control_t2i", "grey.safetensors");
    install(*state, "controlnet", "control_t2i_diffusers", "colour.safetensors");
    install(*state, "controlnet", "control_sd15", "canny.safetensors");
    install(*state, "controlnet", "control_sd15", "canny_shuffle.safetensors");
    install(*state, "controlnet", "control_flux_instantx", "inpaint.safetensors");
    install(*state, "controlnet", "control_lora", "low_rank.safetensors");
    install(*state, "controlnet", "control_difference", "difference.safetensors");
    install_file(*state, "diffusion_models", "control_lora/base", "base.safetensors");
    return 0;
}

// --- residuals ---------------------------------------------------------------------------------
// What a run asks for: latents [b, 4, h, w] of zeros, a text [b, 5, 24].
typedef struct asking {
    at_ops *o;
    at_model *model;
    at_control_run *run;
    at_model_in in;
    float timestep[8];
} asking;

static void ask_open(asking *a, int64_t b, int64_t h, int64_t w)
{
    at_store *s = NULL;
    *a = (asking){0};
    assert_int_equal(at_store_open(AT_SOURCE_DIR "/tests/golden/unet_sd15/model.safetensors", &s),
                     AT_OK);
    assert_int_equal(at_model_load(s, "unet", &a->model), AT_OK);
    at_store_release(&s);
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &a->o), AT_OK);
    assert_int_equal(at_control_run_new(a->model, &a->run), AT_OK);
    at_tensor *text = at_affine(a->o, at_zeros(a->o, AT_F32, 3, (int64_t[]){b, 5, 24}), 1, 0.5f);
    a->in = (at_model_in){.x = at_zeros(a->o, AT_F32, 4, (int64_t[]){b, 4, h, w}),
                          .context = text,
                          .timestep = a->timestep,
                          .chunks = 1};
}
static void ask_close(asking *a)
{
    at_control_run_free(a->run);
    at_ops_free(a->o);
    at_model_release(&a->model);
}

static bool ask(asking *a, const at_obj_control *c, float sigma, int chunks, at_control *out)
{
    a->in.sigma = sigma;
    a->in.chunks = chunks;
    int64_t all = a->in.x->shape[0] / chunks;
    bool any = at_control_run_residuals(a->run, a->o, c, &a->in, NULL, 0, all, out);
    if (at_ops_status(a->o) != AT_OK) fail_msg("%s", at_error_text());
    return any;
}

static double mean_of(const at_tensor *t, int64_t row)
{
    const float *p = world_floats(t);
    int64_t n = at_tensor_count(t) / t->shape[0];
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += p[row * n + i];
    return sum / (double)n;
}

// ComfyUI's chain: the grey adapter (0.5) on one picture, then the coloured one (0.8, from 20 to 60
// percent) on two; a batch of four in two parts. Means of both rows and the last row's first pixel.
static const struct {
    int place;
    double mean[2], first[3];
} chained[] = {{2, {0.2109189, 0.2085424}, {-0.08346483, 0.4563743, -0.1898157}},
               {5, {0.008547217, -0.01324095}, {-1.168501, -0.3039051, 0.1309896}},
               {8, {-0.08817811, -0.0971766}, {1.561818, -1.538257, -0.3349043}},
               {11, {0.0437996, 0.02123484}, {0.7653176, -3.465067, -1.010864}}},
  alone[] = {{2, {0.189722}, {0.01977502, -0.144831, 0.009625211}},
             {5, {0.05421636}, {-0.540561, -0.4224271, 0.01617329}},
             {8, {0.1009306}, {0.2019531, 0.04924658, 0.73833}},
             {11, {0.0983578}, {0.5670571, -0.2482266, -0.09123845}}};

// Another device, as a loader may name one; with `full` it has no memory.
static at_device other;
static at_device_ops other_ops;
static at_status no_room(at_device *d, size_t bytes, void **out)
{
    (void)out;
    return at_fail(AT_ENOMEM, "%s: no room for %zu bytes", d->name, bytes);
}
static void other_open(bool full)
{
    other_ops = *at_device_cpu()->ops;
    if (full) other_ops.alloc = no_room;
    snprintf(other.name, sizeof other.name, "other");
    other.host = true;
    other.ops = &other_ops;
    other.backend = at_device_cpu()->backend;
    at_device_reset_peak(&other);
}
static void put(const at_obj_control *chain, at_device *d)
{
    for (at_obj_control *c = (at_obj_control *)(uintptr_t)chain; c; c = c->previous)
        c->device = d;
}

static void chain_on(world *w, at_device *device)
{
    asking a;
    at_control out;
    give_list("p", 1);
    give_picture("i", 1, 30, 50);
    give_picture("j", 2, 44, 20);
    world_run(w, GIVE("p"), GIVE("i"), GIVE("j"), LOAD("grey", "grey.safetensors"),
              LOAD("colour", "colour.safetensors"),
              "'one':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['grey',0],'image':['i',0],'strength':0.5}},"
              "'two':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['one',0],"
              "'negative':['p',0],'control_net':['colour',0],'image':['j',0],'strength':0.8,"
              "'start_percent':0.2,'end_percent':0.6}},",
              WORLD_CAPTURE("x", "['two',0]"));
    put(control_of("x", 0), device);
    ask_open(&a, 4, 5, 7);
    for (int again = 0; again < 2; again++) { // the second time from what is kept
        assert_true(ask(&a, control_of("x", 0), 3.0f, 2, &out));
        for (size_t i = 0; i < AT_COUNT(chained); i++) {
            const at_tensor *t = out.input[chained[i].place];
            int64_t last = at_tensor_count(t) / 4 * 3;
            assert_int_equal(t->shape[0], 4);
            for (int row = 0; row < 4; row++)
                assert_true(fabs(mean_of(t, row) - chained[i].mean[row % 2]) < 2e-6);
            for (int k = 0; k < 3; k++)
                assert_true(fabs(world_floats(t)[last + k] - chained[i].first[k]) < 1e-5);
        }
        assert_null(out.input[0]);
        // before its range the second is silent, the first goes on; its picture is one
        assert_true(ask(&a, control_of("x", 0), 14.0f, 2, &out));
        for (size_t i = 0; i < AT_COUNT(alone); i++) {
            const at_tensor *t = out.input[alone[i].place];
            assert_int_equal(t->shape[0], 1);
            assert_true(fabs(mean_of(t, 0) - alone[i].mean[0]) < 2e-6);
            for (int k = 0; k < 3; k++)
                assert_true(fabs(world_floats(t)[k] - alone[i].first[k]) < 1e-5);
        }
    }
    ask_close(&a);
}
static void a_chain_adds_up_as_comfyuis(void **state)
{
    chain_on(*state, NULL);
}

static void residuals_come_from_another_device(void **state)
{
    world *w = *state;
    asking a;
    at_control here, there;

    other_open(false);
    chain_on(w, &other);
    assert_true(other.peak_bytes > 0);
    assert_int_equal(other.live_bytes, 0);
    give_list("p", 1);
    give_picture("i", 2, 40, 56);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "canny.safetensors"),
              "'one':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['net',0],'image':['i',0],'strength':0.5}},",
              WORLD_CAPTURE("x", "['one',0]"));
    ask_open(&a, 2, 8, 8);
    put(control_of("x", 0), NULL);
    assert_true(ask(&a, control_of("x", 0), 3.0f, 1, &here));
    at_control_run_free(a.run); // its hint is here
    assert_int_equal(at_control_run_new(a.model, &a.run), AT_OK);
    put(control_of("x", 0), &other);
    at_device_reset_peak(&other);
    for (int step = 0; step < 2; step++) { // bit by bit what it is here
        assert_true(ask(&a, control_of("x", 0), 3.0f, 1, &there));
        assert_true(other.peak_bytes > 0);
        assert_non_null(here.middle);
        assert_ptr_equal(at_tensor_device(there.middle), at_device_cpu());
        assert_memory_equal(at_tensor_data(here.middle), at_tensor_data(there.middle),
                            at_tensor_bytes(here.middle));
    }
    ask_close(&a);
    other_open(true);
    ask_open(&a, 2, 8, 8);
    assert_false(
        at_control_run_residuals(a.run, a.o, control_of("x", 0), &a.in, NULL, 0, 1, &there));
    assert_int_equal(at_ops_status(a.o), AT_ENOMEM);
    assert_non_null(strstr(at_error_text(), "other"));
    ask_close(&a);
    assert_int_equal(other.live_bytes, 0);
}

static void outside_its_range_a_net_is_silent(void **state)
{
    world *w = *state;
    asking a;
    at_control out;
    give_list("p", 1);
    give_picture("i", 1, 16, 16);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "grey.safetensors"),
              "'n':{'class_type':'Give','inputs':{'key':'p'}},", PAIR,
              WORLD_CAPTURE("x", "['pair',0]"));
    ask_open(&a, 1, 2, 2);
    const at_model_sampling *ms = at_model_get_sampling(a.model);
    float from = (float)at_percent_to_sigma(ms, 0.25), to = (float)at_percent_to_sigma(ms, 0.75);
    assert_true(ask(&a, control_of("x", 0), from, 1, &out)); // both ends belong to it
    assert_true(ask(&a, control_of("x", 0), to, 1, &out));
    assert_false(ask(&a, control_of("x", 0), nextafterf(from, 99), 1, &out));
    assert_false(ask(&a, control_of("x", 0), nextafterf(to, 0), 1, &out));
    ask_close(&a);
}

static void a_shuffle_file_gives_the_mean_of_the_picture(void **state)
{
    world *w = *state;
    asking a;
    at_control plain, pooled;
    give_list("p", 1);
    give_picture("i", 1, 48, 40);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "canny.safetensors"),
              LOAD("shuffle", "canny_shuffle.safetensors"),
              "'s':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['shuffle',0],'image':['i',0],'strength':2}},"
              "'l':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['net',0],'image':['i',0],'strength':1}},",
              WORLD_CAPTURE("x", "['l',0]") ",", WORLD_CAPTURE("y", "['s',0]"));
    ask_open(&a, 2, 6, 5);
    a.timestep[0] = a.timestep[1] = 500;
    assert_true(ask(&a, control_of("x", 0), 3, 1, &plain));
    assert_true(ask(&a, control_of("y", 0), 3, 1, &pooled));
    const at_tensor *p = plain.skip[1], *q = pooled.skip[1];
    assert_int_equal(q->shape[1] * q->shape[2], 1);
    int64_t pixels = p->shape[1] * p->shape[2], n = p->shape[3];
    for (int64_t c = 0; c < n; c++) {
        double sum = 0;
        for (int64_t i = 0; i < pixels; i++)
            sum += world_floats(p)[i * n + c];
        assert_true(fabs(2 * sum / (double)pixels - world_floats(q)[c]) < 1e-5);
    }
    ask_close(&a);
}

// A tensor of a golden case's file, on the device of `o`.
static at_tensor *golden(at_ops *o, const char *file, const char *name)
{
    char path[512];
    at_store *s = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s.safetensors", file);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    const at_weight *w = at_store_find(s, name);
    assert_non_null(w);
    at_tensor *t = at_weight_tensor(o, w, AT_F32);
    at_store_release(&s);
    return t;
}

// The golden hint [1, 3, h, w] as a picture.
static void give_golden_hint(const char *key, const char *file)
{
    at_ops *o = NULL;
    at_tensor *t = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o), AT_OK);
    t = at_permute(o, golden(o, file, "hint"), (int[]){0, 2, 3, 1});
    t = at_ops_keep(o, at_contiguous(o, t));
    at_ops_free(o);
    world_give(key, at_value_object(at_obj_image_new(t)));
}

// A run over `model`, asked what the golden case was asked: its skips and middle.
static void assert_golden(const at_object *model, const at_obj_control *c, const char *name)
{
    asking a;
    at_control out;
    char inputs[64], expected[64], place[16];
    snprintf(inputs, sizeof inputs, "%s/inputs", name);
    snprintf(expected, sizeof expected, "%s/expected", name);
    ask_open(&a, 1, 2, 2);
    at_control_run_free(a.run);
    assert_int_equal(at_control_run_new(((const at_obj_model *)model)->model, &a.run), AT_OK);
    a.in.x = golden(a.o, inputs, "x");
    a.in.context = golden(a.o, inputs, "context");
    a.timestep[0] = world_floats(golden(a.o, inputs, "timestep"))[0];
    assert_true(ask(&a, c, 3, 1, &out));
    assert_true(world_distance(out.middle, golden(a.o, expected, "middle")) < 1e-4);
    for (int i = 0; i < 4; i++) {
        snprintf(place, sizeof place, "skip.%d", i);
        assert_true(world_distance(out.skip[i], golden(a.o, expected, place)) < 1e-4);
    }
    ask_close(&a);
}

static void low_rank_and_difference_files_use_the_models_weights(void **state)
{
    world *w = *state;
    give_list("p", 1);
    give_golden_hint("i", "control_lora/inputs");
    world_run(w, GIVE("p"), GIVE("i"),
              "'m':{'class_type':'UNETLoader','inputs':{'unet_name':'base.safetensors',"
              "'weight_dtype':'default'}},",
              LOAD("l", "low_rank.safetensors"),
              "'d':{'class_type':'DiffControlNetLoader','inputs':{'model':['m',0],"
              "'control_net_name':'difference.safetensors'}},"
              "'v':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae.safetensors'}},"
              "'x':{'class_type':'ControlNetApplySD3','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['l',0],'vae':['v',0],'image':['i',0],"
              "'strength':1,'start_percent':0,'end_percent':1}},"
              "'y':{'class_type':'ControlNetApplySD3','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['d',0],'vae':['v',0],'image':['i',0],"
              "'strength':1,'start_percent':0,'end_percent':1}},",
              WORLD_CAPTURE("lora", "['x',0]") ",", WORLD_CAPTURE("difference", "['y',0]") ",",
              WORLD_CAPTURE("model", "['m',0]"));
    const at_object *model = world_object("model", "MODEL");
    assert_golden(model, control_of("lora", 0), "control_lora");
    assert_golden(model, control_of("difference", 0), "control_difference");
    assert_null(control_of("lora", 0)->vae); // it looks at pixels
}

static void a_part_of_a_batch_gets_its_own_pictures(void **state)
{
    world *w = *state;
    asking a;
    at_control whole, part;
    give_list("p", 1);
    give_picture("i", 3, 16, 16);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "colour.safetensors"),
              "'l':{'class_type':'ControlNetApply','inputs':{'conditioning':['p',0],"
              "'control_net':['net',0],'image':['i',0],'strength':1}},",
              WORLD_CAPTURE("x", "['l',0]"));
    ask_open(&a, 4, 2, 2);
    assert_true(ask(&a, control_of("x", 0), 3, 1, &whole)); // pictures 0 1 2 0
    a.in.chunks = 2; // latents 2 and 3, for two conditionings
    assert_true(at_control_run_residuals(a.run, a.o, control_of("x", 0), &a.in, NULL, 2, 4, &part));
    const float *p = world_floats(whole.input[2]), *q = world_floats(part.input[2]);
    size_t n = (size_t)at_tensor_count(part.input[2]) / 4;
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(q + i * n, p + (2 + i % 2) * n, n * sizeof *p);
    ask_close(&a);
}

// z as Flux takes it, with the mask's nearest cells behind it: what the net should see.
static at_tensor *expected_hint(at_ops *o, at_vae *vae, const at_tensor *image,
                                const at_tensor *mask, int64_t h, int64_t w)
{
    at_tensor *sized = NULL, *cells = NULL;
    assert_int_equal(at_resize(image, AT_ORDER_NHWC, 8 * w, 8 * h, AT_RESIZE_NEAREST, true, &sized),
                     AT_OK);
    assert_int_equal(at_resize(mask, AT_ORDER_NCHW, w, h, AT_RESIZE_NEAREST, true, &cells), AT_OK);
    at_tensor *z = at_vae_encode(o, vae, sized);
    z = at_affine(o, at_affine(o, z, 1, -0.1159f), 0.3611f, 0); // comfy/latent_formats.py, Flux
    at_tensor *m = at_from_host(o, AT_F32, 4, cells->shape, at_tensor_data(cells));
    at_tensor_release(&sized);
    at_tensor_release(&cells);
    return at_concat(o, 1, 2, (const at_tensor *[]){z, m});
}

static void a_latent_hint_is_encoded_scaled_and_masked(void **state)
{
    world *w = *state;
    asking a;
    at_control out, direct = {0};
    at_tensor *mask = NULL;
    give_list("p", 1);
    give_picture("i", 1, 20, 40);
    assert_int_equal(at_tensor_new(at_device_cpu(), AT_F32, 3, (int64_t[]){1, 10, 20}, &mask),
                     AT_OK);
    for (int k = 0; k < 200; k++)
        world_floats(mask)[k] = k % 20 < 7 ? 1.0f : 0.0f;
    world_give("k", at_value_object(at_obj_mask_new(mask)));
    world_run(w, GIVE("p"), GIVE("i"), GIVE("k"), LOAD("net", "inpaint.safetensors"),
              "'v':{'class_type':'VAELoader','inputs':{'vae_name':'tiny_ae.safetensors'}},"
              "'y':{'class_type':'ControlNetInpaintingAliMamaApply','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['net',0],'vae':['v',0],'image':['i',0],"
              "'mask':['k',0],'strength':1,'start_percent':0,'end_percent':1}},",
              WORLD_CAPTURE("x", "['y',0]"));
    const at_obj_control *c = control_of("x", 0);
    ask_open(&a, 1, 2, 2);
    a.in.x = golden(a.o, "control_flux_instantx/inputs", "x"); // 7 x 5
    a.in.context = golden(a.o, "control_flux_instantx/inputs", "context");
    a.in.pooled = golden(a.o, "control_flux_instantx/inputs", "y");
    a.timestep[0] = 0.5f;
    assert_true(ask(&a, c, 3, 1, &out));
    at_control_in ci = {.model = &a.in,
                        .context = a.in.context,
                        .hint = expected_hint(a.o, c->vae, c->hint, c->mask, 7, 5),
                        .type = -1};
    at_control_net_forward(a.o, c->net, &ci, &direct);
    assert_int_equal(at_ops_status(a.o), AT_OK);
    assert_true(world_distance(out.doubles[0], direct.doubles[0]) < 1e-5);
    assert_true(world_distance(out.singles[37], direct.singles[37]) < 1e-5);
    ask_close(&a);
}

// Load a net, apply it to a picture and ask it; whatever allocation fails, nothing is lost.
static at_status load_and_ask(const char *name, at_tensor *hint)
{
    at_status st = AT_OK;
    char path[512];
    at_store *s = NULL;
    at_control_net *net = NULL;
    at_object *c = NULL;
    at_ops *o = NULL;
    at_control_run *run = NULL;
    at_model *model = NULL;
    at_control out;

    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s/model.safetensors", name);
    AT_TRY(at_store_open(path, &s));
    AT_TRY(at_control_net_load(s, name, NULL, &net));
    at_store_release(&s);
    AT_TRY(at_store_open(AT_SOURCE_DIR "/tests/golden/control_lora/base.safetensors", &s));
    AT_TRY(at_model_load(s, "base", &model));
    c = at_obj_control_new(net);
    net = NULL;
    if (!c) AT_TRY(at_fail(AT_ENOMEM, "test"));
    ((at_obj_control *)c)->hint = at_tensor_retain(hint);
    AT_TRY(at_ops_new(&(at_ops_config){.compute = AT_F32}, &o));
    AT_TRY(at_control_run_new(model, &run));
    at_model_in in = {.x = at_zeros(o, AT_F32, 4, (int64_t[]){1, 4, 2, 2}),
                      .context = at_zeros(o, AT_F32, 3, (int64_t[]){1, 5, 24}),
                      .timestep = (float[]){500},
                      .sigma = 3};
    AT_TRY(at_ops_status(o));
    at_control_run_residuals(run, o, (at_obj_control *)c, &in, NULL, 0, 1, &out);
    AT_TRY(at_ops_status(o));
out:
    at_control_run_free(run);
    at_ops_free(o);
    at_object_release(c);
    at_control_net_release(&net);
    at_model_release(&model);
    at_store_release(&s);
    return st;
}

static void failed_allocations_leak_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"control_t2i", "control_sd15", "control_lora"};
    for (size_t i = 0; i < AT_COUNT(names); i++) {
        at_tensor *hint = picture(1, 16, 16, 3);
        assert_int_equal(load_and_ask(names[i], hint), AT_OK);
        size_t live = at_mem_get_stats().live_bytes;
        uint64_t n = 1;
        // every early one, then one in 17: loading allocates first
        for (bool hit = true; hit && n < 20000; n += n < 60 ? 1 : 17) {
            at_mem_fail_at(n, false);
            at_status st = load_and_ask(names[i], hint);
            hit = at_mem_fault_hit();
            at_mem_fail_at(0, false);
            assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
            assert_int_equal(at_mem_get_stats().live_bytes, live);
        }
        assert_true(n < 20000);
        at_tensor_release(&hint);
    }
}

static void what_cannot_be_is_said(void **state)
{
    world *w = *state;
    asking a;
    at_control out;
    give_list("p", 1);
    give_picture("i", 1, 16, 16);
    world_run(w, GIVE("p"), GIVE("i"), LOAD("net", "inpaint.safetensors"),
              LOAD("canny", "canny.safetensors"), APPLY("x", "q", "net", "i", 1, 0, 1),
              APPLY("y", "q", "canny", "i", 1, 0, 1),
              "'q':{'class_type':'ControlNetApplyAdvanced','inputs':{'positive':['p',0],"
              "'negative':['p',0],'control_net':['net',0],'image':['i',0],'strength':0,"
              "'start_percent':0,'end_percent':1}},",
              WORLD_CAPTURE("a", "['x',0]") ",", WORLD_CAPTURE("b", "['y',0]"));
    ask_open(&a, 1, 2, 2);
    assert_false(at_control_run_residuals(a.run, a.o, control_of("a", 0), &a.in, NULL, 0, 1, &out));
    assert_int_equal(at_ops_clear(a.o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "needs a VAE"));
    at_tensor *wide = at_zeros(a.o, AT_F32, 3, (int64_t[]){1, 5, 32});
    assert_false(at_control_run_residuals(a.run, a.o, control_of("b", 0), &a.in, wide, 0, 1, &out));
    assert_int_equal(at_ops_clear(a.o), AT_EINVAL);
    assert_non_null(strstr(at_error_text(), "different families"));
    ask_close(&a);
    // a file that is no ControlNet, and a kind that is known and not built
    install(w, "controlnet", "clip_l", "text.safetensors");
    assert_int_equal(world_try(w, LOAD("net", "text.safetensors"), WORLD_CAPTURE("a", "['net',0]")),
                     AT_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_adds_up_as_comfyuis),
        cmocka_unit_test(residuals_come_from_another_device),
        cmocka_unit_test(outside_its_range_a_net_is_silent),
        cmocka_unit_test(a_shuffle_file_gives_the_mean_of_the_picture),
        cmocka_unit_test(low_rank_and_difference_files_use_the_models_weights),
        cmocka_unit_test(a_latent_hint_is_encoded_scaled_and_masked),
        cmocka_unit_test(a_part_of_a_batch_gets_its_own_pictures),
        cmocka_unit_test(failed_allocations_leak_nothing),
        cmocka_unit_test(what_cannot_be_is_said),
    };
    return cmocka_run_group_tests(tests, open_world, world_close);
}
