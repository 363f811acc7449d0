// SPDX-License-Identifier: Apache-2.0
// golden_test.h - reading tests/golden/comfy/*.json in the unit tests of this folder.
// Owns nothing: the JSON belongs to the test. Failures end the test with their reason.
#ifndef AT_SAMPLE_GOLDEN_TEST_H
#define AT_SAMPLE_GOLDEN_TEST_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include <openssl/sha.h>

#include "base/mem.h"

// Numbers of seeds do not fit jansson's int64: they become strings before parsing.
static inline json_t *golden_load(const char *name)
{
    char path[512];
    json_error_t err;

    snprintf(path, sizeof path, "%s/tests/golden/comfy/%s", AT_SOURCE_DIR, name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be opened", path);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f), o = 0;
    rewind(f);
    char *text = malloc(n + 1), *quoted = malloc(2 * n + 1);
    assert_int_equal(fread(text, 1, n, f), n);
    fclose(f);
    text[n] = 0;
    for (size_t i = 0; i < n;) {
        quoted[o++] = text[i++];
        if (i < 7 || strncmp(text + i - 7, "\"seed\":", 7) != 0) continue;
        while (text[i] == ' ')
            i++;
        if (text[i] < '0' || text[i] > '9') continue;
        quoted[o++] = '"';
        while (text[i] >= '0' && text[i] <= '9')
            quoted[o++] = text[i++];
        quoted[o++] = '"';
    }
    quoted[o] = 0;
    json_t *j = json_loads(quoted, JSON_DECODE_INT_AS_REAL, &err);
    if (!j) fail_msg("%s: %s at line %d", path, err.text, err.line);
    free(text);
    free(quoted);
    return j;
}

static inline uint64_t golden_seed(const json_t *row)
{
    return strtoull(json_string_value(json_object_get(row, "seed")), NULL, 10);
}

static inline double golden_number(const json_t *row, const char *key)
{
    const json_t *v = json_object_get(row, key);
    if (!json_is_number(v)) fail_msg("\"%s\" is no number", key);
    return json_number_value(v);
}

static inline void golden_sha256(const void *data, size_t bytes, char hex[65])
{
    unsigned char d[32];
    SHA256(data, bytes, d);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", d[i]);
}

#endif
