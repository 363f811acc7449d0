# SPDX-License-Identifier: Apache-2.0
"""The committed tokeniser cases: options.texts and expected tokens_0, tokens_1, ... (with BOS and EOS, unpadded)."""
import os

import torch

import texts
import tokens
from case import write_case


def case(root, name, model, kind, encode, lines, **options):
    ids = {f"tokens_{i}": torch.tensor(encode(t), dtype=torch.int32) for i, t in enumerate(lines)}
    write_case(root, name, "tokenizer", model, {}, ids, {"kind": kind, **options, "texts": lines}, rtol=0)
    print(f"  {name}: {len(lines)} texts, {sum(t.numel() for t in ids.values())} tokens")


def folder(root, name):
    path = os.path.join(root, name)
    os.makedirs(path, exist_ok=True)
    return path


def make(root, comfyui):
    every = texts.PLAIN + texts.UNICODE + texts.HARD

    at = folder(root, "tokens_clip")
    tokens.train_clip(at)
    slow = tokens.clip_slow(at)
    backend, fast = tokens.clip_fast(at)
    assert all(slow(t) == fast(t) for t in texts.PLAIN)
    differ = [t for t in every if slow(t) != fast(t)]
    print("  CLIP, slow and fast differ:", ascii(differ))
    case(root, "tokens_clip", "vocab.json", "clip", slow, texts.PLAIN, merges="merges.txt")
    for name, lines in (("unicode", texts.UNICODE), ("hard", texts.HARD)):
        case(root, "tokens_clip_" + name, "../tokens_clip/vocab.json", "clip", slow, lines,
             merges="../tokens_clip/merges.txt")
    backend.save(os.path.join(folder(root, "tokens_clip_json"), "tokenizer.json"), pretty=False)
    case(root, "tokens_clip_json", "tokenizer.json", "clip", slow,
         [t for t in texts.PLAIN + texts.UNICODE if t not in differ])

    at = os.path.join(folder(root, "tokens_t5_spiece"), "spiece.model")
    tokens.train_spiece(at)
    encode = tokens.sentencepiece_ids(at)
    assert all(encode(t) == tokens.t5_fast(at)[1](t) for t in every)
    case(root, "tokens_t5_spiece", "spiece.model", "t5", encode, every)

    at = os.path.join(folder(root, "tokens_t5_json"), "small.model")
    tokens.train_spiece(at, tokens.small_rules())
    backend, fast = tokens.t5_fast(at)
    encode = tokens.sentencepiece_ids(at)
    assert all(encode(t) == fast(t) for t in every)
    os.remove(at)
    backend.save(os.path.join(root, "tokens_t5_json", "tokenizer.json"), pretty=False)
    case(root, "tokens_t5_json", "tokenizer.json", "t5", fast, every)
    case(root, "tokens_t5_special", "../tokens_t5_json/tokenizer.json", "t5", fast, texts.T5_SPECIAL)
