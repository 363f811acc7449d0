// SPDX-License-Identifier: Apache-2.0
// kit_nodes.c - small nodes with the faces that the recorded traces show, and some with bad
// manners. A picture here is its size and colour: enough to see what travelled where.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "kit.h"

typedef struct picture {
    at_object base;
    int64_t width, height, batch, color;
} picture;

static void picture_free(at_object *o)
{
    at_free(o);
}
static const at_object_type image_type = {"IMAGE", picture_free},
                            mask_type = {"MASK", picture_free},
                            latent_type = {"LATENT", picture_free};

static at_status give(const at_object_type *type, int64_t w, int64_t h, int64_t batch,
                      int64_t color, at_value *out)
{
    picture *p = at_calloc(1, sizeof *p);

    if (!p) return at_fail(AT_ENOMEM, "no memory for a picture");
    *p = (picture){{1, type}, w, h, batch, color};
    *out = at_value_object(&p->base);
    return AT_OK;
}

static kit_env *begin(at_node_ctx *c)
{
    kit_env *env = at_node_engine(c);
    size_t used = strlen(env->log);

    env->runs++;
    if (env->runs == env->cancel_at_run) atomic_store(&env->cancel, true);
    snprintf(env->log + used, sizeof env->log - used, "%s ", at_node_id(c));
    return env;
}

#define ROW(st, field, kind, ...)                                                                  \
    {                                                                                              \
        .name = #field, .type = kind, .offset = offsetof(st, field), __VA_ARGS__                   \
    }
#define INT_ROW(st, field, d, lo, hi)                                                              \
    ROW(st, field, AT_IN_INT, .def = d, .min = lo, .max = hi, .step = 1,                           \
        .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP)
#define LINK_ROW(st, field, TYPE, f) ROW(st, field, AT_IN_OBJECT, .type_name = TYPE, .flags = f)
#define NODE(name, in_rows, out_rows, st, ...)                                                     \
    {                                                                                              \
        .class_type = name, .python_module = "nodes", .in = in_rows, .n_in = AT_COUNT(in_rows),    \
        .out = out_rows, .n_out = AT_COUNT(out_rows), .in_size = sizeof(st), __VA_ARGS__           \
    }
#define SINK(name, in_rows, st, ...)                                                               \
    {                                                                                              \
        .class_type = name, .python_module = "nodes", .in = in_rows, .n_in = AT_COUNT(in_rows),    \
        .in_size = sizeof(st), .flags = AT_NODE_OUTPUT, __VA_ARGS__                                \
    }

static const at_out image_out[] = {{.type_name = "IMAGE"}};
static const at_out mask_out[] = {{.type_name = "MASK"}};
static const at_out latent_out[] = {{.type_name = "LATENT"}};
static const at_out int_out[] = {{.type_name = "INT"}};
static const at_out any_out[] = {{.type_name = "*"}};

// --- EmptyImage, EmptyLatentImage, StubMask, ImageScale -----------------------------------------
typedef struct empty_in {
    int64_t width, height, batch_size, color;
} empty_in;
static const at_in empty_rows[] = {
    INT_ROW(empty_in, width, 512, 1, 16384), INT_ROW(empty_in, height, 512, 1, 16384),
    ROW(empty_in, batch_size, AT_IN_INT, .def = 1, .min = 1, .max = 4096,
        .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX),
    ROW(empty_in, color, AT_IN_INT, .max = 16777215, .step = 1, .display = "color",
        .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP)};
static at_status empty_run(at_node_ctx *c, const void *p, at_value *out)
{
    const empty_in *in = p;
    begin(c);
    return give(&image_type, in->width, in->height, in->batch_size, in->color, out);
}
static const at_node empty_image =
    NODE("EmptyImage", empty_rows, image_out, empty_in, .category = "image", .run = empty_run);

static const at_in latent_rows[] = {INT_ROW(empty_in, width, 512, 16, 16384),
                                    INT_ROW(empty_in, height, 512, 16, 16384),
                                    INT_ROW(empty_in, batch_size, 1, 1, 4096)};
static at_status latent_run(at_node_ctx *c, const void *p, at_value *out)
{
    const empty_in *in = p;
    begin(c);
    return give(&latent_type, in->width / 8, in->height / 8, in->batch_size, 0, out);
}
static const at_node empty_latent =
    NODE("EmptyLatentImage", latent_rows, latent_out, empty_in, .run = latent_run);

typedef struct mask_in {
    double value;
    int64_t height, width, batch_size;
} mask_in;
static const at_in mask_rows[] = {
    ROW(mask_in, value, AT_IN_FLOAT, .def = 0.5, .max = 1, .step = 0.01,
        .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_HAS_STEP),
    INT_ROW(mask_in, height, 512, 1, 4096), INT_ROW(mask_in, width, 512, 1, 4096),
    INT_ROW(mask_in, batch_size, 1, 1, 4096)};
static at_status mask_run(at_node_ctx *c, const void *p, at_value *out)
{
    const mask_in *in = p;
    begin(c);
    return give(&mask_type, in->width, in->height, in->batch_size, (int64_t)(in->value * 1000),
                out);
}
static const at_node stub_mask = NODE("StubMask", mask_rows, mask_out, mask_in, .run = mask_run);

typedef struct scale_in {
    at_object *image;
    const char *upscale_method, *crop;
    int64_t width, height;
} scale_in;
static const char *const methods[] = {"nearest-exact", "bilinear", "area",
                                      "bicubic",       "lanczos",  NULL};
static const char *const crops[] = {"disabled", "center", NULL};
static const at_in scale_rows[] = {
    LINK_ROW(scale_in, image, "IMAGE", AT_INF_NO_OPTIONS),
    ROW(scale_in, upscale_method, AT_IN_COMBO, .choices = methods, .flags = AT_INF_NO_OPTIONS),
    INT_ROW(scale_in, width, 512, 0, 16384), INT_ROW(scale_in, height, 512, 0, 16384),
    ROW(scale_in, crop, AT_IN_COMBO, .choices = crops, .flags = AT_INF_NO_OPTIONS)};
static at_status scale_run(at_node_ctx *c, const void *p, at_value *out)
{
    const scale_in *in = p;
    begin(c);
    return give(&image_type, in->width, in->height, 1, 0, out);
}
static const at_node image_scale =
    NODE("ImageScale", scale_rows, image_out, scale_in, .run = scale_run);

// --- SaveImage, PreviewImage, SaveImageWebsocket ------------------------------------------------
typedef struct save_in {
    at_object *images;
    const char *filename_prefix, *prompt, *extra_pnginfo;
} save_in;
static const at_in save_rows[] = {
    LINK_ROW(save_in, images, "IMAGE", 0),
    ROW(save_in, filename_prefix, AT_IN_STRING, .sdef = "ComfyUI"),
    ROW(save_in, prompt, AT_IN_STRING, .type_name = "PROMPT", .flags = AT_INF_HIDDEN),
    ROW(save_in, extra_pnginfo, AT_IN_STRING, .type_name = "EXTRA_PNGINFO",
        .flags = AT_INF_HIDDEN)};
static at_status save_run(at_node_ctx *c, const void *p, at_value *out)
{
    const save_in *in = p;
    const picture *image = (const picture *)in->images;
    kit_env *env = begin(c);
    const char *slash = strrchr(in->filename_prefix, '/');
    const char *name = slash ? slash + 1 : in->filename_prefix;
    at_str s = {0};
    at_status st;

    (void)out;
    if (!in->prompt) return at_fail(AT_EINTERNAL, "no prompt");
    at_str_append(&s, "{\"images\": [{\"filename\": \"");
    for (; *name; name++) {
        if (at_starts_with(name, "%width%")) {
            at_str_printf(&s, "%d", (int)image->width);
            name += 6;
        } else if (at_starts_with(name, "%batch_num%")) {
            at_str_append(&s, "0");
            name += 10;
        } else {
            at_str_append_n(&s, name, 1);
        }
    }
    at_str_printf(&s, "_%05d_.png\", \"subfolder\": \"%.*s\", \"type\": \"output\"}]}",
                  ++env->saved, slash ? (int)(slash - in->filename_prefix) : 0,
                  in->filename_prefix);
    st = s.failed ? at_fail(AT_ENOMEM, "no memory") : at_node_ui(c, at_str_text(&s));
    at_str_free(&s);
    return st;
}
static const at_node save_image = SINK("SaveImage", save_rows, save_in, .run = save_run);

static const at_in preview_rows[] = {
    LINK_ROW(save_in, images, "IMAGE", AT_INF_NO_OPTIONS),
    ROW(save_in, prompt, AT_IN_STRING, .type_name = "PROMPT", .flags = AT_INF_HIDDEN)};
static at_status preview_run(at_node_ctx *c, const void *p, at_value *out)
{
    (void)p;
    (void)out;
    begin(c);
    return at_node_ui(c, "{\"images\": [{\"filename\": \"ComfyUI_temp_sibim_00001_.png\", "
                         "\"subfolder\": \"\", \"type\": \"temp\"}]}");
}
static const at_node preview_image =
    SINK("PreviewImage", preview_rows, save_in, .run = preview_run);

static const at_in websocket_rows[] = {LINK_ROW(save_in, images, "IMAGE", AT_INF_NO_OPTIONS)};
static at_status websocket_run(at_node_ctx *c, const void *p, at_value *out)
{
    const picture *image = (const picture *)((const save_in *)p)->images;

    (void)out;
    begin(c);
    for (int64_t i = 0; i < image->batch; i++)
        at_node_progress(c, (double)i, (double)image->batch);
    return AT_OK;
}
static const at_node websocket =
    SINK("SaveImageWebsocket", websocket_rows, save_in, .run = websocket_run);

// --- TestLazyMixImages, TestSleep ---------------------------------------------------------------
typedef struct mix_in {
    at_object *image1, *image2, *mask;
} mix_in;
static const at_in mix_rows[] = {LINK_ROW(mix_in, image1, "IMAGE", AT_INF_LAZY),
                                 LINK_ROW(mix_in, image2, "IMAGE", AT_INF_LAZY),
                                 LINK_ROW(mix_in, mask, "MASK", AT_INF_NO_OPTIONS)};
static at_status mix_lazy(at_node_ctx *c, const void *p)
{
    const mix_in *in = p;
    int64_t mask = ((const picture *)in->mask)->color;
    at_status st = AT_OK;

    if (!in->image1 && mask != 1000) st = at_node_need(c, "image1");
    if (st == AT_OK && !in->image2 && mask != 0) st = at_node_need(c, "image2");
    return st;
}
static at_status mix_run(at_node_ctx *c, const void *p, at_value *out)
{
    const mix_in *in = p;
    const picture *a = (const picture *)in->image1, *b = (const picture *)in->image2;

    begin(c);
    if (a && b && a->width != b->width) {
        return at_fail(AT_EINTERNAL,
                       "The size of tensor a (%d) must match the size of tensor b (%d) at "
                       "non-singleton dimension 2",
                       (int)b->width, (int)a->width);
    }
    if (!a) a = b;
    return give(&image_type, a->width, a->height, a->batch, a->color, out);
}
static const at_node lazy_mix =
    NODE("TestLazyMixImages", mix_rows, image_out, mix_in, .run = mix_run, .lazy = mix_lazy);

typedef struct sleep_in {
    at_value value;
    double seconds;
} sleep_in;
static const at_in sleep_rows[] = {ROW(sleep_in, value, AT_IN_ANY),
                                   ROW(sleep_in, seconds, AT_IN_FLOAT, .def = 1)};
static at_status sleep_run(at_node_ctx *c, const void *p, at_value *out)
{
    begin(c);
    if (at_sink_cancelled(at_node_sink(c))) return at_fail(AT_ECANCELLED, "asked to stop");
    *out = at_value_copy(&((const sleep_in *)p)->value);
    return AT_OK;
}
static const at_node test_sleep =
    NODE("TestSleep", sleep_rows, any_out, sleep_in, .run = sleep_run);

// --- numbers, lists, blockers -------------------------------------------------------------------
typedef struct number_in {
    int64_t a, b;
    const char *text;
} number_in;
static const at_in range_rows[] = {ROW(number_in, a, AT_IN_INT), ROW(number_in, b, AT_IN_INT)};
static at_status range_run(at_node_ctx *c, const void *p, at_value *out)
{
    const number_in *in = p;
    at_status st = AT_OK;

    (void)out;
    begin(c);
    for (int64_t i = in->a; i < in->b && st == AT_OK; i++)
        st = at_node_emit(c, 0, at_value_int(i));
    return st;
}
static const at_out int_list_out[] = {{.type_name = "INT", .is_list = true}};
static const at_node int_range =
    NODE("IntRange", range_rows, int_list_out, number_in, .run = range_run);

static at_status add_run(at_node_ctx *c, const void *p, at_value *out)
{
    const number_in *in = p;
    begin(c);
    out[0] = at_value_int(in->a + in->b);
    return AT_OK;
}
static const at_node int_add = NODE("IntAdd", range_rows, int_out, number_in, .run = add_run);

typedef struct sum_in {
    at_values a, b;
} sum_in;
static const at_in sum_rows[] = {ROW(sum_in, a, AT_IN_INT),
                                 ROW(sum_in, b, AT_IN_INT, .flags = AT_INF_OPTIONAL)};
static at_status sum_run(at_node_ctx *c, const void *p, at_value *out)
{
    const sum_in *in = p;
    int64_t sum = 0;

    begin(c);
    for (size_t i = 0; i < in->a.count; i++)
        sum += in->a.items[i].i;
    out[0] = at_value_int(sum * 1000 + (int64_t)in->b.count);
    return AT_OK;
}
static const at_node int_sum =
    NODE("IntSum", sum_rows, int_out, sum_in, .run = sum_run, .flags = AT_NODE_INPUT_IS_LIST);

// Numbers below b are blocked; a text is the blocker's message.
static const at_in block_rows[] = {ROW(number_in, a, AT_IN_INT), ROW(number_in, b, AT_IN_INT),
                                   ROW(number_in, text, AT_IN_STRING, .flags = AT_INF_OPTIONAL)};
static at_status block_run(at_node_ctx *c, const void *p, at_value *out)
{
    const number_in *in = p;
    begin(c);
    out[0] = in->a < in->b ? at_value_blocker(in->text) : at_value_int(in->a);
    if (in->a < in->b && !out[0].kind) return at_fail(AT_ENOMEM, "no memory for a blocker");
    return AT_OK;
}
static const at_node block_below =
    NODE("BlockBelow", block_rows, int_out, number_in, .run = block_run);

static const at_in show_rows[] = {ROW(number_in, a, AT_IN_INT)};
static at_status show_run(at_node_ctx *c, const void *p, at_value *out)
{
    char text[64];

    (void)out;
    begin(c);
    snprintf(text, sizeof text, "{\"numbers\": [%d]}", (int)((const number_in *)p)->a);
    return at_node_ui(c, text);
}
static const at_node show_int = SINK("ShowInt", show_rows, number_in, .run = show_run);

static at_status fail_run(at_node_ctx *c, const void *p, at_value *out)
{
    const number_in *in = p;

    begin(c);
    out[0] = at_value_int(1); // to be released by the caller
    if (in->a == in->b) return at_fail(AT_ENOTFOUND, "no number %d", (int)in->a);
    if (in->a == -1) return at_fail(AT_ENOMEM, "Allocation on device");
    return AT_OK;
}
static const at_node fail_node =
    NODE("FailIfEqual", range_rows, int_out, number_in, .run = fail_run);

// --- files, validators, fingerprints ------------------------------------------------------------
typedef struct file_in {
    const char *image, *model, *id;
    uint64_t seed;
    bool flag;
} file_in;
static const at_in file_rows[] = {
    ROW(file_in, image, AT_IN_COMBO, .list = "input", .flags = AT_INF_IMAGE_UPLOAD)};
static at_status file_validate(at_node_ctx *c, const void *p)
{
    const char *image = ((const file_in *)p)->image;

    if (at_node_linked(c, "image") || (image && strncmp(image, "missing", 7) != 0)) return AT_OK;
    return at_fail(AT_EINVAL, "Invalid image file: %s", image ? image : "none");
}
static at_status file_fingerprint(at_node_ctx *c, const void *p, char **out)
{
    kit_env *env = at_node_engine(c);

    (void)p;
    if (!env->fingerprint) return at_fail(AT_EIO, "cannot read");
    *out = at_strdup(env->fingerprint);
    return *out ? AT_OK : at_fail(AT_ENOMEM, "no memory for a fingerprint");
}
static at_status file_run(at_node_ctx *c, const void *p, at_value *out)
{
    (void)p;
    begin(c);
    return give(&image_type, 8, 8, 1, 1, out);
}
static const at_node file_node = NODE("FileNode", file_rows, image_out, file_in, .run = file_run,
                                      .validate = file_validate, .fingerprint = file_fingerprint);

static const at_in seed_rows[] = {
    ROW(file_in, seed, AT_IN_U64, .max = 18446744073709551615.0,
        .flags = AT_INF_HAS_MIN | AT_INF_HAS_MAX | AT_INF_CONTROL),
    ROW(file_in, model, AT_IN_COMBO, .list = "many", .flags = AT_INF_NO_OPTIONS),
    ROW(file_in, flag, AT_IN_BOOL), ROW(file_in, image, AT_IN_STRING, .flags = AT_INF_NO_DEFAULT)};
static at_status seed_run(at_node_ctx *c, const void *p, at_value *out)
{
    const file_in *in = p;
    char text[256];

    (void)out;
    begin(c);
    snprintf(text, sizeof text, "{\"seed\": [\"%llu\"], \"flag\": [%s], \"text\": [\"%s\"]}",
             (unsigned long long)in->seed, in->flag ? "true" : "false", in->image);
    return at_node_ui(c, text);
}
static const at_node seed_node = SINK("SeedNode", seed_rows, file_in, .run = seed_run);

static const char *const kinds[] = {"one", "two", NULL};
static const at_in v3_rows[] = {ROW(file_in, image, AT_IN_COMBO, .choices = kinds)};
static at_status v3_run(at_node_ctx *c, const void *p, at_value *out)
{
    (void)p;
    (void)out;
    begin(c);
    return AT_OK;
}
static const at_node v3_node = {.class_type = "V3Node",
                                .in = v3_rows,
                                .n_in = 1,
                                .in_size = sizeof(file_in),
                                .run = v3_run,
                                .flags = AT_NODE_V3 | AT_NODE_OUTPUT};

static const at_in id_rows[] = {
    ROW(file_in, id, AT_IN_STRING, .type_name = "UNIQUE_ID", .flags = AT_INF_HIDDEN)};
static at_status id_run(at_node_ctx *c, const void *p, at_value *out)
{
    begin(c);
    out[0] = at_value_string(((const file_in *)p)->id);
    return out[0].kind ? AT_OK : at_fail(AT_ENOMEM, "no memory for an id");
}
static const at_out string_out[] = {{.type_name = "STRING"}};
static const at_node id_node = NODE("IdNode", id_rows, string_out, file_in, .run = id_run);

static const at_in text_rows[] = {ROW(file_in, image, AT_IN_STRING)};
static at_status text_run(at_node_ctx *c, const void *p, at_value *out)
{
    at_str s = {0};
    json_t *text = json_string(((const file_in *)p)->image);
    at_status st;

    (void)out;
    begin(c);
    at_str_append(&s, "{\"text\": [");
    at_json_append(&s, text, 0);
    at_str_append(&s, "]}");
    st = s.failed || !text ? at_fail(AT_ENOMEM, "no memory") : at_node_ui(c, at_str_text(&s));
    json_decref(text);
    at_str_free(&s);
    return st;
}
static const at_node show_text = SINK("ShowText", text_rows, file_in, .run = text_run);

const at_node *const kit_nodes[] = {
    &empty_image, &empty_latent, &stub_mask, &image_scale, &save_image, &preview_image, &websocket,
    &lazy_mix,    &test_sleep,   &int_range, &int_add,     &int_sum,    &block_below,   &show_int,
    &fail_node,   &file_node,    &seed_node, &v3_node,     &id_node,    &show_text,     NULL};
