// SPDX-License-Identifier: Apache-2.0
// session_test.c - steps through a session give what evaluations without one give: on the CPU, and
// on a device that records. The recording device is the CPU's backend behind a tape: while it
// records, slot calls are written down instead of done, and host copies are refused, as on a GPU.
#include "models/session.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cpu/cpu.h"
#include "models/wave_test.h"

// --- the device with a tape --------------------------------------------------------------------
typedef enum tape_slot {
    T_COPY,
    T_FILL,
    T_UNARY,
    T_BINARY,
    T_GATE_ADD,
    T_LINCOMB,
    T_LINEAR,
    T_ATTENTION,
    T_NORM,
    T_GROUP_NORM,
    T_ROPE,
    T_CONV,
    T_EMBEDDING,
    T_GEGLU
} tape_slot;

typedef struct tape_call {
    tape_slot slot;
    at_view a, b;
    double value;
    at_act act;
    union {
        at_binary_args binary;
        at_gate_add_args gate_add;
        at_lincomb_args lincomb;
        at_linear_args linear;
        at_attention_args attention;
        at_norm_args norm;
        at_group_norm_args group_norm;
        at_rope_args rope;
        at_conv2d_args conv;
        at_embedding_args embedding;
        at_geglu_args geglu;
    } u;
} tape_call;

enum { TAPE_MAX = 8192 };
typedef struct tape {
    int count;
    tape_call calls[TAPE_MAX];
} tape;

static struct {
    bool recording;
    tape *now;
    int recordings, replays;
    void *late[4 * TAPE_MAX]; // dropped while a recording lives
    int n_late;
    int sums; // that a norm was given to make
} g_tape;

// The CPU's norm after what is to be added to x: this device is one that makes both in one go.
static at_status tape_norm(const at_backend *be, void *s, at_norm_args a)
{
    at_gate_add_args add = {.x = a.x, .y = a.y, .gate = a.gate, .out = a.x};
    at_status st = a.y.data ? be->gate_add(s, &add) : AT_OK;
    g_tape.sums += a.y.data != NULL;
    a.y.data = a.gate.data = NULL;
    return st == AT_OK ? be->norm(s, &a) : st;
}

static at_status tape_do(const tape_call *c)
{
    const at_backend *be = at_cpu_backend();
    void *s = at_device_cpu()->stream;
    if (g_tape.recording && g_tape.now != NULL) {
        assert_true(g_tape.now->count < TAPE_MAX);
        g_tape.now->calls[g_tape.now->count++] = *c;
        return AT_OK;
    }
    switch (c->slot) {
    case T_COPY: return be->copy(s, &c->a, &c->b);
    case T_FILL: return be->fill(s, &c->a, c->value);
    case T_UNARY: return be->unary(s, &c->a, &c->b, c->act);
    case T_BINARY: return be->binary(s, &c->u.binary);
    case T_GATE_ADD: return be->gate_add(s, &c->u.gate_add);
    case T_LINCOMB: return be->lincomb(s, &c->u.lincomb);
    case T_LINEAR: return be->linear(s, &c->u.linear);
    case T_ATTENTION: return be->attention(s, &c->u.attention);
    case T_NORM: return tape_norm(be, s, c->u.norm);
    case T_GROUP_NORM: return be->group_norm(s, &c->u.group_norm);
    case T_ROPE: return be->rope(s, &c->u.rope);
    case T_CONV: return be->conv2d(s, &c->u.conv);
    case T_EMBEDDING: return be->embedding(s, &c->u.embedding);
    case T_GEGLU: return be->geglu(s, &c->u.geglu);
    }
    return AT_EINTERNAL;
}

static at_status t_copy(void *s, const at_view *a, const at_view *b)
{
    (void)s;
    return tape_do(&(tape_call){.slot = T_COPY, .a = *a, .b = *b});
}
static at_status t_fill(void *s, const at_view *a, double value)
{
    (void)s;
    return tape_do(&(tape_call){.slot = T_FILL, .a = *a, .value = value});
}
static at_status t_unary(void *s, const at_view *a, const at_view *b, at_act act)
{
    (void)s;
    return tape_do(&(tape_call){.slot = T_UNARY, .a = *a, .b = *b, .act = act});
}
#define TAPED(name, id, type, field)                                                               \
    static at_status t_##name(void *s, const type *a)                                              \
    {                                                                                              \
        tape_call c = {.slot = id};                                                                \
        (void)s;                                                                                   \
        c.u.field = *a;                                                                            \
        return tape_do(&c);                                                                        \
    }
TAPED(binary, T_BINARY, at_binary_args, binary)
TAPED(gate_add, T_GATE_ADD, at_gate_add_args, gate_add)
TAPED(lincomb, T_LINCOMB, at_lincomb_args, lincomb)
TAPED(linear, T_LINEAR, at_linear_args, linear)
TAPED(attention, T_ATTENTION, at_attention_args, attention)
TAPED(norm, T_NORM, at_norm_args, norm)
TAPED(group_norm, T_GROUP_NORM, at_group_norm_args, group_norm)
TAPED(rope, T_ROPE, at_rope_args, rope)
TAPED(conv, T_CONV, at_conv2d_args, conv)
TAPED(embedding, T_EMBEDDING, at_embedding_args, embedding)
TAPED(geglu, T_GEGLU, at_geglu_args, geglu)

static at_status t_alloc(at_device *d, size_t bytes, void **out)
{
    (void)d;
    *out = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (*out) memset(*out, 0xff, bytes); // NaN: what nobody wrote is seen
    return *out ? AT_OK : AT_ENOMEM;
}
// What a recording took stays where it is.
static void t_free(at_device *d, void *p)
{
    (void)d;
    if (!g_tape.recordings && !g_tape.recording) {
        free(p);
        return;
    }
    assert_true(g_tape.n_late < 4 * TAPE_MAX);
    g_tape.late[g_tape.n_late++] = p;
}
static at_status t_from_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    if (g_tape.recording) return at_fail(AT_EDEVICE, "%s: host bytes in a recording", d->name);
    memcpy(dst, src, bytes);
    return AT_OK;
}
static at_status t_to_host(at_device *d, void *dst, const void *src, size_t bytes)
{
    return t_from_host(d, dst, src, bytes);
}
static at_status t_synchronize(at_device *d)
{
    (void)d;
    return AT_OK;
}
static at_status t_memory(at_device *d, uint64_t *rest, uint64_t *all)
{
    (void)d;
    *rest = *all = 1u << 30;
    return AT_OK;
}
static at_status t_record_begin(at_device *d)
{
    (void)d;
    g_tape.now = at_calloc(1, sizeof *g_tape.now);
    assert_non_null(g_tape.now);
    g_tape.recording = true;
    return AT_OK;
}
static at_status t_record_end(at_device *d, void **out)
{
    (void)d;
    g_tape.recording = false;
    g_tape.recordings++;
    *out = g_tape.now;
    g_tape.now = NULL;
    return AT_OK;
}
static at_status t_replay(at_device *d, void *recording)
{
    tape *t = recording;
    (void)d;
    g_tape.replays++;
    for (int i = 0; i < t->count; i++) {
        at_status st = tape_do(&t->calls[i]);
        if (st != AT_OK) return st;
    }
    return AT_OK;
}
static void t_recording_free(at_device *d, void *recording)
{
    (void)d;
    at_free(recording);
    if (--g_tape.recordings) return;
    while (g_tape.n_late)
        free(g_tape.late[--g_tape.n_late]);
}

static const at_device_ops tape_ops = {
    .alloc = t_alloc,
    .free = t_free,
    .from_host = t_from_host,
    .to_host = t_to_host,
    .synchronize = t_synchronize,
    .memory = t_memory,
    .record_begin = t_record_begin,
    .record_end = t_record_end,
    .replay = t_replay,
    .recording_free = t_recording_free,
};
static const at_backend tape_backend = {
    .abi = AT_BACKEND_ABI,
    .name = "tape",
    .copy = t_copy,
    .fill = t_fill,
    .unary = t_unary,
    .binary = t_binary,
    .gate_add = t_gate_add,
    .lincomb = t_lincomb,
    .linear = t_linear,
    .attention = t_attention,
    .norm = t_norm,
    .adds = true,
    .group_norm = t_group_norm,
    .rope = t_rope,
    .conv2d = t_conv,
    .embedding = t_embedding,
    .geglu = t_geglu,
};
static at_device tape_device = {
    .name = "tape", .description = "a tape", .ops = &tape_ops, .backend = &tape_backend};

// --- runs --------------------------------------------------------------------------------------
enum { STEPS = 4, BATCH = 2, TEXT = 7 };
static const float steps[STEPS] = {0.9f, 0.65f, 0.4f, 0.15f};

// Evaluation `i` of run number `run`; with key 0 nothing is kept. The caller frees the values.
static float *evaluate(at_ops *o, at_model *m, int run, int i, uint64_t key, size_t *count)
{
    int64_t c = at_model_channels(m), vector = at_model_vector_width(m);
    float t[BATCH], guidance[BATCH] = {3.0f, 2.0f};
    for (int b = 0; b < BATCH; b++)
        t[b] = steps[i];
    at_scope_begin(o);
    at_model_in in = {
        .x = wave(o, 4, (int64_t[]){BATCH, c, 8, 6}, (float)(run + i)),
        .timestep = t,
        .context =
            wave(o, 3, (int64_t[]){BATCH, TEXT, at_model_text_width(m)}, (float)(10 * run + 1)),
        .pooled = vector ? wave(o, 2, (int64_t[]){BATCH, vector}, (float)run) : NULL,
        .guidance = guidance,
        .steps = steps,
        .n_steps = STEPS,
        .key = key,
    };
    at_tensor *y = at_model_forward(o, m, &in);
    assert_int_equal(at_ops_status(o), AT_OK);
    *count = (size_t)at_tensor_count(y);
    float *values = at_alloc(*count * sizeof *values);
    assert_non_null(values);
    assert_int_equal(at_tensor_to_host(y, AT_F32, values, *count * sizeof *values), AT_OK);
    at_scope_end(o, NULL);
    return values;
}

static void assert_close(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= 1e-5f * (1 + fabsf(b[i]))))
            fail_msg("value %zu is %g, without a session %g", i, (double)a[i], (double)b[i]);
}

static at_model *load(const char *name, at_store **store)
{
    char path[512];
    at_model *m = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s/model.safetensors", name);
    assert_int_equal(at_store_open(path, store), AT_OK);
    assert_int_equal(at_model_load(*store, name, &m), AT_OK);
    return m;
}

static void steps_agree(const char *name, at_device *device)
{
    at_store *store = NULL;
    at_model *m = load(name, &store);
    at_ops *plain = NULL, *o = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &plain), AT_OK);
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32, .device = device}, &o), AT_OK);
    g_tape.replays = 0;
    for (int run = 0; run < 2; run++)
        for (int i = 0; i < STEPS; i++) {
            size_t n = 0, same = 0;
            at_model *alone = NULL;
            assert_int_equal(at_model_load(store, name, &alone), AT_OK);
            float *want = evaluate(plain, alone, run, i, 0, &n);
            float *got = evaluate(o, m, run, i, (uint64_t)run + 1, &same);
            assert_int_equal(n, same);
            assert_close(got, want, n);
            at_free(want);
            at_free(got);
            at_model_release(&alone);
        }
    if (device->ops->record_begin) {
        assert_int_equal(g_tape.replays, 2 * STEPS - 1); // all but the very first
        assert_int_equal(g_tape.recordings, 1);
    }
    at_model_forget(m);
    assert_int_equal(g_tape.recordings, 0);
    at_ops_free(plain);
    at_ops_free(o);
    at_model_release(&m);
    at_store_release(&store);
}

static const char *const nets[] = {"unet_sd15", "unet_sdxl", "unet_koala", "flux_dev",
                                   "flux_schnell"};

static void steps_of_a_run_agree_with_single_evaluations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        steps_agree(nets[i], at_device_cpu());
}

static void replays_of_a_recording_agree_with_single_evaluations(void **state)
{
    (void)state;
    g_tape.sums = 0;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        steps_agree(nets[i], &tape_device);
    assert_true(g_tape.sums > 0); // Flux leaves its sums to the next norm
}

// Another shape is another recording, and memory can be had back.
static void each_shape_is_recorded_once_and_given_back(void **state)
{
    (void)state;
    at_store *store = NULL;
    at_model *m = load("flux_dev", &store);
    at_ops *o = NULL;
    size_t n = 0;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32, .device = &tape_device}, &o),
                     AT_OK);
    for (int i = 0; i < 3; i++)
        at_free(evaluate(o, m, 0, i, 5, &n));
    assert_int_equal(g_tape.recordings, 1);
    assert_int_equal(at_sessions_reclaim(&tape_device), 1);
    assert_int_equal(g_tape.recordings, 0);
    at_sessions_record(false);
    g_tape.replays = 0;
    for (int i = 0; i < 3; i++)
        at_free(evaluate(o, m, 0, i, 6, &n));
    assert_int_equal(g_tape.replays, 0);
    at_sessions_record(true);
    at_ops_free(o);
    at_model_release(&m);
    at_store_release(&store);
    assert_int_equal(g_tape.recordings, 0);
}

// A recording reads addresses: once a weight has left the device it is not replayed again.
static void weights_that_leave_end_the_recording(void **state)
{
    (void)state;
    at_store *store = NULL;
    at_model *m = load("flux_dev", &store);
    at_ops *o = NULL;
    size_t n = 0;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32, .device = &tape_device}, &o),
                     AT_OK);
    g_tape.replays = 0;
    for (int i = 0; i < 3; i++)
        at_free(evaluate(o, m, 0, i, 5, &n));
    assert_int_equal(g_tape.replays, 2);
    atomic_fetch_add(&tape_device.moved, 1);
    at_free(evaluate(o, m, 0, 3, 5, &n));
    assert_int_equal(g_tape.replays, 2);
    assert_int_equal(g_tape.recordings, 0);
    at_free(evaluate(o, m, 0, 0, 5, &n));
    assert_int_equal(g_tape.replays, 3);
    assert_ptr_equal(tape_device.reclaim, at_sessions_reclaim);
    at_ops_free(o);
    at_model_release(&m);
    at_store_release(&store);
}

static at_encoder *load_encoder(const char *name)
{
    char path[512];
    at_store *s = NULL;
    at_found f[1];
    at_encoder *e = NULL;
    snprintf(path, sizeof path, AT_SOURCE_DIR "/tests/golden/%s/model.safetensors", name);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    assert_int_equal(at_detect(s, f, 1), 1);
    assert_int_equal(at_encoder_load(s, f, &e), AT_OK);
    at_store_release(&s);
    return e;
}

static void assert_same_result(const at_tensor *got, const at_tensor *want)
{
    size_t n = want ? (size_t)at_tensor_count(want) : 0;
    assert_true(!got == !want);
    if (!want) return;
    assert_int_equal(at_tensor_count(got), n);
    assert_close(at_tensor_data(got), at_tensor_data(want), n);
}

// Prompt number i, over a session on the tape and without one.
static void encode_both(at_ops *tape_ops_, at_ops *plain, at_encoder *e, int layer, int i)
{
    int32_t ids[2 * TEXT];
    for (int t = 0; t < 2 * TEXT; t++)
        ids[t] = (t * 5 + i * 11) % 200;
    ids[2 + i % 3] = ids[TEXT + 4] = 201; // where pooled is taken
    at_encode_in in = {.ids = ids, .batch = 2, .tokens = TEXT, .layer = layer, .eos = 201};
    at_scope_begin(tape_ops_);
    at_scope_begin(plain);
    at_encoded got = at_encoder_forward(tape_ops_, e, &in);
    at_encoded want = at_encoder_forward(plain, e, &in);
    assert_int_equal(at_ops_status(tape_ops_), AT_OK);
    assert_non_null(want.hidden);
    assert_same_result(got.hidden, want.hidden);
    assert_same_result(got.pooled, want.pooled);
    assert_same_result(got.pooled_projected, want.pooled_projected);
    at_scope_end(plain, NULL);
    at_scope_end(tape_ops_, NULL);
}

// Prompts differ, their layers do not: the second of a shape is recorded, all others are replays.
static void prompts_through_a_recording_agree_with_single_ones(void **state)
{
    (void)state;
    static const char *const names[] = {"t5", "clip_l", "clip_g"};
    at_ops *o = NULL, *plain = NULL;
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32, .device = &tape_device}, &o),
                     AT_OK);
    assert_int_equal(at_ops_new(&(at_ops_config){.compute = AT_F32}, &plain), AT_OK);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        at_encoder *e = load_encoder(names[n]);
        g_tape.replays = 0;
        for (int i = 0; i < 4; i++)
            encode_both(o, plain, e, 0, i);
        assert_int_equal(g_tape.replays, 3);
        assert_int_equal(g_tape.recordings, 1);
        for (int i = 0; i < 3; i++) // another kind of result
            encode_both(o, plain, e, -1, i);
        assert_int_equal(g_tape.replays, 5);
        assert_int_equal(g_tape.recordings, 2);
        atomic_fetch_add(&tape_device.moved, 1);
        encode_both(o, plain, e, 0, 5); // a weight has left: as the first time
        assert_int_equal(g_tape.replays, 5);
        assert_int_equal(g_tape.recordings, 1);
        assert_int_equal(at_sessions_reclaim(&tape_device), 2);
        assert_int_equal(g_tape.recordings, 0);
        at_encoder_release(&e);
    }
    at_ops_free(plain);
    at_ops_free(o);
}

static int set_up(void **state)
{
    (void)state;
    at_device_set_cpu_backend(at_cpu_backend(), at_cpu_describe());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_of_a_run_agree_with_single_evaluations),
        cmocka_unit_test(replays_of_a_recording_agree_with_single_evaluations),
        cmocka_unit_test(each_shape_is_recorded_once_and_given_back),
        cmocka_unit_test(weights_that_leave_end_the_recording),
        cmocka_unit_test(prompts_through_a_recording_agree_with_single_ones),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
