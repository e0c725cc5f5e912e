#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Start and stop when something is in the way: the data directory, the address, the disk, the time.
#
#   a02_directory.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1 build_dir=$2
# shellcheck source=tests/lib/server.sh
. "$source_dir/tests/lib/server.sh"

# A second start that must fail with 1 and say why.
refused() { # TEXT [ARGUMENTS]
    local text=$1 rc=0
    shift
    asked="start: $text"
    timeout 30 "$build_dir/bin/kvsd" -c "$config" --set "node.data_dir=$data" \
        --set plugins.transport.rest.listen=127.0.0.1:0 "$@" 2>"$work/second" || rc=$?
    status=$rc
    steps=$((steps + 1))
    grep -qF -e "$text" "$work/second" || {
        sed 's/^/  > /' "$work/second" >&2
        fail "'$text' is not said"
    }
    [ "$rc" = 1 ] || fail "expected exit status 1"
}

in_use() {
    server_start
    refused "in use by another kvsd, process $server"
    refused 'address' --set "node.data_dir=$work/other" \
        --set "plugins.transport.rest.listen=${url#http://}"
    server_stop
}

foreign() {
    refused "belongs to node 'standalone-1'" --set node.id=somebody-else
    cp "$data/format" "$work/format"
    echo 'kvs 99' >"$data/format"
    refused 'format'
    cp "$work/format" "$data/format"
}

not_writable() {
    if [ "$(id -u)" != 0 ] || ! command -v setpriv >/dev/null; then
        echo "a02_directory: not root: the directory that is not writable is not tried"
        return
    fi
    local rc=0
    mkdir -m 755 "$work/readonly"
    chmod 711 "$work"
    setpriv --reuid=65534 --regid=65534 --clear-groups "$build_dir/bin/kvsd" --version >/dev/null 2>&1 || {
        echo "a02_directory: another user cannot run kvsd from here: not tried"
        return
    }
    setpriv --reuid=65534 --regid=65534 --clear-groups "$build_dir/bin/kvsd" -c "$config" \
        --set "node.data_dir=$work/readonly" 2>"$work/second" || rc=$?
    [ "$rc" = 1 ] && grep -qi 'permission' "$work/second" ||
        fail "a directory that is not writable: exit $rc, $(tail -n 1 "$work/second")"
}

# The server is up, says in /readyz why it serves no data, serves none, and stops in order.
not_served() { # TEXT..
    local text
    rm -f "$data/endpoints.json"
    "$build_dir/bin/kvsd" -c "$config" --set "node.data_dir=$data" \
        --set plugins.transport.rest.listen=127.0.0.1:0 2>>"$work/log" &
    server=$!
    for _ in $(seq 600); do
        [ ! -s "$data/endpoints.json" ] || break
        sleep 0.05
    done
    url=$(jq -r '.endpoints.rest[0]' "$data/endpoints.json")
    request GET /readyz
    expect 503
    for text in "$@"; do
        grep -qF -e "$text" "$work/body" || fail "/readyz does not say '$text'"
    done
    request GET /v1/tables/t/items/k20
    expect 503
    request GET /healthz
    expect 200
    server_stop
}

# Damage inside the journal is never served: file and offset are named.
damaged() {
    server_start
    create_table '{"name":"t","partitions":1}'
    local i
    for i in $(seq 20); do put t "k$i" "value $i"; done
    server_kill
    local segment
    segment=$(find "$data/journal" -name '*.seg' | sort | tail -n 1)
    cp -r "$data" "$work/saved"
    printf '\xff\xff\xff\xff' | dd of="$segment" bs=1 seek=1600 conv=notrunc status=none
    not_served "$(basename "$segment")" offset
    rm -rf "$data"
    cp -r "$work/saved" "$data"
    server_start
    request GET /v1/tables/t/items/k20
    expect 200
    expect_body 'value 20'
    server_stop
    rm -rf "$work/saved"
}

# SIGTERM answers what is under way and leaves a clean journal.
stop_under_load() {
    server_start
    local pids=() i
    for i in 1 2 3 4; do
        (for k in $(seq 500); do
            curl -s -o /dev/null -X PUT -d v "$url/v1/tables/t/items/load$i-$k" || exit 0
        done) &
        pids+=($!)
    done
    sleep 0.3
    server_stop
    wait "${pids[@]}" || true
    server_start
    grep 'event=recovered' "$work/log" | tail -n 1 | grep -q 'clean=true' ||
        fail "an orderly stop left a journal that is not clean"
    server_stop
}

server_start
server_stop
in_use
foreign
not_writable
damaged
stop_under_load
echo "a02_directory: as expected"
