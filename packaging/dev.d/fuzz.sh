# SPDX-License-Identifier: MIT
# shellcheck shell=bash

# Each target starts from its corpus; findings stay in build-fuzz/findings and fail the run.
verb_fuzz() {
    local seconds=${1:-30} target name found=0 corpus
    install_packages
    configure build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug -DKVS_SANITIZE=asan \
        -DKVS_FUZZ=ON -DCMAKE_C_FLAGS_DEBUG="-O1 -g"
    build_in build-fuzz --target fuzzers
    mkdir -p build-fuzz/findings
    for target in build-fuzz/tests/fuzz_*; do
        [ -x "$target" ] || continue
        found=1
        name=$(basename "$target")
        mkdir -p "build-fuzz/corpus/$name"
        say "fuzz: $name, $seconds s"
        corpus=("build-fuzz/corpus/$name")
        [ -d "tests/fuzz/corpus/${name#fuzz_}" ] && corpus+=("tests/fuzz/corpus/${name#fuzz_}")
        "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
            -artifact_prefix="build-fuzz/findings/$name-" "${corpus[@]}" ||
            die "$name found something: see build-fuzz/findings"
    done
    [ $found = 1 ] || die "no fuzz target was built"
}
