#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# p50 of a page of 100 items, by list and by index query, beside a single GET: one connection, so that
# what is measured is an answer and not a queue; then 64, where it is work on one loop.
set -euo pipefail
# shellcheck source=tests/bench/bench_lib.sh
. "$(dirname "$0")/bench_lib.sh"

items=${ITEMS:-200000}
start_kvsd kvs
create_table t '"partitions":8,"indexes":[{"name":"tag","type":"string"}]'
fill t "$items" -i 100

for c in 1 64; do
    for _ in $(seq "$RUNS"); do
        run_load get$c -p "$kvs_port" -o get -u '/v1/tables/t/items/k{}' -k "$items" -c $c
        run_load list$c -p "$kvs_port" -o get -u '/v1/tables/t/items?limit=100&start=k{}' \
            -k $((items - 200)) -c $c
        run_load query$c -p "$kvs_port" -o get -k 1 -c $c \
            -u '/v1/tables/t/indexes/tag/items?limit=100&eq=t000042'
        run_load keys$c -p "$kvs_port" -o get -k $((items - 200)) -c $c \
            -u '/v1/tables/t/items?limit=100&values=false&start=k{}'
    done
    row "list page of 100, p50 beside a GET, $c connections" "$(of list$c 2) us" \
        "$(of get$c 2) us" "$(over list$c get$c 2)" "under 3"
    row "index query page of 100, p50 beside a GET, $c connections" "$(of query$c 2) us" \
        "$(of get$c 2) us" "$(over query$c get$c 2)" "under 3"
    row "list page of 100 without values, p50 beside a GET, $c connections" "$(of keys$c 2) us" \
        "$(of get$c 2) us" "$(over keys$c get$c 2)" ""
done
