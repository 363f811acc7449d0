# SPDX-License-Identifier: Apache-2.0
"""Text to train the small vocabularies on, and text to tokenise. All of it was written for this purpose."""

CORPUS = """
A red circle stands on the left of a blue square, and a small yellow star floats above them.
The old lighthouse keeper paints the door green every spring, before the first ships return.
Two foxes sleep under a wooden bridge while the river carries leaves towards the sea.
An oil painting of a quiet street at night, wet stones, warm windows, a cat on the wall.
She doesn't know that they've moved the piano; it's in the hall, where we'll find it later.
Portrait of a woman in a white dress, soft light, shallow focus, high detail, 85 mm lens.
The photograph shows 12 boats, 3 islands and 1 cloud; the year 1987 is written on the back.
A watercolour of mountains in the morning, thin fog, pine trees, a narrow path to the summit.
I'm certain that he'd rather walk than wait; you're welcome to join us, they're leaving now.
Isometric view of a tiny workshop: shelves, tools, a lamp, a wooden table and three chairs.
The engineer measures the bridge, writes the numbers down, and measures the bridge again.
A bowl of oranges and lemons on a striped cloth, still life, strong shadows from the right.
Snow falls on the roofs of the town; children throw snowballs at the walls of the school.
Masterpiece, best quality, sharp, detailed background, cinematic lighting, volumetric fog.
A robot gardener waters sunflowers beside a glass house, in the style of an old postcard.
The train leaves the station at seven, crosses the valley, and reaches the coast by noon.
Close up of a green glass marble on black velvet, one bright highlight, deep reflections.
Birds gather on the wires above the market, and the baker counts them while the bread cools.
A castle built from books, a moat of ink, paper flags on every tower, drawn with a fine pen.
Where the road bends there is a well, and beside the well an apple tree with a broken branch.
Caf\u00e9 tables in the sun, na\u00efve paintings on the wall, a cr\u00e8me br\u00fbl\u00e9e and two spoons.
The fisherman's daughter sells the morning's catch: herring, mackerel, plaice and a few crabs.
A purple triangle inside a white circle inside a black square, flat colours, no background.
Low angle photograph of a skyscraper made of wood, clear sky, a flock of swallows passing by.
""".strip().splitlines()

# Every tokeniser (fast, slow, sentencepiece) gives the same result for these.
PLAIN = [
    "",
    "a",
    "A red circle left of a blue square",
    "a photograph of an astronaut riding a horse on the moon, highly detailed, 8k",
    "She doesn't know they've moved; it's here, we'll see, I'd go, you're late, I'm done",
    "SHOUTING IN CAPITALS, Mixed CaSe Words, iPhone McDonald",
    "one,two;three:four.five!six?seven-eight_nine/ten",
    "many     spaces   between    words",
    "   leading spaces",
    "trailing spaces   ",
    "tabs\tand\nnew lines\r\nof both kinds\n\n\nand empty ones",
    "12345 67 8 3.14159 1,000,000 2nd 3rd 0x7f 50%",
    "unbelievable antidisestablishmentarianism counterintuitively",
    "zzzzqqqqxxxxjjjj wvwvwv kxkxkx",
    "caf\u00e9 na\u00efve fa\u00e7ade \u00fcber smorg\u00e5s",
    "!!!...???,,, *** ### $$$ @@@ ^^^ &&& ~~~ ```",
    "(parentheses) [brackets] {braces} <angles> \"quotes\" 'single'",
    "e-mail: someone@example.com, see https://example.com/path?x=1&y=2#frag",
    "hello \U0001f600 world \U0001f3a8",
    "\U0001f680",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
    "don't 'twas rock 'n' roll y'all's",
    "a.b.c...d",
    "the the the the the the the the",
    "x" * 120,
    "a lighthouse, " * 24,
    "-1 +2 = 3; a*b/c; 5<6>4",
    "re've'll 's't'm'd",
]

# Text whose handling is a matter of rules: what ComfyUI's tokeniser does counts.
UNICODE = [
    "\u4e00\u53ea\u7ea2\u8272\u7684\u72d0\u72f8",                       # CJK, no spaces
    "red\u72d0fox",                                                       # CJK inside a word
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",                 # kanji and kana
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5",
    "e\u0301te\u0301 cafe\u0301",                                       # combining accents
    "\u00e9t\u00e9 caf\u00e9",
    "\u212bngstrom \u2126 \u00c5",                                       # singletons that NFC replaces
    "\ufb01ne \ufb02ower \u00bd \u00b2 \u2460 \uff21\uff22\uff23",       # compatibility characters
    "zero\u200bwidth\u200cjoin\u200der soft\u00adhyphen",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "\U0001f44d\U0001f3fd thumbs \u2764\ufe0f heart",
    "non\u00a0breaking\u2003em\u3000ideographic",
    "control\u0001chars\u0007here\u007f",
    "\ufeffbyte order mark",
    "replacement \ufffd character",
    "\u2018curly\u2019 \u201cquotes\u201d \u2014 dash \u2026",
    "it\u2019s don\u2019t",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0932\u093f\u092a\u093f",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u0661\u0662\u0663 \u0967\u0968\u0969",                             # digits of other scripts
    "x\u0323\u0307 q\u0307\u0323",                                       # order of combining marks
    "\u2167 \u2177 \u3007",
    "a\u2028b\u2029c\u0085d",
    "snow\u2603man \u266b music \u00a9 \u00ae \u2122",
]

# Case mapping and special tokens inside the text.
HARD = [
    "\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3",                       # final sigma depends on context
    "\u0130stanbul I\u0307",                                             # one capital becomes two characters
    "STRASSE stra\u00dfe \u1e9e",
    "<|endoftext|>",
    "a cat<|endoftext|>a dog",
    "<|startoftext|>a cat <|endoftext|> ",
    "<|ENDOFTEXT|> upper case",
    "<|endof text|>",
    "\u01c5 \u01c8 titlecase",
]

# Special tokens of T5, which tokenizer.json knows and sentencepiece does not.
T5_SPECIAL = [
    "a </s> b",
    "</s>",
    "<extra_id_0> fills <extra_id_7>",
    "<pad>words<unk>",
    "no space</s>after",
]
