# SPDX-License-Identifier: Apache-2.0
# judge.py - draws the test prompts with the files in models/ on the CPU in f32 and counts what the pixel checker passes.
# "python3 judge.py CFG [COUNT [SHEET.png]]"; with "--reference" it writes tests/house/ref/ for end-to-end comparisons.
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file

import nets
import train
import words
from check import Checker

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def load():
    def fill(module, path):
        module.load_state_dict({k: v.float() for k, v in load_file(os.path.join(ROOT, "models", path)).items()})
        return module.eval()
    house = train.House(len(words.ClipWords().ids), words.T5Words().tok.get_vocab_size())
    fill(house.t5, "text_encoders/house_t5.safetensors")
    fill(house.clip, "text_encoders/house_clip_l.safetensors")
    fill(house.flux, "diffusion_models/house.safetensors")
    return house, fill(nets.Vae(), "vae/house_vae.safetensors")


def prompts():
    with open(os.path.join(ROOT, "tests", "house", "prompts.json")) as f:
        return json.load(f)


@torch.no_grad()
def reference(house):
    """Prompt 1, seed 1, cfg 1, 20 Euler steps: every stage as a tensor."""
    p = prompts()[0]
    t5, clip = torch.tensor([words.T5Words()(p["prompt"])]), torch.tensor([words.ClipWords()(p["prompt"])])
    hidden, pooled = house.t5(t5), house.clip(clip)
    torch.manual_seed(1)
    noise = torch.randn(1, 16, 32, 32)
    z = nets.sample(house.flux, hidden, pooled, noise, 20, 1.0)
    first = house.flux(nets.pack_latent(noise), torch.ones(1), hidden, pooled)
    out = dict(clip_tokens=clip.int(), t5_tokens=t5.int(), clip_pooled=pooled, t5_hidden=hidden,
               flow_at_noise=nets.unpack_latent(first), latent=z)
    folder = os.path.join(ROOT, "tests", "house", "ref")
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(folder, "prompt1_seed1.safetensors"),
              {"prompt": p["prompt"], "seed": "1", "steps": "20", "cfg": "1", "sampler": "euler", "scheduler": "simple"})


@torch.no_grad()
def judge(house, vae, cfg, rows, path=None):
    check, good, shown = Checker(), 0, []
    for i in range(0, len(rows), 10):
        x = train.pictures_of(house, vae, torch.device("cpu"), rows[i:i + 10], cfg)
        rgb = ((x.clamp(-1, 1) + 1) * 127.5 + 0.5).byte().permute(0, 2, 3, 1).numpy()
        for p, picture in zip(rows[i:i + 10], rgb):
            ok, why = check(picture, p["objects"])
            good += ok
            if not ok:
                print(p["seed"], why, flush=True)
        shown.append(x)
    print(f"cfg {cfg}: {good} of {len(rows)} pass", flush=True)
    if path:
        train.sheet(torch.cat(shown)[:40], path)


if __name__ == "__main__":
    torch.set_num_threads(2)
    nets_loaded, vae_loaded = load()
    if "--reference" in sys.argv:
        reference(nets_loaded)
    else:
        count = int(sys.argv[2]) if len(sys.argv) > 2 else 100
        judge(nets_loaded, vae_loaded, float(sys.argv[1]), prompts()[:count], sys.argv[3] if len(sys.argv) > 3 else None)
