// SPDX-License-Identifier: Apache-2.0
// multipart.h - the fields of a multipart/form-data body, where they lie.
// Source: RFC 7578, RFC 2046 section 5.1. Hostile input: every length is proven before it is used.
// Owns: parts point into the body; names and file names are the form's (at_form_free).
#ifndef AT_SERVE_MULTIPART_H
#define AT_SERVE_MULTIPART_H

#include "base/status.h"

#include <stddef.h>

#define AT_FORM_PARTS 32

typedef struct at_form_part {
    char *name, *filename; // filename NULL: a plain field
    const char *bytes;
    size_t n;
} at_form_part;

typedef struct at_form {
    at_form_part parts[AT_FORM_PARTS];
    size_t count;
} at_form;

// AT_EFORMAT: no form, or more than AT_FORM_PARTS fields.
at_status at_form_parse(const char *content_type, const char *body, size_t n, at_form *out);
void at_form_free(at_form *f);
const at_form_part *at_form_find(const at_form *f, const char *name); // NULL if absent
char *at_form_text(const at_form *f, const char *name);               // a copy; NULL if absent

#endif
