#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# p99 of GET and PUT, and resident memory, without and with snapshots running. A writer of batches runs
# in both cases: it makes the tables change enough for snapshots to follow one another.
set -euo pipefail
# shellcheck source=tests/bench/bench_lib.sh
. "$(dirname "$0")/bench_lib.sh"

items=${ITEMS:-500000}

# watch_rss NAME PID: keeps the largest
watch_rss() {
    local most=0 now
    while now=$(rss_kib "$2" 2>/dev/null) && [ -n "$now" ]; do
        [ "$now" -le "$most" ] || most=$now
        echo "$most" >"$work/$1.rss"
        sleep 0.1
    done
}

names() { find "$work/$1/snapshots" -name '*.snap' | sort; }

# Three generators at once: GET, PUT, batches.
run_mixed() {
    "$load" -s "$DURATION" -p "$kvs_port" -o batch -u /v1/tables/t/batch -k "$items" -c 1 \
        >/dev/null &
    local writer=$!
    "$load" -s "$DURATION" -p "$kvs_port" -o get -u '/v1/tables/t/items/k{}' -k "$items" -c 16 \
        >>"$work/get_$1.runs" &
    local getter=$!
    "$load" -s "$DURATION" -p "$kvs_port" -o put -u '/v1/tables/t/items/k{}' -k "$items" -c 16 \
        >>"$work/put_$1.runs"
    wait $writer $getter
}

written=0
for what in off on; do
    interval=24h
    [ $what = off ] || interval=1s
    start_kvsd $what --set plugins.persistence.wal.snapshot_interval=$interval
    create_table t '"partitions":8'
    fill t "$items"
    run_mixed warm
    watch_rss $what "$kvs_pid" &
    pids+=("$!")
    for _ in $(seq "$RUNS"); do
        names $what >"$work/names"
        run_mixed $what
        [ $what = off ] || written=$((written + $(names on | comm -13 "$work/names" - | wc -l)))
    done
    stop "$kvs_pid"
done
note "$written snapshots were seen"
[ "$written" -gt 0 ] || fail "no snapshot was written"
row "GET p99, snapshots running ($written written) beside none" "$(of get_on 3) us" \
    "$(of get_off 3) us" "$(ratio "$(of get_on 3)" "$(of get_off 3)")" "at most 1.5"
row "PUT p99, snapshots running beside none" "$(of put_on 3) us" "$(of put_off 3) us" \
    "$(ratio "$(of put_on 3)" "$(of put_off 3)")" "at most 1.5"
on=$(($(cat "$work/on.rss") / 1024))
off=$(($(cat "$work/off.rss") / 1024))
row "most resident memory, snapshots running beside none" "$on MiB" "$off MiB" \
    "+$((on - off)) MiB" "at most +64 MiB"
