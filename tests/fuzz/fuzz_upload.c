// SPDX-License-Identifier: Apache-2.0
// fuzz_upload.c - bytes as a multipart form and as a chunked body.
// Promises: a form's parts lie inside the body, behind each other, and hold no boundary; a chunked body says the same
// however it is cut into pieces.
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "serve/chunks.h"
#include "serve/multipart.h"

static void form(const char *body, size_t n)
{
    at_form f;
    const char *end = body;

    if (at_form_parse("multipart/form-data; boundary=b", body, n, &f) != AT_OK) return;
    FUZZ_CHECK(f.count <= AT_FORM_PARTS);
    for (size_t i = 0; i < f.count; i++) {
        const at_form_part *p = &f.parts[i];
        FUZZ_CHECK(p->bytes >= end && p->n <= (size_t)(body + n - p->bytes));
        FUZZ_CHECK(!p->n || !memmem(p->bytes, p->n, "\r\n--b", 5));
        end = p->bytes + p->n;
        if (p->name) FUZZ_CHECK(at_form_find(&f, p->name) != NULL);
    }
    at_form_free(&f);
}

typedef struct sum {
    size_t bytes;
    uint32_t hash;
} sum;

static bool add(void *ctx, const char *bytes, size_t n)
{
    sum *s = ctx;
    FUZZ_CHECK(n > 0);
    for (size_t i = 0; i < n; i++)
        s->hash = s->hash * 31 + (unsigned char)bytes[i];
    s->bytes += n;
    return true;
}

static void chunked(const char *body, size_t n)
{
    at_chunks whole = {0}, cut = {0};
    sum a = {0}, b = {0};
    bool good = at_chunks_feed(&whole, body, n, add, &a), same = true;

    FUZZ_CHECK(a.bytes <= n);
    for (size_t i = 0; i < n && same; i++)
        same = at_chunks_feed(&cut, body + i, 1, add, &b);
    FUZZ_CHECK(good == same && a.bytes == b.bytes && a.hash == b.hash);
    if (good) FUZZ_CHECK(whole.at == cut.at && whole.left == cut.left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *body = calloc(size ? size : 1, 1); // no byte more: the sanitizer watches its end

    FUZZ_CHECK(body);
    if (size) memcpy(body, data, size);
    form(body, size);
    chunked(body, size);
    free(body);
    return 0;
}
