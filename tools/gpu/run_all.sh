#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a machine with a GPU is asked, by sections; run in a source tree with an unpacked kit (tools/gpu/kit.sh) or a build.
#   OUT=DIR tools/gpu/run_all.sh KIT_DIR SECTION...      sections: the functions called section_* below; `all` runs all
#   environment: BENCH="arch:dtype[:flags] ..." replaces the table of `bench`; ROWS="--op linear" narrows `check`
# A section writes $OUT/NAME.txt and has a time limit of its own; one that fails or runs out of time stops no other one.
# The last lines are the summary: NAME, exit status, seconds. Exit status 0 only if every section ended with 0.
set -uo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
here=$tree/tools/gpu
[ $# -ge 2 ] || { sed -n '4,5p' "$0" >&2; exit 2; }
kit=$(cd "$1" && pwd)
shift
OUT=$(mkdir -p "${OUT:-gpu-out}" && cd "${OUT:-gpu-out}" && pwd)
check_ops=$kit/bin/check_ops
[ -x "$check_ops" ] || check_ops=$kit/tests/check_ops # a build folder
house_test=$kit/bin/house_test
[ -x "$house_test" ] || house_test=$kit/tests/house_test
atelier=$kit/bin/atelier

# cublasLt and cuDNN: the loader's own, or those that a PyTorch brought.
libraries()
{
    python3 - <<'PYTHON' 2>/dev/null
import glob, os, sysconfig
folders = []
for root in {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}:
    for name in ("libcublasLt.so.1[23]", "libcudnn.so.9", "libnvrtc.so.1[23]"):
        folders += [os.path.dirname(p) for p in glob.glob(os.path.join(root, "nvidia", "*", "lib", name))]
print(":".join(dict.fromkeys(folders)))
PYTHON
}
found=$(libraries)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$found
export AT_PLUGINS=$kit/lib

section_machine()
{
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv
    nvidia-smi topo -m 2>/dev/null
    lscpu | grep -E 'Model name|^CPU\(s\)|Thread'
    grep MemTotal /proc/meminfo
    python3 -c 'import torch, transformers
print("torch", torch.__version__, "cudnn", torch.backends.cudnn.version(), "transformers", transformers.__version__)'
    echo "libraries $LD_LIBRARY_PATH"
    "$atelier" version
    "$atelier" devices
}

# Every row of every op against double; the last line counts.
section_check()
{
    # shellcheck disable=SC2086
    "$check_ops" --device cuda:0 --plugin "$kit/lib/libat_cuda.so" ${ROWS:-}
}

# Golden cases in their own dtype or another, within the tolerance of each; one that cannot run is named, the rest go on.
verify_cases()
{
    local flags=()
    [ -n "${DTYPE:-}" ] && flags=(--dtype "$DTYPE")
    "$atelier" verify --device "${DEVICE:-cuda:0}" "${flags[@]}" $(dirname tests/golden/*/case.json)
}

section_verify() { verify_cases; }
section_verify_bf16() { DTYPE=bf16 verify_cases; }
section_verify_fp16() { DTYPE=fp16 verify_cases; }
section_verify_fp8() { DTYPE=fp8 verify_cases; }

# Whole models on random weights of their true shape: ARCH:DTYPE:further flags, commas for blanks.
section_bench()
{
    local row status=0
    for row in ${BENCH:-flux1-dev:bf16 flux1-dev:fp8 sdxl:fp16:--batch,2,--weights,f16 \
        sd15:fp16:--batch,2,--weights,f16,--size,512 flux-vae:bf16 flux-vae-encode:bf16 t5-xxl:bf16 clip-l:fp16}; do
        IFS=: read -r arch dtype flags <<<"$row"
        # shellcheck disable=SC2086
        timeout 60 "$atelier" bench --device cuda:0 --arch "$arch" --dtype "$dtype" --steps "${STEPS:-30}" ${flags//,/ } 2>&1 |
            grep -v '^  block' || status=1
    done
    return $status
}

section_bench_ops()
{
    local op
    for op in linear attention conv2d norm group_norm rope gate_add geglu copy; do
        "$check_ops" --device cuda:0 --plugin "$kit/lib/libat_cuda.so" --bench --op $op
    done
}

# What others need for the same: eager ones take seconds each, compiled ones a minute or more.
peer()
{
    PYTHONPATH=$kit/python python3 "$here/peer_$1.py" --comfyui "${COMFYUI:-$kit/python}" --variants "$2"
}

section_peers()
{
    peer flux eager,fp8_fast
    peer unet sdxl,sdxl_nhwc,sd15,sd15_nhwc
    peer parts vae_decode,vae_encode,t5
}

section_peers_compiled()
{
    # shellcheck disable=SC2086
    PYTHONPATH=$kit/python python3 "$here/peers_together.py" --comfyui "${COMFYUI:-$kit/python}" \
        ${PEERS_COMPILED:-flux:compiled flux:fp8_row_compiled unet:sdxl_compiled unet:sdxl_nhwc_graphs \
            unet:sd15_nhwc_graphs parts:vae_decode_compiled parts:t5_compiled}
}

# From the command to the PNG on files of the true size: two pictures in one process, the second finds its models resident.
# A type twice: the second process finds the plans that the first one timed.
models=${MODELS:-/dev/shm/atelier-models}
end_to_end()
{
    python3 "$here/end_to_end.py" --atelier "$atelier" --models "$models" "$@"
}

section_e2e_flux()
{
    python3 "$here/make_model_files.py" "$models" --only flux || return 1
    local dtype status=0
    for dtype in ${E2E_FLUX:-auto auto fp8}; do
        end_to_end --label "flux1-dev $dtype" --set 17.steps=28 --words 511 examples/flux1-dev.json \
            -- --device cuda:0 --dtype "$dtype" || status=1
    done
    rm -rf "$models/diffusion_models" "$models/text_encoders" "$models/vae"
    return $status
}

section_e2e_sdxl()
{
    python3 "$here/make_model_files.py" "$models" --only sdxl || return 1
    local dtype status=0
    for dtype in ${E2E_SDXL:-auto auto}; do
        end_to_end --label "sdxl $dtype" --set 4.ckpt_name=sd_xl_base_1.0.safetensors --set 5.width=1024 \
            --set 5.height=1024 examples/sd15.json -- --device cuda:0 --dtype "$dtype" || status=1
    done
    rm -rf "$models/checkpoints"
    return $status
}

# The house model's pictures by type, judged by what they show and beside f32's; a few of the CPU's beside the GPU's f32.
section_house()
{
    local dir=$OUT/house count=${HOUSE_COUNT:-40} status=0 type
    house() { python3 "$here/house_pictures.py" --atelier "$atelier" "$@" || status=1; }
    rm -rf "$dir"
    house --out "$dir/f32" --count "$count" -- --device cuda:0 --dtype f32
    "$house_test" --judge tests/house/prompts.json "$dir/f32" || status=1
    house --out "$dir/cpu" --count 4 -- --device cpu --dtype f32
    "$house_test" --judge tests/house/prompts.json "$dir/cpu" "$dir/f32" || status=1
    for type in ${HOUSE_TYPES:-bf16 fp16 fp8}; do
        house --out "$dir/$type" --count "$count" -- --device cuda:0 --dtype "$type"
        "$house_test" --judge tests/house/prompts.json "$dir/$type" "$dir/f32" || status=1
    done
    rm -rf "$dir"
    return $status
}

# Check rows under compute-sanitizer: found something, or not done in time, is in the log.
section_sanitize()
{
    local logs
    logs=$(mktemp -d)
    "$here/sanitize.sh" "$kit" "$logs"
    local status=$?
    rm -rf "$logs"
    return $status
}

# Ours beside the peers', from the sections before.
section_table() { python3 "$here/table.py" "$OUT"; }

run_section()
{
    local name=$1 limit=$2 begin=$SECONDS status
    if ! declare -F "section_$name" >/dev/null; then
        echo "run_all: no section $name" >&2
        return 2
    fi
    # A shell of its own, so that the limit ends whatever the section started.
    export tree here kit OUT check_ops house_test atelier models
    declare -fx peer end_to_end verify_cases "section_$name"
    timeout --kill-after=5 "$limit" bash -c "cd '$tree' && section_$name" >"$OUT/$name.txt" 2>&1
    status=$?
    summary+=("$(printf '%-12s status %3d %4d s' "$name" $status $((SECONDS - begin)))")
    return $status
}

limit_of()
{
    case $1 in
    machine) echo 20 ;;
    check) echo 120 ;;
    verify*) echo 90 ;;
    peers_compiled) echo 420 ;;
    *) echo 240 ;;
    esac
}

summary=() worst=0
[ "$*" = all ] && set -- machine check verify verify_bf16 verify_fp16 verify_fp8 house bench bench_ops \
    peers e2e_flux e2e_sdxl peers_compiled sanitize table
for section in "$@"; do
    run_section "$section" "$(limit_of "$section")" || worst=1
    [ "$section" = table ] && cat "$OUT/table.txt" && continue
    grep -E 'FAIL|REFUSED|differ|rows|  step|peak|TFLOP|"ms"|"error"|sampler|exit |asked|s each|sanit|nothing$|not done' "$OUT/$section.txt" 2>/dev/null | grep -v '^{"label' | tail -n 20
done
printf '%s\n' "${summary[@]}"
exit $worst
