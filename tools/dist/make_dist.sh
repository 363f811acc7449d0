#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A folder that runs on any x86-64 Linux with glibc 2.36 or newer, with or without an NVIDIA GPU: bin/atelier, lib/*.so (all but
# libc and what comes with the GPU: its driver, cublasLt, cuDNN), models, examples, docs.
#   tools/dist/make_dist.sh BUILD_DIR -> dist/atelier-VERSION and its .tar.zst, checked by tools/dist/check_dist.sh
#   environment: DIST_ARCHS="80;86;89;90" compute capabilities of the CUDA plug-in (newer ones compile its PTX at first use);
#   DIST_LEVEL=19 of zstd
# Easy to get wrong: the build's own plug-in is for one chip, so the dist's is built beside it; without nvcc there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
version=$("$build/bin/atelier" version | awk '{print $2}')
out=dist/atelier-$version
plugin=build/dist-cuda
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/share/atelier"
cp "$build/bin/atelier" "$out/bin/"

cmake --preset release -B "$plugin" -DAT_CUDA_ARCHS="${DIST_ARCHS:-80;86;89;90}" >/dev/null
if ninja -C "$plugin" -t query at_cuda >/dev/null 2>&1; then
    log=$(nice ninja -C "$plugin" --quiet at_cuda 2>&1) || { echo "$log" >&2; exit 1; }
    cp "$plugin/lib/libat_cuda.so" "$out/lib/"
else
    echo "dist: no nvcc here, so this one computes on the CPU alone" >&2
fi

# libc's own parts come with the system; everything else travels.
ldd "$out/bin/atelier" "$out"/lib/*.so 2>/dev/null | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so' |
    while read -r lib; do cp -L "$lib" "$out/lib/"; done
patchelf --set-rpath '$ORIGIN/../lib' "$out/bin/atelier"
for lib in "$out"/lib/*.so*; do patchelf --set-rpath '$ORIGIN' "$lib"; done
strip --strip-unneeded "$out/bin/atelier" "$out"/lib/*.so*
[ -d models ] && cp -r models "$out/"
[ -d "$build/share/atelier/tokenizers/clip" ] && cp -r "$build/share/atelier/tokenizers" "$out/share/atelier/"
cp -r examples README.md LICENSE NOTICE CHANGELOG.md docs "$out/" 2>/dev/null || true
(cd dist && tar -I "zstd -${DIST_LEVEL:-19} -T0" -cf "atelier-$version.tar.zst" "atelier-$version")
tools/dist/check_dist.sh "dist/atelier-$version.tar.zst"
du -sh "$out" "dist/atelier-$version.tar.zst"
