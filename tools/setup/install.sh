#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what the build needs and only what is missing: Debian packages by apt (sudo when not root), then
# CLIP's vocabulary. Quiet and quick when everything is there. `install.sh test` adds the test tools.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
want=${1:-build}

build_packages="gcc g++ make cmake ninja-build pkg-config git ca-certificates
  python3-pip
  libdnnl-dev libjansson-dev libpng-dev zlib1g-dev libjpeg-dev libwebp-dev libpcre2-dev libutf8proc-dev libssl-dev libyaml-dev
  libwebsockets-dev libsqlite3-dev"
dist_packages="patchelf zstd"
test_packages="libcmocka-dev clang libclang-rt-14-dev clang-tidy clang-format cppcheck python3"

# A browser for the page's test, where Debian gives one (100 MB): ATELIER_BROWSER=0 leaves it out, and the test is skipped.
browser_packages=""
if [ "$want" = test ] && [ "${ATELIER_BROWSER:-1}" != 0 ]; then
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || browser_packages=chromium
fi

packages=$build_packages
[ "$want" = test ] && packages="$packages $test_packages"
[ "$want" = dist ] && packages="$packages $dist_packages"

missing=""
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done

if [ -n "$missing" ]; then
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "setup: these Debian packages are missing and sudo is not here:$missing" >&2
            exit 1
        }
        as_root=sudo
    fi
    echo "setup: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -20 "$log" >&2
        echo "setup: apt could not install the packages above" >&2
        exit 1
    fi
    rm -f "$log"
fi

# Optional: without it one test is skipped, and says so.
if [ -n "$browser_packages" ] && apt-cache show $browser_packages >/dev/null 2>&1; then
    as_root=""
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    echo "setup: installing $browser_packages for the page's test"
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $browser_packages >/dev/null 2>&1 ||
        echo "setup: no $browser_packages here; the page's test in a browser will be skipped"
fi
