# SPDX-License-Identifier: MIT
# shellcheck shell=bash

verb_lint() {
    install_packages
    say "lint: tidy"
    bash tests/lint/tidy.sh
    say "lint: shell scripts"
    git ls-files '*.sh' packaging/dev .ci/run | xargs shellcheck -x -S warning
    say "lint: spelling"
    git ls-files | grep -vE '^tests/(data|fuzz/corpus)/' |
        xargs codespell -q 3 -I tests/lint/words.txt
}
