# SPDX-License-Identifier: MIT
# shellcheck shell=bash

# What the benchmarks compare with; nothing else needs these.
bench_packages() {
    local missing=()
    command -v redis-server >/dev/null || missing+=(redis-server redis-tools)
    command -v etcd >/dev/null || missing+=(etcd-server)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# bench [NAME..]: tests/bench/run_<NAME>.sh, or all of them; then the table goes into the README, too.
verb_bench() {
    local script all=0 table=build/bench.md readme=tests/bench/README.md
    install_packages
    bench_packages
    build_release
    [ $# -gt 0 ] || all=1
    if [ $all = 1 ]; then
        set -- get put memory snapshot pages growth
    fi
    printf '| what | kvs | compared with | ratio | goal |\n|---|---|---|---|---|\n' >"$table"
    for script in "$@"; do
        say "bench: $script"
        BUILD=$PWD/build bash "tests/bench/run_$script.sh" | tee "build/bench-$script.out"
        grep '^|' "build/bench-$script.out" >>"$table" || true
    done
    say "bench: the table"
    cat "$table"
    if [ $all = 1 ]; then
        sed -i -e '/^<!-- begin/,/^<!-- end/{/^|/d}' -e "/^<!-- begin/r $table" "$readme"
        echo "written to $readme"
    fi
}
