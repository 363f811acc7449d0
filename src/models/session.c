// SPDX-License-Identifier: Apache-2.0
// session.c - keys, entries, rows of all steps, and recordings. See session.h.
// The first evaluation at a shape runs as always (it makes weights resident and plans), the second
// is recorded, all others are replays.
#include "models/session.h"

#include <pthread.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "models/denoiser.h"
#include "tensor/device_trace.h"

enum { MAX_REFS = 4, MAX_ENTRIES = 4, MAX_ROWS = 256 }; // entries: of one rank

// Zeroed before it is filled: compared as bytes.
typedef struct key {
    at_device *device;
    int64_t x[4], context[3], concat[4], refs[MAX_REFS][4];
    int compute, leave, context_dtype, concat_dtype, n_refs, ref_method, no_guidance;
    int rank, degrees[AT_AXES]; // of those who meet inside the forward
    int stale, patches, place;  // approximate ways: one entry for each conditioning of a run
} key;

typedef struct entry {
    struct entry *next;
    key k;
    bool busy, broken; // broken: recording failed once, and would again
    uint64_t used;     // when, for the one to go
    int calls;
    at_tensor *tables[AT_MADE_TABLES];
    bool has_tables;
    // Rows of prepare for the steps from rows_first on, batch after batch.
    at_tensor *rows;
    uint64_t rows_key;
    size_t rows_first, rows_count;
    // Of approximate ways: what attention keeps, and evaluations of the run held_key that have kept it.
    at_held *held;
    uint64_t held_key;
    int kept;
    at_tensor *text; // of the text hook, in the run text_key
    uint64_t text_key;
    // The recording and what it reads and writes.
    void *recording;
    unsigned long moved; // the device's count when it was made
    at_tensor *x, *context, *concat, *refs[MAX_REFS], *cond, *out,
        *last;         // last: an encoder's second result
    at_ops_stats work; // of one replay
} entry;

struct at_sessions {
    struct at_sessions *next, *before; // of all models
    entry *entries;
};

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER; // over everything but busy entries
static at_sessions *g_all;
static uint64_t g_clock;
static bool g_record = true;

void at_sessions_record(bool yes)
{
    pthread_mutex_lock(&g_lock);
    g_record = yes;
    pthread_mutex_unlock(&g_lock);
}

// --- entries -----------------------------------------------------------------------------------
static void drop_recording(entry *e)
{
    if (e->recording) e->k.device->ops->recording_free(e->k.device, e->recording);
    e->recording = NULL;
    at_tensor_release(&e->x);
    at_tensor_release(&e->context);
    at_tensor_release(&e->concat);
    for (int i = 0; i < MAX_REFS; i++)
        at_tensor_release(&e->refs[i]);
    at_tensor_release(&e->cond);
    at_tensor_release(&e->out);
    at_tensor_release(&e->last);
}

static void entry_free(entry *e)
{
    drop_recording(e);
    for (int i = 0; i < AT_MADE_TABLES; i++)
        at_tensor_release(&e->tables[i]);
    at_tensor_release(&e->rows);
    at_tensor_release(&e->text);
    at_held_free(e->held);
    at_free(e);
}

// Unlinks and frees idle entries on `d` (NULL: on any device). Locked.
static int drop_idle(at_sessions *s, at_device *d)
{
    int n = 0;
    for (entry **at = &s->entries; *at;) {
        entry *e = *at;
        if (e->busy || (d && e->k.device != d)) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        n++;
        entry_free(e);
    }
    return n;
}

// Ranks that are threads have one device in common.
static bool beside(const entry *e, const key *k)
{
    return e->k.device == k->device && e->k.rank == k->rank;
}

static void drop_oldest(at_sessions *s, const key *k)
{
    entry *oldest = NULL;
    for (entry *e = s->entries; e; e = e->next)
        if (!e->busy && beside(e, k) && (!oldest || e->used < oldest->used)) oldest = e;
    for (entry **at = &s->entries; *at && oldest; at = &(*at)->next)
        if (*at == oldest) {
            *at = oldest->next;
            entry_free(oldest);
            return;
        }
}

static at_sessions *sessions_of(at_bound *m)
{
    if (m->sessions) return m->sessions;
    at_sessions *s = at_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->next = g_all;
    if (g_all) g_all->before = s;
    return m->sessions = g_all = s;
}

static int count_of(const at_sessions *s, const key *k)
{
    int n = 0;
    for (const entry *e = s->entries; e; e = e->next)
        n += beside(e, k);
    return n;
}

// The entry of this shape for this thread, or NULL: somebody else is at it, or there is no memory.
static entry *enter(at_bound *m, const key *k)
{
    entry *e = NULL;
    pthread_mutex_lock(&g_lock);
    at_sessions *s = sessions_of(m);
    for (e = s ? s->entries : NULL; e; e = e->next)
        // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): padding is zeroed with the rest
        if (memcmp(&e->k, k, sizeof *k) == 0) break;
    if (e && e->busy) {
        e = NULL;
    } else if (s && !e) {
        if (count_of(s, k) >= MAX_ENTRIES) drop_oldest(s, k);
        e = at_calloc(1, sizeof *e);
        if (e) {
            e->k = *k;
            e->next = s->entries;
            s->entries = e;
        }
    }
    if (e) {
        e->busy = true;
        e->used = ++g_clock;
    }
    pthread_mutex_unlock(&g_lock);
    return e;
}

static void leave(entry *e)
{
    if (!e) return;
    pthread_mutex_lock(&g_lock);
    e->busy = false;
    pthread_mutex_unlock(&g_lock);
}

void at_sessions_free(at_sessions *s)
{
    if (!s) return;
    pthread_mutex_lock(&g_lock);
    if (s->next) s->next->before = s->before;
    if (s->before)
        s->before->next = s->next;
    else
        g_all = s->next;
    while (s->entries) {
        entry *e = s->entries;
        s->entries = e->next;
        entry_free(e);
    }
    pthread_mutex_unlock(&g_lock);
    at_free(s);
}

int at_sessions_reclaim(at_device *d)
{
    int n = 0;
    pthread_mutex_lock(&g_lock);
    for (at_sessions *s = g_all; s; s = s->next)
        n += drop_idle(s, d);
    pthread_mutex_unlock(&g_lock);
    return n;
}

void at_sessions_drop(at_bound *m)
{
    pthread_mutex_lock(&g_lock);
    if (m->sessions) drop_idle(m->sessions, NULL);
    pthread_mutex_unlock(&g_lock);
}

// --- keys --------------------------------------------------------------------------------------
static void shape_into(int64_t *to, const at_tensor *t, int rank)
{
    for (int i = 0; t && i < rank; i++)
        to[i] = t->shape[i];
}

// False: nothing is kept for such an evaluation.
static bool key_of(at_ops *o, const at_model_in *in, key *k)
{
    const at_mesh *mesh = at_ops_mesh(o);

    memset(k, 0, sizeof *k);
    if (in->x->rank != 4 || in->n_refs > MAX_REFS) return false;
    if (at_ops_meets(o)) {
        k->rank = mesh->world->rank;
        memcpy(k->degrees, mesh->degrees.of, sizeof k->degrees);
    }
    if (at_degrees_approximation(&mesh->degrees)) {
        k->stale = mesh->degrees.stale;
        k->patches = at_degrees_patches(&mesh->degrees);
        k->place = in->key ? at_ops_held_place(o, in->key) : -1;
    }
    if (in->concat && in->concat->rank != 4) return false;
    k->device = at_ops_device(o);
    k->compute = (int)at_ops_compute(o);
    k->leave = at_ops_leave(o);
    k->context_dtype = (int)in->context->dtype;
    k->concat_dtype = in->concat ? (int)in->concat->dtype : -1;
    k->n_refs = (int)in->n_refs;
    k->ref_method = (int)in->ref_method;
    k->no_guidance = in->no_guidance;
    shape_into(k->x, in->x, 4);
    shape_into(k->context, in->context, 3);
    shape_into(k->concat, in->concat, 4);
    for (size_t i = 0; i < in->n_refs; i++) {
        if (!in->refs[i] || in->refs[i]->rank != 4 || in->refs[i]->dtype != AT_F32) return false;
        shape_into(k->refs[i], in->refs[i], 4);
    }
    return true;
}

static void prefetch(at_ops *o, at_bound *m)
{
    const at_comm *tp = at_ops_mesh(o)->axis[AT_AXIS_TP];
    if (at_ops_mesh(o)->axis[AT_AXIS_PIPE]->size > 1)
        return; // its own blocks come when they are wanted
    at_bound_prefetch(m, at_ops_device(o), tp->rank, tp->size);
}

static void fill(at_ops *o, at_tensor *to, const at_tensor *from)
{
    if (to && from) at_unary(at_into(o, to), from, AT_ACT_NONE);
}

// --- what is made ahead ------------------------------------------------------------------------
static void make_tables(at_ops *o, const at_bound *m, const at_model_in *in, entry *e)
{
    at_tensor *t[AT_MADE_TABLES] = {0};
    if (e->has_tables || !m->arch->denoiser->tables) return;
    at_scope_begin(o);
    m->arch->denoiser->tables(o, m, in, t);
    for (int i = 0; i < AT_MADE_TABLES && at_ops_status(o) == AT_OK; i++)
        e->tables[i] = at_ops_keep(o, t[i]);
    e->has_tables = at_ops_status(o) == AT_OK;
    at_scope_end(o, NULL);
}

// The same tensor n times behind itself.
static at_tensor *repeat(at_ops *o, const at_tensor *t, size_t n)
{
    const at_tensor *parts[MAX_ROWS];
    if (!t || n == 1) return (at_tensor *)t;
    for (size_t i = 0; i < n; i++)
        parts[i] = t;
    return at_concat(o, 0, (int)n, parts);
}

// Rows of all steps from number `first` on, as many as fit.
static void make_rows(at_ops *o, const at_bound *m, const at_model_in *in, entry *e, size_t first)
{
    float timestep[MAX_ROWS], guidance[MAX_ROWS];
    size_t b = (size_t)in->x->shape[0], n = in->n_steps - first;
    at_model_in all = *in;

    if (n > MAX_ROWS / b) n = MAX_ROWS / b;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < b; j++) {
            timestep[i * b + j] = in->steps[first + i];
            guidance[i * b + j] = in->guidance ? in->guidance[j] : 0;
        }
    at_tensor_release(&e->rows);
    at_scope_begin(o);
    all.timestep = timestep;
    all.guidance = in->guidance ? guidance : NULL;
    all.pooled = repeat(o, in->pooled, n);
    e->rows = at_ops_keep(o, m->arch->denoiser->prepare(o, m, &all, (int64_t)(n * b)));
    at_scope_end(o, NULL);
    e->rows_key = in->key;
    e->rows_first = first;
    e->rows_count = n;
}

// prepare's rows for this evaluation: from the run's, where it is one of its steps.
static at_tensor *cond_of(at_ops *o, const at_bound *m, const at_model_in *in, entry *e)
{
    int64_t b = in->x->shape[0];
    size_t at = 0;

    if (!m->arch->denoiser->prepare) return NULL;
    if (e && in->key && b <= MAX_ROWS)
        while (at < in->n_steps && in->steps[at] != in->timestep[0])
            at++;
    if (!e || !in->key || b > MAX_ROWS || at == in->n_steps)
        return m->arch->denoiser->prepare(o, m, in, b);
    if (!e->rows || e->rows_key != in->key || at < e->rows_first ||
        at >= e->rows_first + e->rows_count)
        make_rows(o, m, in, e, at);
    if (!e->rows) return NULL;
    return at_narrow(o, e->rows, 0, (int64_t)(at - e->rows_first) * b, b);
}

// What the text alone decides, in a tensor that stays where it is from run to run.
static void make_text(at_ops *o, const at_bound *m, const at_model_in *in, entry *e)
{
    if (!m->arch->denoiser->text || at_patches_count(in->patches)) return;
    if (e->text && in->key && e->text_key == in->key) return;
    at_scope_begin(o);
    at_tensor *t = m->arch->denoiser->text(o, m, in);
    if (e->text)
        fill(o, e->text, t);
    else
        e->text = at_ops_keep(o, t);
    at_scope_end(o, NULL);
    e->text_key = at_ops_status(o) == AT_OK ? in->key : 0;
}

// --- recordings --------------------------------------------------------------------------------
// Ranks that meet inside a forward do the same thing with it: what all of them can do. The same bits come of
// each way, but only replays are queued without asking the others.
enum { EVALUATE, RECORD, REPLAY };

static bool may_record(at_ops *o, const at_model_in *in, const entry *e)
{
    if (!e || e->broken || !at_ops_device(o)->ops->record_begin) return false;
    return g_record && !at_trace_ops() && !in->control && !at_patches_count(in->patches);
}

static void twin(at_ops *o, at_tensor **slot, const at_tensor *t)
{
    if (t) *slot = at_ops_keep(o, at_empty(o, t->dtype, t->rank, t->shape));
}

static void fill_inputs(at_ops *o, entry *e, const at_model_in *in, const at_tensor *cond)
{
    fill(o, e->x, in->x);
    fill(o, e->context, in->context);
    fill(o, e->concat, in->concat);
    for (size_t i = 0; i < in->n_refs; i++)
        fill(o, e->refs[i], in->refs[i]);
    fill(o, e->cond, cond);
}

static at_ops_stats difference(at_ops_stats a, const at_ops_stats *b)
{
    a.flops_linear -= b->flops_linear;
    a.flops_attention -= b->flops_attention;
    a.flops_conv -= b->flops_conv;
    a.calls -= b->calls;
    a.seconds_linear = a.seconds_attention = a.seconds_conv = a.seconds_other = 0;
    return a;
}

// The forward of a recording, over the entry's own inputs into its own results.
typedef void (*body)(at_ops *o, const at_bound *m, entry *e, const void *in);

static void denoise_body(at_ops *o, const at_bound *m, entry *e, const void *in)
{
    at_made made = {.cond = e->cond, .tables = e->has_tables ? e->tables : NULL, .text = e->text};
    at_model_in own = *(const at_model_in *)in;

    own.x = e->x;
    own.context = e->context;
    own.concat = own.concat ? e->concat : NULL;
    own.refs = (const at_tensor *const *)e->refs;
    own.made = &made;
    e->out = at_ops_keep(o, at_denoiser_run(o, m, &own));
}

static void encode_body(at_ops *o, const at_bound *m, entry *e, const void *in)
{
    at_tensor *out[2] = {0};
    m->arch->encoder->run(o, m, in, e->tables[0], e->x, out);
    e->out = at_ops_keep(o, out[0]);
    e->last = at_ops_keep(o, out[1]);
}

// What `run` queues, kept by the device.
static at_status record(at_ops *o, const at_bound *m, entry *e, const void *in, body run_body)
{
    at_device *d = at_ops_device(o);
    at_ops_stats before, after;

    at_ops_stats_get(o, &before);
    d->reclaim = at_sessions_reclaim;
    at_status st = d->ops->record_begin(d), end = AT_OK;
    bool begun = st == AT_OK, all = at_ops_agree(o, begun);
    if (!begun) return st;
    at_scope_begin(o);
    if (all) run_body(o, m, e, in);
    at_scope_end(o, NULL);
    end = d->ops->record_end(d, &e->recording);
    st = all ? end : at_fail(AT_EUNSUPPORTED, "another rank cannot record");
    e->moved = atomic_load(&d->moved);
    at_ops_stats_get(o, &after);
    at_ops_stats_set(o, &before); // nothing was done yet
    e->work = difference(after, &before);
    at_status run = at_ops_status(o);
    return run != AT_OK ? run : st;
}

// What became of a recording; false where there is none (and never will be).
static bool settled(at_ops *o, const at_bound *m, entry *e, at_status st)
{
    if (st == AT_OK) return true;
    if (st != AT_ECANCELLED) {
        at_log(AT_DEBUG, "RECORD", "%s: not recorded, every step is queued anew: %s",
               m->arch->title, at_error_text());
        e->broken = true;
        if (!at_ops_meets(o)) at_ops_clear(o); // others have heard of it: this step has failed
    }
    drop_recording(e);
    return false;
}

// Makes the recording; false where that cannot be.
static bool recorded(at_ops *o, const at_bound *m, entry *e, const at_model_in *in,
                     const at_tensor *cond)
{
    if (e->recording) return true;
    twin(o, &e->x, in->x);
    twin(o, &e->context, in->context);
    twin(o, &e->concat, in->concat);
    for (size_t i = 0; i < in->n_refs; i++)
        twin(o, &e->refs[i], in->refs[i]);
    twin(o, &e->cond, cond);
    fill_inputs(o, e, in, cond);
    if (at_ops_status(o) != AT_OK) return false;
    at_status st = record(o, m, e, in, denoise_body);
    if (!at_ops_agree(o, st == AT_OK) && st == AT_OK)
        st = at_fail(AT_EUNSUPPORTED, "another rank could not record");
    return settled(o, m, e, st);
}

// A weight that the recording reads has left the device since.
static bool stale(const entry *e)
{
    return e->recording && e->moved != atomic_load(&e->k.device->moved);
}

// Queues the recording; its inputs are there.
static at_status play(at_ops *o, entry *e)
{
    at_device *d = at_ops_device(o);
    at_device_span span = at_device_span_begin(d);
    at_status st = d->ops->replay(d, e->recording);
    at_device_span_end(&span, "replay", "recorded forward");
    if (st == AT_OK) at_ops_stats_add(o, &e->work);
    return st;
}

static at_tensor *replay(at_ops *o, const at_bound *m, entry *e, const at_model_in *in,
                         const at_tensor *cond)
{
    at_tensor *out = at_empty(o, e->out->dtype, e->out->rank, e->out->shape);

    fill_inputs(o, e, in, cond);
    if (at_ops_status(o) != AT_OK) return NULL;
    if (!at_ops_agree(o, !stale(e))) return at_denoiser_run(o, m, in); // these copies took the room
    at_status st = play(o, e);
    if (st != AT_OK) return at_ops_poison(o, st, "%s", at_error_text());
    (void)at_ops_agree(o, 1); // all have queued theirs: see par/comm_peer.c
    return at_unary(at_into(o, out), e->out, AT_ACT_NONE);
}

// --- approximate ways --------------------------------------------------------------------------
// Keys and values of this run's evaluation before are there, as many exact ones as were asked for, on all ranks; and
// from here on attention keeps them. Patches decide by host code which attentions there are, and residuals of a
// ControlNet are not cut into pieces: such forwards are exact.
static bool hold(at_ops *o, entry *e, const at_model_in *in)
{
    const at_mesh *mesh = at_ops_mesh(o);
    bool may = e && e->k.place >= 0 && !at_patches_count(in->patches) && at_ops_meets(o) &&
               !(in->control && mesh->axis[AT_AXIS_PIPE]->size > 1);

    if (!at_degrees_approximation(&mesh->degrees)) return false;
    at_held *held = NULL;
    bool ready = false;
    if (may) {
        if (!e->held) e->held = at_held_new();
        if (e->held_key != in->key) e->kept = 0;
        held = e->held;
        ready = held && e->kept >= at_degrees_warmup(&mesh->degrees);
    }
    ready = at_ops_agree(o, ready);
    at_ops_hold(o, held, ready);
    if (e) e->held_key = in->key;
    return ready;
}

// What came of it: an evaluation that did not end has written some of them.
static void held(at_ops *o, entry *e)
{
    bool well = at_ops_status(o) == AT_OK;

    at_ops_hold(o, NULL, false);
    if (e) e->kept = well && e->held ? e->kept + 1 : 0;
}

// The first displaced evaluation plans the layers of its shapes; exact ones are few.
static int approximate_way(at_ops *o, const entry *e, bool displaced, int way)
{
    const at_degrees *d = &at_ops_mesh(o)->degrees;

    if (!at_degrees_approximation(d) || !e) return way;
    return displaced && e->kept > at_degrees_warmup(d) ? way : EVALUATE;
}

at_tensor *at_session_forward(at_ops *o, at_bound *m, const at_model_in *in)
{
    key k;
    entry *e = key_of(o, in, &k) ? enter(m, &k) : NULL;
    at_tensor *out = NULL;

    if (!e || e->calls == 0) prefetch(o, m);
    at_scope_begin(o);
    if (e) make_tables(o, m, in, e);
    if (e) make_text(o, m, in, e);
    at_tensor *cond = cond_of(o, m, in, e);
    at_made made = {
        .cond = cond, .tables = e && e->has_tables ? e->tables : NULL, .text = e ? e->text : NULL};
    at_model_in own = *in;
    own.made = &made;
    if (e && stale(e)) { // everything has to be resident once more first
        drop_recording(e);
        e->calls = 0;
    }
    int way = !e || !may_record(o, in, e) || e->calls == 0 ? EVALUATE
              : e->recording                               ? REPLAY
                                                           : RECORD;
    bool displaced = hold(o, e, in);
    way = at_ops_agree(o, approximate_way(o, e, displaced, way));
    if (e && way == RECORD) drop_recording(e); // the others have none
    if (at_ops_status(o) != AT_OK)
        out = NULL;
    else if (way != EVALUATE && recorded(o, m, e, in, cond))
        out = replay(o, m, e, &own, cond);
    else if (at_ops_status(o) == AT_OK)
        out = at_denoiser_run(o, m, &own);
    if (e && at_ops_status(o) == AT_OK) e->calls++;
    held(o, e);
    out = at_scope_end(o, out);
    leave(e);
    return out;
}

// --- text encoders -----------------------------------------------------------------------------
// False: nothing is kept for such a call.
static bool encode_key_of(at_ops *o, const at_encode_in *in, const at_tensor *x, key *k)
{
    memset(k, 0, sizeof *k);
    if (!at_ops_device(o)->ops->record_begin || at_ops_meets(o)) return false;
    k->device = at_ops_device(o);
    k->compute = (int)at_ops_compute(o);
    k->leave = at_ops_leave(o);
    shape_into(k->x, x, 3);
    k->concat[0] = in->layer; // they have no such input: what else tells results apart
    k->concat[1] = in->final_norm;
    k->concat[2] = in->eos >= 0;
    return true;
}

static const at_tensor *shared_of(at_ops *o, const at_bound *m, entry *e, int64_t tokens)
{
    if (!m->arch->encoder->shared) return NULL;
    if (!e) return m->arch->encoder->shared(o, m, tokens);
    if (e->has_tables) return e->tables[0];
    at_tensor_release(&e->tables[0]);
    at_scope_begin(o);
    e->tables[0] = at_ops_keep(o, m->arch->encoder->shared(o, m, tokens));
    e->has_tables = at_ops_status(o) == AT_OK;
    at_scope_end(o, NULL);
    return e->tables[0];
}

static bool encode_recorded(at_ops *o, const at_bound *m, entry *e, const at_encode_in *in,
                            const at_tensor *x)
{
    if (e->recording) return true;
    twin(o, &e->x, x);
    if (at_ops_status(o) != AT_OK) return false;
    return settled(o, m, e, record(o, m, e, in, encode_body));
}

// Queues the recording over x; false: a weight has left for x's copy.
static bool encode_replayed(at_ops *o, entry *e, const at_tensor *x, at_tensor *out[2])
{
    const at_tensor *from[] = {e->out, e->last};
    for (int i = 0; i < 2; i++)
        if (from[i]) out[i] = at_empty(o, from[i]->dtype, from[i]->rank, from[i]->shape);
    fill(o, e->x, x);
    if (at_ops_status(o) != AT_OK) return true;
    if (stale(e)) return false;
    at_status st = play(o, e);
    if (st != AT_OK) at_ops_poison(o, st, "%s", at_error_text());
    for (int i = 0; i < 2 && st == AT_OK; i++)
        if (from[i]) out[i] = at_unary(at_into(o, out[i]), from[i], AT_ACT_NONE);
    return true;
}

void at_session_encode(at_ops *o, at_bound *m, const at_encode_in *in, at_tensor *x,
                       at_tensor *out[2])
{
    key k;
    entry *e = encode_key_of(o, in, x, &k) ? enter(m, &k) : NULL;
    bool done = false;

    if (e && stale(e)) {
        drop_recording(e);
        e->calls = 0;
    }
    if (!e || e->calls == 0) prefetch(o, m);
    const at_tensor *shared = shared_of(o, m, e, x->shape[1]);
    bool may = e && e->calls > 0 && !e->broken && g_record && !at_trace_ops();
    if (may && at_ops_status(o) == AT_OK && encode_recorded(o, m, e, in, x))
        done = encode_replayed(o, e, x, out);
    if (!done && at_ops_status(o) == AT_OK) m->arch->encoder->run(o, m, in, shared, x, out);
    if (e && at_ops_status(o) == AT_OK) e->calls++;
    leave(e);
}
