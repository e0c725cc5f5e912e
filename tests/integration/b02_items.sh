#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Tables and items over REST: what each request answers, well-formed or not.
#
#   b02_items.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1 build_dir=$2
# shellcheck source=tests/lib/server.sh
. "$source_dir/tests/lib/server.sh"

tables() {
    create_table '{"name":"t","partitions":4,"indexes":[{"name":"color","type":"string"},
        {"name":"size","type":"number","path":"/size"}]}'
    request POST /v1/tables -H 'Content-Type: application/json' -d '{"name":"t"}'
    expect 409
    request POST /v1/tables -H 'Content-Type: application/json' -d '{"name":"Bad Name"}'
    expect 400
    request POST /v1/tables -H 'Content-Type: application/json' -d '{"name":"x","partitons":3}'
    expect 400
    grep -q "partitions" "$work/body" || fail "the nearest known member is not named"
    request POST /v1/tables -H 'Content-Type: application/json' -d '{"name":'
    expect 400
    request GET /v1/tables
    expect 200
    expect_json '[.tables[].name]' '["t"]'
    request GET /v1/tables/t
    expect 200
    expect_json .partitions 4
    request GET /v1/tables/none
    expect 404
    request PATCH /v1/tables/t -H 'Content-Type: application/json' -d '{"ttl":"1h"}'
    expect 200
    request GET /v1/tables/t
    expect_json .ttl_ms 3600000
    request PATCH /v1/tables/t -H 'Content-Type: application/json' -d '{"ttl":"none"}'
    expect 200
    request GET /v1/tables/t/partitions
    expect 200
    expect_json '.partitions | length' 4
    expect_json '[.partitions[].leader] | unique' '["standalone-1"]'
}

items() {
    put t k one
    expect 201 ETag KVS-Partition KVS-Served-By
    local first
    first=$(header ETag)
    put t k two
    expect 204 ETag
    [ "$(header ETag)" != "$first" ] || fail "the version did not change"
    request GET /v1/tables/t/items/k
    expect 200 ETag Content-Type KVS-Partition KVS-Served-By
    expect_body two
    [ "$(header Content-Type)" = text/plain ] || fail "the content type was not kept"
    request HEAD /v1/tables/t/items/k
    expect 200 ETag
    [ "$(header Content-Length)" = 3 ] || fail "HEAD tells another length"
    request GET /v1/tables/t/items/k -H "If-None-Match: $(header ETag)"
    expect 304
    request GET /v1/tables/t/items/none
    expect_code 404 not_found
    request GET "/v1/tables/t/items/k?format=envelope"
    expect 200
    expect_json .value '"two"'
    request DELETE /v1/tables/t/items/k
    expect 204
    request DELETE /v1/tables/t/items/k
    expect_code 404 not_found
    request GET /v1/tables/none/items/k
    expect 404
}

odd_keys() {
    local key
    for key in 'a%00b' 'a%2Fb' '%2e%2e' '%ff%fe' '%25' 'caf%C3%A9' '%20' 'a+b'; do
        put t "$key" "value of $key"
        expect 201
        request GET "/v1/tables/t/items/$key"
        expect 200
        expect_body "value of $key"
    done
    put t 'a%zz' v
    expect 400
    put t "$(printf 'k%.0s' $(seq 1025))" v
    expect 400
    put t empty ''
    expect 201
    request GET /v1/tables/t/items/empty
    expect 200
    expect_body ''
}

conditions() {
    put t c 1 -H 'If-None-Match: *'
    expect 201
    local version
    version=$(header ETag)
    put t c 2 -H 'If-None-Match: *'
    expect_code 412 precondition_failed
    [ "$(header ETag)" = "$version" ] || fail "the present version is not told"
    expect_json .outcome '"not_applied"'
    put t c 2 -H 'If-Match: "9-9"'
    expect_code 412 precondition_failed
    put t c 2 -H "If-Match: $version"
    expect 204
    request DELETE /v1/tables/t/items/c -H "If-Match: $version"
    expect_code 412 precondition_failed
    put t c 2 -H 'If-Match: "of another server"'
    expect_code 412 precondition_failed
    put t absent 1 -H 'If-Match: "1-1"'
    expect_code 412 precondition_failed
}

idempotency() {
    put t i 1 -H 'Idempotency-Key: abc'
    expect 201
    local version
    version=$(header ETag)
    put t i 1 -H 'Idempotency-Key: abc'
    expect 201
    [ "$(header ETag)" = "$version" ] || fail "the write was done twice"
    put t i 2 -H 'Idempotency-Key: abc'
    expect 422
    server_kill
    server_start
    put t i 1 -H 'Idempotency-Key: abc'
    expect 201
    [ "$(header ETag)" = "$version" ] || fail "the answer was forgotten over a crash"
}

time_to_live() {
    put t "e?ttl=1s" v
    expect 201 KVS-Expires-At
    request GET /v1/tables/t/items/e
    expect 200 KVS-Expires-At
    put t "n?ttl=none" v
    expect 201
    [ -z "$(header KVS-Expires-At)" ] || fail "ttl=none expires"
    put t "e2?ttl=soon" v
    expect 400
    sleep 1.3
    request GET /v1/tables/t/items/e
    expect_code 404 not_found
}

refusals() {
    request GET "/v1/tables/t/items/k?reed=any"
    expect 400
    grep -q "read" "$work/body" || fail "the nearest parameter is not named"
    request GET /v1/nothing
    expect 404
    request POST /v1/tables/t/items/k -d v
    expect 405 Allow
    request OPTIONS /v1/tables/t/items/k
    expect 204 Allow
    request PATCH /v1/tables/t/items/k -d v
    expect 405 Allow
    head -c 1100000 /dev/zero >"$work/large"
    request PUT /v1/tables/t/items/large --data-binary "@$work/large"
    expect_code 413 too_large
    expect_json .limit 1048576
    put t bad v -H 'KVS-Index: nosuch=1'
    expect 400
    put t bad "{\"size\":1}" -H 'KVS-Index: size=abc'
    expect 400
    request PUT "/v1/tables/t/items/k?acks=most" -d v
    expect 400
}

about_itself() {
    local path
    for path in /healthz /readyz /metrics /version /openapi.json /v1/plugins /v1/cluster \
        /v1/nodes /v1/quorum /v1/metadata /v1/configuration; do
        request GET "$path"
        expect 200
    done
    request GET /openapi.json
    expect_json '.openapi | startswith("3.1")' true
    expect_json '[.paths | keys[] | select(contains("items/{key}"))] | length > 0' true
    request GET /v1/plugins
    expect_json '[.plugins[].kind] | unique | length' 6
}

server_start
tables
items
odd_keys
conditions
idempotency
time_to_live
refusals
about_itself
request DELETE /v1/tables/t
expect 204
request GET /v1/tables/t/items/k
expect 404
server_stop
echo "b02_items: $steps requests as expected"
