# SPDX-License-Identifier: MIT
# shellcheck shell=bash

# Real input: every package of this machine's Debian package index as one JSON item, loaded through the
# batch API; then five requests, printed with their answers.

LOAD_CHUNK=500 # operations of one batch

# One batch line per package: {"op":"put","key":NAME,"content_type":"application/json","value":TEXT}.
packages_as_operations() {
    apt-cache dumpavail | LC_ALL=C awk -f packaging/dev.d/packages.awk
}

api() { curl --silent --show-error --fail-with-body --max-time 60 "$@"; }

wait_until_ready() {
    local pid=$1 file=$2 waited=0
    while [ ! -s "$file" ] || ! url=$(jq -er '.endpoints.rest[0]' "$file" 2>/dev/null) ||
        ! curl --silent --fail --output /dev/null --max-time 5 "$url/readyz"; do
        kill -0 "$pid" 2>/dev/null || die "kvsd ended; its last words are above"
        sleep 0.1
        waited=$((waited + 1))
        [ $waited -lt 1200 ] || die "kvsd is not ready after 120 s: curl $url/readyz tells why"
    done
}

progress() { # DONE TOTAL STARTED_NS
    local ns rate width=30 filled
    ns=$(($(date +%s%N) - $3 + 1))
    rate=$(($1 * 1000000000 / ns))
    filled=$(($1 * width / $2))
    printf '\r  [%-*s] %6d of %d packages, %d/s ' "$width" \
        "$(printf '%*s' "$filled" '' | tr ' ' '#')" "$1" "$2" "$rate"
}

load_packages() {
    local url=$1 work=$2 total=0 loaded=0 started failed chunk
    say "loading this machine's package index"
    packages_as_operations >"$work/operations"
    total=$(wc -l <"$work/operations")
    [ "$total" -gt 0 ] || die "apt-cache dumpavail printed no package: run apt-get update first"
    rm -f "$work"/chunk.*
    split -l $LOAD_CHUNK -a 4 "$work/operations" "$work/chunk."
    started=$(date +%s%N)
    for chunk in "$work"/chunk.*; do
        api -H 'Content-Type: application/x-ndjson' --data-binary "@$chunk" \
            "$url/v1/tables/packages/batch" >"$work/results"
        failed=$(grep -cv '"status":20[014]' "$work/results" || true)
        [ "$failed" -eq 0 ] || {
            grep -v '"status":20[014]' "$work/results" | head -3 >&2
            die "$failed operations failed; the first are above"
        }
        loaded=$((loaded + $(wc -l <"$chunk")))
        progress $loaded "$total" "$started"
    done
    printf '\n'
    rm -f "$work"/chunk.* "$work/operations" "$work/results"
}

create_table() {
    api -H 'Content-Type: application/json' --data '{
        "name": "packages", "partitions": 8, "indexes": [
            {"name": "section", "type": "string", "path": "/section"},
            {"name": "maintainer", "type": "string", "path": "/maintainer"},
            {"name": "installed_size", "type": "number", "path": "/installed_size"}]}' \
        "$1/v1/tables" >/dev/null
}

show() { # TITLE curl-arguments.. URL
    local title=$1
    shift
    printf '\n-- %s\n$ curl' "$title"
    printf ' %q' "$@"
    printf '\n'
    curl --silent --show-error --max-time 30 "$@" | tr -d '\r' | cut -c 1-400 | head -20
    printf '\n'
}

five_requests() {
    local items="$1/v1/tables/packages/items" indexes="$1/v1/tables/packages/indexes" page next etag
    say "five requests"
    show "1. get one item" -i "$items/bash"
    page=$(api "$items?prefix=lib&limit=3&values=false")
    next=$(jq -r .next <<<"$page")
    show "2. list by prefix, a page of three" "$items?prefix=lib&limit=3&values=false"
    show "   and the next page, by its cursor" \
        "$items?prefix=lib&limit=3&values=false&cursor=$next"
    show "3. query by index: a section" "$indexes/section/items?eq=shells&limit=3&values=false"
    show "   and by number range: 1 to 2 GiB installed, largest first" \
        "$indexes/installed_size/items?from=1048576&to=2097152&order=desc&limit=3&values=false"
    curl --silent --output /dev/null -X PUT -H 'Content-Type: text/plain' --data 'first' "$items/a-note"
    etag=$(curl --silent --head "$items/a-note" | tr -d '\r' | awk 'tolower($1) == "etag:" { print $2 }')
    show "4. conditional put: only if the version is still $etag" -i -X PUT \
        -H "If-Match: $etag" -H 'Content-Type: text/plain' --data 'second' "$items/a-note"
    show "   once more with the same condition: the version has moved on" -i -X PUT \
        -H "If-Match: $etag" -H 'Content-Type: text/plain' --data 'third' "$items/a-note"
    show "5. put with a time to live" -i -X PUT -H 'Content-Type: text/plain' --data 'gone soon' \
        "$items/a-note?ttl=5s"
    show "   read it back: KVS-Expires-At tells until when" -i "$items/a-note"
}

verb_run() {
    local data=${KVS_DATA_DIR:-$PWD/build/standalone} pid url=
    build_release
    mkdir -p "$data"
    data=$(cd "$data" && pwd)
    rm -f "$data/endpoints.json"
    say "starting build/bin/kvsd -c etc/standalone.yaml, data in $data"
    build/bin/kvsd -c etc/standalone.yaml --set "node.data_dir=$data" "$@" &
    pid=$!
    # The server outlives Ctrl-C by the time its own orderly stop takes.
    trap 'kill -TERM $pid 2>/dev/null; wait $pid; exit $?' INT TERM
    trap 'kill -TERM $pid 2>/dev/null || true' EXIT
    wait_until_ready $pid "$data/endpoints.json"
    if curl --silent --fail --output /dev/null "$url/v1/tables/packages"; then
        say "found the table from the last run; nothing to load"
    else
        create_table "$url"
        load_packages "$url" "$data"
    fi
    five_requests "$url"
    say "serving at $url until Ctrl-C   (try: curl $url/v1/cluster, $url/openapi.json, $url/metrics)"
    wait $pid
}
