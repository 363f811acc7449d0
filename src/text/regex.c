// SPDX-License-Identifier: Apache-2.0
// regex.c - see regex.h. PCRE2 10.42; UTF and UCP, so that \p, \s and case folding are Unicode's.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include "base/mem.h"

#define MATCH_LIMIT 1000000u // steps of backtracking per match

struct at_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

static uint32_t options_of(unsigned flags)
{
    uint32_t o = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    if (flags & AT_REGEX_NOCASE) o |= PCRE2_CASELESS;
    if (flags & AT_REGEX_MULTILINE) o |= PCRE2_MULTILINE | PCRE2_ALT_CIRCUMFLEX;
    if (flags & AT_REGEX_DOTALL) o |= PCRE2_DOTALL;
    return o;
}

at_status at_regex_compile(const char *label, const char *pattern, bool nocase, at_regex **out)
{
    return at_regex_compile_as(label, pattern, nocase ? AT_REGEX_NOCASE : 0, out);
}

at_status at_regex_compile_as(const char *label, const char *pattern, unsigned flags,
                              at_regex **out)
{
    at_regex *re = at_calloc(1, sizeof *re);
    int error = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR text[128] = "";
    at_status st = AT_OK;

    *out = NULL;
    if (!re) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a pattern", label));
    re->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options_of(flags), &error,
                             &at, NULL);
    if (!re->code) {
        pcre2_get_error_message(error, text, sizeof text);
        AT_TRY(at_fail(AT_EFORMAT, "%s: pattern \"%.80s\" at %zu: %s", label, pattern, (size_t)at,
                       (const char *)text));
    }
    re->limits = pcre2_match_context_create(NULL);
    if (!re->limits) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory for a pattern", label));
    pcre2_set_match_limit(re->limits, MATCH_LIMIT);
    *out = re;
    re = NULL;
out:
    at_regex_free(re);
    return st;
}

void at_regex_free(at_regex *re)
{
    if (!re) return;
    pcre2_match_context_free(re->limits);
    pcre2_code_free(re->code);
    at_free(re);
}

// The struct is PCRE2's match data under our name.
at_status at_regex_space_new(at_regex_space **out)
{
    *out = (at_regex_space *)pcre2_match_data_create(1, NULL);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "no memory to match a pattern");
}

void at_regex_space_free(at_regex_space *space)
{
    pcre2_match_data_free((pcre2_match_data *)space);
}

bool at_regex_next(const at_regex *re, at_regex_space *space, const char *text, size_t n,
                   size_t from, size_t *begin, size_t *end, at_status *st)
{
    at_regex_space *own = NULL;
    pcre2_match_data *data;
    int rc;

    if (!space && (*st = at_regex_space_new(&own)) != AT_OK) return false;
    data = (pcre2_match_data *)(space ? space : own);
    rc = pcre2_match(re->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, data, re->limits);
    if (rc >= 0) { // 0: there were more groups than the one pair we ask for
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(data);
        *begin = range[0];
        *end = range[1];
    } else if (rc == PCRE2_ERROR_NOMEMORY) {
        *st = at_fail(AT_ENOMEM, "no memory to match a pattern");
    } else if (rc != PCRE2_ERROR_NOMATCH) {
        *st = at_fail(AT_EFORMAT, "a pattern of the tokenizer gave up on a text of %zu bytes", n);
    }
    at_regex_space_free(own);
    return rc >= 0;
}

size_t at_regex_groups(const at_regex *re)
{
    uint32_t n = 0;
    pcre2_pattern_info(re->code, PCRE2_INFO_CAPTURECOUNT, &n);
    return n;
}

size_t at_regex_group_named(const at_regex *re, const char *name)
{
    int n = pcre2_substring_number_from_name(re->code, (PCRE2_SPTR)name);
    return n > 0 ? (size_t)n : 0;
}

bool at_regex_match(const at_regex *re, const char *text, size_t n, size_t from, bool not_empty,
                    size_t *ranges, at_status *st)
{
    size_t groups = at_regex_groups(re);
    pcre2_match_data *data = pcre2_match_data_create((uint32_t)groups + 1, NULL);
    uint32_t options = PCRE2_NO_UTF_CHECK | (not_empty ? PCRE2_NOTEMPTY_ATSTART : 0);

    if (!data) {
        *st = at_fail(AT_ENOMEM, "no memory to match a pattern");
        return false;
    }
    int rc = pcre2_match(re->code, (PCRE2_SPTR)text, n, from, options, data, re->limits);
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(data);
    for (size_t i = 0; rc > 0 && i < 2 * (groups + 1); i++)
        ranges[i] = i < 2 * (size_t)rc ? found[i] : PCRE2_UNSET;
    pcre2_match_data_free(data);
    if (rc == PCRE2_ERROR_NOMEMORY)
        *st = at_fail(AT_ENOMEM, "no memory to match a pattern");
    else if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        *st = at_fail(AT_EINVAL, "a pattern takes more than %u steps on a text of %zu bytes",
                      MATCH_LIMIT, n);
    return rc > 0;
}
