// SPDX-License-Identifier: Apache-2.0
// cuda_memory_test.c - uploads, forms of weights and who leaves, over a fake CUDA runtime.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "cuda/upload.h"
#include "fake_cudart.h"
#include "weight/cut.h"

enum { MIB = 1 << 20 };
static at_cuda g;

static at_status get_memory(at_device *d, size_t bytes, void **out)
{
    return at_cuda_alloc((at_cuda *)d, bytes, out);
}
static void free_memory(at_device *d, void *p)
{
    at_cuda_free((at_cuda *)d, p);
}
static at_status tell_memory(at_device *d, uint64_t *rest, uint64_t *all)
{
    *rest = fake.room - fake.taken + at_cuda_pool_kept((at_cuda *)d);
    *all = fake.room;
    return AT_OK;
}
static const at_device_ops ops = {.alloc = get_memory, .free = free_memory, .memory = tell_memory};

static int open_gpu(void **state)
{
    (void)state;
    snprintf(g.dev.name, sizeof g.dev.name, "cuda:0");
    atomic_store(&g.opened, true);
    g.dev.ops = &ops;
    assert_int_equal(at_cuda_pool_new(&g.pool), AT_OK);
    return 0;
}

static int calm(void **state)
{
    (void)state;
    fake.room = (size_t)1 << 40;
    fake.copy_error = cudaSuccess;
    fake.uploaded = 0;
    g.dev.reserve_bytes = g.dev.weight_bytes = 0;
    g.dev.drop_idle = false;
    g.recording = false;
    return 0;
}

static void numbers(void *ctx, void *bytes, size_t n)
{
    uint16_t *p = bytes, x = (uint16_t)(uintptr_t)ctx;
    for (size_t i = 0; i < n / 2; i++)
        p[i] = (uint16_t)(x + i * 7);
}

// `n` bf16 weights of `kib` KiB each.
static at_store *weights(int n, int64_t kib)
{
    at_store *s = NULL;
    assert_int_equal(at_store_new("test", &s), AT_OK);
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        assert_int_equal(at_store_add(s, name, AT_BF16, 2, (int64_t[]){kib, 512}, numbers,
                                      (void *)(uintptr_t)(i * 131)),
                         AT_OK);
    }
    return s;
}

// The form in `dtype` is there and right.
static void use(at_store *s, size_t i, at_dtype dtype)
{
    at_wview w = at_weight_view(at_store_at(s, i));
    at_view v;
    void *owned = NULL;
    assert_int_equal(at_cuda_weight(&g, &w, dtype, false, &v, &owned), AT_OK);
    assert_null(owned);
    const uint16_t *from = w.v.data;
    for (int64_t k = 0, n = at_cuda_count(&v); k < n; k += 97) {
        if (dtype == AT_BF16)
            assert_int_equal(((const uint16_t *)v.data)[k], from[k]);
        else
            assert_int_equal(((const uint32_t *)v.data)[k], (uint32_t)from[k] << 16);
    }
}

static void forms_are_made_once_and_die_with_the_weight(void **state)
{
    (void)state;
    at_store *s = weights(8, 1024);
    size_t live = g.dev.live_bytes;
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < 8; i++) {
            use(s, i, AT_BF16);
            use(s, i, AT_F32);
        }
    assert_int_equal(fake.uploaded, 8 * MIB); // the f32 form is made of the bf16 one
    assert_int_equal(g.dev.live_bytes - live, 8 * 3 * MIB);
    assert_int_equal(g.weights.bytes, 8 * 3 * MIB);
    at_store_release(&s);
    assert_int_equal(g.dev.live_bytes, live);
    assert_int_equal(g.weights.bytes, 0);
}

static void sizes_around_the_pieces_arrive_whole(void **state)
{
    (void)state;
    const size_t sizes[] = {1,           255,     (256 << 10) - 1, 256 << 10, (256 << 10) + 1,
                            2 * MIB - 1, 2 * MIB, 2 * MIB + 1,     7 * MIB,   200 * MIB + 3};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t n = sizes[k];
        unsigned char *from = at_alloc(n + 1);
        void *to = NULL;
        for (size_t i = 0; i < n; i++)
            from[i] = (unsigned char)(i * 2654435761u >> 13);
        assert_int_equal(at_device_alloc(&g.dev, n, &to), AT_OK);
        assert_int_equal(at_cuda_upload(&g, to, from, n), AT_OK);
        assert_memory_equal(to, from, n);
        at_device_free(&g.dev, to, n);
        at_free(from);
    }
}

// A rank's columns: a piece of each row, of sizes that no slot of the ring divides.
static void what_lies_apart_arrives_in_one_piece(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{3, 7}, {300, 1021}, {2000, 3001}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        const int64_t *shape = shapes[k], mine = shape[1] / 2;
        at_store *s = NULL;
        const at_weight *gathered;
        at_wview v;
        void *to = NULL;
        assert_int_equal(at_store_new("columns", &s), AT_OK);
        assert_int_equal(at_store_add(s, "w", AT_U8, 2, shape, NULL, NULL), AT_OK);
        at_weight *w = at_store_find(s, "w");
        for (size_t i = 0; i < w->bytes; i++)
            ((unsigned char *)(uintptr_t)w->data)[i] = (unsigned char)(i * 2654435761u >> 13);
        const at_cutting how = {.columns = true, .n = 2, .run = {{3, 1}, {shape[1] - 3, 1}}};
        assert_int_equal(at_weight_cut(w, &how), AT_OK);
        assert_int_equal(at_weight_share_view(w, 1, 2, true, &v), AT_OK);
        assert_non_null(v.apart);
        size_t n = (size_t)(v.v.shape[0] * v.v.shape[1]);
        assert_true(v.v.shape[1] == mine || v.v.shape[1] == mine - 1);
        assert_int_equal(at_device_alloc(&g.dev, n, &to), AT_OK);
        assert_int_equal(at_cuda_upload_weight(&g, to, &v, n), AT_OK);
        assert_int_equal(at_weight_share(w, 1, 2, &gathered), AT_OK);
        assert_int_equal(gathered->bytes, n);
        assert_memory_equal(to, gathered->data, n);
        at_device_free(&g.dev, to, n);
        at_store_release(&s);
    }
}

static void many_small_ones_pass_through_the_ring(void **state)
{
    (void)state;
    void *to = NULL;
    unsigned char from[70000], back[70000];
    assert_int_equal(at_device_alloc(&g.dev, sizeof from, &to), AT_OK);
    for (int i = 0; i < 500; i++) {
        memset(from, i, sizeof from);
        assert_int_equal(at_cuda_upload(&g, to, from, sizeof from - (size_t)i), AT_OK);
        memcpy(back, to, sizeof back);
        assert_memory_equal(back, from, sizeof from - (size_t)i);
    }
    at_device_free(&g.dev, to, sizeof from);
}

// A file's weights are read from the file, and a file that has become shorter is told, not a crash.
static void a_shortened_file_is_an_error(void **state)
{
    (void)state;
    char path[] = "/tmp/at_upload_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && ftruncate(fd, 8 * MIB) == 0);
    at_map m;
    void *to = NULL;
    assert_int_equal(at_map_open(path, &m), AT_OK);
    assert_int_equal(at_device_alloc(&g.dev, 8 * MIB, &to), AT_OK);
    assert_int_equal(at_cuda_upload(&g, to, m.data, 8 * MIB), AT_OK);
    for (size_t i = 0; i < 8 * MIB; i += 4096)
        assert_int_equal(((const char *)to)[i], 0);
    assert_true(ftruncate(fd, 3 * MIB) == 0);
    assert_int_equal(at_cuda_upload(&g, to, m.data, 8 * MIB), AT_EIO);
    assert_non_null(strstr(at_error_text(), "shorter"));
    at_device_free(&g.dev, to, 8 * MIB);
    at_map_close(&m);
    close(fd);
    unlink(path);
}

// The same for a rank's columns, and for what passes through the small ring: neither may read the mapping.
static void shortened_pieces_and_small_ones_are_errors(void **state)
{
    (void)state;
    char path[] = "/tmp/at_upload_XXXXXX";
    int fd = mkstemp(path);
    char *bytes = at_alloc(4 * MIB);
    void *to = NULL;
    at_map m;
    assert_true(fd >= 0 && bytes);
    for (size_t i = 0; i < 4 * MIB; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    assert_int_equal(write(fd, bytes, 4 * MIB), 4 * MIB);
    assert_int_equal(at_map_open(path, &m), AT_OK);
    assert_int_equal(at_device_alloc(&g.dev, 4 * MIB, &to), AT_OK);
    // Lines of 8 KiB: 3 KiB at 1 KiB and 1 KiB at 6 KiB of each.
    const at_pieces apart = {512, 8192, 2, {{1024, 3072}, {6144, 1024}}};
    at_wview w = {.v = at_cuda_view((void *)(uintptr_t)m.data, AT_U8, 1, (int64_t[]){2 * MIB}),
                  .apart = &apart};
    assert_int_equal(at_cuda_upload_weight(&g, to, &w, 2 * MIB), AT_OK);
    for (size_t line = 0; line < 512; line++) {
        assert_memory_equal((char *)to + line * 4096, bytes + line * 8192 + 1024, 3072);
        assert_memory_equal((char *)to + line * 4096 + 3072, bytes + line * 8192 + 6144, 1024);
    }
    assert_true(ftruncate(fd, 2 * MIB) == 0);
    assert_int_equal(at_cuda_upload_weight(&g, to, &w, 2 * MIB), AT_EIO);
    assert_non_null(strstr(at_error_text(), "shorter"));
    assert_int_equal(at_cuda_upload(&g, to, m.data + 3 * MIB, 4096), AT_EIO);
    assert_non_null(strstr(at_error_text(), "shorter"));
    assert_int_equal(at_cuda_upload(&g, to, m.data + MIB, 4096), AT_OK); // what is left is read
    assert_memory_equal(to, bytes + MIB, 4096);
    at_device_free(&g.dev, to, 4 * MIB);
    at_map_close(&m);
    at_free(bytes);
    close(fd);
    unlink(path);
}

static void what_is_prefetched_is_there_when_it_is_wanted(void **state)
{
    (void)state;
    at_store *s = weights(40, 1024);
    at_wview list[40];
    for (size_t i = 0; i < 40; i++)
        list[i] = at_weight_view(at_store_at(s, i));
    int events = fake.events;
    assert_int_equal(at_cuda_prefetch(&g.dev, list, 40), AT_OK);
    assert_int_equal(at_cuda_prefetch(&g.dev, list, 40), AT_OK); // nothing left to bring
    for (size_t i = 0; i < 20; i++)
        use(s, 39 - i, AT_BF16);
    for (size_t i = 0; i < 20; i++)
        use(s, i, AT_F32);
    assert_int_equal(fake.uploaded, 40 * MIB);
    // Stored bytes that only the f32 form was made of have gone.
    assert_int_equal(g.weights.bytes, 20 * MIB + 20 * 2 * MIB);
    assert_int_equal(fake.events, events);
    at_store_release(&s);
    // Dropped while on the way.
    s = weights(40, 1024);
    for (size_t i = 0; i < 40; i++)
        list[i] = at_weight_view(at_store_at(s, i));
    assert_int_equal(at_cuda_prefetch(&g.dev, list, 40), AT_OK);
    at_store_release(&s);
    assert_int_equal(fake.events, events);
    assert_int_equal(g.weights.bytes, 0);
}

// A 1x1 filter is used as the matrix that it is.
static void shapes_are_the_callers(void **state)
{
    (void)state;
    at_store *s = NULL;
    at_view v;
    void *owned = NULL;
    assert_int_equal(at_store_new("test", &s), AT_OK);
    assert_int_equal(at_store_add(s, "w", AT_BF16, 4, (int64_t[]){64, 32, 3, 3}, numbers, NULL),
                     AT_OK);
    at_wview w = at_weight_view(at_store_at(s, 0));
    assert_int_equal(at_cuda_prefetch(&g.dev, &w, 1), AT_OK);
    at_wview flat = w;
    flat.v = at_cuda_view(w.v.data, AT_BF16, 2, (int64_t[]){64, 288});
    assert_int_equal(at_cuda_weight(&g, &flat, AT_BF16, false, &v, &owned), AT_OK);
    assert_int_equal(v.rank, 2);
    assert_int_equal(v.shape[1], 288);
    assert_int_equal(v.stride[0], 288);
    assert_memory_equal(v.data, w.v.data, 64 * 288 * 2);
    at_store_release(&s);
    // The same where it has to be converted.
    assert_int_equal(at_store_new("test", &s), AT_OK);
    assert_int_equal(at_store_add(s, "w", AT_BF16, 4, (int64_t[]){64, 32, 3, 3}, numbers, NULL),
                     AT_OK);
    w = at_weight_view(at_store_at(s, 0));
    assert_int_equal(at_cuda_prefetch(&g.dev, &w, 1), AT_OK);
    flat.v.data = w.v.data;
    flat.packed = w.packed;
    assert_int_equal(at_cuda_weight(&g, &flat, AT_F32, false, &v, &owned), AT_OK);
    assert_int_equal(((const uint32_t *)v.data)[100],
                     (uint32_t)((const uint16_t *)w.v.data)[100] << 16);
    assert_int_equal(at_cuda_weight(&g, &w, AT_BF16, true, &v, &owned), AT_OK);
    assert_int_equal(v.shape[1], 3);
    assert_int_equal(v.shape[3], 32);
    // [o, i, kh, kw] -> [o, kh, kw, i]
    assert_int_equal(((const uint16_t *)v.data)[1], ((const uint16_t *)w.v.data)[9]);
    at_store_release(&s);
}

static void prefetch_leaves_room_for_activations(void **state)
{
    (void)state;
    at_store *s = weights(40, 32 * 1024); // 32 MiB each
    at_wview list[40];
    void *none = NULL;
    for (size_t i = 0; i < 40; i++)
        list[i] = at_weight_view(at_store_at(s, i));
    fake.room = fake.taken; // first: give back what earlier tests left in the pool
    assert_int_equal(at_device_alloc(&g.dev, (size_t)900 * MIB, &none), AT_ENOMEM);
    fake.room = fake.taken + (size_t)1000 * MIB;
    assert_int_equal(at_cuda_prefetch(&g.dev, list, 40), AT_OK);
    assert_in_range(g.weights.bytes, 256 * MIB, 800 * MIB);
    at_store_release(&s);
}

static void models_that_do_not_fit_stream(void **state)
{
    (void)state;
    at_store *s = weights(60, 1024);
    void *none = NULL;
    unsigned long moved = g.dev.moved;
    fake.room = fake.taken;
    assert_int_equal(at_device_alloc(&g.dev, (size_t)900 * MIB, &none), AT_ENOMEM);
    fake.room = fake.taken + 40 * (size_t)MIB;
    atomic_fetch_add(&g.dev.epoch, 1);
    for (int step = 0; step < 4; step++)
        for (size_t i = 0; i < 60; i++)
            use(s, i, AT_BF16);
    assert_true(g.dev.moved > moved);
    // 60 once, then what does not fit in each of three steps.
    assert_in_range(fake.uploaded, (60 + 3 * 15) * (size_t)MIB, (60 + 3 * 40) * (size_t)MIB);
    // What comes next is on its way before it is asked for, and is not brought twice.
    use(s, 0, AT_BF16);
    size_t before = fake.uploaded;
    for (size_t i = 1; i < 60; i++) {
        use(s, i, AT_BF16);
        int ahead = 0;
        for (const at_resident *x = g.weights.large.newest; x; x = x->older)
            ahead += x->wanted;
        if (i >= 45 && i < 55) assert_in_range(ahead, 1, 8);
    }
    assert_in_range(fake.uploaded - before, 12 * (size_t)MIB, 45 * (size_t)MIB);
    // Another model takes the room of the idle one.
    at_store *t = weights(30, 1024);
    atomic_fetch_add(&g.dev.epoch, 1);
    fake.uploaded = 0;
    for (int step = 0; step < 4; step++)
        for (size_t i = 0; i < 30; i++)
            use(t, i, AT_BF16);
    assert_int_equal(fake.uploaded, 30 * MIB);
    at_store_release(&s);
    at_store_release(&t);
    assert_int_equal(g.weights.bytes, 0);
}

static void limits_are_kept(void **state)
{
    (void)state;
    at_store *s = weights(150, 1024), *t = weights(4, 1024);
    g.dev.weight_bytes = 30 * (size_t)MIB; // --lowvram
    for (size_t i = 0; i < 300; i++)
        use(s, i % 150, AT_BF16);
    assert_in_range(g.weights.bytes, 20 * MIB, 34 * MIB);
    g.dev.weight_bytes = 1; // --novram: what is at work, and 64 MiB ahead
    for (size_t i = 0; i < 300; i++)
        use(s, i % 150, AT_BF16);
    assert_in_range(g.weights.bytes, MIB, (AT_RESIDENT_NOW + 66) * MIB);
    g.dev.weight_bytes = 0;
    g.dev.drop_idle = true; // --disable-smart-memory
    atomic_fetch_add(&g.dev.epoch, 1);
    for (size_t i = 0; i < 4; i++)
        use(t, i, AT_BF16);
    assert_int_equal(g.weights.bytes, 4 * MIB);
    at_store_release(&s);
    at_store_release(&t);
}

static void reserved_memory_is_left_until_nothing_else_helps(void **state)
{
    (void)state;
    void *p = NULL, *none = NULL;
    at_store *s = weights(8, 1024);
    fake.room = fake.taken;
    assert_int_equal(at_device_alloc(&g.dev, (size_t)900 * MIB, &none), AT_ENOMEM);
    fake.room = fake.taken + 20 * (size_t)MIB;
    g.dev.reserve_bytes = 10 * (size_t)MIB;
    atomic_fetch_add(&g.dev.epoch, 1);
    for (size_t i = 0; i < 8; i++)
        use(s, i, AT_BF16);
    atomic_fetch_add(&g.dev.epoch, 1);
    assert_int_equal(at_device_alloc(&g.dev, 8 * MIB, &p), AT_OK);
    assert_true(fake.room - fake.taken >= 10 * (size_t)MIB); // weights have gone instead
    assert_true(g.weights.bytes < 8 * MIB);
    assert_int_equal(at_device_alloc(&g.dev, 11 * MIB, &none), AT_OK); // into the reserve
    at_device_free(&g.dev, none, 11 * MIB);
    assert_int_equal(at_device_alloc(&g.dev, 30 * MIB, &none), AT_ENOMEM);
    assert_non_null(strstr(at_error_text(), "cuda:0"));
    at_device_free(&g.dev, p, 8 * MIB);
    at_store_release(&s);
}

static void what_is_kept_goes_back_when_asked(void **state)
{
    (void)state;
    void *used = NULL, *kept = NULL;
    assert_int_equal(at_device_alloc(&g.dev, 3 * MIB, &used), AT_OK);
    assert_int_equal(at_device_alloc(&g.dev, 5 * MIB, &kept), AT_OK);
    at_device_free(&g.dev, kept, 5 * MIB);
    assert_true(at_cuda_pool_kept(&g) >= 5 * MIB);
    size_t before = fake.taken, idle = at_cuda_pool_kept(&g);
    at_cuda_pool_trim(&g.dev, true);
    assert_int_equal(at_cuda_pool_kept(&g), 0);
    assert_int_equal(fake.taken, before - idle); // what is in use stays
    at_device_free(&g.dev, used, 3 * MIB);
}

// What /free asks for: weights, recordings and what was kept are back at the driver, and the books say so all along.
static void what_is_unloaded_is_back_at_the_driver(void **state)
{
    (void)state;
    at_device_holds h;
    void *p[4] = {NULL}, *recording = NULL;
    atomic_fetch_add(&g.dev.epoch, 1); // nothing has streamed in this one
    at_cuda_pool_trim(&g.dev, true);
    size_t before = fake.taken;
    at_cuda_holds(&g.dev, &h);
    assert_int_equal(h.weights + h.tensors + h.kept + h.recordings, 0);

    at_store *s = weights(6, 1024);
    for (size_t i = 0; i < 6; i++) {
        use(s, i, AT_BF16);
        use(s, i, AT_F32);
    }
    for (int step = 0; step < 2; step++) { // as a first and a recorded forward do
        if (step) assert_int_equal(at_cuda_record_begin(&g.dev), AT_OK);
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(at_device_alloc(&g.dev, (i + 1) * MIB, &p[i]), AT_OK);
        for (size_t i = step; i < 4; i++) // the recording's result is kept
            at_device_free(&g.dev, p[i], (i + 1) * MIB);
    }
    assert_int_equal(at_cuda_record_end(&g.dev, &recording), AT_OK);
    assert_non_null(recording);
    at_cuda_holds(&g.dev, &h);
    assert_int_equal(h.weights, 6 * 3 * MIB);
    assert_int_equal(h.tensors, 1 * MIB);
    assert_int_equal(h.recordings, (2 + 3 + 4) * MIB);
    assert_int_equal(h.weights + h.tensors + h.recordings + h.kept, fake.taken - before);
    assert_true(h.most >= fake.taken - before && h.most_used <= h.most);
    assert_true(h.most_used >= 6 * 3 * MIB + (1 + 2 + 3 + 4) * MIB);

    at_store_release(&s);
    at_device_free(&g.dev, p[0], MIB);
    at_cuda_pool_trim(&g.dev, true);
    assert_int_equal(fake.taken - before, (1 + 2 + 3 + 4) * MIB); // the recording may be replayed
    at_cuda_recording_free(&g.dev, recording);
    at_cuda_pool_trim(&g.dev, true);
    assert_int_equal(fake.taken, before);
    at_cuda_holds(&g.dev, &h);
    assert_int_equal(h.weights + h.tensors + h.kept + h.recordings, 0);
    assert_true(h.pinned > 0);
}

static const at_resident *newest_ahead(void)
{
    const at_resident *x = g.weights.large.newest;
    while (x && !x->wanted)
        x = x->older;
    return x;
}

// The end of a step is followed by its beginning, also where another network had been at work before.
static void what_comes_next_is_the_working_models(void **state)
{
    (void)state;
    at_store *text = weights(40, 4096), *net = weights(60, 4096);
    const at_resident *ahead[2] = {NULL};
    g.dev.weight_bytes = 1;
    for (int prompt = 0; prompt < 2; prompt++) {
        atomic_fetch_add(&g.dev.epoch, 1);
        for (size_t i = 0; i < 40; i++)
            use(text, i, AT_BF16);
    }
    atomic_fetch_add(&g.dev.epoch, 1);
    for (int step = 0; step < 3; step++)
        for (size_t i = 0; i < 60; i++) {
            use(net, i, AT_BF16);
            if (step == 2 && (i == 20 || i == 40)) ahead[i / 40] = newest_ahead();
        }
    assert_non_null(ahead[0]);
    assert_ptr_not_equal(ahead[0], ahead[1]);
    at_store_release(&text);
    at_store_release(&net);
}

// What a run asks for once before its steps (modulations of all of them, the text's keys and values) is larger than what
// may be brought ahead: it must not stand before every weight of a step. Some are asked for twice, as by a convolution that
// goes another way.
static void what_is_asked_once_is_not_in_the_way(void **state)
{
    (void)state;
    enum { ONCE = 20, NET = 60 };
    at_store *once = weights(ONCE, 8192), *net = weights(NET, 1024);
    g.dev.weight_bytes = 1;
    for (int run = 0; run < 2; run++) {
        atomic_fetch_add(&g.dev.epoch, 1);
        for (size_t i = 0; i < ONCE; i++)
            use(once, i, AT_BF16);
        for (int step = 0; step < 4; step++) {
            int ahead = 0;
            for (size_t i = 0; i < NET; i++) {
                use(net, i, AT_BF16);
                if (i % 3 == 0) use(net, i, AT_BF16);
                at_wview next = at_weight_view(at_store_at(net, (i + 1) % NET));
                ahead += at_cuda_weight_here(&g, &next);
            }
            if (step > 1) assert_true(ahead > NET - 10);
        }
    }
    at_store_release(&once);
    at_store_release(&net);
}

// What a load needed and no later job does goes back; what each job takes stays.
static void what_no_job_takes_any_more_goes_back(void **state)
{
    (void)state;
    void *p = NULL;
    at_cuda_pool_trim(&g.dev, true);
    assert_int_equal(at_device_alloc(&g.dev, 7 * MIB, &p), AT_OK);
    at_device_free(&g.dev, p, 7 * MIB);
    at_cuda_pool_trim(&g.dev, false);
    for (int job = 0; job < 3; job++) {
        assert_int_equal(at_device_alloc(&g.dev, 3 * MIB, &p), AT_OK);
        at_device_free(&g.dev, p, 3 * MIB);
        assert_int_equal(at_cuda_pool_kept(&g), job ? 3 * MIB : 10 * MIB);
        at_cuda_pool_trim(&g.dev, false);
    }
    assert_int_equal(at_cuda_pool_kept(&g), 3 * MIB);
}

// Used memory is written behind the kernels that read it; and no copy waits for more than its own transfer does.
static void copies_wait_where_they_stand(void **state)
{
    (void)state;
    at_store *s = weights(40, 3000);
    fake.bare_copies = 0;
    g.dev.weight_bytes = 1;
    atomic_fetch_add(&g.dev.epoch, 1);
    for (int step = 0; step < 3; step++)
        for (size_t i = 0; i < 40; i++)
            use(s, i, AT_BF16);
    assert_int_equal(fake.bare_copies, 0);
    at_store_release(&s);
}

static void no_more_goes_back_than_is_wanted(void **state)
{
    (void)state;
    void *p[16], *one = NULL;
    at_cuda_pool_trim(&g.dev, true);
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(at_device_alloc(&g.dev, (i + 2) * MIB, &p[i]), AT_OK);
    for (size_t i = 0; i < 16; i++)
        at_device_free(&g.dev, p[i], (i + 2) * MIB);
    size_t kept = at_cuda_pool_kept(&g);
    fake.room = fake.taken;
    assert_int_equal(at_device_alloc(&g.dev, 33 * MIB, &one), AT_OK);
    assert_in_range(at_cuda_pool_kept(&g), 1, kept - 33 * MIB);
    assert_true(at_cuda_pool_kept(&g) + 33 * MIB + 17 * MIB >= kept);
    at_device_free(&g.dev, one, 33 * MIB);
    at_cuda_pool_trim(&g.dev, true);
}

// What is reserved for others is not filled ahead, only to be thrown out again.
static void prefetch_leaves_what_is_reserved(void **state)
{
    (void)state;
    at_store *s = weights(40, 32 * 1024);
    at_wview list[40];
    for (size_t i = 0; i < 40; i++)
        list[i] = at_weight_view(at_store_at(s, i));
    at_cuda_pool_trim(&g.dev, true);
    fake.room = fake.taken + (size_t)2000 * MIB;
    g.dev.reserve_bytes = (size_t)1500 * MIB;
    unsigned long moved = g.dev.moved;
    assert_int_equal(at_cuda_prefetch(&g.dev, list, 40), AT_OK);
    assert_in_range(g.weights.bytes, 0, 500 * MIB);
    assert_int_equal(g.dev.moved, moved);
    at_store_release(&s);
}

static int reclaims;
static int reclaim(at_device *d)
{
    (void)d;
    return reclaims++ == 0;
}

static void recordings_hold_still_and_are_asked_first(void **state)
{
    (void)state;
    at_store *s = weights(8, 1024);
    void *p = NULL, *q = NULL, *none = NULL;
    fake.room = fake.taken;
    assert_int_equal(at_device_alloc(&g.dev, (size_t)900 * MIB, &none), AT_ENOMEM);
    fake.room = fake.taken + 10 * (size_t)MIB;
    for (size_t i = 0; i < 8; i++)
        use(s, i, AT_BF16);
    unsigned long moved = g.dev.moved;
    g.recording = true;
    assert_int_equal(at_device_alloc(&g.dev, 4 * MIB, &p), AT_ENOMEM);
    at_wview w = at_weight_view(at_store_at(s, 0));
    at_view v;
    assert_int_equal(at_cuda_weight(&g, &w, AT_BF16, false, &v, &none), AT_OK);
    assert_int_equal(at_cuda_weight(&g, &w, AT_F32, false, &v, &none), AT_EDEVICE);
    assert_int_equal(g.dev.moved, moved);
    g.recording = false;
    reclaims = 0;
    g.dev.reclaim = reclaim;
    atomic_fetch_add(&g.dev.epoch, 1);
    assert_int_equal(at_device_alloc(&g.dev, 4 * MIB, &q), AT_OK);
    assert_int_equal(reclaims, 1);
    assert_true(g.dev.moved > moved);
    g.dev.reclaim = NULL;
    at_device_free(&g.dev, q, 4 * MIB);
    at_store_release(&s);
}

// A form that a slot makes for itself: the sum of the stored bytes, here.
static at_status sum_of(at_cuda *c, const at_wview *w, const at_view *stored, void *out)
{
    (void)c;
    (void)w;
    uint64_t sum = 0;
    for (int64_t i = 0; i < at_cuda_count(stored); i++)
        sum += ((const uint16_t *)stored->data)[i];
    memcpy(out, &sum, sizeof sum);
    return AT_OK;
}

static void slots_make_forms_of_their_own(void **state)
{
    (void)state;
    at_store *s = weights(1, 1024);
    at_wview w = at_weight_view(at_store_at(s, 0));
    uint64_t want = 0;
    void *a = NULL, *b = NULL, *owned = NULL;
    for (size_t i = 0; i < MIB / 2; i++)
        want += ((const uint16_t *)w.v.data)[i];
    assert_int_equal(at_cuda_weight_made(&g, &w, 7, 64, sum_of, &a, &owned), AT_OK);
    assert_int_equal(at_cuda_weight_made(&g, &w, 7, 64, sum_of, &b, &owned), AT_OK);
    assert_null(owned);
    assert_ptr_equal(a, b);
    assert_memory_equal(a, &want, sizeof want);
    assert_int_equal(g.weights.bytes, 64);
    w.packed = NULL; // a part of a weight
    assert_int_equal(at_cuda_weight_made(&g, &w, 7, 64, sum_of, &b, &owned), AT_OK);
    assert_ptr_equal(b, owned);
    assert_memory_equal(b, &want, sizeof want);
    at_cuda_free(&g, owned);
    at_store_release(&s);
}

static void errors_of_copies_end_the_call(void **state)
{
    (void)state;
    at_store *s = weights(2, 1024);
    at_wview w = at_weight_view(at_store_at(s, 0));
    at_view v;
    void *owned = NULL;
    size_t live = g.dev.live_bytes;
    int events = fake.events;
    fake.copy_error = cudaErrorUnknown;
    assert_int_equal(at_cuda_weight(&g, &w, AT_BF16, false, &v, &owned), AT_EDEVICE);
    assert_string_equal(g.dev.lost, "");
    fake.copy_error = cudaErrorIllegalAddress;
    assert_int_equal(at_cuda_weight(&g, &w, AT_BF16, false, &v, &owned), AT_EDEVICE);
    assert_non_null(strstr(at_error_text(), "restart"));
    assert_int_equal(g.dev.live_bytes, live);
    assert_int_equal(fake.events, events);
    fake.copy_error = cudaSuccess;
    void *p = NULL;
    assert_int_equal(at_device_alloc(&g.dev, 64, &p), AT_EDEVICE);
    assert_non_null(strstr(at_error_text(), "illegal memory access"));
    *g.dev.lost = 0;
    at_store_release(&s);
}

// One matrix of several weights, made once for each set of them, right to the last element.
static void joined_weights_know_their_partners(void **state)
{
    (void)state;
    at_store *s = weights(4, 4);
    at_wview w[4];
    at_view a, b, again;
    bool fits = false;
    size_t live = g.dev.live_bytes;

    if (!g.joined_kinds) assert_int_equal(at_cuda_plans_new(&g.joined_kinds), AT_OK);
    for (size_t i = 0; i < 4; i++)
        w[i] = at_weight_view(at_store_at(s, i));
    assert_int_equal(at_cuda_weight_joined(&g, &w[0], &w[1], 2, AT_BF16, &a, &fits), AT_OK);
    assert_true(fits);
    assert_int_equal(a.shape[0], 3 * w[0].v.shape[0]);
    assert_int_equal(a.shape[1], 512);
    for (size_t i = 0; i < 3; i++) {
        size_t bytes = (size_t)at_cuda_count(&w[i].v) * 2;
        assert_memory_equal((char *)a.data + i * bytes, w[i].v.data, bytes);
    }
    assert_int_equal(g.dev.live_bytes - live, 3 * 4 * 512 * 2); // the single ones did not stay
    size_t uploaded = fake.uploaded;
    assert_int_equal(at_cuda_prefetch(&g.dev, w, 3), AT_OK); // they are there
    assert_int_equal(fake.uploaded, uploaded);
    assert_int_equal(at_cuda_weight_joined(&g, &w[0], &w[1], 2, AT_BF16, &again, &fits), AT_OK);
    assert_ptr_equal(again.data, a.data);
    assert_int_equal(at_cuda_weight_joined(&g, &w[0], &w[2], 2, AT_BF16, &b, &fits), AT_OK);
    assert_true(fits && b.data != a.data);
    assert_memory_equal((char *)b.data + 2 * 4096, w[3].v.data, 4096);
    w[1].scale = 0.5f;
    assert_int_equal(at_cuda_weight_joined(&g, &w[0], &w[1], 2, AT_BF16, &b, &fits), AT_OK);
    assert_false(fits);
    w[1] = at_weight_view(at_store_at(s, 1));
    w[1].packed = NULL;
    assert_int_equal(at_cuda_weight_joined(&g, &w[0], &w[1], 1, AT_BF16, &b, &fits), AT_OK);
    assert_false(fits);
    at_store_release(&s);
    assert_int_equal(g.dev.live_bytes, live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(forms_are_made_once_and_die_with_the_weight, calm),
        cmocka_unit_test_setup(sizes_around_the_pieces_arrive_whole, calm),
        cmocka_unit_test_setup(what_lies_apart_arrives_in_one_piece, calm),
        cmocka_unit_test_setup(many_small_ones_pass_through_the_ring, calm),
        cmocka_unit_test_setup(a_shortened_file_is_an_error, calm),
        cmocka_unit_test_setup(shortened_pieces_and_small_ones_are_errors, calm),
        cmocka_unit_test_setup(what_is_prefetched_is_there_when_it_is_wanted, calm),
        cmocka_unit_test_setup(shapes_are_the_callers, calm),
        cmocka_unit_test_setup(prefetch_leaves_room_for_activations, calm),
        cmocka_unit_test_setup(models_that_do_not_fit_stream, calm),
        cmocka_unit_test_setup(limits_are_kept, calm),
        cmocka_unit_test_setup(reserved_memory_is_left_until_nothing_else_helps, calm),
        cmocka_unit_test_setup(what_comes_next_is_the_working_models, calm),
        cmocka_unit_test_setup(what_is_asked_once_is_not_in_the_way, calm),
        cmocka_unit_test_setup(what_no_job_takes_any_more_goes_back, calm),
        cmocka_unit_test_setup(copies_wait_where_they_stand, calm),
        cmocka_unit_test_setup(no_more_goes_back_than_is_wanted, calm),
        cmocka_unit_test_setup(prefetch_leaves_what_is_reserved, calm),
        cmocka_unit_test_setup(what_is_kept_goes_back_when_asked, calm),
        cmocka_unit_test_setup(what_is_unloaded_is_back_at_the_driver, calm),
        cmocka_unit_test_setup(recordings_hold_still_and_are_asked_first, calm),
        cmocka_unit_test_setup(slots_make_forms_of_their_own, calm),
        cmocka_unit_test_setup(joined_weights_know_their_partners, calm),
        cmocka_unit_test_setup(errors_of_copies_end_the_call, calm),
    };
    return cmocka_run_group_tests(tests, open_gpu, NULL);
}
