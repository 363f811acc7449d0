// SPDX-License-Identifier: Apache-2.0
// known.c - a table of measured steps and its file. See known.h.
// Easy to get wrong: several processes may keep the same file. Each writes what it knows; the last one wins, and what
// the others knew is measured again.
#include "par/known.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { MOST = 512, MOST_BYTES = 64 << 10 };

typedef struct entry {
    uint64_t key;
    at_par_known known;
} entry;

struct at_par_memory {
    pthread_mutex_t lock;
    char *path, *title;
    entry entries[MOST];
    int n, oldest; // the next one to go when all are taken
};

static uint64_t hash_of(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

static void keep(at_par_memory *m, uint64_t key, const at_degrees *degrees, double step)
{
    entry *e = NULL;

    for (int i = 0; i < m->n && !e; i++)
        if (m->entries[i].key == key && at_degrees_same(&m->entries[i].known.degrees, degrees))
            e = &m->entries[i];
    if (!e && m->n < MOST) e = &m->entries[m->n++];
    if (!e) {
        e = &m->entries[m->oldest];
        m->oldest = (m->oldest + 1) % MOST;
    }
    *e = (entry){key, {*degrees, step}};
}

// --- the file ------------------------------------------------------------------------------------
static bool sane(double step)
{
    return step > 1e-7 && step < 1e6;
}

static bool parse_line(at_par_memory *m, const char *line)
{
    char *rest = NULL, *end = NULL;
    at_degrees degrees;
    uint64_t key = strtoull(line, &rest, 16);
    double step = rest != line && *rest == ' ' ? strtod(rest, &end) : 0;

    if (!end || *end != ' ' || !sane(step) || at_degrees_parse(end + 1, &degrees) != AT_OK)
        return false;
    keep(m, key, &degrees, step);
    return true;
}

static bool parse(at_par_memory *m, char *text)
{
    char *line = strchr(text, '\n');

    if (!line) return false;
    *line++ = '\0';
    if (strcmp(text, m->title) != 0) return false;
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        if (!parse_line(m, line)) return false;
    }
    return *line == '\0';
}

static void read_file(at_par_memory *m)
{
    char *text = NULL;
    size_t bytes = 0;

    if (!m->path || !at_path_exists(m->path)) return;
    if (at_file_read(m->path, MOST_BYTES, &text, &bytes) != AT_OK || strlen(text) != bytes ||
        !parse(m, text)) {
        at_log(AT_INFO, "PARALLEL-KNOWN", "%s: not of these devices; it is made anew", m->path);
        m->n = 0;
    }
    at_free(text);
}

static void write_file(const at_par_memory *m)
{
    at_status st = AT_OK;
    at_atomic_file *file = NULL;
    at_str text = {0};
    char degrees[96], *dir = at_path_dir(m->path);

    at_str_printf(&text, "%s\n", m->title);
    for (int i = 0; i < m->n; i++)
        at_str_printf(&text, "%016llx %.6e %s\n", (unsigned long long)m->entries[i].key,
                      m->entries[i].known.step,
                      at_degrees_text(&m->entries[i].known.degrees, degrees));
    if (!dir || text.failed) AT_TRY(at_fail(AT_ENOMEM, "no memory for it"));
    AT_TRY(at_make_dirs(dir));
    AT_TRY(at_atomic_open(m->path, &file));
    AT_TRY(at_atomic_write(file, at_str_text(&text), strlen(at_str_text(&text))));
    AT_TRY(at_atomic_commit(&file));
out:
    if (st != AT_OK) at_log(AT_INFO, "PARALLEL-KNOWN", "not kept: %s", at_error_text());
    at_atomic_abort(&file);
    at_str_free(&text);
    at_free(dir);
}

// --- what others call ------------------------------------------------------------------------------
at_status at_par_memory_new(const char *path, const char *title, at_par_memory **out)
{
    at_status st = AT_OK;
    at_par_memory *m = at_calloc(1, sizeof *m);

    *out = NULL;
    if (!m) return at_fail(AT_ENOMEM, "no memory for known steps");
    pthread_mutex_init(&m->lock, NULL);
    m->title = at_strdup(title);
    m->path = path ? at_strdup(path) : NULL;
    if (!m->title || (path && !m->path)) AT_TRY(at_fail(AT_ENOMEM, "no memory for known steps"));
    read_file(m);
    *out = m;
    m = NULL;
out:
    at_par_memory_free(m);
    return st;
}

void at_par_learn(at_par_memory *m, const char *key, const at_degrees *degrees, double step)
{
    if (!m || !sane(step)) return;
    pthread_mutex_lock(&m->lock);
    keep(m, hash_of(key), degrees, step);
    if (m->path) write_file(m);
    pthread_mutex_unlock(&m->lock);
}

int at_par_recall(at_par_memory *m, const char *key, at_par_known *out)
{
    uint64_t h = hash_of(key);
    int n = 0;

    if (!m) return 0;
    pthread_mutex_lock(&m->lock);
    for (int i = 0; i < m->n && n < AT_PAR_KNOWN; i++)
        if (m->entries[i].key == h) out[n++] = m->entries[i].known;
    pthread_mutex_unlock(&m->lock);
    return n;
}

void at_par_memory_free(at_par_memory *m)
{
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    at_free(m->path);
    at_free(m->title);
    at_free(m);
}
