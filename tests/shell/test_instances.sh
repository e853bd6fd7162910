# shellcheck shell=bash
# Instances that `overstory add` set up, when what runs them is uninstalled and installed again.

# shellcheck source=tests/shell/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

# An instance as `overstory add KIND NAME` leaves it.
add_instance() { # PREFIX KIND NAME
    local dir=$1/srv/$2-$3
    mkdir -p "$dir/etc" "$dir/data"
    echo 'records' >"$dir/data/channel.tcm"
    printf '; Made by overstory add\n[program:%s]\ncommand=/bin/true\n' "$2-$3" >"$1/etc/supervisord.d/$2-$3.conf"
    printf '127.0.0.1:21000 # %s\n' "$2-$3" | tee "$1/etc/nodes/$2.nodes" >"$1/etc/nodes/$2.legacy.nodes"
    printf 'admin:00\n' >"$1/etc/secrets/$2.credentials"
    [ "$(id -u)" != 0 ] || chown -R "$(stat -c %U "$1")" "$1/srv" "$1/etc/supervisord.d"
}

uninstall() { # PREFIX OPTION...
    run "$sandbox/tree/build-install.sh" --prefix "$1" --uninstall "${@:2}"
    assert_equal 0 "$code"
}

test_instances_are_kept_by_an_uninstall_and_run_again_after_an_install() {
    local p=$sandbox/p was
    installed "$p"
    add_instance "$p" dht a
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
    assert_equal '127.0.0.1:21000 # dht-a' "$(cat "$p/etc/nodes/dht.nodes")"
}

test_instances_of_every_kind_are_kept_and_run_again() {
    local p=$sandbox/p kind
    installed "$p"
    for kind in dht dmq logfiles queue; do add_instance "$p" "$kind" a; done
    uninstall "$p"
    for kind in dht dmq logfiles queue; do
        assert_contains "$output" "kept srv/$kind-a"
        assert_file "$p/srv/$kind-a/etc/program.conf"
    done
    installed "$p"
    for kind in dht dmq logfiles queue; do
        assert_file "$p/etc/supervisord.d/$kind-a.conf"
        assert_equal records "$(cat "$p/srv/$kind-a/data/channel.tcm")"
    done
}

test_an_install_over_an_installation_leaves_instances_alone() {
    local p=$sandbox/p
    installed "$p"
    add_instance "$p" dht a
    installed "$p"
    assert_file "$p/etc/supervisord.d/dht-a.conf"
    assert_equal records "$(cat "$p/srv/dht-a/data/channel.tcm")"
    assert_lacks "$output" dht-a
}

test_without_instances_nothing_of_them_is_left() {
    local p=$sandbox/p
    installed "$p"
    for program in dhtnode dhtdump tcmcli dhtredist dmqnode queuenode logfilesnode logfiles_check swarm; do
        assert_equal overstory "$(readlink "$p/bin/$program")"
    done
    uninstall "$p"
    assert_absent "$p/srv"
    assert_absent "$p/etc/dht"
    assert_absent "$p/etc/dmq"
    assert_absent "$p/etc/logfiles"
    assert_absent "$p/etc/queue"
    assert_absent "$p/etc/nodes"
    assert_lacks "$output" /srv
}

test_a_purge_takes_the_instances_along() {
    local p=$sandbox/p
    installed "$p"
    add_instance "$p" dht a
    uninstall "$p" --only dht --purge
    assert_absent "$p/srv"
    assert_absent "$p/etc/nodes"
    assert_absent "$p/etc/supervisord.d/dht-a.conf"
    assert_file "$p/etc/supervisord.d/webserver.conf"
    installed "$p"
    add_instance "$p" queue b
    uninstall "$p" --purge
    assert_absent "$p"
}

test_a_purge_of_one_package_leaves_what_others_have() {
    local p=$sandbox/p
    installed "$p"
    add_instance "$p" dht a
    add_instance "$p" dmq a
    add_instance "$p" logfiles a
    add_instance "$p" queue b
    uninstall "$p" --only dht --purge
    assert_absent "$p/srv/dht-a"
    assert_absent "$p/etc/nodes/dht.nodes"
    assert_absent "$p/etc/secrets/dht.credentials"
    assert_absent "$p/bin/dhtnode"
    for kind in dmq logfiles queue; do
        assert_file "$p/etc/nodes/$kind.nodes"
        assert_file "$p/etc/nodes/$kind.legacy.nodes"
        assert_file "$p/etc/secrets/$kind.credentials"
    done
    assert_file "$p/srv/dmq-a/data/channel.tcm"
    assert_equal overstory "$(readlink "$p/bin/swarm")" 'the client of all'
    uninstall "$p" --only dmq --purge
    assert_file "$p/srv/logfiles-a/data/channel.tcm"
    assert_file "$p/etc/nodes/logfiles.nodes"
    assert_equal overstory "$(readlink "$p/bin/swarm")" 'the client of the other'
    uninstall "$p" --only logfiles --purge
    assert_absent "$p/srv"
    assert_absent "$p/bin/swarm"
    assert_absent "$p/etc/nodes"
    assert_absent "$p/etc/secrets/queue.credentials"
}

run_tests
