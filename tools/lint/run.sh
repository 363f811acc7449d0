#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What reads the code without running it: format, floors, clang-tidy, cppcheck. Fails on any finding.
#   tools/lint/run.sh BUILD_DIR
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$1
status=0
files=$(git ls-files 'src/*.c' 'tests/*.c')
headers=$(git ls-files 'src/*.h' 'include/*.h' 'tests/*.h')

echo "== clang-format"
clang-format --dry-run --Werror $files $headers || status=1

echo "== floors"
tools/layers || status=1

echo "== cppcheck"
cppcheck --quiet --error-exitcode=1 --enable=warning,portability --inline-suppr --std=c11 -j"$(nproc)" \
    --library=tools/lint/cppcheck.cfg --suppressions-list=tools/lint/cppcheck.txt -Isrc -Iinclude \
    $(git ls-files 'src/*.c') || status=1

echo "== clang-tidy"
# The database has the flags of sources with their own instruction sets; clang 14 knows them too.
git ls-files 'src/*.c' | xargs -P "$(nproc)" -n 8 clang-tidy --quiet -p "$build" 2>/dev/null || status=1

[ $status -eq 0 ] && echo "lint: clean"
exit $status
