# SPDX-License-Identifier: Apache-2.0
# train.py - trains the whole house model from nothing: the VAE, then (on its latents) text encoders and Flux together.
# Idea: wall-clock budgets rule. Every process (torchrun, one per GPU) draws its own pictures and gradients are averaged;
# learning rates fall to zero exactly when a phase's time is up. Worker processes write scenes and captions meanwhile.
# Results (safetensors, evaluation sheets) are written to --out by rank 0, also midway.
import argparse
import copy
import json
import math
import multiprocessing
import os
import random
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import draw
import nets
import words
import world
from check import Checker

CAPTIONS = 4
BEGAN = time.time()
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def say(*what):
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"[{time.time() - BEGAN:6.1f}s]", *what, flush=True)


def amp(dev):
    return torch.autocast(dev.type, dtype=torch.bfloat16, enabled=dev.type == "cuda")


# ---- scenes, written by worker processes ----

def write_scenes(job):
    """(seed, count, with captions) to packed scenes and token ids."""
    seed, count, told = job
    torch.set_num_threads(1)
    r = random.Random(seed)
    scenes = [world.sample_scene(r) for _ in range(count)]
    back, g, rows = (t.numpy() for t in draw.pack(scenes))
    if not told:
        return back, g, rows
    texts = [world.caption(r, s) for s in scenes for _ in range(CAPTIONS)]
    clip, t5 = words.ClipWords(), words.T5Words()
    t5_ids = np.array([t5(t) for t in texts], dtype=np.int16).reshape(count, CAPTIONS, -1)
    clip_ids = np.array([clip(t) for t in texts], dtype=np.int16).reshape(count, CAPTIONS, -1)
    return back, g, rows, t5_ids, clip_ids


def draw_scenes(part, dev):
    return draw.render(*(torch.from_numpy(a).to(dev) for a in part[:3]))


# ---- several GPUs ----

class Step:
    """Forward and backward of loss_of() with the gradient averaged over all GPUs and clipped, left in every p.grad.

    On a GPU the launches are recorded once and replayed (a CUDA graph): small networks would wait for the CPU otherwise.
    So loss_of must read its inputs from tensors that stay where they are.
    """
    def __init__(self, loss_of, params):
        self.loss_of, self.params, self.graph = loss_of, params, None
        dev = params[0].device
        self.flat = torch.zeros(sum(p.numel() for p in params), device=dev)
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if dev.type == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.forward_backward()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.loss = self.forward_backward()
        self.share()

    def forward_backward(self):
        for p in self.params:
            p.grad = None
        loss = self.loss_of()
        loss.backward()
        with torch.no_grad():
            torch.cat([p.grad.reshape(-1) for p in self.params], out=self.flat)
        return loss.detach()

    def share(self):
        at = 0
        for p in self.params:
            p.grad = self.flat[at:at + p.numel()].view_as(p)
            at += p.numel()

    @torch.no_grad()
    def __call__(self, most=1.0):
        if self.graph:
            self.graph.replay()
        else:
            with torch.enable_grad():
                self.loss = self.forward_backward()
            self.share()
        if self.world > 1:
            dist.all_reduce(self.flat)
            self.flat.div_(self.world)
        self.flat.mul_((most / (self.flat.norm() + 1e-6)).clamp(max=1.0))
        return self.loss


def same_start(module):
    if dist.is_initialized():
        for p in module.parameters():
            dist.broadcast(p.data, 0)


def together(flag, dev):
    """Rank 0's word on whether to go on: clocks differ."""
    if not dist.is_initialized():
        return flag
    t = torch.tensor([float(flag)], device=dev)
    dist.broadcast(t, 0)
    return t.item()


def save(module, path, dtype, prefix=""):
    if int(os.environ.get("RANK", 0)) == 0:
        save_file({prefix + k: v.detach().to(dtype).cpu().contiguous() for k, v in module.state_dict().items()}, path)


# ---- the VAE ----

def vae_loss(vae, x, kl):
    mean, logvar = vae.moments(x)
    y = vae.decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)).float()
    loss = picture_loss(y, x)
    return loss + kl * 0.5 * (mean ** 2 + logvar.exp() - 1 - logvar).mean() if kl else loss


def picture_loss(y, x):
    d = y - x.float()
    edge = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    return d.abs().mean() + 0.5 * edge + 0.5 * (d ** 2).mean()


def vae_phase(a, vae, pictures, dev, name, seconds, size, batch, peak, kl):
    params = list(vae.parameters())
    opt = torch.optim.AdamW(params, lr=peak, betas=(0.9, 0.98), weight_decay=1e-3, fused=dev.type == "cuda")
    x = torch.zeros(batch, 3, size, size, device=dev).to(memory_format=torch.channels_last)

    def loss_of():
        with amp(dev):
            return vae_loss(vae, x, kl)

    step_fn, begin, step = Step(loss_of, params), time.time(), 0
    say(f"vae {name}: ready")
    while True:
        if step % 20 == 0 or dev.type == "cpu":
            done = together((time.time() - begin) / seconds, dev)
        if done >= 1:
            break
        lr = peak * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * done) + 0.02)
        for group in opt.param_groups:
            group["lr"] = lr
        at = torch.randint(len(pictures), (batch,), device=dev)
        py, px = (random.randrange(0, 257 - size, 4) for _ in range(2))
        x.copy_(pictures[at, :, py:py + size, px:px + size].float() / 127.5 - 1)
        loss = step_fn(1.0)
        opt.step()
        step += 1
        if step % 500 == 0:
            say(f"vae {name} step {step} loss {loss.item():.5f} lr {lr:.1e}")
    say(f"vae {name}: {step} steps, loss {step_fn.loss.item():.5f}")
    for p in params:
        p.grad = None


def train_vae(a, parts, dev, rank):
    pictures = torch.cat([(draw_scenes([p[0][i:i + 256], p[1][i:i + 256], rows_of(p[2], i, i + 256)], dev) * 255 + 0.5).byte()
                          for p in parts for i in range(0, len(p[0]), 256)])
    say("pictures for the vae:", len(pictures))
    vae = nets.Vae().to(dev)
    with torch.no_grad():
        vae.encoder.conv_out.bias[16:] -= 4        # little noise to begin with
    same_start(vae)
    # Crops first (many cheap steps), then the latent gets Flux's scale, then whole pictures: group norms see other sizes.
    if dev.type == "cuda":
        nets.VaeOps.norm_act = staticmethod(torch.compile(nets.norm_act, dynamic=False))
    vae_phase(a, vae, pictures, dev, "crops", a.vae_seconds * 0.6, 128, a.vae_batch * 2, 1e-3, 3e-5)
    nets.VaeOps.norm_act = staticmethod(nets.norm_act)
    fold_vae(vae, pictures, dev, 64)
    vae_phase(a, vae, pictures, dev, "whole", a.vae_seconds * 0.4, 256, a.vae_batch // 2, 4e-4, 0)
    with torch.no_grad():
        x = pictures[:64].float() / 127.5 - 1
        with amp(dev):
            mean, logvar = vae.moments(x)
            y = vae.decoder(mean).float()
        mse = ((y - x) ** 2).mean().item() / 4
        say(f"vae psnr {-10 * math.log10(mse):.2f} dB, latent mean {mean.mean().item():.4f} std {mean.std().item():.4f}"
            f" noise {torch.exp(0.5 * logvar).mean().item():.4f}")
    if rank == 0:
        sheet(torch.cat((x[:8], y[:8])), os.path.join(a.out, "vae.png"))
    return vae


def rows_of(rows, lo, hi):
    rows = rows[(rows[:, 0] >= lo) & (rows[:, 0] < hi)].copy()
    rows[:, 0] -= lo
    return rows


@torch.no_grad()
def fold_vae(vae, pictures, dev, batch):
    means = []
    for i in range(0, max(1, min(len(pictures) // batch, 16)) * batch, batch):
        with amp(dev):
            means.append(vae.moments((pictures[i:i + batch].float() / 127.5 - 1).to(memory_format=torch.channels_last))[0])
    z = torch.cat(means)
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    if dist.is_initialized():
        for t in (mean, std):
            dist.all_reduce(t)
            t /= dist.get_world_size()
    say("latent std by channel", [round(s, 2) for s in std.tolist()])
    vae.fold(mean, std)


# ---- latents ----

@torch.no_grad()
def make_latents(a, vae, parts, dev):
    """Packed normalised latents [N, 256, 64] f16 and token ids, for as long as the time allows."""
    begin, out, t5_ids, clip_ids = time.time(), [], [], []
    for p in parts:
        if time.time() - begin > a.latent_seconds and out:
            break
        for i in range(0, len(p[0]), 500):
            x = draw_scenes([p[0][i:i + 500], p[1][i:i + 500], rows_of(p[2], i, i + 500)], dev) * 2 - 1
            with amp(dev):
                z = torch.cat([vae.moments(y.to(memory_format=torch.channels_last))[0] for y in x.split(125)])
            out.append(nets.pack_latent(((z - nets.LATENT_SHIFT) * nets.LATENT_SCALE).contiguous()).half())
        t5_ids.append(torch.from_numpy(p[3]).to(dev))
        clip_ids.append(torch.from_numpy(p[4]).to(dev))
    return torch.cat(out), torch.cat(t5_ids), torch.cat(clip_ids)


# ---- Flux and its text encoders ----

class House(torch.nn.Module):
    def __init__(self, clip_vocab, t5_vocab):
        super().__init__()
        self.t5, self.clip, self.flux = nets.T5(t5_vocab), nets.Clip(clip_vocab), nets.Flux()

    def forward(self, x, t, t5_ids, clip_ids):
        return self.flux(x, t, self.t5(t5_ids), self.clip(clip_ids))


class Muon:
    """Momentum with orthogonalised updates (Jordan et al. 2024), matrices of one shape at a time."""
    def __init__(self, params):
        self.groups = {}
        for p in params:
            self.groups.setdefault(p.shape, []).append(p)
        self.momentum = {s: torch.zeros(len(ps), *s, device=ps[0].device) for s, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, lr, beta=0.95, decay=0.02):
        """lr is a tensor of one number, so that a recorded step can change it."""
        for shape, ps in self.groups.items():
            grad, mom = torch.stack([p.grad for p in ps]), self.momentum[shape]
            mom.lerp_(grad, 1 - beta)
            x = grad.lerp(mom, beta).bfloat16()
            if shape[0] > shape[1]:
                x = x.mT
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                g = x @ x.mT
                x = 3.4445 * x + (-4.7750 * g + 2.0315 * g @ g) @ x
            if shape[0] > shape[1]:
                x = x.mT
            x = x.float() * (-0.2 * math.sqrt(max(shape)) * lr)
            torch._foreach_mul_(ps, 1 - lr * decay)
            torch._foreach_add_(ps, list(x.contiguous().unbind(0)))


def train_house(a, house, vae, data, dev, rank, prompts):
    latents, t5_ids, clip_ids = data
    t5_words, clip_words = words.T5Words(), words.ClipWords()
    empty_t5 = torch.tensor(t5_words(""), device=dev)
    empty_clip = torch.tensor(clip_words(""), device=dev)
    ema = copy.deepcopy(house)
    matrices = [p for n, p in house.flux.named_parameters() if p.ndim == 2 and "_blocks." in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in house.parameters() if id(p) not in chosen]
    params = matrices + rest
    muon, adam = Muon(matrices), torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=dev.type == "cuda")
    if dev.type == "cuda":
        for block in [*house.flux.double_blocks, *house.flux.single_blocks]:
            block.compile(dynamic=False)
        house.t5.compile(dynamic=False)
        house.clip.compile(dynamic=False)
    ema_params, now_params = list(ema.parameters()), list(house.parameters())
    torch.manual_seed(7000 + rank + 100 * bool(a.continued))

    def loss_of():
        at = torch.randint(len(latents), (a.batch,), device=dev)
        which = torch.randint(CAPTIONS, (a.batch,), device=dev)
        x0, i5, ic = latents[at].float(), t5_ids[at, which].long(), clip_ids[at, which].long()
        drop = torch.rand(a.batch, 1, device=dev) < 0.08
        i5, ic = torch.where(drop, empty_t5, i5), torch.where(drop, empty_clip, ic)
        n = torch.randn_like(x0)
        t = torch.sigmoid(torch.randn(a.batch, device=dev) * 1.1 + 0.25)
        t = torch.where(torch.rand_like(t) < 0.15, torch.rand_like(t), t)
        with amp(dev):
            v = house(x0 + t.view(-1, 1, 1) * (n - x0), t, i5, ic)
        return F.mse_loss(v.float(), n - x0)

    lr_t, keep_t = torch.zeros((), device=dev), torch.zeros((), device=dev)

    @torch.no_grad()
    def update():
        muon.step(lr_t)
        move = torch._foreach_sub(now_params, ema_params)
        torch._foreach_mul_(move, keep_t)
        torch._foreach_add_(ema_params, move)

    step_fn, graph = Step(loss_of, params), None
    if dev.type == "cuda":
        update()                            # both numbers are 0: changes nothing
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            update()
    muon.momentum = {s: m.zero_() for s, m in muon.momentum.items()}
    say("house: ready")
    begin, step, mid, run = time.time(), 0, [float(m) for m in a.evals.split(",") if m], 0.0
    while True:
        if step % 10 == 0 or dev.type == "cpu":
            done = together((time.time() - begin) / a.house_seconds, dev)
        if done >= 1:
            break
        lr = min(1, (step + 1) / 150) * min(1, (1 - done) / a.fall) + 0.002
        lr_t.fill_(a.lr_muon * lr)
        keep_t.fill_(1 - min(a.ema, (1 + step) / (20 + step)))
        loss = step_fn(2.0)
        for group in adam.param_groups:
            group["lr"] = a.lr_adam * lr
        adam.step()
        graph.replay() if graph else update()
        step += 1
        if step % 50 == 0:
            run = loss.item() if not run else 0.7 * run + 0.3 * loss.item()
        if step % 250 == 0 or step in (1, 50):
            say(f"step {step} loss {run:.4f} lr {lr:.3f} samples/s {step * a.batch * a.world / (time.time() - begin):.0f}")
        if mid and done > mid[0]:
            mid.pop(0)
            if rank == 0:
                export(a, ema)
                evaluate(a, ema, vae, dev, prompts[:a.prompts], "mid")
            if dist.is_initialized():
                dist.barrier()
    say(f"steps {step}, loss {run:.4f}")
    return ema


def export(a, house):
    save(house.flux, os.path.join(a.out, "house.safetensors"), torch.bfloat16)
    save(house.t5, os.path.join(a.out, "house_t5.safetensors"), torch.float16)
    save(house.clip, os.path.join(a.out, "house_clip_l.safetensors"), torch.float16)


# ---- what came of it ----

def sheet(x, path, across=8):
    """Pictures -1..1 as one PNG."""
    from PIL import Image
    x = ((x.float().clamp(-1, 1) + 1) * 127.5 + 0.5).byte().cpu()
    n = (len(x) + across - 1) // across * across
    x = torch.cat((x, x.new_full((n - len(x), 3, *x.shape[2:]), 255)))
    x = x.view(n // across, across, 3, *x.shape[2:]).permute(0, 3, 1, 4, 2)
    Image.fromarray(x.reshape(x.shape[0] * x.shape[1], -1, 3).numpy()).save(path)


@torch.no_grad()
def pictures_of(house, vae, dev, prompts, cfg, steps=20):
    """The pictures of prompts.json rows, with the noise of a CPU generator seeded by each row's seed."""
    t5_words, clip_words = words.T5Words(), words.ClipWords()
    noise = []
    for p in prompts:
        gen = torch.Generator().manual_seed(p["seed"])
        noise.append(torch.randn(1, 16, 32, 32, generator=gen))
    ids = lambda w, texts: torch.tensor([w(t) for t in texts], device=dev)
    encode = lambda texts: (house.t5(ids(t5_words, texts)), house.clip(ids(clip_words, texts)))
    txt, pooled = encode([p["prompt"] for p in prompts])
    z = nets.sample(house.flux, txt, pooled, torch.cat(noise).to(dev), steps, cfg, encode([""]))
    out = []
    for i in range(0, len(z), 25):
        out.append(vae.decoder(z[i:i + 25] / nets.LATENT_SCALE + nets.LATENT_SHIFT).float())
    return torch.cat(out)


def evaluate(a, house, vae, dev, prompts, name, cfg=1.0):
    with amp(dev):
        x = pictures_of(house, vae, dev, prompts, cfg)
    rgb = ((x.clamp(-1, 1) + 1) * 127.5 + 0.5).byte().permute(0, 2, 3, 1).cpu().numpy()
    check, good, wrong = Checker(), 0, []
    for p, picture in zip(prompts, rgb):
        ok, why = check(picture, p["objects"])
        good += ok
        if not ok:
            wrong.append((p["seed"], why))
    say(f"{name}: cfg {cfg}: {good} of {len(prompts)} pass")
    for seed, why in wrong[:12]:
        say("   ", seed, why)
    sheet(x[:40], os.path.join(a.out, f"sheet_{name}.png"))
    return good


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default="out")
    ap.add_argument("--vae", default="", help="a trained house_vae.safetensors: skip the first phase")
    ap.add_argument("--continued", default="", help="folder with house*.safetensors to go on from")
    ap.add_argument("--vae-seconds", type=float, default=100)
    ap.add_argument("--latent-seconds", type=float, default=35)
    ap.add_argument("--house-seconds", type=float, default=430)
    ap.add_argument("--vae-pictures", type=int, default=10240)
    ap.add_argument("--scenes", type=int, default=160000)
    ap.add_argument("--vae-batch", type=int, default=6, help="whole pictures that cost as much as a step of crops")
    ap.add_argument("--batch", type=int, default=512)
    ap.add_argument("--workers", type=int, default=12)
    ap.add_argument("--lr-muon", type=float, default=2e-3)
    ap.add_argument("--lr-adam", type=float, default=1e-3)
    ap.add_argument("--fall", type=float, default=0.5, help="the last part of the time in which the rate falls to zero")
    ap.add_argument("--ema", type=float, default=0.999)
    ap.add_argument("--evals", default="0.5")
    ap.add_argument("--prompts", type=int, default=100)
    a = ap.parse_args()
    rank, a.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    os.makedirs(a.out, exist_ok=True)
    pool = multiprocessing.get_context("fork").Pool(a.workers)     # before CUDA wakes up
    cuda = torch.cuda.is_available()
    dev = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(dev)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        import torch._dynamo as dynamo
        dynamo.config.recompile_limit = 64
        dynamo.config.accumulated_recompile_limit = 512
        dynamo.config.automatic_dynamic_shapes = False
    if a.world > 1:
        dist.init_process_group("nccl" if cuda else "gloo", device_id=dev if cuda else None)
    torch.manual_seed(rank)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "house", "prompts.json")) as f:
        prompts = json.load(f)
    if a.vae:
        vae = nets.Vae().to(dev)
        vae.load_state_dict({k: v.float() for k, v in load_file(a.vae).items()})
    seed = 1_000_000 * (rank + 1) + 500_000 * bool(a.continued)
    first = [] if a.vae else pool.map(write_scenes, [(1000 * rank + i, a.vae_pictures // 16, False) for i in range(16)])
    chunk = max(8, a.scenes // 80)
    parts = pool.imap(write_scenes, [(seed + i, chunk, True) for i in range(a.scenes // chunk)])
    if not a.vae:
        vae = train_vae(a, first, dev, rank)
        save(vae, os.path.join(a.out, "house_vae.safetensors"), torch.float16)
    data = make_latents(a, vae, parts, dev)
    pool.terminate()
    z = data[0][:2000].float()
    say(f"latents: {len(data[0])} here, mean {z.mean().item():.3f} std {z.std().item():.3f}")
    house = House(len(words.ClipWords().ids), words.T5Words().tok.get_vocab_size()).to(dev)
    if a.continued:
        for name, m in (("house", house.flux), ("house_t5", house.t5), ("house_clip_l", house.clip)):
            m.load_state_dict({k: v.float() for k, v in load_file(os.path.join(a.continued, name + ".safetensors")).items()})
    same_start(house)
    ema = train_house(a, house, vae, data, dev, rank, prompts)
    if rank == 0:
        export(a, ema)
        for cfg in (2.0, 1.0):
            evaluate(a, ema, vae, dev, prompts[:a.prompts], f"cfg{cfg:.0f}", cfg)
        say("done")
        open(os.path.join(a.out, "done"), "w").close()
    if a.world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
