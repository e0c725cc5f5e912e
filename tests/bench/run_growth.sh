#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Cost of an operation as data grows: 100 thousand beside 10 million items, 8 beside 1,000 partitions.
# Journal with sync: os, so that the disk does not hide the rest.
set -euo pipefail
# shellcheck source=tests/bench/bench_lib.sh
. "$(dirname "$0")/bench_lib.sh"

many=${MANY:-10000000}
mid=${ITEMS:-1000000}
start_kvsd kvs --set plugins.persistence.wal.snapshot_interval=24h \
    --set plugins.persistence.wal.sync=os
create_table few '"partitions":8'
create_table many '"partitions":8'
create_table p8 '"partitions":8'
create_table p1000 '"partitions":1000'
fill few 100000
fill p8 "$mid"
fill p1000 "$mid"
fill many "$many"
note "resident: $(($(rss_kib "$kvs_pid") / 1024)) MiB"

# both OPERATION TABLE ITEMS OTHER ITEMS: one run each; the ratio of rates is the inverse of that of costs
both() {
    local op=$1 a=$2 a_items=$3 b=$4 b_items=$5
    run_load "$op-$a" -p "$kvs_port" -o "$op" -u "/v1/tables/$a/items/k{}" -k "$a_items"
    run_load "$op-$b" -p "$kvs_port" -o "$op" -u "/v1/tables/$b/items/k{}" -k "$b_items"
}
for _ in $(seq "$RUNS"); do
    both get few 100000 many "$many"
    both put few 100000 many "$many"
    both get p8 "$mid" p1000 "$mid"
    both put p8 "$mid" p1000 "$mid"
done
for op in get put; do
    row "cost of a $op, 10 M beside 100 k items" "$(of $op-many 1)/s" "$(of $op-few 1)/s" \
        "$(over $op-few $op-many 1)" "at most 1.5"
    row "cost of a $op, 1,000 beside 8 partitions, 1 M items" "$(of $op-p1000 1)/s" \
        "$(of $op-p8 1)/s" "$(over $op-p8 $op-p1000 1)" "at most 1.2"
done
