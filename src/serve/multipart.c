// SPDX-License-Identifier: Apache-2.0
// multipart.c - see multipart.h.
#include "serve/multipart.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

static const char *find(const char *hay, size_t n, const char *needle, size_t m)
{
    return n >= m ? memmem(hay, n, needle, m) : NULL;
}

// The value of `key` in "form-data; name=\"a\"; filename=\"b.png\""; NULL if absent or out of memory.
static char *parameter(const char *text, size_t n, const char *key)
{
    size_t k = strlen(key);
    for (size_t i = 0; i + k + 1 < n; i++) {
        if (text[i] == '"') { // a quoted value: what stands in it is no key
            for (i++; i < n && text[i] != '"'; i++)
                if (text[i] == '\\') i++;
            continue;
        }
        bool start = i == 0 || text[i - 1] == ' ' || text[i - 1] == ';' || text[i - 1] == '\t';
        if (!start || strncasecmp(text + i, key, k) != 0 || text[i + k] != '=') continue;
        i += k + 1;
        bool quoted = i < n && text[i] == '"';
        char *value = at_alloc(n - i + 1);
        size_t len = 0;
        if (!value) return NULL;
        for (i += quoted; i < n && (quoted ? text[i] != '"' : text[i] != ';' && text[i] != ' ');
             i++) {
            bool escaped = quoted && text[i] == '\\' && i + 1 < n &&
                           (text[i + 1] == '"' || text[i + 1] == '\\');
            if (escaped) i++;
            value[len++] = text[i];
        }
        value[len] = 0;
        return value;
    }
    return NULL;
}

// The headers of one part: its name and file name.
static void read_headers(const char *text, size_t n, at_form_part *part)
{
    static const char want[] = "content-disposition:";
    while (n) {
        const char *end = find(text, n, "\r\n", 2);
        size_t line = end ? (size_t)(end - text) : n;
        if (line >= sizeof want - 1 && strncasecmp(text, want, sizeof want - 1) == 0) {
            const char *value = text + sizeof want - 1;
            size_t left = line - (sizeof want - 1);
            if (!part->name) part->name = parameter(value, left, "name");
            if (!part->filename) part->filename = parameter(value, left, "filename");
        }
        text += line;
        n -= line;
        size_t skip = n < 2 ? n : 2;
        text += skip;
        n -= skip;
    }
}

static at_status broken(const char *why)
{
    return at_fail(AT_EFORMAT, "upload: %s", why);
}

at_status at_form_parse(const char *content_type, const char *body, size_t n, at_form *out)
{
    at_status st = AT_OK;
    char *mark = NULL, *boundary = NULL;

    *out = (at_form){0};
    if (!content_type || strncasecmp(content_type, "multipart/form-data", 19) != 0)
        AT_TRY(broken("the body is no multipart/form-data"));
    boundary = parameter(content_type, strlen(content_type), "boundary");
    if (!boundary || !*boundary || strlen(boundary) > 200) AT_TRY(broken("no boundary"));
    mark = at_strprintf("\r\n--%s", boundary);
    if (!mark) AT_TRY(at_fail(AT_ENOMEM, "upload: no memory"));
    size_t m = strlen(mark);
    const char *end = body + n;
    const char *at;
    if (n >= m - 2 && memcmp(body, mark + 2, m - 2) == 0) {
        at = body + m - 2;
    } else {
        at = find(body, n, mark, m);
        if (!at) AT_TRY(broken("no first boundary"));
        at += m;
    }
    while (end - at >= 2 && memcmp(at, "--", 2) != 0) {
        const char *head = find(at, (size_t)(end - at), "\r\n", 2);
        if (!head) AT_TRY(broken("a boundary's line does not end"));
        head += 2;
        // A part without headers has its empty line at once.
        const char *blank = end - head >= 2 && memcmp(head, "\r\n", 2) == 0
                                ? head - 2
                                : find(head, (size_t)(end - head), "\r\n\r\n", 4);
        if (!blank) AT_TRY(broken("a part's headers do not end"));
        const char *bytes = blank + 4;
        // The mark may begin with the line break that ended the headers: an empty part.
        const char *next = find(bytes - 2, (size_t)(end - bytes) + 2, mark, m);
        if (!next) AT_TRY(broken("a part does not end"));
        if (out->count == AT_FORM_PARTS) AT_TRY(broken("too many fields"));
        at_form_part *part = &out->parts[out->count++];
        if (blank > head) read_headers(head, (size_t)(blank - head), part);
        part->bytes = bytes;
        part->n = next > bytes ? (size_t)(next - bytes) : 0;
        at = next + m;
    }
out:
    at_free(mark);
    at_free(boundary);
    if (st != AT_OK) at_form_free(out);
    return st;
}

void at_form_free(at_form *f)
{
    for (size_t i = 0; i < f->count; i++) {
        at_free(f->parts[i].name);
        at_free(f->parts[i].filename);
    }
    *f = (at_form){0};
}

const at_form_part *at_form_find(const at_form *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->parts[i].name && strcmp(f->parts[i].name, name) == 0) return &f->parts[i];
    return NULL;
}

char *at_form_text(const at_form *f, const char *name)
{
    const at_form_part *p = at_form_find(f, name);
    return p ? at_strndup(p->bytes, p->n) : NULL;
}
