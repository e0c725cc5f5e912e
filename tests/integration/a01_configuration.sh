#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Configurations, right and wrong: each error with file:line:col, all of them at once, and exit 2.
#
#   a01_configuration.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1 build_dir=$2
# shellcheck source=tests/lib/server.sh
. "$source_dir/tests/lib/server.sh"
kvsd=$build_dir/bin/kvsd

run() { # EXIT-STATUS ARGUMENTS: output in $work/out
    local want=$1 got=0
    shift
    asked="kvsd $*"
    # LeakSanitizer itself crashes on the thread-local storage of this many modules.
    LSAN_OPTIONS=use_tls=0 "$kvsd" "$@" >"$work/out" 2>&1 || got=$?
    status=$got
    steps=$((steps + 1))
    [ "$got" = "$want" ] || { sed 's/^/  > /' "$work/out" >&2 && fail "expected exit status $want"; }
}

says() { # TEXT..
    for text in "$@"; do
        grep -qF -e "$text" "$work/out" || {
            sed 's/^/  > /' "$work/out" >&2
            fail "'$text' is not said"
        }
    done
}

wrong() { # TITLE TEXT.. <CONFIGURATION
    cat >"$work/c.yaml"
    asked="--check of $1"
    shift
    run 2 --check "$work/c.yaml"
    says "$@"
}

wrong_ones() {
    wrong "an unknown key" 'c.yaml:3:3: error: node.dat_dir' "Did you mean 'data_dir'" <<'YAML'
node:
  id: a
  dat_dir: /tmp/x
YAML
    says '  dat_dir: /tmp/x' '^'
    wrong "three errors at once" 'node.threads' 'segment_size' 'sync' <<'YAML'
node: {id: a, data_dir: /tmp/x, threads: many}
plugins:
  persistence:
    wal: {segment_size: 64MB, sync: sometimes}
YAML
    says "Did you mean '64MiB'"
    wrong "YAML that is none" 'c.yaml:2:' 'error' <<'YAML'
node: {id: a
plugins: [
YAML
    wrong "a key given twice" 'c.yaml:3:3: error: duplicate key' <<'YAML'
node:
  id: a
  id: b
YAML
    wrong "no id" 'node.id' <<'YAML'
node: {data_dir: /tmp/x}
YAML
    wrong "a missing plugin" 'transport-carrier-pigeon' <<'YAML'
node: {id: a, data_dir: /tmp/x}
plugins: {transport: {carrier-pigeon: {}}}
YAML
    wrong "a plugin name with a path" 'error' <<'YAML'
node: {id: a, data_dir: /tmp/x}
plugins: {transport: {../../evil: {}}}
YAML
    wrong "a kind that does not exist" 'transports' "Did you mean 'transport'" <<'YAML'
node: {id: a, data_dir: /tmp/x}
plugins: {transports: {rest: {}}}
YAML
    wrong "an environment variable that is not set" 'KVS_NOT_SET' <<'YAML'
node: {id: a, data_dir: "${KVS_NOT_SET}"}
YAML
    wrong "what a plugin finds by itself" 'heartbeat_timeout' <<'YAML'
node: {id: a, data_dir: /tmp/x}
plugins: {consensus: {raft: {heartbeat_timeout: 1s, election_timeout: 1s}}}
YAML
    run 2 --check "$work/does-not-exist.yaml"
    says 'does-not-exist.yaml'
    run 2 -c "$source_dir/etc/standalone.yaml" --set node.nope=1
    says 'nope'
    run 2 --nonsense
    run 2
    says 'configuration'
}

# A file that is no plugin, one of another ABI, and one that misses a symbol: the true reason.
plugin_files() {
    mkdir -p "$work/plugins"
    cat >"$work/c.yaml" <<YAML
node: {id: a, data_dir: $work/d, plugin_dir: [$work/plugins]}
plugins: {compression: {odd: {}}}
YAML
    echo 'not a shared object' >"$work/plugins/compression-odd.so"
    run 2 --check "$work/c.yaml"
    says 'compression-odd.so'
    echo 'int missing(void); int kvs_plugin_entry(void); int kvs_plugin_entry(void) { return missing(); }' |
        "${CC:-cc}" -x c -shared -fPIC -o "$work/plugins/compression-odd.so" -
    run 2 --check "$work/c.yaml"
    says 'undefined symbol: missing'
    cat >"$work/odd.c" <<'C'
#include "kvs/compression.h"
static const struct kvs_plugin odd = {.size = sizeof odd, .abi_major = 99, .abi_minor = 0,
    .kind = KVS_KIND_COMPRESSION, .name = "odd", .version = "1", .summary = "of the future"};
KVS_EXPORT const struct kvs_plugin *kvs_plugin_entry(void);
const struct kvs_plugin *kvs_plugin_entry(void) { return &odd; }
C
    "${CC:-cc}" -I "$source_dir/sdk/include" -shared -fPIC -o "$work/plugins/compression-odd.so" \
        "$work/odd.c"
    run 2 --check "$work/c.yaml"
    says '99' 'ABI'
}

right_ones() {
    local file
    for file in "$source_dir"/etc/*.yaml; do
        run 0 --check "$file"
    done
    mkdir -p "$work/conf/conf.d"
    cp "$source_dir/etc/standalone.yaml" "$work/conf/kvs.yaml"
    echo 'node: {log: {level: debug}}' >"$work/conf/conf.d/10-log.yaml"
    run 0 -c "$work/conf/kvs.yaml" --set node.data_dir=/srv/x --print-config
    says 'node.data_dir' '/srv/x' '--set' '10-log.yaml:1' 'debug'
    run 0 --list-plugins
    says 'persistence-wal' 'transport-rest'
    run 0 --help-plugin persistence-wal
    says 'sync' 'segment_size'
    run 2 --help-plugin persistence-wall
    run 0 --version
    says 'kvsd'
    run 0 --help
    says 'Examples:'
}

# What a running server takes over on SIGHUP.
reload() {
    cp "$source_dir/etc/standalone.yaml" "$work/live.yaml"
    config=$work/live.yaml
    server_start
    sed -i 's/level: info/level: debug/' "$work/live.yaml"
    kill -HUP "$server"
    for _ in $(seq 100); do
        ! grep -q 'event=reloaded' "$work/log" || break
        sleep 0.05
    done
    grep -q 'event=reloaded' "$work/log" || fail "SIGHUP changed nothing"
    echo 'node: [' >"$work/live.yaml"
    kill -HUP "$server"
    for _ in $(seq 100); do
        ! grep -q 'reload_refused\|reload_failed' "$work/log" || break
        sleep 0.05
    done
    request GET /healthz
    [ "$status" = 200 ] || fail "a wrong configuration on SIGHUP must not harm"
    server_stop
}

wrong_ones
plugin_files
right_ones
reload
echo "a01_configuration: $steps runs as expected"
