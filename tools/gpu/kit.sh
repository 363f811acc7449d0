#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A GPU kit: the program, its check rows and the CUDA plug-in of one source tree as a .tar.xz of a few MB that runs on a
# bare machine with an NVIDIA driver, cublasLt 12 or 13 and cuDNN 9 (tools/gpu/run_all.sh finds those of a PyTorch).
#   tools/gpu/kit.sh OUT.tar.xz [--archs "90"] [--build DIR] [--comfyui DIR] [--python PACKAGE_DIR]...
#     --archs    compute capabilities of the plug-in (default 90: one chip keeps the kit small)
#     --build    build folder, kept between calls (default build/gpu)
#     --comfyui  a ComfyUI checkout whose package `comfy` goes along for tools/gpu/peer_*.py
#     --python   a pure Python package that goes along for the same reason, e.g. site-packages/einops
# Inside: kit/bin/{atelier,check_ops,house_test}, kit/lib/, kit/share/, kit/python/. Golden cases and the house model stay in the
# source tree. Without oneDNN: its 40 MB serve the CPU, and the checks compare with plain C.
# Easy to get wrong: a library that the machine has too must not travel twice in two versions (libstdc++, libcrypto):
# `have` lists what Ubuntu 24.04 brings; everything else is bundled and found through a relative RPATH.
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
out='' archs=90 build=$source/build/gpu comfyui='' packages=()
while [ $# -gt 0 ]; do
    case $1 in
    --archs) archs=$2; shift 2 ;;
    --build) build=$2; shift 2 ;;
    --comfyui) comfyui=$2; shift 2 ;;
    --python) packages+=("$2"); shift 2 ;;
    -*) sed -n '5,9p' "$0" >&2; exit 2 ;;
    *) out=$1; shift ;;
    esac
done
[ -n "$out" ] || { sed -n '5,9p' "$0" >&2; exit 2; }

have='libc|libm|libdl|librt|libpthread|ld-linux-x86-64|libgcc_s|libstdc\+\+|libgomp|libz|libpng16|libcrypto|libpcre2-8'

cmake --preset release -S "$source" -B "$build" -G Ninja -DDNNL_INCLUDE=OFF -DDNNL_LIBRARY=OFF \
    -DAT_CUDA_ARCHS="$archs" >/dev/null
log=$(nice ninja -C "$build" --quiet atelier check_ops house_test at_cuda at_break_gpu 2>&1) || { echo "$log" >&2; exit 1; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
kit=$dir/kit
mkdir -p "$kit/bin" "$kit/lib" "$kit/share/atelier/tokenizers" "$kit/python"
cp "$build/bin/atelier" "$build/tests/check_ops" "$build/tests/house_test" "$kit/bin/"
cp "$build/lib/libat_cuda.so" "$build/lib/libat_break_gpu.so" "$kit/lib/"
ldd "$build/bin/atelier" "$build/tests/check_ops" "$build/lib/libat_cuda.so" | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE "/($have)\.so" | while read -r lib; do cp -L "$lib" "$kit/lib/"; done
for program in "$kit"/bin/*; do patchelf --set-rpath '$ORIGIN/../lib' "$program"; done
for lib in "$kit"/lib/*.so*; do patchelf --set-rpath '$ORIGIN' "$lib"; done
strip --strip-unneeded "$kit"/bin/* "$kit"/lib/*
# The plug-in finds much of what it calls in the program: that nothing is missing shows when it is loaded.
case $("$kit/bin/check_ops" --device cuda:0 --plugin "$kit/lib/libat_cuda.so" --op fill 2>&1) in
*"undefined symbol"*) echo "kit.sh: the plug-in does not fit the program" >&2; exit 1 ;;
esac

"$source/tools/vocab/get_clip_vocab.sh" "$kit/share/atelier/tokenizers/clip" || true
if [ -n "$comfyui" ]; then
    cp "$comfyui/comfyui_version.py" "$kit/python/"
    (cd "$comfyui" && find comfy -name '*.py' -o -path 'comfy/text_encoders/t5_config*.json') |
        tar -C "$comfyui" -cf - -T - | tar -C "$kit/python" -xf -
fi
for package in "${packages[@]}"; do
    (cd "$(dirname "$package")" && find "$(basename "$package")" -name "*.py" -not -path "*/tests/*" |
        tar -cf - -T -) | tar -C "$kit/python" -xf -
done
"$kit/bin/atelier" version >"$kit/VERSION"
git -C "$source" describe --always --dirty >>"$kit/VERSION" 2>/dev/null || true
tar -C "$dir" --sort=name --mtime=@0 --owner=0 --group=0 -cf - kit | xz --x86 --lzma2=preset=9e,dict=32MiB >"$out"
ls -l "$out"
