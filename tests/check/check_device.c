// SPDX-License-Identifier: Apache-2.0
// check_device.c - mirroring a check row on a device.
#include "check_device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

at_device *ck_device_open(const char *plugin, const char *name)
{
    at_status (*enter)(int abi) = NULL;
    void *lib = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
    void *symbol = lib ? dlsym(lib, "at_cuda_register") : NULL;
    if (!symbol) {
        printf("%s\n", dlerror());
        return NULL;
    }
    memcpy(&enter, &symbol, sizeof enter);
    if (enter(AT_PLUGIN_ABI) != AT_OK) {
        printf("%s\n", at_error_text());
        return NULL;
    }
    at_device *d = at_device_find(name);
    if (!d) printf("%s: no such device\n", name);
    return d;
}

// The address in the mirror of an address in one of the row's blocks; others stay.
static void *moved(const ck_mirror *m, void *p)
{
    for (int i = 0; i < m->host->n; i++) {
        uint8_t *block = m->host->t[i].block;
        if ((uint8_t *)p >= block && (uint8_t *)p < block + m->host->t[i].bytes + 1)
            return (uint8_t *)m->blocks[i] + ((uint8_t *)p - block);
    }
    return p;
}

static void move_view(const ck_mirror *m, at_view *v)
{
    if (v->data) v->data = moved(m, v->data);
}

static void move_rope(const ck_mirror *m, at_rope_args *a)
{
    at_view *views[] = {&a->x, &a->out, &a->cos, &a->sin};
    for (int i = 0; i < 4; i++)
        move_view(m, views[i]);
}

// Every view that is no weight.
static void move_args(ck_mirror *m)
{
    ck_run *r = &m->run;
    const char *op = r->op->name;
    if (strcmp(op, "linear") == 0) {
        at_linear_args *a = &r->a.linear;
        at_view *views[] = {&a->x, &a->out, &a->residual, &a->gate, &a->out2, &a->x_scale};
        for (int i = 0; i < 6; i++)
            move_view(m, views[i]);
    } else if (strcmp(op, "geglu") == 0) {
        move_view(m, &r->a.geglu.x);
        move_view(m, &r->a.geglu.out);
    } else if (strcmp(op, "attention_merge") == 0) {
        at_attention_merge_args *a = &r->a.merge;
        at_view *views[] = {&a->a, &a->b, &a->out, &a->a_lse, &a->b_lse, &a->out_lse};
        for (int i = 0; i < 6; i++)
            move_view(m, views[i]);
    } else if (strncmp(op, "attention", 9) == 0) { // attention_lse too
        at_attention_args *a = &r->a.attention;
        at_view *views[] = {&a->q, &a->k, &a->v, &a->out, &a->bias, &a->out_scale, &a->lse};
        for (int i = 0; i < 7; i++)
            move_view(m, views[i]);
        for (int i = 0; i < a->n_turns; i++)
            move_rope(m, &r->turns[i]);
    } else if (strcmp(op, "norm") == 0) {
        at_norm_args *a = &r->a.norm;
        at_view *views[] = {&a->x,         &a->out, &a->mod_scale, &a->mod_shift,
                            &a->out_scale, &a->y,   &a->gate};
        for (int i = 0; i < 7; i++)
            move_view(m, views[i]);
    } else if (strcmp(op, "group_norm") == 0) {
        move_view(m, &r->a.group_norm.x);
        move_view(m, &r->a.group_norm.add);
        move_view(m, &r->a.group_norm.out);
        move_view(m, &r->a.group_norm.parts);
    } else if (strcmp(op, "rope") == 0) {
        move_rope(m, &r->a.rope);
    } else if (strcmp(op, "ropes") == 0) {
        for (int i = 0; i < AT_ROPES; i++)
            move_rope(m, &r->a.ropes[i]);
    } else if (strcmp(op, "conv2d") == 0) {
        at_conv2d_args *a = &r->a.conv2d;
        at_view *views[] = {&a->x, &a->out, &a->residual};
        for (int i = 0; i < 3; i++)
            move_view(m, views[i]);
    } else if (strcmp(op, "binary") == 0) {
        at_binary_args *a = &r->a.binary;
        at_view *views[] = {&a->a, &a->b, &a->out};
        for (int i = 0; i < 3; i++)
            move_view(m, views[i]);
    } else if (strcmp(op, "gate_add") == 0) {
        at_gate_add_args *a = &r->a.gate_add;
        at_view *views[] = {&a->x, &a->y, &a->gate, &a->out};
        for (int i = 0; i < 4; i++)
            move_view(m, views[i]);
    } else if (strcmp(op, "lincomb") == 0) {
        at_lincomb_args *a = &r->a.lincomb;
        for (int i = 0; i < a->n; i++)
            move_view(m, &a->in[i]);
        move_view(m, &a->out);
    } else if (strcmp(op, "embedding") == 0) {
        move_view(m, &r->a.embedding.ids);
        move_view(m, &r->a.embedding.out);
    } else { // copy, fill, unary
        move_view(m, &r->a.simple.x);
        move_view(m, &r->a.simple.out);
    }
}

// A row's packed slot lies in the row itself: the mirror's weights must point to the mirror's slot.
static void move_slot(const ck_run *from, ck_run *to, at_wview *w)
{
    if (w->packed == &from->packed) w->packed = &to->packed;
    if (w->packed == &from->packed2) w->packed = &to->packed2;
}

bool ck_mirror_make(ck_mirror *m, at_device *dev, ck_run *r)
{
    memset(m, 0, sizeof *m);
    m->dev = dev;
    m->host = r;
    m->run = *r;
    atomic_store(&m->run.packed.data, NULL);
    atomic_store(&m->run.packed2.data, NULL);
    for (int i = 0; i < r->n; i++)
        if (at_device_alloc(dev, r->t[i].bytes + 1, &m->blocks[i]) != AT_OK) {
            printf("%s\n", at_error_text());
            ck_mirror_drop(m);
            return false;
        }
    move_args(m);
    if (strcmp(r->op->name, "linear") == 0) move_slot(r, &m->run, &m->run.a.linear.w);
    if (strcmp(r->op->name, "geglu") == 0) move_slot(r, &m->run, &m->run.a.geglu.w);
    if (strcmp(r->op->name, "conv2d") == 0) move_slot(r, &m->run, &m->run.a.conv2d.w);
    if (strcmp(r->op->name, "embedding") == 0) move_slot(r, &m->run, &m->run.a.embedding.table);
    if (strcmp(r->op->name, "rope") == 0) move_slot(r, &m->run, &m->run.a.rope.weight);
    if (strcmp(r->op->name, "norm") == 0) {
        move_slot(r, &m->run, &m->run.a.norm.weight);
        move_slot(r, &m->run, &m->run.a.norm.bias);
    }
    if (strcmp(r->op->name, "group_norm") == 0) {
        move_slot(r, &m->run, &m->run.a.group_norm.weight);
        move_slot(r, &m->run, &m->run.a.group_norm.bias);
    }
    return true;
}

// Slots take (stream, ...): the row's call hands over NULL, so the table is wrapped with the stream.
// The op's call reads `stream` from here.
at_status ck_mirror_run(ck_mirror *m)
{
    at_status st = AT_OK;
    const at_device_ops *d = m->dev->ops;
    for (int i = 0; i < m->host->n && st == AT_OK; i++)
        st = d->from_host(m->dev, m->blocks[i], m->host->t[i].block, m->host->t[i].bytes);
    m->run.stream = m->dev->stream;
    if (st == AT_OK) st = m->run.op->call(m->dev->backend, &m->run);
    for (int i = 0; i < m->host->n && st == AT_OK; i++)
        st = d->to_host(m->dev, m->host->t[i].block, m->blocks[i], m->host->t[i].bytes);
    return st;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + 1e-6 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double ck_mirror_time(ck_mirror *m)
{
    enum { TIMES = 9, CALLS = 20 };
    double t[TIMES];
    if (ck_mirror_run(m) != AT_OK) return -1;
    for (int i = 0; i < TIMES; i++) {
        double start = now();
        for (int k = 0; k < CALLS; k++)
            if (m->run.op->call(m->dev->backend, &m->run) != AT_OK) return -1;
        if (m->dev->ops->synchronize(m->dev) != AT_OK) return -1;
        t[i] = (now() - start) / CALLS;
    }
    qsort(t, TIMES, sizeof *t, by_value);
    return t[TIMES / 2];
}

void ck_mirror_drop(ck_mirror *m)
{
    ck_forget_packed(&m->run);
    for (int i = 0; i < m->host->n; i++)
        if (m->blocks[i]) at_device_free(m->dev, m->blocks[i], m->host->t[i].bytes + 1);
}
