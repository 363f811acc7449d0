# SPDX-License-Identifier: Apache-2.0
# nets.py - the four networks in the key layouts of the real files: Flux.1 transformer, T5 v1.1 encoder, CLIP-L text
# encoder, Flux KL VAE. Attribute names are the keys; sizes are the house model's. Plain PyTorch, no other source.
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

CLIP_WIDTH = T5_WIDTH = 128
HIDDEN, HEAD, MLP = 256, 64, 512
DOUBLE, SINGLE = 2, 6
AXES = (8, 28, 28)                      # rotary dimensions of (text, row, column) for a head of 64
VAE_WIDTH, VAE_MULT = 32, (1, 2, 2, 3)
LATENT_SHIFT, LATENT_SCALE = 0.1159, 0.3611


# ---- T5 v1.1 encoder ----

class T5Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight).to(x.dtype)


class T5Attention(nn.Module):
    def __init__(self, d, heads, first):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        nn.init.normal_(self.q.weight, std=(d * d // heads) ** -0.5)
        for m in (self.k, self.v, self.o):
            nn.init.normal_(m.weight, std=d ** -0.5)
        if first:
            self.relative_attention_bias = nn.Embedding(32, heads)
            nn.init.normal_(self.relative_attention_bias.weight, std=0.1)

    def forward(self, x, bias):
        b, n, d = x.shape
        q, k, v = (m(x).view(b, n, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = torch.softmax((q @ k.mT).float() + bias.float(), -1).to(v.dtype) @ v
        return self.o(y.transpose(1, 2).reshape(b, n, d))


class T5Feed(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.wi_0, self.wi_1 = nn.Linear(d, ff, bias=False), nn.Linear(d, ff, bias=False)
        self.wo = nn.Linear(ff, d, bias=False)
        nn.init.normal_(self.wi_0.weight, std=d ** -0.5)
        nn.init.normal_(self.wi_1.weight, std=d ** -0.5)
        nn.init.normal_(self.wo.weight, std=ff ** -0.5)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class T5Part(nn.Module):
    def __init__(self, name, module, d):
        super().__init__()
        setattr(self, name, module)
        self.layer_norm = T5Norm(d)


class T5Block(nn.Module):
    def __init__(self, d, heads, ff, first):
        super().__init__()
        self.layer = nn.ModuleList([T5Part("SelfAttention", T5Attention(d, heads, first), d),
                                    T5Part("DenseReluDense", T5Feed(d, ff), d)])

    def forward(self, x, bias):
        a, f = self.layer
        x = x + a.SelfAttention(a.layer_norm(x), bias)
        return x + f.DenseReluDense(f.layer_norm(x))


class T5Stack(nn.Module):
    def __init__(self, d, heads, ff, layers):
        super().__init__()
        self.block = nn.ModuleList(T5Block(d, heads, ff, i == 0) for i in range(layers))
        self.final_layer_norm = T5Norm(d)


class T5(nn.Module):
    def __init__(self, vocab, d=T5_WIDTH, heads=4, ff=256, layers=3):
        super().__init__()
        self.shared = nn.Embedding(vocab, d)
        self.encoder = T5Stack(d, heads, ff, layers)

    @staticmethod
    def buckets(n, device):
        """Bidirectional relative position buckets: 16 each way, 8 exact, then logarithmic up to 128."""
        at = torch.arange(n, device=device)
        rel = at[None, :] - at[:, None]
        far = rel.abs()
        log = 8 + (torch.log(far.float().clamp_min(1) / 8) / math.log(128 / 8) * 8).long()
        return (rel > 0).long() * 16 + torch.where(far < 8, far, log.clamp_max(15))

    def forward(self, ids):
        bias = self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias(self.buckets(ids.shape[1], ids.device))
        bias = bias.permute(2, 0, 1).unsqueeze(0)
        x = self.shared(ids)
        for block in self.encoder.block:
            x = block(x, bias)
        return self.encoder.final_layer_norm(x)


# ---- CLIP-L text encoder ----

class ClipAttention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (m(x).view(b, n, d // 64, 64).transpose(1, 2) for m in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).reshape(b, n, d))


class ClipFeed(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class ClipLayer(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.self_attn, self.mlp = ClipAttention(d), ClipFeed(d)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, vocab, d):
        super().__init__()
        self.token_embedding, self.position_embedding = nn.Embedding(vocab, d), nn.Embedding(77, d)
        nn.init.normal_(self.token_embedding.weight, std=0.3)
        nn.init.normal_(self.position_embedding.weight, std=0.1)

    def forward(self, ids):
        return self.token_embedding(ids) + self.position_embedding.weight[:ids.shape[1]]


class ClipLayers(nn.Module):
    def __init__(self, d, layers):
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(d) for _ in range(layers))


class ClipText(nn.Module):
    def __init__(self, vocab, d, layers):
        super().__init__()
        self.embeddings, self.encoder = ClipEmbeddings(vocab, d), ClipLayers(d, layers)
        self.final_layer_norm = nn.LayerNorm(d)


class Clip(nn.Module):
    """Returns the pooled vector: the last layer's norm at the first end token, unprojected."""
    def __init__(self, vocab, d=CLIP_WIDTH, layers=2):
        super().__init__()
        self.eos = vocab - 1
        self.text_model = ClipText(vocab, d, layers)

    def forward(self, ids):
        m = self.text_model
        x = m.embeddings(ids)
        for layer in m.encoder.layers:
            x = layer(x)
        x = m.final_layer_norm(x)
        return x[torch.arange(len(ids), device=ids.device), (ids == self.eos).int().argmax(1)]


# ---- Flux.1 ----

class Embedder(nn.Module):
    def __init__(self, n, d):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(n, d), nn.Linear(d, d)

    def forward(self, x):
        return self.out_layer(F.silu(self.in_layer(x)))


class Scale(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d))

    def forward(self, x):
        y = x.float()
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


class QKNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.query_norm, self.key_norm = Scale(d), Scale(d)


class Modulation(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.n, self.lin = n, nn.Linear(d, n * d)

    def forward(self, vec):
        return self.lin(F.silu(vec))[:, None].chunk(self.n, dim=-1)


class SelfAttention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.qkv, self.proj, self.norm = nn.Linear(d, 3 * d), nn.Linear(d, d), QKNorm(HEAD)


def heads_of(qkv, norm):
    """[B, L, 3 H D] to normed q, k and v, each [B, H, L, D]."""
    b, n, w = qkv.shape
    q, k, v = qkv.view(b, n, 3, w // 3 // HEAD, HEAD).permute(2, 0, 3, 1, 4)
    return norm.query_norm(q), norm.key_norm(k), v


def rotate(x, cos, sin):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def attend(q, k, v, cos, sin):
    q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def norm(x, shift, scale):
    return (1 + scale) * F.layer_norm(x, (x.shape[-1],), eps=1e-6) + shift


def feed(d, m):
    return nn.Sequential(nn.Linear(d, m), nn.GELU(approximate="tanh"), nn.Linear(m, d))


class DoubleBlock(nn.Module):
    def __init__(self, d, m):
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(d, 6), Modulation(d, 6)
        self.img_attn, self.txt_attn = SelfAttention(d), SelfAttention(d)
        self.img_mlp, self.txt_mlp = feed(d, m), feed(d, m)

    def forward(self, img, txt, vec, cos, sin):
        i, t = self.img_mod(vec), self.txt_mod(vec)
        iq, ik, iv = heads_of(self.img_attn.qkv(norm(img, i[0], i[1])), self.img_attn.norm)
        tq, tk, tv = heads_of(self.txt_attn.qkv(norm(txt, t[0], t[1])), self.txt_attn.norm)
        y = attend(torch.cat((tq, iq), 2), torch.cat((tk, ik), 2), torch.cat((tv, iv), 2), cos, sin)
        n = txt.shape[1]
        img = img + i[2] * self.img_attn.proj(y[:, n:])
        img = img + i[5] * self.img_mlp(norm(img, i[3], i[4]))
        txt = txt + t[2] * self.txt_attn.proj(y[:, :n])
        return img, txt + t[5] * self.txt_mlp(norm(txt, t[3], t[4]))


class SingleBlock(nn.Module):
    def __init__(self, d, m):
        super().__init__()
        self.cut = (3 * d, m)
        self.linear1, self.linear2 = nn.Linear(d, 3 * d + m), nn.Linear(d + m, d)
        self.norm, self.modulation = QKNorm(HEAD), Modulation(d, 3)

    def forward(self, x, vec, cos, sin):
        shift, scale, gate = self.modulation(vec)
        qkv, up = self.linear1(norm(x, shift, scale)).split(self.cut, -1)
        y = attend(*heads_of(qkv, self.norm), cos, sin)
        return x + gate * self.linear2(torch.cat((y, F.gelu(up, approximate="tanh")), 2))


class FinalLayer(nn.Module):
    def __init__(self, d, out):
        super().__init__()
        self.linear, self.adaLN_modulation = nn.Linear(d, out), nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))

    def forward(self, x, vec):
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, -1)
        return self.linear(norm(x, shift, scale))


class Flux(nn.Module):
    def __init__(self, d=HIDDEN, m=MLP, double=DOUBLE, single=SINGLE, channels=64):
        super().__init__()
        self.img_in, self.txt_in = nn.Linear(channels, d), nn.Linear(T5_WIDTH, d)
        self.time_in, self.vector_in = Embedder(256, d), Embedder(CLIP_WIDTH, d)
        self.double_blocks = nn.ModuleList(DoubleBlock(d, m) for _ in range(double))
        self.single_blocks = nn.ModuleList(SingleBlock(d, m) for _ in range(single))
        self.final_layer = FinalLayer(d, channels)
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                nn.init.xavier_uniform_(p)
            if ".lin.weight" in name or "adaLN" in name or name == "final_layer.linear.weight":
                nn.init.zeros_(p)

    @staticmethod
    def angles(text, side, device):
        """cos and sin [text + side * side, HEAD / 2] for ids (0, 0, 0) and (0, row, column)."""
        at = torch.arange(side, device=device, dtype=torch.float64)
        zero = torch.zeros(text, device=device, dtype=torch.float64)
        rows = torch.cat((zero, at.repeat_interleave(side)))
        cols = torch.cat((zero, at.repeat(side)))
        out = [torch.outer(i, 10000.0 ** -(torch.arange(0, n, 2, device=device, dtype=torch.float64) / n))
               for n, i in zip(AXES, (rows * 0, rows, cols))]
        a = torch.cat(out, 1)
        return a.cos().float(), a.sin().float()

    def forward(self, img, t, txt, pooled):
        """img [B, side * side, 64] packed, t [B] in 0..1, txt [B, L, T5], pooled [B, CLIP]; the flow noise - x0."""
        side = math.isqrt(img.shape[1])
        cos, sin = self.angles(txt.shape[1], side, img.device)
        f = torch.exp(-math.log(10000) * torch.arange(128, device=t.device, dtype=torch.float32) / 128)
        a = (t.float() * 1000)[:, None] * f
        vec = self.time_in(torch.cat((a.cos(), a.sin()), 1)) + self.vector_in(pooled)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, cos, sin)
        n = txt.shape[1]
        x = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            x = block(x, vec, cos, sin)
        return self.final_layer(x[:, n:], vec)


def pack_latent(z):
    """b c (h 2) (w 2) -> b (h w) (c 2 2)"""
    b, c, h, w = z.shape
    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack_latent(x):
    b, n, c = x.shape
    s = math.isqrt(n)
    return x.view(b, s, s, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * s, 2 * s)


# ---- KL VAE ----

def norm_act(x, weight, bias):
    return F.silu(F.group_norm(x, 32, weight, bias, 1e-6)).to(x.dtype)


class VaeOps:
    norm_act = staticmethod(norm_act)       # the trainer may put a compiled one here


class ResBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, a, 1e-6), nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, b, 1e-6), nn.Conv2d(b, b, 3, padding=1)
        if a != b:
            self.nin_shortcut = nn.Conv2d(a, b, 1)

    def forward(self, x):
        y = self.conv1(VaeOps.norm_act(x, self.norm1.weight, self.norm1.bias))
        y = self.conv2(VaeOps.norm_act(y, self.norm2.weight, self.norm2.bias))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + y


class VaeAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.GroupNorm(32, c, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (m(y).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(b, c, h, w)
        return x + self.proj_out(y)


class Resample(nn.Module):
    def __init__(self, c, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(c, c, 3, stride=2) if down else nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResBlock(c, c), VaeAttention(c), ResBlock(c, c)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    pass


class Encoder(nn.Module):
    def __init__(self, z=16):
        super().__init__()
        width = [VAE_WIDTH * m for m in VAE_MULT]
        self.conv_in, self.down, c = nn.Conv2d(3, width[0], 3, padding=1), nn.ModuleList(), width[0]
        for i, w in enumerate(width):
            level = Level()
            level.block = nn.ModuleList([ResBlock(c, w), ResBlock(w, w)])
            if i + 1 < len(width):
                level.downsample = Resample(w, True)
            self.down.append(level)
            c = w
        self.mid, self.norm_out, self.conv_out = Middle(c), nn.GroupNorm(32, c, 1e-6), nn.Conv2d(c, 2 * z, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                x = block(x)
            if hasattr(level, "downsample"):
                x = level.downsample(x)
        x = self.mid(x)
        return self.conv_out(VaeOps.norm_act(x, self.norm_out.weight, self.norm_out.bias))


class Decoder(nn.Module):
    def __init__(self, z=16):
        super().__init__()
        width = [VAE_WIDTH * m for m in VAE_MULT]
        c, levels = width[-1], [None] * len(width)
        self.conv_in, self.mid = nn.Conv2d(z, c, 3, padding=1), Middle(c)
        for i in reversed(range(len(width))):
            level = Level()
            level.block = nn.ModuleList([ResBlock(c, width[i]), ResBlock(width[i], width[i]), ResBlock(width[i], width[i])])
            c = width[i]
            if i:
                level.upsample = Resample(c, False)
            levels[i] = level
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = nn.GroupNorm(32, c, 1e-6), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            for block in level.block:
                x = block(x)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return self.conv_out(VaeOps.norm_act(x, self.norm_out.weight, self.norm_out.bias))


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def moments(self, x):
        mean, logvar = self.encoder(x).float().chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    @torch.no_grad()
    def fold(self, mean, std):
        """Change encoder and decoder so that latents of this mean and std [16] get Flux's: shift 0.1159, std 1 / 0.3611."""
        a = 1 / (LATENT_SCALE * std)
        e, d, z = self.encoder.conv_out, self.decoder.conv_in, len(mean)
        e.weight[:z] *= a.view(-1, 1, 1, 1)
        e.bias[:z] = (e.bias[:z] - mean) * a + LATENT_SHIFT
        e.bias[z:] += 2 * a.log()
        d.bias += (d.weight * (mean - LATENT_SHIFT / a).view(1, -1, 1, 1)).sum((1, 2, 3))
        d.weight /= a.view(1, -1, 1, 1)


@torch.no_grad()
def sample(flux, txt, pooled, noise, steps=20, cfg=1.0, empty=None):
    """Euler over sigmas 1 .. 1 / steps, 0 from noise [B, 16, h, w]; empty = (txt, pooled) of "" for cfg. The scaled latent."""
    x = pack_latent(noise)
    for i in range(steps):
        s, s_next = 1 - i / steps, 1 - (i + 1) / steps
        t = torch.full((len(x),), s, device=x.device)
        v = flux(x, t, txt, pooled).float()
        if cfg != 1.0:
            u = flux(x, t, *(e.expand(len(x), *e.shape[1:]) for e in empty)).float()
            v = u + cfg * (v - u)
        x = x + (s_next - s) * v
    return unpack_latent(x)
