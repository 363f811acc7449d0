// SPDX-License-Identifier: Apache-2.0
// fake_nccl.c - libnccl.so.2 as far as cuda/channel.c calls it, played between threads of one process.
// Idea: what is asked for waits in its communicator; CommGetAsyncError moves it on when the other side is there.
// So a rank that never comes leaves the others in progress for ever, as the real one does without its abort.
// What it cannot show: kernels, streams, networks. Owns: worlds live as long as a rank of them.
#include "fake_nccl.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, WRONG = 4, USAGE = 5, BUSY = 7, RANKS = 8, PENDING = 32 };

fake_nccl_state fake_nccl = {.version = 22803};

typedef struct fake_id {
    char bytes[128];
} fake_id;

typedef struct operation {
    char kind; // 's', 'r', '+'; 0: done
    const void *from;
    void *to;
    size_t bytes;
    int peer;
    unsigned turn; // of sends and receives between two ranks, or of sums
} operation;

typedef struct fake_comm fake_comm;
typedef struct world {
    struct world *next;
    int id, size, joined, left;
    fake_comm *ranks[RANKS];
} world;

struct fake_comm {
    world *w;
    int rank;
    int dead; // aborted: whoever still has it may not use it
    atomic_int inside;
    operation ops[PENDING];
    unsigned sent[RANKS], received[RANKS], summed;
};

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static world *g_worlds;
static int g_ids;
static _Thread_local int t_group;

static void crime(void)
{
    atomic_fetch_add(&fake_nccl.crimes, 1);
}

static void enter(fake_comm *c)
{
    if (atomic_fetch_add(&c->inside, 1) != 0) crime();
    pthread_mutex_lock(&g_lock);
    if (c->dead) crime();
}

static int leave(fake_comm *c, int result)
{
    pthread_mutex_unlock(&g_lock);
    atomic_fetch_sub(&c->inside, 1);
    return result;
}

int ncclGetVersion(int *version);
int ncclGetVersion(int *version)
{
    *version = fake_nccl.version;
    return OK;
}

int ncclGetUniqueId(fake_id *id);
int ncclGetUniqueId(fake_id *id)
{
    const char *multicast = getenv("NCCL_NVLS_ENABLE");

    if (!multicast || strcmp(multicast, "0") != 0) crime();
    memset(id, 0, sizeof *id);
    pthread_mutex_lock(&g_lock);
    g_ids++;
    memcpy(id->bytes, &g_ids, sizeof g_ids);
    pthread_mutex_unlock(&g_lock);
    return OK;
}

typedef struct settings {
    size_t size;
    int magic, version, blocking;
} settings;

int ncclCommInitRankConfig(void **out, int size, fake_id id, int rank, const settings *s);
int ncclCommInitRankConfig(void **out, int size, fake_id id, int rank, const settings *s)
{
    world *w;
    int number;
    fake_comm *c;

    memcpy(&number, id.bytes, sizeof number);
    if (s->magic != (int)0xcafebeef || s->blocking != 0 || size > RANKS || rank >= size)
        return WRONG;
    c = calloc(1, sizeof *c);
    pthread_mutex_lock(&g_lock);
    for (w = g_worlds; w && w->id != number; w = w->next)
        ;
    if (!w) {
        w = calloc(1, sizeof *w);
        w->id = number;
        w->size = size;
        w->next = g_worlds;
        g_worlds = w;
    }
    if (w->ranks[rank] || w->size != size) crime();
    c->w = w;
    c->rank = rank;
    w->ranks[rank] = c;
    w->joined++;
    pthread_mutex_unlock(&g_lock);
    atomic_fetch_add(&fake_nccl.live, 1);
    atomic_fetch_add(&fake_nccl.made, 1);
    *out = c;
    return BUSY;
}

static operation *waiting(fake_comm *c, char kind, int peer, unsigned turn)
{
    for (int i = 0; c && !c->dead && i < PENDING; i++)
        if (c->ops[i].kind == kind && c->ops[i].peer == peer && c->ops[i].turn == turn)
            return &c->ops[i];
    return NULL;
}

static void receive(fake_comm *c, operation *o)
{
    operation *s = waiting(c->w->ranks[o->peer], 's', c->rank, o->turn);

    if (!s) return;
    if (s->bytes != o->bytes) crime();
    memcpy(o->to, s->from, o->bytes < s->bytes ? o->bytes : s->bytes);
    s->kind = o->kind = 0;
}

static void add(fake_comm *c, operation *o)
{
    operation *all[RANKS];

    for (int i = 0; i < c->w->size; i++) {
        all[i] = waiting(c->w->ranks[i], '+', 0, o->turn);
        if (!all[i]) return;
    }
    for (size_t k = 0; k < o->bytes / sizeof(float); k++) {
        float sum = 0;

        for (int i = c->w->size - 1; i >= 0; i--) // not our order
            sum += ((const float *)all[i]->from)[k];
        for (int i = 0; i < c->w->size; i++)
            ((float *)all[i]->to)[k] = sum;
    }
    for (int i = 0; i < c->w->size; i++)
        all[i]->kind = 0;
}

int ncclCommGetAsyncError(void *comm, int *state);
int ncclCommGetAsyncError(void *comm, int *state)
{
    fake_comm *c = comm;

    enter(c);
    *state = c->w->joined < c->w->size ? BUSY : OK;
    for (int i = 0; i < PENDING && *state == OK; i++) {
        if (c->ops[i].kind == 'r') receive(c, &c->ops[i]);
        if (c->ops[i].kind == '+') add(c, &c->ops[i]);
    }
    for (int i = 0; i < PENDING; i++)
        if (c->ops[i].kind) *state = BUSY;
    return leave(c, OK);
}

int ncclCommAbort(void *comm);
int ncclCommAbort(void *comm)
{
    fake_comm *c = comm;
    world *w = c->w, **at = &g_worlds;

    enter(c);
    c->dead = 1;
    w->left++;
    atomic_fetch_sub(&fake_nccl.live, 1);
    atomic_fetch_sub(&c->inside, 1); // before the lock goes: the last one out frees this one too
    if (w->left == w->joined) { // nobody of it is left; who comes later finds a world of its own
        while (*at != w)
            at = &(*at)->next;
        *at = w->next;
        for (int i = 0; i < w->size; i++)
            free(w->ranks[i]);
        free(w);
    }
    pthread_mutex_unlock(&g_lock);
    return BUSY;
}

int ncclGroupStart(void);
int ncclGroupStart(void)
{
    t_group++;
    return OK;
}

int ncclGroupEnd(void);
int ncclGroupEnd(void)
{
    if (--t_group < 0) crime();
    return BUSY;
}

static int put(fake_comm *c, operation o)
{
    for (int i = 0; i < PENDING; i++) {
        if (c->ops[i].kind) continue;
        c->ops[i] = o;
        return OK;
    }
    return USAGE;
}

int ncclSend(const void *from, size_t n, int type, int peer, void *comm, void *stream);
int ncclSend(const void *from, size_t n, int type, int peer, void *comm, void *stream)
{
    fake_comm *c = comm;

    (void)stream;
    if (type != 1 || !t_group) crime();
    if (atomic_load(&fake_nccl.fail_at) && atomic_fetch_sub(&fake_nccl.fail_at, 1) == 1)
        return USAGE;
    enter(c);
    return leave(c, put(c, (operation){'s', from, NULL, n, peer, c->sent[peer]++}));
}

int ncclRecv(void *to, size_t n, int type, int peer, void *comm, void *stream);
int ncclRecv(void *to, size_t n, int type, int peer, void *comm, void *stream)
{
    fake_comm *c = comm;

    (void)stream;
    if (type != 1 || !t_group) crime();
    enter(c);
    return leave(c, put(c, (operation){'r', NULL, to, n, peer, c->received[peer]++}));
}

int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm, void *stream);
int ncclAllReduce(const void *from, void *to, size_t n, int type, int op, void *comm, void *stream)
{
    fake_comm *c = comm;

    (void)stream;
    if (type != 7 || op != 0) crime();
    enter(c);
    int e = put(c, (operation){'+', from, to, n * sizeof(float), 0, c->summed++});
    return leave(c, e == OK ? BUSY : e);
}

const char *ncclGetErrorString(int result);
const char *ncclGetErrorString(int result)
{
    return result == USAGE ? "invalid usage" : "an error";
}
