// SPDX-License-Identifier: Apache-2.0
// detect.c - which components lie in a file, under which prefix, and what they look like.
// Idea: every architecture row is tried under every prefix of its part; the first row that fits a
// prefix wins. Prefixes are facts of the field (comfyui-contract sections 7.1, 7.4, 7.5).
// Easy to get wrong: a checkpoint holds fragments of other models; a component is found by its
// first block, never by a final norm alone.
// Owns nothing.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "models/convert.h"

#define AT_ARCH(name) extern const at_arch at_arch_##name;
#include "models/arch_list.h"
#undef AT_ARCH

#define AT_ARCH(name) &at_arch_##name,
const at_arch *const at_arch_table[] = {
#include "models/arch_list.h"
};
#undef AT_ARCH
const size_t at_arch_count = AT_LEN(at_arch_table);

typedef struct prefix_row {
    at_part part;
    const char *prefix;
} prefix_row;

static const prefix_row prefixes[] = {
    {AT_PART_CONTROL, "control_model."},
    {AT_PART_CONTROL, ""},
    {AT_PART_DENOISER, "model.diffusion_model."},
    {AT_PART_DENOISER, "model.model."},
    {AT_PART_DENOISER, "net."},
    {AT_PART_DENOISER, "diffusion_model."},
    {AT_PART_DENOISER, "model."},
    {AT_PART_DENOISER, ""},
    {AT_PART_TEXT, "text_encoders.clip_l.transformer."},
    {AT_PART_TEXT, "text_encoders.clip_g.transformer."},
    {AT_PART_TEXT, "text_encoders.clip_h.transformer."},
    {AT_PART_TEXT, "text_encoders.t5xxl.transformer."},
    {AT_PART_TEXT, "cond_stage_model.transformer."},
    {AT_PART_TEXT, "cond_stage_model.model."},
    {AT_PART_TEXT, "conditioner.embedders.0.transformer."},
    {AT_PART_TEXT, "conditioner.embedders.0.model."},
    {AT_PART_TEXT, "conditioner.embedders.1.model."},
    {AT_PART_TEXT, "clip_l.transformer."},
    {AT_PART_TEXT, "t5xxl.transformer."},
    {AT_PART_TEXT, ""},
    {AT_PART_VAE, "first_stage_model."},
    {AT_PART_VAE, "vae."},
    {AT_PART_VAE, ""},
    {AT_PART_VISION, "visual."},
    {AT_PART_VISION, "embedder.model.visual."},
    {AT_PART_VISION, ""},
    {AT_PART_STYLE, ""},
    {AT_PART_GLIGEN, ""},
    {AT_PART_UPSCALER, ""},
    {AT_PART_UPSCALER, "params_ema."},
    {AT_PART_UPSCALER, "params."},
    {AT_PART_UPSCALER, "module."},
    {AT_PART_PHOTOMAKER, "id_encoder."},
    {AT_PART_PHOTOMAKER, ""},
};

const char *at_arch_name(const at_arch *a)
{
    return a->name;
}

const char *at_arch_title(const at_arch *a)
{
    return a->title;
}

const char *at_prediction_text(at_prediction p)
{
    switch (p) {
    case AT_PRED_EPS: return "noise";
    case AT_PRED_V: return "velocity (v)";
    case AT_PRED_EDM: return "EDM";
    case AT_PRED_CONST: return "rectified flow";
    case AT_PRED_X0: return "picture (x0)";
    case AT_PRED_IMG_TO_IMG: return "picture to picture";
    case AT_PRED_LCM: return "noise, consistent";
    case AT_PRED_COSMOS_RFLOW: return "rectified flow (Cosmos)";
    }
    return "";
}

void at_arch_sampling(const at_arch *a, at_store *s, const char *prefix, at_model_sampling *out)
{
    *out = a->sampling;
    if (a->sampling_of) a->sampling_of(s, prefix, out);
}

bool at_arch_f16(const at_arch *a)
{
    return a->f16;
}

bool at_arch_fits(const at_arch *a, at_store *s, const char *prefix)
{
    for (size_t i = 0; i < a->n_probes; i++) {
        bool there = at_store_findf(s, "%s%s", prefix, a->probes[i].key) != NULL;
        if (there == a->probes[i].absent) return false;
    }
    return !a->match || a->match(s, prefix);
}

// The first row of the table that fits a prefix.
static bool find_at(at_store *s, const prefix_row *p, at_found *out)
{
    for (size_t i = 0; i < at_arch_count; i++) {
        const at_arch *a = at_arch_table[i];
        if (a->part != p->part || !at_arch_fits(a, s, p->prefix)) continue;
        *out = (at_found){.arch = a, .part = a->part};
        snprintf(out->prefix, sizeof out->prefix, "%s", p->prefix);
        return true;
    }
    return false;
}

size_t at_detect(at_store *s, at_found *out, size_t max)
{
    size_t n = 0;
    bool bare_control = false; // a ControlNet without a prefix looks like the network it steers
    for (size_t p = 0; p < AT_LEN(prefixes) && n < max; p++) {
        bool bare = !*prefixes[p].prefix;
        if (bare_control && bare && prefixes[p].part == AT_PART_DENOISER) continue;
        if (!find_at(s, &prefixes[p], &out[n])) continue;
        if (bare && out[n].part == AT_PART_CONTROL) bare_control = true;
        n++;
    }
    return n;
}

bool at_detect_part(at_store *s, at_part part, const char *prefix, at_found *out)
{
    if (prefix) return find_at(s, &(prefix_row){part, prefix}, out);
    for (size_t p = 0; p < AT_LEN(prefixes); p++)
        if (prefixes[p].part == part && find_at(s, &prefixes[p], out)) return true;
    return false;
}

at_status at_found_missing(at_store *s, const at_found *f, char **out, size_t *count)
{
    return at_bound_problems(f->arch, s, f->prefix, out, count);
}

// --- facts for people --------------------------------------------------------------------------
typedef struct facts {
    at_fact *out;
    size_t n, max;
    at_fact spill; // what does not fit into the list goes here
} facts;

static at_fact *fact_new(facts *f, const char *name)
{
    at_fact *r = f->n < f->max ? &f->out[f->n++] : &f->spill;
    memset(r, 0, sizeof *r);
    snprintf(r->name, sizeof r->name, "%s", name);
    return r;
}

// Parameters, bytes and storage formats of all tensors below the prefix. Counters of scaled fp8
// files
// ("scale_weight", "scaled_fp8") are no parameters.
static void weight_facts(at_store *s, const char *prefix, facts *f)
{
    double elements[AT_DTYPE_COUNT] = {0}, total = 0, bytes = 0;
    for (size_t i = 0; i < at_store_count(s); i++) {
        const at_weight *w = at_store_at(s, i);
        if (!at_starts_with(w->name, prefix) || strstr(w->name, "scaled_fp8")) continue;
        if (at_ends_with(w->name, ".scale_weight") || at_ends_with(w->name, ".scale_input"))
            continue;
        elements[w->dtype] += (double)at_weight_elements(w);
        total += (double)at_weight_elements(w);
        bytes += (double)w->bytes;
    }
    at_fact *r = fact_new(f, "parameters");
    if (total >= 1e9)
        snprintf(r->value, sizeof r->value, "%.2f billion", total / 1e9);
    else
        snprintf(r->value, sizeof r->value, "%.2f million", total / 1e6);
    r = fact_new(f, "storage");
    for (int t = 0, len = 0; t < AT_DTYPE_COUNT; t++) {
        if (elements[t] <= 0 || len >= (int)sizeof r->value - 1) continue;
        len += snprintf(r->value + len, sizeof r->value - (size_t)len, "%s%s %.3g%%",
                        len ? ", " : "", at_dtype_name((at_dtype)t), 100 * elements[t] / total);
    }
    r = fact_new(f, "bytes");
    at_human_bytes(bytes, r->value);
}

// Sizes of the config; nothing if they cannot be read.
static void size_facts(const at_arch *a, at_store *s, const char *prefix, facts *f)
{
    void *config = at_calloc(1, a->config_size ? a->config_size : 1);

    if (config && at_read_sizes(s, prefix, a->sizes, a->n_sizes, config) == AT_OK &&
        (!a->measure || !a->measure(s, prefix, config))) {
        for (size_t i = 0; i < a->n_sizes; i++) {
            const at_size_row *r = &a->sizes[i];
            long long v = at_size_at(config, 1 + r->offset);
            at_fact *row = fact_new(f, r->name);
            if (r->how == AT_SIZE_HAS)
                snprintf(row->value, sizeof row->value, "%s", v ? "yes" : "no");
            else
                snprintf(row->value, sizeof row->value, "%lld", v);
        }
    }
    at_free(config);
}

static void sampling_facts(const at_arch *a, at_store *s, const char *prefix, facts *f)
{
    at_model_sampling ms;
    at_arch_sampling(a, s, prefix, &ms);
    snprintf(fact_new(f, "prediction")->value, sizeof f->out->value, "%s%s%s",
             at_prediction_text(ms.prediction),
             ms.kind == AT_SIGMA_CONTINUOUS_EDM ? ", continuous" : "",
             ms.zsnr ? ", zero terminal SNR" : "");
    snprintf(fact_new(f, "latent")->value, sizeof f->out->value, "%s", a->latent->name);
}

size_t at_found_facts(at_store *s, const at_found *found, at_fact *out, size_t max)
{
    facts f = {.out = out, .max = max};
    const at_arch *a = found->arch;
    const char *prefix = found->prefix;
    at_store *as = NULL;

    if (at_arch_resolve(&a, s, &prefix, &as) != AT_OK) as = at_store_retain(s);
    snprintf(fact_new(&f, "architecture")->value, sizeof out->value, "%s", a->title);
    if (a != found->arch)
        snprintf(fact_new(&f, "layout")->value, sizeof out->value, "%s", found->arch->title);
    if (!a->convert) size_facts(a, as, prefix, &f);
    if (a->part == AT_PART_DENOISER && !a->convert) sampling_facts(a, as, prefix, &f);
    weight_facts(as, prefix, &f);
    at_store_release(&as);
    return f.n;
}
