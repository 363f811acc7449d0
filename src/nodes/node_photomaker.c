// SPDX-License-Identifier: Apache-2.0
// node_photomaker.c - PhotoMakerLoader, PhotoMakerEncode.
// Idea: the word "photomaker" stands behind the word for a person; word i of the prompt (from 1) is
// taken for group i of its tokens, which goes, and place i - 1 of the text becomes the person.
// Easy to get wrong, all as ComfyUI 0.3.64 does it:
//   - words are what single blanks part (two blanks have an empty word between them), but a group
//     is a whole stretch of one weight: without weights the prompt is group 1, so nothing goes
//     unless it begins with "photomaker", and then everything does
//   - "photomaker," and "(photomaker" are other words; without the word the text stays as it is
//   - of several pictures the first counts; the text must be one chunk of 77 tokens
//   - the result has no hooks of the CLIP
// Source: ComfyUI 0.3.64 comfy_extras/nodes_photomaker.py, comfy/sd1_clip.py.
// Owns: a PHOTOMAKER object owns its model.
#include <limits.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "models/photomaker.h"
#include "nodes/encode.h"
#include "nodes/env.h"
#include "nodes/look.h"
#include "nodes/nodes.h"
#include "nodes/rows.h"

#define CATEGORY "_for_testing/photomaker"
#define MODULE   "comfy_extras.nodes_photomaker"
enum { TOKENS = 77 };

typedef struct obj_photomaker {
    at_object base;
    at_photomaker *net;
} obj_photomaker;

static void photomaker_free(at_object *self)
{
    at_photomaker_free(((obj_photomaker *)self)->net);
    at_free(self);
}
static const at_object_type photomaker_type = {"PHOTOMAKER", photomaker_free};

static at_object *photomaker_new(at_photomaker *net)
{
    obj_photomaker *p = at_calloc(1, sizeof *p);
    if (!p) {
        at_photomaker_free(net);
        return NULL;
    }
    atomic_init(&p->base.refs, 1);
    p->base.type = &photomaker_type;
    p->net = net;
    return &p->base;
}

// --- PhotoMakerLoader --------------------------------------------------------------------------
typedef struct load_in {
    const char *photomaker_model_name;
} load_in;
static const at_in load_rows[] = {
    AT_ROW(load_in, photomaker_model_name, AT_IN_COMBO, .list = "photomaker")};
static const at_out load_out[] = {AT_OUT("PHOTOMAKER")};
static at_status load_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const char *name = ((const load_in *)in)->photomaker_model_name;
    at_store *s = NULL;
    at_photomaker *p = NULL;

    AT_TRY(at_env_open(at_env_of(c), "photomaker", name, NULL, &s));
    AT_TRY(at_photomaker_load(s, at_path_base(name), &p));
    AT_TRY(at_give(out, photomaker_new(p), "PhotoMakerLoader"));
out:
    at_store_release(&s);
    return st;
}
static const at_node node_load = {.class_type = "PhotoMakerLoader",
                                  .category = CATEGORY,
                                  .python_module = MODULE,
                                  .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                  .in = load_rows,
                                  .n_in = AT_COUNT(load_rows),
                                  .out = load_out,
                                  .n_out = 1,
                                  .in_size = sizeof(load_in),
                                  .run = load_run};

// --- PhotoMakerEncode --------------------------------------------------------------------------
typedef struct encode_in {
    at_object *photomaker, *image, *clip;
    const char *text;
} encode_in;
static const at_in encode_rows[] = {
    AT_ROW_LINK(encode_in, photomaker, "PHOTOMAKER"),
    AT_ROW_LINK(encode_in, image, "IMAGE"),
    AT_ROW_LINK(encode_in, clip, "CLIP"),
    AT_ROW(encode_in, text, AT_IN_STRING, .sdef = "photograph of photomaker",
           .flags = AT_INF_MULTILINE | AT_INF_DYNAMIC),
};
static const at_out encode_out[] = {AT_OUT("CONDITIONING")};

// Which word the trigger is, from 1; 0: none.
static int trigger_word(const char *text)
{
    static const char trigger[] = "photomaker";
    const size_t n = sizeof trigger - 1;
    for (int word = 1;; word++) {
        const char *blank = strchr(text, ' ');
        size_t length = blank ? (size_t)(blank - text) : strlen(text);
        if (length == n && !memcmp(text, trigger, n)) return word;
        if (!blank || word == INT_MAX) return 0;
        text = blank + 1;
    }
}

// The text with the person of the first picture in its place `place`; *text is replaced.
static at_status fuse(at_ops *o, const encode_in *i, int64_t place, const at_tensor **text)
{
    const at_photomaker *net = ((const obj_photomaker *)i->photomaker)->net;
    const at_tensor *image = ((const at_obj_image *)i->image)->pixels;

    if ((*text)->shape[1] != TOKENS)
        return at_fail(AT_EINVAL,
                       "PhotoMakerEncode: the text has %lld tokens, %d are wanted; use a shorter "
                       "prompt",
                       (long long)(*text)->shape[1], TOKENS);
    if (place >= TOKENS) return AT_OK; // nobody is put anywhere
    at_tensor *pixels = at_look_pixels(o, at_photomaker_eyes(net), image, true);
    pixels = at_contiguous(o, at_narrow(o, pixels, 0, 0, 1));
    *text = at_photomaker_fuse(o, net, *text, place, pixels);
    return at_ops_status(o);
}

static at_status encode_run(at_node_ctx *c, const void *in, at_value *out)
{
    at_status st = AT_OK;
    const encode_in *i = in;
    at_ops *there = NULL, *o = NULL;
    at_object *plain = NULL, *cond = NULL;
    int word = trigger_word(i->text);
    at_prompt_texts texts = {.env = at_env_of(c), .drop_group = word};

    if (!i->clip)
        AT_TRY(at_fail(AT_EINVAL, "PhotoMakerEncode: clip is None: the checkpoint holds no text "
                                  "encoder"));
    for (int k = 0; k < AT_TE_COUNT; k++)
        texts.text[k] = i->text;
    AT_TRY(at_encode_open(c, (const at_obj_clip *)i->clip, &there));
    AT_TRY(at_encode_texts(there, (const at_obj_clip *)i->clip, &texts, &plain));
    AT_TRY(at_env_ops(c, &o));
    const at_cond *from = ((const at_obj_cond *)plain)->items;
    const at_tensor *text = from->context;
    if (word) AT_TRY(fuse(o, i, word - 1, &text));
    cond = at_obj_cond_new(1);
    if (!cond) AT_TRY(at_fail(AT_ENOMEM, "PhotoMakerEncode: no memory"));
    at_cond *to = ((at_obj_cond *)cond)->items;
    to->context =
        text == from->context ? at_tensor_retain(text) : at_ops_keep(o, (at_tensor *)text);
    to->pooled = at_tensor_retain(from->pooled);
    *out = at_value_object(cond);
    cond = NULL;
out:
    at_object_release(cond);
    at_object_release(plain);
    at_ops_free(there);
    at_ops_free(o);
    return st;
}
static const at_node node_encode = {.class_type = "PhotoMakerEncode",
                                    .category = CATEGORY,
                                    .python_module = MODULE,
                                    .flags = AT_NODE_V3 | AT_NODE_EXPERIMENTAL,
                                    .in = encode_rows,
                                    .n_in = AT_COUNT(encode_rows),
                                    .out = encode_out,
                                    .n_out = 1,
                                    .in_size = sizeof(encode_in),
                                    .run = encode_run};

const at_node *const at_nodes_photomaker[] = {&node_load, &node_encode, NULL};
