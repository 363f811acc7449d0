// SPDX-License-Identifier: Apache-2.0
// py_str.h - what Python's str can do, over UTF-8: lengths and slices in code points, case, strip.
// Easy to get wrong: case is Unicode's with the long forms ("ß".upper() is "SS") and the Greek final sigma;
// title case begins anew behind everything that has no case.
// Source: CPython's Objects/unicodeobject.c, behaviour. Unicode data: utf8proc 2.8 (Unicode 15).
// Owns: results are appended to the caller's at_str. Ill-formed bytes count as one code point each.
#ifndef AT_TEXT_PY_STR_H
#define AT_TEXT_PY_STR_H

#include <stdint.h>

#include "base/str.h"

typedef enum at_py_case { AT_PY_UPPER, AT_PY_LOWER, AT_PY_CAPITALIZE, AT_PY_TITLE } at_py_case;
at_status at_py_case_of(const char *s, at_py_case how, at_str *out);

int64_t at_py_len(const char *s);
// s[start:stop]
void at_py_slice(const char *s, int64_t start, int64_t stop, at_str *out);
// s.strip() without the ends that are not asked for.
void at_py_strip(const char *s, bool left, bool right, at_str *out);
// s.replace(find, with); an empty `find` is found between all code points.
void at_py_replace(const char *s, const char *find, const char *with, at_str *out);

#endif
