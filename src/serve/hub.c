// SPDX-License-Identifier: Apache-2.0
// hub.c - sessions and posts; see hub.h. Source of the messages: comfyui-contract section 2.
#include "serve/hub.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"

enum { QUIET_BYTES = 4 << 20, CLOSE_BYTES = 32 << 20 }; // waiting for one client

size_t at_max_upload_bytes = (size_t)100 << 20;

typedef struct post {
    char *user, *client;         // NULL: everybody
    at_message *message, *plain; // plain NULL: the same for all
    struct post *next;
} post;

typedef struct current {
    char *user, *client, *node;
} current;

struct at_hub {
    pthread_mutex_t lock; // of posts and of what a client that comes back is told
    post *first, **last;
    current current[AT_HUB_LANES];
    void (*wake)(void *ctx);
    void *ctx;
    at_session *sessions; // loop thread
    atomic_size_t session_count;
};

// --- messages ----------------------------------------------------------------------------------------
at_message *at_message_new(const void *bytes, size_t n, bool binary)
{
    at_message *m = at_alloc(sizeof *m + AT_MESSAGE_ROOM + n + 1);
    if (!m) return NULL;
    *m = (at_message){.refs = 1, .binary = binary, .bytes = n};
    m->data = (unsigned char *)(m + 1) + AT_MESSAGE_ROOM;
    if (bytes) memcpy(m->data, bytes, n);
    m->data[n] = 0;
    return m;
}
at_message *at_message_retain(at_message *m)
{
    if (m) atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}
void at_message_release(at_message *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) at_free(m);
}

static at_message *json_message(const char *type, json_t *data)
{
    at_str s = {0};
    at_message *m = NULL;
    at_str_printf(&s, "{\"type\": \"%s\", \"data\": ", type);
    if (data)
        at_json_append(&s, data, 0);
    else
        s.failed = true;
    at_str_append(&s, "}");
    if (!s.failed) m = at_message_new(s.data, s.len, false);
    at_str_free(&s);
    json_decref(data);
    return m;
}

// --- posting -----------------------------------------------------------------------------------------
static void put_post(at_hub *h, const char *user, const char *client, at_message *m,
                     at_message *plain)
{
    post *p = at_calloc(1, sizeof *p);
    char *to = client ? at_strdup(client) : NULL, *whose = user ? at_strdup(user) : NULL;
    if (!p || !m || (client && !to) || (user && !whose)) {
        at_log(AT_WARN, "HUB-MEMORY", "no memory: a message to the clients is left out");
        at_free(p);
        at_free(to);
        at_free(whose);
        at_message_release(m);
        at_message_release(plain);
        return;
    }
    *p = (post){whose, to, m, plain, NULL};
    pthread_mutex_lock(&h->lock);
    bool first = !h->first;
    *h->last = p;
    h->last = &p->next;
    pthread_mutex_unlock(&h->lock);
    if (first) h->wake(h->ctx);
}

void at_hub_post(at_hub *h, const char *user, const char *client, const char *type, json_t *data,
                 bool droppable)
{
    if (!at_hub_sessions(h)) { // nobody hears it; who joins now is told the state by the join
        json_decref(data);
        return;
    }
    at_message *m = json_message(type, data);
    if (m) m->droppable = droppable;
    put_post(h, user, client, m, NULL);
}

void at_hub_post_picture(at_hub *h, const char *user, const char *client, at_message *with_metadata,
                         at_message *plain)
{
    if (at_hub_sessions(h)) {
        put_post(h, user, client, with_metadata, plain);
        return;
    }
    at_message_release(with_metadata);
    at_message_release(plain);
}

static json_t *status_data(size_t remaining, const char *sid)
{
    json_t *data =
        json_pack("{s:{s:{s:I}}}", "status", "exec_info", "queue_remaining", (json_int_t)remaining);
    if (data && sid) json_object_set_new(data, "sid", json_string(sid));
    return data;
}

void at_hub_post_status(at_hub *h, size_t remaining)
{
    at_hub_post(h, NULL, NULL, "status", status_data(remaining, NULL), false);
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void drop_current(current *c)
{
    at_free(c->user);
    at_free(c->client);
    at_free(c->node);
}

void at_hub_set_current(at_hub *h, int lane, const char *user, const char *client, const char *node)
{
    current now = {user ? at_strdup(user) : NULL, client ? at_strdup(client) : NULL,
                   node ? at_strdup(node) : NULL};
    pthread_mutex_lock(&h->lock);
    current old = h->current[lane];
    h->current[lane] = now;
    pthread_mutex_unlock(&h->lock);
    drop_current(&old);
}

// Under the lock: what runs for this client, as a message's data; NULL: nothing does.
static json_t *current_of(const at_hub *h, const char *user, const char *id)
{
    for (int i = 0; i < AT_HUB_LANES; i++) {
        const current *c = &h->current[i];
        if (c->client && c->node && strcmp(c->client, id) == 0 && same(c->user, user))
            return json_pack("{s:s}", "node", c->node);
    }
    return NULL;
}

size_t at_hub_sessions(at_hub *h)
{
    return atomic_load(&h->session_count);
}

// --- sessions ----------------------------------------------------------------------------------------
static bool push(at_session *s, at_message *m)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 8;
        at_message **grown = at_alloc(cap * sizeof *grown);
        if (!grown) return false;
        for (size_t i = 0; i < s->count; i++)
            grown[i] = s->line[(s->head + i) % s->cap];
        at_free(s->line);
        s->line = grown;
        s->cap = cap;
        s->head = 0;
    }
    s->line[(s->head + s->count++) % s->cap] = at_message_retain(m);
    s->waiting_bytes += m->bytes;
    return true;
}

static void say(at_session *s, at_message *m)
{
    if (s->overrun || (m->droppable && s->waiting_bytes > QUIET_BYTES)) return;
    if (s->waiting_bytes + m->bytes > CLOSE_BYTES || !push(s, m)) s->overrun = true;
}

static void say_json(at_session *s, const char *type, json_t *data)
{
    at_message *m = json_message(type, data);
    if (m)
        say(s, m);
    else
        s->overrun = true;
    at_message_release(m);
}

at_message *at_session_next(at_session *s)
{
    if (!s->count) return NULL;
    at_message *m = s->line[s->head];
    s->head = (s->head + 1) % s->cap;
    s->count--;
    s->waiting_bytes -= m->bytes;
    return m;
}

static void session_free(at_session *s)
{
    for (at_message *m; (m = at_session_next(s));)
        at_message_release(m);
    at_free(s->line);
    at_free(s->user);
    at_free(s->id);
    at_free(s);
}

at_session *at_hub_join(at_hub *h, const char *user, const char *id, void *socket, size_t remaining)
{
    char made[37];
    at_session *s = at_calloc(1, sizeof *s);
    if (!id || !*id) at_uuid(made, false), id = made;
    if (s) s->id = at_strdup(id);
    if (s && user) s->user = at_strdup(user);
    if (!s || !s->id || (user && !s->user)) {
        if (s) at_free(s->id);
        at_free(s);
        return NULL;
    }
    s->socket = socket;
    for (at_session *o = h->sessions; o; o = o->next)
        if (strcmp(o->id, id) == 0 && same(o->user, user)) o->superseded = true;
    s->next = h->sessions;
    h->sessions = s;
    atomic_fetch_add(&h->session_count, 1);
    say_json(s, "status", status_data(remaining, s->id));
    pthread_mutex_lock(&h->lock);
    json_t *node = current_of(h, user, id);
    pthread_mutex_unlock(&h->lock);
    if (node) say_json(s, "executing", node);
    return s;
}

void at_hub_leave(at_hub *h, at_session *s)
{
    for (at_session **p = &h->sessions; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            atomic_fetch_sub(&h->session_count, 1);
            session_free(s);
            return;
        }
}

void at_hub_heard(at_hub *h, at_session *s, const char *text, size_t n)
{
    (void)h;
    json_t *v = NULL;
    if (s->heard) return;
    if (at_json_load("WebSocket message", text, n, &v) != AT_OK) {
        at_log(AT_INFO, "WS-JSON", "%s", at_error_text());
        return;
    }
    s->heard = true;
    const char *type = json_string_value(json_object_get(v, "type"));
    if (type && strcmp(type, "feature_flags") == 0) {
        json_t *flags = json_object_get(v, "data");
        s->previews_with_metadata =
            json_is_true(json_object_get(flags, "supports_preview_metadata"));
        say_json(s, "feature_flags", at_server_features());
    }
    json_decref(v);
}

// In ComfyUI a broadcast goes to the table of ids: a superseded socket hears nothing any more.
void at_hub_deliver(at_hub *h, void (*ready)(void *ctx, at_session *s), void *ctx)
{
    pthread_mutex_lock(&h->lock);
    post *p = h->first, *next;
    h->first = NULL;
    h->last = &h->first;
    pthread_mutex_unlock(&h->lock);
    for (; p; p = next) {
        next = p->next;
        for (at_session *s = h->sessions; s; s = s->next) {
            if (s->superseded || (p->client && strcmp(p->client, s->id) != 0)) continue;
            if (p->user && !same(p->user, s->user)) continue;
            say(s, p->plain && !s->previews_with_metadata ? p->plain : p->message);
        }
        at_message_release(p->message);
        at_message_release(p->plain);
        at_free(p->client);
        at_free(p->user);
        at_free(p);
    }
    for (at_session *s = h->sessions; s; s = s->next)
        if (s->count || s->overrun) ready(ctx, s);
}

at_status at_hub_new(void (*wake)(void *ctx), void *ctx, at_hub **out)
{
    at_hub *h = at_calloc(1, sizeof *h);
    if (!h || pthread_mutex_init(&h->lock, NULL) != 0) {
        at_free(h);
        return at_fail(AT_ENOMEM, "server: no memory");
    }
    h->last = &h->first;
    h->wake = wake;
    h->ctx = ctx;
    *out = h;
    return AT_OK;
}

static void nobody(void *ctx, at_session *s)
{
    (void)ctx, (void)s;
}

void at_hub_free(at_hub *h)
{
    if (!h) return;
    while (h->sessions)
        at_hub_leave(h, h->sessions);
    at_hub_deliver(h, nobody, NULL); // frees what was never sent
    for (int i = 0; i < AT_HUB_LANES; i++)
        drop_current(&h->current[i]);
    pthread_mutex_destroy(&h->lock);
    at_free(h);
}

json_t *at_server_features(void)
{
    return json_pack("{s:b, s:I}", "supports_preview_metadata", 1, "max_upload_size",
                     (json_int_t)at_max_upload_bytes);
}

static void draw(unsigned char b[16])
{
    static _Thread_local unsigned char
        pool[1024]; // of the kernel's random bytes: a call a job is dear
    static _Thread_local size_t left;

    if (left < 16) {
        if (getrandom(pool, sizeof pool, 0) != sizeof pool) memset(pool, 0, sizeof pool);
        left = sizeof pool;
    }
    left -= 16;
    memcpy(b, pool + left, 16);
}

static void write_uuid(char out[37], const unsigned char b[16], bool dashes)
{
    static const char digits[] = "0123456789abcdef";
    size_t len = 0;
    for (int i = 0; i < 16; i++) {
        if (dashes && (i == 4 || i == 6 || i == 8 || i == 10)) out[len++] = '-';
        out[len++] = digits[b[i] >> 4];
        out[len++] = digits[b[i] & 15];
    }
    out[len] = 0;
}

void at_uuid(char out[37], bool dashes)
{
    unsigned char b[16];
    draw(b);
    b[6] = (unsigned char)((b[6] & 15) | 64); // version 4, variant 1 (RFC 9562)
    b[8] = (unsigned char)((b[8] & 63) | 128);
    write_uuid(out, b, dashes);
}

void at_uuid_of_job(char out[37])
{
    unsigned char b[16];
    struct timespec t;

    draw(b);
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    uint64_t part = (uint64_t)t.tv_nsec % 1000000 * 4096 / 1000000; // of the millisecond
    for (int i = 0; i < 6; i++)
        b[i] = (unsigned char)(ms >> (40 - 8 * i));
    b[6] = (unsigned char)(part >> 8 | 0x70); // version 7, its method 3
    b[7] = (unsigned char)part;
    b[8] = (unsigned char)((b[8] & 63) | 128);
    write_uuid(out, b, true);
}
