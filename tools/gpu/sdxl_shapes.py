# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of sd_xl_base_1.0.safetensors: UNet, CLIP-L, OpenCLIP bigG and the KL VAE in the original layout.

Source: the public configs of SDXL base 1.0; the widths follow from one table as in the network itself.
"""
LEVELS = ((320, 0), (640, 2), (1280, 10))  # width, transformer blocks
TEXT, VECTOR, EMBED = 2048, 2816, 1280


class Shapes(dict):
    def linear(self, name, rows, columns, bias=True):
        self[name + ".weight"] = [rows, columns]
        if bias:
            self[name + ".bias"] = [rows]

    def norm(self, name, n):
        self[name + ".weight"], self[name + ".bias"] = [n], [n]

    def conv(self, name, out, inn, k=3):
        self[name + ".weight"], self[name + ".bias"] = [out, inn, k, k], [out]


def res(s, base, inn, out):
    s.norm(base + "in_layers.0", inn)
    s.conv(base + "in_layers.2", out, inn)
    s.linear(base + "emb_layers.1", out, EMBED)
    s.norm(base + "out_layers.0", out)
    s.conv(base + "out_layers.3", out, out)
    if inn != out:
        s.conv(base + "skip_connection", out, inn, 1)


def transformer(s, base, d, depth):
    s.norm(base + "norm", d)
    s.linear(base + "proj_in", d, d)
    for i in range(depth):
        b = base + "transformer_blocks.%d." % i
        for n, text in (("attn1", d), ("attn2", TEXT)):
            s.linear(b + n + ".to_q", d, d, False)
            s.linear(b + n + ".to_k", d, text, False)
            s.linear(b + n + ".to_v", d, text, False)
            s.linear(b + n + ".to_out.0", d, d)
        s.linear(b + "ff.net.0.proj", 8 * d, d)
        s.linear(b + "ff.net.2", d, 4 * d)
        for n in ("norm1", "norm2", "norm3"):
            s.norm(b + n, d)
    s.linear(base + "proj_out", d, d)


def unet(s, p):
    s.linear(p + "time_embed.0", EMBED, 320)
    s.linear(p + "time_embed.2", EMBED, EMBED)
    s.linear(p + "label_emb.0.0", EMBED, VECTOR)
    s.linear(p + "label_emb.0.2", EMBED, EMBED)
    s.conv(p + "input_blocks.0.0", 320, 4)
    skips, n = [320], 1
    for level, (width, depth) in enumerate(LEVELS):
        for _ in range(2):
            res(s, p + "input_blocks.%d.0." % n, skips[-1], width)
            if depth:
                transformer(s, p + "input_blocks.%d.1." % n, width, depth)
            skips.append(width)
            n += 1
        if level < 2:
            s.conv(p + "input_blocks.%d.0.op" % n, width, width)
            skips.append(width)
            n += 1
    width = skips[-1]
    res(s, p + "middle_block.0.", width, width)
    transformer(s, p + "middle_block.1.", width, 10)
    res(s, p + "middle_block.2.", width, width)
    n = 0
    for level in (2, 1, 0):
        out, depth = LEVELS[level]
        for j in range(3):
            res(s, p + "output_blocks.%d.0." % n, width + skips.pop(), out)
            if depth:
                transformer(s, p + "output_blocks.%d.1." % n, out, depth)
            if j == 2 and level:
                s.conv(p + "output_blocks.%d.%d.conv" % (n, 2 if depth else 1), out, out)
            width = out
            n += 1
    s.norm(p + "out.0", 320)
    s.conv(p + "out.2", 4, 320)


def open_clip_g(s, p):
    d = 1280
    s[p + "positional_embedding"], s[p + "text_projection"], s[p + "logit_scale"] = [77, d], [d, d], []
    s[p + "token_embedding.weight"] = [49408, d]
    s.norm(p + "ln_final", d)
    for i in range(32):
        b = p + "transformer.resblocks.%d." % i
        s[b + "attn.in_proj_weight"], s[b + "attn.in_proj_bias"] = [3 * d, d], [3 * d]
        s.linear(b + "attn.out_proj", d, d)
        s.norm(b + "ln_1", d)
        s.norm(b + "ln_2", d)
        s.linear(b + "mlp.c_fc", 4 * d, d)
        s.linear(b + "mlp.c_proj", d, 4 * d)


def sdxl(clip_l, flux_vae):
    """clip_l and flux_vae: the shapes of tools/test/sparse_models.py; SDXL's VAE has 4 channels and two more layers."""
    s = Shapes()
    unet(s, "model.diffusion_model.")
    for name, shape in clip_l.items():
        s["conditioner.embedders.0.transformer." + name] = shape
    open_clip_g(s, "conditioner.embedders.1.model.")
    p = "first_stage_model."
    for name, shape in flux_vae.items():
        s[p + name] = shape
    s.conv(p + "decoder.conv_in", 512, 4)
    s.conv(p + "encoder.conv_out", 8, 512)
    s.conv(p + "quant_conv", 8, 8, 1)
    s.conv(p + "post_quant_conv", 4, 4, 1)
    return s
