# shellcheck shell=bash
# `--test`: what the tests need, then every check and every test, counted.

# Broker and supervisor for the fixtures; the real collectd; a subscriber in Python; the tools of the checks.
readonly test_packages='rabbitmq-server supervisor collectd-core librabbitmq4 libyajl2 python3-venv python3-pika
    shellcheck zstd curl gcc libc6-dev git procps'
readonly secantus_version=0.7.0b3

run_test() {
    passed=0 failed=0 step_count=2
    store=embedded executable=''
    require_needs
    step 'system packages' system_packages
    secantus_dir=${OVERSTORY_TEST_CACHE:-${HOME:?}/.cache/overstory}/secantus
    step 'MongoDB stand-in' make_secantus
    # rustup's minimal profile is enough to build, not to check.
    if have rustup && ! { cargo clippy --version && cargo fmt --version; } >/dev/null 2>&1; then
        step_count=$((step_count + 1))
        step 'clippy and rustfmt' rustup component add clippy rustfmt
    fi
    if [ "$long" = yes ] && ! cargo fuzz --version >/dev/null 2>&1; then
        step_count=$((step_count + 1))
        step 'cargo-fuzz' cargo install --quiet --locked cargo-fuzz
    fi
    export OVERSTORY_TEST_SECANTUS=$secantus_dir/bin/secantusd-py
    [ "$long" = no ] || export OVERSTORY_TEST_LONG=1
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

    cd "$source_dir" || exit
    run_check 'shellcheck' check_shell
    run_check 'cargo fmt' cargo fmt --all --check
    run_check 'cargo clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
    # With all targets the executable is built with the features that the tests' build has: nothing is compiled twice.
    run_check 'cargo build' cargo build --locked --workspace --all-targets
    if cargo nextest --version >/dev/null 2>&1; then
        run_suite 'tests' cargo nextest run --locked --workspace --no-fail-fast --no-tests=pass
        run_suite 'doc tests' cargo test --locked --workspace --doc --no-fail-fast
    else
        run_suite 'tests' cargo test --locked --workspace --no-fail-fast
    fi
    local file
    for file in tests/shell/test_*.sh; do
        run_suite "$file" bash "$file"
    done
    [ "$long" = no ] || run_fuzzers
    printf '\n%s passed, %s failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}

missing_test_packages() {
    local name names=$test_packages
    # libFuzzer is C++.
    [ "$long" = no ] || names+=' g++'
    for name in $names; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s\n' "$name"
    done
}

# SecantusDB speaks MongoDB's protocol; it is a process of its own and nothing of it is linked or shipped.
make_secantus() {
    local wanted=$secantus_dir/.version-$secantus_version
    [ ! -f "$wanted" ] || return 0
    rm -rf -- "$secantus_dir"
    mkdir -p -- "$(dirname -- "$secantus_dir")"
    python3 -m venv "$secantus_dir"
    "$secantus_dir/bin/pip" install --quiet "SecantusDB==$secantus_version"
    touch "$wanted"
}

check_shell() {
    local file files=(build-install.sh .ci/run)
    for file in packages/*.sh packages/*/*.sh packages/rabbitmq-server/* tests/shell/*.sh; do
        files+=("$file")
    done
    shellcheck -x "${files[@]}"
}

# Each fuzz target for a minute: those of the wire, and those of the files of the logfiles node.
run_fuzzers() {
    local crate target fuzz_cargo=(env RUSTC_BOOTSTRAP=1 cargo)
    if have rustup && rustup run nightly rustc --version >/dev/null 2>&1; then
        fuzz_cargo=(cargo +nightly)
    fi
    for crate in lib/swarm engines/logfiles; do
        run_check "fuzz targets of $crate" build_fuzzers "$crate"
        for target in "$crate"/fuzz/fuzz_targets/*.rs; do
            target=$(basename -- "$target" .rs)
            run_check "fuzz $target" fuzz "$crate" "$target"
        done
    done
}

build_fuzzers() ( # CRATE
    cd "$1" || exit
    "${fuzz_cargo[@]}" fuzz build --target-dir "$source_dir/target/fuzz"
)

# What it learns is forgotten; an input that breaks a promise is kept below CRATE/fuzz/artifacts.
fuzz() ( # CRATE TARGET
    cd "$1" || exit
    mkdir -p -- "$work/fuzz/$2"
    "${fuzz_cargo[@]}" fuzz run --target-dir "$source_dir/target/fuzz" "$2" "$work/fuzz/$2" "fuzz/seeds/$2" \
        -- -max_total_time=60 -timeout=10 -max_len=8192 -malloc_limit_mb=64 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1
)

heading() { printf '\n== %s\n' "$1"; }

count() { # PASSED FAILED
    passed=$((passed + $1))
    failed=$((failed + $2))
}

# Counts as one test.
run_check() { # TITLE COMMAND...
    local began=$SECONDS
    heading "$1"
    if "${@:2}" 9<&- </dev/null; then
        count 1 0
        printf '%s: ok, %ss\n' "$1" "$((SECONDS - began))"
    else
        count 0 1
        printf '%s: FAILED, %ss\n' "$1" "$((SECONDS - began))"
    fi
}

# Counts the tests that the command reports; a failure that its report does not explain counts as one more.
run_suite() { # TITLE COMMAND...
    local began=$SECONDS rc=0 ok bad output=$work/suite
    heading "$1"
    "${@:2}" 9<&- </dev/null > >(tee "$output") 2>&1 || rc=$?
    wait $! || true
    read -r ok bad < <(summarise <"$output")
    if [ "$rc" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    count "$ok" "$bad"
    printf '%s: %s passed, %s failed, %ss\n' "$1" "$ok" "$bad" "$((SECONDS - began))"
}

# Adds up what test runners say: nextest's `Summary`, cargo's `test result:`, our own `N passed, N failed`.
summarise() {
    awk '
        { gsub(/\033\[[0-9;]*m/, "") }
        /^ *Summary \[/ || /^test result: / || /^[0-9]+ passed, [0-9]+ failed$/ {
            for (i = 2; i <= NF; i++) {
                word = $i
                sub(/[,;.]$/, "", word)
                if (word == "passed") ok += $(i - 1)
                if (word == "failed" || (word == "out" && $(i - 1) == "timed")) bad += (word == "out" ? $(i - 2) : $(i - 1))
            }
        }
        END { print ok + 0, bad + 0 }'
}
