# SPDX-License-Identifier: MIT
# shellcheck shell=bash

verb_build() {
    build_release
    echo "built: build/bin/kvsd, plugins in build/lib/kvs/plugins"
}
