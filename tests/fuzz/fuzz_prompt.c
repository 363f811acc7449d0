// SPDX-License-Identifier: Apache-2.0
// fuzz_prompt.c - bytes as a prompt: segments, then chunks of several layouts.
// Promises: no empty segment; a prompt without parentheses is one segment of weight 1; chunks have the
// length that was asked for and begin and end as asked.
#include <string.h>

#include "fuzz.h"
#include "text/prompt.h"

static at_tokenizer *tokenizer(void)
{
    static const char merges[] = "#version\na b\nc a\nca t</w>\n";
    static at_tokenizer *t;

    if (!t)
        FUZZ_CHECK(at_tokenizer_parse(AT_TOK_CLIP_BPE, "small", "bpe_simple_vocab_16e6.txt", merges,
                                      sizeof merges - 1, NULL, 0, &t) == AT_OK);
    return t;
}

static void segments(const char *text)
{
    at_segments s;
    size_t n = 0;

    FUZZ_CHECK(at_prompt_parse(text, &s) == AT_OK);
    for (size_t i = 0; i < s.count; i++) {
        FUZZ_CHECK(*s.items[i].text);
        n += strlen(s.items[i].text);
    }
    FUZZ_CHECK(n <= strlen(text));
    if (*text && !strpbrk(text, "()")) {
        FUZZ_CHECK(s.count == 1 && s.items[0].weight == 1);
        FUZZ_CHECK(!strcmp(s.items[0].text, text));
    }
    at_segments_free(&s);
}

static void chunks(const char *text, const at_chunking *how)
{
    at_chunks c;

    FUZZ_CHECK(at_prompt_chunks(tokenizer(), text, how, &c) == AT_OK);
    FUZZ_CHECK(c.count >= 1 && (how->max_length || c.count == 1));
    for (size_t i = 0; i < c.count; i++) {
        const at_chunk *k = &c.items[i];
        FUZZ_CHECK(how->max_length ? k->len == how->max_length : k->len >= how->min_length);
        if (how->has_bos) FUZZ_CHECK(k->ids[0] == how->bos);
        if (how->max_length)
            FUZZ_CHECK(k->ids[k->len - 1] == how->eos || k->ids[k->len - 1] == how->pad);
    }
    at_chunks_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    at_chunking clip = {.max_length = 77,
                        .has_bos = true,
                        .has_eos = true,
                        .bos = 515,
                        .eos = 516,
                        .pad = 0,
                        .max_word_length = 8,
                        .weights = true};
    at_chunking t5 = {.min_length = 16, .has_eos = true, .eos = 1, .weights = size % 2 == 0};
    at_chunking tiny = clip;

    FUZZ_CHECK(text);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    tiny.max_length = 3;
    segments(text);
    chunks(text, &clip);
    chunks(text, &t5);
    if (size < 4096) chunks(text, &tiny);
    free(text);
    return 0;
}
