#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
#   must_fail.sh TEXT COMMAND [ARGUMENT ..]
#
# Passes if the command exits with 1 and one of its lines begins with FAIL and holds TEXT.
set -uo pipefail

text=$1
shift
output=$("$@" 2>&1)
rc=$?
echo "$output"
if [ $rc -ne 1 ]; then
    echo "must_fail: exit status $rc, not 1" >&2
    exit 1
fi
if ! grep '^FAIL  ' <<<"$output" | grep -qF -e "$text"; then
    echo "must_fail: no FAIL line holds '$text'" >&2
    exit 1
fi
