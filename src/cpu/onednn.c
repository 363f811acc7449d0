// SPDX-License-Identifier: Apache-2.0
// onednn.c - everything that touches oneDNN's C API (2.x, Debian's libdnnl-dev; 3.x differs).
// Idea: primitives by shape, made once; one block of the output at a time, called from inside our
// own pool with the library's OpenMP team set to one thread, so that two pools never fight for the
// cores.
// Easy to get wrong: the library's own scratchpad belongs to the thread that made the primitive, so
// primitives are made with scratchpad mode "user".
// Owns: one engine, the primitives and the weight layouts for the life of the process.
#ifdef AT_HAVE_DNNL
#include "cpu/onednn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <threads.h>

#include <oneapi/dnnl/dnnl.h>

enum { SHAPES = 1024, LAYOUTS = 512 }; // what is kept; beyond that our own kernels serve

typedef struct kernel {
    at_dnnl_shape key;
    uint64_t hash; // of the key
    dnnl_primitive_t p;
    dnnl_memory_desc_t src, weights, dst, scratch;
    int layout;
} kernel;

static struct {
    once_flag once;
    dnnl_engine_t engine;
    void (*set_threads)(int); // omp_set_num_threads
    mtx_t lock;
    kernel kernels[SHAPES];
    int count;
    dnnl_memory_desc_t layouts[LAYOUTS]; // [0] is "any"
    int layout_count;
} g_dnnl = {.once = ONCE_FLAG_INIT, .layout_count = 1};

static void start(void)
{
    void *f = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    memcpy(&g_dnnl.set_threads, &f, sizeof f);
    if (mtx_init(&g_dnnl.lock, mtx_plain) != thrd_success) return;
    if (dnnl_engine_create(&g_dnnl.engine, dnnl_cpu, 0) != dnnl_success) g_dnnl.engine = NULL;
}

bool at_dnnl_ready(void)
{
    call_once(&g_dnnl.once, start);
    if (!g_dnnl.engine || !g_dnnl.set_threads) return false;
    g_dnnl.set_threads(1);
    return true;
}

const char *at_dnnl_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

// --- descriptors --------------------------------------------------------------------------------
static dnnl_data_type_t data_type(const at_dnnl_shape *s)
{
    return s->type == AT_DNNL_S8 ? dnnl_s8 : s->type == AT_DNNL_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_data_type_t sum_type(const at_dnnl_shape *s)
{
    return s->type == AT_DNNL_S8 ? dnnl_s32 : dnnl_f32;
}

// The weight as the file stores it: [n, k] seen as k by n, or [oc, ic, kh, kw].
static dnnl_status_t plain_weights(const at_dnnl_shape *s, dnnl_memory_desc_t *out)
{
    if (s->conv)
        return dnnl_memory_desc_init_by_tag(out, 4, (dnnl_dims_t){s->oc, s->ic, s->kh, s->kw},
                                            data_type(s), dnnl_oihw);
    return dnnl_memory_desc_init_by_tag(out, 2, (dnnl_dims_t){s->ic, s->oc}, data_type(s), dnnl_ba);
}

static dnnl_status_t wanted_weights(const at_dnnl_shape *s, dnnl_memory_desc_t *out)
{
    if (s->layout) {
        *out = g_dnnl.layouts[s->layout];
        return dnnl_success;
    }
    if (s->conv)
        return dnnl_memory_desc_init_by_tag(out, 4, (dnnl_dims_t){s->oc, s->ic, s->kh, s->kw},
                                            data_type(s), dnnl_format_tag_any);
    return dnnl_memory_desc_init_by_tag(out, 2, (dnnl_dims_t){s->ic, s->oc}, data_type(s),
                                        dnnl_format_tag_any);
}

static dnnl_status_t describe_linear(const at_dnnl_shape *s, dnnl_primitive_attr_t attr,
                                     dnnl_primitive_desc_t *out)
{
    dnnl_memory_desc_t src, weights, dst;
    dnnl_matmul_desc_t d;
    dnnl_status_t st = wanted_weights(s, &weights);

    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_strides(&src, 2, (dnnl_dims_t){s->oh, s->ic}, data_type(s),
                                              (dnnl_dims_t){s->sx, 1});
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&dst, 2, (dnnl_dims_t){s->oh, s->oc}, sum_type(s),
                                          dnnl_ab);
    if (st == dnnl_success) st = dnnl_matmul_desc_init(&d, &src, &weights, NULL, &dst);
    if (st == dnnl_success) st = dnnl_primitive_desc_create(out, &d, attr, g_dnnl.engine, NULL);
    return st;
}

static dnnl_status_t describe_conv(const at_dnnl_shape *s, dnnl_primitive_attr_t attr,
                                   dnnl_primitive_desc_t *out)
{
    dnnl_memory_desc_t src, weights, dst;
    dnnl_convolution_desc_t d;
    dnnl_dims_t strides = {s->stride, s->stride};
    dnnl_status_t st = wanted_weights(s, &weights);

    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_strides(&src, 4, (dnnl_dims_t){1, s->ic, s->ih, s->iw},
                                              data_type(s),
                                              (dnnl_dims_t){s->ih * s->sy, 1, s->sy, s->sx});
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&dst, 4, (dnnl_dims_t){1, s->oc, s->oh, s->ow},
                                          sum_type(s), dnnl_nhwc);
    if (st == dnnl_success)
        st = dnnl_convolution_forward_desc_init(
            &d, dnnl_forward_inference, dnnl_convolution_direct, &src, &weights, NULL, &dst,
            strides, (dnnl_dims_t){s->top, s->left}, (dnnl_dims_t){s->bottom, s->right});
    if (st == dnnl_success) st = dnnl_primitive_desc_create(out, &d, attr, g_dnnl.engine, NULL);
    return st;
}

// --- primitives by shape ------------------------------------------------------------------------
static bool make_primitive(const at_dnnl_shape *s, kernel *k)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = "";
    bool ok =
        dnnl_primitive_attr_create(&attr) == dnnl_success &&
        dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;

    ok = ok && (s->conv ? describe_conv : describe_linear)(s, attr, &pd) == dnnl_success;
    // The library's reference code would be slower than ours.
    ok = ok && dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
         strncmp(name, "ref", 3) != 0;
    ok = ok && dnnl_primitive_create(&k->p, pd) == dnnl_success;
    if (ok) {
        k->key = *s;
        k->src = *dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
        k->weights = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        k->dst = *dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
        k->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return ok;
}

// The number of a layout, kept if it is new; 0 if there is no room.
static int layout_number(const dnnl_memory_desc_t *md)
{
    for (int i = 1; i < g_dnnl.layout_count; i++)
        if (dnnl_memory_desc_equal(&g_dnnl.layouts[i], md)) return i;
    if (g_dnnl.layout_count == LAYOUTS) return 0;
    g_dnnl.layouts[g_dnnl.layout_count] = *md;
    return g_dnnl.layout_count++;
}

// FNV-1a, by words.
static uint64_t hash_of(const at_dnnl_shape *s)
{
    uint64_t words[sizeof *s / sizeof(uint64_t)], h = 0xcbf29ce484222325u;

    memcpy(words, s, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        h = (h ^ words[i]) * 0x100000001b3u;
    return h;
}

static const kernel *find_or_make(const at_dnnl_shape *s)
{
    uint64_t hash = hash_of(s);
    kernel *k;

    for (int i = 0; i < g_dnnl.count; i++) {
        k = &g_dnnl.kernels[i];
        if (k->hash == hash && memcmp(&k->key, s, sizeof *s) == 0) return k->p ? k : NULL;
    }
    if (g_dnnl.count == SHAPES) return NULL;
    k = &g_dnnl.kernels[g_dnnl.count++]; // a shape that fails is remembered, too
    k->key = *s;
    k->hash = hash;
    if (make_primitive(s, k)) k->layout = layout_number(&k->weights);
    if (k->p && !k->layout) {
        dnnl_primitive_destroy(k->p);
        k->p = NULL;
    }
    return k->p ? k : NULL;
}

bool at_dnnl_kernel_get(const at_dnnl_shape *s, at_dnnl_kernel *out)
{
    const kernel *k;

    mtx_lock(&g_dnnl.lock);
    k = find_or_make(s);
    if (k) *out = (at_dnnl_kernel){k, dnnl_memory_desc_get_size(&k->scratch), k->layout};
    mtx_unlock(&g_dnnl.lock);
    return k;
}

size_t at_dnnl_weight_bytes(const at_dnnl_kernel *k)
{
    const kernel *own = k->own;
    return dnnl_memory_desc_get_size(&own->weights);
}

bool at_dnnl_run(const at_dnnl_kernel *kernel_, const void *src, const void *weights, void *dst,
                 void *scratch)
{
    const kernel *k = kernel_->own;
    const dnnl_memory_desc_t *md[] = {&k->src, &k->weights, &k->dst, &k->scratch};
    const int arg[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    void *const data[] = {(void *)src, (void *)weights, dst, scratch};
    dnnl_exec_arg_t args[4] = {{0}};
    dnnl_stream_t stream = NULL;
    bool ok = dnnl_stream_create(&stream, g_dnnl.engine, dnnl_stream_default_flags) == dnnl_success;

    for (int i = 0; ok && i < 4; i++) {
        args[i].arg = arg[i];
        ok = dnnl_memory_create(&args[i].memory, md[i], g_dnnl.engine, data[i]) == dnnl_success;
    }
    ok = ok && dnnl_primitive_execute(k->p, stream, 4, args) == dnnl_success &&
         dnnl_stream_wait(stream) == dnnl_success;
    for (int i = 0; i < 4; i++)
        if (args[i].memory) dnnl_memory_destroy(args[i].memory);
    if (stream) dnnl_stream_destroy(stream);
    return ok;
}

bool at_dnnl_pack(const at_dnnl_kernel *k, const void *from, void *to)
{
    const kernel *own = k->own;
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t p = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, NULL}, {DNNL_ARG_TO, NULL}};
    dnnl_engine_t e = g_dnnl.engine;
    bool ok = plain_weights(&own->key, &plain) == dnnl_success &&
              dnnl_reorder_primitive_desc_create(&pd, &plain, e, &own->weights, e, NULL) ==
                  dnnl_success &&
              dnnl_primitive_create(&p, pd) == dnnl_success &&
              dnnl_stream_create(&stream, e, dnnl_stream_default_flags) == dnnl_success &&
              dnnl_memory_create(&args[0].memory, &plain, e, (void *)from) == dnnl_success &&
              dnnl_memory_create(&args[1].memory, &own->weights, e, to) == dnnl_success &&
              dnnl_primitive_execute(p, stream, 2, args) == dnnl_success &&
              dnnl_stream_wait(stream) == dnnl_success;

    for (int i = 0; i < 2; i++)
        if (args[i].memory) dnnl_memory_destroy(args[i].memory);
    if (stream) dnnl_stream_destroy(stream);
    if (p) dnnl_primitive_destroy(p);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return ok;
}
#endif
