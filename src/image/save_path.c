// SPDX-License-Identifier: Apache-2.0
// save_path.c - where the next output file goes.
// Source: comfyui-contract section 3.7 (behaviour of get_save_image_path).
// Easy to get wrong: the counter is one above the highest in the folder, not the first free one; names
// that only look similar ("prefix2_00001_") do not count.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "image/image.h"

// %width% and its friends; any other text between percent signs stays.
static at_status fill_in(const char *prefix, int64_t width, int64_t height, char **out)
{
    time_t now = time(NULL);
    struct tm t;
    char words[8][24];
    static const char *const names[8] = {"%width%", "%height%", "%year%",   "%month%",
                                         "%day%",   "%hour%",   "%minute%", "%second%"};
    at_str s = {0};

    localtime_r(&now, &t);
    const long long values[8] = {width,     height,    t.tm_year + 1900, t.tm_mon + 1,
                                 t.tm_mday, t.tm_hour, t.tm_min,         t.tm_sec};
    for (int i = 0; i < 8; i++)
        snprintf(words[i], sizeof words[i], i < 3 ? "%lld" : "%02lld", values[i]);
    for (const char *p = prefix; *p;) {
        int i = 0;
        while (i < 8 && !at_starts_with(p, names[i]))
            i++;
        if (i == 8) {
            at_str_append_n(&s, p++, 1);
        } else {
            at_str_append(&s, words[i]);
            p += strlen(names[i]);
        }
    }
    *out = at_str_take(&s);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "no memory for a file name");
}

static at_status outside(const char *prefix)
{
    return at_fail(AT_EINVAL,
                   "Saving image outside the output folder is not allowed. filename_prefix: %s",
                   prefix);
}

// "a/./b//c/.." to "a/b": false if it climbs above where it starts.
static bool normalize(const char *path, at_str *out)
{
    while (*path) {
        size_t n = strcspn(path, "/");
        if (n == 2 && !memcmp(path, "..", 2)) {
            if (out->len == 0) return false;
            while (out->len && out->data[out->len - 1] != '/')
                out->len--;
            if (out->len) out->len--;
            out->data[out->len] = 0;
        } else if (n && !(n == 1 && *path == '.')) {
            if (out->len) at_str_append_n(out, "/", 1);
            at_str_append_n(out, path, n);
        }
        path += n;
        path += strspn(path, "/");
    }
    return true;
}

static at_status absolute(const char *path, char **out)
{
    char cwd[PATH_MAX];
    size_t n;

    if (*path == '/') {
        *out = at_strdup(path);
    } else {
        if (!getcwd(cwd, sizeof cwd))
            return at_fail(AT_EIO, "the working folder has no name: %s", strerror(errno));
        *out = at_path_join(cwd, path);
    }
    if (!*out) return at_fail(AT_ENOMEM, "no memory for a file name");
    for (n = strlen(*out); n > 1 && (*out)[n - 1] == '/';)
        (*out)[--n] = 0;
    return AT_OK;
}

// The number in "NAME_123_...": 0 if the text up to the next '_' is none.
static int number_in(const char *file, size_t name_n)
{
    const char *p = file + name_n + 1;
    char *end;
    long v;

    errno = 0;
    v = strtol(p, &end, 10);
    if (end == p || (*end != '_' && *end) || errno || v > INT_MAX - 1 || v < 0) return 0;
    return (int)v;
}

static at_status count(const char *folder, const char *name, int *out)
{
    size_t n = strlen(name);
    DIR *dir = opendir(folder);
    struct dirent *e;
    int highest = 0;

    *out = 1;
    if (!dir && errno == ENOENT) return at_make_dirs(folder);
    if (!dir) return at_fail(AT_EIO, "%s: %s", folder, strerror(errno));
    while ((e = readdir(dir)) != NULL) {
        int v;
        if (strncmp(e->d_name, name, n) != 0 || e->d_name[n] != '_') continue;
        v = number_in(e->d_name, n);
        if (v > highest) highest = v;
    }
    closedir(dir);
    *out = highest + 1;
    return AT_OK;
}

// Split the filled-in prefix below root into folder and name.
static at_status place(const char *root, const char *prefix, at_save_path *out)
{
    size_t root_n = strlen(root);
    const char *below = prefix, *slash;
    at_str s = {0};
    at_status st = AT_OK;

    if (*prefix == '/') { // absolute is fine inside the root
        if (strncmp(prefix, root, root_n) != 0 || prefix[root_n] != '/') AT_TRY(outside(prefix));
        below = prefix + root_n + 1;
    }
    if (!normalize(below, &s)) AT_TRY(outside(prefix));
    if (s.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for a file name"));
    slash = s.len ? strrchr(s.data, '/') : NULL;
    out->subfolder = slash ? at_strndup(s.data, (size_t)(slash - s.data)) : at_strdup("");
    out->filename = at_strdup(slash ? slash + 1 : s.len ? s.data : ".");
    if (!out->subfolder || !out->filename) AT_TRY(at_fail(AT_ENOMEM, "no memory for a file name"));
    out->folder = *out->subfolder ? at_path_join(root, out->subfolder) : at_strdup(root);
    if (!out->folder) AT_TRY(at_fail(AT_ENOMEM, "no memory for a file name"));
out:
    at_str_free(&s);
    return st;
}

at_status at_save_path_next(const char *root, const char *prefix, int64_t width, int64_t height,
                            at_save_path *out)
{
    char *filled = NULL, *top = NULL;
    at_status st = AT_OK;

    *out = (at_save_path){0};
    AT_TRY(fill_in(prefix, width, height, &filled));
    AT_TRY(absolute(root, &top));
    AT_TRY(place(top, filled, out));
    AT_TRY(count(out->folder, out->filename, &out->counter));
out:
    at_free(filled);
    at_free(top);
    if (st != AT_OK) at_save_path_free(out);
    return st;
}

void at_save_path_free(at_save_path *p)
{
    at_free(p->folder);
    at_free(p->filename);
    at_free(p->subfolder);
    *p = (at_save_path){0};
}
