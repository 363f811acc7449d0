// SPDX-License-Identifier: Apache-2.0
// node_loaders_clip.c - CLIPLoader, DualCLIPLoader, TripleCLIPLoader.
// Idea: the files say which encoders there are, `type` says how they are joined; as in ComfyUI a type
// counts only where the encoders leave a choice (one CLIP-H is Stable Diffusion 2's, whatever is asked).
// Source: ComfyUI 0.3.64 comfy/sd.py, load_text_encoder_state_dicts.
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "nodes/loaders.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

// --- encoders into places ------------------------------------------------------------------------
static const struct {
    const char *arch, *title;
} places[AT_TE_COUNT] = {[AT_TE_L] = {"clip_l", "CLIP-L"},
                         [AT_TE_G] = {"clip_g", "CLIP-G"},
                         [AT_TE_H] = {"clip_h", "CLIP-H"},
                         [AT_TE_T5] = {"t5", "T5"}};

static at_clip_encoder *place_of(at_clip_encoder enc[AT_TE_COUNT], const at_encoder *e)
{
    const char *name = at_arch_name(at_encoder_arch(e));
    for (int i = 0; i < AT_TE_COUNT; i++)
        if (strcmp(places[i].arch, name) == 0) return &enc[i];
    return NULL;
}

// The encoder found at `where` with its vocabulary, into its place.
static at_status load_encoder(at_env *e, at_store *s, const char *path, const at_found *where,
                              at_clip_encoder enc[AT_TE_COUNT])
{
    at_status st = AT_OK;
    at_clip_encoder one = {0}, *place;

    AT_TRY(at_encoder_load(s, where, &one.encoder));
    place = place_of(enc, one.encoder);
    if (!place || place->encoder)
        AT_TRY(at_fail(AT_EINVAL, "%s: %s %s text encoder", at_path_base(path),
                       place ? "a second" : "no place for a",
                       at_arch_name(at_encoder_arch(one.encoder))));
    AT_TRY(e->find_tokenizer(
        e, at_encoder_max_tokens(one.encoder) ? AT_TOK_CLIP_BPE : AT_TOK_T5_UNIGRAM, path,
        &one.tokenizer));
    *place = one;
    one = (at_clip_encoder){0};
out:
    at_clip_encoder_drop(&one);
    return st;
}

at_status at_load_encoders(at_env *e, at_store *s, const char *path,
                           at_clip_encoder enc[AT_TE_COUNT], size_t *loaded)
{
    at_status st = AT_OK;
    at_found found[8];
    size_t n = at_detect(s, found, AT_COUNT(found));

    *loaded = 0;
    for (size_t i = 0; i < n; i++) {
        if (found[i].part != AT_PART_TEXT) continue;
        AT_TRY(load_encoder(e, s, path, &found[i], enc));
        ++*loaded;
    }
out:
    return st;
}

void at_drop_encoders(at_clip_encoder enc[AT_TE_COUNT])
{
    for (size_t i = 0; i < AT_TE_COUNT; i++)
        at_clip_encoder_drop(&enc[i]);
}

// --- how they are joined -------------------------------------------------------------------------
enum { L = 1 << AT_TE_L, G = 1 << AT_TE_G, H = 1 << AT_TE_H, T5 = 1 << AT_TE_T5 };

static int held(const at_clip_encoder enc[AT_TE_COUNT])
{
    int set = 0;
    for (int i = 0; i < AT_TE_COUNT; i++)
        if (enc[i].encoder) set |= 1 << i;
    return set;
}

static const struct {
    int set;
    at_clip_kind kind;
} checkpoint_kinds[] = {{L, AT_CLIP_SD1},     {H, AT_CLIP_SD2},       {L | G, AT_CLIP_SDXL},
                        {G, AT_CLIP_REFINER}, {L | T5, AT_CLIP_FLUX}, {L | G | T5, AT_CLIP_SD3},
                        {T5, AT_CLIP_FLUX}};

at_status at_checkpoint_clip(at_clip_encoder enc[AT_TE_COUNT], const char *file, at_object **out)
{
    int set = held(enc);
    *out = NULL;
    for (size_t i = 0; i < AT_COUNT(checkpoint_kinds); i++) {
        if (checkpoint_kinds[i].set != set) continue;
        *out = at_obj_clip_new(checkpoint_kinds[i].kind, enc);
        return *out ? AT_OK : at_fail(AT_ENOMEM, "%s: no memory for a CLIP", file);
    }
    at_drop_encoders(enc);
    return at_fail(AT_EUNSUPPORTED, "%s: its text encoders belong to no model that is known", file);
}

// Which encoders make which kind for n files under a type; type NULL: any other.
typedef struct wiring {
    size_t files;
    int set; // all of them, no other; with `any`: some of them
    const char *type;
    at_clip_kind kind;
    bool any;
} wiring;

static const wiring wirings[] = {
    {1, L | G | T5, "sd3", AT_CLIP_SD3, true}, {1, H, NULL, AT_CLIP_SD2, false},
    {1, G, NULL, AT_CLIP_REFINER, false},      {1, L, NULL, AT_CLIP_SD1, false},
    {2, L | G | T5, "sd3", AT_CLIP_SD3, true}, {2, L | T5, "flux", AT_CLIP_FLUX, false},
    {2, L | G, "sdxl", AT_CLIP_SDXL, false},   {3, L | G | T5, NULL, AT_CLIP_SD3, false},
};

// Types whose models are not built: asking for them must not give something else.
static const char *const unbuilt[] = {"stable_cascade", "hidream", "hunyuan_video", "hunyuan_image",
                                      NULL};

static void name_set(int set, at_str *out)
{
    for (int i = 0; i < AT_TE_COUNT; i++)
        if (set & (1 << i))
            at_str_printf(out, "%s%s", at_str_text(out)[0] ? " and " : "", places[i].title);
    if (!set) at_str_append(out, "none");
}

static at_status fail_wiring(size_t n, int set, const char *type)
{
    at_status st = AT_EINVAL;
    at_str needs = {0}, has = {0};
    const char *file = n == 1 ? "file given holds" : "files given hold";

    name_set(set, &has);
    for (size_t i = 0; i < AT_COUNT(wirings); i++)
        if (wirings[i].files == n && wirings[i].type && strcmp(wirings[i].type, type) == 0)
            name_set(wirings[i].set, &needs);
    if (strcmp(type, "stable_diffusion") == 0 && n == 1)
        at_str_append(&needs, "CLIP-L, CLIP-G or CLIP-H");
    if (at_str_text(&needs)[0] || n == 3)
        st = at_fail(AT_EINVAL, "type \"%s\" needs %s; the %s %s", n == 3 ? "sd3" : type,
                     n == 3 ? "CLIP-L and CLIP-G and T5" : at_str_text(&needs), file,
                     at_str_text(&has));
    else
        st = at_fail(AT_EUNSUPPORTED,
                     "text encoders of type \"%s\" over %s are not built yet; CLIPLoader does "
                     "stable_diffusion (CLIP-L, CLIP-G, CLIP-H) and sd3, DualCLIPLoader sdxl, sd3 "
                     "and flux, TripleCLIPLoader sd3",
                     type, at_str_text(&has));
    at_str_free(&needs);
    at_str_free(&has);
    return st;
}

// Takes the places, also on failure.
static at_status wire(at_clip_encoder enc[AT_TE_COUNT], size_t n, const char *type, at_value *out)
{
    int set = held(enc);
    bool built = true;

    for (const char *const *u = unbuilt; *u; u++)
        built = built && strcmp(*u, type) != 0;
    for (size_t i = 0; i < AT_COUNT(wirings) && built; i++) {
        const wiring *w = &wirings[i];
        bool fits = w->any ? set && !(set & ~w->set) : set == w->set;
        if (w->files != n || !fits || (w->type && strcmp(w->type, type) != 0)) continue;
        return at_give(out, at_obj_clip_new(w->kind, enc), "CLIP");
    }
    at_drop_encoders(enc);
    return fail_wiring(n, set, type);
}

// --- files -----------------------------------------------------------------------------------------
static at_status load_file(at_env *e, at_store *s, const char *path,
                           at_clip_encoder enc[AT_TE_COUNT])
{
    size_t loaded = 0;
    at_status st = at_load_encoders(e, s, path, enc, &loaded);
    if (st == AT_OK && !loaded)
        st = at_fail(AT_EFORMAT,
                     "%s: no text encoder of a known kind in this file (CLIP-L, CLIP-G, CLIP-H or "
                     "a T5 v1.1 encoder is wanted); `atelier inspect` shows what it holds",
                     at_path_base(path));
    return st;
}

at_device *at_loader_device(at_node_ctx *c, const char *name)
{
    char text[160];
    at_device *d = name && strcmp(name, "default") != 0 ? at_device_find(name) : NULL;

    if (d || !name || strcmp(name, "default") == 0) return d;
    snprintf(text, sizeof text, "device: there is no %.32s here; the job's own device is taken",
             name);
    at_sink_emit(at_node_sink(c),
                 &(at_event){.kind = AT_EV_NOTE, .node = at_node_id(c), .text = text});
    return NULL;
}

at_status at_load_clip_files(at_node_ctx *c, const char *const *names, size_t n, const char *type,
                             at_device *device, at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    at_clip_encoder enc[AT_TE_COUNT] = {0};
    at_store *s = NULL;
    char *path = NULL;

    for (size_t i = 0; i < n; i++) {
        AT_TRY(at_env_open(e, "text_encoders", names[i], &path, &s));
        AT_TRY(load_file(e, s, path, enc));
        at_store_release(&s);
        at_free(path);
        path = NULL;
    }
    AT_TRY(wire(enc, n, type, out));
    ((at_obj_clip *)out->o)->device = device;
out:
    at_drop_encoders(enc);
    at_store_release(&s);
    at_free(path);
    return st;
}

at_status at_load_clip_paths(at_node_ctx *c, const char *const *paths, size_t n, const char *type,
                             at_value *out)
{
    at_status st = AT_OK;
    at_env *e = at_env_of(c);
    at_clip_encoder enc[AT_TE_COUNT] = {0};
    at_store *s = NULL;

    for (size_t i = 0; i < n; i++) {
        AT_TRY(e->open_store(e, paths[i], &s));
        AT_TRY(load_file(e, s, paths[i], enc));
        at_store_release(&s);
    }
    AT_TRY(wire(enc, n, type, out));
out:
    at_drop_encoders(enc);
    at_store_release(&s);
    return st;
}

// --- CLIPLoader --------------------------------------------------------------------------------------
static const at_out clip_out[] = {AT_OUT("CLIP")};
static const char *const clip_devices[] = {"default", "cpu", NULL};
const char *const at_clip_types[] = {
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi",  "ltxv", "pixart",
    "cosmos",           "lumina2",        "wan", "hidream",      "chroma", "ace",  "omnigen2",
    "qwen_image",       "hunyuan_image",  NULL};
const char *const at_dual_clip_types[] = {"sdxl",    "sd3",           "flux", "hunyuan_video",
                                          "hidream", "hunyuan_image", NULL};

typedef struct clip_in {
    const char *clip_name, *type, *device;
} clip_in;
static const at_in clip_rows[] = {
    AT_ROW(clip_in, clip_name, AT_IN_COMBO, .list = "text_encoders", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(clip_in, type, AT_IN_COMBO, .choices = at_clip_types, .flags = AT_INF_NO_OPTIONS),
    AT_ROW(clip_in, device, AT_IN_COMBO, .choices = clip_devices,
           .flags = AT_INF_OPTIONAL | AT_INF_ADVANCED),
};
static at_status clip_run(at_node_ctx *c, const void *in, at_value *out)
{
    const clip_in *i = in;
    return at_load_clip_files(c, &i->clip_name, 1, i->type, at_loader_device(c, i->device), out);
}
static const at_node node_clip = {.class_type = "CLIPLoader",
                                  .display = "Load CLIP",
                                  .category = "advanced/loaders",
                                  .python_module = "nodes",
                                  .in = clip_rows,
                                  .n_in = AT_COUNT(clip_rows),
                                  .out = clip_out,
                                  .n_out = 1,
                                  .in_size = sizeof(clip_in),
                                  .run = clip_run};

// --- DualCLIPLoader ----------------------------------------------------------------------------------
typedef struct dual_in {
    const char *clip_name1, *clip_name2, *type, *device;
} dual_in;
static const at_in dual_rows[] = {
    AT_ROW(dual_in, clip_name1, AT_IN_COMBO, .list = "text_encoders", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(dual_in, clip_name2, AT_IN_COMBO, .list = "text_encoders", .flags = AT_INF_NO_OPTIONS),
    AT_ROW(dual_in, type, AT_IN_COMBO, .choices = at_dual_clip_types, .flags = AT_INF_NO_OPTIONS),
    AT_ROW(dual_in, device, AT_IN_COMBO, .choices = clip_devices,
           .flags = AT_INF_OPTIONAL | AT_INF_ADVANCED),
};
static at_status dual_run(at_node_ctx *c, const void *in, at_value *out)
{
    const dual_in *i = in;
    return at_load_clip_files(c, (const char *const[]){i->clip_name1, i->clip_name2}, 2, i->type,
                              at_loader_device(c, i->device), out);
}
static const at_node node_dual = {.class_type = "DualCLIPLoader",
                                  .display = "DualCLIPLoader",
                                  .category = "advanced/loaders",
                                  .python_module = "nodes",
                                  .in = dual_rows,
                                  .n_in = AT_COUNT(dual_rows),
                                  .out = clip_out,
                                  .n_out = 1,
                                  .in_size = sizeof(dual_in),
                                  .run = dual_run};

// --- TripleCLIPLoader --------------------------------------------------------------------------------
typedef struct triple_in {
    const char *clip_name1, *clip_name2, *clip_name3;
} triple_in;
static const at_in triple_rows[] = {
    AT_ROW(triple_in, clip_name1, AT_IN_COMBO, .list = "text_encoders"),
    AT_ROW(triple_in, clip_name2, AT_IN_COMBO, .list = "text_encoders"),
    AT_ROW(triple_in, clip_name3, AT_IN_COMBO, .list = "text_encoders"),
};
static at_status triple_run(at_node_ctx *c, const void *in, at_value *out)
{
    const triple_in *i = in;
    const char *const names[] = {i->clip_name1, i->clip_name2, i->clip_name3};
    return at_load_clip_files(c, names, AT_COUNT(names), "stable_diffusion", NULL, out);
}
static const at_node node_triple = {.class_type = "TripleCLIPLoader",
                                    .category = "advanced/loaders",
                                    .python_module = "comfy_extras.nodes_sd3",
                                    .flags = AT_NODE_V3,
                                    .in = triple_rows,
                                    .n_in = AT_COUNT(triple_rows),
                                    .out = clip_out,
                                    .n_out = 1,
                                    .in_size = sizeof(triple_in),
                                    .run = triple_run};

const at_node *const at_nodes_loaders_clip[] = {&node_clip, &node_dual, &node_triple, NULL};
