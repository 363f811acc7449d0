# SPDX-License-Identifier: Apache-2.0
"""ControlNets for Flux.1 with random weights in their published layouts: InstantX' (diffusers' names), its
union form, XLabs' and MistoLine's; residuals by ComfyUI's module and, for InstantX', by diffusers."""
import torch

import flux
from case import Random

MISTO = [(3, 3, 1), (16, 1, 1), (16, 3, 1), (16, 3, 2), (16, 3, 1), (16, 3, 2), (16, 3, 1), (16, 3, 2),
         (16, 1, 1), (16, 3, 1)]                               # inputs, kernel, stride
XLABS = [(3, 3), (16, 3), (16, 3), (16, 3), (16, 3), (16, 3), (16, 3), (16, 3)]


def weights(cfg, kind, seed, hint_channels=16, modes=0):
    """In Black Forest Labs' names, as ComfyUI's module has them."""
    r, h = Random(seed + 1), cfg.hidden
    sd = {k: v for k, v in flux.weights(cfg, seed).items() if not k.startswith("final_layer")}
    r.linear(sd, "pos_embed_input", h, hint_channels * 4, gain=0.02)
    after = ("controlnet_blocks.%d", "controlnet_single_blocks.%d")
    for name, n in zip(after, (cfg.depth, cfg.single)):
        for i in range(n):
            r.linear(sd, name % i + (".linear" if kind == "mistoline" else ""), h, h)
    if kind == "xlabs":
        for i, (cin, k) in enumerate(XLABS):
            r.conv(sd, f"input_hint_block.{2 * i}", 16, cin, k, gain=1.6)
    if kind == "mistoline":
        for i, (cin, k, _) in enumerate(MISTO):
            r.conv(sd, f"input_cond_block.encoder.{2 * i}", 16, cin, k, gain=1.6)
    if modes:
        sd["controlnet_mode_embedder.weight"] = r.normal("modes", (modes, h), 0.02)
    return {k: v.float() for k, v in sd.items()}


def to_diffusers(sd, cfg):
    """The same weights under diffusers' names: q, k and v apart."""
    h, out = cfg.hidden, {}
    ends = {"img_in": "x_embedder", "txt_in": "context_embedder", "pos_embed_input": "controlnet_x_embedder"}
    temb = {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}
    stream = {"img": ("norm1", ("to_q", "to_k", "to_v"), "to_out.0", "ff", ("norm_q", "norm_k")),
              "txt": ("norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context",
                      ("norm_added_q", "norm_added_k"))}
    for key, w in sd.items():
        part = key.split(".")
        end = part[-1]
        if part[0] in ends:
            out[f"{ends[part[0]]}.{end}"] = w
        elif part[0] in temb:
            out[f"time_text_embed.{temb[part[0]]}.linear_{1 if part[1] == 'in_layer' else 2}.{end}"] = w
        elif part[0] == "double_blocks":
            p, (s, what) = f"transformer_blocks.{part[1]}.", part[2].split("_", 1)
            norm, qkv, proj, ff, norms = stream[s]
            if what == "mod":
                out[f"{p}{norm}.linear.{end}"] = w
            elif what == "mlp":
                out[f"{p}{ff}.net.{'0.proj' if part[3] == '0' else '2'}.{end}"] = w
            elif part[3] == "qkv":
                out.update({f"{p}attn.{n}.{end}": w[i * h:(i + 1) * h] for i, n in enumerate(qkv)})
            elif part[3] == "proj":
                out[f"{p}attn.{proj}.{end}"] = w
            else:
                out[f"{p}attn.{norms[0] if 'query' in part[4] else norms[1]}.weight"] = w
        elif part[0] == "single_blocks":
            p = f"single_transformer_blocks.{part[1]}."
            if part[2] == "modulation":
                out[f"{p}norm.linear.{end}"] = w
            elif part[2] == "linear1":
                names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
                out.update({f"{p}{n}.{end}": w[i * h:(i + 1) * h if i < 3 else None]
                            for i, n in enumerate(names)})
            elif part[2] == "linear2":
                out[f"{p}proj_out.{end}"] = w
            else:
                out[f"{p}attn.{'norm_q' if 'query' in part[3] else 'norm_k'}.weight"] = w
        else:
            out[key] = w
    return {k: v.clone() for k, v in out.items()}


def published(sd, cfg, kind):
    """As the file of that kind names them."""
    if kind == "instantx":
        return to_diffusers(sd, cfg)
    if kind == "mistoline":
        return {k.replace("controlnet_single_blocks.", "single_controlnet_blocks."): v for k, v in sd.items()}
    return sd


def named(out):
    r = {f"doubles.{i}": t for i, t in enumerate(out["input"])}
    r.update({f"singles.{i}": t for i, t in enumerate(out.get("output", ()))})
    return r


def by_comfyui(file, cfg, kind, inp, type_=None, hint_channels=16, modes=0):
    import comfy.ops
    from comfy.ldm.flux.controlnet import ControlNetFlux
    from comfy.model_detection import convert_diffusers_mmdit

    sd = {k: v.float() for k, v in file.items()}
    if kind == "instantx":
        rest = dict(sd)
        sd = convert_diffusers_mmdit(rest, "")
        sd.update(rest)
    sd = {k.replace("single_controlnet_blocks.", "controlnet_single_blocks."): v for k, v in sd.items()}
    net = ControlNetFlux(
        latent_input=kind == "instantx", num_union_modes=modes, mistoline=kind == "mistoline",
        control_latent_channels=hint_channels if kind == "instantx" else None, in_channels=cfg.channels,
        out_channels=cfg.channels, vec_in_dim=cfg.vec, context_in_dim=cfg.context, hidden_size=cfg.hidden,
        mlp_ratio=4.0, num_heads=cfg.heads, depth=cfg.depth, depth_single_blocks=cfg.single, axes_dim=cfg.axes,
        theta=10000, patch_size=2, qkv_bias=True, guidance_embed=cfg.guidance, dtype=torch.float32, device="cpu",
        operations=comfy.ops.disable_weight_init)
    missing, unexpected = net.load_state_dict(sd, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    extra = {} if type_ is None else {"control_type": [type_]}
    return named(net(inp["x"], inp["timestep"], inp["context"], inp["y"], inp.get("guidance"), hint=inp["hint"],
                     **extra))


def by_diffusers(file, cfg, inp, hint_channels=16):
    """InstantX' layout is diffusers' own. Residuals are one per block there; ComfyUI repeats them."""
    from diffusers import FluxControlNetModel
    net = FluxControlNetModel(
        patch_size=1, in_channels=cfg.channels * 4, num_layers=cfg.depth, num_single_layers=cfg.single,
        attention_head_dim=cfg.head_dim, num_attention_heads=cfg.heads, joint_attention_dim=cfg.context,
        pooled_projection_dim=cfg.vec, guidance_embeds=cfg.guidance, axes_dims_rope=tuple(cfg.axes),
        conditioning_embedding_channels=None).eval()
    net.controlnet_x_embedder = torch.nn.Linear(hint_channels * 4, cfg.hidden)
    net.load_state_dict({k: v.float() for k, v in file.items()})
    x, h2, w2 = flux.to_tokens(inp["x"])
    hint, _, _ = flux.to_tokens(inp["hint"])
    ids = flux.position_ids(inp["context"].shape[1], h2, w2)
    n = inp["context"].shape[1]
    doubles, singles = net(
        hidden_states=x, controlnet_cond=hint, conditioning_scale=1.0, encoder_hidden_states=inp["context"],
        pooled_projections=inp["y"], timestep=inp["timestep"], img_ids=ids[n:], txt_ids=ids[:n],
        guidance=inp.get("guidance"), return_dict=False)

    def spread(blocks, places):
        repeat = -(-places // len(blocks))
        return [b for b in blocks for _ in range(repeat)][:places]
    return named({"input": spread(doubles, 19), "output": spread(singles or (), 38) if singles else ()})
