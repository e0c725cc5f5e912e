# SPDX-License-Identifier: MIT
# shellcheck shell=bash

verb_bench() {
    local name
    build_release
    if [ $# -eq 0 ]; then
        set -- tests/bench/run_*.sh
    fi
    for name in "$@"; do
        say "bench: $(basename "$name")"
        BUILD=$PWD/build bash "$name"
    done
}
