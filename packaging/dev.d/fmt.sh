# SPDX-License-Identifier: MIT
# shellcheck shell=bash

verb_fmt() {
    install_packages
    git ls-files '*.c' '*.h' | xargs clang-format -i
}
