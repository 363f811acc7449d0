// SPDX-License-Identifier: Apache-2.0
// digest_test.c - SipHash-2-4-128 against its authors' vectors, whole and in pieces.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "flow/digest.h"
#include "flow/names.h"

// github.com/veorq/SipHash vectors.h, vectors_sip128: key 00 01 ... 0f, message 00 01 ... (n - 1).
static const at_digest key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};

static at_digest digest_of(size_t n, size_t piece)
{
    unsigned char m[64];
    at_hash h;

    for (size_t i = 0; i < sizeof m; i++)
        m[i] = (unsigned char)i;
    at_hash_start(&h, key);
    for (size_t i = 0; i < n; i += piece)
        at_hash_bytes(&h, m + i, n - i < piece ? n - i : piece);
    return at_hash_end(&h);
}

static void published_vectors_are_met(void **state)
{
    static const unsigned char empty[16] = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                                            0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
    static const unsigned char one[16] = {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44,
                                          0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45};
    at_digest d = digest_of(0, 1);

    (void)state;
    assert_memory_equal(&d, empty, 16);
    d = digest_of(1, 1);
    assert_memory_equal(&d, one, 16);
}

static void pieces_do_not_matter(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 64; n++) {
        at_digest whole = digest_of(n, 64);
        for (size_t piece = 1; piece < 20; piece++) {
            at_digest d = digest_of(n, piece);
            assert_memory_equal(&d, &whole, sizeof d);
        }
    }
}

static void names_are_found_and_not_taken_twice(void **state)
{
    static char text[5000][8];
    at_names t = {0};

    (void)state;
    assert_int_equal(at_names_find(&t, "x"), AT_NO_INDEX);
    for (size_t i = 0; i < 5000; i++) {
        for (size_t k = 0, v = i; k < 4; k++, v /= 10)
            text[i][k] = (char)('0' + v % 10);
        assert_int_equal(at_names_add(&t, text[i], i), AT_OK);
    }
    assert_int_equal(at_names_add(&t, "0000", 7), AT_EINVAL);
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(at_names_find(&t, text[i]), i);
    assert_int_equal(at_names_find(&t, ""), AT_NO_INDEX);
    at_names_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors_are_met),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(names_are_found_and_not_taken_twice),
    };
    return cmocka_run_group_tests_name("flow.digest", tests, NULL, NULL);
}
