#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients that others wrote, unchanged, against atelier serve.

    tools/conform/clients.py [--comfyui CHECKOUT] [--npm DIR] [--pip] [--atelier build/release/bin/atelier]

--comfyui: ComfyUI's three script_examples (they want port 8188 free, and websocket-client and Pillow in this Python);
their checkpoint v1-5-pruned-emaonly is a small one of random numbers in SD 1.5's layout, made here of the golden cases
(wants safetensors and torch); CLIP's vocabulary is the checkout's own.
--npm: a folder where `npm install @stable-canvas/comfyui-client @saintno/comfyui-sdk ws` was run.
--pip: comfy_api_simplified of PyPI, in this Python.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.abspath(os.path.join(HERE, "..", ".."))
HOUSE = os.path.join(TREE, "examples", "house.json")


def small_checkpoint(path):
    """SD 1.5's keys with few channels: the golden UNet, CLIP-L and VAE brought to one text width."""
    import torch
    from safetensors.torch import load_file, save_file
    torch.manual_seed(0)
    rows = {}
    for prefix, case in (("model.diffusion_model.", "unet_sd15"), ("cond_stage_model.transformer.", "clip_l"),
                         ("first_stage_model.", "vae_sd_decode")):
        for key, value in load_file(os.path.join(TREE, "tests/golden", case, "model.safetensors")).items():
            rows[prefix + key] = value.clone().contiguous()
    table = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    width = rows[table].shape[1]
    rows[table] = torch.randn(49408, width) * 0.5
    for key in rows:
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            rows[key] = torch.randn(rows[key].shape[0], width) / width ** 0.5
    save_file(rows, path)


def script_examples(comfyui, server, home):
    """The scripts as they are; each runs to its end, and its picture is a PNG."""
    tail = "\nassert images and all(i[:4] == b'\\x89PNG' for v in images.values() for i in v)\n"
    for name in ("basic_api_example", "websockets_api_example", "websockets_api_example_ws_images"):
        with open(os.path.join(comfyui, "script_examples", name + ".py"), encoding="utf-8") as f:
            text = f.read()
        path = os.path.join(home, name + ".py")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text + ("" if name.startswith("basic") else tail))
        subprocess.run([sys.executable, path], check=True, timeout=300)
        server.idle()
        ends = [e["status"] for e in server.get("/history").json().values()]
        assert ends and all(e["status_str"] == "success" for e in ends), ends[-1:]
        print(name + ": ok")
    assert len(ends) == 3, ends


def simplified(server):
    from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper
    workflow = ComfyWorkflowWrapper(HOUSE)
    for node in workflow.values():  # it looks for nodes by their title
        node.setdefault("_meta", {"title": node["class_type"]})
    workflow.set_node_param("sampler", "seed", 5)
    pictures = ComfyApiWrapper("http://127.0.0.1:%d" % server.port).queue_and_wait_images(workflow, "SaveImage")
    assert pictures and all(p[:4] == b"\x89PNG" for p in pictures.values())
    print("comfy_api_simplified: ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--atelier", default=os.path.join(TREE, "build", "release", "bin", "atelier"))
    parser.add_argument("--comfyui")
    parser.add_argument("--npm")
    parser.add_argument("--pip", action="store_true")
    args = parser.parse_args()
    os.environ.update(ATELIER_BIN=os.path.abspath(args.atelier), ATELIER_SOURCE=TREE)
    sys.path.insert(0, os.path.join(TREE, "tests", "serve"))
    import kit
    kit.PATIENCE = 300  # 512x512 in 20 steps, on a CPU that may be busy
    home = tempfile.mkdtemp(prefix="atelier-clients-")
    os.makedirs(os.path.join(home, "models", "checkpoints"))
    flags = ["--models", os.path.join(TREE, "models"), "--models", os.path.join(home, "models")]
    if args.comfyui:
        small_checkpoint(os.path.join(home, "models", "checkpoints", "v1-5-pruned-emaonly.safetensors"))
        os.symlink(os.path.abspath(os.path.join(args.comfyui, "comfy")), os.path.join(home, "comfy"))
        flags += ["--port", "8188"]
    server = kit.Server(home, *flags)
    try:
        if args.comfyui:
            script_examples(args.comfyui, server, home)
            server.post("/history", {"clear": True})
        if args.npm:
            subprocess.run(["node", os.path.join(HERE, "clients.mjs"), "http://127.0.0.1:%d" % server.port, HOUSE,
                            os.path.join(os.path.abspath(args.npm), "node_modules")], check=True, timeout=300)
        if args.pip:
            simplified(server)
        return 0
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
