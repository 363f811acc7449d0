// SPDX-License-Identifier: Apache-2.0
// pickle_names.c - the callables that a pickle may name, and what each stands for.
// Idea: a row per name. Tensors are rebuilt from a storage, an offset, a shape and strides; containers
// become ours; names that old checkpoints carry along (trainers' callbacks, numpy scalars) become
// opaque values.
// Easy to get wrong: a view's strides come from the file: whether they stay inside the storage is
// checked by who opens the storage.
#include <string.h>

#include "base/mem.h"
#include "weight/pickle_impl.h"

typedef enum meaning {
    DICT,
    TENSOR,    // storage, offset, size, stride, ...
    TENSOR_V3, // storage, offset, size, stride, requires_grad, hooks, dtype
    FIRST,     // a parameter: its first argument
    STORAGE,   // a storage type: of `dtype`
    BYTES,     // the untyped storage
    DTYPE,
    OPAQUE
} meaning;

static const struct {
    const char *module, *name;
    meaning is;
    at_dtype dtype;
} names[] = {
    {"collections", "OrderedDict", DICT, 0},
    {"torch._utils", "_rebuild_tensor", TENSOR, 0},
    {"torch._utils", "_rebuild_tensor_v2", TENSOR, 0},
    {"torch._utils", "_rebuild_tensor_v3", TENSOR_V3, 0},
    {"torch._utils", "_rebuild_parameter", FIRST, 0},
    {"torch._utils", "_rebuild_parameter_with_state", FIRST, 0},
    {"torch.nn.parameter", "Parameter", FIRST, 0},
    {"torch", "Size", FIRST, 0},
    {"torch", "FloatStorage", STORAGE, AT_F32},
    {"torch", "DoubleStorage", STORAGE, AT_F64},
    {"torch", "HalfStorage", STORAGE, AT_F16},
    {"torch", "BFloat16Storage", STORAGE, AT_BF16},
    {"torch", "LongStorage", STORAGE, AT_I64},
    {"torch", "IntStorage", STORAGE, AT_I32},
    {"torch", "ShortStorage", STORAGE, AT_I16},
    {"torch", "CharStorage", STORAGE, AT_I8},
    {"torch", "ByteStorage", STORAGE, AT_U8},
    {"torch", "BoolStorage", STORAGE, AT_BOOL},
    {"torch", "UntypedStorage", BYTES, AT_U8},
    {"torch.storage", "UntypedStorage", BYTES, AT_U8},
    {"torch.storage", "_UntypedStorage", BYTES, AT_U8},
    {"torch", "float32", DTYPE, AT_F32},
    {"torch", "float64", DTYPE, AT_F64},
    {"torch", "float16", DTYPE, AT_F16},
    {"torch", "bfloat16", DTYPE, AT_BF16},
    {"torch", "float8_e4m3fn", DTYPE, AT_F8E4M3},
    {"torch", "float8_e5m2", DTYPE, AT_F8E5M2},
    {"torch", "int64", DTYPE, AT_I64},
    {"torch", "int32", DTYPE, AT_I32},
    {"torch", "int16", DTYPE, AT_I16},
    {"torch", "int8", DTYPE, AT_I8},
    {"torch", "uint8", DTYPE, AT_U8},
    {"torch", "bool", DTYPE, AT_BOOL},
    {"torch", "device", OPAQUE, 0},
    {"torch.serialization", "_get_layout", OPAQUE, 0},
    {"builtins", "set", OPAQUE, 0},
    {"__builtin__", "set", OPAQUE, 0},
    {"builtins", "complex", OPAQUE, 0},
    {"_codecs", "encode", OPAQUE, 0},
    {"numpy.core.multiarray", "scalar", OPAQUE, 0},
    {"numpy._core.multiarray", "scalar", OPAQUE, 0},
    {"numpy", "dtype", OPAQUE, 0},
    {"numpy.dtypes", "Float64DType", OPAQUE, 0},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", OPAQUE, 0},
};

at_status at_pm_global(at_pm *m, const char *module, const char *name, at_pv *out)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].module, module) != 0 || strcmp(names[i].name, name) != 0) continue;
        *out = (at_pv){.kind = AT_PV_GLOBAL, .i = (int64_t)i, .dtype = names[i].dtype};
        if (names[i].is == DTYPE) out->kind = AT_PV_DTYPE;
        return AT_OK;
    }
    return at_fail(AT_EUNSUPPORTED,
                   "%s: it asks for the Python object %.80s.%.80s; only tensors and plain "
                   "containers are read from such files. Get the model as safetensors",
                   m->label, module, name);
}

// --- tensors ---------------------------------------------------------------------------------------
static const at_pv *arg(at_pm *m, const at_pv *args, size_t i)
{
    return i < args->count ? at_pm_at(m, args->items[i]) : NULL;
}

// A tuple or list of counts.
static at_status counts(at_pm *m, const at_pv *v, int64_t out[AT_MAX_RANK], int *n)
{
    if (!v || (v->kind != AT_PV_TUPLE && v->kind != AT_PV_LIST) || v->count > AT_MAX_RANK)
        return at_pm_bad(m, "a tensor's shape is no list of up to 6 numbers");
    for (size_t i = 0; i < v->count; i++) {
        const at_pv *x = at_pm_at(m, v->items[i]);
        if (x->kind != AT_PV_INT || x->i < 0) return at_pm_bad(m, "a tensor's shape is negative");
        out[i] = x->i;
    }
    *n = (int)v->count;
    return AT_OK;
}

static at_status rebuild(at_pm *m, const at_pv *args, const at_pv *dtype)
{
    const at_pv *storage = arg(m, args, 0), *offset = arg(m, args, 1);
    at_pv v = {.kind = AT_PV_TENSOR};
    int rank = 0, strides = 0;
    uint32_t index, from;
    at_status st = AT_OK;

    if (!storage || storage->kind != AT_PV_STORAGE || !offset || offset->kind != AT_PV_INT ||
        offset->i < 0 || (dtype && dtype->kind != AT_PV_DTYPE))
        return at_pm_bad(m, "a tensor has no storage or no offset");
    from = args->items[0];
    v.dtype = dtype ? dtype->dtype : storage->dtype;
    v.tensor = at_calloc(1, sizeof *v.tensor);
    if (!v.tensor) return at_fail(AT_ENOMEM, "%s: no memory for a tensor", m->label);
    v.tensor->offset = offset->i;
    AT_TRY(counts(m, arg(m, args, 2), v.tensor->shape, &rank));
    AT_TRY(counts(m, arg(m, args, 3), v.tensor->stride, &strides));
    if (rank != strides) AT_TRY(at_pm_bad(m, "a tensor has another number of strides than sizes"));
    v.tensor->rank = rank;
    AT_TRY(at_pm_value(m, &v, &index));
    v.tensor = NULL;
    AT_TRY(at_pm_items(m, index, &from, 1));
out:
    at_free(v.tensor);
    return st;
}

// OrderedDict() or OrderedDict([(key, value), ...])
static at_status make_dict(at_pm *m, const at_pv *args)
{
    uint32_t index, pair[2];
    size_t n = 0;
    const uint32_t *pairs = NULL;
    at_status st = AT_OK;

    if (args->count > 0) {
        const at_pv *list = arg(m, args, 0);
        if (list->kind != AT_PV_LIST && list->kind != AT_PV_TUPLE)
            return at_pm_bad(m, "an OrderedDict of no list");
        n = list->count;
        pairs = list->items; // items stay where they are while values are added
    }
    AT_TRY(at_pm_value(m, &(at_pv){.kind = AT_PV_DICT}, &index));
    for (size_t i = 0; i < n; i++) {
        const at_pv *p = at_pm_at(m, pairs[i]);
        if ((p->kind != AT_PV_TUPLE && p->kind != AT_PV_LIST) || p->count != 2)
            AT_TRY(at_pm_bad(m, "an OrderedDict of no pairs"));
        memcpy(pair, p->items, sizeof pair);
        AT_TRY(at_pm_items(m, index, pair, 2));
    }
out:
    return st;
}

at_status at_pm_reduce(at_pm *m)
{
    uint32_t args_index = 0, fn_index = 0, index;
    at_status st = AT_OK;

    AT_TRY(at_pm_pop(m, &args_index));
    AT_TRY(at_pm_pop(m, &fn_index));
    at_pv args = *at_pm_at(m, args_index), fn = *at_pm_at(m, fn_index);
    if (args.kind != AT_PV_TUPLE) AT_TRY(at_pm_bad(m, "arguments that are no tuple"));
    if (fn.kind == AT_PV_OPAQUE) return at_pm_value(m, &(at_pv){.kind = AT_PV_OPAQUE}, &index);
    if (fn.kind != AT_PV_GLOBAL) AT_TRY(at_pm_bad(m, "a call of what cannot be called"));
    switch (names[fn.i].is) {
    case DICT: AT_TRY(make_dict(m, &args)); break;
    case TENSOR: AT_TRY(rebuild(m, &args, NULL)); break;
    case TENSOR_V3:
        if (args.count < 7) AT_TRY(at_pm_bad(m, "a tensor without a dtype"));
        AT_TRY(rebuild(m, &args, arg(m, &args, 6)));
        break;
    case FIRST:
        if (!args.count) AT_TRY(at_pm_bad(m, "a parameter without a tensor"));
        AT_TRY(at_pm_push(m, args.items[0]));
        break;
    default: AT_TRY(at_pm_value(m, &(at_pv){.kind = AT_PV_OPAQUE}, &index)); break;
    }
out:
    return st;
}

// ("storage", type, key, device, elements[, view])
at_status at_pm_storage(at_pm *m)
{
    uint32_t id_index = 0, index;
    at_status st = AT_OK;

    AT_TRY(at_pm_pop(m, &id_index));
    at_pv id = *at_pm_at(m, id_index);
    const at_pv *what, *type, *key, *n, *view;
    if (id.kind != AT_PV_TUPLE || id.count < 5) return at_pm_bad(m, "an unknown persistent id");
    what = arg(m, &id, 0), type = arg(m, &id, 1), key = arg(m, &id, 2), n = arg(m, &id, 4);
    view = arg(m, &id, 5);
    if (what->kind != AT_PV_STRING || strcmp(what->text, "storage") != 0 ||
        type->kind != AT_PV_GLOBAL ||
        (names[type->i].is != STORAGE && names[type->i].is != BYTES) || key->kind != AT_PV_STRING ||
        n->kind != AT_PV_INT || n->i < 0)
        AT_TRY(at_pm_bad(m, "an unknown persistent id"));
    if (view && view->kind != AT_PV_NONE)
        AT_TRY(at_fail(AT_EUNSUPPORTED,
                       "%s: a storage is a view of another one (a file of torch "
                       "before 0.4); save it again with a current torch",
                       m->label));
    const char *name = key->text, *copy; // values move when one is added, their texts do not
    AT_TRY(
        at_pm_value(m, &(at_pv){.kind = AT_PV_STORAGE, .dtype = type->dtype, .i = n->i}, &index));
    AT_TRY(at_pm_text(m, name, strlen(name), &copy));
    at_pm_at(m, index)->text = copy;
out:
    return st;
}
