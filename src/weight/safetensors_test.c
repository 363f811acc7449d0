// SPDX-License-Identifier: Apache-2.0
// safetensors_test.c - the container's rules, one hostile header each.
#include "weight/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"

// A file with this header and `data` zero bytes behind it.
static at_status parse(const char *header, size_t data, at_st_file *out)
{
    size_t n = strlen(header);
    uint8_t *file = calloc(1, 8 + n + data);
    at_status st;

    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(file + 8, header, n);
    at_error_clear();
    st = at_st_parse("f.safetensors", file, 8 + n + data, out);
    free(file);
    return st;
}

static void refused_as(const char *header, size_t data, at_status want, const char *words)
{
    at_st_file f;
    size_t live = at_mem_get_stats().live_bytes;
    at_status st = parse(header, data, &f);

    if (st != want || !strstr(at_error_text(), words))
        fail_msg("%s: status %d, message \"%s\", wanted \"%s\"", header, st, at_error_text(),
                 words);
    assert_non_null(strstr(at_error_text(), "f.safetensors"));
    assert_null(f.owner);
    assert_int_equal(at_mem_get_stats().live_bytes, live);
}

static void refused(const char *header, size_t data, const char *words)
{
    refused_as(header, data, AT_EFORMAT, words);
}

#define ROW(name, dtype, shape, offsets)                                                           \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"

static void reads_rows_in_header_order_and_metadata(void **state)
{
    at_st_file f;
    (void)state;
    assert_int_equal(parse("{\"__metadata__\":{\"b\":\"x\",\"a\":\"\\u00e9\\n\"}," ROW(
                               "w", "BF16", "2,3", "8,20") ",\n " ROW("s", "F64", "", "0,8") "}  ",
                           20, &f),
                     AT_OK);
    assert_int_equal(f.count, 2);
    assert_string_equal(f.rows[0].name, "w");
    assert_int_equal(f.rows[0].dtype, AT_BF16);
    assert_int_equal(f.rows[0].rank, 2);
    assert_int_equal(f.rows[0].shape[1], 3);
    assert_int_equal(f.rows[0].bytes, 12);
    assert_int_equal(f.rows[0].offset, f.rows[1].offset + 8);
    assert_int_equal(f.rows[1].rank, 0);
    assert_int_equal(f.meta_count, 2);
    assert_string_equal(f.meta[0].key, "a");
    assert_string_equal(f.meta[0].value, "\xc3\xa9\n");
    at_st_free(&f);
    assert_null(f.rows);
}

static void accepts_odd_but_legal_headers(void **state)
{
    static const struct {
        const char *header;
        size_t data, count;
    } ok[] = {
        {"{}", 0, 0},
        {"{ }   ", 0, 0},
        {"{\"__metadata__\":null}", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{" ROW("empty", "F32", "0,7", "0,0") "}", 0, 1},
        {"{" ROW("a", "F32", "0", "4,4") "," ROW("b", "F32", "1", "0,4") "}", 4, 2},
        {"{" ROW("a", "U8", "1", "1,2") "," ROW("e", "F32", "0", "1,1") "," ROW("b", "I8", "1",
                                                                                "0,1") "}",
         2, 3},
        {"{\"w\":{\"note\":[1.5e3,{\"x\":[true,null]}],\"shape\":[1],\"dtype\":\"BOOL\","
         "\"data_offsets\":[0,1]}}",
         1, 1},
        {"{" ROW("\\ud83d\\ude00\\\"\\/", "F8_E5M2", "1,1,1,1,1,1", "0,1") "}", 1, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof ok / sizeof *ok; i++) {
        at_st_file f;
        if (parse(ok[i].header, ok[i].data, &f) != AT_OK)
            fail_msg("%s: %s", ok[i].header, at_error_text());
        assert_int_equal(f.count, ok[i].count);
        at_st_free(&f);
    }
}

static void hostile_header_lengths_are_refused(void **state)
{
    static const uint8_t huge[16] = {255, 255, 255, 255, 255, 255, 255, 127, '{', '}'};
    static const uint8_t over[10] = {3, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    static const uint8_t limit[16] = {1, 0xe1, 0xf5, 5};
    at_st_file f;
    (void)state;
    for (size_t n = 0; n < 8; n++) {
        assert_int_equal(at_st_parse("x", over, n, &f), AT_EFORMAT);
        assert_non_null(strstr(at_error_text(), "too few"));
    }
    assert_int_equal(at_st_parse("x", huge, sizeof huge, &f), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "9223372036854775807 bytes"));
    assert_int_equal(at_st_parse("x", over, sizeof over, &f), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "header says 3 bytes, the file has 10"));
    assert_int_equal(at_st_parse("x", limit, sizeof limit, &f), AT_EFORMAT);
    assert_non_null(strstr(at_error_text(), "100000001"));
}

static void hostile_offsets_are_refused(void **state)
{
    (void)state;
    refused("{" ROW("a", "F32", "1", "0,4") "," ROW("b", "F32", "1", "2,6") "}", 6, "overlaps");
    refused("{" ROW("a", "F32", "1", "0,4") "," ROW("b", "F32", "1", "0,4") "}", 4, "overlaps");
    refused("{" ROW("a", "F32", "1", "0,4") "," ROW("b", "F32", "1", "5,9") "}", 9, "no tensor");
    refused("{" ROW("a", "F32", "1", "1,5") "}", 5, "no tensor");
    refused("{" ROW("a", "F32", "1", "0,4") "}", 7, "3 bytes behind the last tensor");
    refused("{}", 1, "1 bytes behind the last tensor");
    refused("{" ROW("a", "F32", "2", "0,8") "}", 7, "truncated");
    refused("{" ROW("a", "F32", "1", "4,0") "}", 4, "backwards");
    refused("{" ROW("a", "F32", "1", "0,5") "}", 5, "hold 5 bytes, its shape and type need 4");
    refused("{" ROW("a", "F32", "1", "-4,0") "}", 4, "negative");
    refused("{" ROW("a", "F32", "1", "0,NaN") "}", 4, "whole number");
    refused("{" ROW("a", "F32", "1", "0,4.0") "}", 4, "fraction");
    refused("{" ROW("a", "F32", "1", "0,4e0") "}", 4, "fraction");
    refused("{" ROW("a", "F32", "1", "0,04") "}", 4, "leading zero");
    refused("{" ROW("a", "F32", "1", "0,18446744073709551616") "}", 4, "2^64");
    refused("{" ROW("a", "F32", "1", "18446744073709551612,18446744073709551615") "}", 4,
            "truncated");
    refused("{" ROW("a", "F32", "1", "0") "}", 4, "expected ','");
    refused("{" ROW("a", "F32", "1", "0,4,4") "}", 4, "expected ']'");
    refused("{" ROW("a", "F32", "1", "\"0\",4") "}", 4, "whole number");
}

static void hostile_shapes_and_types_are_refused(void **state)
{
    (void)state;
    refused("{" ROW("a", "F32", "1,1,1,1,1,1,1", "0,4") "}", 4, "more than 6 dimensions");
    refused("{" ROW("a", "F32", "-1", "0,4") "}", 4, "negative");
    refused("{" ROW("a", "F32", "1.5", "0,4") "}", 4, "fraction");
    refused("{" ROW("a", "F32", "9223372036854775808", "0,4") "}", 4, "2^63 - 1");
    refused("{" ROW("a", "F32", "4294967296,4294967296", "0,4") "}", 4, "above 2^63");
    refused("{" ROW("a", "F32", "0,4294967296,4294967296", "0,0") "}", 0, "above 2^63");
    refused("{" ROW("a", "F32", "9223372036854775807", "0,4") "}", 4, "above 2^63");
    refused("{" ROW("a", "F32", "1,", "0,4") "}", 4, "whole number");
    refused("{" ROW("a", "FLOAT", "1", "0,4") "}", 4, "unknown element type \"FLOAT\"");
    refused("{" ROW("a", "bf16", "1", "0,2") "}", 2, "unknown element type");
    refused_as("{" ROW("a", "U64", "1", "0,8") "}", 8, AT_EUNSUPPORTED, "U64");
    refused_as("{" ROW("a", "F8_E8M0", "1", "0,1") "}", 1, AT_EUNSUPPORTED, "F8_E8M0");
}

static void hostile_json_is_refused(void **state)
{
    (void)state;
    refused("", 0, "must begin with '{'");
    refused(" {}", 0, "must begin with '{'");
    refused("[]", 0, "must begin with '{'");
    refused("{", 0, "expected a string");
    refused("{}}", 0, "behind the closing");
    refused("{\"a\"}", 0, "expected ':'");
    refused("{\"a\":1}", 0, "expected '{'");
    refused("{\"a", 0, "string without end");
    refused("{\"a\\", 0, "string without end");
    refused("{\"a\\x\"", 0, "unknown escape");
    refused("{\"a\\u12", 0, "bad \\u");
    refused("{\"\\u0000\":{}}", 0, "a NUL");
    refused("{\"\\ud800\":{}}", 0, "surrogate");
    refused("{\"\\ud800\\u0041\":{}}", 0, "surrogate");
    refused("{\"\\udc00\":{}}", 0, "surrogate");
    refused("{\"a\tb\":{}}", 0, "control character");
    refused("{\"\xff\":{}}", 0, "not UTF-8");
    refused("{\"\xed\xa0\x80\":{}}", 0, "not UTF-8");
    refused("{\"a\":{}}", 0, "has no \"dtype\"");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "has no \"data_offsets\"");
    refused("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 4, "\"dtype\" stands twice");
    refused("{" ROW("a", "F32", "1", "0,4") "," ROW("a", "F32", "1", "4,8") "}", 8, "stands twice");
    refused("{" ROW("a", "F32", "1", "0,4") "," ROW("\\u0061", "U8", "0", "0,0") "}", 4, "twice");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "\"a\" is not a string");
    refused("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "stands twice");
    refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "stands twice");
    refused("{\"__metadata__\":[]}", 0, "expected '{'");
    refused("{\"w\":{\"x\":[[[[[[[[[[]]]]]]]]]]}}", 0, "deeper than 8");
    refused("{\"w\":{\"x\":nul}}", 0, "expected a value");
    refused("{\"w\":{\"x\":}}", 0, "expected a value");
}

static void endless_nesting_is_refused_quickly(void **state)
{
    enum { N = 1 << 20 };
    char *deep = malloc(N + 16);
    (void)state;
    memcpy(deep, "{\"w\":{\"x\":", 10);
    memset(deep + 10, '[', N);
    deep[N + 10] = 0;
    refused(deep, 0, "deeper than 8");
    free(deep);
}

static void every_prefix_of_a_header_is_refused(void **state)
{
    static const char whole[] = "{\"__metadata__\":{\"k\":\"v\\u0041\"}," ROW(
        "w", "F16", "2,2", "0,8") "," ROW("v", "F16", "0", "8,8") "}";
    char part[sizeof whole];
    at_st_file f;
    (void)state;
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        memcpy(part, whole, n);
        part[n] = 0;
        assert_int_equal(parse(part, 8, &f), AT_EFORMAT);
    }
    assert_int_equal(parse(whole, 8, &f), AT_OK);
    at_st_free(&f);
}

static void every_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
    static const char h[] = "{\"__metadata__\":{\"k\":\"v\"}," ROW("w", "F16", "2,2", "0,8") "}";
    size_t live = at_mem_get_stats().live_bytes;
    at_st_file f;
    bool hit = true;
    (void)state;
    for (uint64_t n = 1; hit; n++) {
        at_status st;
        at_mem_fail_at(n, false);
        st = parse(h, 8, &f);
        hit = at_mem_fault_hit();
        at_mem_fail_at(0, false);
        assert_int_equal(st, hit ? AT_ENOMEM : AT_OK);
        at_st_free(&f);
        assert_int_equal(at_mem_get_stats().live_bytes, live);
    }
}

static void large_headers_parse_fast(void **state)
{
    enum { N = 100000 };
    at_str s = {0};
    at_st_file f;
    (void)state;
    at_str_append(&s, "{");
    for (int i = 0; i < N; i++)
        at_str_printf(
            &s, "%s\"blocks.%d.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
            i ? "," : "", i, 4 * (N - 1 - i), 4 * (N - i));
    at_str_append(&s, "}");
    assert_int_equal(parse(at_str_text(&s), 4 * N, &f), AT_OK);
    assert_int_equal(f.count, N);
    assert_string_equal(f.rows[N - 1].name, "blocks.99999.weight");
    assert_int_equal(f.rows[N - 1].offset, 8 + s.len);
    at_st_free(&f);
    at_str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_rows_in_header_order_and_metadata),
        cmocka_unit_test(accepts_odd_but_legal_headers),
        cmocka_unit_test(hostile_header_lengths_are_refused),
        cmocka_unit_test(hostile_offsets_are_refused),
        cmocka_unit_test(hostile_shapes_and_types_are_refused),
        cmocka_unit_test(hostile_json_is_refused),
        cmocka_unit_test(endless_nesting_is_refused_quickly),
        cmocka_unit_test(every_prefix_of_a_header_is_refused),
        cmocka_unit_test(every_failed_allocation_is_reported_and_leaks_nothing),
        cmocka_unit_test(large_headers_parse_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
