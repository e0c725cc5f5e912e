#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Durable PUT of 100 bytes, 64 connections: beside Redis with appendfsync always and beside etcd's HTTP
# gateway. Then batches of 100.
set -euo pipefail
# shellcheck source=tests/bench/bench_lib.sh
. "$(dirname "$0")/bench_lib.sh"

start_kvsd kvs --set plugins.persistence.wal.snapshot_interval=24h
create_table t '"partitions":8'
fill t 100000
start_redis redis --save '' --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
start_etcd

for _ in $(seq "$RUNS"); do
    run_load put -p "$kvs_port" -o put -u '/v1/tables/t/items/k{}'
    run_redis redis set $((DURATION * 15000))
    run_load etcd -p "$etcd_port" -o etcd
    run_load batch -p "$kvs_port" -o batch -u /v1/tables/t/batch -c 16
done

row "PUT durable, 64 connections, beside Redis SET, appendfsync always" "$(of put 1)/s" \
    "$(of redis 1)/s" "$(over put redis 1)" "1.0"
row "PUT durable p99 beside Redis" "$(of put 3) us" "$(of redis 3) us" "$(over put redis 3)" \
    "at most 1.0"
row "PUT durable beside etcd's HTTP gateway" "$(of put 1)/s" "$(of etcd 1)/s" \
    "$(over put etcd 1)" "6"
items=$(($(of batch 1) * 100))
row "PUT in batches of 100, items beside single PUT" "$items/s" "$(of put 1)/s" \
    "$(ratio "$items" "$(of put 1)")" "300,000/s and 3"
