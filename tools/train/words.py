# SPDX-License-Identifier: Apache-2.0
# words.py - the two tokenizers of the house model: built from captions once, then read from models/.
# CLIP: byte-level BPE with "</w>", lower case, ids in CLIP's own order (bytes, bytes</w>, merges, start, end), 77 ids padded
# with the end id. T5: SentencePiece-like Unigram (pad 0, </s> 1, unk 2), every printable ASCII character in it, 64 ids.
# "python3 words.py" writes both into models/text_encoders/.
import json
import math
import os
import random
import re
from collections import Counter

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "text_encoders")
CLIP_LEN, T5_LEN = 77, 64


def byte_alphabet():
    """GPT-2's printable stand-in for every byte, in CLIP's order."""
    bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    cs, n = bs[:], 0
    for b in range(256):
        if b not in bs:
            bs.append(b)
            cs.append(256 + n)
            n += 1
    return dict(zip(bs, map(chr, cs)))


class ClipWords:
    def __init__(self, root=ROOT):
        base = os.path.join(root, "house_clip_l")
        with open(os.path.join(base, "vocab.json"), encoding="utf-8") as f:
            self.ids = json.load(f)
        with open(os.path.join(base, "merges.txt"), encoding="utf-8") as f:
            merges = [tuple(line.split()) for line in f.read().split("\n")[1:] if line]
        self.rank = {m: i for i, m in enumerate(merges)}
        self.bytes = byte_alphabet()
        self.known = {}
        self.cut = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")
        self.bos, self.eos = self.ids["<|startoftext|>"], self.ids["<|endoftext|>"]

    def word(self, w):
        if w not in self.known:
            parts = [self.bytes[b] for b in w.encode()]
            parts[-1] += "</w>"
            while len(parts) > 1:
                at = min(range(len(parts) - 1), key=lambda i: self.rank.get((parts[i], parts[i + 1]), 1 << 30))
                pair = (parts[at], parts[at + 1])
                if pair not in self.rank:
                    break
                out, i = [], 0
                while i < len(parts):
                    if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
                        out.append(parts[i] + parts[i + 1])
                        i += 2
                    else:
                        out.append(parts[i])
                        i += 1
                parts = out
            self.known[w] = [self.ids[p] for p in parts]
        return self.known[w]

    def __call__(self, text):
        ids = [self.bos]
        for w in self.cut.findall(text.lower()):
            ids += self.word(w)
        ids = ids[:CLIP_LEN - 1] + [self.eos]
        return ids + [self.eos] * (CLIP_LEN - len(ids))


class T5Words:
    def __init__(self, root=ROOT):
        from tokenizers import Tokenizer
        self.tok = Tokenizer.from_file(os.path.join(root, "house_t5", "tokenizer.json"))
        self.tok.enable_truncation(T5_LEN)

    def batch(self, texts):
        return [e.ids for e in self.tok.encode_batch(texts)]

    def __call__(self, text):
        return self.tok.encode(text).ids


def corpus(n):
    import world
    r = random.Random(5)
    return [world.caption(r, world.sample_scene(r)) for _ in range(n)]


def build_clip(texts, merges_wanted):
    alphabet = byte_alphabet()
    cut = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
    words = Counter(w for t in texts for w in cut.findall(t.lower()))
    split = {}
    for w in words:
        parts = [alphabet[b] for b in w.encode()]
        parts[-1] += "</w>"
        split[w] = parts
    merges = []
    while len(merges) < merges_wanted:
        pairs = Counter()
        for w, parts in split.items():
            for p in zip(parts, parts[1:]):
                pairs[p] += words[w]
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for w, parts in split.items():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = [best[0] + best[1]]
                i += 1
    chars = list(alphabet.values())
    names = chars + [c + "</w>" for c in chars] + [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    base = os.path.join(ROOT, "house_clip_l")
    os.makedirs(base, exist_ok=True)
    with open(os.path.join(base, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({n: i for i, n in enumerate(dict.fromkeys(names))}, f, ensure_ascii=False)
    with open(os.path.join(base, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges) + "\n")


def build_t5(texts, repeats=400):
    """Unigram pieces: every "word with its space in front" of the captions, their frequent beginnings and ends, ASCII."""
    words = Counter(w for t in texts for w in re.findall(r"[A-Za-z-]+|[^A-Za-z\s]", t))
    starts = Counter()
    for t in texts:
        for w in t.split():
            starts["\u2581" + re.sub(r"[^A-Za-z-]+$", "", w)] += 1
    total = sum(starts.values())
    pieces = [[w, math.log(n / total)] for w, n in starts.most_common() if n >= repeats // 100 and len(w) > 1]
    pieces += [[c, math.log(words[c] / total)] for c in (",", ".", ":") if words[c]]
    have, low = {p for p, _ in pieces}, -14.0
    for piece in ["\u2581"] + [chr(i) for i in range(33, 127)]:
        if piece not in have:
            pieces.append([piece, low])
    for end in ("s", "es", "ed", "er", "ing", "y", "ly", "en", "th", "an", "on", "in", "al", "or", "ar", "le", "st", "re"):
        if end not in have and len(end) > 1:
            pieces.append([end, low - 1.0])
    special = ["<pad>", "</s>", "<unk>"]
    data = dict(version="1.0", truncation=None, normalizer=None)
    data["padding"] = dict(strategy=dict(Fixed=T5_LEN), direction="Right", pad_to_multiple_of=None, pad_id=0, pad_type_id=0,
                           pad_token="<pad>")
    data["added_tokens"] = [dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
                            for i, s in enumerate(special)]
    space = dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True)
    data["pre_tokenizer"] = dict(type="Sequence", pretokenizers=[dict(type="WhitespaceSplit"), space])
    data["post_processor"] = dict(
        type="TemplateProcessing", single=[dict(Sequence=dict(id="A", type_id=0)), dict(SpecialToken=dict(id="</s>", type_id=0))],
        pair=[dict(Sequence=dict(id="A", type_id=0)), dict(SpecialToken=dict(id="</s>", type_id=0)),
              dict(Sequence=dict(id="B", type_id=0)), dict(SpecialToken=dict(id="</s>", type_id=0))],
        special_tokens={"</s>": dict(id="</s>", ids=[1], tokens=["</s>"])})
    data["decoder"] = space
    data["model"] = dict(type="Unigram", unk_id=2, vocab=[[s, 0.0] for s in special] + pieces, byte_fallback=False)
    base = os.path.join(ROOT, "house_t5")
    os.makedirs(base, exist_ok=True)
    with open(os.path.join(base, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    lines = corpus(30000)
    build_clip(lines, 2000)
    build_t5(lines)
    clip, t5 = ClipWords(), T5Words()
    print("clip vocabulary", len(clip.ids), "t5 vocabulary", t5.tok.get_vocab_size(),
          "longest", max(sum(i > 0 for i in t5(t)) for t in lines[:3000]))
