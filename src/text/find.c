// SPDX-License-Identifier: Apache-2.0
// find.c - see find.h. A list of places, tried in order; the first that is there decides, also when it is
// broken: a vocabulary that silently comes from elsewhere would be worse than an error.
#include "text/find.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

typedef struct search {
    at_tokenizer_kind kind;
    at_str tried; // one place per line
    at_tokenizer *found;
} search;

static const char *const clip_files[] = {"vocab.json", "bpe_simple_vocab_16e6.txt", NULL};
static const char *const t5_files[] = {"spiece.model", NULL};
static const char *const clip_folders[] = {"clip", "clip_l", "tokenizer", NULL};
static const char *const t5_folders[] = {"t5", "t5xxl", "tokenizer_2", NULL};

static const char *const *folders(at_tokenizer_kind kind)
{
    return kind == AT_TOK_CLIP_BPE ? clip_folders : t5_folders;
}

static bool exists_in(const char *dir, const char *name)
{
    char *path = at_path_join(dir, name);
    bool there = path && at_path_exists(path);

    at_free(path);
    return there;
}

// vocab.json alone is not CLIP's vocabulary, and T5 models carry no vocab.json: check the pair.
static bool holds_vocabulary(at_tokenizer_kind kind, const char *dir)
{
    const char *const *names = kind == AT_TOK_CLIP_BPE ? clip_files : t5_files;

    for (int i = 0; names[i]; i++)
        if (exists_in(dir, names[i]) &&
            (strcmp(names[i], "vocab.json") != 0 || exists_in(dir, "merges.txt")))
            return true;
    return exists_in(dir, "tokenizer.json");
}

// tokenizer.json says of what kind it is; one of the other kind beside a model is no reason to stop.
static bool other_kind(at_tokenizer_kind kind, at_status st)
{
    return st == AT_EFORMAT &&
           strstr(at_error_text(), kind == AT_TOK_CLIP_BPE ? "CLIP's is BPE" : "T5's is Unigram");
}

// Takes `dir` (freed). Stops the search when it opened something or failed for good.
static at_status try_dir(search *s, char *dir)
{
    at_status st = AT_OK;

    if (!dir) return at_fail(AT_ENOMEM, "no memory to look for a vocabulary");
    if (!s->found) {
        at_str_printf(&s->tried, "\n  %s", dir);
        if (holds_vocabulary(s->kind, dir)) st = at_tokenizer_open(s->kind, dir, &s->found);
        if (other_kind(s->kind, st)) st = AT_OK;
    }
    at_free(dir);
    return st;
}

// `dir` itself, then its folders of our kind. Takes `dir`.
static at_status try_tree(search *s, char *dir)
{
    const char *const *names = folders(s->kind);
    at_status st = AT_OK;

    if (!dir) return at_fail(AT_ENOMEM, "no memory to look for a vocabulary");
    AT_TRY(try_dir(s, at_strdup(dir)));
    for (int i = 0; names[i]; i++)
        AT_TRY(try_dir(s, at_path_join(dir, names[i])));
out:
    at_free(dir);
    return st;
}

// The folder named like the model belongs to it alone, so it comes before the one that many share.
static at_status try_beside_model(search *s, const char *model)
{
    size_t n = strlen(model), ext = strlen(at_path_ext(model));
    at_status st = AT_OK;

    if (ext) AT_TRY(try_tree(s, at_strndup(model, n - ext)));
    AT_TRY(try_tree(s, at_path_dir(model)));
out:
    return st;
}

static at_status try_models_dir(search *s, const char *models)
{
    const char *comfy = s->kind == AT_TOK_CLIP_BPE ? "../comfy/sd1_tokenizer"
                                                   : "../comfy/text_encoders/t5_tokenizer";
    at_status st = AT_OK;

    AT_TRY(try_tree(s, at_path_join(models, "tokenizers")));
    AT_TRY(try_dir(s, at_path_join(models, comfy)));
out:
    return st;
}

// <prefix>/share/atelier/tokenizers, found from where the program lies (<prefix>/bin).
static at_status try_share(search *s)
{
    const char *name = s->kind == AT_TOK_CLIP_BPE ? "clip" : "t5", *set = getenv("ATELIER_SHARE");
    char exe[4096], *bin = NULL, *share = NULL;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    at_status st = AT_OK;

    if (set && *set) {
        share = at_path_join(set, "tokenizers");
        if (!share) AT_TRY(at_fail(AT_ENOMEM, "no memory to look for a vocabulary"));
        AT_TRY(try_dir(s, at_path_join(share, name)));
    }
    if (n <= 0) goto out;
    exe[n] = 0;
    at_free(share);
    bin = at_path_dir(exe);
    share = bin ? at_path_join(bin, "../share/atelier/tokenizers") : NULL;
    if (!share) AT_TRY(at_fail(AT_ENOMEM, "no memory to look for a vocabulary"));
    AT_TRY(try_dir(s, at_path_join(share, name)));
out:
    at_free(bin);
    at_free(share);
    return st;
}

static at_status not_found(const search *s)
{
    if (s->kind == AT_TOK_CLIP_BPE)
        return at_fail(
            AT_ENOTFOUND,
            "no CLIP vocabulary found. Put vocab.json and merges.txt of "
            "openai/clip-vit-large-patch14 (tokenizer) into one of the places below, or run "
            "tools/vocab/get_clip_vocab.sh FOLDER. Looked in:%s",
            at_str_text(&s->tried));
    return at_fail(
        AT_ENOTFOUND,
        "no T5 vocabulary found. Put tokenizer.json or spiece.model of google/t5-v1_1-xxl "
        "into one of the places below, or point --models at a ComfyUI checkout's models "
        "folder (it has one under comfy/text_encoders/t5_tokenizer). Looked in:%s",
        at_str_text(&s->tried));
}

at_status at_tokenizer_find(at_tokenizer_kind kind, const char *model_path,
                            const char *const *models_dirs, size_t dir_count, at_tokenizer **out)
{
    search s = {.kind = kind};
    at_status st = AT_OK;

    *out = NULL;
    if (model_path) AT_TRY(try_beside_model(&s, model_path));
    for (size_t i = 0; i < dir_count; i++)
        AT_TRY(try_models_dir(&s, models_dirs[i]));
    AT_TRY(try_share(&s));
    if (!s.found) AT_TRY(not_found(&s));
    *out = s.found;
    s.found = NULL;
out:
    at_tokenizer_release(&s.found);
    at_str_free(&s.tried);
    return st;
}
