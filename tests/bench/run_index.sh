#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Speed and size of both index plugins, 1M and 10M entries. BUILD is the build folder.
set -euo pipefail
: "${BUILD:=build}"

for name in btree hash; do
    echo "index-$name"
    "$BUILD/tests/bench_index" "$BUILD/lib/kvs/plugins/index-$name.so"
done
