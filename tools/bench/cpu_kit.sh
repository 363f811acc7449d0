#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The CPU's checks and timings as a kit that runs on a bare machine.
#   cpu_kit.sh pack BUILD_DIR KIT.txz            check_ops and atelier with their libraries, this script too
#   cpu_kit.sh run KIT.txz OUT_DIR [CORES]       every row, then the shapes and models of docs/bench/cpu.md on CORES (0,1)
# Logs: check.txt first; its last line counts failures. Exit status 0 only if no row failed.
set -uo pipefail

pack()
{
    local build=$1 kit=$2 dir
    dir=$(mktemp -d)
    mkdir -p "$dir/kit/lib"
    strip "$build/tests/check_ops" -o "$dir/kit/check_ops" && strip "$build/bin/atelier" -o "$dir/kit/atelier" || return 1
    ldd "$build/bin/atelier" "$build/tests/check_ops" | awk '/=> \//{print $3}' | sort -u |
        grep -vE '/(libc|libm|libgcc_s|ld-linux[^/]*)\.so' | while read -r lib; do cp -L "$lib" "$dir/kit/lib/"; done
    cp "$0" "$dir/kit/cpu_kit.sh"
    tar -C "$dir" -cf - kit | xz --x86 --lzma2=preset=9e,dict=64MiB >"$kit"
    rm -rf "$dir"
    ls -l "$kit"
}

run()
{
    local kit=$1 out=$2 cores=${3:-0,1} dir status=0 n
    dir=$(mktemp -d)
    mkdir -p "$out"
    tar -C "$dir" -xJf "$kit" || return 1
    export LD_LIBRARY_PATH=$dir/kit/lib
    n=$(awk -F, '{print NF}' <<<"$cores")
    lscpu >"$out/machine.txt"
    timeout 200 "$dir/kit/check_ops" >"$out/check.txt" 2>&1 || status=$?
    grep -E 'FAIL|rows' "$out/check.txt" | tail -20
    bench() { timeout 60 taskset -c "$cores" "$dir/kit/check_ops" --bench --threads "$n" --variant chosen "$@"; }
    bench --op attention --filter b2 >"$out/attention.txt" 2>&1
    bench --op conv2d --filter '[2,' >"$out/conv.txt" 2>&1
    bench --op conv2d --filter '[1,512' >"$out/conv_vae.txt" 2>&1
    bench --op geglu >"$out/geglu.txt" 2>&1
    bench --op linear --filter '*f16' >"$out/linear.txt" 2>&1
    model() { timeout 90 taskset -c "$cores" "$dir/kit/atelier" bench --weights f16 --threads "$n" "$@" | grep -v block; }
    for dtype in bf16 int8 f32; do
        model --arch sd15 --size 512 --text-tokens 77 --steps 2 --dtype $dtype
        model --arch flux-vae --size 512 --steps 1 --dtype $dtype
        model --arch clip-l --text-tokens 77 --steps 2 --dtype $dtype
    done >"$out/models.txt" 2>&1
    cat "$out"/{attention,conv,conv_vae,geglu,linear}.txt | grep FLOP
    cat "$out/models.txt"
    rm -rf "$dir"
    return "$status"
}

case "${1:-}:$#" in
pack:3) pack "$2" "$3" ;;
run:3 | run:4) run "${@:2}" ;;
*)
    sed -n '3,6p' "$0" >&2
    exit 2
    ;;
esac
