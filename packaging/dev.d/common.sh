# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Shared by the verbs: messages, packages, configuring and building.

jobs_n=${KVS_JOBS:-$(nproc)}

say() { printf '\n== %s\n' "$*"; }
die() {
    echo "packaging/dev: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root or sudo to run: $*"
    fi
}

# Install the packages of packaging/packages.txt that are missing.
install_packages() {
    local missing=()
    mapfile -t missing < <(
        comm -23 <(sort -u packaging/packages.txt) \
            <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null |
                awk '$1 == "ii" { print $2 }' | sort -u)
    )
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${#missing[@]} packages: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# configure DIR [cmake options]: once; later calls only when an option is given that differs.
configure() {
    local dir=$1
    shift
    local launcher=()
    command -v ccache >/dev/null && launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    cmake -S . -B "$dir" -G Ninja "${launcher[@]}" "$@" >"$dir.configure.log" 2>&1 || {
        cat "$dir.configure.log" >&2
        die "configuring $dir failed"
    }
    mv "$dir.configure.log" "$dir/configure.log"
}

# build_in DIR [cmake --build options]
build_in() {
    local dir=$1
    shift
    cmake --build "$dir" -j "$jobs_n" "$@" -- --quiet
}

build_release() {
    install_packages
    configure build -DCMAKE_BUILD_TYPE=Release
    build_in build
}

# ctest_in DIR LABELS-REGEX [ctest options]
ctest_in() {
    local dir=$1 labels=$2
    shift 2
    ctest --test-dir "$dir" --output-on-failure --no-tests=error -j "$jobs_n" -L "$labels" "$@"
}
