// SPDX-License-Identifier: Apache-2.0
// cudnn_graph.c - cuDNN's descriptors with sticky errors, from tensors to a plan that runs.
#include <stdbool.h>
#include <stddef.h>

#include "cuda/cudnn.h"

void *at_dnn_desc(at_dnn_build *b, int type)
{
    void *d = NULL;
    if (b->status) return NULL;
    if (b->n == (int)(sizeof b->all / sizeof *b->all)) {
        b->status = -1;
        return NULL;
    }
    b->status = b->dnn->BackendCreateDescriptor(type, &d);
    if (!b->status) b->all[b->n++] = d;
    return d;
}

void at_dnn_set(at_dnn_build *b, void *desc, int name, int type, int64_t count, const void *values)
{
    if (!b->status) b->status = b->dnn->BackendSetAttribute(desc, name, type, count, values);
}

void at_dnn_set_i64(at_dnn_build *b, void *desc, int name, int64_t value)
{
    at_dnn_set(b, desc, name, DNN_T_INT64, 1, &value);
}

void at_dnn_set_desc(at_dnn_build *b, void *desc, int name, void *value)
{
    at_dnn_set(b, desc, name, DNN_T_DESC, 1, &value);
}

void at_dnn_finish(at_dnn_build *b, void *desc)
{
    if (!b->status) b->status = b->dnn->BackendFinalize(desc);
}

void *at_dnn_tensor(at_dnn_build *b, int64_t uid, int type, int rank, const int64_t *dims,
                    const int64_t *strides, int is_virtual, int by_value)
{
    void *t = at_dnn_desc(b, DNN_TENSOR);
    _Bool yes = 1;
    at_dnn_set(b, t, DNN_A_TENSOR_TYPE, DNN_T_DATA_TYPE, 1, &type);
    at_dnn_set(b, t, DNN_A_TENSOR_DIMS, DNN_T_INT64, rank, dims);
    at_dnn_set(b, t, DNN_A_TENSOR_STRIDES, DNN_T_INT64, rank, strides);
    at_dnn_set_i64(b, t, DNN_A_TENSOR_UID, uid);
    at_dnn_set_i64(b, t, DNN_A_TENSOR_ALIGN, 16);
    if (is_virtual) at_dnn_set(b, t, DNN_A_TENSOR_VIRTUAL, DNN_T_BOOL, 1, &yes);
    if (by_value) at_dnn_set(b, t, DNN_A_TENSOR_BY_VALUE, DNN_T_BOOL, 1, &yes);
    at_dnn_finish(b, t);
    return t;
}

void at_dnn_build_drop(at_dnn_build *b)
{
    while (b->n)
        b->dnn->BackendDestroyDescriptor(b->all[--b->n]);
}

// --- plans ---------------------------------------------------------------------------------------
enum { TRIES = 12 };

// The heuristic's engine configurations, best first; they belong to b.
static int configs_of(at_dnn_build *b, void *graph, int mode, void *configs[TRIES])
{
    int64_t found = 0;
    void *heur = at_dnn_desc(b, DNN_ENGINEHEUR);
    at_dnn_set_desc(b, heur, DNN_A_HEUR_GRAPH, graph);
    at_dnn_set(b, heur, DNN_A_HEUR_MODE, DNN_T_HEUR_MODE, 1, &mode);
    at_dnn_finish(b, heur);
    for (int i = 0; i < TRIES; i++)
        configs[i] = at_dnn_desc(b, DNN_ENGINECFG);
    if (b->status) return 0;
    if (b->dnn->BackendGetAttribute(heur, DNN_A_HEUR_RESULTS, DNN_T_DESC, TRIES, &found, configs))
        return 0;
    return found < TRIES ? (int)found : TRIES;
}

// What cannot be asked is taken for an engine that compiles.
static bool compiles(const at_cudnn *dnn, void *config)
{
    int notes[16] = {0};
    int64_t n = 0;
    void *engine = NULL;
    bool yes = true;
    if (dnn->BackendCreateDescriptor(DNN_ENGINE, &engine)) return true;
    if (!dnn->BackendGetAttribute(config, DNN_A_CONFIG_ENGINE, DNN_T_DESC, 1, &n, &engine) &&
        !dnn->BackendGetAttribute(engine, DNN_A_ENGINE_BEHAVIOR, DNN_T_BEHAVIOR, 16, &n, notes)) {
        yes = false;
        for (int64_t i = 0; i < n && i < 16; i++)
            yes = yes || notes[i] == DNN_BEHAVIOR_COMPILES;
    }
    dnn->BackendDestroyDescriptor(engine);
    return yes;
}

static int finalise(const at_cudnn *dnn, void *handle, void *config, at_dnn_plan *out)
{
    void *plan = NULL;
    int64_t bytes = 0, n = 0;
    int st = dnn->BackendCreateDescriptor(DNN_PLAN, &plan);
    if (st) return st;
    st = dnn->BackendSetAttribute(plan, DNN_A_PLAN_HANDLE, DNN_T_HANDLE, 1, &handle);
    if (!st) st = dnn->BackendSetAttribute(plan, DNN_A_PLAN_CONFIG, DNN_T_DESC, 1, &config);
    if (!st) st = dnn->BackendFinalize(plan);
    if (!st) st = dnn->BackendGetAttribute(plan, DNN_A_PLAN_WORKSPACE, DNN_T_INT64, 1, &n, &bytes);
    if (st) {
        dnn->BackendDestroyDescriptor(plan);
        return st;
    }
    out->plan = plan;
    out->workspace = (size_t)bytes;
    return 0;
}

void at_dnn_plan_drop(const at_cudnn *dnn, at_dnn_plan *p)
{
    if (p->plan) dnn->BackendDestroyDescriptor(p->plan);
    p->plan = NULL;
}

// The first of the heuristic's engine configurations that finalises into a plan.
static int first_plan(at_dnn_build *b, void *handle, void *graph, int mode, at_dnn_plan *out)
{
    void *configs[TRIES];
    int n = configs_of(b, graph, mode, configs), st = b->status ? b->status : -1;
    for (int i = 0; i < n && st; i++)
        st = finalise(b->dnn, handle, configs[i], out);
    return st;
}

static void *graph_of(at_dnn_build *b, void *handle, void *const *ops, int n_ops)
{
    void *graph = at_dnn_desc(b, DNN_GRAPH);
    at_dnn_set(b, graph, DNN_A_GRAPH_OPS, DNN_T_DESC, n_ops, ops);
    at_dnn_set(b, graph, DNN_A_GRAPH_HANDLE, DNN_T_HANDLE, 1, &handle);
    at_dnn_finish(b, graph);
    return graph;
}

int at_dnn_plan_make(at_dnn_build *b, void *handle, void *const *ops, int n_ops, at_dnn_plan *out)
{
    void *graph = graph_of(b, handle, ops, n_ops);
    int st = b->status ? b->status : first_plan(b, handle, graph, DNN_HEUR_A, out);
    if (st && !b->status) st = first_plan(b, handle, graph, DNN_HEUR_FALLBACK, out);
    at_dnn_build_drop(b);
    return st;
}

int at_dnn_plans_make(at_dnn_build *b, void *handle, void *const *ops, int n_ops, size_t workspace,
                      at_dnn_plan *out, int max)
{
    void *configs[TRIES], *graph = graph_of(b, handle, ops, n_ops);
    int n = b->status ? 0 : configs_of(b, graph, DNN_HEUR_A, configs), made = 0;
    for (int i = 0; i < n && made < max; i++) {
        if (compiles(b->dnn, configs[i]) || finalise(b->dnn, handle, configs[i], &out[made]))
            continue;
        if (out[made].workspace > workspace)
            at_dnn_plan_drop(b->dnn, &out[made]);
        else
            made++;
    }
    if (!made && max && !b->status && !first_plan(b, handle, graph, DNN_HEUR_A, out)) made = 1;
    if (!made && max && !b->status && !first_plan(b, handle, graph, DNN_HEUR_FALLBACK, out))
        made = 1;
    if (made && out[0].workspace > workspace) {
        at_dnn_plan_drop(b->dnn, &out[0]);
        made = 0;
    }
    at_dnn_build_drop(b);
    return made;
}

int at_dnn_run(const at_cudnn *dnn, void *handle, const at_dnn_plan *p, void *const *addresses,
               void *workspace)
{
    void *pack = NULL;
    int st = dnn->BackendCreateDescriptor(DNN_PACK, &pack);
    if (st) return st;
    st = dnn->BackendSetAttribute(pack, DNN_A_PACK_UIDS, DNN_T_INT64, p->n, p->uids);
    if (!st)
        st = dnn->BackendSetAttribute(pack, DNN_A_PACK_POINTERS, DNN_T_POINTER, p->n, addresses);
    if (!st)
        st = dnn->BackendSetAttribute(pack, DNN_A_PACK_WORKSPACE, DNN_T_POINTER, 1, &workspace);
    if (!st) st = dnn->BackendFinalize(pack);
    if (!st) st = dnn->BackendExecute(handle, p->plan, pack);
    dnn->BackendDestroyDescriptor(pack);
    return st;
}
