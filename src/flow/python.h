// SPDX-License-Identifier: Apache-2.0
// python.h - the few habits of Python that ComfyUI's answers show: str(), repr(), int(), float(),
// bool().
// Idea: a failed conversion is an exception: a class name and a text, which ComfyUI sends to the
// client as they are. Source: CPython 3.12's messages.
// Owns: an at_pyerr owns its text (at_pyerr_clear).
#ifndef AT_FLOW_PYTHON_H
#define AT_FLOW_PYTHON_H

#include "json/json.h"

typedef struct at_pyerr {
    const char *type; // "ValueError"; NULL: no exception. Static
    char *text;       // str(exception)
} at_pyerr;
void at_pyerr_clear(at_pyerr *e);
// Fill `e`; AT_EINVAL, or AT_ENOMEM if the text could not be kept.
at_status at_py_raise(at_pyerr *e, const char *type, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void at_py_repr_text(at_str *s, const char *text);  // 'it', "it's", 'line\n'
void at_py_repr(at_str *s, const json_t *v);        // repr(json.loads(...))
void at_py_str(at_str *s, const json_t *v);         // str(): text as it is, the rest like repr
const char *at_py_type_name(const json_t *v);       // "str", "NoneType", ...
bool at_py_truth(const json_t *v);                  // bool()
bool at_py_equal(const json_t *a, const json_t *b); // ==, so that 1 == 1.0 == True

// True for int, float and bool; *out: the value as closely as a long double holds it.
bool at_py_number(const json_t *v, long double *out);
// int() and float(): *out is a new reference. AT_OK; AT_EINVAL with *e filled; AT_ENOMEM.
at_status at_py_int(const json_t *v, json_t **out, at_pyerr *e);
at_status at_py_float(const json_t *v, json_t **out, at_pyerr *e);
// tuple[index] or list[index] over `count` items: *out in [0, count), else *e holds the exception.
at_status at_py_index(const json_t *index, size_t count, bool list, size_t *out, at_pyerr *e);

#endif
