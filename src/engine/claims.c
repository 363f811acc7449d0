// SPDX-License-Identifier: Apache-2.0
// claims.c - see claims.h. A line is a JSON array: [node, how-manieth, path, and the file's mark]; without
// a mark the file has its name to come.
#include "engine/claims.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"

enum { MOST = 64 << 20 };

struct at_claims {
    char *path;
    json_t *before; // lines of earlier runs
    json_t *counts; // {node: files that were named in this run}
    char *node, *named;
    json_int_t nth; // of `named`
};

// Most jobs write nothing, or have their folder since the first one.
static int open_lines(const char *path)
{
    enum { HOW = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC };
    int fd = open(path, HOW, 0600);
    char *dir = fd < 0 && errno == ENOENT ? at_path_dir(path) : NULL;

    if (dir && at_make_dirs(dir) == AT_OK) fd = open(path, HOW, 0600);
    at_free(dir);
    return fd;
}

// Takes v; NULL: out of memory.
static void add_line(at_claims *c, json_t *v)
{
    at_str line = {0};

    if (v) at_json_append(&line, v, AT_JSON_COMPACT);
    at_str_append(&line, "\n");
    json_decref(v);
    int fd = open_lines(c->path);
    if (fd < 0 || !v || line.failed || write(fd, line.data, line.len) != (ssize_t)line.len)
        at_log(AT_WARN, "CLAIM-WRITE", "%s: %s; after a crash the job may write a file twice",
               c->path, strerror(errno));
    if (fd >= 0) close(fd);
    at_str_free(&line);
}

static void before_rename(void *ctx, const char *path, const at_file_mark *mark)
{
    at_claims *c = ctx;
    if (!c->named || strcmp(path, c->named) != 0) return; // no file of a node
    add_line(c, json_pack("[s, I, s, I, I, I]", c->node, c->nth, path, (json_int_t)mark->inode,
                          (json_int_t)mark->written_ns, (json_int_t)mark->bytes));
}

// Of "NAME.<process>-<number>.tmp": another engine of this server may be writing the file that has this name now. One of
// a server that is gone does not count, nor one that is dead and not buried.
static bool has_writer(const char *middle)
{
    char path[64], text[512];
    long process = strtol(middle + 1, NULL, 10), parent = 0;
    char state = 'Z';

    snprintf(path, sizeof path, "/proc/%ld/stat", process);
    FILE *f = process > 0 && process != (long)getpid() ? fopen(path, "r") : NULL;
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    const char *facts = strrchr(text, ')'); // behind the program's name
    return facts && sscanf(facts, ") %c %ld", &state, &parent) == 2 && state != 'Z' &&
           parent == (long)getppid();
}

// "NAME.<process>-<number>.tmp" beside it: at_atomic_open's, cut off.
static void remove_half(const char *path)
{
    char *dir = at_path_dir(path);
    const char *base = at_path_base(path);
    DIR *d = dir ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!at_starts_with(e->d_name, base) || !at_ends_with(e->d_name, ".tmp")) continue;
        const char *middle = e->d_name + strlen(base);
        size_t n = strspn(middle, ".-0123456789");
        if (*middle != '.' || strcmp(middle + n, "tmp") != 0) continue;
        if (has_writer(middle)) continue;
        unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d) closedir(d);
    at_free(dir);
}

static void remove_halves(const json_t *lines)
{
    size_t i;
    json_t *line;
    json_array_foreach((json_t *)lines, i, line)
    {
        const char *path = json_string_value(json_array_get(line, 2));
        if (path) remove_half(path);
    }
}

static void read_lines(at_claims *c, char *text)
{
    for (char *line = text; line && *line;) {
        char *end = strchr(line, '\n');
        json_t *v = NULL;
        if (!end) return; // it was being written
        if (at_json_load(c->path, line, (size_t)(end - line), &v) == AT_OK)
            json_array_append_new(c->before, v);
        line = end + 1;
    }
}

at_status at_claims_open(const char *path, at_claims **out)
{
    at_status st = AT_OK;
    char *text = NULL;
    size_t n = 0;
    at_claims *c = at_calloc(1, sizeof *c);

    if (!c) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    c->path = at_strdup(path);
    c->before = json_array();
    c->counts = json_object();
    if (!c->path || !c->before || !c->counts) AT_TRY(at_fail(AT_ENOMEM, "%s: no memory", path));
    if (at_path_exists(path)) {
        AT_TRY(at_file_read(path, MOST, &text, &n));
        read_lines(c, text);
        remove_halves(c->before);
    }
    at_atomic_watch(before_rename, c);
    *out = c;
    c = NULL;
out:
    if (c) at_claims_close(c);
    at_free(text);
    return st;
}

void at_claims_sweep(const char *path)
{
    at_claims *c = NULL;
    if (at_claims_open(path, &c) != AT_OK) at_log(AT_WARN, "CLAIM-READ", "%s", at_error_text());
    at_claims_close(c);
    unlink(path);
}

void at_claims_close(at_claims *c)
{
    if (!c) return;
    at_atomic_watch(NULL, NULL);
    json_decref(c->before);
    json_decref(c->counts);
    at_free(c->path);
    at_free(c->node);
    at_free(c->named);
    at_free(c);
}

static bool same_folder(const char *a, const char *b)
{
    size_t n = (size_t)(at_path_base(a) - a);
    return n == (size_t)(at_path_base(b) - b) && memcmp(a, b, n) == 0;
}

// The file that an earlier run wrote as this one, if it still is that file.
static const char *written_before(const at_claims *c, const char *node, json_int_t nth,
                                  const char *path)
{
    const char *found = NULL;
    size_t i;
    json_t *line;
    json_array_foreach(c->before, i, line)
    {
        const char *whose = json_string_value(json_array_get(line, 0));
        const char *where = json_string_value(json_array_get(line, 2));
        at_file_mark m;
        if (whose && where && strcmp(whose, node) == 0 &&
            json_integer_value(json_array_get(line, 1)) == nth && same_folder(where, path) &&
            at_file_mark_of(where, &m) &&
            (json_int_t)m.inode == json_integer_value(json_array_get(line, 3)) &&
            (json_int_t)m.written_ns == json_integer_value(json_array_get(line, 4)) &&
            (json_int_t)m.bytes == json_integer_value(json_array_get(line, 5)))
            found = where;
    }
    return found;
}

char *at_claims_next(at_claims *c, const char *node, const char *path)
{
    json_int_t nth = json_integer_value(json_object_get(c->counts, node));
    const char *before = written_before(c, node, nth, path);

    json_object_set_new(c->counts, node, json_integer(nth + 1));
    at_free(c->node);
    at_free(c->named);
    c->nth = nth;
    c->node = at_strdup(node);
    c->named = at_strdup(before ? before : path);
    if (!c->node || !c->named) return NULL;
    add_line(c, json_pack("[s, I, s]", node, nth, c->named)); // for remove_half
    return at_strdup(c->named);
}
