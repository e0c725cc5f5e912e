# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Shared by the benchmarks: servers that start and end with the script, runs, medians, table rows.
# A benchmark prints rows "| what | kvs | compared with | ratio | at least |" and talks on stderr.

: "${BUILD:=build}"
: "${RUNS:=5}"    # runs of which the median counts
: "${DURATION:=3}" # seconds of one run
load=$BUILD/tests/load
work=$(mktemp -d "${KVS_BENCH_DIR:-/var/tmp}/kvs-bench.XXXXXX")
pids=()

finish() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$work"
}
trap finish EXIT

note() { echo "   $*" >&2; }
fail() {
    echo "bench: $*" >&2
    exit 1
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 30000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# wait_for SECONDS PID LOG COMMAND..: until it succeeds, while the process lives
wait_for() {
    local tries=$(($1 * 50)) pid=$2 log=$3
    shift 3
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || ! kill -0 "$pid" 2>/dev/null; then
            tail -n 5 "$log" >&2
            fail "no success within the time, or the server ended: $*"
        fi
        sleep 0.02
    done
}

stop() {
    local pid left=()
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" || true
    for pid in "${pids[@]}"; do
        [ "$pid" = "$1" ] || left+=("$pid")
    done
    pids=("${left[@]}")
}

# start_kvsd DIR [--set ..]: sets kvs_pid, kvs_port. One event loop unless told otherwise.
start_kvsd() {
    local dir=$work/$1 url
    shift
    mkdir -p "$dir"
    rm -f "$dir/endpoints.json"
    "$BUILD/bin/kvsd" -c etc/standalone.yaml --set "node.data_dir=$dir" --set node.threads=1 \
        --set plugins.transport.rest.listen=127.0.0.1:0 "$@" >"$dir.log" 2>&1 &
    kvs_pid=$!
    pids+=("$kvs_pid")
    wait_for 60 "$kvs_pid" "$dir.log" test -s "$dir/endpoints.json"
    url=$(jq -er '.endpoints.rest[0]' "$dir/endpoints.json")
    kvs_port=${url##*:}
    wait_for 120 "$kvs_pid" "$dir.log" curl -sf "$url/readyz"
}

# create_table NAME [members of the body]
create_table() {
    curl -sf -H 'Content-Type: application/json' -d "{\"name\":\"$1\"${2:+,$2}}" \
        "http://127.0.0.1:$kvs_port/v1/tables" >/dev/null || fail "table $1 cannot be created"
}

# fill TABLE ITEMS [load options]
fill() {
    local table=$1 items=$2
    shift 2
    note "filling $table with $items items"
    "$load" -p "$kvs_port" -o fill -u "/v1/tables/$table/batch" -k "$items" -c 8 -b 200 "$@" >/dev/null
}

# start_redis DIR [redis-server options]: sets redis_pid, redis_port
start_redis() {
    local dir=$work/$1
    shift
    mkdir -p "$dir"
    redis_port=$(free_port)
    redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir" --daemonize no "$@" \
        >"$dir.log" 2>&1 &
    redis_pid=$!
    pids+=("$redis_pid")
    wait_for 120 "$redis_pid" "$dir.log" grep -q 'Ready to accept' "$dir.log"
}

start_etcd() {
    local dir=$work/etcd peer
    etcd_port=$(free_port)
    peer=$(free_port)
    etcd --data-dir "$dir" --listen-client-urls "http://127.0.0.1:$etcd_port" \
        --advertise-client-urls "http://127.0.0.1:$etcd_port" \
        --listen-peer-urls "http://127.0.0.1:$peer" \
        --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "default=http://127.0.0.1:$peer" --logger zap >"$dir.log" 2>&1 &
    pids+=("$!")
    wait_for 30 "$!" "$dir.log" curl -sf "http://127.0.0.1:$etcd_port/health"
}

# run_load NAME [load options]: one run; its line is kept under the name
run_load() {
    local name=$1 line
    shift
    line=$("$load" -s "$DURATION" "$@")
    [ "${line##* }" = 0 ] || fail "$name: ${line##* } requests failed"
    echo "$line" >>"$work/$name.runs"
}

# run_redis NAME TEST REQUESTS: one run of redis-benchmark, kept in the form of load's line
run_redis() {
    redis-benchmark -p "$redis_port" -c 64 -d 100 -r 100000 -n "$3" -t "$2" --csv 2>/dev/null |
        tail -n 1 | tr -d '"' |
        awk -F, '{ printf "%.0f %.0f %.0f 0 %.0f 0\n", $2, $5 * 1000, $7 * 1000, $8 * 1000 }' \
            >>"$work/$1.runs"
}

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# of NAME FIELD: the median over its runs; fields: 1 rate, 2 p50, 3 p99, 4 p99.9, 5 maximum (us)
of() { awk -v f="$2" '{ print $f }' "$work/$1.runs" | median; }

# over NAME OTHER FIELD: the median of the ratios of paired runs
over() {
    paste "$work/$1.runs" "$work/$2.runs" | awk -v f="$3" '{ print $f / $(f + 6) }' | median |
        awk '{ printf "%.2f", $1 }'
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
row() { printf '| %s | %s | %s | %s | %s |\n' "$@"; }
