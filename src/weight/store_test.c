// SPDX-License-Identifier: Apache-2.0
// store_test.c - stores over files and by hand, scaled fp8, and the writer that makes the files.
#include "weight/store.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/half.h"
#include "base/log.h"
#include "base/mem.h"
#include "weight/safetensors.h"

static char dir[] = "/tmp/atelier-store-XXXXXX";
static char path[64];

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void write_file(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void write_header(const char *header, const void *data, size_t n)
{
    size_t h = strlen(header);
    uint8_t *file = calloc(1, 8 + h + n);

    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)h >> (8 * i));
    memcpy(file + 8, header, h);
    if (n) memcpy(file + 8 + h, data, n);
    write_file(file, 8 + h + n);
    free(file);
}

static const float f32s[6] = {1, -2, 3.5f, 0, 1e-3f, 65504};

static void written_files_open_with_the_same_values(void **state)
{
    static const uint8_t bytes[3] = {1, 2, 255};
    static const double d = 0.1;
    at_st_out rows[] = {
        {"bytes", AT_U8, 1, {3}, bytes},
        {"m \"q\"\n\xc3\xa9", AT_F32, 2, {2, 3}, f32s},
        {"d", AT_F64, 0, {0}, &d},
        {"none", AT_F16, 3, {4, 0, 2}, NULL},
    };
    at_st_pair meta[] = {{"format", "pt"}, {"author", "\"me\"\t"}};
    at_store *s;
    at_weight *w;
    float out[6];
    (void)state;

    assert_int_equal(at_st_write(path, rows, 4, meta, 2), AT_OK);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    assert_string_equal(at_store_path(s), path);
    assert_int_equal(at_store_count(s), 4);
    assert_string_equal(at_store_at(s, 0)->name, "bytes");
    assert_null(at_store_at(s, 4));
    w = at_store_find(s, rows[1].name);
    assert_non_null(w);
    assert_int_equal(w->shape[0], 2);
    assert_int_equal((uintptr_t)w->data % 4, 0);
    assert_memory_equal(w->data, f32s, sizeof f32s);
    at_weight_read_f32(w, 2, 4, out);
    assert_memory_equal(out, f32s + 2, 4 * sizeof *out);
    w = at_store_findf(s, "%c", 'd');
    assert_int_equal(w->rank, 0);
    at_weight_read_f32(w, 0, 1, out);
    assert_true(out[0] == (float)0.1);
    assert_int_equal(at_weight_elements(at_store_find(s, "none")), 0);
    assert_null(at_store_find(s, "absent"));
    assert_string_equal(at_store_metadata(s, "author"), "\"me\"\t");
    assert_null(at_store_metadata(s, "absent"));
    at_store_release(&s);
    assert_null(s);
}

static void views_carry_shape_stride_and_scale(void **state)
{
    at_store *s;
    at_wview v;
    int64_t shape[] = {2, 3, 4};
    (void)state;

    assert_int_equal(at_store_new("hand", &s), AT_OK);
    assert_int_equal(at_store_add(s, "w", AT_BF16, 3, shape, NULL, NULL), AT_OK);
    v = at_weight_view(at_store_find(s, "w"));
    assert_int_equal(v.v.rank, 3);
    assert_int_equal(v.v.stride[0], 12);
    assert_int_equal(v.v.stride[2], 1);
    assert_true(v.scale == 1);
    assert_ptr_equal(v.packed, at_store_find(s, "w")->packed);
    v = at_weight_view(NULL);
    assert_null(v.v.data);
    at_store_release(&s);
}

static void every_dtype_reads_as_f32(void **state)
{
    at_store *s;
    int64_t two[] = {2};
    float out[2];
    (void)state;

    static const uint16_t half[2] = {0x3c00, 0xc000}, brain[2] = {0x3f80, 0xc000};
    static const uint8_t e4m3[2] = {0x38, 0xc0}, e5m2[2] = {0x3c, 0xc0};
    static const int64_t i64[2] = {1, -2};
    static const int32_t i32[2] = {1, -2};
    static const int16_t i16[2] = {1, -2};
    static const int8_t i8[2] = {1, -2};
    static const struct {
        at_dtype t;
        const void *bytes;
    } rows[] = {{AT_F16, half}, {AT_BF16, brain}, {AT_F8E4M3, e4m3}, {AT_F8E5M2, e5m2},
                {AT_I64, i64},  {AT_I32, i32},    {AT_I16, i16},     {AT_I8, i8}};

    assert_int_equal(at_store_new("hand", &s), AT_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *name = at_dtype_name(rows[i].t);
        at_weight *w;
        assert_int_equal(at_store_add(s, name, rows[i].t, 1, two, NULL, NULL), AT_OK);
        w = at_store_find(s, name);
        memcpy((void *)(uintptr_t)w->data, rows[i].bytes, w->bytes);
        at_weight_read_f32(w, 0, 2, out);
        if (out[0] != 1 || out[1] != -2)
            fail_msg("%s reads as %g %g", name, (double)out[0], (double)out[1]);
    }
    at_store_release(&s);
}

static void records_stay_where_they_are(void **state)
{
    at_store *s;
    at_weight *first;
    int64_t one[] = {1}, bad[] = {-1}, huge[] = {INT64_MAX, INT64_MAX};
    char name[16];
    (void)state;

    assert_int_equal(at_store_new("hand", &s), AT_OK);
    assert_int_equal(at_store_add_shape(s, "n500", AT_F32, 1, one), AT_OK);
    first = at_store_find(s, "n500");
    assert_null(first->data);
    for (int i = 999; i >= 0; i--) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(at_store_add(s, name, AT_F32, 1, one, NULL, NULL),
                         i == 500 ? AT_EINVAL : AT_OK);
    }
    assert_int_equal(at_store_count(s), 1000);
    assert_ptr_equal(at_store_find(s, "n500"), first);
    assert_ptr_equal(at_store_at(s, 0), first);
    for (int i = 0; i < 1000; i++)
        assert_non_null(at_store_findf(s, "n%d", i));
    assert_int_equal(at_store_add(s, "x", AT_F32, 7, one, NULL, NULL), AT_EINVAL);
    assert_int_equal(at_store_add(s, "x", AT_F32, 1, bad, NULL, NULL), AT_EINVAL);
    assert_int_equal(at_store_add(s, "x", AT_F32, 2, huge, NULL, NULL), AT_EINVAL);
    at_store_release(&s);
}

static int freed;
static void count_free(void *p)
{
    at_free(p);
    freed++;
}

static void the_last_reference_frees_what_backends_packed(void **state)
{
    at_store *s, *t;
    at_packed *p;
    int64_t one[] = {1};
    (void)state;

    assert_int_equal(at_store_new("hand", &s), AT_OK);
    assert_int_equal(at_store_add(s, "w", AT_F32, 1, one, NULL, NULL), AT_OK);
    p = at_store_find(s, "w")->packed;
    p->free = count_free;
    p->data = at_alloc(16);
    t = at_store_retain(s);
    freed = 0;
    at_store_release(&s);
    assert_int_equal(freed, 0);
    at_store_release(&t);
    assert_int_equal(freed, 1);
    at_store_release(&t);
}

static int warned;
static void note(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)ctx, (void)level, (void)text;
    warned += !strcmp(id, "WEIGHT-UNALIGNED");
}

static void tensors_at_odd_addresses_are_copied_and_logged(void **state)
{
    at_store *s;
    float out[2], in[2] = {4, -8};
    uint8_t data[9] = {7};
    (void)state;

    memcpy(data + 1, in, 8);
    write_header("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]},"
                 "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}   ",
                 data, 9);
    warned = 0;
    at_log_set_writer(note, NULL);
    assert_int_equal(at_store_open(path, &s), AT_OK);
    at_log_set_writer(NULL, NULL);
    assert_int_equal((uintptr_t)at_store_find(s, "w")->data % 4, 0);
    at_weight_read_f32(at_store_find(s, "w"), 0, 2, out);
    assert_memory_equal(out, in, 8);
    assert_int_equal(warned, 1);
    at_store_release(&s);
}

static void other_kinds_of_files_are_named(void **state)
{
    at_store *s;
    (void)state;

    write_file("GGUF\3\0\0\0\0\0\0\0", 12);
    assert_int_equal(at_store_open(path, &s), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "GGUF"));
    write_file("PK\3\4........", 12);
    assert_int_equal(at_store_open(path, &s), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "zip archive"));
    write_file("\x80\x02}q\0.......", 12);
    assert_int_equal(at_store_open(path, &s), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "pickle"));
    write_file("", 0);
    assert_int_equal(at_store_open(path, &s), AT_EFORMAT);
    assert_int_equal(at_store_open("/nowhere/m.safetensors", &s), AT_ENOTFOUND);
    assert_null(s);
}

// --- scaled fp8 ----------------------------------------------------------------------------------

static const uint8_t fp8_one = 0x38, e5m2_one = 0x3c;
static const float half_scale = 0.5f, nan_scale = NAN, two_scales[2] = {1, 2};

static at_status open_rows(const at_st_out *rows, size_t n, const at_st_pair *meta,
                           size_t meta_count, at_store **s)
{
    assert_int_equal(at_st_write(path, rows, n, meta, meta_count), AT_OK);
    at_error_clear();
    return at_store_open(path, s);
}

static void the_marker_folds_scales_below_its_prefix(void **state)
{
    static const uint8_t mark[2] = {0};
    at_st_out rows[] = {
        {"te.a.scaled_fp8", AT_F8E4M3, 1, {2}, mark},
        {"te.a.l.weight", AT_F8E4M3, 1, {1}, &fp8_one},
        {"te.a.l.scale_weight", AT_F32, 0, {0}, &half_scale},
        {"te.a.l.scale_input", AT_F32, 0, {0}, &half_scale},
        {"other.l.weight", AT_F8E4M3, 1, {1}, &fp8_one},
        {"other.l.scale_weight", AT_F32, 0, {0}, &half_scale},
        {"te.a.f.weight", AT_F32, 0, {0}, &half_scale},
        {"te.a.f.scale_weight", AT_F32, 0, {0}, &half_scale},
    };
    at_store *s;
    float v;
    (void)state;

    assert_int_equal(open_rows(rows, 8, NULL, 0, &s), AT_OK);
    at_weight_read_f32(at_store_find(s, "te.a.l.weight"), 0, 1, &v);
    assert_true(v == 0.5f);
    assert_true(at_weight_view(at_store_find(s, "te.a.l.weight")).scale == 0.5f);
    assert_true(at_store_find(s, "other.l.weight")->scale == 1);
    assert_true(at_store_find(s, "te.a.f.weight")->scale == 1);
    assert_non_null(at_store_find(s, "te.a.l.scale_weight"));
    at_store_release(&s);

    rows[0].name = "scaled_fp8"; // the root marks everything
    assert_int_equal(open_rows(rows, 8, NULL, 0, &s), AT_OK);
    assert_true(at_store_find(s, "other.l.weight")->scale == 0.5f);
    at_store_release(&s);
}

static void impossible_scales_are_refused(void **state)
{
    at_st_out rows[] = {
        {"scaled_fp8", AT_F8E4M3, 1, {0}, NULL},
        {"l.weight", AT_F8E4M3, 1, {1}, &fp8_one},
        {"l.scale_weight", AT_F32, 1, {2}, two_scales},
    };
    at_store *s;
    (void)state;

    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "holds 2 scales"));
    rows[2] = (at_st_out){"l.scale_weight", AT_F32, 0, {0}, &nan_scale};
    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "l.scale_weight"));
    rows[2] = (at_st_out){"l.scale_weight", AT_U8, 0, {0}, &fp8_one};
    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_EFORMAT);
}

static void layer_descriptors_fold_fp8_and_refuse_the_rest(void **state)
{
    static const char e4[] = "{\"format\":\"float8_e4m3fn\"}", nv[] = "{\"format\": \"nvfp4\"}";
    static const char e5[] = "{\"format\":\"float8_e5m2\"}", junk[] = "{\"format\"";
    at_st_out rows[] = {
        {"l.weight", AT_F8E4M3, 1, {1}, &fp8_one},
        {"l.weight_scale", AT_F32, 0, {0}, &half_scale},
        {"l.comfy_quant", AT_U8, 1, {sizeof e4 - 1}, e4},
    };
    at_st_pair meta = {"_quantization_metadata",
                       "{\"layers\":{\"l\":{\"format\":\"float8_e5m2\"}}}"};
    at_store *s;
    (void)state;

    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_OK);
    assert_true(at_store_find(s, "l.weight")->scale == 0.5f);
    at_store_release(&s);
    rows[2] = (at_st_out){"l.comfy_quant", AT_U8, 1, {sizeof nv - 1}, nv};
    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_EUNSUPPORTED);
    assert_non_null(strstr(at_error_text(), "nvfp4"));
    rows[2] = (at_st_out){"l.comfy_quant", AT_U8, 1, {sizeof e5 - 1}, e5};
    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_EFORMAT);
    rows[2] = (at_st_out){"l.comfy_quant", AT_U8, 1, {sizeof junk - 1}, junk};
    assert_int_equal(open_rows(rows, 3, NULL, 0, &s), AT_EFORMAT);
    assert_int_equal(open_rows(rows, 2, NULL, 0, &s), AT_EUNSUPPORTED); // nothing describes it
    assert_non_null(strstr(at_error_text(), "weight_scale"));

    rows[0] = (at_st_out){"l.weight", AT_F8E5M2, 1, {1}, &e5m2_one};
    assert_int_equal(open_rows(rows, 2, &meta, 1, &s), AT_OK);
    assert_true(at_store_find(s, "l.weight")->scale == 0.5f);
    at_store_release(&s);
    meta.value = "{\"layers\":{\"l\":\"int8_tensorwise\"}}";
    assert_int_equal(open_rows(rows, 2, &meta, 1, &s), AT_EUNSUPPORTED);
    meta.value = "[";
    assert_int_equal(open_rows(rows, 2, &meta, 1, &s), AT_EFORMAT);
}

// --- failures ------------------------------------------------------------------------------------

static void the_writer_refuses_what_no_reader_takes(void **state)
{
    at_st_out row = {"w", AT_F32, 1, {6}, f32s};
    (void)state;

    unlink(path);
    row.rank = 7;
    assert_int_equal(at_st_write(path, &row, 1, NULL, 0), AT_EINVAL);
    row.rank = 1;
    row.shape[0] = -1;
    assert_int_equal(at_st_write(path, &row, 1, NULL, 0), AT_EINVAL);
    row.shape[0] = 6;
    row.data = NULL;
    assert_int_equal(at_st_write(path, &row, 1, NULL, 0), AT_EINVAL);
    row.data = f32s;
    row.name = "__metadata__";
    assert_int_equal(at_st_write(path, &row, 1, NULL, 0), AT_EINVAL);
    row.name = "\xff";
    assert_int_equal(at_st_write(path, &row, 1, NULL, 0), AT_EINVAL);
    row.name = "w";
    at_st_out twice[2] = {row, row};
    assert_int_equal(at_st_write(path, twice, 2, NULL, 0), AT_EINVAL);
    assert_false(at_path_exists(path));
}

static void failed_allocations_and_writes_leave_no_file_and_no_bytes(void **state)
{
    at_st_out row = {"w", AT_F32, 1, {6}, f32s};
    at_st_pair meta = {"k", "v"};
    size_t live = at_mem_get_stats().live_bytes;
    bool hit = true;
    (void)state;

    for (uint64_t n = 1; hit; n++) {
        unlink(path);
        at_mem_fail_at(n, false);
        at_status st = at_st_write(path, &row, 1, &meta, 1);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        // The folder's fsync after the rename is best effort: a miss there is no failure.
        assert_true(st == AT_OK || (hit && st == AT_ENOMEM));
        assert_int_equal(at_path_exists(path), st == AT_OK);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
    hit = true;
    for (uint64_t n = 1; hit; n++) {
        unlink(path);
        at_io_fail_at(n);
        at_status st = at_st_write(path, &row, 1, &meta, 1);
        hit = at_io_fault_hit();
        at_io_fail_at(0);
        assert_true(st == AT_OK || (hit && st == AT_EIO));
        assert_int_equal(at_path_exists(path), st == AT_OK);
    }
    hit = true;
    for (uint64_t n = 1; hit; n++) {
        at_store *s;
        at_mem_fail_at(n, false);
        at_status st = at_store_open(path, &s);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_store_release(&s);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

// 24 GB of holes: opening must not touch them.
static void a_sparse_24_gb_file_opens_at_once(void **state)
{
    enum { BLOCKS = 3000 };
    const uint64_t each = 8u << 20;
    char *header = malloc(BLOCKS * 160);
    size_t n = 0;
    uint8_t length[8];
    struct rusage before, after;
    at_store *s;
    double t;
    (void)state;

    n += (size_t)sprintf(header + n, "{");
    for (uint64_t i = 0; i < BLOCKS; i++)
        n += (size_t)sprintf(header + n,
                             "%s\"double_blocks.%llu.img_attn.qkv.weight\":{\"dtype\":\"BF16\","
                             "\"shape\":[4096,1024],\"data_offsets\":[%llu,%llu]}",
                             i ? "," : "", (unsigned long long)i, (unsigned long long)(i * each),
                             (unsigned long long)((i + 1) * each));
    n += (size_t)sprintf(header + n, "}");
    while (n % 8)
        header[n++] = ' ';
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(n >> (8 * i));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(length, 1, 8, f);
    fwrite(header, 1, n, f);
    fclose(f);
    free(header);
    if (truncate(path, (off_t)(8 + n + BLOCKS * each)) != 0) skip();

    getrusage(RUSAGE_SELF, &before);
    at_mem_reset_peak();
    t = at_now();
    assert_int_equal(at_store_open(path, &s), AT_OK);
    t = at_now() - t;
    getrusage(RUSAGE_SELF, &after);
    print_message("3000 tensors, %.1f GB: %.2f ms, %ld KiB more\n", 24.0 * 1.048576, t * 1e3,
                  after.ru_maxrss - before.ru_maxrss);
    assert_int_equal(at_store_count(s), BLOCKS);
    assert_true(at_mem_get_stats().peak_bytes < (8u << 20));
    assert_true(after.ru_maxrss - before.ru_maxrss < (50 << 10));
    assert_true(t < 0.5); // 3 ms measured; slack for a busy machine under sanitizers
    at_store_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_files_open_with_the_same_values),
        cmocka_unit_test(views_carry_shape_stride_and_scale),
        cmocka_unit_test(every_dtype_reads_as_f32),
        cmocka_unit_test(records_stay_where_they_are),
        cmocka_unit_test(the_last_reference_frees_what_backends_packed),
        cmocka_unit_test(tensors_at_odd_addresses_are_copied_and_logged),
        cmocka_unit_test(other_kinds_of_files_are_named),
        cmocka_unit_test(the_marker_folds_scales_below_its_prefix),
        cmocka_unit_test(impossible_scales_are_refused),
        cmocka_unit_test(layer_descriptors_fold_fp8_and_refuse_the_rest),
        cmocka_unit_test(the_writer_refuses_what_no_reader_takes),
        cmocka_unit_test(failed_allocations_and_writes_leave_no_file_and_no_bytes),
        cmocka_unit_test(a_sparse_24_gb_file_opens_at_once),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
