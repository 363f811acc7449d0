// SPDX-License-Identifier: Apache-2.0
// mesh.c - degrees as text, and the comms of the axes. See mesh.h.
#include "par/mesh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[AT_AXES] = {"cfg", "tp", "patch", "ring", "ulysses"};

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

at_status at_degrees_parse(const char *text, at_degrees *out)
{
    *out = (at_degrees){0};
    if (strcmp(text, "none") == 0) return AT_OK;
    for (const char *at = text;;) {
        size_t n = strcspn(at, "=,");
        int axis = axis_called(at, n);
        char *end = NULL;
        long value = at[n] == '=' ? strtol(at + n + 1, &end, 10) : 0;

        if (axis < 0 || value < 1 || value > 256 || (*end && *end != ',') || out->of[axis])
            return at_fail(AT_EINVAL,
                           "\"%s\" is no way to share a picture: none, or some of cfg=N, "
                           "tp=N, patch=N, ring=N, ulysses=N with commas between",
                           text);
        out->of[axis] = (int)value;
        if (!*end) break;
        at = end + 1;
    }
    if (at_degrees_ranks(out) <= 256) return AT_OK;
    return at_fail(AT_EINVAL, "\"%s\" needs %d ranks; 256 are the most", text,
                   at_degrees_ranks(out));
}

const char *at_degrees_text(const at_degrees *d, char out[96])
{
    size_t n = 0;

    for (int i = 0; i < AT_AXES; i++)
        if (d->of[i] > 1)
            n += (size_t)snprintf(out + n, 96 - n, "%s%s=%d", n ? "," : "", names[i], d->of[i]);
    if (!n) snprintf(out, 96, "none");
    return out;
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
