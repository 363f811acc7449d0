#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A folder that runs on any x86-64 Linux with glibc 2.36 or newer: bin/atelier, lib/*.so (all but libc and
# the GPU driver's), models, examples, docs.   tools/dist/make_dist.sh BUILD_DIR -> dist/atelier-VERSION
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
version=$("$build/bin/atelier" version | awk '{print $2}')
out=dist/atelier-$version
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/share/atelier"
cp "$build/bin/atelier" "$out/bin/"
# libc's own parts come with the system; everything else travels.
ldd "$build/bin/atelier" | awk '$3 ~ /^\// {print $3}' |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so' |
    while read -r lib; do cp -L "$lib" "$out/lib/"; done
patchelf --set-rpath '$ORIGIN/../lib' "$out/bin/atelier"
for lib in "$out"/lib/*.so*; do patchelf --set-rpath '$ORIGIN' "$lib"; done
strip --strip-unneeded "$out/bin/atelier" "$out"/lib/*.so*
[ -d models ] && cp -r models "$out/"
[ -d "$build/share/atelier/tokenizers/clip" ] && cp -r "$build/share/atelier/tokenizers" "$out/share/atelier/"
cp -r examples README.md LICENSE NOTICE CHANGELOG.md docs "$out/" 2>/dev/null || true
(cd dist && tar -I 'zstd -19 -T0' -cf "atelier-$version.tar.zst" "atelier-$version")
du -sh "$out" "dist/atelier-$version.tar.zst"
