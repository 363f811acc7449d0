// SPDX-License-Identifier: Apache-2.0
// weights.c - a weight's forms on the device.
// Idea: the weight's packed slot holds a short list of forms (stored bytes, converted to the
// arithmetic's format, filter layout, what a slot makes of it), each made once when first asked for.
// Forms stay until the weight dies or their room is wanted (residency.h): then they are made again
// when they are asked for again. Stored bytes may be on their way before anybody asks (prefetch).
// A part of a weight has no slot: its form lives for one call.
// The order in which weights are asked for is remembered: where a model does not fit, what comes next is
// brought into the room of what was just used, while the device computes.
// Easy to get wrong: whoever remembers a form's address (a recording) must look at dev.moved; making a
// form takes memory, and that may send other forms away, so what is being made from is busy.
// Ownership: forms belong to the list in the slot; one lock guards all lists and residencies, and is
// held for no longer than looking something up.
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "cuda/residency.h"
#include "cuda/upload.h"

enum { PLAIN = 0, FILTER = -1 }; // kinds; those of slots are above 0

typedef struct form {
    at_resident here; // first
    struct form *next;
    struct forms *list;
    at_cuda *owner;
    at_dtype dtype;
    int kind;
    bool ahead; // stored bytes that nobody has asked for yet
    at_view view;
    at_cuda_transfer transfer; // done NULL: none
} form;

typedef struct forms {
    const void *tag; // &the_tag: another backend's slot has something else here
    uint64_t serial; // no other list of this process has it
    bool
        elsewhere; // a form of another weight has been made of it too: not to be brought ahead again
    form *first;
    // A ring in the order in which weights were asked for last; before NULL: not in it.
    struct forms *before, *after;
    unsigned long asked; // the piece of work that asked for it last
    at_wview source;
} forms;

static const char the_tag;
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;

// ONCE_MORE: what was asked for so few places before is asked for again by the same layer, and is no step back.
enum { ONCE_MORE = 8 };
enum { AT_CUDA_GPUS = 16, AHEAD_BYTES = 256 << 20, LEAST_AHEAD = 128 << 20, AHEAD_WEIGHTS = 64 };
static forms *g_last[AT_CUDA_GPUS]; // what each GPU asked for last

static void lock(void)
{
    pthread_mutex_lock(&g_lock);
}
static void unlock(void)
{
    pthread_mutex_unlock(&g_lock);
}

at_view at_cuda_view(void *data, at_dtype dtype, int rank, const int64_t *shape)
{
    at_view v = {.data = data, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        v.shape[i] = shape[i];
        v.stride[i] = stride;
        stride *= shape[i] > 0 ? shape[i] : 1;
    }
    return v;
}

static size_t stored_bytes(const at_view *v)
{
    return (size_t)at_cuda_count(v) * at_cuda_size(v->dtype);
}

// --- lists -----------------------------------------------------------------------------------------
// Locked: out of its weight's list and of its device's.
static void unlink_form(form *f)
{
    for (form **at = &f->list->first; *at; at = &(*at)->next)
        if (*at == f) {
            *at = f->next;
            break;
        }
    at_residency_remove(&f->owner->weights, &f->here);
}

static void leave_order(forms *l);

// Unlinked already.
static void free_form(form *f)
{
    at_cuda_transfer_drop(f->owner, &f->transfer);
    at_device_free(&f->owner->dev, f->view.data, f->here.bytes);
    at_free(f);
}

static void forms_free(void *data)
{
    forms *l = data;
    for (form *f;;) {
        lock();
        f = l->first;
        if (f) unlink_form(f);
        unlock();
        if (!f) break;
        cudaSetDevice(f->owner->ordinal);
        free_form(f);
    }
    lock();
    leave_order(l);
    unlock();
    at_free(l);
}

// The weight's list; NULL if it has no slot, or another backend's things are in it.
static forms *forms_of(at_packed *slot)
{
    if (!slot) return NULL;
    forms *l = atomic_load_explicit(&slot->data, memory_order_acquire);
    if (!l) {
        l = at_calloc(1, sizeof *l);
        if (!l) return NULL;
        static _Atomic uint64_t serials;
        l->tag = &the_tag;
        l->serial = atomic_fetch_add(&serials, 1) + 1;
        __atomic_store_n(&slot->free, forms_free, __ATOMIC_RELAXED);
        void *none = NULL;
        if (!atomic_compare_exchange_strong(&slot->data, &none, l)) {
            at_free(l);
            l = none;
        }
    }
    return l->tag == &the_tag ? l : NULL;
}

// Locked.
static form *find(const at_cuda *g, const forms *l, at_dtype dtype, int kind)
{
    for (form *f = l ? l->first : NULL; f; f = f->next)
        if (f->owner == g && f->kind == kind && (kind > 0 || f->dtype == dtype)) return f;
    return NULL;
}

// ahead: nobody has asked for it yet.
static form *add_form(at_cuda *g, forms *l, const at_view *v, int kind, size_t bytes, bool ahead)
{
    form *f = at_calloc(1, sizeof *f);
    if (!f) {
        at_fail(AT_ENOMEM, "%s: no host memory for a weight", g->dev.name);
        return NULL;
    }
    f->list = l;
    f->owner = g;
    f->dtype = v->dtype;
    f->kind = kind;
    f->view = *v;
    f->here.bytes = bytes;
    f->ahead = f->here.wanted = ahead;
    lock();
    f->next = l->first;
    l->first = f;
    at_residency_add(&g->weights, &f->here, atomic_load(&g->dev.epoch));
    unlock();
    return f;
}

// --- the order of wishes -----------------------------------------------------------------------------
// Locked.
static void leave_order(forms *l)
{
    if (!l->before) return;
    l->before->after = l->after;
    l->after->before = l->before;
    for (int i = 0; i < AT_CUDA_GPUS; i++)
        if (g_last[i] == l) g_last[i] = l->before == l ? NULL : l->before;
    l->before = l->after = NULL;
}

// Locked: l stands at most so many places before p.
static bool is_behind(const forms *p, const forms *l, int places)
{
    for (const forms *at = p; places-- > 0; at = at->before)
        if (at->before == l) return true;
    return false;
}

// Locked: on p's ring it is not further on to l than back. False: l is on another GPU's.
static bool is_nearer_ahead(const forms *p, const forms *l)
{
    const forms *on = p, *back = p;
    do {
        on = on->after;
        back = back->before;
    } while (on != l && back != l && on != p);
    return on == l;
}

// Locked: l was asked for behind what this GPU asked for last. A forward asks in the same order in every
// step, so from the second on nothing moves here.
static void follow(at_cuda *g, forms *l, const at_wview *w)
{
    forms **last = &g_last[g->ordinal % AT_CUDA_GPUS], *p = *last;
    l->asked = atomic_load(&g->dev.epoch);
    if (p == l) return;
    if (p && l->before && p->after != l) {
        if (is_behind(p, l, ONCE_MORE)) return;
        // A step's end is followed by its beginning, not by the text encoder that was asked before the first one, ...
        while (p->after != l && p->after != p && p->after->asked != l->asked)
            leave_order(p->after);
        // ... and not by what the run asked for once before its steps.
        if (p->after != l && is_nearer_ahead(p, l))
            while (p->after != l)
                leave_order(p->after);
    }
    if (!p || p->after != l) {
        leave_order(l);
        p = *last;
        l->source = *w;
        l->before = p ? p : l;
        l->after = p ? p->after : l;
        l->before->after = l;
        l->after->before = l;
    }
    *last = l;
}

// --- going -------------------------------------------------------------------------------------------
static bool send_away(at_cuda *g, at_residency_who who, size_t like, size_t *freed)
{
    unsigned long epoch = atomic_load(&g->dev.epoch);
    lock();
    form *f = (form *)at_residency_victim(&g->weights, epoch, who, like);
    if (f && f->here.epoch == epoch) g->streaming = epoch + 1;
    if (f) unlink_form(f);
    unlock();
    if (!f) return false;
    *freed += f->here.bytes;
    atomic_fetch_add(&g->dev.moved, 1);
    free_form(f);
    return true;
}

bool at_cuda_weights_leave(at_cuda *g, size_t bytes)
{
    size_t freed = 0;
    for (at_residency_who who = AT_GO_IDLE; who <= AT_GO_WANTED; who++)
        while (freed < bytes && send_away(g, who, 0, &freed)) {
        }
    return freed > 0;
}

size_t at_cuda_weights_idle(at_device *d)
{
    lock();
    size_t bytes = at_residency_idle(&((at_cuda *)d)->weights, atomic_load(&d->epoch));
    unlock();
    return bytes;
}

void at_cuda_holds(at_device *d, at_device_holds *out)
{
    at_cuda *g = (at_cuda *)d;
    if (!out) {
        at_cuda_pool_holds(g, NULL);
        return;
    }
    *out = (at_device_holds){.fixed = (g->workspace ? g->workspace_bytes : 0) +
                                      (g->aside.workspace ? g->workspace_bytes : 0),
                             .driver = AT_CUDA_DRIVER_BYTES,
                             .pinned = at_cuda_uploader_bytes(g)};
    at_cuda_pool_holds(g, out);
    lock();
    out->weights = g->weights.bytes;
    unlock();
    // Blocks are a little larger than what is asked for; both are read one after the other.
    out->tensors = out->tensors > out->weights ? out->tensors - out->weights : 0;
}

// The model at work does not fit: parts of it have left while it ran.
bool at_cuda_weights_stream(const at_cuda *g)
{
    return g->streaming == atomic_load(&g->dev.epoch) + 1;
}

// A block for so many bytes: a kept one, or that of a form of the same size. False: neither is there.
static bool room_for(at_cuda *g, size_t bytes)
{
    size_t freed = 0;
    return bytes < AT_RESIDENT_SMALL || at_cuda_pool_has(g, bytes) ||
           send_away(g, AT_GO_USED, bytes, &freed);
}

// What the settings ask for before one more form of `bytes` is made. Where weights stream anyway, one of the same
// size makes room: its block is taken as it is, and nothing waits for the device.
static void keep_limits(at_cuda *g, size_t bytes)
{
    size_t freed = 0;
    if (g->dev.drop_idle)
        while (send_away(g, AT_GO_IDLE, 0, &freed)) {
        }
    if (g->dev.weight_bytes) {
        while (g->weights.bytes + bytes > g->dev.weight_bytes)
            if (!send_away(g, AT_GO_IDLE, 0, &freed) && !send_away(g, AT_GO_USED, bytes, &freed) &&
                !send_away(g, AT_GO_USED, 0, &freed))
                break;
    } else if (at_cuda_weights_stream(g)) {
        (void)room_for(g, bytes);
    }
}

// --- coming ------------------------------------------------------------------------------------------
// The stored bytes on the device: a form that is there (busy then), or a fresh upload to be freed.
typedef struct source {
    form *kept;
    at_view view;
    void *scratch;
} source;

// What is on its way is waited for, once.
static at_status arrived(at_cuda *g, form *f)
{
    if (!f->transfer.done) return AT_OK;
    at_status st = at_cuda_transfer_join(g, &f->transfer);
    if (st == AT_OK) at_cuda_transfer_drop(g, &f->transfer);
    return st;
}

static at_status open_source(at_cuda *g, const at_wview *w, const forms *l, source *s)
{
    at_status st = AT_OK;
    size_t bytes = stored_bytes(&w->v);

    lock();
    s->kept = find(g, l, w->v.dtype, PLAIN);
    if (s->kept) s->kept->here.busy = true;
    unlock();
    if (s->kept) {
        // In the caller's shape: kernels take source and result in the same one.
        s->view = at_cuda_view(s->kept->view.data, w->v.dtype, w->v.rank, w->v.shape);
        return arrived(g, s->kept);
    }
    AT_TRY(at_device_alloc(&g->dev, bytes, &s->scratch));
    s->view = at_cuda_view(s->scratch, w->v.dtype, w->v.rank, w->v.shape);
    AT_TRY(at_cuda_upload_weight(g, s->scratch, w, bytes));
out:
    return st;
}

// `done`: something was made of it, so bytes that nobody asked for may go.
static void close_source(at_cuda *g, const at_wview *w, source *s, bool done)
{
    form *gone = NULL;
    if (s->kept) {
        lock();
        s->kept->here.busy = false;
        if (done && s->kept->ahead) unlink_form(gone = s->kept);
        unlock();
    }
    if (gone) free_form(gone);
    at_device_free(&g->dev, s->scratch, stored_bytes(&w->v));
}

// The view that a conversion fills.
static at_view converted(const at_wview *w, at_dtype dtype, int kind, void *data)
{
    int64_t shape[AT_MAX_RANK];
    memcpy(shape, w->v.shape, sizeof shape);
    if (kind == FILTER) {
        shape[1] = w->v.shape[2];
        shape[2] = w->v.shape[3];
        shape[3] = w->v.shape[1];
    }
    return at_cuda_view(data, dtype, w->v.rank, shape);
}

typedef struct wish {
    at_dtype dtype;
    int kind;
    size_t bytes;
    at_cuda_make_form *make; // of kinds above 0
} wish;

// One form in fresh device memory.
static at_status make(at_cuda *g, const at_wview *w, const forms *l, const wish *want, at_view *out)
{
    at_status st = AT_OK;
    source s = {0};
    void *made = NULL;

    keep_limits(g, want->bytes);
    AT_TRY(open_source(g, w, l, &s));
    if (want->kind == PLAIN && want->dtype == w->v.dtype) { // the upload itself
        *out = s.view;
        s.scratch = NULL;
        goto out;
    }
    AT_TRY(at_device_alloc(&g->dev, want->bytes, &made));
    *out = converted(w, want->dtype, want->kind, made);
    if (want->make)
        st = want->make(g, w, &s.view, made);
    else
        st = at_cuda_check(g,
                           want->kind == FILTER ? at_k_filter(g->stream, &s.view, out)
                                                : at_k_copy(g->stream, &s.view, out),
                           "converting a weight");
    if (st == AT_OK) made = NULL;
out:
    close_source(g, w, &s, st == AT_OK);
    at_device_free(&g->dev, made, want->bytes);
    return st;
}

static void look_ahead(at_cuda *g, forms *l);

static at_status get(at_cuda *g, const at_wview *w, const wish *want, at_view *out, void **owned)
{
    at_status st = AT_OK;
    forms *l = forms_of(w->packed);

    *owned = NULL;
    lock();
    form *f = find(g, l, want->dtype, want->kind);
    if (f) {
        at_residency_touch(&g->weights, &f->here, atomic_load(&g->dev.epoch));
        f->ahead = f->here.wanted = false;
        // As the caller sees it: what was prefetched is in the file's shape, and a matrix may be a filter there.
        *out = want->kind > 0 ? f->view : converted(w, want->dtype, want->kind, f->view.data);
    }
    if (l && !g->recording) follow(g, l, w);
    if (l) l->elsewhere = false; // asked for by itself
    unlock();
    if (f) {
        st = arrived(g, f);
        if (st == AT_OK) look_ahead(g, l);
        return st;
    }
    if (g->recording) // it would be queued to happen again and again
        return at_fail(AT_EDEVICE, "%s: a weight is not resident inside a recording", g->dev.name);
    AT_TRY(make(g, w, l, want, out));
    if (l && add_form(g, l, out, want->kind, want->bytes, false)) {
        look_ahead(g, l);
        return AT_OK;
    }
    *owned = out->data;
    // The caller gives it to the pool: it is not counted from here on.
    atomic_fetch_sub_explicit(&g->dev.live_bytes, want->bytes, memory_order_relaxed);
out:
    return st;
}

at_status at_cuda_weight(at_cuda *g, const at_wview *w, at_dtype dtype, bool filter, at_view *out,
                         void **owned)
{
    wish want = {.dtype = dtype == AT_DTYPE_COUNT ? w->v.dtype : dtype,
                 .kind = filter ? FILTER : PLAIN};
    want.bytes = (size_t)at_cuda_count(&w->v) * at_cuda_size(want.dtype);
    return get(g, w, &want, out, owned);
}

at_status at_cuda_vector(at_cuda *g, const at_wview *w, at_dtype dtype, const void **out,
                         void **owned)
{
    at_view v;
    *out = NULL;
    *owned = NULL;
    if (!w->v.data) return AT_OK;
    at_status st = at_cuda_weight(g, w, dtype, false, &v, owned);
    if (st == AT_OK) *out = v.data;
    return st;
}

at_status at_cuda_weight_made(at_cuda *g, const at_wview *w, int kind, size_t bytes,
                              at_cuda_make_form *form_of, void **out, void **owned)
{
    wish want = {.dtype = AT_U8, .kind = kind, .bytes = bytes, .make = form_of};
    at_view v;
    at_status st = get(g, w, &want, &v, owned);
    *out = st == AT_OK ? v.data : NULL;
    return st;
}

uint64_t at_cuda_weight_serial(const at_wview *w)
{
    const forms *l = forms_of(w->packed);
    return l ? l->serial : 0;
}

bool at_cuda_weight_here(at_cuda *g, const at_wview *w)
{
    const forms *l = forms_of(w->packed);
    bool here = false;
    lock();
    for (const form *f = l ? l->first : NULL; f && !here; f = f->next)
        here = f->owner == g;
    unlock();
    return here;
}

at_status at_cuda_weight_stored(at_cuda *g, const at_wview *w, at_cuda_use_stored *use, void *ctx)
{
    source s = {0};
    at_status st = open_source(g, w, forms_of(w->packed), &s);
    if (st == AT_OK) st = use(g, &s.view, ctx);
    close_source(g, w, &s, st == AT_OK);
    forms *l = forms_of(w->packed);
    if (st != AT_OK || !l) return st;
    lock();
    l->elsewhere = true;
    unlock();
    return st;
}

// --- ahead -------------------------------------------------------------------------------------------
// A fifth of the memory stays free for activations, beside what is reserved for others; who needs more sends weights
// away.
static bool has_room(const at_cuda *g, size_t bytes)
{
    size_t rest = 0, all = 0;
    if (cudaMemGetInfo(&rest, &all) != cudaSuccess || rest <= g->dev.reserve_bytes) return false;
    rest -= g->dev.reserve_bytes;
    all -= g->dev.reserve_bytes;
    return rest > bytes && rest - bytes > all / 5;
}

// Locked: nothing of it is on this device.
static bool is_away(const at_cuda *g, const forms *l)
{
    if (l->elsewhere) return false;
    for (const form *f = l->first; f; f = f->next)
        if (f->owner == g) return false;
    return true;
}

// The stored bytes of w begin to come.
static at_status bring(at_cuda *g, const at_wview *w, forms *l)
{
    at_status st = AT_OK;
    size_t bytes = stored_bytes(&w->v);
    void *data = NULL;

    AT_TRY(at_device_alloc(&g->dev, bytes, &data));
    at_view v = at_cuda_view(data, w->v.dtype, w->v.rank, w->v.shape);
    form *f = add_form(g, l, &v, PLAIN, bytes, true);
    if (!f) {
        at_device_free(&g->dev, data, bytes);
        return AT_ENOMEM;
    }
    st = bytes < AT_RESIDENT_SMALL
             ? at_cuda_upload_weight(g, data, w, bytes)
             : at_cuda_transfer_weight(g, &f->transfer, data, w, bytes, false);
    if (st == AT_OK) return AT_OK;
    lock();
    unlink_form(f);
    unlock();
    free_form(f);
out:
    return st;
}

// While weights stream: what is wanted behind l, as far as AHEAD_BYTES reach and no further than an eighth of what may
// stay, for each of them takes the place of one that would have stayed; where nothing may stay (--novram),
// LEAST_AHEAD.
static void look_ahead(at_cuda *g, forms *l)
{
    size_t limit = g->dev.weight_bytes, seen = 0;
    size_t most = (limit ? limit : g->weights.bytes) / 8;
    if (limit == 1) most = LEAST_AHEAD;
    if (most > AHEAD_BYTES) most = AHEAD_BYTES;
    if (!at_cuda_weights_stream(g) || g->recording) return;
    for (int i = 0; i < AHEAD_WEIGHTS && seen < most; i++) {
        lock();
        l = l->after;
        bool away = l && is_away(g, l);
        at_wview w = l ? l->source : (at_wview){0};
        unlock();
        if (!l) return;
        size_t bytes = stored_bytes(&w.v);
        seen += bytes;
        if (!away) continue;
        // Only into the room of one that was used: activations and what stays are left alone.
        if (limit)
            keep_limits(g, bytes);
        else if (!room_for(g, bytes))
            return;
        if (bring(g, &w, l) != AT_OK) return;
    }
}

at_status at_cuda_prefetch(at_device *d, const at_wview *list, size_t n)
{
    at_cuda *g = (at_cuda *)d;
    at_status st = AT_OK;
    size_t promised = 0; // room that was asked about and is not taken yet

    if (g->recording) return AT_OK;
    cudaSetDevice(g->ordinal);
    if (d->drop_idle) keep_limits(g, 0);
    for (size_t i = 0; i < n && st == AT_OK; i++) {
        const at_wview *w = &list[i];
        size_t bytes = stored_bytes(&w->v);
        forms *l = w->v.data && bytes ? forms_of(w->packed) : NULL;
        if (!l) continue;
        lock();
        bool away = is_away(g, l);
        unlock();
        if (!away) continue;
        if (d->weight_bytes && g->weights.bytes + bytes > d->weight_bytes) break;
        if (promised < bytes) {
            promised = (size_t)256 << 20 > bytes ? (size_t)256 << 20 : bytes;
            if (!has_room(g, promised)) break;
        }
        promised -= bytes;
        st = bring(g, w, l);
    }
    return st;
}
