// SPDX-License-Identifier: Apache-2.0
// path.c - names of files: joined, taken apart, proven to stay in their folder, and listed.
// Idea: a name from a workflow or a client goes through at_path_join_safe, which knows only the
// text; symbolic links inside a model folder are the owner's wish and are followed. Owns nothing:
// strings are the caller's.
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io_fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { MAX_DEPTH = 32 }; // folders in folders; also stops rings of links

char *at_path_join(const char *a, const char *b)
{
    size_t n = strlen(a);
    const char *slash = n == 0 || a[n - 1] == '/' ? "" : "/";

    return at_strprintf("%s%s%s", a, slash, b);
}

char *at_path_cache(const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (cache && *cache) return at_strprintf("%s/atelier/%s", cache, name);
    return home && *home ? at_strprintf("%s/.cache/atelier/%s", home, name) : NULL;
}

static bool has_parent_part(const char *name)
{
    const char *p = name;

    while (*p) {
        size_t n = strcspn(p, "/\\");

        if (n == 2 && p[0] == '.' && p[1] == '.') return true;
        p += n;
        if (*p) p++;
    }
    return false;
}

at_status at_path_join_safe(const char *dir, const char *name, char **out)
{
    if (name[0] == '\0') return at_fail(AT_EINVAL, "an empty file name below %s", dir);
    if (name[0] == '/' || name[0] == '\\') {
        return at_fail(AT_EINVAL, "'%s' is an absolute path; name a file below %s", name, dir);
    }
    if (has_parent_part(name)) {
        return at_fail(AT_EINVAL, "'%s' leaves its folder %s ('..' is not allowed)", name, dir);
    }
    *out = at_path_join(dir, name);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "%s/%s: no memory", dir, name);
}

const char *at_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

const char *at_path_ext(const char *path)
{
    const char *base = at_path_base(path), *dot = strrchr(base, '.');

    return dot && dot != base ? dot : base + strlen(base);
}

char *at_path_dir(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash) return at_strdup(".");
    if (slash == path) return at_strdup("/");
    return at_strndup(path, (size_t)(slash - path));
}

bool at_path_exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0;
}

bool at_path_is_dir(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

at_status at_make_dirs(const char *path)
{
    at_status st = AT_OK;
    char *copy = at_strdup(path);

    if (!copy) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    for (char *p = copy; *p; p++) {
        bool last = p[1] == '\0';
        char kept = p[1];

        if (!last && kept != '/') continue; // p ends a part
        p[1] = '\0';
        if ((at_io_fault_now() || mkdir(copy, 0777) != 0) && !at_path_is_dir(copy)) {
            AT_TRY(at_fail(AT_EIO, "%s: cannot create the folder: %s", copy, strerror(errno)));
        }
        p[1] = kept;
    }
out:
    at_free(copy);
    return st;
}

// --- listing ---------------------------------------------------------------------------------
typedef struct walk {
    bool recursive, full;
    size_t max, cap;
    at_list list;
    at_str path;     // the folder being read, then the entry
    size_t root_len; // where relative names begin in `path`
    dev_t dev[MAX_DEPTH];
    ino_t ino[MAX_DEPTH]; // folders from the root to here
} walk;

static at_status no_memory(const walk *w)
{
    return at_fail(AT_ENOMEM, "%s: no memory to list it", at_str_text(&w->path));
}

static at_status add_name(walk *w, const char *name)
{
    if (w->list.count == w->max) {
        w->full = true;
        return AT_OK;
    }
    if (w->list.count == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        char **grown = at_realloc(w->list.items, cap * sizeof *grown);

        if (!grown) return no_memory(w);
        w->list.items = grown;
        w->cap = cap;
    }
    w->list.items[w->list.count] = at_strdup(name);
    if (!w->list.items[w->list.count]) return no_memory(w);
    w->list.count++;
    return AT_OK;
}

static bool is_ancestor(const walk *w, const struct stat *info, int depth)
{
    for (int i = 0; i < depth; i++) {
        if (w->dev[i] == info->st_dev && w->ino[i] == info->st_ino) return true;
    }
    return false;
}

static at_status walk_dir(walk *w, int depth);

static at_status visit(walk *w, const char *name, int depth)
{
    at_status st = AT_OK;
    size_t len = w->path.len;
    struct stat info;

    at_str_append(&w->path, "/");
    at_str_append(&w->path, name);
    if (w->path.failed) AT_TRY(no_memory(w));
    if (stat(at_str_text(&w->path), &info) != 0) goto out; // dangling link, or gone again
    if (S_ISREG(info.st_mode)) {
        AT_TRY(add_name(w, at_str_text(&w->path) + w->root_len));
    } else if (S_ISDIR(info.st_mode) && w->recursive && depth < MAX_DEPTH &&
               !is_ancestor(w, &info, depth)) {
        w->dev[depth] = info.st_dev;
        w->ino[depth] = info.st_ino;
        AT_TRY(walk_dir(w, depth + 1));
    }
out:
    if (w->path.data) {
        w->path.len = len;
        w->path.data[len] = '\0';
    }
    return st;
}

static at_status walk_dir(walk *w, int depth)
{
    at_status st = AT_OK;
    DIR *d = at_io_fault_now() ? NULL : opendir(at_str_text(&w->path));
    struct dirent *e;

    if (!d && depth > 1) return AT_OK; // a closed subfolder does not hide the others
    if (!d && (errno == ENOENT || errno == ENOTDIR)) {
        return at_fail(AT_ENOTFOUND, "%s: no such folder", at_str_text(&w->path));
    }
    if (!d) {
        return at_fail(AT_EIO, "%s: cannot list: %s", at_str_text(&w->path), strerror(errno));
    }
    while (!w->full && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        AT_TRY(visit(w, e->d_name, depth));
    }
out:
    closedir(d);
    return st;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

at_status at_list_files(const char *dir, bool recursive, size_t max, at_list *out)
{
    at_status st = AT_OK;
    walk w = {.recursive = recursive, .max = max};
    struct stat info;

    *out = (at_list){0};
    at_str_append(&w.path, dir);
    while (w.path.len > 1 && w.path.data[w.path.len - 1] == '/')
        w.path.data[--w.path.len] = '\0';
    if (w.path.failed) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory to list it", dir));
    w.root_len = w.path.len + 1;
    if (stat(dir, &info) == 0) {
        w.dev[0] = info.st_dev;
        w.ino[0] = info.st_ino;
    }
    AT_TRY(walk_dir(&w, 1));
    if (w.full) at_log(AT_WARN, "FILE-LIST-FULL", "%s: only %zu files are listed", dir, max);
    if (w.list.count) qsort(w.list.items, w.list.count, sizeof *w.list.items, by_bytes);
    *out = w.list;
    w.list = (at_list){0};
out:
    at_list_free(&w.list);
    at_str_free(&w.path);
    return st;
}

void at_list_free(at_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        at_free(l->items[i]);
    at_free(l->items);
    *l = (at_list){0};
}
