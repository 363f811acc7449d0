#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# get_axe.sh FILE - put axe-core (MPL-2.0, Deque), which checks a page's accessibility, into FILE, for the page's test.
# It comes from npm, or out of a PyPI package that carries an older one. Neither package is run here.
# Optional: without both or without network it prints one line and succeeds; that part of the test is then skipped.
set -eu

file=${1:?usage: get_axe.sh FILE}
[ -s "$file" ] && exit 0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

from_npm() { # axe-core 4.10.3
    sum=880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb
    command -v npm >/dev/null 2>&1 || return 1
    (cd "$tmp" && timeout 60 npm pack --silent axe-core@4.10.3 >/dev/null 2>&1 && tar xzf ./*.tgz) || return 1
    mv "$tmp/package/axe.min.js" "$tmp/axe.js"
}

from_pip() { # axe-core 4.4.3
    sum=697ea6c7edff0fe289b7bbecf1ff7b9015249bc834b409a348cd060df80aeba0
    python3 -m pip --version >/dev/null 2>&1 || return 1
    timeout 60 python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        -d "$tmp/pip" axe-playwright-python==0.1.4 >/dev/null 2>&1 || return 1
    python3 -c 'import glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/pip/*.whl")[0])
open(sys.argv[1] + "/axe.js", "wb").write(wheel.read("axe_playwright_python/axe.min.js"))' "$tmp"
}

for way in from_npm from_pip; do
    $way || continue
    [ "$(sha256sum "$tmp/axe.js" | cut -d' ' -f1)" = "$sum" ] || continue
    mkdir -p "$(dirname "$file")"
    mv "$tmp/axe.js" "$file"
    exit 0
done
echo "axe-core: neither npm nor pip could bring it; the page's accessibility is not tested"
