#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does an unpacked dist stand alone?   tools/dist/check_dist.sh dist/atelier-VERSION.tar.zst
# Unpacks into a fresh folder and looks: every library is found inside the folder or is libc's, search paths are relative, no
# newer glibc is wanted than the README says, no path of the source tree is inside; then draws a picture there.
# Easy to get wrong: on the machine that built it everything is found somewhere; what counts is where.
set -euo pipefail
archive=$(realpath "$1")
source=$(cd "$(dirname "$0")/../.." && pwd)
newest_glibc=2.36
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "dist: $*" >&2; exit 1; }

tar -C "$dir" -I zstd -xf "$archive"
root=$(echo "$dir"/atelier-*)
for file in "$root"/bin/* "$root"/lib/*.so*; do
    name=${file#"$root"/}
    paths=$(readelf -d "$file" | sed -nE 's/.*R(UN)?PATH.*\[(.*)\]/\2/p')
    case $paths in '' | '$ORIGIN' | '$ORIGIN/../lib') ;; *) fail "$name looks for libraries in $paths" ;; esac
    # The plug-in takes the program's functions when it is loaded: only its libraries can be looked for here.
    found=$(env -i LD_LIBRARY_PATH= ldd "$file" | grep -v 'undefined symbol')
    if grep -q 'not found' <<<"$found"; then fail "$name lacks $(grep 'not found' <<<"$found" | head -n 1)"; fi
    outside=$(awk '$3 ~ /^\// {print $3}' <<<"$found" | grep -vF "$root/" |
        grep -vE '/(libc|libm|libdl|librt|libpthread)\.so' || true)
    [ -z "$outside" ] || fail "$name takes $outside from the system"
    glibc=$(readelf -V "$file" | grep -oE 'GLIBC_2\.[0-9]+' | sort -t . -k 2 -n | tail -n 1)
    [ -z "$glibc" ] || [ "${glibc#GLIBC_2.}" -le "${newest_glibc#2.}" ] || fail "$name wants $glibc"
    if grep -qaF "$source/" "$file"; then fail "$name holds a path of $source"; fi
done

cd "$dir"
alone() { env -i HOME="$dir" PATH=/usr/bin:/bin "$root/bin/atelier" "$@"; }
alone version >/dev/null
alone devices
[ ! -e "$root/lib/libat_cuda.so" ] || alone devices | grep -v 'has no CUDA plug-in' | grep -q . ||
    fail "the program does not find lib/libat_cuda.so"
if alone devices | grep -qE 'undefined symbol|speaks ABI'; then fail "the plug-in does not fit the program"; fi
picture=$(alone run "$root/examples/house.json" --progress none --output "$dir/out")
[ "$(head -c 4 "$picture" | tail -c 3)" = PNG ] || fail "no picture"
echo "dist: stands alone, and drew $(basename "$picture")"
