// SPDX-License-Identifier: Apache-2.0
// annotated.c - see annotated.h.
#include "nodes/annotated.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

at_status at_annotated_path(const at_env *e, const char *name, char **path)
{
    static const char *const marks[] = {" [input]", " [output]", " [temp]"};
    const char *const dirs[] = {e->input_dir, e->output_dir, e->temp_dir};
    const char *dir = e->input_dir;
    char *plain = at_strdup(name);

    if (!plain) return at_fail(AT_ENOMEM, "the name of a file: no memory");
    for (size_t i = 0; i < AT_COUNT(marks); i++)
        if (at_ends_with(plain, marks[i])) {
            plain[strlen(plain) - strlen(marks[i])] = 0;
            dir = dirs[i];
            break;
        }
    at_status st = at_path_join_safe(dir, plain, path);
    at_free(plain);
    return st;
}

at_status at_annotated_check(const at_env *e, const char *name, const char *what)
{
    char *path = NULL;

    if (!name) return AT_OK;
    at_status st = at_annotated_path(e, name, &path);
    if (st == AT_OK && !at_path_exists(path)) st = AT_EINVAL;
    at_free(path);
    if (st == AT_OK || st == AT_ENOMEM) return st;
    return at_fail(AT_EINVAL, "Invalid %s file: %s", what, name);
}

at_status at_annotated_hash(const at_env *e, const char *name, char **out)
{
    char *path = NULL;
    at_map map = {0};
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    at_status st = at_annotated_path(e, name ? name : "", &path);

    if (st == AT_OK) st = at_map_open(path, &map);
    at_free(path);
    if (st != AT_OK) return st;
    EVP_Digest(map.data ? (const void *)map.data : "", map.size, digest, &n, EVP_sha256(), NULL);
    at_map_close(&map);
    *out = at_alloc(2 * (size_t)n + 1);
    if (!*out) return at_fail(AT_ENOMEM, "the hash of %s: no memory", name ? name : "a file");
    for (unsigned int i = 0; i < n; i++)
        snprintf(*out + 2 * i, 3, "%02x", digest[i]);
    return AT_OK;
}
