# SPDX-License-Identifier: Apache-2.0
"""Record what ComfyUI's string nodes make of some texts, as the table of tests/nodes/string_test.c.

    python string_nodes.py COMFYUI_FOLDER > tests/nodes/string_cases.h

Needs a ComfyUI 0.3.64 checkout; the texts are cased by this Python's own Unicode tables.
"""
import json
import sys

import comfyui

VERSION = comfyui.enable(sys.argv[1])

import comfy_extras.nodes_string as S  # noqa: E402

MIXED = "ΑΣ ὈΔΥΣΣΕΎΣ. ΣΑΣ' straße ǆungla ŉ ﬁn İI ﬀ they're Ꮳꮳ ẞ Α\u00adΣ 2nd x1y"
CASES = [("StringConcatenate", dict(string_a="a\nb", string_b="ü", delimiter=", ")),
         ("StringConcatenate", dict(string_a="", string_b="", delimiter="")),
         ("StringLength", dict(string="naïve 日本語 🎈e\u0301")),
         ("StringLength", dict(string=""))]
for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case"):
    for text in (MIXED, "", "ὈΔΥΣΣΕΎΣ", "ǆ ß ŉ", "o'neill's 3rd-world  ÉTÉ"):
        CASES.append(("CaseConverter", dict(string=text, mode=mode)))
for a, b in ((0, 3), (2, 100), (-3, -1), (-100, 2), (3, 1), (1, -1), (5, 5), (-1, 9)):
    CASES.append(("StringSubstring", dict(string="äb🎈d日f", start=a, end=b)))
for mode in ("Both", "Left", "Right"):
    for text in (" \t\u3000a b\u2003\x1f\n", "\u200bx ", " \n", ""):
        CASES.append(("StringTrim", dict(string=text, mode=mode)))
for text, find, to in (("aaa", "aa", "b"), ("äöü", "", "-"), ("", "", "x"), ("abab", "ab", ""), ("x", "y", "z")):
    CASES.append(("StringReplace", dict(string=text, find=find, replace=to)))
for text, part in (("Hello World", "world"), ("ΣΑΣ", "σας"), ("abc", ""), ("", "a"), ("STRASSE", "ß")):
    for cased in (True, False):
        CASES.append(("StringContains", dict(string=text, substring=part, case_sensitive=cased)))
        for mode in ("Starts With", "Ends With", "Equal"):
            CASES.append(("StringCompare", dict(string_a=text, string_b=part, mode=mode, case_sensitive=cased)))

FLAGS = dict(case_insensitive=True, multiline=False, dotall=False)
for pattern, text, more in (
        (r"B+", "abbc", {}), (r"B+", "abbc", dict(case_insensitive=False)), (r"^b", "a\nb", {}),
        (r"^b", "a\nb", dict(multiline=True)), (r"a.b", "a\nb", {}), (r"a.b", "a\nb", dict(dotall=True)),
        (r"a$", "a\n", {}), (r"a\Z", "a\n", {}), (r"\bk", "a K", {}), (r"(", "x", {}), (r"a**", "a", {}),
        (r"\h", "h", {}), (r"[[:alpha:]]", "b", {}), (r"[[:alpha:]]", "a]", {}), (r"\s", "\x1c", {}),
        (r"\s", "\u180e", {}), (r"\w", "é", {}), (r"\w", "\u0301", {}), (r"\d", "٣", {}), (r"x{,2}y", "y", {}),
        (r"x{,}y", "xxxy", {}), (r"x{2", "x{2", {}), (r"{a}", "{a}", {}), (r"(?i)A", "a", dict(case_insensitive=False)),
        (r"a(?i)b", "ab", {}), (r"(?s-i:A.)", "A\n", {}), (r"(?P<q>a)(?P=q)", "aa", {}), (r"(?<q>a)", "a", {}),
        (r"(a)?(?(1)b|c)", "ab", {}), (r"(?#note)a", "a", {}), (r"\x41\u00e9\101", "aéA", {}), (r"\8", "8", {}),
        (r"[\d\s]", "7", {}), (r"[]a]", "]", {}), (r"[^]a]", "]a", {}), (r"a++b", "aab", {}), (r"(?>a+)b", "aab", {}),
        (r"(*UTF)a", "a", {}), (r"(?R)", "a", {}), (r"\K", "K", {}), (r"a\.b\-c\é", "a.b-cé", {}), (r"[a-z&&b]", "&", {}),
        (r"^$", "a\n", dict(multiline=True)), (r"(?=a)\w{1,2}?", "abc", {}), (r"\01", "\x01", {})):
    CASES.append(("RegexMatch", dict(string=text, regex_pattern=pattern, **{**FLAGS, **more})))
for mode in ("First Match", "All Matches", "First Group", "All Groups"):
    for pattern, text, index in ((r"\d+", "a1b22", 1), (r"(\w)=(\d)", "a=1, b=2", 2), (r"(a)|b", "ba", 1),
                                 (r"x*", "abxd", 0), (r"(x)(y)?", "xxy", 1), (r"(", "x", 1), (r"q(z)", "x", 1),
                                 (r"(ä+)", "ÄäaÄ", 1), (r"(a)(b)", "ab", 0), (r"(a)", "a", 7)):
        CASES.append(("RegexExtract", dict(string=text, regex_pattern=pattern, mode=mode, **FLAGS,
                                           group_index=index)))
for pattern, to, text, more in (
        (r"x*", "-", "abxd", {}), (r"(\w)(\w)", r"\2\1", "abcd", {}), (r"(?P<k>a)(b)?", r"<\g<k>|\g<2>>", "ab a", {}),
        (r"a", r"\n\t\\\g<0>", "ba", {}), (r"a", "b", "aaaa", dict(count=2)), (r"a", r"\065\0", "a", {}),
        (r"A", r"z", "aA", dict(case_insensitive=False)), (r"^", "> ", "a\nb\n", dict(multiline=True)),
        (r".+", "x", "a\nb", dict(dotall=True)), (r"a", r"\-\é", "a", {}), (r"(", "x", "a", {}), (r"a", r"\q", "a", {}),
        (r"a", r"\1", "a", {}), (r"a", r"\g<n>", "a", {}), (r"a", "\\", "a", {}), (r"b*", "-", "abba", {}),
        (r"", "-", "äb", {}), (r"a", r"\q", "no", {}), (r"\s+", " ", "a \u2003\tb", {})):
    CASES.append(("RegexReplace", dict(string=text, regex_pattern=pattern, replace=to, **more)))


def c_text(s):
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else "\\%03o" % b for b in s.encode()) + '"'


def graph(name, inputs):
    # the test reads ' as "
    text = json.dumps({"class_type": name, "inputs": inputs}, separators=(",", ":"))
    return c_text(text.replace("'", "\\u0027").replace('"', "'"))


print("// SPDX-License-Identifier: Apache-2.0")
print(f"// string_cases.h - made by tools/golden/string_nodes.py from ComfyUI {VERSION}: a node and what it")
print("// gives: 's' a text, 'i' a number, 'b' a truth value, 'e' an error.")
print("static const string_case string_cases[] = {")
for name, inputs in CASES:
    try:
        v = getattr(S, name).execute(**inputs).result[0]
        if v is None:
            v = ""  # a group that took no part
        kind = "b" if isinstance(v, bool) else "i" if isinstance(v, int) else "s"
    except Exception:
        kind, v = "e", ""
    print(f"    {{{graph(name, inputs)}, '{kind}', {c_text(v) if kind in 'se' else c_text('')}, {int(v) if kind in 'ib' else 0}}},")
print("};\n")
# Case of all letters that both Unicode 14 and 15 know: sums of the UTF-8 bytes of chr(c).upper() and so on.
print("static const uint64_t case_sums[3] = {")
for f in (str.upper, str.lower, str.title):
    h = 14695981039346656037
    for c in range(1, 0x2000):
        for b in f(chr(c)).encode():
            h = ((h ^ b) * 1099511628211) % 2**64
    print(f"    {h}u,")
print("};")
