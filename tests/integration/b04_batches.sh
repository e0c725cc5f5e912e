#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Batches: results in order, atomic ones, malformed ones, limits.
#
#   b04_batches.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1 build_dir=$2
# shellcheck source=tests/lib/server.sh
. "$source_dir/tests/lib/server.sh"

lines() { # NDJSON [QUERY]
    printf '%s\n' "$1" >"$work/lines"
    request POST "/v1/tables/t/batch${2:-}" -H 'Content-Type: application/x-ndjson' \
        --data-binary "@$work/lines"
}

array() { # JSON [QUERY]
    printf '%s' "$1" >"$work/array"
    request POST "/v1/tables/t/batch${2:-}" -H 'Content-Type: application/json' \
        --data-binary "@$work/array"
}

expect_lines() { # STATUS OF EACH
    expect 200
    [ "$(jq -r .status "$work/body" | xargs)" = "$*" ] || fail "expected the results $*"
}

results() {
    lines '{"op":"put","key":"a","value":"1"}
{"op":"put","key":"a","value":"2"}
{"op":"get","key":"a"}
{"op":"touch","key":"a","ttl":"1h"}
{"op":"delete","key":"a"}
{"op":"get","key":"a"}
{"op":"delete","key":"a"}'
    expect_lines 201 204 200 204 204 404 404
    [ "$(jq -r 'select(.item) | .item.value' "$work/body")" = 2 ] || fail "get inside a batch"
    array '[{"op":"put","key":"b","value":"1","if_absent":true},
        {"op":"put","key":"b","value":"2","if_absent":true},
        {"op":"put","key":"c","value":"1","if_version":"7-7"},
        {"op":"put","key_base64":"AP8=","value_base64":"/wA=","content_type":"application/octet-stream"}]'
    expect 200
    expect_json '[.[].status]' '[201,412,412,201]'
    expect_json '.[1].problem.code' '"precondition_failed"'
    request GET '/v1/tables/t/items/%00%ff'
    expect 200
    [ "$(od -An -tx1 "$work/body" | tr -d ' ')" = ff00 ] || fail "bytes of a value are changed"
    array '[{"op":"get","key_base64":"AP8="}]'
    expect_json '.[0].item | [.key_base64, .value_base64]' '["AP8=","/wA="]'
}

atomic() {
    lines '{"op":"put","key":"x","partition_key":"p","value":"1"}
{"op":"put","key":"y","partition_key":"p","value":"1"}' '?atomic=true'
    expect_lines 201 201
    lines '{"op":"put","key":"x","partition_key":"p","value":"2"}
{"op":"put","key":"y","partition_key":"p","value":"2","if_absent":true}' '?atomic=true'
    expect_lines 409 412
    request GET '/v1/tables/t/items/x?partition_key=p'
    expect_body 1
    local many='' i
    for i in $(seq 20); do
        many="$many{\"op\":\"put\",\"key\":\"m$i\",\"value\":\"1\"}
"
    done
    lines "$many" '?atomic=true'
    expect_code 409 conflict
    request GET /v1/tables/t/items/m1
    expect 404
}

malformed() {
    lines '{"op":"put","key":"ok","value":"1"}
{"op":"put","kee":"k","value":"1"}
{"op":"put","key":"","value":"1"}
{"op":"put","key":"k"}
{"op":"fetch","key":"k"}
7'
    expect_lines 201 400 400 400 400 400
    jq -r 'select(.problem) | .problem.detail' "$work/body" | grep -q "Did you mean 'key'" ||
        fail "the nearest member is not named"
    lines '{"op":"put","key":"ok2","value":"1"}
{"op":"put",'
    expect_code 400 malformed
    request GET /v1/tables/t/items/ok2
    expect 404
    array '{"op":"get"}'
    expect_code 400 malformed
    array '[{"op":"get","key":"\ud800"}]'
    expect_code 400 malformed
    request POST /v1/tables/t/batch -H 'Content-Type: text/plain' -d x
    expect 415
    request POST /v1/tables/none/batch -H 'Content-Type: application/json' -d '[]'
    expect 404
    array '[]'
    expect 200
    expect_json . '[]'
}

limits() {
    local line='{"op":"get","key":"nothing"}'
    awk -v line="$line" 'BEGIN { for (i = 0; i < 10000; i++) print line }' >"$work/lines"
    request POST /v1/tables/t/batch -H 'Content-Type: application/x-ndjson' \
        --data-binary "@$work/lines"
    expect 200
    [ "$(wc -l <"$work/body")" = 10000 ] || fail "10,000 operations have 10,000 results"
    echo "$line" >>"$work/lines"
    request POST /v1/tables/t/batch -H 'Content-Type: application/x-ndjson' \
        --data-binary "@$work/lines"
    expect_code 413 too_large
    expect_json .limit 10000
    head -c 17825793 /dev/zero | tr '\0' ' ' >"$work/large"
    request POST /v1/tables/t/batch -H 'Content-Type: application/json' -H 'Expect:' \
        --data-binary "@$work/large"
    expect_code 413 too_large
}

idempotency() {
    printf '[{"op":"put","key":"once","value":"1"},{"op":"put","key":"twice","value":"1"}]' >"$work/b"
    local answer i
    for i in 1 2; do
        request POST /v1/tables/t/batch -H 'Content-Type: application/json' -H 'Idempotency-Key: b1' \
            --data-binary "@$work/b"
        expect 200
        [ "$i" = 1 ] || [ "$(cat "$work/body")" = "$answer" ] || fail "the second answer differs"
        answer=$(cat "$work/body")
    done
}

server_start
create_table '{"name":"t","partitions":4}'
results
atomic
malformed
limits
idempotency
server_stop
echo "b04_batches: $steps requests as expected"
