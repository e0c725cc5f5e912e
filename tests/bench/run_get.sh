#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# GET of a 100-byte value, 64 connections, one event loop, beside a bare libmicrohttpd handler that
# answers the same bytes and headers, and beside Redis.
set -euo pipefail
# shellcheck source=tests/bench/bench_lib.sh
. "$(dirname "$0")/bench_lib.sh"

start_kvsd kvs
create_table t '"partitions":8'
fill t 100000
"$BUILD/tests/mhd_bare" >"$work/bare" &
pids+=("$!")
wait_for 5 "$!" "$work/bare" test -s "$work/bare"
start_redis redis --save '' --appendonly no
redis-benchmark -p "$redis_port" -c 16 -d 100 -r 100000 -n 500000 -P 50 -t set -q >/dev/null 2>&1

for _ in $(seq "$RUNS"); do
    run_load kvs -p "$kvs_port" -o get -u '/v1/tables/t/items/k{}'
    run_load bare -p "$(cat "$work/bare")" -o get -u '/v1/tables/t/items/k{}'
    run_redis redis get $((DURATION * 80000))
done

row "GET 100 bytes, 64 connections, beside libmicrohttpd alone" "$(of kvs 1)/s" "$(of bare 1)/s" \
    "$(over kvs bare 1)" "0.85"
row "GET 100 bytes, 64 connections, beside Redis GET" "$(of kvs 1)/s" "$(of redis 1)/s" \
    "$(over kvs redis 1)" "1.0"
row "GET p99 beside Redis" "$(of kvs 3) us" "$(of redis 3) us" "$(over kvs redis 3)" ""
