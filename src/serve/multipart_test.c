// SPDX-License-Identifier: Apache-2.0
// multipart_test.c - forms as clients send them, and bodies that lie.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "serve/multipart.h"

#define KIND "multipart/form-data; boundary=\"b 1\""

static at_form form;

static at_status parse(const char *kind, const char *body)
{
    // No byte behind the end is there to be read.
    size_t n = strlen(body);
    char *exact = at_alloc(n);
    memcpy(exact, body, n);
    at_status st = at_form_parse(kind, exact, n, &form);
    for (size_t i = 0; i < form.count; i++) // the parts outlive the copy below
        form.parts[i].bytes = body + (form.parts[i].bytes - exact);
    at_free(exact);
    return st;
}

static void assert_part(size_t i, const char *name, const char *filename, const char *bytes)
{
    assert_true(i < form.count);
    assert_string_equal(form.parts[i].name, name);
    if (filename)
        assert_string_equal(form.parts[i].filename, filename);
    else
        assert_null(form.parts[i].filename);
    assert_int_equal(form.parts[i].n, strlen(bytes));
    assert_memory_equal(form.parts[i].bytes, bytes, strlen(bytes));
}

static void fields_and_files(void **state)
{
    (void)state;
    assert_int_equal(
        parse(KIND, "a preamble\r\n--b 1\r\ncontent-disposition: form-data; name=\"image\"; "
                    "filename=\"a \\\"b\\\".png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--b"
                    "\r\n--b 1\r\nContent-Disposition: form-data; name=plain\r\n\r\n\r\n--b 1\r\n"
                    "Content-Disposition: form-data; filename=\"name=x\"; name=\"last\"\r\n\r\nz"
                    "\r\n--b 1--\r\n"),
        AT_OK);
    assert_int_equal(form.count, 3);
    assert_part(0, "image", "a \"b\".png", "\x89PNG\r\n--b");
    assert_part(1, "plain", NULL, "");
    assert_part(2, "last", "name=x", "z");
    assert_ptr_equal(at_form_find(&form, "last"), &form.parts[2]);
    assert_null(at_form_find(&form, "none"));
    char *text = at_form_text(&form, "last");
    assert_string_equal(text, "z");
    at_free(text);
    at_form_free(&form);
}

static void bodies_that_lie(void **state)
{
    (void)state;
    static const char *const bodies[] = {"",
                                         "--b 1",
                                         "--b 1\r\n",
                                         "--b 1\r\nContent-Disposition: form-data; name=\"x\"",
                                         "--b 1\r\n\r\nx",
                                         "--b 1\r\n\r\nx\r\n--b",
                                         "\r\n--b 2\r\n\r\nx\r\n--b 2--"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        at_status st = parse(KIND, bodies[i]);
        assert_true(st == AT_EFORMAT || (st == AT_OK && form.count == 0));
        at_form_free(&form);
    }
    assert_int_equal(parse("text/plain", "--b 1--"), AT_EFORMAT);
    assert_int_equal(parse("multipart/form-data", "--b 1--"), AT_EFORMAT);
    assert_int_equal(parse("multipart/form-data; boundary=", "--"), AT_EFORMAT);
    assert_int_equal(parse(NULL, "--b 1--"), AT_EFORMAT);
}

static void too_many_fields(void **state)
{
    (void)state;
    at_str body = {0};
    for (int i = 0; i <= AT_FORM_PARTS; i++)
        at_str_append(&body, "\r\n--b 1\r\n\r\n");
    at_str_append(&body, "\r\n--b 1--");
    assert_int_equal(parse(KIND, body.data), AT_EFORMAT);
    at_str_free(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_and_files),
        cmocka_unit_test(bodies_that_lie),
        cmocka_unit_test(too_many_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
