# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
#
# For integration scripts: one kvsd on port 0 in a temporary directory, and requests to it.
#
#   source_dir=$1 build_dir=$2
#   . "$source_dir/tests/lib/server.sh"
#   server_start                        $url, $server, log in $work/log; more --set may follow
#   request PUT /v1/tables/t/items/k -d v
#   expect 201 ETag                     status, and headers that must be there
#   expect_code 409 conflict            problem+json with that code
#   expect_json '.items | length' 3     what jq prints of the answer
#   server_stop                         SIGTERM; fails unless it ends with 0
work=$(mktemp -d)
server='' url=''
config=${config:-$source_dir/etc/standalone.yaml}
data=$work/data
asked='' status='' steps=0
trap 'cleanup' EXIT

cleanup() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}

fail() {
    echo "$(basename "$0"): $*" >&2
    [ -z "$asked" ] || echo "  last request: $asked -> $status" >&2
    [ ! -s "$work/head" ] || sed 's/^/  < /' "$work/head" >&2
    [ ! -s "$work/body" ] || head -c 600 "$work/body" | sed 's/^/  | /' >&2
    [ ! -s "$work/log" ] || tail -n 40 "$work/log" | sed 's/^/  kvsd: /' >&2
    exit 1
}

server_start() { # [ARGUMENTS]
    rm -f "$data/endpoints.json"
    "$build_dir/bin/kvsd" -c "$config" --set "node.data_dir=$data" \
        --set plugins.transport.rest.listen=127.0.0.1:0 "$@" 2>>"$work/log" &
    server=$!
    for _ in $(seq 600); do
        kill -0 "$server" 2>/dev/null || fail "kvsd ended while it started"
        if [ -s "$data/endpoints.json" ]; then
            url=$(jq -r '.endpoints.rest[0]' "$data/endpoints.json")
            ! curl -sf -o /dev/null "$url/readyz" || return 0
        fi
        sleep 0.05
    done
    fail "kvsd is not ready after 30 s"
}

server_wait() { # SECONDS: until it has ended; its exit status
    local rc=0
    for _ in $(seq $(($1 * 20))); do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    ! kill -0 "$server" 2>/dev/null || fail "kvsd still runs after $1 s"
    wait "$server" || rc=$?
    server=''
    return "$rc"
}

server_stop() {
    kill -TERM "$server"
    server_wait 30 || fail "kvsd ended with $? after SIGTERM"
}

server_kill() {
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    server=''
}

request() { # METHOD PATH [CURL ARGUMENTS]
    local method=$1 path=$2
    shift 2
    asked="$method $path"
    local how=(-X "$method")
    [ "$method" != HEAD ] || how=(--head)
    status=$(curl -sS --path-as-is --max-time 30 "${how[@]}" -D "$work/head" -o "$work/body" \
        -w '%{http_code}' "$@" "$url$path") || fail "curl failed"
    steps=$((steps + 1))
}

header() { # NAME: its value in the last answer
    tr -d '\r' <"$work/head" | awk -v name="$1" -F ': ' \
        'tolower($1) == tolower(name) { sub(/^[^:]*: /, ""); print; exit }'
}

expect() { # STATUS [HEADERS THAT MUST BE THERE]
    [ "$status" = "$1" ] || fail "expected $1"
    shift
    for name in KVS-Request-Id "$@"; do
        [ -n "$(header "$name")" ] || fail "the answer has no $name"
    done
}

expect_code() { # STATUS CODE: a problem
    expect "$1"
    [ "$(header Content-Type)" = application/problem+json ] || fail "expected application/problem+json"
    [ "$(jq -r .code "$work/body")" = "$2" ] || fail "expected the code $2"
    jq -e '.type and .title and .status and .detail and .instance and has("retryable")' \
        "$work/body" >/dev/null || fail "members of the problem are missing"
    [ "$(jq -r .status "$work/body")" = "$1" ] || fail "the problem names another status"
}

expect_json() { # FILTER VALUE
    local got
    got=$(jq -c "$1" "$work/body") || fail "the answer is not JSON"
    [ "$got" = "$2" ] || fail "$1 is $got, expected $2"
}

expect_body() { # TEXT
    [ "$(cat "$work/body")" = "$1" ] || fail "expected the body '$1'"
}

create_table() { # JSON
    request POST /v1/tables -H 'Content-Type: application/json' -d "$1"
    expect 201
}

put() { # TABLE KEY VALUE [CURL ARGUMENTS]
    local path="/v1/tables/$1/items/$2" value=$3
    shift 3
    request PUT "$path" --data-binary "$value" -H 'Content-Type: text/plain' "$@"
}
