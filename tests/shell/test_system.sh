#!/usr/bin/env bash
# What the machine must have, and how Debian's packages are installed without starting their services.
# shellcheck source=tests/shell/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# A directory with the commands of the system but the named ones.
path_without() { # NAME...
    local command dir=$sandbox/path
    mkdir -p "$dir"
    for command in /usr/bin/* /usr/sbin/*; do
        [[ " $* " == *" ${command##*/} "* ]] || ln -sf "$command" "$dir/${command##*/}"
    done
    printf '%s\n' "$dir"
}

# As somebody who is not root.
unprivileged() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid nobody --regid nogroup --clear-groups "$@"
    else
        "$@"
    fi
}

test_without_root_the_command_for_the_missing_packages_is_printed() {
    local path
    path=$(path_without supervisord)
    run unprivileged env HOME=/nonexistent PATH="$path" broker_program=/nonexistent \
        "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --executable "$stand_in"
    assert_equal 3 "$code"
    assert_contains "$output" 'apt-get install --no-install-recommends -y rabbitmq-server supervisor'
    assert_absent "$sandbox/p"
}

test_no_deps_checks_and_installs_nothing() {
    run env broker_program=/nonexistent "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --executable "$stand_in" --no-deps
    assert_equal 3 "$code"
    assert_contains "$output" 'missing: rabbitmq-server'
    assert_absent "$sandbox/p"
}

test_without_rust_it_says_how_to_get_it() {
    local path
    path=$(path_without rustc cargo rustup)
    run env HOME="$sandbox" PATH="$path" "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --no-deps
    assert_equal 3 "$code"
    assert_contains "$output" 'rustc 1.95 or newer (found: none)'
    assert_contains "$output" 'https://sh.rustup.rs'
    assert_absent "$sandbox/p"
}

test_an_old_rust_is_not_enough() {
    local path
    path=$(path_without rustc cargo rustup)
    printf '#!/bin/sh\necho "rustc 1.63.0 (Debian)"\n' >"$path/rustc"
    cp "$path/rustc" "$path/cargo"
    chmod +x "$path/rustc" "$path/cargo"
    run env HOME="$sandbox" PATH="$path" "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --no-deps
    assert_equal 3 "$code"
    assert_contains "$output" 'found: 1.63.0'
}

test_mongodb_without_a_server_is_said_plainly() {
    local path
    path=$(path_without mongod)
    run env PATH="$path" "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --executable "$stand_in" --no-deps --store mongodb
    assert_equal 3 "$code"
    assert_contains "$output" 'there is no mongod on this machine'
    assert_contains "$output" 'etc/secrets/mongodb-uri'
    assert_absent "$sandbox/p"
}

test_mongodb_is_a_service_when_chosen_and_stays_chosen() {
    local path
    path=$(path_without mongod)
    printf '#!/bin/sh\n' >"$path/mongod"
    # shellcheck disable=SC2016 # for the script that is written
    printf '#!/bin/sh\necho "$@" >>"$HOME/var/lib/shell-calls"\n' >"$path/mongosh"
    chmod +x "$path/mongod" "$path/mongosh"
    run env PATH="$path" "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --executable "$stand_in" --no-deps --store mongodb
    [ "$code" = 0 ] || fail "ended with $code: $output"
    assert_file "$sandbox/p/etc/supervisord.d/mongodb.conf"
    assert_contains "$(cat "$sandbox/p/var/lib/shell-calls")" 'rs.initiate'
    assert_contains "$(cat "$sandbox/p/etc/secrets/mongodb-uri")" 'replicaSet=overstory'
    assert_contains "$(cat "$sandbox/p/etc/hypcontrol.conf")" '["rabbitmq-server", "mongodb"]'
    assert_contains "$(cat "$sandbox/p/etc/store.conf")" 'kind = "mongodb"'
    assert_equal 600 "$(stat -c %a "$sandbox/p/etc/secrets/mongodb-uri")" 'mode of the address'
    run env PATH="$path" "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --executable "$stand_in" --no-deps
    assert_contains "$(cat "$sandbox/p/etc/store.conf")" 'kind = "mongodb"'
    assert_lacks "$output" 'kept'
}

# An apt-get that asks the policy as Debian's packages do, and notes what it was told.
with_fake_apt() { # BODY
    mkdir -p "$sandbox/bin"
    # shellcheck disable=SC2016 # for the script that is written
    printf '#!/bin/bash\n[ "$1" = install ] || exit 0\n%s\n' "$1" >"$sandbox/bin/apt-get"
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "systemctl $*" >>"%s/calls"\n' "$sandbox" | tee "$sandbox/bin/systemctl" >"$sandbox/bin/update-rc.d"
    chmod +x "$sandbox"/bin/*
    PATH=$sandbox/bin:$PATH
    policy_file=$sandbox/policy-rc.d
    work=$sandbox
    # shellcheck source=packages/lib/common.sh
    . "$sandbox/tree/packages/lib/common.sh"
    # shellcheck source=packages/lib/system.sh
    . "$sandbox/tree/packages/lib/system.sh"
}

test_apt_may_not_start_the_broker_and_the_policy_goes_again() {
    with_fake_apt "'$sandbox/policy-rc.d' rabbitmq-server start; echo \"broker \$?\" >>'$sandbox/calls'
        '$sandbox/policy-rc.d' cron start; echo \"cron \$?\" >>'$sandbox/calls'"
    (install_packages rabbitmq-server)
    assert_contains "$(cat "$sandbox/calls")" 'broker 101'
    assert_contains "$(cat "$sandbox/calls")" 'cron 0'
    assert_contains "$(cat "$sandbox/calls")" 'systemctl disable rabbitmq-server.service'
    assert_absent "$sandbox/policy-rc.d"
}

test_a_policy_that_was_there_stays_and_is_asked_for_the_others() {
    with_fake_apt "'$sandbox/policy-rc.d' rabbitmq-server start; echo \"broker \$?\" >>'$sandbox/calls'
        '$sandbox/policy-rc.d' cron start; echo \"cron \$?\" >>'$sandbox/calls'"
    printf '#!/bin/sh\nexit 104\n' >"$sandbox/policy-rc.d"
    chmod +x "$sandbox/policy-rc.d"
    (install_packages rabbitmq-server)
    assert_contains "$(cat "$sandbox/calls")" 'broker 101'
    assert_contains "$(cat "$sandbox/calls")" 'cron 104'
    assert_equal $'#!/bin/sh\nexit 104' "$(cat "$sandbox/policy-rc.d")" 'policy'
}

test_the_policy_goes_again_when_apt_fails() {
    with_fake_apt 'exit 100'
    (install_packages rabbitmq-server) &
    ! wait $! || fail 'the failure was not reported'
    assert_absent "$sandbox/policy-rc.d"
}

test_the_policy_that_was_there_is_back_after_an_interruption() {
    with_fake_apt "touch '$sandbox/under-way'; sleep 100 & wait"
    printf '#!/bin/sh\nexit 104\n' >"$sandbox/policy-rc.d"
    set -m
    (install_packages rabbitmq-server) &
    local pid=$!
    set +m
    wait_for test -e "$sandbox/under-way"
    kill -TERM -- "-$pid"
    ! wait "$pid" || fail 'the interruption was not reported'
    assert_equal $'#!/bin/sh\nexit 104' "$(cat "$sandbox/policy-rc.d")" 'policy'
}

test_a_policy_left_by_a_killed_run_is_put_right_by_the_next() {
    with_fake_apt 'exit 0'
    printf '#!/bin/sh\nexit 104\n' >"$sandbox/policy-rc.d"
    forbid_service_starts
    (install_packages rabbitmq-server)
    assert_equal $'#!/bin/sh\nexit 104' "$(cat "$sandbox/policy-rc.d")" 'policy'
}

test_the_counts_of_all_test_runners_are_added_up() {
    # shellcheck source=packages/lib/test.sh
    . "$sandbox/tree/packages/lib/test.sh"
    local text='     Summary [   3.123s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 0 skipped
test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
7 passed, 1 failed
a line that says 100 passed and 100 failed'
    assert_equal '25 5' "$(summarise <<<"$text")" 'counts'
}

run_tests
