#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Style rules that a program can check. Prints file:line: rule; exits 1 if any is broken.
set -euo pipefail
cd "$(dirname "$0")/../.."

broken=0
complain() {
    echo "$1" >&2
    broken=1
}

mapfile -t sources < <(git ls-files '*.c' '*.h')
mapfile -t outer < <(git ls-files 'plugins/*.[ch]' 'sdk/*.[ch]')
mapfile -t core < <(git ls-files 'core/*.[ch]')
mapfile -t services < <(git ls-files 'plugins/service/*.c')
mapfile -t product < <(git ls-files 'core/*.[ch]' 'plugins/*.[ch]' 'sdk/*.[ch]')

# Every file begins with its license, and none is longer than 800 lines or 100 columns.
for f in "${sources[@]}"; do
    head -n 1 "$f" | grep -q 'SPDX-License-Identifier: MIT' || complain "$f:1: no SPDX line"
    lines=$(wc -l <"$f")
    [ "$lines" -le 800 ] || complain "$f:$lines: more than 800 lines: is there a wall missing?"
done
while IFS= read -r hit; do complain "$hit: more than 100 columns"; done < <(
    awk '{ if (length($0) > 100) print FILENAME ":" FNR }' "${sources[@]}"
)

# Comments are /* */; // is for local debugging.
while IFS= read -r hit; do complain "$hit: use /* */ for comments"; done < <(
    grep -nE '(^|[^:"])//' "${sources[@]}" | grep -vE '"[^"]*//[^"]*"|/\*.*//|\*.*//' | cut -d: -f1,2
)

# Layers: the core knows no plugin, plugins and the SDK know no core.
while IFS= read -r hit; do complain "$hit: plugins and sdk must not include core"; done < <(
    grep -nE '#include "(\.\./)*core/' "${outer[@]}" /dev/null |
        cut -d: -f1,2
)
while IFS= read -r hit; do complain "$hit: the core must not include a plugin"; done < <(
    grep -nE '#include "(\.\./)*plugins/' "${core[@]}" /dev/null | cut -d: -f1,2
)

# A service takes time, chance, sockets and files from the host.
while IFS= read -r hit; do complain "$hit: a service must not call this: use the host table"; done < <(
    grep -nE '\b(time|clock_gettime|gettimeofday|random|rand|socket|open|fopen|pthread_create|usleep|sleep)\(' \
        "${services[@]}" /dev/null | grep -vE '(->|\.|_)(random|open|time|socket)\(' |
        grep -vE '^[^:]*:[0-9]*: \*|/\*' | cut -d: -f1,2
)

# Unbounded or unsafe calls.
while IFS= read -r hit; do complain "$hit: unsafe call"; done < <(
    grep -nE '\b(strcpy|strcat|sprintf|gets|alloca|system|strtok)\(' "${product[@]}" | cut -d: -f1,2
)

# Unfinished work carries an issue number or does not exist.
while IFS= read -r hit; do complain "$hit: unfinished"; done < <(
    grep -nE '\b(TODO|FIXME|XXX|HACK)\b' "${sources[@]}" | cut -d: -f1,2
)

exit $broken
