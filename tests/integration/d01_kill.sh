#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# kill -9 during writes of 64 connections: no acknowledged write is lost, no item is torn, indexes equal
# their items. 12 times here; as many as you like by hand:
#
#   KVS_KILLS=100 tests/integration/d01_kill.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1 build_dir=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/data"
"$build_dir/tests/crash_writer" "$build_dir/bin/kvsd" "$source_dir/etc/standalone.yaml" "$work/data" \
    "${KVS_KILLS:-12}" 64
