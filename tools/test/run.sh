#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every test this machine can run: the release build's tests, then the same code under address and
# undefined-behaviour sanitizers, then the threads under the thread sanitizer.
#   tools/test/run.sh BUILD_DIR [quick]     quick: the release build alone
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$1
jobs=$(nproc)
status=0

step() { printf '\n== %s\n' "$1"; }

step "release build: all tests"
ctest --test-dir "$build" --output-on-failure -j"$jobs" --no-tests=error || status=1
grep -h '^house model:' "$build/Testing/Temporary/LastTest.log" || true
[ "${2:-}" = quick ] && exit $status

step "address and undefined-behaviour sanitizers"
if [ ! -f build/dev/build.ninja ]; then cmake --preset dev >/dev/null || status=1; fi
ninja -C build/dev --quiet || status=1
ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
    ctest --test-dir build/dev --output-on-failure -j"$jobs" --no-tests=error -LE slow || status=1

step "thread sanitizer: threads, comms, ranks, the server"
if [ ! -f build/tsan/build.ninja ]; then cmake --preset tsan >/dev/null || status=1; fi
ninja -C build/tsan --quiet || status=1
# oneDNN's OpenMP is not built for this sanitizer.
AT_OFF=onednn ctest --test-dir build/tsan --output-on-failure -j1 --no-tests=error \
    -R '^unit\.(base\.(thread|mailbox|log)|par|cpu|tensor|ops\.ops_rank|serve)|^par|^serve\.(answers|client|routes|traces|users)$' || status=1

if [ $status -eq 0 ]; then
    step "everything passed"
    ctest --test-dir "$build" -N | tail -1
else
    step "something failed, see above"
fi
exit $status
