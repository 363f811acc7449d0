# SPDX-License-Identifier: Apache-2.0
"""Record what ComfyUI's text encoder nodes make of prompts with the small encoders of tests/nodes, as the table of
tests/nodes/encode_test.c.

    build/.../tests/make_tiny_models tests/golden FOLDER
    python encode_nodes.py COMFYUI_FOLDER FOLDER > tests/nodes/encode_cases.h

Needs torch, transformers and a ComfyUI 0.3.64 checkout. ComfyUI's classes run as they are; told are the small widths
and the small vocabulary's first and last ids. A result is kept as its shape and two weighted sums over all values."""
import json
import math
import os
import sys

import comfyui

VERSION = comfyui.enable(sys.argv[1])
FOLDER = sys.argv[2]

import torch  # noqa: E402

torch.set_num_threads(1)
torch.set_grad_enabled(False)
import comfy.sd  # noqa: E402
import comfy.sd1_clip  # noqa: E402
import comfy.utils  # noqa: E402
import comfy_extras.nodes_clip_sdxl as sdxl  # noqa: E402
import comfy_extras.nodes_sd3 as sd3  # noqa: E402
import nodes  # noqa: E402
from transformers import CLIPTokenizer  # noqa: E402

TEXT = os.path.join(FOLDER, "text_encoders")
VOCABULARY = {True: os.path.join(TEXT, "tiny_clip_l"), False: os.path.join(TEXT, "tiny_t5")}

plain_init = comfy.sd1_clip.SDTokenizer.__init__


def small_init(self, tokenizer_path=None, *rest, tokenizer_class=CLIPTokenizer, **named):
    plain_init(self, VOCABULARY[tokenizer_class is CLIPTokenizer], *rest, tokenizer_class=tokenizer_class, **named)


comfy.sd1_clip.SDTokenizer.__init__ = small_init
# The widths are told below; what this would tell is the published one.
comfy.text_encoders.long_clipl.model_options_long_clip = lambda sd, tokenizer_data, options: (tokenizer_data, options)


def clip_config(sd):
    width = sd["text_model.final_layer_norm.weight"].shape[0]
    layers = sum(k.endswith("mlp.fc1.weight") for k in sd)
    return {"hidden_size": width, "intermediate_size": sd["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": layers, "num_attention_heads": width // 64}


def t5_config(sd):
    p = "encoder.block.0.layer."
    bias = sd[p + "0.SelfAttention.relative_attention_bias.weight"]
    inner = sd[p + "0.SelfAttention.q.weight"].shape[0]
    return {"d_model": sd["shared.weight"].shape[1], "d_ff": sd[p + "1.DenseReluDense.wi_0.weight"].shape[0],
            "d_kv": inner // bias.shape[1], "num_heads": bias.shape[1], "vocab_size": sd["shared.weight"].shape[0],
            "num_layers": sum(k.endswith("DenseReluDense.wi_0.weight") for k in sd)}


def load(files, kind):
    options, sds = {"dtype": torch.float32}, []
    for f in files:
        sd = {k: v.float() for k, v in comfy.utils.load_torch_file(os.path.join(TEXT, f"tiny_{f}.safetensors")).items()}
        table = "text_model.embeddings.token_embedding.weight"
        if table in sd:     # ComfyUI's has 49408 rows whatever the file has
            sd[table] = torch.cat([sd[table], torch.zeros(49408 - sd[table].shape[0], sd[table].shape[1])])
        options[("t5xxl" if f == "t5" else f) + "_model_config"] = t5_config(sd) if f == "t5" else clip_config(sd)
        sds.append(sd)
    if "t5" in files:       # told apart by the keys of the published depth
        comfy.sd.detect_te_model = lambda sd, known=comfy.sd.detect_te_model: comfy.sd.TEModel.T5_XXL if "shared.weight" in sd else known(sd)
    clip = comfy.sd.load_text_encoder_state_dicts(sds, clip_type=getattr(comfy.sd.CLIPType, kind.upper(), comfy.sd.CLIPType.STABLE_DIFFUSION), model_options=options)
    for part in ("clip_l", "clip_g", "clip_h", "t5xxl"):
        m, t = getattr(clip.cond_stage_model, part, None), getattr(clip.tokenizer, part, None)
        if m is None:
            continue
        m.special_tokens = {"start": t.start_token, "end": t.end_token, "pad": t.pad_token}
        if m.special_tokens["start"] is None:
            del m.special_tokens["start"]
    return clip


LONG = "a red circle and a blue square, " * 9 + "(a green star:0.6) on white"
L, G, H, T = "clip_l", "clip_g", "clip_h", "t5"


def text(words):
    return ("CLIPTextEncode", dict(text=words))


def big(g, l):
    return ("CLIPTextEncodeSDXL", dict(width=832, height=1216, crop_w=8, crop_h=16, target_width=1024, target_height=960, text_g=g, text_l=l))


def three(l, g, t5, padding):
    return ("CLIPTextEncodeSD3", dict(clip_l=l, clip_g=g, t5xxl=t5, empty_padding=padding))


WEIGHTED = "a (red:1.3) circle, ((blue)) square"
CASES = [  # files, type, last layer (0: not set), encoder node
    ([L], "stable_diffusion", 0, text(WEIGHTED)), ([L], "stable_diffusion", -1, text(WEIGHTED)),
    ([L], "stable_diffusion", -2, text("a red circle")), ([L], "stable_diffusion", -24, text("a red circle")),
    ([L], "stable_diffusion", 0, text(LONG)), ([L], "stable_diffusion", 0, text("")),
    ([H], "stable_diffusion", 0, text(WEIGHTED)), ([H], "stable_diffusion", -1, text("a red circle")), ([H], "sd3", -5, text("a circle")),
    ([G], "stable_diffusion", 0, text(WEIGHTED)), ([G], "stable_diffusion", -1, text("a red circle")),
    ([L, G], "sdxl", 0, text(WEIGHTED)), ([L, G], "sdxl", 0, text(LONG)), ([G, L], "sdxl", -1, text("a red circle")),
    ([L, G], "sdxl", -3, text("a red circle")),
    ([L, G], "sdxl", -24, text("a red circle")),
    ([L, G], "sdxl", 0, big("a red circle", LONG)), ([L, G], "sdxl", 0, big(LONG, WEIGHTED)), ([L, G], "sdxl", 0, big("", "a star")),
    ([G], "stable_diffusion", 0, big("a red circle", LONG)),
    ([G], "stable_diffusion", 0, ("CLIPTextEncodeSDXLRefiner", dict(ascore=7.5, width=640, height=512, text=WEIGHTED))),
    ([L], "sd3", 0, text(WEIGHTED)), ([G], "sd3", 0, text("a red circle")), ([L, G], "sd3", 0, text(WEIGHTED)), ([T], "sd3", 0, text(WEIGHTED)),
    ([L, G], "sd3", 0, three("a star", "", "", "none")), ([L, G], "sd3", 0, three("", "", "", "none")),
    ([L, G], "sd3", 0, three("", LONG, "x", "none")), ([L, G], "sd3", 0, three("", "a star", "", "empty_prompt")),
    ([T], "sd3", 0, three("", "", "", "none")), ([T], "sd3", 0, three("", "", "a (red:1.5) star", "none")),
    ([L, T], "flux", 0, text(WEIGHTED)), ([L, T], "flux", -2, text("a red circle")),
]


def run(clip, layer, node):
    if layer:
        clip = nodes.CLIPSetLastLayer().set_last_layer(clip, layer)[0]
    kind, inputs = node
    if kind == "CLIPTextEncode":
        return nodes.CLIPTextEncode().encode(clip, **inputs)[0]
    if kind == "CLIPTextEncodeSD3":
        return sd3.CLIPTextEncodeSD3().encode(clip, **inputs)[0]
    return getattr(sdxl, kind).execute(clip=clip, **inputs).args[0]


def sums(t):
    if t is None:
        return "{{0}, 0, 0}"
    v = t.double().flatten()
    i = torch.arange(v.numel(), dtype=torch.float64)
    a, b = (v * torch.sin(i * 0.7 + 0.2)).sum().item(), (v * torch.cos(i * 0.13)).sum().item()
    return "{{%s}, %.9g, %.9g}" % (", ".join(map(str, t.shape)), a / math.sqrt(v.numel()), b / math.sqrt(v.numel()))


def loader(files, kind):
    names = [f"tiny_{f}.safetensors" for f in files]
    if len(names) == 1:
        return {"class_type": "CLIPLoader", "inputs": {"clip_name": names[0], "type": kind}}
    return {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": names[0], "clip_name2": names[1], "type": kind}}


def main():
    print("// SPDX-License-Identifier: Apache-2.0")
    print(f"// encode_cases.h - made by tools/golden/encode_nodes.py from ComfyUI {VERSION}: a loader `c` and an encoder `t`,")
    print("// and shape and two weighted sums of context and pooled.")
    print("static const encode_case encode_cases[] = {")
    made = {}
    for files, kind, layer, node in CASES:
        key = (tuple(files), kind)
        if key not in made:
            made[key] = load(files, kind)
        cond = run(made[key].clone(), layer, node)
        assert len(cond) == 1
        source, w = ("s" if layer else "c"), {"c": loader(files, kind)}
        if layer:
            w["s"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["c", 0], "stop_at_clip_layer": layer}}
        w["t"] = {"class_type": node[0], "inputs": {**node[1], "clip": [source, 0]}}
        words = json.dumps(w, separators=(",", ":"))[1:-1].replace('"', "'")
        lines = [words[i:i + 80] for i in range(0, len(words), 80)]
        print("    {" + "\n     ".join('"' + x + '"' for x in lines) + ",")
        print(f"     {sums(cond[0][0])},\n     {sums(cond[0][1]['pooled_output'])}}},")
    print("};")


if __name__ == "__main__":
    main()
