// SPDX-License-Identifier: Apache-2.0
// mesh.c - degrees as text, and the comms of the axes. See mesh.h.
#include "par/mesh.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[AT_AXES] = {"cfg", "tp", "patch", "ring", "ulysses", "pipefusion"};

const char *at_axis_name(at_axis a)
{
    return names[a];
}

static int degree(const at_degrees *d, int axis)
{
    return d->of[axis] > 1 ? d->of[axis] : 1;
}

int at_degrees_ranks(const at_degrees *d)
{
    int n = 1;
    for (int i = 0; i < AT_AXES; i++)
        n *= degree(d, i);
    return n;
}

bool at_degrees_same(const at_degrees *a, const at_degrees *b)
{
    for (int i = 0; i < AT_AXES; i++)
        if (degree(a, i) != degree(b, i)) return false;
    return true;
}

static int axis_called(const char *name, size_t n)
{
    for (int i = 0; i < AT_AXES; i++)
        if (strlen(names[i]) == n && memcmp(names[i], name, n) == 0) return i;
    return -1;
}

// What stands beside degrees; NULL: no such word.
static int *setting_called(at_degrees *d, const char *name, size_t n)
{
    if (n == 6 && memcmp(name, "warmup", n) == 0) return &d->warmup;
    if (n == 7 && memcmp(name, "patches", n) == 0) return &d->patches;
    return NULL;
}

static bool called_stale(const char *name, size_t n)
{
    return n == 5 && memcmp(name, "stale", n) == 0;
}

// "3:2" behind "shares="; *end is where it stops.
static bool read_shares(const char *at, at_degrees *d, char **end)
{
    for (int i = 0; i < AT_SHARE_RANKS; i++) {
        long value = strtol(at, end, 10);

        if (value < 1 || value > AT_SHARE_MOST) return false;
        d->shares[i] = (uint8_t)value;
        if (**end != ':') return true;
        at = *end + 1;
    }
    return false;
}

static int shares_of(const at_degrees *d)
{
    int n = 0;

    while (n < AT_SHARE_RANKS && d->shares[n])
        n++;
    return n;
}

// Who needs equal parts: the layers' cut is fixed, and so are the blocks of a pipe.
static at_status check_shares(const at_degrees *d, const char *text)
{
    if (!d->shares[0]) return AT_OK;
    if (shares_of(d) != at_degrees_ranks(d))
        return at_fail(AT_EINVAL, "\"%s\": %d shares for %d ranks", text, shares_of(d),
                       at_degrees_ranks(d));
    if (degree(d, AT_AXIS_PIPE) > 1)
        return at_fail(AT_EINVAL, "\"%s\": the ranks of pipefusion have equal shares", text);
    return AT_OK;
}

// Approximate methods work along one axis, beside cfg alone.
static at_status check_approximation(const at_degrees *d, const char *text)
{
    bool pipe = d->of[AT_AXIS_PIPE] > 1;
    int others = degree(d, AT_AXIS_TP) * degree(d, AT_AXIS_PATCH) * degree(d, AT_AXIS_ULYSSES) *
                 (d->stale ? degree(d, AT_AXIS_PIPE) : degree(d, AT_AXIS_RING));

    if ((d->stale || pipe) && others > 1)
        return at_fail(AT_EINVAL, "\"%s\": stale=N and pipefusion=N go together with cfg=N alone",
                       text);
    if (d->patches && !pipe)
        return at_fail(AT_EINVAL, "\"%s\": patches=N belongs to pipefusion=N", text);
    if (d->warmup && !pipe && !d->stale)
        return at_fail(AT_EINVAL, "\"%s\": warmup=N belongs to stale=N or pipefusion=N", text);
    return AT_OK;
}

at_status at_degrees_parse(const char *text, at_degrees *out)
{
    *out = (at_degrees){0};
    if (strcmp(text, "none") == 0) return AT_OK;
    for (const char *at = text;;) {
        size_t n = strcspn(at, "=,");
        int axis = called_stale(at, n) ? AT_AXIS_RING : axis_called(at, n);
        int *to = axis < 0 ? setting_called(out, at, n) : &out->of[axis];
        char *end = NULL;
        long value = at[n] == '=' ? strtol(at + n + 1, &end, 10) : 0;

        bool shares = n == 6 && at[n] == '=' && memcmp(at, "shares", n) == 0;
        if (shares && !out->shares[0] && read_shares(at + n + 1, out, &end) &&
            (!*end || *end == ',')) {
            if (!*end) break;
            at = end + 1;
            continue;
        }
        if (!to || value < 1 || value > 256 || (*end && *end != ',') || *to)
            return at_fail(
                AT_EINVAL,
                "\"%s\" is no way to share a picture: none, or some of cfg=N, "
                "tp=N, patch=N, ring=N, ulysses=N with commas between, and shares=A:B for "
                "ranks of unlike speed; approximately: stale=N or "
                "pipefusion=N, with warmup=N and patches=N",
                text);
        *to = (int)value;
        out->stale |= called_stale(at, n);
        if (!*end) break;
        at = end + 1;
    }
    if (out->of[AT_AXIS_RING] < 2) out->stale = 0; // of one rank nothing is
    if (at_degrees_ranks(out) <= 256) {
        at_status st = check_approximation(out, text);
        return st == AT_OK ? check_shares(out, text) : st;
    }
    return at_fail(AT_EINVAL, "\"%s\" needs %d ranks; 256 are the most", text,
                   at_degrees_ranks(out));
}

const char *at_degrees_text(const at_degrees *d, char out[96])
{
    size_t n = 0;

    for (int i = 0; i < AT_AXES; i++) {
        bool stale = d->stale && (i == AT_AXIS_RING || i == AT_AXIS_PATCH);
        if (d->of[i] > 1)
            n += (size_t)snprintf(out + n, 96 - n, "%s%s=%d", n ? "," : "",
                                  stale ? "stale" : names[i], d->of[i]);
    }
    if (n && d->warmup) n += (size_t)snprintf(out + n, 96 - n, ",warmup=%d", d->warmup);
    if (n && d->patches) n += (size_t)snprintf(out + n, 96 - n, ",patches=%d", d->patches);
    for (int i = 0, k = shares_of(d); i < k && n + 12 < 96; i++)
        n += (size_t)snprintf(out + n, 96 - n, "%s%d", i ? ":" : ",shares=", d->shares[i]);
    if (!n) snprintf(out, 96, "none");
    return out;
}

const char *at_degrees_approximation(const at_degrees *d)
{
    if (d->stale) return "stale keys and values (DistriFusion)";
    return d->of[AT_AXIS_PIPE] > 1 ? "PipeFusion" : NULL;
}

// As the papers: 4 for DistriFusion, 1 for PipeFusion. Without one there is nothing that could be stale.
int at_degrees_warmup(const at_degrees *d)
{
    if (d->warmup) return d->warmup;
    return d->stale ? 4 : 1;
}

int at_degrees_patches(const at_degrees *d)
{
    return d->patches ? d->patches : 2 * degree(d, AT_AXIS_PIPE);
}

void at_degrees_fit(at_degrees *d, unsigned axes)
{
    if (!d->stale || axes & 1u << AT_AXIS_RING || !(axes & 1u << AT_AXIS_PATCH)) return;
    d->of[AT_AXIS_PATCH] = d->of[AT_AXIS_RING];
    d->of[AT_AXIS_RING] = 1;
}

at_mesh at_mesh_self(void)
{
    return at_mesh_tokens(at_comm_self());
}

at_mesh at_mesh_tokens(at_comm *world)
{
    at_mesh m = {.world = world, .tokens = world};

    for (int i = 0; i < AT_AXES; i++)
        m.axis[i] = at_comm_self();
    m.axis[AT_AXIS_ULYSSES] = world;
    m.degrees.of[AT_AXIS_ULYSSES] = world->size;
    return m;
}

// Ranks of one colour differ along the axes first .. last alone; inner axes count fastest.
static int colour_of(const at_degrees *d, int rank, int first, int last)
{
    int colour = 0, stride = 1, left = rank;

    for (int i = AT_AXES - 1; i >= 0; i--) {
        int n = degree(d, i), place = left % n;
        left /= n;
        if (i >= first && i <= last) continue;
        colour += place * stride;
        stride *= n;
    }
    return colour;
}

static at_status axis_comm(at_comm *world, const at_degrees *d, int first, int last, at_comm **out)
{
    int n = 1;

    for (int i = first; i <= last; i++)
        n *= degree(d, i);
    *out = n == 1 ? at_comm_self() : world;
    if (n == 1 || n == world->size) return AT_OK;
    return world->ops->split(world, colour_of(d, world->rank, first, last), out);
}

// --- shares --------------------------------------------------------------------------------------
// Of all these ranks: a part of an engine's devices may be all that is known.
static bool known_speeds(const uint8_t speeds[AT_SHARE_RANKS], int n)
{
    for (int i = 0; i < n; i++)
        if (i >= AT_SHARE_RANKS || !speeds[i]) return false;
    return true;
}

void at_degrees_take_speeds(at_degrees *d, const uint8_t speeds[AT_SHARE_RANKS])
{
    int n = at_degrees_ranks(d);

    if (n < 2 || !known_speeds(speeds, n) || d->shares[0] || degree(d, AT_AXIS_PIPE) > 1) return;
    memcpy(d->shares, speeds, (size_t)n);
}

double at_degrees_pace(const at_degrees *d, const uint8_t speeds[AT_SHARE_RANKS], double units)
{
    int n = at_degrees_ranks(d), groups = degree(d, AT_AXIS_CFG), each = n / groups;
    bool cut = degree(d, AT_AXIS_TP) > 1 || degree(d, AT_AXIS_PIPE) > 1;
    double sum[AT_SHARE_RANKS] = {0}, load[AT_SHARE_RANKS] = {0}, most = 0;

    if (!known_speeds(speeds, n)) return 1;
    for (int i = 0; i < n; i++) {
        double speed = (double)speeds[i] / speeds[0];

        if (cut) // the slowest sets the pace of its group
            sum[i / each] = i % each ? fmin(sum[i / each], each * speed) : each * speed;
        else
            sum[i / each] += speed;
    }
    for (double u = 0; u < units; u++) { // as nodes/guide_units.c deals them
        int to = 0;
        for (int g = 1; g < groups; g++)
            if ((load[g] + 1) / sum[g] < (load[to] + 1) / sum[to]) to = g;
        load[to]++;
    }
    for (int g = 0; g < groups; g++)
        most = fmax(most, load[g] * each / sum[g]);
    return most / ceil(units / groups);
}

// Who stands at the same place of an axis takes as much, whatever his place on the others: what they share is one cut.
// Groups along cfg share nothing but forwards, and are cut by their own ranks.
static void set_shares(at_mesh *m)
{
    const at_degrees *d = &m->degrees;
    int n = at_degrees_ranks(d), each = n / degree(d, AT_AXIS_CFG);

    if (!d->shares[0] || n > AT_SHARE_RANKS) return;
    for (int i = 0; i < n; i++) {
        bool group = i / each == m->world->rank / each;

        for (int a = AT_AXES - 1, left = i; a >= 0; a--) {
            if (group || a == AT_AXIS_CFG) m->share[a][left % degree(d, a)] += d->shares[i];
            left /= degree(d, a);
        }
        int tokens = degree(d, AT_AXIS_RING) * degree(d, AT_AXIS_ULYSSES);
        if (group) m->token_share[i / degree(d, AT_AXIS_PIPE) % tokens] += d->shares[i];
    }
}

at_status at_mesh_open(at_comm *world, const at_degrees *degrees, at_mesh *out)
{
    at_status st = AT_OK;
    char text[96];

    *out = (at_mesh){.degrees = *degrees, .world = world};
    if (at_degrees_ranks(degrees) != world->size)
        AT_TRY(at_fail(AT_EINVAL, "%s is a plan for %d ranks, and there are %d",
                       at_degrees_text(degrees, text), at_degrees_ranks(degrees), world->size));
    for (int i = 0; i < AT_AXES; i++)
        AT_TRY(axis_comm(world, degrees, i, i, &out->axis[i]));
    AT_TRY(axis_comm(world, degrees, AT_AXIS_RING, AT_AXIS_ULYSSES, &out->tokens));
    set_shares(out);
out:
    if (st != AT_OK) at_mesh_close(out);
    return st;
}

void at_mesh_close(at_mesh *m)
{
    if (!m) return;
    for (int i = 0; i < AT_AXES; i++)
        if (m->axis[i] && m->axis[i] != m->world) at_comm_free(m->axis[i]);
    if (m->tokens && m->tokens != m->world) at_comm_free(m->tokens);
    *m = (at_mesh){0};
}
