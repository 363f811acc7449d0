// SPDX-License-Identifier: Apache-2.0
// t5_spiece.c - a sentencepiece model file: a protobuf of pieces, trainer and normaliser settings.
// Format: sentencepiece_model.proto (sentencepiece 0.2) over protobuf's wire format: keys are
// field << 3 | type with types 0 varint, 1 eight bytes, 2 counted bytes, 5 four bytes.
// Owns nothing: fields point into the file's bytes.
#include <string.h>

#include "base/half.h"
#include "text/impl.h"

typedef struct reader {
    const char *label;
    const uint8_t *p, *end;
} reader;

typedef struct field {
    uint32_t number, type;
    uint64_t value;      // types 0, 1, 5
    const uint8_t *data; // type 2
    size_t n;
} field;

static at_status broken(const reader *r)
{
    return at_fail(AT_EFORMAT, "%s: the sentencepiece model is truncated or damaged", r->label);
}

static bool varint(reader *r, uint64_t *out)
{
    uint64_t v = 0;

    for (int shift = 0; shift < 64 && r->p < r->end; shift += 7) {
        uint8_t b = *r->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b & 0x80) continue;
        *out = v;
        return true;
    }
    return false;
}

static bool fixed(reader *r, size_t bytes, uint64_t *out)
{
    if ((size_t)(r->end - r->p) < bytes) return false;
    *out = 0;
    for (size_t i = bytes; i-- > 0;)
        *out = *out << 8 | r->p[i];
    r->p += bytes;
    return true;
}

// The next field; *done when there is none.
static at_status next_field(reader *r, field *f, bool *done)
{
    uint64_t key, n;
    bool ok = false;

    *f = (field){0};
    *done = r->p == r->end;
    if (*done) return AT_OK;
    if (!varint(r, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX) return broken(r);
    f->number = (uint32_t)(key >> 3);
    f->type = (uint32_t)(key & 7);
    if (f->type == 0)
        ok = varint(r, &f->value);
    else if (f->type == 1)
        ok = fixed(r, 8, &f->value);
    else if (f->type == 5)
        ok = fixed(r, 4, &f->value);
    else if (f->type == 2 && varint(r, &n) && n <= (uint64_t)(r->end - r->p)) {
        f->data = r->p;
        f->n = (size_t)n;
        r->p += n;
        ok = true;
    }
    return ok ? AT_OK : broken(r);
}

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static int byte_of(const char *text, size_t n)
{
    static const char hex[] = "0123456789ABCDEF";
    const char *a, *b;

    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || !text[3] || !text[4]) return -1;
    a = strchr(hex, text[3]);
    b = strchr(hex, text[4]);
    return a && b ? (int)((a - hex) * 16 + (b - hex)) : -1;
}

static at_status add_piece(at_tokenizer *t, const char *text, size_t n, float score, uint64_t type)
{
    int32_t id = (int32_t)t->vocab_size++;
    at_unigram *u = &t->t5.uni;
    int byte;

    switch (type) {
    case NORMAL: return at_unigram_add(u, text, n, id, (double)score, false);
    case USER_DEFINED: {
        at_status st = at_added_push(&t->added, text, n, (at_added_token){.id = id});
        return st == AT_OK ? at_unigram_add(u, text, n, id, (double)score, true) : st;
    }
    case UNKNOWN:
        if (u->unk >= 0)
            return at_fail(AT_EFORMAT, "%s: two unknown pieces, %d and %d", t->label, u->unk, id);
        u->unk = id;
        return AT_OK;
    case CONTROL:
        if (n == 4 && !memcmp(text, "</s>", 4)) t->eos = id;
        if (n == 5 && !memcmp(text, "<pad>", 5)) t->pad = id;
        return AT_OK;
    case UNUSED: return AT_OK;
    case BYTE:
        byte = byte_of(text, n);
        if (byte < 0) return at_fail(AT_EFORMAT, "%s: piece %d is no byte", t->label, id);
        u->byte_id[byte] = id;
        return AT_OK;
    default: return at_fail(AT_EFORMAT, "%s: piece %d is of unknown type", t->label, id);
    }
}

static at_status load_piece(at_tokenizer *t, const field *outer)
{
    reader r = {t->label, outer->data, outer->data + outer->n};
    const uint8_t *text = (const uint8_t *)"";
    size_t n = 0;
    float score = 0;
    uint64_t type = NORMAL;
    field f;
    bool done;
    at_status st = AT_OK;

    for (;;) {
        AT_TRY(next_field(&r, &f, &done));
        if (done) break;
        if (f.number == 1 && f.type == 2) text = f.data, n = f.n;
        if (f.number == 2 && f.type == 5) score = at_float_of((uint32_t)f.value);
        if (f.number == 3 && f.type == 0) type = f.value;
    }
    if (t->vocab_size >= 1 << 24) AT_TRY(at_fail(AT_EFORMAT, "%s: too many pieces", t->label));
    AT_TRY(add_piece(t, (const char *)text, n, score, type));
out:
    return st;
}

static at_status load_trainer(at_tokenizer *t, const field *outer)
{
    reader r = {t->label, outer->data, outer->data + outer->n};
    field f;
    bool done;
    at_status st = AT_OK;

    for (;;) {
        AT_TRY(next_field(&r, &f, &done));
        if (done) break;
        if (f.type != 0) continue;
        if (f.number == 3 && f.value != 1)
            AT_TRY(at_fail(AT_EUNSUPPORTED,
                           "%s: sentencepiece model type %llu; T5's is unigram (1)", t->label,
                           (unsigned long long)f.value));
        if (f.number == 24) t->t5.whitespace_suffix = f.value != 0;
        if (f.number == 35) t->t5.uni.byte_fallback = f.value != 0;
    }
out:
    return st;
}

static at_status load_normalizer(at_tokenizer *t, const field *outer)
{
    reader r = {t->label, outer->data, outer->data + outer->n};
    field f;
    bool done;
    at_status st = AT_OK;

    for (;;) {
        AT_TRY(next_field(&r, &f, &done));
        if (done) break;
        if (f.number == 2 && f.type == 2) {
            at_charsmap_free(&t->t5.map);
            AT_TRY(at_charsmap_load(t->label, f.data, f.n, &t->t5.map));
        }
        if (f.type != 0) continue;
        if (f.number == 3) t->t5.add_dummy_prefix = f.value != 0;
        if (f.number == 4) t->t5.remove_extra_whitespaces = f.value != 0;
        if (f.number == 5) t->t5.escape_whitespaces = f.value != 0;
    }
out:
    return st;
}

static at_status load_all(at_tokenizer *t, const uint8_t *data, size_t n)
{
    reader r = {t->label, data, data + n};
    field f;
    bool done;
    at_status st = AT_OK;

    for (;;) {
        AT_TRY(next_field(&r, &f, &done));
        if (done) break;
        if (f.type != 2) continue;
        if (f.number == 1) AT_TRY(load_piece(t, &f));
        if (f.number == 2) AT_TRY(load_trainer(t, &f));
        if (f.number == 3) AT_TRY(load_normalizer(t, &f));
    }
out:
    return st;
}

at_status at_t5_load_spiece(at_tokenizer *t, const uint8_t *data, size_t n)
{
    at_t5 *m = &t->t5;
    at_status st = AT_OK;

    memcpy(m->mark, "\xe2\x96\x81", 4);
    m->sentencepiece = m->uni.float_scores = true;
    m->add_dummy_prefix = m->remove_extra_whitespaces = m->escape_whitespaces = true;
    m->uni.unk = t->bos = t->eos = t->pad = -1;
    for (int i = 0; i < 256; i++)
        m->uni.byte_id[i] = -1;
    AT_TRY(load_all(t, data, n));
    if (m->uni.unk < 0) AT_TRY(at_fail(AT_EFORMAT, "%s: no unknown piece", t->label));
    if (t->eos < 0) AT_TRY(at_fail(AT_EFORMAT, "%s: no </s>: not a T5 vocabulary", t->label));
    for (int i = 0; i < 256; i++) {
        if (m->uni.byte_id[i] >= 0) continue;
        if (m->uni.byte_fallback)
            AT_TRY(
                at_fail(AT_EFORMAT, "%s: byte fallback without a piece for byte %d", t->label, i));
        m->uni.byte_id[i] = m->uni.unk;
    }
    AT_TRY(at_unigram_finish(&m->uni, t->label));
    at_added_sort(&t->added);
out:
    return st;
}
