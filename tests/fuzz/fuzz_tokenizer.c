// SPDX-License-Identifier: Apache-2.0
// fuzz_tokenizer.c - bytes as a vocabulary, then text through it.
// Input: one letter for the format (see formats), the file's bytes; for 'v' a NUL stands between vocab.json
// and merges.txt. The last bytes of the input are one of the texts.
// Promises: ids are vocabulary entries; the same text gives the same ids twice.
#include <string.h>

#include "fuzz.h"
#include "text/tokenizer.h"

static const struct {
    char letter;
    at_tokenizer_kind kind;
    const char *format;
} formats[] = {{'b', AT_TOK_CLIP_BPE, "tokenizer.json"},
               {'v', AT_TOK_CLIP_BPE, "vocab.json"},
               {'s', AT_TOK_CLIP_BPE, "bpe_simple_vocab_16e6.txt"},
               {'u', AT_TOK_T5_UNIGRAM, "tokenizer.json"},
               {'p', AT_TOK_T5_UNIGRAM, "spiece.model"}};

static void encode(const at_tokenizer *t, const char *text, size_t n)
{
    at_ids a = {0}, b = {0};
    at_status first = at_tokenizer_encode(t, text, n, &a);

    FUZZ_CHECK(at_tokenizer_encode(t, text, n, &b) == first);
    FUZZ_CHECK(a.len == b.len && (a.len == 0 || !memcmp(a.data, b.data, a.len * sizeof *a.data)));
    for (size_t i = 0; i < a.len; i++)
        FUZZ_CHECK(a.data[i] >= 0 && a.data[i] < at_tokenizer_vocab_size(t));
    at_ids_free(&a);
    at_ids_free(&b);
}

static void encode_texts(const at_tokenizer *t, const uint8_t *data, size_t size)
{
    static const char *const texts[] = {
        "", "a photo of a cat", "  It's \xc3\x89T\xc3\x89, 12\xe7\x8b\x90 \xf0\x9f\x98\x80!! ",
        "</s><extra_id_0> <|endoftext|>\xe2\x96\x81x", "\xff\xfe\x00\x01\xce\xa3\xce\xa3"};
    size_t tail = size < 48 ? size : 48;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        encode(t, texts[i], strlen(texts[i]));
    encode(t, (const char *)data + size - tail, tail);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *second = NULL;
    size_t second_size = 0, n;
    at_tokenizer *t;

    if (size < 1) return 0;
    n = size - 1;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (data[0] != formats[i].letter) continue;
        if (data[0] == 'v') {
            second = memchr(data + 1, 0, n);
            if (!second) return 0;
            n = (size_t)(second - data - 1);
            second++;
            second_size = size - n - 2;
        }
        if (at_tokenizer_parse(formats[i].kind, "fuzz", formats[i].format, data + 1, n, second,
                               second_size, &t) != AT_OK)
            return 0;
        encode_texts(t, data, size);
        at_tokenizer_release(&t);
    }
    return 0;
}
