#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sanitize.sh - check rows under NVIDIA's compute-sanitizer, on the machine that has the GPU.
#   sanitize.sh KIT [LOG_DIR]     KIT: a folder with bin/check_ops and lib/libat_cuda.so
# memcheck runs every slot's rows (addresses outside of an allocation, misaligned ones, failed calls),
# racecheck those whose kernels share memory between threads, synccheck those that meet at barriers.
# Every run has a limit, so that the whole ends in about a minute; a run that meets its limit is told,
# and counts as neither. Exit status 1: something was found.
#   MEM="norm rope" RACE="" SYNC="" LIMIT=60 sanitize.sh kit     other slots, another limit in seconds
set -u
kit=${1:?usage: sanitize.sh KIT [LOG_DIR]}
logs=${2:-.}
tool=${SANITIZER:-compute-sanitizer}
MEM=${MEM-norm rope ropes unary binary gate_add lincomb embedding fill group_norm}
RACE=${RACE-norm group_norm}
SYNC=${SYNC-norm group_norm}
LIMIT=${LIMIT-12}
found=0

command -v "$tool" >/dev/null || { echo "no $tool on this machine"; exit 2; }
mkdir -p "$logs"

# TOOL SLOT [check_ops flags]
run() {
    local log="$logs/sanitize.$1.$2.log" status
    timeout "$LIMIT" "$tool" --tool "$1" --error-exitcode 9 --print-limit 20 \
        "$kit/bin/check_ops" --op "$2" --device cuda:0 --plugin "$kit/lib/libat_cuda.so" "${@:3}" \
        >"$log" 2>&1
    status=$?
    case $status in
    0) echo "$1 $2 ${*:3}: nothing" ;;
    124) echo "$1 $2 ${*:3}: not done in $LIMIT s" ;;
    *)
        found=1
        echo "$1 $2 ${*:3}: status $status"
        grep -E "=========|FAIL" "$log" | head -40
        ;;
    esac
}

for slot in $MEM; do run memcheck "$slot"; done
# 864 rows of copies are too many: a contiguous, a permuted and a strided shape of one pair, then bytes
run memcheck copy --filter "0 -> 2 shape"
run memcheck copy --filter "1 -> 1 shape"
# libraries load and choose slowly under the tool: a row each
LIMIT=$((2 * LIMIT)) run memcheck geglu --filter "[1,30,160]"
LIMIT=$((2 * LIMIT)) run memcheck attention --filter "q65 k129 h2 d128 bf16"
for slot in $RACE; do run racecheck "$slot"; done
run racecheck copy --filter "0 -> 2 shape"
for slot in $SYNC; do run synccheck "$slot"; done
exit $found
