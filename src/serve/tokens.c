// SPDX-License-Identifier: Apache-2.0
// tokens.c - see tokens.h. Source: RFC 6750 section 2.1, RFC 6265 section 4.2.
#include "serve/tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/mem.h"

enum { MAX_FILE = 1 << 20 };

typedef struct row {
    at_role role;
    char name[64];
    unsigned char hash[SHA256_DIGEST_LENGTH];
} row;

struct at_tokens {
    row *rows;
    size_t count;
};

static at_role role_of(const char *name)
{
    static const char *const names[] = {"view", "submit", "admin"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) return (at_role)(AT_ROLE_VIEW + i);
    return AT_ROLE_NONE;
}

static bool read_hash(const char *hex, unsigned char *out)
{
    if (strlen(hex) != 2 * SHA256_DIGEST_LENGTH) return false;
    for (size_t i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        unsigned v;
        if (strspn(hex + 2 * i, "0123456789abcdefABCDEF") < 2 ||
            sscanf(hex + 2 * i, "%2x", &v) != 1)
            return false;
        out[i] = (unsigned char)v;
    }
    return true;
}

// A folder may be called so.
static bool is_name(const char *name)
{
    return *name != '-' && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789-_") == strlen(name);
}

static at_status read_line(at_tokens *t, const char *path, int number, const char *text)
{
    char role[16] = "", name[64] = "", hex[80] = "", more[2] = "";
    row r = {0};

    int n = sscanf(text, " %15s %63s %79s %1s", role, name, hex, more);
    if (n <= 0 || role[0] == '#') return AT_OK; // an empty line, a comment
    r.role = role_of(role);
    if (n != 3 || r.role == AT_ROLE_NONE || !read_hash(hex, r.hash) || !is_name(name))
        return at_fail(
            AT_EFORMAT,
            "%s line %d: \"ROLE NAME SHA256\" is wanted, with view, submit or admin, a "
            "name of letters, digits, - and _; `printf %%s TOKEN | sha256sum` prints the "
            "last",
            path, number);
    memcpy(r.name, name, sizeof r.name);
    row *grown = at_realloc(t->rows, (t->count + 1) * sizeof *grown);
    if (!grown) return at_fail(AT_ENOMEM, "%s: no memory", path);
    t->rows = grown;
    t->rows[t->count++] = r;
    return AT_OK;
}

at_status at_tokens_load(const char *path, at_tokens **out)
{
    at_status st = AT_OK;
    char *text = NULL;
    size_t n = 0;
    int number = 1;
    at_tokens *t = at_calloc(1, sizeof *t);

    if (!t) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    AT_TRY(at_file_read(path, MAX_FILE, &text, &n));
    for (char *line = text; line; number++) {
        char *end = strchr(line, '\n');
        if (end) *end = 0;
        AT_TRY(read_line(t, path, number, line));
        line = end ? end + 1 : NULL;
    }
    if (!t->count) AT_TRY(at_fail(AT_EFORMAT, "%s: no token is in it: nobody could get in", path));
    *out = t;
    t = NULL;
out:
    at_free(text);
    at_tokens_free(t);
    return st;
}

void at_tokens_free(at_tokens *t)
{
    if (!t) return;
    at_free(t->rows);
    at_free(t);
}

// Every row is compared in full: how long it takes tells nothing.
at_role at_tokens_find(const at_tokens *t, const char *token, const char **user)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    at_role role = AT_ROLE_NONE;
    if (!token || !SHA256((const unsigned char *)token, strlen(token), hash)) return role;
    for (size_t i = 0; i < t->count; i++)
        if (CRYPTO_memcmp(hash, t->rows[i].hash, sizeof hash) == 0 && t->rows[i].role > role) {
            role = t->rows[i].role;
            if (user) *user = t->rows[i].name;
        }
    return role;
}

bool at_tokens_knows(const at_tokens *t, const char *user)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->rows[i].name, user) == 0) return true;
    return false;
}

char *at_token_of(const char *authorization, const char *cookies)
{
    static const char name[] = AT_TOKEN_COOKIE "=";
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        return at_strdup(authorization + 7 + strspn(authorization + 7, " "));
    for (const char *c = cookies; c && *c;) {
        c += strspn(c, "; ");
        size_t n = strcspn(c, ";");
        if (strncmp(c, name, sizeof name - 1) == 0)
            return at_strndup(c + sizeof name - 1, n - (sizeof name - 1));
        c += n;
    }
    return NULL;
}
