// SPDX-License-Identifier: Apache-2.0
// prompt.c - weights in parentheses, and tokens into chunks.
// Idea: one pass finds for each '(' its ')', the colon before each place and the next parenthesis; with
// these three tables a group costs nothing to step over, so deep nesting stays linear, and the groups that
// are open lie on a stack of our own.
// Easy to get wrong: a group that is never closed is plain text, unless the text ends in ')': then the
// outermost pair counts and the inside is read again. `:w` counts only after the last colon of a group.
#include "text/prompt.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "text/python_float.h"

#define NONE UINT32_MAX

typedef struct frame {
    uint32_t at, begin, end; // reading at `at`; plain text not yet given out begins at `begin`
    int64_t level;           // below 0 behind surplus ')'
    double weight;
} frame;

typedef struct parser {
    const char *text;
    uint32_t n;
    uint32_t *close; // of each structural '(': its ')', or NONE
    uint32_t *colon; // last ':' before this place, or NONE
    uint32_t *paren; // next structural parenthesis at or behind this place, or n
    frame *stack;
    size_t depth, stack_cap, segment_cap;
    at_segments out;
} parser;

// '(' or ')' that is not behind a backslash; 0 for any other byte.
static char structural(const parser *p, uint32_t i)
{
    char c = p->text[i];

    return (c == '(' || c == ')') && !(i && p->text[i - 1] == '\\') ? c : 0;
}

static at_status make_tables(parser *p)
{
    uint32_t *open = p->paren; // a stack of open '(' until it gets its real contents
    uint32_t opened = 0, last = NONE, next = p->n;

    for (uint32_t i = 0; i < p->n; i++) {
        char c = structural(p, i);
        p->close[i] = NONE;
        p->colon[i] = last;
        if (p->text[i] == ':') last = i;
        if (c == '(') open[opened++] = i;
        if (c == ')' && opened) p->close[open[--opened]] = i;
    }
    p->colon[p->n] = last;
    for (uint32_t i = p->n + 1; i-- > 0;) {
        if (i < p->n && structural(p, i)) next = i;
        p->paren[i] = next;
    }
    return AT_OK;
}

// text[begin, end) without the backslashes of escaped parentheses.
static char *unescape(const char *text, uint32_t begin, uint32_t end)
{
    char *s = at_alloc((size_t)(end - begin) + 1), *q = s;

    if (!s) return NULL;
    for (uint32_t i = begin; i < end; i++)
        if (!(text[i] == '\\' && i + 1 < end && (text[i + 1] == '(' || text[i + 1] == ')')))
            *q++ = text[i];
    *q = 0;
    return s;
}

static at_status give(parser *p, uint32_t begin, uint32_t end, double weight)
{
    at_segments *s = &p->out;

    if (begin >= end) return AT_OK;
    if (s->count == p->segment_cap) {
        size_t cap = p->segment_cap ? p->segment_cap * 2 : 16;
        at_segment *items = at_realloc(s->items, cap * sizeof *items);
        if (!items) return at_fail(AT_ENOMEM, "no memory for %zu parts of a prompt", cap);
        s->items = items;
        p->segment_cap = cap;
    }
    s->items[s->count] = (at_segment){unescape(p->text, begin, end), (float)weight};
    if (!s->items[s->count].text) return at_fail(AT_ENOMEM, "no memory for a part of a prompt");
    s->count++;
    return AT_OK;
}

static at_status push(parser *p, uint32_t begin, uint32_t end, double weight)
{
    if (p->depth == p->stack_cap) {
        size_t cap = p->stack_cap ? p->stack_cap * 2 : 16;
        frame *stack = at_realloc(p->stack, cap * sizeof *stack);
        if (!stack) return at_fail(AT_ENOMEM, "no memory for a prompt nested %zu deep", cap);
        p->stack = stack;
        p->stack_cap = cap;
    }
    p->stack[p->depth++] = (frame){begin, begin, end, 0, weight};
    return AT_OK;
}

// The inside of a group: `:w` at its end sets the weight, else it grows by a tenth.
static at_status push_group(parser *p, uint32_t begin, uint32_t end, double weight)
{
    uint32_t colon = p->colon[end];
    double w;

    if (colon != NONE && colon > begin && p->paren[colon] >= end &&
        at_python_float(p->text + colon + 1, end - colon - 1, &w))
        return push(p, begin, colon, w);
    return push(p, begin, end, weight * 1.1);
}

// Read on in the topmost frame until a group opens or the frame ends.
static at_status read_frame(parser *p)
{
    frame *f = &p->stack[p->depth - 1];
    uint32_t i, close, end = f->end, begin;
    double weight = f->weight;
    at_status st;

    for (i = p->paren[f->at]; i < end; i = p->paren[i + 1]) {
        bool opens = p->text[i] == '(';
        if (opens && f->level == 0) break;
        f->level += opens ? 1 : -1;
    }
    if (i >= end) {
        p->depth--;
        return give(p, f->begin, end, weight);
    }
    st = give(p, f->begin, i, weight);
    if (st != AT_OK) return st;
    close = p->close[i];
    if (close != NONE && close < end) {
        f->at = f->begin = close + 1;
        return push_group(p, i + 1, close, weight);
    }
    begin = i; // never closed
    p->depth--;
    if (end - begin >= 2 && structural(p, end - 1) == ')')
        return push_group(p, begin + 1, end - 1, weight);
    return give(p, begin, end, weight);
}

at_status at_prompt_parse(const char *text, at_segments *out)
{
    size_t n = strlen(text);
    parser p = {.text = text, .n = (uint32_t)n};
    at_status st = AT_OK;

    *out = (at_segments){0};
    if (n > UINT32_MAX / 8) return at_fail(AT_ENOMEM, "a prompt of %zu bytes is too long", n);
    p.close = at_calloc(n + 1, sizeof *p.close);
    p.colon = at_calloc(n + 1, sizeof *p.colon);
    p.paren = at_calloc(n + 2, sizeof *p.paren);
    if (!p.close || !p.colon || !p.paren)
        AT_TRY(at_fail(AT_ENOMEM, "no memory for a prompt of %zu bytes", n));
    AT_TRY(make_tables(&p));
    AT_TRY(push(&p, 0, p.n, 1.0));
    while (p.depth)
        AT_TRY(read_frame(&p));
    *out = p.out;
    p.out = (at_segments){0};
out:
    at_free(p.close);
    at_free(p.colon);
    at_free(p.paren);
    at_free(p.stack);
    at_segments_free(&p.out);
    return st;
}

void at_segments_free(at_segments *s)
{
    for (size_t i = 0; i < s->count; i++)
        at_free(s->items[i].text);
    at_free(s->items);
    *s = (at_segments){0};
}
