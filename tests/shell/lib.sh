# shellcheck shell=bash
# A test file sources this, defines functions named test_*, and ends with `run_tests`. Each test runs in a shell of its
# own in an empty directory `$sandbox`, with a copy of the installer in `$sandbox/tree`.
set -euo pipefail

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# A system user of this run's own, so that a real installation's is left alone.
test_user=overstory-t$$
stand_in=$repository/tests/shell/stand-in.sh

fail() {
    printf 'assertion failed: %s\n' "$*"
    exit 1
}

assert_equal() { # EXPECTED ACTUAL [WHAT]
    [ "$1" = "$2" ] || fail "${3:-value}: expected '$1', got '$2'"
}

assert_contains() { # TEXT PART
    [[ $1 == *"$2"* ]] || fail "expected to find '$2' in: $1"
}

assert_lacks() { # TEXT PART
    [[ $1 != *"$2"* ]] || fail "did not expect '$2' in: $1"
}

assert_file() { [ -f "$1" ] || fail "no file $1"; }

assert_absent() { if [ -e "$1" ] || [ -L "$1" ]; then fail "$1 is there"; fi; }

# Runs a command, keeps what it says in `output` and its exit code in `code`.
run() {
    code=0
    output=$("$@" 2>&1 </dev/null) || code=$?
}

# The installer with the stand-in in place of the built executable, on the sandbox' prefix.
install_at() { # PREFIX OPTION...
    run "$sandbox/tree/build-install.sh" --prefix "$1" --executable "$stand_in" --no-deps "${@:2}"
}

installed() { # PREFIX OPTION...
    install_at "$@"
    [ "$code" = 0 ] || fail "the installation ended with $code: $output"
}

wait_for() { # COMMAND...
    local deadline=$((SECONDS + 20))
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited too long for: $*"
        sleep 0.05
    done
}

copy_tree() {
    mkdir -p "$sandbox/tree"
    cp -a "$repository"/{build-install.sh,packages,etc,supervisord.d,Cargo.toml,LICENSE} "$sandbox/tree/"
    sed -i "s/^readonly supervised_user=.*/readonly supervised_user=$test_user/" "$sandbox/tree/packages/lib/common.sh"
    chmod -R a+rX "$sandbox"
}

# What a test started is ended and what it installed is removed, the system user included.
tidy() {
    local dir pid
    for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
    for dir in "$sandbox"/*/; do
        [ ! -f "$dir/var/lib/packages/state" ] ||
            "$sandbox/tree/build-install.sh" --prefix "$dir" --uninstall --purge --yes >/dev/null 2>&1 </dev/null || true
    done
    chmod -R u+w "$sandbox" 2>/dev/null || true
    rm -rf -- "$sandbox"
}

run_tests() {
    local name rc passed=0 failed=0 out
    out=$(mktemp)
    for name in $(compgen -A function test_); do
        # In the background, because `set -e` has no effect inside a condition.
        (
            sandbox=$(mktemp -d "${TMPDIR:-/tmp}/overstory-test.XXXXXX")
            mkdir -m 1777 "$sandbox/tmp"
            mkdir "$sandbox/links"
            export OVERSTORY_REGISTRY=$sandbox/registry TMPDIR=$sandbox/tmp root_links=$sandbox/links
            # Away from the default ports, where a real installation may be, and below the ephemeral ones.
            export port_offset=$((1000 + RANDOM % 500 * 10))
            trap tidy EXIT
            copy_tree
            "$name"
        ) >"$out" 2>&1 &
        rc=0
        wait $! || rc=$?
        if [ "$rc" = 0 ]; then
            passed=$((passed + 1))
            printf 'ok      %s\n' "$name"
        else
            failed=$((failed + 1))
            printf 'FAILED  %s (%s)\n' "$name" "$rc"
            sed 's/^/        /' "$out"
        fi
    done
    rm -f "$out"
    printf '%s passed, %s failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}
