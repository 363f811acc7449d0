// SPDX-License-Identifier: Apache-2.0
// journal.c - see journal.h. Shapes: comfyui-contract 1.9.
#include "serve/journal.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"

enum { LINES = 300, SUBSCRIBERS = 64 };

typedef struct line {
    char time[32];
    char *text; // with its line break
} line;

typedef struct subscriber {
    char *client, *user; // client NULL: nobody; user NULL: users are not kept apart
} subscriber;

struct at_journal {
    bool json;
    pthread_mutex_t lock;
    line lines[LINES]; // a ring
    size_t first, count;
    size_t fresh; // lines at the end that the subscribers have not heard
    subscriber subscribers[SUBSCRIBERS];
    void (*wake)(void *ctx);
    void *ctx;
};

static void stamp(char out[32])
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", localtime_r(&now.tv_sec, &tm));
    snprintf(out + n, 32 - n, ".%06ld", now.tv_nsec / 1000);
}

static const char *const levels[] = {"debug", "info", "warning", "error"};

// What came from outside stays inside its line: a line break is followed by blanks, other control characters and
// what is no UTF-8 become '?'.
static char *tame(const char *text)
{
    at_str s = {0};
    bool valid = at_utf8_valid(text, strlen(text));
    at_str_append(&s, "");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '\n')
            at_str_append(&s, "\n    ");
        else
            at_str_append_n(
                &s, (c < 32 && c != '\t') || c == 127 || (!valid && c > 127) ? "?" : text, 1);
    }
    return at_str_take(&s);
}

static void write_json(const char *time, at_log_level level, const char *id, const char *text)
{
    at_str s = {0};
    json_t *row = json_pack("{s:s, s:s, s:s, s:s}", "time", time, "level", levels[level], "id", id,
                            "text", text);
    if (row) at_json_append(&s, row, AT_JSON_COMPACT);
    json_decref(row);
    fprintf(stderr, "%s\n", s.failed ? "{\"id\":\"LOG-MEMORY\"}" : at_str_text(&s));
    at_str_free(&s);
}

static void keep(void *ctx, at_log_level level, const char *id, const char *text)
{
    at_journal *j = ctx;
    char *tamed = tame(text), time[32];
    char *whole = tamed ? at_strprintf("%s: %s: %s\n", levels[level], id, tamed) : NULL;

    stamp(time);
    if (j->json && tamed)
        write_json(time, level, id, tamed);
    else if (tamed)
        fprintf(stderr, "%s: %s: %s\n", levels[level], id, tamed);
    at_free(tamed);
    if (!whole) return;
    pthread_mutex_lock(&j->lock);
    if (j->count == LINES) {
        at_free(j->lines[j->first].text);
        j->first = (j->first + 1) % LINES;
        j->count--;
    }
    line *l = &j->lines[(j->first + j->count++) % LINES];
    memcpy(l->time, time, sizeof time);
    l->text = whole;
    if (j->fresh < LINES) j->fresh++;
    bool heard = false;
    for (int i = 0; i < SUBSCRIBERS; i++)
        heard = heard || j->subscribers[i].client;
    pthread_mutex_unlock(&j->lock);
    if (heard) j->wake(j->ctx);
}

at_status at_journal_open(bool json, void (*wake)(void *ctx), void *ctx, at_journal **out)
{
    at_journal *j = at_calloc(1, sizeof *j);
    if (!j || pthread_mutex_init(&j->lock, NULL) != 0) {
        at_free(j);
        return at_fail(AT_ENOMEM, "server: no memory");
    }
    j->json = json;
    j->wake = wake;
    j->ctx = ctx;
    at_log_set_writer(keep, j);
    *out = j;
    return AT_OK;
}

static void unsubscribe(subscriber *s)
{
    at_free(s->client);
    at_free(s->user);
    *s = (subscriber){0};
}

static subscriber copy(const char *user, const char *client)
{
    subscriber s = {at_strdup(client), user ? at_strdup(user) : NULL};
    if (user && !s.user) unsubscribe(&s); // no memory: rather nobody than everybody
    return s;
}

void at_journal_close(at_journal *j)
{
    if (!j) return;
    at_log_set_writer(NULL, NULL); // waits for a line that is being written
    for (size_t i = 0; i < LINES; i++)
        at_free(j->lines[i].text);
    for (int i = 0; i < SUBSCRIBERS; i++)
        unsubscribe(&j->subscribers[i]);
    pthread_mutex_destroy(&j->lock);
    at_free(j);
}

static json_t *last(const at_journal *j, size_t n)
{
    json_t *all = json_array();
    for (size_t i = j->count - n; all && i < j->count; i++) {
        const line *l = &j->lines[(j->first + i) % LINES];
        json_t *e = json_pack("{s:s, s:s}", "t", l->time, "m", l->text);
        if (e) json_array_append_new(all, e); // NULL: the text is no UTF-8
    }
    return all;
}

json_t *at_journal_entries(at_journal *j)
{
    pthread_mutex_lock(&j->lock);
    json_t *all = last(j, j->count);
    pthread_mutex_unlock(&j->lock);
    return all;
}

void at_journal_subscribe(at_journal *j, const char *user, const char *client, bool enabled)
{
    int place = -1;
    pthread_mutex_lock(&j->lock);
    for (int i = 0; i < SUBSCRIBERS; i++) {
        subscriber *s = &j->subscribers[i];
        bool same = s->client && strcmp(s->client, client) == 0 && !s->user == !user &&
                    (!user || strcmp(s->user, user) == 0);
        if (same) unsubscribe(s);
        if (!s->client) place = i;
    }
    if (enabled) {
        if (place < 0) place = 0; // the first one has gone long ago, as a rule
        unsubscribe(&j->subscribers[place]);
        j->subscribers[place] = copy(user, client);
    }
    pthread_mutex_unlock(&j->lock);
}

void at_journal_flush(at_journal *j, at_hub *h)
{
    subscriber to[SUBSCRIBERS];
    int n = 0;

    pthread_mutex_lock(&j->lock);
    size_t fresh = j->fresh < j->count ? j->fresh : j->count;
    json_t *entries = fresh ? last(j, fresh) : NULL;
    j->fresh = 0;
    for (int i = 0; entries && i < SUBSCRIBERS; i++)
        if (j->subscribers[i].client) {
            to[n] = copy(j->subscribers[i].user, j->subscribers[i].client);
            n += to[n].client != NULL;
        }
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < n; i++) { // without our lock: posting may log
        at_hub_post(h, to[i].user, to[i].client, "logs",
                    json_pack("{s:O, s:n}", "entries", entries, "size"), true);
        unsubscribe(&to[i]);
    }
    json_decref(entries);
}
