# shellcheck shell=bash
# Instances that `overstory add` set up, when what runs them is uninstalled and installed again.

# shellcheck source=tests/shell/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# An instance as `overstory add dht NAME` leaves it.
add_instance() { # PREFIX NAME
    local dir=$1/srv/dht-$2
    mkdir -p "$dir/etc" "$dir/data"
    echo 'records' >"$dir/data/channel.tcm"
    printf '; Made by overstory add\n[program:dht-%s]\ncommand=/bin/true\n' "$2" >"$1/etc/supervisord.d/dht-$2.conf"
    printf '127.0.0.1:21000\n' >"$1/etc/nodes/dht.nodes"
    [ "$(id -u)" != 0 ] || chown -R "$(stat -c %U "$1")" "$1/srv" "$1/etc/supervisord.d"
}

uninstall() { # PREFIX OPTION...
    run "$sandbox/tree/build-install.sh" --prefix "$1" --uninstall "${@:2}"
    assert_equal 0 "$code"
}

test_instances_are_kept_by_an_uninstall_and_run_again_after_an_install() {
    local p=$sandbox/p was
    installed "$p"
    add_instance "$p" a
    was=$(cat "$p/etc/supervisord.d/dht-a.conf")
    uninstall "$p"
    assert_contains "$output" 'kept srv/dht-a'
    assert_contains "$output" "$p/srv; --uninstall --purge removes it"
    assert_absent "$p/etc/supervisord.d"
    assert_absent "$p/bin"
    assert_equal records "$(cat "$p/srv/dht-a/data/channel.tcm")"
    installed "$p"
    assert_equal "$was" "$(cat "$p/etc/supervisord.d/dht-a.conf")" 'the program file'
    assert_absent "$p/srv/dht-a/etc/program.conf"
    assert_equal records "$(cat "$p/srv/dht-a/data/channel.tcm")"
    assert_equal 127.0.0.1:21000 "$(cat "$p/etc/nodes/dht.nodes")"
}

test_an_install_over_an_installation_leaves_instances_alone() {
    local p=$sandbox/p
    installed "$p"
    add_instance "$p" a
    installed "$p"
    assert_file "$p/etc/supervisord.d/dht-a.conf"
    assert_equal records "$(cat "$p/srv/dht-a/data/channel.tcm")"
    assert_lacks "$output" dht-a
}

test_without_instances_nothing_of_them_is_left() {
    local p=$sandbox/p
    installed "$p"
    for program in dhtnode dhtdump tcmcli dhtredist swarm; do
        assert_equal overstory "$(readlink "$p/bin/$program")"
    done
    uninstall "$p"
    assert_absent "$p/srv"
    assert_absent "$p/etc/dht"
    assert_absent "$p/etc/nodes"
    assert_lacks "$output" /srv
}

test_a_purge_takes_the_instances_along() {
    local p=$sandbox/p
    installed "$p"
    add_instance "$p" a
    uninstall "$p" --only dht --purge
    assert_absent "$p/srv"
    assert_absent "$p/etc/nodes"
    assert_absent "$p/etc/supervisord.d/dht-a.conf"
    assert_file "$p/etc/supervisord.d/webserver.conf"
    installed "$p"
    add_instance "$p" b
    uninstall "$p" --purge
    assert_absent "$p"
}

run_tests
