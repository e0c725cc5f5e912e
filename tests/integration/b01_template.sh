#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The plugin template, built out of tree against an installed SDK, works: with find_package(kvs) and
# with pkg-config and cc (the very commands of its README), from a prefix that was moved after the
# installation.
#
#   b01_template.sh SOURCE_DIR BUILD_DIR
set -euo pipefail

source_dir=$1 build_dir=$2
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

fail() {
    echo "b01_template: $*" >&2
    [ ! -s "$work/log" ] || sed 's/^/  kvsd: /' "$work/log" >&2
    exit 1
}

case ${KVS_SANITIZE:-} in # the SDK's libraries then want the sanitizer's too
    asan) sanitize="-fsanitize=address,undefined" ;;
    tsan) sanitize="-fsanitize=thread" ;;
    *) sanitize= ;;
esac
export CC="${CC:-cc}" CFLAGS="-Wall -Wextra -Werror $sanitize"
# clang leaves its sanitizers' symbols to the program, which -z defs would not let pass.
if [ -n "$sanitize" ] && "$CC" --version | grep -q clang; then
    clang_sanitized=-Wl,-z,undefs
else
    clang_sanitized=
fi

install_moved() {
    "${CMAKE:-cmake}" --install "$build_dir" --prefix "$work/first" >"$work/install.log" 2>&1 ||
        { cat "$work/install.log" >&2 && fail "installing failed"; }
    mv "$work/first" "$work/kvs"
    KVS="$work/kvs"
    export KVS
    if grep -rlF -e "$source_dir/" -e "$work/first" "$KVS/lib"*/{cmake,pkgconfig,*/cmake,*/pkgconfig} \
        2>/dev/null | grep .; then
        fail "the files above name the place they were built or first installed in"
    fi
}

# The command block of a section of the template's README.
readme_commands() { # HEADING
    awk -v heading="## $1" '$0 == heading { here = 1; next } /^## / { here = 0 }
        /^```/ { inside = !inside; next } here && inside' "$source_dir/sdk/template/README.md"
}

build_by_readme() { # HEADING FOLDER
    cp -r "$KVS/share/kvs/template" "$work/$2"
    readme_commands "$1" >"$work/$2.sh"
    [ -s "$work/$2.sh" ] || fail "README.md has no commands under '$1'"
    if [ -n "$sanitize" ]; then # what the README need not know
        sed -i -e "s/ hello.c / $sanitize & /" -e "s/libs kvs)/& $clang_sanitized/" \
            -e "s/^cmake -S \./& -DKVS_SANITIZE=$KVS_SANITIZE/" "$work/$2.sh"
    fi
    (cd "$work/$2" && bash -eu "$work/$2.sh") >"$work/$2.log" 2>&1 ||
        { cat "$work/$2.log" >&2 && fail "building as README.md says under '$1' failed"; }
}

one_symbol() { # FILE
    local symbols
    symbols=$(nm -D --defined-only "$1" | awk '$3 !~ /^_/ { print $3 }')
    [ "$symbols" = kvs_plugin_entry ] || fail "$1 exports more than kvs_plugin_entry: $symbols"
}

start_kvsd() { # FOLDER_WITH_PLUGIN
    : >"$work/log"
    rm -rf "$work/data"
    "$KVS/bin/kvsd" -c "$KVS/share/kvs/template/hello.yaml" --set "node.plugin_dir=$1" \
        --set "node.data_dir=$work/data" --set plugins.transport.rest.listen=127.0.0.1:0 \
        >"$work/log" 2>&1 &
    server=$!
    for _ in $(seq 200); do
        url=$(jq -er '.endpoints.rest[0]' "$work/data/endpoints.json" 2>/dev/null) && return
        kill -0 "$server" 2>/dev/null || fail "kvsd ended while it started"
        sleep 0.05
    done
    fail "no endpoint after 10 s"
}

get() { curl --silent --show-error --fail-with-body --max-time 10 "$url$1"; }

try_plugin() { # FILE
    local rc=0
    one_symbol "$1"
    start_kvsd "$(dirname "$1")"
    get /v1/plugins | jq -e --arg path "$1" '.plugins[] |
        select(.kind == "service" and .name == "hello" and .state == "started" and .path == $path)' \
        >/dev/null || fail "GET /v1/plugins does not show $1 as started: $(get /v1/plugins)"
    [ "$(get /v1/hello | jq -r .message)" = hello ] || fail "GET /v1/hello does not say hello"
    get /openapi.json | jq -e '.paths["/v1/hello"].get' >/dev/null ||
        fail "/openapi.json does not know the method"
    kill -TERM "$server"
    wait "$server" || rc=$?
    server=
    [ $rc -eq 0 ] || fail "kvsd exits with $rc after SIGTERM"
    echo "ok: $1"
}

# kvs::mock, kvs::hashing and the plugin's objects serve a unit test out of tree.
consumer() {
    cp -r "$source_dir/tests/integration/consumer" "$work/consumer"
    {
        "${CMAKE:-cmake}" -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$KVS" \
            -DTEMPLATE="$work/packaged" -DKVS_SANITIZE="${KVS_SANITIZE:-}" &&
            "${CMAKE:-cmake}" --build "$work/consumer/build" && "$work/consumer/build/consumer"
    } >"$work/consumer.log" 2>&1 || { cat "$work/consumer.log" >&2 && fail "the unit test fails"; }
    echo "ok: unit test with kvs::mock and kvs::hashing"
}

install_moved
build_by_readme "With CMake" packaged
build_by_readme "With pkg-config and cc" plain
consumer
for file in "$work/plain/service-hello.so" "$work/packaged/build/service-hello.so"; do
    "$KVS/bin/kvs-plugin-check" --kind service "$file" >"$work/check.log" ||
        { cat "$work/check.log" >&2 && fail "kvs-plugin-check refuses the template"; }
done
try_plugin "$(find "$work/packaged/build" -name service-hello.so)"
try_plugin "$work/plain/service-hello.so"
