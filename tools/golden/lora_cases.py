# SPDX-License-Identifier: Apache-2.0
"""The committed adapter cases: every kind and every way of naming, against ComfyUI's own patcher (a checkout
is needed: --comfyui). The models are those of other cases."""
import os

import torch
from safetensors.torch import load_file

import flux
import unet
from case import healthy, save, write_case
from lora import Maker, denoiser_keys, encoder_keys, patched

TINY = flux.Config(hidden=32, depth=1, single=1)          # flux_checkpoint's
IP2P = unet.Config(res=(1, 1), depth=(1, 0), depth_out=(1, 1, 0, 0), extra_in=4)


def part(sd, prefix):
    return {k[len(prefix):]: v for k, v in sd.items() if k.startswith(prefix)}


def write(root, name, model, prefix, got, files, step=1, options=None):
    """files: {file name: (tensors, strength)}; got: what changed. All are counted, the values of every `step`-th
    are compared."""
    os.makedirs(os.path.join(root, name), exist_ok=True)
    for f, (sd, _) in files.items():
        save(sd, os.path.join(root, name, f))
    expected = {prefix + k[len("diffusion_model."):] if k.startswith("diffusion_model.") else k: v
                for k, v in list(got.items())[::step]}
    expected["edited"] = torch.tensor(float(len(got)))
    rows = [{"file": f, "strength": s} for f, (_, s) in files.items()]
    write_case(root, name, "weights", model, None, expected, {**(options or {}), "loras": rows})


# ------------------------------------------------------------------ Flux

def flux_kinds(h):
    """Every kind once, under the names of kohya's trainer."""
    m = Maker(901)
    d, s = "lora_unet_double_blocks_0_", "lora_unet_single_blocks_0_"
    m.lora(d + "img_attn_qkv", (3 * h, h), 4, alpha=2)
    m.lora(d + "txt_attn_qkv", (3 * h, h), 4)
    m.lora(d + "img_attn_proj", (h, h), 3, alpha=3, dora=True)
    m.lora(d + "txt_attn_proj", (h, h), 3, alpha=1, dora=True)
    m.lora(d + "img_mlp_0", (4 * h, h), 3, alpha=1.5, dora=False)
    m.loha(d + "img_mlp_2", (h, 4 * h), 3, alpha=1.5)
    m.loha(d + "txt_mlp_0", (4 * h, h), 2, dora=True)
    m.lokr(d + "txt_mlp_2", (h, 4 * h), 2, alpha=3)
    m.lokr(d + "img_mod_lin", (6 * h, h), 2, w1=False, w2=False, alpha=3)
    m.lokr(d + "txt_mod_lin", (6 * h, h), 2, w2=False, alpha=0.5)
    m.glora(s + "linear2", (h, 5 * h), 3, alpha=2)
    m.glora(s + "modulation_lin", (3 * h, h), 3, old=True, alpha=1)
    m.oft("lora_unet_txt_in", (h, 40), 8, alpha=0.4)
    m.oft("lora_unet_img_in", (h, 64), 4, rescale=True)
    m.boft("lora_unet_vector_in_in_layer", (h, 24), 4, 3, alpha=0.5, rescale=True)
    m.boft("lora_unet_vector_in_out_layer", (h, h), 8, 2, alpha=30)
    m.whole("lora_unet_final_layer_linear", ".diff", (64, h))
    m.whole("lora_unet_final_layer_linear", ".diff_b", (64,))
    m.whole("lora_unet_time_in_out_layer", ".set_weight", (h, h))
    m.whole("lora_unet_guidance_in_out_layer", ".w_norm", (h, h))
    m.whole("lora_unet_guidance_in_out_layer", ".b_norm", (h,))
    return m.sd


def flux_names(h):
    """The same layers as diffusers, SimpleTuner, OneTrainer and plain keys call them."""
    m = Maker(902)
    d, s = "transformer.transformer_blocks.0.", "transformer.single_transformer_blocks.0."
    ab = {"up": ".lora_B.weight", "down": ".lora_A.weight"}
    for q, rank in (("to_q", 2), ("to_k", 3), ("to_v", 4), ("add_q_proj", 2), ("add_v_proj", 3)):
        m.lora(d + "attn." + q, (h, h), rank, **ab)
    m.lora(s + "attn.to_k", (h, h), 2, **ab)
    m.lora(s + "proj_mlp", (4 * h, h), 2, **ab)
    m.lora(s + "proj_out", (h, 5 * h), 2, **ab)
    m.lora(d + "ff_context.net.0.proj", (4 * h, h), 2, **ab)
    m.lora("transformer.norm_out.linear", (2 * h, h), 2, **ab)
    m.lora("lycoris_transformer_blocks_0_norm1_linear", (6 * h, h), 2, alpha=1)
    m.lora("lora_transformer_context_embedder", (h, 40), 2, alpha=1)
    m.lora("diffusion_model.single_blocks.0.linear1_qkv", (3 * h, h), 2)
    m.lora("diffusion_model.double_blocks.0.txt_attn.proj", (h, h), 2, up=".lora_B.default.weight",
           down=".lora_A.default.weight")
    m.lora("diffusion_model.double_blocks.0.txt_mlp.2", (h, 4 * h), 2, up=".lora_B", down=".lora_A")
    m.whole("diffusion_model.double_blocks.0.img_attn.norm.query_norm.scale", ".diff", (32,))
    m.whole("somebody_else", ".lora_up.weight", (4, 4))
    return m.sd


def make_flux(root):
    h, prefix = TINY.hidden, "model.diffusion_model."
    model = "../flux_checkpoint/model.safetensors"
    sd = part(load_file(os.path.join(root, "flux_checkpoint", "model.safetensors")), prefix)
    net, keys = denoiser_keys(sd, "Flux", {"hidden_size": h, "depth": 1, "depth_single_blocks": 1})
    one, two = flux_kinds(h), flux_names(h)
    for name, files in (("lora_flux_kinds", {"lora.safetensors": (one, 0.7)}),
                        ("lora_flux_names", {"lora.safetensors": (two, 1.0)}),
                        ("lora_flux_two", {"../lora_flux_kinds/lora.safetensors": (one, -0.4),
                                           "../lora_flux_names/lora.safetensors": (two, 1.3)})):
        got = patched(net, keys, list(files.values()))
        write(root, name, model, prefix, got, files, 1 if name != "lora_flux_two" else 4)
    # What the network draws with both.
    changed = {k: got.get("diffusion_model." + k, v).float() for k, v in sd.items()}
    inp = flux.inputs(TINY, 91, 1, 4, 6, 5, [0.4], [3.0])
    out = {"out": flux.plain(changed, TINY, inp)["out"].float()}
    healthy("lora_flux_out", out)
    rows = [{"file": f, "strength": s} for f, (_, s) in files.items()]
    write_case(root, "lora_flux_out", "denoiser", model, inp, out, {"loras": rows})


def make_control(root):
    """A control LoRA of Black Forest Labs: img_in grows, norms are replaced, biases come along."""
    h, prefix = TINY.hidden, "model.diffusion_model."
    sd = part(load_file(os.path.join(root, "flux_checkpoint", "model.safetensors")), prefix)
    net, keys = denoiser_keys(sd, "Flux", {"hidden_size": h, "depth": 1, "depth_single_blocks": 1})
    m = Maker(903)
    ab = {"up": ".lora_B.weight", "down": ".lora_A.weight"}
    m.lora("img_in", (h, 128), 3, **ab)
    m.whole("img_in", ".lora_B.bias", (h,))
    m.lora("double_blocks.0.img_attn.qkv", (3 * h, h), 3, **ab)
    m.whole("double_blocks.0.img_attn.qkv", ".lora_B.bias", (3 * h,))
    m.whole("double_blocks.0.img_attn.norm.key_norm", ".scale", (32,))
    m.whole("single_blocks.0.norm.key_norm", ".scale", (32,))
    files = {"lora.safetensors": (m.sd, 0.85)}
    got = patched(net, keys, list(files.values()))
    assert got["diffusion_model.img_in.weight"].shape == (h, 128)
    write(root, "lora_flux_control", "../flux_checkpoint/model.safetensors", prefix, got, files)


# ------------------------------------------------------------------ Stable Diffusion

def make_unet(root):
    stored = load_file(os.path.join(root, "unet_ip2p", "model.safetensors"))
    prefix = "model.diffusion_model." if any(k.startswith("model.diffusion_model.") for k in stored) else ""
    sd = part(stored, prefix)
    net, keys = denoiser_keys(sd, "BaseModel", unet.comfy_config(sd))
    m = Maker(904)
    kinds = iter(range(1000))
    # Every diffusers name of a layer, round robin over the kinds and the ways of naming.
    done = set()
    for name, to in keys.items():
        if not name.startswith("lora_unet_") or to not in net.state_dict() or to in done:
            continue
        if not any(p in name for p in ("down_blocks", "mid_block", "up_blocks", "conv_in", "conv_out", "time_embedding")):
            continue
        done.add(to)
        shape, i = tuple(net.state_dict()[to].shape), next(kinds)
        if len(shape) == 1:
            if i % 3 == 0:
                m.whole(name, ".diff", shape)
            continue
        if i % 4 == 0:
            name = next(k for k, v in keys.items() if v == to and k.startswith("unet."))
            m.lora(name, shape, 1, up=("_lora.up.weight" if "processor" in name else ".lora.up.weight"),
                   down=("_lora.down.weight" if "processor" in name else ".lora.down.weight"))
        elif len(shape) == 4 and shape[2] == 3 and min(shape[:2]) >= 8:
            [lambda: m.lora(name, shape, 2, mid=True, alpha=1), lambda: m.lora(name, shape, 1, alpha=1, dora=False),
             lambda: m.loha(name, shape, 2, core=True, alpha=1), lambda: m.lokr(name, shape, 2, w2=False, core=True, alpha=3),
             lambda: m.lokr(name, shape, 2, split=8, alpha=1), lambda: m.glora(name, shape, 2),
             lambda: m.oft(name, shape, 4), lambda: m.lora(name, shape, 1, dora=True)][i % 8]()
        elif len(shape) == 4:
            m.lora(name, shape, 1, alpha=1)
        elif i % 4 == 1:
            m.lokr(name, shape, 1, w1=False, split=8, alpha=1)
        else:
            m.lora(name, shape, 1)
    sd16 = {k: v.half() for k, v in m.sd.items()}
    files = {"lora.safetensors": (sd16, 0.9)}
    got = patched(net, keys, list(files.values()))
    write(root, "lora_unet", "../unet_ip2p/model.safetensors", prefix, got, files, 2)


# ------------------------------------------------------------------ text encoders

def make_encoders(root):
    clip = load_file(os.path.join(root, "clip_l", "model.safetensors"))
    t5 = load_file(os.path.join(root, "t5", "model.safetensors"))
    m = Maker(905)
    x = "text_model.encoder.layers."
    w = clip[x + "0.mlp.fc1.weight"].shape
    h = (w[1], w[1])
    m.lora("lora_te_text_model_encoder_layers_0_mlp_fc1", w, 2, alpha=1)
    m.lora("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", h, 2)
    m.lora("text_encoder." + x + "1.self_attn.out_proj", h, 2, up=".lora_linear_layer.up.weight",
           down=".lora_linear_layer.down.weight")
    m.lora("text_encoders.clip_l.transformer." + x + "1.self_attn.v_proj", h, 2)
    m.whole("text_encoders.clip_l.transformer.text_model.final_layer_norm", ".w_norm", (w[1],))
    m.whole("text_encoders.clip_l.transformer.text_model.final_layer_norm", ".b_norm", (w[1],))
    m.lora("lora_te2_text_model_encoder_layers_0_mlp_fc1", w, 2)          # the encoder that is not there
    k = "encoder.block.0.layer.0.SelfAttention.q.weight"
    a = t5[k].shape
    m.lora("lora_te2_encoder_block_0_layer_0_SelfAttention_q", a, 2)
    m.lora("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.v", t5[k.replace("q.w", "v.w")].shape, 2)
    m.lora("lora_te3_encoder_block_0_layer_1_DenseReluDense_wo", t5["encoder.block.0.layer.1.DenseReluDense.wo.weight"].shape, 2)
    both = {**{"clip_l.transformer." + k: v for k, v in clip.items()}, **{"t5xxl.transformer." + k: v for k, v in t5.items()}}
    net, keys = encoder_keys({k: v for k, v in both.items() if v.is_floating_point()})
    files = {"lora.safetensors": ({k: v.half() for k, v in m.sd.items()}, 0.6)}
    got = patched(net, keys, list(files.values()))
    for name, place, beside in (("lora_clip_l", "clip_l", "t5xxl"), ("lora_t5", "t5xxl", "clip_l")):
        p = place + ".transformer."
        use = files if name == "lora_clip_l" else {"../lora_clip_l/lora.safetensors": files["lora.safetensors"]}
        folder = "clip_l" if name == "lora_clip_l" else "t5"
        write(root, name, f"../{folder}/model.safetensors", "", part(got, p), use, 1, {"encoder": place, "beside": [beside]})


def make(root, comfyui):
    if not comfyui:
        print("  lora: needs --comfyui, nothing written")
        return
    make_flux(root)
    make_control(root)
    make_unet(root)
    make_encoders(root)
