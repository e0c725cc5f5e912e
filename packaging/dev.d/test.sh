# SPDX-License-Identifier: MIT
# shellcheck shell=bash

# Everything CI runs, in the order in which it is likely to find something.
verb_test() {
    local started=$SECONDS
    install_packages
    # shellcheck source=packaging/dev.d/lint.sh
    . packaging/dev.d/lint.sh
    verb_lint

    say "build: gcc, release, warnings are errors"
    configure build -DCMAKE_BUILD_TYPE=Release -DKVS_WERROR=ON
    build_in build

    say "build: clang, warnings are errors"
    configure build-clang -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release -DKVS_WERROR=ON
    build_in build-clang

    say "test: all"
    ctest_in build '.*'

    # shellcheck source=packaging/dev.d/sanitize.sh
    . packaging/dev.d/sanitize.sh
    verb_sanitize asan
    verb_sanitize tsan

    # shellcheck source=packaging/dev.d/fuzz.sh
    . packaging/dev.d/fuzz.sh
    verb_fuzz "${KVS_FUZZ_SECONDS:-10}"
    say "all passed in $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s"
}
