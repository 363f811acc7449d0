# SPDX-License-Identifier: Apache-2.0
"""Small tokenisers, trained here: CLIP's byte-level BPE and T5's unigram; and their reference results from
transformers (the slow CLIPTokenizer without ftfy, which is what ComfyUI runs; T5TokenizerFast) and sentencepiece.
"""
import collections
import io
import json
import os
import tempfile

import regex

from texts import CORPUS

CLIP_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


# ------------------------------------------------------------------ CLIP

def byte_alphabet():
    """Printable stand-ins for the 256 bytes, in CLIP's order of ids."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return [chr(b) for b in keep] + [chr(256 + i) for i in range(len(rest))]


def train_clip(folder, merges=320):
    """vocab.json and merges.txt in CLIP's layout: bytes, bytes</w>, merges, <|startoftext|>, <|endoftext|>.
    Plain byte-pair training: the most frequent pair first, ties in order of their text."""
    alphabet = byte_alphabet()
    stand_in = dict(zip([*range(33, 127), *range(161, 173), *range(174, 256)], alphabet))
    stand_in.update(zip((b for b in range(256) if b not in stand_in), alphabet[188:]))
    words = collections.Counter()
    for line in CORPUS:
        for word in regex.findall(CLIP_PATTERN, line.lower()):
            chars = [stand_in[b] for b in word.encode()]
            words[(*chars[:-1], chars[-1] + "</w>")] += 1
    pairs = []
    while len(pairs) < merges:
        count = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                count[pair] += n
        if not count:
            break
        best = min(count, key=lambda p: (-count[p], p))
        pairs.append(best)
        merged = collections.Counter()
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                step = 2 if word[i:i + 2] == best else 1
                out.append("".join(word[i:i + step]))
                i += step
            merged[tuple(out)] += n
        words = merged
    ids = alphabet + [a + "</w>" for a in alphabet] + ["".join(p) for p in pairs]
    ids += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(ids)) == len(ids)
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({w: i for i, w in enumerate(ids)}, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))


def clip_slow(folder):
    """What ComfyUI runs. ftfy must not be there: it would change the text."""
    import importlib.util
    from transformers import CLIPTokenizer
    assert importlib.util.find_spec("ftfy") is None, "uninstall ftfy: ComfyUI does not have it"
    t = CLIPTokenizer(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"))
    return lambda text: t(text)["input_ids"]


def clip_fast(folder):
    from transformers import CLIPTokenizerFast
    t = CLIPTokenizerFast(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"))
    return t.backend_tokenizer, lambda text: t(text)["input_ids"]


# ------------------------------------------------------------------ T5

def train_spiece(path, rules=None, size=360):
    """A sentencepiece unigram model with T5's settings. rules: [(from, to)] instead of nmt_nfkc."""
    import sentencepiece
    how, model = {"normalization_rule_name": "nmt_nfkc"}, io.BytesIO()
    with tempfile.TemporaryDirectory() as tmp:
        if rules:
            table = os.path.join(tmp, "rules.tsv")
            with open(table, "w", encoding="utf-8") as f:
                for a, b in rules:
                    f.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
            how = {"normalization_rule_tsv": table}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=size, model_type="unigram", pad_id=0, eos_id=1,
            unk_id=2, bos_id=-1, character_coverage=1.0, num_threads=1, minloglevel=2, hard_vocab_limit=False, **how)
    with open(path, "wb") as f:
        f.write(model.getvalue())


def small_rules():
    """A part of NFKC, so that tokenizer.json stays small: accents, ligatures, full width, spaces, controls."""
    import unicodedata
    rules = {}
    ranges = [(0xA0, 0x180), (0x1E00, 0x1F00), (0x2000, 0x2070), (0x2100, 0x2200), (0x2460, 0x2480), (0x3000, 0x3001),
              (0xFB00, 0xFB07), (0xFF01, 0xFF5F)]
    for lo, hi in ranges:
        for c in map(chr, range(lo, hi)):
            to = unicodedata.normalize("NFKC", c)
            if to != c:
                rules[c] = to
            parts = unicodedata.normalize("NFD", c)
            if len(parts) > 1 and lo < 0x2000:
                rules[parts] = unicodedata.normalize("NFC", c)
    for c in "\t\n\r\u2028\u2029\u2003":
        rules[c] = " "
    for c in [chr(i) for i in [*range(1, 9), *range(0xE, 0x20), 0x7F]] + ["\u200b", "\ufeff"]:
        rules[c] = ""
    return sorted(rules.items())


def sentencepiece_ids(path):
    """sentencepiece itself, with the EOS that T5 adds."""
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=path, add_eos=True)
    return lambda text: sp.encode(text)


def t5_fast(path):
    """T5TokenizerFast as ComfyUI has it (legacy off, 100 extra ids), converted from a sentencepiece model."""
    from transformers import T5Tokenizer, T5TokenizerFast
    from transformers.convert_slow_tokenizer import T5Converter
    slow = T5Tokenizer(path, legacy=False, extra_ids=100)
    t = T5TokenizerFast(tokenizer_object=T5Converter(slow).converted(), legacy=False, extra_ids=100)
    return t.backend_tokenizer, lambda text: t(text)["input_ids"]


def t5_slow(path):
    from transformers import T5Tokenizer
    t = T5Tokenizer(path, legacy=False, extra_ids=100)
    return lambda text: t(text)["input_ids"]
