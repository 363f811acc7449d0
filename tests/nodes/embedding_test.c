// SPDX-License-Identifier: Apache-2.0
// embedding_test.c - textual inversions in prompts. A file whose rows are the encoder's own rows of some
// words must give what the words give.
#include "world.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "weight/matrix.h"
#include "weight/safetensors.h"

#define CLIP                                                                                       \
    "'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors',"              \
    "'type':'stable_diffusion'}},"

enum { MAX_IDS = 8, WORDS = 2 };

static int64_t width;

static void put(const world *w, const char *name, const char *key, const float *rows, int64_t n,
                int64_t wide)
{
    at_st_out row = {key, AT_F32, 2, {n, wide}, rows};

    assert_int_equal(at_st_write(world_path(w, "models/embeddings/%s", name), &row, 1, NULL, 0),
                     AT_OK);
}

// Files: two.safetensors ("emb_params": the rows of two words), sub/deep.safetensors (the first of
// them), keyed.safetensors ("clip_g" of another width beside "clip_l"), wide.safetensors.
static void write_files(const world *w, const at_obj_clip *clip)
{
    const at_clip_encoder *e = &clip->enc[AT_TE_L];
    const at_weight *table =
        at_store_findf(at_encoder_store(e->encoder), "%s%s", at_encoder_prefix(e->encoder),
                       "text_model.embeddings.token_embedding.weight");
    at_ids ids = {0};
    at_matrix all = {0};
    float *rows, zeros[5] = {0};

    assert_non_null(table);
    assert_int_equal(at_tokenizer_encode(e->tokenizer, "red circle", 10, &ids), AT_OK);
    assert_true(ids.len >= WORDS && ids.len <= MAX_IDS);
    assert_int_equal(at_matrix_read(table, &all), AT_OK);
    width = all.cols;
    rows = at_alloc(ids.len * (size_t)width * sizeof *rows);
    assert_non_null(rows);
    for (size_t i = 0; i < ids.len; i++)
        memcpy(rows + (int64_t)i * width, all.v + ids.data[i] * width,
               (size_t)width * sizeof *rows);
    assert_int_equal(at_make_dirs(world_path(w, "models/embeddings/sub")), AT_OK);
    put(w, "two.safetensors", "emb_params", rows, (int64_t)ids.len, width);
    put(w, "sub/deep.safetensors", "emb_params", rows, (int64_t)ids.len, width);
    put(w, "wide.safetensors", "emb_params", zeros, 1, 5);
    const at_st_out both[] = {
        {"clip_g", AT_F32, 2, {1, 5}, zeros},
        {"clip_l", AT_F32, 2, {(int64_t)ids.len, width}, rows},
    };
    assert_int_equal(
        at_st_write(world_path(w, "models/embeddings/keyed.safetensors"), both, 2, NULL, 0), AT_OK);
    at_ids_free(&ids);
    at_matrix_free(&all);
    at_free(rows);
}

static int setup(void **state)
{
    if (world_open(state) != 0) return -1;
    world *w = *state;
    world_run(w, CLIP WORLD_CAPTURE("q", "['c',0]"));
    write_files(w, (const at_obj_clip *)world_object("q", "CLIP"));
    return 0;
}

static void quiet(void *ctx, at_log_level level, const char *id, const char *text)
{
    (void)level, (void)text;
    snprintf(ctx, 64, "%s", id);
}

// The encodings of two prompts.
static double distance(world *w, const char *a, const char *b)
{
    world_run(w, CLIP,
              world_nodes(
                  "'a':{'class_type':'CLIPTextEncode','inputs':{'text':'%s','clip':['c',0]}},", a),
              world_nodes(
                  "'b':{'class_type':'CLIPTextEncode','inputs':{'text':'%s','clip':['c',0]}},", b),
              WORLD_CAPTURE("qa", "['a',0]") ",", WORLD_CAPTURE("qb", "['b',0]"));
    return world_distance(world_cond("qa")->items[0].context, world_cond("qb")->items[0].context);
}

static void a_file_stands_for_its_words(void **state)
{
    static const char *const same[][2] = {
        {"a embedding:two", "a red circle"},
        {"embedding:two blue", "red circle blue"},
        {"embedding:two, blue", "red circle , blue"},
        {"(embedding:two:1.3) blue", "(red circle:1.3) blue"},
        {"a embedding:two.safetensors", "a red circle"},
        {"a embedding:deep", "a red circle"},
        {"a embedding:keyed", "a red circle"},
    };

    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        double d = distance(*state, same[i][0], same[i][1]);
        if (!(d < 1e-6)) fail_msg("\"%s\" is %g from \"%s\"", same[i][0], d, same[i][1]);
    }
    assert_true(distance(*state, "a embedding:two", "a") > 1e-3);
}

static void what_is_missing_or_of_another_width_is_left_out(void **state)
{
    static const struct {
        const char *a, *b, *warning;
    } cases[] = {
        {"a embedding:none circle", "a circle", "EMBEDDING-NONE"},
        {"a embedding:../two circle", "a circle", "EMBEDDING-NONE"},
        {"a embedding:wide", "a", "EMBEDDING-WIDTH"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char id[64] = "";
        at_log_set_writer(quiet, id);
        double d = distance(*state, cases[i].a, cases[i].b);
        at_log_set_writer(NULL, NULL);
        if (!(d < 1e-6)) fail_msg("\"%s\" is %g from \"%s\"", cases[i].a, d, cases[i].b);
        assert_string_equal(id, cases[i].warning);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_stands_for_its_words),
        cmocka_unit_test(what_is_missing_or_of_another_width_is_left_out),
    };
    return cmocka_run_group_tests_name("nodes.embedding", tests, setup, world_close);
}
