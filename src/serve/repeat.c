// SPDX-License-Identifier: Apache-2.0
// repeat.c - see repeat.h.
#include "serve/repeat.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

enum { ENTRIES = 16, LONGEST = 64 << 10, DEEPEST = 64 };

typedef struct entry {
    char *bytes;
    size_t n;
    uint64_t hash;
    char *texts[3]; // what `result` shows
    at_repeat_of result;
} entry;

struct at_repeats {
    entry list[ENTRIES];
    size_t next;
};

// --- finding a member --------------------------------------------------------------------------------
typedef struct scan {
    const char *at, *end;
} scan;

static void skip_space(scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

// Behind the string that begins here; *plain: it holds no backslash.
static bool skip_string(scan *s, bool *plain)
{
    if (s->at == s->end || *s->at != '"') return false;
    *plain = true;
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
        if (*s->at == '\\') {
            *plain = false;
            if (++s->at == s->end) return false;
        }
    if (s->at == s->end) return false;
    s->at++;
    return true;
}

// Behind a number, a word, a string, or an object or list with its brackets in order.
static bool skip_value(scan *s)
{
    char open[DEEPEST];
    size_t depth = 0;
    bool plain;

    do {
        if (s->at == s->end) return false;
        char c = *s->at;
        if (c == '"') {
            if (!skip_string(s, &plain)) return false;
            continue;
        }
        if (c == '{' || c == '[') {
            if (depth == DEEPEST) return false;
            open[depth++] = c == '{' ? '}' : ']';
        } else if (c == '}' || c == ']') {
            if (!depth || open[--depth] != c) return false;
        } else if (!depth) {
            const char *from = s->at;
            while (s->at < s->end && !strchr(",}] \n\r\t", *s->at))
                s->at++;
            return s->at > from;
        }
        s->at++;
    } while (depth);
    return true;
}

bool at_repeats_member(const char *text, size_t n, const char *key, size_t *from, size_t *to)
{
    scan s = {text, text + n};
    size_t len = strlen(key);
    bool found = false, plain;

    skip_space(&s);
    if (s.at == s.end || *s.at != '{') return false;
    do {
        s.at++; // the brace or a comma
        skip_space(&s);
        const char *name = s.at + 1;
        if (!skip_string(&s, &plain) || !plain) return false;
        bool here = (size_t)(s.at - 1 - name) == len && memcmp(name, key, len) == 0;
        skip_space(&s);
        if (s.at == s.end || *s.at != ':') return false;
        s.at++;
        skip_space(&s);
        const char *value = s.at;
        if (!skip_value(&s) || (here && found)) return false;
        if (here) {
            *from = (size_t)(value - text);
            *to = (size_t)(s.at - text);
            found = true;
        }
        skip_space(&s);
    } while (s.at < s.end && *s.at == ',');
    return found && s.at < s.end && *s.at == '}';
}

// --- what is known -----------------------------------------------------------------------------------
static uint64_t hash_of(const char *bytes, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n, word;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; n; n--)
        h = (h ^ (unsigned char)*bytes++) * 0x100000001b3u;
    return h;
}

static void clear(entry *e)
{
    at_free(e->bytes);
    for (int i = 0; i < 3; i++)
        at_free(e->texts[i]);
    *e = (entry){0};
}

at_repeats *at_repeats_new(void)
{
    return at_calloc(1, sizeof(at_repeats));
}

void at_repeats_free(at_repeats *k)
{
    for (size_t i = 0; k && i < ENTRIES; i++)
        clear(&k->list[i]);
    at_free(k);
}

const at_repeat_of *at_repeats_find(at_repeats *k, const char *bytes, size_t n)
{
    uint64_t hash = k && n <= LONGEST ? hash_of(bytes, n) : 0;
    for (size_t i = 0; k && n <= LONGEST && i < ENTRIES; i++) {
        const entry *e = &k->list[i];
        if (e->bytes && e->hash == hash && e->n == n && memcmp(e->bytes, bytes, n) == 0)
            return &e->result;
    }
    return NULL;
}

void at_repeats_keep(at_repeats *k, const char *bytes, size_t n, const at_repeat_of *p)
{
    if (!k || n > LONGEST || at_repeats_find(k, bytes, n)) return;
    entry *e = &k->list[k->next], made = {.n = n, .hash = hash_of(bytes, n)};
    made.bytes = at_alloc(n + 1);
    made.texts[0] = at_strdup(p->prompt);
    made.texts[1] = at_strdup(p->targets);
    made.texts[2] = at_strdup(p->node_errors);
    made.result = (at_repeat_of){made.texts[0], made.texts[1], made.texts[2]};
    if (!made.bytes || !made.texts[0] || !made.texts[1] || !made.texts[2]) {
        clear(&made);
        return;
    }
    memcpy(made.bytes, bytes, n);
    clear(e);
    *e = made;
    k->next = (k->next + 1) % ENTRIES;
}
