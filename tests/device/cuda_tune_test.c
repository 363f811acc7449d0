// SPDX-License-Identifier: Apache-2.0
// cuda_tune_test.c - which proposal is taken, what is kept on disk and what of it is believed; the device's clock
// is played: a run takes as many milliseconds as its algorithm's first word says.
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
#include "cuda/linear.h"

static float clock_ms;
static int runs;
static size_t version = 130100;

// --- the runtime, played ---------------------------------------------------------------------------
cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    *out = (cudaEvent_t)calloc(1, sizeof(float));
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    (void)s;
    memcpy((void *)e, &clock_ms, sizeof clock_ms);
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    (void)e;
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b)
{
    float from, to;
    memcpy(&from, (void *)a, sizeof from);
    memcpy(&to, (void *)b, sizeof to);
    *ms = to - from;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *out)
{
    *out = 13000;
    return cudaSuccess;
}
at_status at_cuda_alloc(at_cuda *g, size_t bytes, void **out)
{
    (void)g;
    *out = malloc(bytes);
    return AT_OK;
}
void at_cuda_free(at_cuda *g, void *p)
{
    (void)g;
    free(p);
}
static size_t get_version(void)
{
    return version;
}

// --- a problem of four proposals -------------------------------------------------------------------
enum { FOUR = 4, REFUSES = 77777 };
static const at_cublaslt lt = {.GetVersion = get_version};

static int run(void *self, const at_lt_algo *algo, void *d)
{
    assert_non_null(d);
    assert_ptr_equal(self, &runs);
    if (algo->data[0] == REFUSES) return 15;
    clock_ms += (float)algo->data[0];
    runs++;
    return 0;
}

static at_cuda gpu(void)
{
    at_cuda g = {.capability = 90, .lt = &lt};
    snprintf(g.dev.description, sizeof g.dev.description, "a played GPU, sm_90");
    runs = 0;
    return g;
}

static uint64_t choose(at_cuda *g, int64_t m, const uint64_t ms[FOUR])
{
    at_cuda_problem p;
    at_lt_algo algos[FOUR] = {0};
    memset(&p, 0, sizeof p);
    p.m = m;
    p.n = p.k = 4096;
    p.batch = 1;
    for (int i = 0; i < FOUR; i++)
        algos[i].data[0] = ms[i];
    return at_cuda_tune(g, &p, algos, FOUR, 16, run, &runs).data[0];
}

static char *the_file(void)
{
    at_list l;
    char *path = NULL;
    assert_int_equal(at_list_files(getenv("XDG_CACHE_HOME"), true, 10, &l), AT_OK);
    assert_int_equal(l.count, 1);
    path = at_path_join(getenv("XDG_CACHE_HOME"), l.items[0]);
    at_list_free(&l);
    return path;
}

static void the_fastest_is_timed_once_and_kept(void **state)
{
    static const uint64_t ms[FOUR] = {50, REFUSES, 30, 40};
    at_cuda g = gpu(), next = gpu(), other = gpu();

    (void)state;
    assert_int_equal(choose(&g, 8, ms), 30);
    assert_true(runs > 0);
    runs = 0;
    assert_int_equal(choose(&g, 8, ms), 30);
    assert_int_equal(runs, 0);
    at_cuda_tuned_save(&g);
    assert_int_equal(choose(&next, 8, ms), 30); // another process
    assert_int_equal(runs, 0);
    assert_int_equal(choose(&next, 9, ms), 30); // another problem
    assert_true(runs > 0);
    runs = 0;
    version++; // another library
    assert_int_equal(choose(&other, 8, ms), 30);
    assert_true(runs > 0);
    version--;
    at_cuda_tuned_free(&g);
    at_cuda_tuned_free(&next);
    at_cuda_tuned_free(&other);
}

// The file is a hint: what it says must be among what the library proposes now.
static void a_damaged_file_chooses_nothing(void **state)
{
    static const uint64_t ms[FOUR] = {50, 60, 30, 40}, changed[FOUR] = {50, 60, 45, 40};
    at_cuda g = gpu();

    (void)state;
    assert_int_equal(choose(&g, 8, ms), 30);
    at_cuda_tuned_save(&g);
    char *path = the_file(), *text = NULL;
    size_t n = 0;
    assert_int_equal(at_file_read(path, 1 << 20, &text, &n), AT_OK);
    for (size_t cut = 0; cut < n; cut += 7) { // short, and with a byte changed
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, cut, f), cut);
        fputc(text[cut] ^ 1, f);
        fclose(f);
        at_cuda one = gpu();
        assert_int_equal(choose(&one, 8, ms), 30);
        assert_true(runs > 0);
        at_cuda_tuned_free(&one);
    }
    at_cuda back = gpu();
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
    assert_int_equal(choose(&back, 8, changed), 40); // the kept one is proposed no more
    assert_true(runs > 0);
    at_cuda_tuned_free(&g);
    at_cuda_tuned_free(&back);
    at_free(text);
    at_free(path);
}

// Large products keep the first proposal unless another is clearly faster; nothing is timed in a recording.
static void the_first_is_kept_where_little_is_gained(void **state)
{
    static const uint64_t near[FOUR] = {1000, 1003, 987, 990}, far[FOUR] = {1000, 1003, 980, 990};
    static const uint64_t small[FOUR] = {100, 99, 101, 102};
    at_cuda g = gpu();

    (void)state;
    assert_int_equal(choose(&g, 8192, near), 1000);
    assert_int_equal(choose(&g, 8193, far), 980);
    assert_int_equal(choose(&g, 8, small), 99);
    g.recording = true;
    runs = 0;
    assert_int_equal(choose(&g, 16, small), 100);
    assert_int_equal(runs, 0);
    setenv("AT_OFF", "flash,tune", 1);
    at_cuda off = gpu();
    assert_int_equal(choose(&off, 8, small), 100);
    assert_int_equal(runs, 0);
    unsetenv("AT_OFF");
    at_cuda_tuned_free(&g);
    at_cuda_tuned_free(&off);
}

static int own_folder(void **state)
{
    static char dir[] = "/tmp/atelier-tune-XXXXXX";
    (void)state;
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    return mkdtemp(dir) ? setenv("XDG_CACHE_HOME", dir, 1) : -1;
}

static int drop_folder(void **state)
{
    char command[256];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", getenv("XDG_CACHE_HOME"));
    return system(command);
}

// 132 multiprocessors: 2048 x 1280 in 130 tiles of 128 x 160; a small product in as many small tiles.
static void tiles_make_whole_waves(void **state)
{
    enum { T128X160 = 29, T80X64 = 134, T160X128 = 30 };
    at_cuda_problem p = {.m = 2048, .n = 1280, .k = 1280, .batch = 1};
    int32_t ids[AT_CUDA_TILES];

    (void)state;
    assert_int_equal(at_cuda_tiles(&p, 132, AT_CUDA_TILES, ids), AT_CUDA_TILES);
    assert_int_equal(ids[0], T128X160);
    for (int i = 0; i < AT_CUDA_TILES; i++)
        for (int k = 0; k < i; k++)
            assert_int_not_equal(ids[i], ids[k]);
    p.m = 512;
    assert_int_equal(at_cuda_tiles(&p, 132, 3, ids), 3);
    assert_int_equal(ids[0], T80X64); // 16 x 8 tiles
    p = (at_cuda_problem){.m = 8192, .n = 320, .k = 320, .batch = 1};
    assert_int_equal(at_cuda_tiles(&p, 132, 1, ids), 1);
    assert_int_equal(ids[0], T160X128); // 2 x 64
    assert_int_equal(at_cuda_tiles(&p, 0, 1, ids), 0);
    p = (at_cuda_problem){.m = 512, .n = 20480, .k = 4096, .batch = 1}; // 640 of 660
    assert_int_equal(at_cuda_tiles(&p, 132, 1, ids), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_fastest_is_timed_once_and_kept, own_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(a_damaged_file_chooses_nothing, own_folder, drop_folder),
        cmocka_unit_test_setup_teardown(the_first_is_kept_where_little_is_gained, own_folder,
                                        drop_folder),
        cmocka_unit_test(tiles_make_whole_waves),
    };
    return cmocka_run_group_tests_name("cuda.tune", tests, NULL, NULL);
}
