#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Lists in key order over all partitions, cursors, and queries by secondary index.
#
#   b03_lists.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1 build_dir=$2
# shellcheck source=tests/lib/server.sh
. "$source_dir/tests/lib/server.sh"
count=500

fill() {
    create_table '{"name":"t","partitions":5,"indexes":[{"name":"color","type":"string"},
        {"name":"size","type":"number","path":"/size"},{"name":"tags","type":"string","path":"/tags"}]}'
    for i in $(seq -w 0 $((count - 1))); do
        printf '{"op":"put","key":"k%s","content_type":"application/json","value":"{\\"size\\":%s,\\"tags\\":[\\"a\\",\\"m%s\\"]}","indexes":{"color":"c%s"}}\n' \
            "$i" "$((10#$i - 100))" "$((10#$i % 5))" "$((10#$i % 7))"
    done >"$work/operations"
    request POST /v1/tables/t/batch -H 'Content-Type: application/x-ndjson' \
        --data-binary "@$work/operations"
    expect 200
    [ "$(grep -c '"status":201' "$work/body")" = $count ] || fail "not every item was created"
}

# All keys of a list or query, page by page. RESTART=1: the server is killed after each page.
walk() { # PATH-WITH-QUERY
    local cursor='' next
    : >"$work/keys"
    while :; do
        request GET "$1${cursor:+&cursor=$cursor}"
        expect 200
        jq -r '.items[].key' "$work/body" >>"$work/keys"
        next=$(jq -r '.next // empty' "$work/body")
        [ -n "$next" ] || break
        cursor=$next
        if [ "${RESTART:-0}" = 1 ]; then
            server_kill
            server_start
        fi
    done
}

expect_keys() { # FILE
    cmp -s "$1" "$work/keys" || fail "the keys differ: $(diff "$1" "$work/keys" | head -5)"
}

lists() {
    seq -f 'k%03g' 0 $((count - 1)) >"$work/all"
    walk "/v1/tables/t/items?limit=37&values=false"
    expect_keys "$work/all"
    RESTART=1 walk "/v1/tables/t/items?limit=150&values=false"
    expect_keys "$work/all"
    walk "/v1/tables/t/items?limit=1000&max_bytes=4000"
    expect_keys "$work/all"
    walk "/v1/tables/t/items?prefix=k12&limit=3"
    grep '^k12' "$work/all" >"$work/wanted"
    expect_keys "$work/wanted"
    walk "/v1/tables/t/items?start=k100&end=k200&limit=33"
    awk '$0 >= "k100" && $0 < "k200"' "$work/all" >"$work/wanted"
    expect_keys "$work/wanted"
    request GET "/v1/tables/t/items?limit=2" -H 'Accept: application/x-ndjson'
    expect 200
    [ "$(wc -l <"$work/body")" = 2 ] || fail "NDJSON is one item a line"
    request GET "/v1/tables/t/items?limit=1001"
    expect 400
    request GET "/v1/tables/t/items?cursor=AAAA"
    expect 400
    request GET "/v1/tables/t/items?limit=10&values=false"
    local cursor
    cursor=$(jq -r .next "$work/body")
    request GET "/v1/tables/t/items?cursor=${cursor%?}x"
    expect 400
    request GET "/v1/tables/t/items?partition_key=k007"
    expect 200
    expect_json '[.items[].key] | contains(["k007"])' true
}

# The largest things first that a query can be asked for.
queries() {
    local by="/v1/tables/t/indexes"
    walk "$by/color/items?eq=c3&limit=10"
    awk '{ if (substr($0, 2) % 7 == 3) print }' "$work/all" >"$work/wanted"
    expect_keys "$work/wanted"
    walk "$by/size/items?from=-5&to=20&limit=4&values=false"
    seq -f 'k%03g' 95 119 >"$work/wanted"
    expect_keys "$work/wanted"
    walk "$by/size/items?from=-5&to=20&limit=4&order=desc&values=false"
    tac "$work/wanted" >"$work/down"
    expect_keys "$work/down"
    RESTART=1 walk "$by/tags/items?eq=m2&limit=60&values=false"
    awk '{ if (substr($0, 2) % 5 == 2) print }' "$work/all" >"$work/wanted"
    expect_keys "$work/wanted"
    request GET "$by/none/items?eq=1"
    expect 404
    request GET "$by/size/items?eq=abc"
    expect 400
    request GET "$by/size/items?eq=1&from=2"
    expect 400
}

# What changes is found where it belongs, and only there.
changes() {
    request PUT /v1/tables/t/items/k000 -H 'Content-Type: application/json' -d '{"size":7777}' \
        -H 'KVS-Index: color=blue'
    expect 204
    request GET "/v1/tables/t/indexes/size/items?eq=7777"
    expect_json '[.items[].key]' '["k000"]'
    request GET "/v1/tables/t/indexes/size/items?eq=-100"
    expect_json '.items' '[]'
    request GET "/v1/tables/t/indexes/color/items?eq=blue"
    expect_json '[.items[].key]' '["k000"]'
    request DELETE /v1/tables/t/items/k000
    request GET "/v1/tables/t/indexes/color/items?eq=blue"
    expect_json '.items' '[]'
    request PATCH /v1/tables/t -H 'Content-Type: application/json' \
        -d '{"add_indexes":[{"name":"first","type":"string","path":"/tags/1"}]}'
    expect 200
    for _ in $(seq 100); do
        request GET "/v1/tables/t/indexes/first/items?eq=m1&limit=1000&values=false"
        [ "$status" != 200 ] || break
        sleep 0.05
    done
    expect 200
    expect_json '.items | length' 100
    request PATCH /v1/tables/t -H 'Content-Type: application/json' -d '{"drop_indexes":["first"]}'
    expect 200
    request GET "/v1/tables/t/indexes/first/items?eq=m1"
    expect 404
}

# A pass under writes returns each key that is there throughout exactly once.
under_writes() {
    (
        for i in $(seq 1 150); do
            curl -s -o /dev/null -X PUT -d x "$url/v1/tables/t/items/new$i"
            curl -s -o /dev/null -X DELETE "$url/v1/tables/t/items/new$((i - 3))"
        done
    ) &
    local writer=$!
    for _ in 1 2; do
        walk "/v1/tables/t/items?limit=7&values=false"
        grep '^k' "$work/keys" >"$work/old" || true
        tail -n +2 "$work/all" >"$work/wanted"
        cmp -s "$work/wanted" "$work/old" || fail "a pass under writes lost or repeated a key"
    done
    kill "$writer" 2>/dev/null || true
    wait "$writer" 2>/dev/null || true
}

server_start
fill
lists
queries
changes
under_writes
server_stop
echo "b03_lists: $steps requests as expected"
