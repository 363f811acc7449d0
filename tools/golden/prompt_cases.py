# SPDX-License-Identifier: Apache-2.0
"""tests/golden/prompt_weights.json: how ComfyUI splits hostile prompts into weighted segments. Rows are
[text, [[segment, weight], ...]]; a derivation from the rules checks ComfyUI's own function."""
import json
import math
import os

PROMPTS = [
    "", " ", "a", "a cat", "(a)", "(a cat)", "((a))", "(((a)))", "a (b) c", "a (b (c) d) e",
    "(a:1.3)", "(a cat:0.5) and (a dog:1.5)", "((a:1.3))", "((a):1.3)", "((a:1.2) b:0.8)", "(a (b:2) c:0.5)", "(a (b) c:0.5)",
    "(a:0)", "(a:-1)", "(a:1e2)", "(a:.5)", "(a:5.)", "(a: 1.3)", "(a:1.3 )", "(a :1.3)", "(a:+2)", "(a:1_0)",
    "(a:b)", "(a:b:1.4)", "(a:1.2:1.4)", "(:1.3)", "(::1.3)", "()", "(())", "( )", "(:)", "(a:)",
    "(a", "a)", "((a)", "(a))", ")a(", ")(", "(a:1.3", "a:1.3)", "a) (b:1.5)", "(a)) (b)", "(a) (b", "a ((b:1.2) c",
    "\\(a\\)", "\\(a:1.3\\)", "(a \\(b\\) c:1.3)", "(\\)a:1.2)", "a \\( b", "\\\\(a\\\\)", "\\", "(\\(:1.5)", "\\((a)\\)",
    "(a:inf)", "(a:nan)", "(a:1,3)", "(a:0x10)", "(a:1.3:)", "a:1.3", "(a, b, c:1.1), d", "(\u4e00\u53ea:1.2)\U0001f600(\u00e9)",
    "(a\nb:1.2)\tc", "[a] {b|c} <d:1>", "(a)(b)(c)", "(a:1.1)(b:0.9)", "((((((((((a))))))))))", "(embedding:foo:1.2)",
    "(1.5)", "(:1.5)a", "(a:\u0661.\u0665)", "(a:1.30000001)", "(a:1e-3)", "(a:1e400)", "(a (b (c (d:3) e) f) g)",
]


def derive(text):
    """The rules: parentheses multiply by 1.1, `(x:w)` sets w, `\\(` and `\\)` are literal."""
    def split(s):
        """Top-level groups and the text between them; an unclosed group is plain text."""
        parts, level, cur = [], 0, ""
        for c in s:
            if c == "(":
                if level == 0:
                    if cur:
                        parts.append(cur)
                    cur = ""
                cur += c
                level += 1
            elif c == ")":
                level -= 1
                cur += c
                if level == 0:
                    parts.append(cur)
                    cur = ""
            else:
                cur += c
        return parts + [cur] if cur else parts

    def walk(s, weight):
        rows = []
        for part in split(s):
            if len(part) < 2 or part[0] != "(" or part[-1] != ")":
                rows.append((part, weight))
                continue
            inner, w, colon = part[1:-1], weight * 1.1, part[1:-1].rfind(":")
            if colon > 0:
                try:
                    w, inner = float(inner[colon + 1:]), inner[:colon]
                except ValueError:
                    pass
            rows += walk(inner, w)
        return rows

    hidden = text.replace("\\)", "\0\1").replace("\\(", "\0\2")
    return [(s.replace("\0\1", ")").replace("\0\2", "("), w) for s, w in walk(hidden, 1.0)]


def make(root, comfyui):
    rows = [(t, derive(t)) for t in PROMPTS]
    if comfyui:
        import comfy.sd1_clip as c
        for t, got in rows:
            ref = [(c.unescape_important(s), w) for s, w in c.token_weights(c.escape_important(t), 1.0)]
            assert len(got) == len(ref) and all(
                a[0] == b[0] and (a[1] == b[1] or math.isnan(a[1]) and math.isnan(b[1])) for a, b in zip(got, ref)), (t, got, ref)

    def number(w):
        """JSON has no inf and nan: they are strings."""
        return w if math.isfinite(w) else str(w)
    with open(os.path.join(root, "prompt_weights.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps([t, [[s, number(w)] for s, w in r]]) for t, r in rows) + "\n]\n")
    print(f"  prompt_weights: {len(rows)} prompts")
