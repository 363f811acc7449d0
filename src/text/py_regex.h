// SPDX-License-Identifier: Apache-2.0
// py_regex.h - Python's re over PCRE2: search, all matches, substitution.
// Idea: a pattern is rewritten, token by token, into one that means the same to PCRE2; what Python refuses is
// refused (AT_EFORMAT, Python's re.error) even where PCRE2 could do it.
// Differences that remain: look-behinds of several lengths are accepted, [\S] and [\W] are PCRE2's, a repeat
// counts to 65535, \N{...} and the flags a and L are AT_EUNSUPPORTED, and a match that needs more than a
// million steps is AT_EINVAL where Python would go on.
// Source: Python 3.11's re documentation and Lib/re/_parser.py, behaviour.
// Owns: a pattern is the caller's (at_py_regex_free).
#ifndef AT_TEXT_PY_REGEX_H
#define AT_TEXT_PY_REGEX_H

#include "base/str.h"
#include "text/regex.h"

// The pattern for PCRE2.
at_status at_py_regex_translate(const char *pattern, at_str *out);
// flags: AT_REGEX_*.
at_status at_py_regex_compile(const char *pattern, unsigned flags, at_regex **out);

// Walk over all matches as re.finditer does: empty ones too, also right behind another. *text is borrowed.
typedef struct at_py_matches {
    const at_regex *re;
    const char *text;
    size_t n, at;
    bool not_empty;
    size_t *ranges; // see at_regex_match
} at_py_matches;
// AT_EINVAL: the text is not UTF-8; AT_ENOMEM.
at_status at_py_matches_open(const at_regex *re, const char *text, at_py_matches *m);
bool at_py_matches_next(at_py_matches *m, at_status *st);
void at_py_matches_close(at_py_matches *m);

// re.sub(pattern, with, text, count): count 0 is all. AT_EFORMAT: an escape in `with` that Python refuses.
at_status at_py_regex_sub(const at_regex *re, const char *with, const char *text, int64_t count,
                          at_str *out);

#endif
