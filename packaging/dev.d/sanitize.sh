# SPDX-License-Identifier: MIT
# shellcheck shell=bash

sanitize_build() {
    configure "build-$1" -DCMAKE_BUILD_TYPE=Debug -DKVS_SANITIZE="$1" -DCMAKE_C_FLAGS_DEBUG="-O1 -g"
    build_in "build-$1"
}

verb_sanitize() {
    case ${1:-} in
        asan | tsan) ;;
        *) die "sanitize what? packaging/dev sanitize asan|tsan" ;;
    esac
    install_packages
    say "sanitize: $1"
    sanitize_build "$1"
    export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=print_stacktrace=1
    export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
    ctest_in "build-$1" "$([ "$1" = asan ] && echo 'unit|contract|fault|short' || echo 'unit|contract|short')"
}
