#!/usr/bin/env bash
# Installing, updating and removing, with a stand-in for the executable.
# shellcheck source=tests/shell/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

test_help_names_every_option() {
    local option
    run "$sandbox/tree/build-install.sh" --help
    assert_equal 0 "$code"
    for option in --prefix --start --test --uninstall --purge --no-deps --debug --package --store --only --long --yes; do
        assert_contains "$output" "$option"
    done
}

test_an_unknown_option_is_wrong_usage() {
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --frobnicate
    assert_equal 2 "$code"
    assert_contains "$output" 'unknown option --frobnicate'
    assert_contains "$output" '--help'
    assert_equal 1 "$(wc -l <<<"$output")" 'lines'
    assert_absent "$sandbox/p"
}

test_wrong_values_are_wrong_usage() {
    install_at "$sandbox/p" --store redis
    assert_equal 2 "$code"
    install_at "$sandbox/p" --only nothing
    assert_equal 2 "$code"
    assert_contains "$output" 'rabbitmq-server'
    install_at "$sandbox/p" --purge
    assert_equal 2 "$code"
    run "$sandbox/tree/build-install.sh" --prefix
    assert_equal 2 "$code"
}

test_actions_that_contradict_each_other_are_wrong_usage() {
    local options
    for options in '--uninstall --start' '--start --uninstall' '--uninstall --package' '--package --uninstall' \
        '--uninstall --test' '--test --package' '--test --start' '--package --start'; do
        # shellcheck disable=SC2086 # several options
        install_at "$sandbox/p" $options
        assert_equal 2 "$code" "$options"
        assert_absent "$sandbox/p"
    done
}

test_the_root_is_no_place_for_a_prefix() {
    install_at /
    assert_equal 4 "$code"
    assert_contains "$output" '/ is not a place for an installation'
}

test_a_fresh_prefix_has_everything_and_says_where() {
    installed "$sandbox/p" --start
    assert_contains "$output" "Overstory "
    assert_contains "$output" 'http://127.0.0.1:'
    assert_contains "$output" 'a-password'
    assert_contains "$output" 'hypcontrol stop'
    local name
    for name in hypcontrol service send_event amqp2tty collectd amqp2engines webserver; do
        assert_equal overstory "$(readlink "$sandbox/p/bin/$name")" "the link $name"
    done
    for name in home supervisord rabbitmq-server tools collectd amqp2engines webserver; do
        assert_file "$sandbox/p/var/lib/packages/$name.info"
        assert_file "$sandbox/p/var/lib/packages/$name.files"
    done
    assert_absent "$sandbox/p/var/lib/packages/mongodb.info"
    assert_equal 600 "$(stat -c %a "$sandbox/p/etc/secrets/amqp")" 'mode of the secret'
    assert_equal 600 "$(stat -c %a "$sandbox/p/etc/initial-admin-password")" 'mode of the password'
    assert_equal 700 "$(stat -c %a "$sandbox/p/etc/secrets")" 'mode of the secrets'
    [ "$(tr -d '\n' <"$sandbox/p/etc/secrets/amqp" | wc -c)" -ge 32 ] || fail 'a short secret'
    assert_equal start "$(cat "$sandbox/p/var/lib/calls")" 'calls of hypcontrol'
    run grep -rl '@[A-Z_]*@' "$sandbox/p/etc"
    assert_equal '' "$output" 'files with marks left in them'
    if [ "$(id -u)" = 0 ]; then
        run find "$sandbox/p" ! -user "$test_user"
        assert_equal '' "$output" 'files of another user'
    fi
}

test_the_password_is_printed_once_and_is_in_no_log() {
    installed "$sandbox/p"
    assert_contains "$output" 'a-password'
    run grep -r 'a-password' "$sandbox/p/var"
    assert_equal '' "$output" 'files with the password'
    installed "$sandbox/p"
    assert_lacks "$output" 'a-password'
    assert_contains "$output" 'initial-admin-password'
}

test_the_brokers_hash_is_that_of_its_documentation() {
    # shellcheck source=packages/lib/secrets.sh
    . "$sandbox/tree/packages/lib/secrets.sh"
    local hash=kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR
    assert_equal "$hash" "$(broker_hash test12 908dc60a)" 'hash'
    broker_hash_matches "$hash" test12 || fail 'the right password does not match'
    ! broker_hash_matches "$hash" test13 || fail 'a wrong password matches'
    ! broker_hash_matches '' test12 || fail 'no hash matches'
}

test_running_again_changes_nothing() {
    installed "$sandbox/p"
    local before
    before=$(cd "$sandbox/p" && find bin etc -type f -exec sha256sum {} + | sort)
    installed "$sandbox/p" --start
    assert_equal "$before" "$(cd "$sandbox/p" && find bin etc -type f -exec sha256sum {} + | sort)" 'files'
    assert_lacks "$output" 'kept'
}

test_changed_configuration_is_kept_and_the_new_one_laid_beside() {
    installed "$sandbox/p"
    echo '# mine' >>"$sandbox/p/etc/amqp.conf"
    echo '# of the next version' >>"$sandbox/tree/etc/amqp.conf"
    echo '# of the next version' >>"$sandbox/tree/etc/rabbitmq/rabbitmq.conf"
    installed "$sandbox/p"
    assert_contains "$output" 'kept etc/amqp.conf, which was changed here; the new one is etc/amqp.conf.new'
    assert_contains "$(cat "$sandbox/p/etc/amqp.conf")" '# mine'
    assert_contains "$(cat "$sandbox/p/etc/amqp.conf.new")" '# of the next version'
    assert_contains "$(cat "$sandbox/p/etc/rabbitmq/rabbitmq.conf")" '# of the next version'
    assert_absent "$sandbox/p/etc/rabbitmq/rabbitmq.conf.new"
    # Taken over by the operator, it is an unchanged file again.
    mv "$sandbox/p/etc/amqp.conf.new" "$sandbox/p/etc/amqp.conf"
    echo '# of the version after' >>"$sandbox/tree/etc/amqp.conf"
    installed "$sandbox/p"
    assert_lacks "$output" 'kept'
    assert_contains "$(cat "$sandbox/p/etc/amqp.conf")" '# of the version after'
}

test_a_file_that_a_new_version_no_longer_has_is_removed() {
    echo '# an engine' >"$sandbox/tree/etc/engines/gone.conf"
    installed "$sandbox/p"
    assert_file "$sandbox/p/etc/engines/gone.conf"
    rm "$sandbox/tree/etc/engines/gone.conf"
    installed "$sandbox/p"
    assert_absent "$sandbox/p/etc/engines/gone.conf"
}

test_the_brokers_definitions_follow_the_password() {
    installed "$sandbox/p"
    local before
    before=$(cat "$sandbox/p/etc/rabbitmq/definitions.json")
    installed "$sandbox/p"
    assert_equal "$before" "$(cat "$sandbox/p/etc/rabbitmq/definitions.json")" definitions
    echo 'another-password-of-the-operators-own' >"$sandbox/p/etc/secrets/amqp"
    installed "$sandbox/p"
    [ "$before" != "$(cat "$sandbox/p/etc/rabbitmq/definitions.json")" ] || fail 'the definitions hold the old password'
}

test_a_prefix_that_is_not_ours_is_refused() {
    mkdir "$sandbox/p"
    touch "$sandbox/p/photo.jpg"
    install_at "$sandbox/p"
    assert_equal 4 "$code"
    assert_equal photo.jpg "$(ls "$sandbox/p")"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall --purge
    assert_equal 4 "$code"
    assert_file "$sandbox/p/photo.jpg"
    install_at "$sandbox/tree"
    assert_equal 4 "$code"
    assert_contains "$output" 'source tree'
    install_at "$sandbox/with space"
    assert_equal 4 "$code"
}

test_uninstall_keeps_data_and_changed_configuration() {
    installed "$sandbox/p"
    echo 'rows' >"$sandbox/p/var/lib/store/engines.db"
    echo '# mine' >>"$sandbox/p/etc/amqp.conf"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall
    assert_equal 0 "$code"
    assert_contains "$output" 'kept etc/amqp.conf'
    assert_file "$sandbox/p/var/lib/store/engines.db"
    assert_file "$sandbox/p/etc/amqp.conf"
    assert_file "$sandbox/p/etc/secrets/amqp"
    assert_absent "$sandbox/p/bin"
    assert_absent "$sandbox/p/etc/supervisord.conf"
    assert_absent "$sandbox/p/etc/supervisord.d"
    local secret
    secret=$(cat "$sandbox/p/etc/secrets/amqp")
    installed "$sandbox/p"
    assert_equal "$secret" "$(cat "$sandbox/p/etc/secrets/amqp")" 'the secret after a new installation'
    assert_file "$sandbox/p/var/lib/store/engines.db"
}

test_root_finds_two_commands_in_its_path_and_loses_none() {
    installed "$sandbox/p"
    if [ "$(id -u)" != 0 ]; then
        assert_equal '' "$(ls "$sandbox/links")" 'links made without root'
        return
    fi
    assert_equal $'hypcontrol\noverstory' "$(ls "$sandbox/links")" 'links'
    assert_equal "$sandbox/p/bin/hypcontrol" "$(readlink "$sandbox/links/hypcontrol")" 'link'
    assert_equal root "$(stat -c %U "$sandbox/links/hypcontrol")" 'owner of the link'
    assert_contains "$output" "  hypcontrol stop"
    installed "$sandbox/q"
    assert_contains "$output" "left $sandbox/links/hypcontrol alone"
    assert_contains "$output" "$sandbox/q/bin/hypcontrol stop"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/q" --uninstall
    assert_equal "$sandbox/p/bin/hypcontrol" "$(readlink "$sandbox/links/hypcontrol")" 'link of the other'
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall
    assert_equal '' "$(ls "$sandbox/links")" 'links left'
}

test_purge_leaves_nothing() {
    installed "$sandbox/p"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall --purge
    assert_equal 0 "$code"
    assert_lacks "$output" 'kept etc'
    assert_absent "$sandbox/p"
    ! getent passwd "$test_user" >/dev/null || fail 'the user it made is still there'
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall
    assert_equal 0 "$code"
    assert_contains "$output" 'Nothing is installed'
}

test_the_system_user_goes_with_its_last_installation() {
    installed "$sandbox/a"
    if [ "$(id -u)" != 0 ]; then
        ! getent passwd "$test_user" >/dev/null || fail 'a user was made without root'
        return
    fi
    installed "$sandbox/b"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/a" --uninstall --purge
    getent passwd "$test_user" >/dev/null || fail 'the other installation lost its user'
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/b" --uninstall --purge
    assert_contains "$output" "removed the user $test_user"
    ! getent passwd "$test_user" >/dev/null || fail 'the user is still there'
    assert_absent "$OVERSTORY_REGISTRY"
}

test_uninstall_ends_only_the_processes_of_its_prefix() {
    installed "$sandbox/p"
    env -i SUPERVISOR_SERVER_URL="unix://$sandbox/p/var/run/supervisor.sock" sleep 100 &
    local ours=$!
    env -i SUPERVISOR_SERVER_URL="unix://$sandbox/other/var/run/supervisor.sock" sleep 100 &
    local others=$!
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall
    assert_equal 0 "$code"
    assert_equal stop "$(cat "$sandbox/p/var/lib/calls")" 'calls of hypcontrol'
    # A process that was ended is still there as a zombie of this shell until it is waited for.
    [ "$(ps -o stat= -p "$ours" | cut -c 1)" != S ] || fail 'a process of the prefix still runs'
    kill -0 "$others" || fail 'a process of another prefix was ended'
}

test_one_package_alone() {
    install_at "$sandbox/p" --only webserver
    assert_equal 1 "$code"
    assert_contains "$output" 'requires'
    installed "$sandbox/p"
    rm "$sandbox/p/etc/webserver.conf" "$sandbox/p/etc/collectd.conf"
    installed "$sandbox/p" --only webserver
    assert_file "$sandbox/p/etc/webserver.conf"
    assert_absent "$sandbox/p/etc/collectd.conf"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall --only tools
    assert_equal 1 "$code"
    run "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --uninstall --only webserver
    assert_equal 0 "$code"
    assert_absent "$sandbox/p/etc/supervisord.d/webserver.conf"
    assert_file "$sandbox/p/etc/supervisord.d/collectd.conf"
}

test_packages_in_a_circle_are_named() {
    sed -i "s/^REQUIRES=.*/REQUIRES='webserver'/" "$sandbox/tree/packages/home.sh"
    install_at "$sandbox/p"
    assert_equal 1 "$code"
    assert_contains "$output" 'circle'
    assert_contains "$output" 'webserver -> home'
    assert_absent "$sandbox/p"
}

test_a_failed_step_names_its_log_and_shows_its_end() {
    installed "$sandbox/p"
    touch "$sandbox/p/var/lib/fail"
    install_at "$sandbox/p" --start
    assert_equal 1 "$code"
    assert_contains "$output" 'rabbitmq-server did not become ready'
    local log
    log=$(sed -n 's/^The last lines of \(.*\):$/\1/p' <<<"$output")
    assert_file "$log"
    rm "$log"
}

test_an_installation_that_was_killed_is_completed_by_the_next() {
    installed "$sandbox/p"
    mkfifo "$sandbox/p/var/lib/hold"
    chmod a+rw "$sandbox/p/var/lib/hold"
    "$sandbox/tree/build-install.sh" --prefix "$sandbox/p" --executable "$stand_in" --no-deps >"$sandbox/out" 2>&1 </dev/null &
    local first=$!
    wait_for grep -q provision "$sandbox/out"
    # Two at once would mix their files.
    install_at "$sandbox/p"
    assert_equal 4 "$code"
    assert_contains "$output" 'at work'
    kill -KILL "$first"
    wait "$first" || true
    echo >"$sandbox/p/var/lib/hold"
    rm "$sandbox/p/var/lib/hold" "$sandbox/p/bin/hypcontrol" "$sandbox/p/var/lib/packages/tools.files"
    installed "$sandbox/p" --start
    assert_file "$sandbox/p/bin/hypcontrol"
}

test_a_package_installs_without_a_compiler() {
    mkdir "$sandbox/out" "$sandbox/elsewhere" "$sandbox/path"
    cd "$sandbox/out"
    run "$sandbox/tree/build-install.sh" --package --executable "$stand_in" --no-deps
    assert_equal 0 "$code"
    local archive
    archive=$(echo overstory-*.tar.zst)
    assert_file "$archive"
    tar -C "$sandbox/elsewhere" -xf "$archive"
    # A directory of commands without compilers; the shell's own are found by their links.
    local command
    for command in /usr/bin/* /usr/sbin/*; do
        case ${command##*/} in cargo | rustc | cc | gcc*) ;; *) ln -sf "$command" "$sandbox/path/${command##*/}" ;; esac
    done
    run env PATH="$sandbox/path" "$sandbox/elsewhere/${archive%.tar.zst}/install.sh" --prefix "$sandbox/p" --no-deps --start
    [ "$code" = 0 ] || fail "the package ended with $code: $output"
    assert_equal start "$(cat "$sandbox/p/var/lib/calls")"
    cmp "$stand_in" "$sandbox/p/bin/overstory"
    run "$sandbox/elsewhere/${archive%.tar.zst}/install.sh" --test
    assert_equal 2 "$code"
}

run_tests
