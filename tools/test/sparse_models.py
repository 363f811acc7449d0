#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model files of the true shapes of Flux.1 dev that take no disk: a correct safetensors header for every
tensor, then the file is cut to its full size with nothing written behind the header.

    tools/test/sparse_models.py DIR

writes DIR/{diffusion_models/flux1-dev,text_encoders/t5xxl_fp16,text_encoders/clip_l,vae/ae}.safetensors.
Shapes: the public configs of FLUX.1 [dev], T5 v1.1 XXL, CLIP ViT-L/14 and FLUX's autoencoder.
"""
import json
import os
import struct
import sys

SIZES = {"F32": 4, "BF16": 2, "F16": 2}


def flux_dev():
    """780 tensors: 19 double and 38 single blocks, hidden 3072, heads of 128."""
    d, head, mlp = 3072, 128, 4 * 3072
    shapes = {}

    def linear(name, rows, columns):
        shapes[name + ".weight"] = [rows, columns]
        shapes[name + ".bias"] = [rows]

    linear("img_in", d, 64)
    linear("txt_in", d, 4096)
    for name, columns in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        linear(name + ".in_layer", d, columns)
        linear(name + ".out_layer", d, d)
    for i in range(19):
        for side in ("img", "txt"):
            base = "double_blocks.%d.%s" % (i, side)
            linear(base + "_mod.lin", 6 * d, d)
            linear(base + "_attn.qkv", 3 * d, d)
            linear(base + "_attn.proj", d, d)
            shapes[base + "_attn.norm.query_norm.scale"] = [head]
            shapes[base + "_attn.norm.key_norm.scale"] = [head]
            linear(base + "_mlp.0", mlp, d)
            linear(base + "_mlp.2", d, mlp)
    for i in range(38):
        base = "single_blocks.%d." % i
        linear(base + "linear1", 3 * d + mlp, d)
        linear(base + "linear2", d, d + mlp)
        linear(base + "modulation.lin", 3 * d, d)
        shapes[base + "norm.query_norm.scale"] = [head]
        shapes[base + "norm.key_norm.scale"] = [head]
    linear("final_layer.linear", 64, d)
    linear("final_layer.adaLN_modulation.1", 2 * d, d)
    return shapes


def t5_xxl():
    shapes = {"shared.weight": [32128, 4096], "encoder.embed_tokens.weight": [32128, 4096],
              "encoder.final_layer_norm.weight": [4096]}
    for i in range(24):
        base = "encoder.block.%d.layer." % i
        for part in "qkvo":
            shapes[base + "0.SelfAttention.%s.weight" % part] = [4096, 4096]
        if i == 0:
            shapes[base + "0.SelfAttention.relative_attention_bias.weight"] = [32, 64]
        shapes[base + "0.layer_norm.weight"] = [4096]
        shapes[base + "1.DenseReluDense.wi_0.weight"] = [10240, 4096]
        shapes[base + "1.DenseReluDense.wi_1.weight"] = [10240, 4096]
        shapes[base + "1.DenseReluDense.wo.weight"] = [4096, 10240]
        shapes[base + "1.layer_norm.weight"] = [4096]
    return shapes


def clip_l():
    w = 768
    shapes = {"text_model.embeddings.token_embedding.weight": [49408, w],
              "text_model.embeddings.position_embedding.weight": [77, w]}

    def pair(name, *shape):
        shapes["text_model." + name + ".weight"] = list(shape)
        shapes["text_model." + name + ".bias"] = [shape[0]]

    for i in range(12):
        base = "encoder.layers.%d." % i
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            pair(base + "self_attn." + part, w, w)
        pair(base + "mlp.fc1", 4 * w, w)
        pair(base + "mlp.fc2", w, 4 * w)
        pair(base + "layer_norm1", w)
        pair(base + "layer_norm2", w)
    pair("final_layer_norm", w)
    return shapes


def flux_vae():
    shapes, width = {}, (128, 256, 512, 512)

    def norm(name, n):
        shapes[name + ".weight"] = shapes[name + ".bias"] = [n]

    def conv(name, out, inn, k=3):
        shapes[name + ".weight"] = [out, inn, k, k]
        shapes[name + ".bias"] = [out]

    def res(name, inn, out):
        norm(name + ".norm1", inn)
        conv(name + ".conv1", out, inn)
        norm(name + ".norm2", out)
        conv(name + ".conv2", out, out)
        if inn != out:
            conv(name + ".nin_shortcut", out, inn, 1)

    for half in ("encoder", "decoder"):
        for block in ("block_1", "block_2"):
            res("%s.mid.%s" % (half, block), 512, 512)
        norm(half + ".mid.attn_1.norm", 512)
        for part in ("q", "k", "v", "proj_out"):
            conv("%s.mid.attn_1.%s" % (half, part), 512, 512, 1)
    conv("encoder.conv_in", 128, 3)
    conv("decoder.conv_in", 512, 16)
    last = 128
    for i, w in enumerate(width):
        for j in range(2):
            res("encoder.down.%d.block.%d" % (i, j), last, w)
            last = w
        if i < 3:
            conv("encoder.down.%d.downsample.conv" % i, w, w)
    for i in (3, 2, 1, 0):
        for j in range(3):
            res("decoder.up.%d.block.%d" % (i, j), last, width[i])
            last = width[i]
        if i > 0:
            conv("decoder.up.%d.upsample.conv" % i, last, last)
    norm("encoder.norm_out", 512)
    conv("encoder.conv_out", 32, 512)
    norm("decoder.norm_out", 128)
    conv("decoder.conv_out", 3, 128)
    return shapes


def count(shape):
    n = 1
    for side in shape:
        n *= side
    return n


def write(path, shapes, dtype):
    """Returns (tensors, parameters, bytes of the file)."""
    header, offset, parameters = {}, 0, 0
    for name, shape in shapes.items():
        n = count(shape)
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [offset, offset + n * SIZES[dtype]]}
        offset += n * SIZES[dtype]
        parameters += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + offset)
    return len(shapes), parameters, 8 + len(text) + offset


FILES = (("diffusion_models/flux1-dev.safetensors", flux_dev, "BF16"),
         ("text_encoders/t5xxl_fp16.safetensors", t5_xxl, "F16"),
         ("text_encoders/clip_l.safetensors", clip_l, "F16"),
         ("vae/ae.safetensors", flux_vae, "F32"))


def make(folder):
    """{name: (tensors, parameters, bytes)} of what was written."""
    return {name: write(os.path.join(folder, name), shapes(), dtype)
            for name, shapes, dtype in FILES}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, (tensors, parameters, size) in make(sys.argv[1]).items():
        print("%-42s %4d tensors %14d parameters %12d bytes" % (name, tensors, parameters, size))
