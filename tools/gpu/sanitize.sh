#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sanitize.sh - check rows under NVIDIA's compute-sanitizer, on the machine that has the GPU.
#   sanitize.sh KIT [LOG_DIR]     KIT: a folder with bin/check_ops, bin/atelier and lib/libat_cuda.so
# memcheck runs every slot's rows (addresses outside of an allocation, misaligned ones, failed calls), racecheck those whose
# kernels share memory between threads, synccheck those that meet at barriers; with two GPUs, memcheck runs the house model over
# the wire between them. The runs are cut small and go side by side (JOBS of them), so that the whole takes about 150 s on 16
# cores; one that meets its limit is told and counts as neither. Exit status 1: something was found.
#   ONLY=racecheck sanitize.sh kit           the runs whose line has that in it
#   LIMIT=60 JOBS=4 SANITIZER=/usr/local/cuda/bin/compute-sanitizer sanitize.sh kit
set -u
kit=$(cd "${1:?usage: sanitize.sh KIT [LOG_DIR]}" && pwd)
tree=$(cd "$(dirname "$0")/../.." && pwd)
logs=${2:-.}
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)
tool=${SANITIZER:-compute-sanitizer}
check=$kit/bin/check_ops
[ -x "$check" ] || check=$kit/tests/check_ops # a build folder
export tree kit logs tool check LIMIT=${LIMIT:-90} AT_PLUGINS=$kit/lib
export AT_OFF=tune # timing proposals takes minutes under the tool; whichever is taken, the check is the same
export XDG_CACHE_HOME=$logs/cache

command -v "$tool" >/dev/null || { echo "no $tool on this machine"; exit 2; }

# TOOL|SLOT|FILTER, longest first. An empty filter: every row of the slot.
rows()
{
    local from
    # Kernels of our own that share memory, or hand rows from lane to lane.
    printf 'racecheck|%s\n' 'group_norm| g32' 'attention|k130 ' 'attention|k77 ' 'attention|k300 ' \
        'attention|k80 ' 'attention|k9 ' 'attention|k129 ' 'attention|k131 ' 'attention|q50 ' 'attention| f32' 'norm|gated' 'norm| affine fill' 'norm| mod fill' 'norm| rms' 'norm|strided' 'group_norm|parts' 'group_norm| g4' \
        'rope|' 'ropes|' 'geglu|' 'linear|rows8' 'linear| f32*f32' 'linear|e4m3' 'conv2d|->3 ' 'conv2d|->4 ' 'conv2d| f32*f32' \
        'copy|0 -> 2 shape' 'copy|1 -> 1 shape' 'copy|2 -> 0 shape' 'embedding|'
    printf 'memcheck|%s\n' 'attention|fp8' 'attention| bf16' 'attention| f16' 'attention| f32' \
        'conv2d| f32*' 'conv2d| f16*' 'conv2d| bf16*' 'linear| f32*f32' 'linear| f32*bf16' 'linear| f32*f16' 'linear| f32*e' \
        'linear| bf16*' 'linear| f16*' 'linear| e4m3*' 'linear|rows8' 'geglu| f32*' 'geglu| bf16*' 'geglu| f16*' 'group_norm|' \
        'norm|' 'rope|' 'ropes|' 'unary|' 'binary|' 'gate_add|' 'lincomb|' 'embedding|' 'fill|'
    for from in 0 1 2 3 4 5 6; do printf 'memcheck|copy|%s -> \n' $from; done
    printf 'synccheck|%s\n' 'norm|' 'group_norm|' 'attention|k130 ' 'attention|k77 ' 'linear|rows8' 'rope|' 'copy|0 -> 2 shape'
    if [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -ge 2 ]; then
        printf 'memcheck|wire|%s\n' cfg=2 ulysses=2 ring=2
    fi
}

# The house model's picture by two GPUs.
wire()
{
    # That peers may reach each other already is an answer, no failure.
    "$tool" --tool memcheck --report-api-errors no --error-exitcode 9 --print-limit 20 "$kit/bin/atelier" run "$tree/examples/house.json" \
        --models "$tree/models" --devices cuda:0,cuda:1 --parallel "$1" --set sampler.steps=2 --output "$logs/wire" --progress none
}

# Races are reported in kernels of the libraries alone: they hand shared memory on by asynchronous barriers, which the tool does not
# follow.
theirs()
{
    grep -q 'Race reported' "$1" && ! grep 'Race reported' "$1" | grep -qvE ' (cudnn|nvjet|cutlass)[a-z0-9_:]'
}

one()
{
    local tool_name slot filter log status began=$SECONDS
    IFS='|' read -r tool_name slot filter <<<"$1"
    log=$logs/sanitize.$(tr -c 'a-z0-9\n' _ <<<"$1").log
    if [ "$slot" = wire ]; then
        timeout "$LIMIT" bash -c "wire '$filter'" >"$log" 2>&1
    else
        timeout "$LIMIT" "$tool" --tool "$tool_name" --error-exitcode 9 --print-limit 20 "$check" --op "$slot" \
            ${filter:+--filter "$filter"} --device cuda:0 --plugin "$kit/lib/libat_cuda.so" >"$log" 2>&1
    fi
    status=$?
    began="$(grep -oE '^[0-9]+ rows, [0-9]+ failed' "$log"), $((SECONDS - began)) s"
    case $status in
    0) echo "nothing   $1: $began" ;;
    124) echo "not done  $1: in $LIMIT s" ;;
    9) theirs "$log" && echo "theirs    $1: $began" && return ;;&
    *)
        echo "FOUND     $1: status $status, $began"
        grep -E "=========|FAIL|error" "$log" | head -30
        grep -E "(ERROR|RACECHECK) SUMMARY" "$log"
        ;;
    esac
}
export -f one wire theirs

rows | grep -F -- "${ONLY:-|}" | xargs -d '\n' -P "${JOBS:-$(nproc)}" -I '{}' bash -c 'one "$1"' - '{}' | tee "$logs/sanitize.txt"
rm -rf "$logs/cache" "$logs/wire"
echo "sanitize: $(grep -c '^nothing' "$logs/sanitize.txt") clean, $(grep -c '^theirs' "$logs/sanitize.txt") with races in libraries' kernels alone," \
    "$(grep -c '^FOUND' "$logs/sanitize.txt") with findings," \
    "$(grep -c '^not done' "$logs/sanitize.txt") not done in time"
! grep -q '^FOUND' "$logs/sanitize.txt"
