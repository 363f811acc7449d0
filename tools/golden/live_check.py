#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks an atelier binary with golden cases that nobody has seen: new weights, new geometry, new inputs.

    tools/golden/live_check.py build/bin/atelier [--seed N] [--rounds N] [--only flux,vae] [--keep DIR] [-- VERIFY ARGS]

Everything after -- goes to `atelier verify` (for example --device cuda:0). The seed is printed, so a failure can be
made again. Exits 0 when all cases pass, 1 when one fails, 77 when torch is not installed. With diffusers and
transformers installed they compute the expected tensors; without them the plain derivations do.
"""
import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile

try:
    import torch
    import safetensors.torch  # noqa: F401
except ImportError as e:
    print(f"SKIP: {e}")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import clip  # noqa: E402
import flux  # noqa: E402
import t5  # noqa: E402
import texts  # noqa: E402
import vae  # noqa: E402
from case import agree, healthy, write_case, write_model  # noqa: E402
from flux_cases import scaled_fp8  # noqa: E402


def have(*modules):
    try:
        return all(importlib.util.find_spec(m) for m in modules)
    except ModuleNotFoundError:                 # the parent of a dotted name
        return False


def round_weights(sd, r):
    """Store in a random format. Returns (what, file, values in f32)."""
    what = r.choice(["f32", "f16", "bf16"])
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[what]
    stored = {k: v.to(kind) for k, v in sd.items()}
    return what, stored, {k: v.float() for k, v in stored.items()}


def expect(name, results):
    agree(name, results)
    expected = {k: v.float() for k, v in next(iter(results.values())).items()}
    healthy(name, expected)
    return expected


def flux_case(root, name, r, seed):
    head = r.choice([32, 32, 64, 96, 128])
    cfg = flux.Config(hidden=head * r.randint(1, 192 // head), head_dim=head, depth=r.randint(1, 2), single=r.randint(1, 3),
                      context=r.randint(8, 70), vec=r.randint(8, 50), guidance=r.random() < 0.5)
    if r.random() < 0.25:
        fmt, (stored, sd) = "scaled fp8", scaled_fp8(flux.weights(cfg, seed), torch.float8_e4m3fn)
    else:
        fmt, stored, sd = round_weights(flux.weights(cfg, seed), r)
    if r.random() < 0.3:
        stored = {"model.diffusion_model." + k: v for k, v in stored.items()}
    b, h, w, t = r.randint(1, 3), r.randint(2, 17), r.randint(2, 17), r.randint(1, 40)
    inp = flux.inputs(cfg, seed + 1, b, h, w, t, [r.uniform(0, 1) for _ in range(b)], [r.uniform(1, 5) for _ in range(b)])
    results = {"diffusers": flux.by_diffusers(sd, cfg, inp)} if have("diffusers") else {}
    expected = expect(name, {**results, "plain": flux.plain(sd, cfg, inp)})
    write_model(os.path.join(root, name, "model.safetensors"), stored)
    write_case(root, name, "denoiser", "model.safetensors", inp, expected)
    return f"{cfg} {fmt} batch {b} {h}x{w} text {t}"


def clip_case(root, name, r, seed):
    cfg = clip.Config(width=64 * r.randint(1, 3), layers=r.randint(2, 4), mlp=16 * r.randint(4, 20), vocab=r.randint(300, 700))
    fmt, stored, sd = round_weights(clip.weights(cfg, seed), r)
    inp = torch.cat([clip.prompt(cfg, r.randint(0, 75), seed + i) for i in range(r.randint(1, 3))])
    how = {"layer": r.choice([-1, -1, -2]), "final_norm": r.random() < 0.7}
    results = {"transformers": clip.by_transformers(sd, cfg, inp, **how)} if have("transformers") else {}
    expected = expect(name, {**results, "plain": clip.plain(sd, cfg, inp, **how)})
    write_model(os.path.join(root, name, "model.safetensors"), stored)
    write_case(root, name, "text_encoder", "model.safetensors", {"tokens": inp}, expected, {"kind": "clip_l", **how})
    return f"{cfg} {fmt} batch {inp.shape[0]} {how}"


def t5_case(root, name, r, seed):
    cfg = t5.Config(width=16 * r.randint(2, 8), layers=r.randint(1, 3), heads=r.randint(1, 8), d_kv=r.choice([8, 16, 32, 64]),
                    ff=16 * r.randint(3, 14), vocab=r.randint(100, 500))
    sd = t5.weights(cfg, seed)
    del sd["encoder.embed_tokens.weight"]
    fmt, stored, sd = round_weights(sd, r)
    length = r.choice([1, 7, 33, 77, 150, 300])
    inp = torch.cat([t5.prompt(cfg, r.randint(0, length - 1), length, seed + i) for i in range(r.randint(1, 2))])
    both = {**sd, "encoder.embed_tokens.weight": sd["shared.weight"]}
    results = {"transformers": t5.by_transformers(both, cfg, inp)} if have("transformers") else {}
    expected = expect(name, {**results, "plain": t5.plain(sd, cfg, inp)})
    write_model(os.path.join(root, name, "model.safetensors"), stored)
    write_case(root, name, "text_encoder", "model.safetensors", {"tokens": inp}, expected, {"kind": "t5"})
    return f"{cfg} {fmt} {tuple(inp.shape)}"


def vae_case(root, name, r, seed):
    mult = r.choice([(1, 2), (1, 1, 2), (1, 2, 2), (1, 1, 2, 2)])
    cfg = vae.Config(ch=r.choice([32, 32, 64]), mult=mult, z=r.choice([4, 8, 16]), quant=r.random() < 0.5)
    fmt, stored, sd = round_weights(vae.weights(cfg, seed), r)
    if r.random() < 0.4:
        fmt, stored = fmt + " diffusers layout", vae.to_diffusers(stored, cfg)
    write_model(os.path.join(root, name, "model.safetensors"), stored)
    b, h, w, up = r.randint(1, 2), r.randint(3, 9), r.randint(3, 9), 2 ** (len(mult) - 1)
    for what, x in (("decode", vae.latent(cfg, b, h, w, seed)), ("encode", vae.image(b, h * up, w * up, seed))):
        results = {"diffusers": vae.by_diffusers(sd, cfg, what, x)} if have("diffusers") else {}
        at = name + ("" if what == "decode" else "_encode")
        expected = expect(at, {**results, "plain": vae.plain(sd, cfg, what, x)})
        write_case(root, at, "vae_" + what, f"../{name}/model.safetensors", {"x": x}, expected)
    return f"{cfg} {fmt} batch {b} {h}x{w}"


def random_lines(r, count):
    """Words of the corpus mixed with letters, digits, marks and symbols of many scripts."""
    pools = [texts.CORPUS, texts.PLAIN[2:], texts.UNICODE]
    odd = [*range(0x21, 0x7F), *range(0xA1, 0x17F), *range(0x370, 0x378), *range(0x391, 0x3A1), *range(0x410, 0x450),
           *range(0x300, 0x315), *range(0x3041, 0x3096), *range(0x4E00, 0x4E80), *range(0x1F600, 0x1F640), 0x20, 0x20, 0x9, 0xA]
    lines = []
    for _ in range(count):
        parts = []
        for _ in range(r.randint(1, 12)):
            if r.random() < 0.7:
                parts.append(r.choice(r.choice(r.choice(pools)).split() or [""]))
            else:
                parts.append("".join(chr(r.choice(odd)) for _ in range(r.randint(1, 6))))
        lines.append(r.choice([" ", " ", "", ", "]).join(parts))
    return lines


def tokens_case(root, name, r, seed):
    if not have("transformers", "tokenizers", "sentencepiece", "google.protobuf") or have("ftfy"):
        return "SKIP: needs transformers, tokenizers, sentencepiece and protobuf, and no ftfy"
    import tokens
    lines = random_lines(r, 60)
    at = os.path.join(root, name)
    os.makedirs(at, exist_ok=True)
    tokens.train_clip(at, merges=r.randint(50, 400))
    slow = tokens.clip_slow(at)
    ids = {f"tokens_{i}": torch.tensor(slow(t), dtype=torch.int32) for i, t in enumerate(lines)}
    write_case(root, name, "tokenizer", "vocab.json", {}, ids, {"kind": "clip", "merges": "merges.txt", "texts": lines}, 0)

    spiece = os.path.join(at, "spiece.model")
    tokens.train_spiece(spiece, size=r.randint(200, 420))
    encode = tokens.sentencepiece_ids(spiece)
    backend, fast = tokens.t5_fast(spiece)
    same = [t for t in lines if encode(t) == fast(t)]
    for suffix, model, how, these in (("_spiece", f"../{name}/spiece.model", encode, lines), ("_json", "tokenizer.json", fast, same)):
        os.makedirs(at + suffix, exist_ok=True)
        ids = {f"tokens_{i}": torch.tensor(how(t), dtype=torch.int32) for i, t in enumerate(these)}
        write_case(root, name + suffix, "tokenizer", model, {}, ids, {"kind": "t5", "texts": these}, 0)
    backend.save(os.path.join(at + "_json", "tokenizer.json"), pretty=False)
    return f"60 texts; sentencepiece and T5TokenizerFast agree on {len(same)}"


FAMILIES = {"flux": flux_case, "clip": clip_case, "t5": t5_case, "vae": vae_case, "tokens": tokens_case}


def verify(binary, folder, extra):
    p = subprocess.run([binary, "verify", folder, *extra], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return p.returncode == 0, p.stdout.strip()


def main():
    argv, extra = sys.argv[1:], []
    if "--" in argv:
        argv, extra = argv[:argv.index("--")], argv[argv.index("--") + 1:]
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("binary")
    a.add_argument("--seed", type=int, default=None)
    a.add_argument("--rounds", type=int, default=2)
    a.add_argument("--only", help="comma list of " + ",".join(FAMILIES))
    a.add_argument("--keep", metavar="DIR", help="keep the cases here")
    o = a.parse_args(argv)
    seed = o.seed if o.seed is not None else random.SystemRandom().randrange(10 ** 9)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    print(f"live_check: --seed {seed}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="atelier-live-") as tmp:
        root = o.keep or tmp
        for n in range(o.rounds):
            for family in o.only.split(",") if o.only else FAMILIES:
                name = f"{family}_{n}"
                r = random.Random(f"{seed} {name}")         # a family's cases do not depend on the others
                print(f"{name}: {FAMILIES[family](root, name, r, r.randrange(10 ** 9))}", flush=True)
        for name in sorted(os.listdir(root)):
            if os.path.exists(os.path.join(root, name, "case.json")):
                good, text = verify(o.binary, os.path.join(root, name), extra)
                failed += not good
                print(f"{'PASS' if good else 'FAIL'} {name}" + ("" if good else "\n  " + text.replace("\n", "\n  ")), flush=True)
    print(f"live_check: {failed} failed (--seed {seed})" if failed else "live_check: all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
