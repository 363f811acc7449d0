#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ComfyUI's own frontend on atelier serve, in headless Chromium.

    tools/conform/frontend.py --frontend DIR [--atelier build/release/bin/atelier] [--shots DIR]

DIR is the `static` folder of PyPI's comfyui-frontend-package (pip download --no-deps, unzip). The page loads from our
server, shows its default workflow, opens the house workflow, queues it as its button does, and must show the finished
picture on the node. Every error of the console is printed; those that ComfyUI's own server gives it too are named in
KNOWN, any other fails. --shots keeps the two screenshots.
"""
import argparse
import json
import os
import re
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.join(HERE, "..", "..")

# What the page says of files that are not there, or of hosts that only the internet has.
KNOWN = [r"reading 'id'\)\n +at onChange .*\n +at Proxy\.set",  # 1.27.10 answers a setting's change before the setting is there
         r"404.*/favicon\.ico$", r"https://(api\.comfy\.org|[\w.-]*\.(com|org|net|io|ai))/", r"/api/userdata/workflows"]
GRAPH = "(window.app && window.app.graph && window.app.graph._nodes.length)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frontend", required=True)
    parser.add_argument("--atelier", default=os.path.join(TREE, "build", "release", "bin", "atelier"))
    parser.add_argument("--shots")
    args = parser.parse_args()
    os.environ.update(ATELIER_BIN=os.path.abspath(args.atelier), ATELIER_SOURCE=TREE)
    sys.path.insert(0, os.path.join(TREE, "tests", "serve"))
    from browser import Browser
    from kit import Server

    with open(os.path.join(TREE, "examples", "house.json"), encoding="utf-8") as f:
        house = json.load(f)
    home = tempfile.mkdtemp(prefix="atelier-frontend-")
    server = Server(home, "--front-end-root", os.path.abspath(args.frontend), "--models", os.path.join(TREE, "models"))
    # Somebody who has been here before: a newcomer gets a window of templates, and a graph with no nodes.
    server.post("/settings", {"Comfy.TutorialCompleted": True})
    for name, text in (("user.css", b"/* none */"), ("comfy.templates.json", b"[]")):
        server.request("POST", "/userdata/" + name, text)
    browser = Browser(1600, 1000)
    try:
        browser.open("http://127.0.0.1:%d/" % server.port)
        nodes = browser.until(GRAPH, 90)
        print("default workflow: %d nodes" % nodes)
        assert nodes >= 7, "the default workflow has seven nodes"
        if args.shots:
            browser.run("new Promise(r => setTimeout(r, 2000))")
            browser.screenshot(os.path.join(args.shots, "default.png"))
        browser.run("window.app.loadApiJson(%s, 'house.json'); true" % json.dumps(house))
        browser.until("window.app.graph._nodes.some(n => n.type === 'DualCLIPLoader')")
        browser.run("new Promise(r => setTimeout(r, 500))")  # a picture is fetched when its node is drawn: all are in sight
        browser.run("window.app.canvas.ds.scale = 0.6; window.app.graph.setDirtyCanvas(true, true); true")
        browser.run("window.app.queuePrompt(0, 1).then(() => true)")
        size = browser.until("(() => { const n = window.app.graph._nodes.find(n => n.type === 'SaveImage');"
                             " const i = n && n.imgs && n.imgs[0]; return i && i.complete && i.naturalWidth; })()", 40)
        print("the finished picture is on the canvas: %d pixels wide" % size)
        assert size == 256
        if args.shots:
            browser.run("new Promise(r => setTimeout(r, 1500))")
            browser.screenshot(os.path.join(args.shots, "house.png"))
        bad = [e for e in browser.errors if not any(re.search(k, e) for k in KNOWN)]
        for e in browser.errors:
            print(("error: " if e in bad else "known: ") + e[:300])
        return 1 if bad else 0
    except AssertionError:
        if args.shots:
            browser.screenshot(os.path.join(args.shots, "failed.png"))
        raise
    finally:
        browser.close()
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
