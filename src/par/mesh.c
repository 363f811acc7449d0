// SPDX-License-Identifier: Apache-2.0
// mesh.c - degrees as text, and the comms of the axes. See mesh.h.
#include "par/mesh.h"

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

        if (!to || value < 1 || value > 256 || (*end && *end != ',') || *to)
            return at_fail(
                AT_EINVAL,
                "\"%s\" is no way to share a picture: none, or some of cfg=N, "
                "tp=N, patch=N, ring=N, ulysses=N with commas between; approximately: stale=N or "
                "pipefusion=N, with warmup=N and patches=N",
                text);
        *to = (int)value;
        out->stale |= called_stale(at, n);
        if (!*end) break;
        at = end + 1;
    }
    if (out->of[AT_AXIS_RING] < 2) out->stale = 0; // of one rank nothing is
    if (at_degrees_ranks(out) <= 256) return check_approximation(out, text);
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
