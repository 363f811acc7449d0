// SPDX-License-Identifier: Apache-2.0
// scaled.c - see scaled.h.
// Easy to get wrong: the marker covers only names that begin with its prefix; a text encoder and a
// denoiser in one file each carry their own.
#include "weight/scaled.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "json/json.h"

#define MAX_DESCRIPTOR 65536 // bytes of one comfy_quant tensor
#define MAX_NAME       500   // bytes of a name that is looked at

static const char marker_name[] = "scaled_fp8";
static const char old_scale[] = ".scale_weight";
static const char new_scale[] = ".weight_scale";
static const char descriptor[] = ".comfy_quant";

static bool is_fp8(at_dtype t)
{
    return t == AT_F8E4M3 || t == AT_F8E5M2;
}

// True if a marker stands at some prefix of `name`: at the root or behind any of its dots.
static bool is_marked(at_store *s, const char *name)
{
    const char *dot = name;

    if (at_store_find(s, marker_name)) return true;
    while ((dot = strchr(dot, '.')) != NULL && dot - name < MAX_NAME) {
        dot++;
        if (at_store_findf(s, "%.*s%s", (int)(dot - name), name, marker_name)) return true;
    }
    return false;
}

// Fold one scale tensor into its weight.
static at_status fold(at_store *s, at_weight *w, const at_weight *scale)
{
    float v;

    if (at_weight_elements(scale) != 1)
        return at_fail(AT_EUNSUPPORTED,
                       "%s: %s holds %lld scales; atelier reads one scale per weight",
                       at_store_path(s), scale->name, (long long)at_weight_elements(scale));
    if (!at_dtype_is_float(scale->dtype))
        return at_fail(AT_EFORMAT, "%s: %s is not a floating point scale", at_store_path(s),
                       scale->name);
    at_weight_read_f32(scale, 0, 1, &v);
    if (!isfinite(v))
        return at_fail(AT_EFORMAT, "%s: %s is %g, not a number to multiply by", at_store_path(s),
                       scale->name, (double)v);
    w->scale = v;
    return AT_OK;
}

// `X.weight` for the first `n` bytes of a name, X.
static at_weight *weight_of(at_store *s, const char *x, size_t n)
{
    return at_store_findf(s, "%.*s.weight", (int)n, x);
}

static at_status fold_old(at_store *s, const at_weight *scale)
{
    at_weight *w = weight_of(s, scale->name, strlen(scale->name) - (sizeof old_scale - 1));

    return w && is_fp8(w->dtype) && is_marked(s, scale->name) ? fold(s, w, scale) : AT_OK;
}

// One layer of the new layout: `layer` (n bytes), its format by name.
static at_status fold_new(at_store *s, const char *layer, size_t n, const char *format)
{
    at_dtype want = AT_F8E4M3;
    const at_weight *scale;
    at_weight *w = weight_of(s, layer, n);

    if (!format || (strcmp(format, "float8_e4m3fn") != 0 && strcmp(format, "float8_e5m2") != 0))
        return at_fail(AT_EUNSUPPORTED,
                       "%s: layer %.*s is quantised as \"%.40s\"; atelier reads float8_e4m3fn and "
                       "float8_e5m2: take an fp8 or bf16 file of this model",
                       at_store_path(s), (int)n, layer, format ? format : "?");
    if (!strcmp(format, "float8_e5m2")) want = AT_F8E5M2;
    if (!w) return AT_OK; // the layer belongs to another file
    if (w->dtype != want)
        return at_fail(AT_EFORMAT, "%s: %s says %s, but the tensor is %s", at_store_path(s),
                       w->name, format, at_dtype_name(w->dtype));
    scale = at_store_findf(s, "%.*s%s", (int)n, layer, new_scale);
    return scale ? fold(s, w, scale) : AT_OK;
}

// A JSON object in the text of `what`. AT_EFORMAT, AT_ENOMEM.
static at_status load_object(const at_store *s, const char *what, const void *text, size_t n,
                             json_t **out)
{
    at_status st = at_json_load(what, text, n, out);

    if (st == AT_EWORKFLOW)
        return at_fail(AT_EFORMAT, "%s: %s is not a JSON object: %s", at_store_path(s), what,
                       at_error_text());
    if (st == AT_OK && !json_is_object(*out))
        return at_fail(AT_EFORMAT, "%s: %s is not a JSON object: another value", at_store_path(s),
                       what);
    return st;
}

static at_status fold_descriptor(at_store *s, const at_weight *d)
{
    json_t *root = NULL;
    at_status st = AT_OK;

    if (d->dtype != AT_U8 || d->bytes > MAX_DESCRIPTOR)
        return at_fail(AT_EFORMAT, "%s: %s must be at most %d bytes of u8", at_store_path(s),
                       d->name, MAX_DESCRIPTOR);
    AT_TRY(load_object(s, d->name, d->data, d->bytes, &root));
    AT_TRY(fold_new(s, d->name, strlen(d->name) - (sizeof descriptor - 1),
                    json_string_value(json_object_get(root, "format"))));
out:
    json_decref(root);
    return st;
}

// {"layers": {name: {"format": ...} or "format"}}
static at_status fold_metadata(at_store *s, const char *text)
{
    json_t *root = NULL, *entry;
    const char *name;
    at_status st = AT_OK;

    AT_TRY(load_object(s, "_quantization_metadata", text, strlen(text), &root));
    json_object_foreach(json_object_get(root, "layers"), name, entry)
    {
        const char *format = json_is_string(entry)
                                 ? json_string_value(entry)
                                 : json_string_value(json_object_get(entry, "format"));
        AT_TRY(fold_new(s, name, strlen(name), format));
    }
out:
    json_decref(root);
    return st;
}

// A weight_scale that nothing describes would be read as plain fp8: wrong pictures, so refuse.
static at_status refuse_unknown(at_store *s, const at_weight *scale)
{
    size_t n = strlen(scale->name) - (sizeof new_scale - 1);
    const at_weight *w = weight_of(s, scale->name, n);

    if (!w || (!is_fp8(w->dtype) && w->dtype != AT_U8 && w->dtype != AT_I8)) return AT_OK;
    return at_fail(AT_EUNSUPPORTED,
                   "%s: %s has a weight_scale, but nothing in the file says how it is quantised; "
                   "take ComfyUI's scaled fp8 file or a bf16 file of this model",
                   at_store_path(s), w->name);
}

at_status at_scaled_fold(at_store *s)
{
    const char *meta = at_store_metadata(s, "_quantization_metadata");
    size_t count = at_store_count(s);
    bool described = meta != NULL;
    at_status st = AT_OK;

    if (meta) AT_TRY(fold_metadata(s, meta));
    for (size_t i = 0; i < count; i++) {
        const at_weight *w = at_store_at(s, i);
        if (at_ends_with(w->name, old_scale)) {
            AT_TRY(fold_old(s, w));
        } else if (at_ends_with(w->name, descriptor)) {
            AT_TRY(fold_descriptor(s, w));
            described = true;
        }
    }
    for (size_t i = 0; i < count && !described; i++)
        if (at_ends_with(at_store_at(s, i)->name, new_scale))
            AT_TRY(refuse_unknown(s, at_store_at(s, i)));
out:
    return st;
}
