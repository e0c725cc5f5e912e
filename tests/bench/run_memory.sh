#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A million items, 16-byte keys, 100-byte values: memory beyond key and value, and the time to read
# them back at start (snapshot and journal; Redis: RDB), beside Redis. Resident memory of the process
# before and after, so everything counts.
set -euo pipefail
# shellcheck source=tests/bench/bench_lib.sh
. "$(dirname "$0")/bench_lib.sh"

items=${ITEMS:-1000000}
beyond() { awk -v k="$1" -v n="$items" 'BEGIN { printf "%.1f", k * 1024 / n - 116 }'; }

start_kvsd kvs --set plugins.persistence.wal.snapshot_interval=24h
create_table t '"partitions":8'
before=$(rss_kib "$kvs_pid")
fill t "$items"
sleep 3
ours=$(beyond $(($(rss_kib "$kvs_pid") - before)))
stop "$kvs_pid"

start_redis redis --save '' --appendonly no
before=$(rss_kib "$redis_pid")
"$load" -o resp -k "$items" | redis-cli -p "$redis_port" --pipe >/dev/null
sleep 1
theirs=$(beyond $(($(rss_kib "$redis_pid") - before)))
redis-cli -p "$redis_port" save >/dev/null
stop "$redis_pid"
row "memory per item beyond key and value, 1 M items" "$ours bytes" "Redis: $theirs bytes" \
    "$(ratio "$ours" "$theirs")" "at most 60 bytes"

# Let snapshots be taken until none is due; the rest stays in the journal.
start_kvsd kvs --set plugins.persistence.wal.snapshot_interval=1s
last=none
until [ "$(find "$work/kvs/snapshots" -name '*.snap' | sort | md5sum)" = "$last" ] &&
    [ "$(find "$work/kvs/snapshots" -name '*.snap' | wc -l)" -ge 8 ]; do
    last=$(find "$work/kvs/snapshots" -name '*.snap' | sort | md5sum)
    sleep 3
done
stop "$kvs_pid"
for _ in $(seq "$RUNS"); do
    start_kvsd kvs --set plugins.persistence.wal.snapshot_interval=24h
    sed -n 's/.*event=recovered.* ms=\([0-9]*\).*/\1/p' "$work/kvs.log" >>"$work/ours.ms"
    stop "$kvs_pid"
    start_redis redis --save '' --appendonly no
    sed -n 's/.*loaded from disk: \([0-9.]*\) seconds.*/\1/p' "$work/redis.log" |
        awk '{ print $1 * 1000 }' >>"$work/theirs.ms"
    stop "$redis_pid"
done
ours=$(median <"$work/ours.ms")
theirs=$(median <"$work/theirs.ms")
row "recovery of 1 M items beside Redis loading its RDB" "$ours ms" "$theirs ms" \
    "$(ratio "$ours" "$theirs")" "at most 1.0"
