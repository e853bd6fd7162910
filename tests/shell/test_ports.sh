#!/usr/bin/env bash
# The choice of ports, so that installations stand side by side with each other and with what was there before.
# shellcheck source=tests/shell/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

state_of() { # PREFIX KEY
    sed -n "s/^$2=//p" "$1/var/lib/packages/state"
}

# Listens on a port, with one variable in its environment, and returns once it does.
listen_on() { # PORT [VARIABLE]
    # shellcheck disable=SC2016 # Perl's variables
    env -i "${2:-NOTHING=}" perl -MIO::Socket::INET -e '
        my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1)
            or die "port $ARGV[0]: $!";
        sleep 100' "$1" &
    wait_for grep -qi ":$(printf '%04X' "$1") 00000000:0000 0A" /proc/net/tcp
}

test_a_taken_port_is_avoided_everywhere_and_said() {
    installed "$sandbox/a"
    local broker web engines
    broker=$(state_of "$sandbox/a" broker_port)
    web=$(state_of "$sandbox/a" web_port)
    engines=$(state_of "$sandbox/a" engines_admin_port)
    listen_on "$broker"
    listen_on "$web"
    listen_on $((engines + 1))
    # As if they were somebody else's.
    rm "$OVERSTORY_REGISTRY"/*
    installed "$sandbox/b"
    assert_contains "$output" "port $broker is taken by something that is not ours"
    assert_contains "$output" 'listeners.tcp.1 in etc/rabbitmq/rabbitmq.conf'
    local b=$sandbox/b new
    new=$(state_of "$b" broker_port)
    [ "$new" != "$broker" ] || fail 'the same broker port'
    assert_contains "$(cat "$b/etc/amqp.conf")" "port = $new"
    assert_contains "$(cat "$b/etc/rabbitmq/rabbitmq.conf")" "listeners.tcp.1 = 127.0.0.1:$new"
    assert_contains "$(cat "$b/etc/supervisord.d/rabbitmq-server.conf")" "hyp_ready=amqp:127.0.0.1:$new"
    new=$(state_of "$b" web_port)
    [ "$new" != "$web" ] || fail 'the same web port'
    assert_contains "$(cat "$b/etc/supervisord.d/webserver.conf")" "--listen 127.0.0.1:$new"
    assert_contains "$output" "http://127.0.0.1:$new/"
    new=$(state_of "$b" engines_admin_port)
    assert_equal 0 $((new % 10)) 'last digit of the engines'\'' port'
    assert_contains "$(cat "$b/etc/supervisord.d/amqp2engines.conf")" "127.0.0.1:${new%0}%(process_num)d/readyz"
    run grep -rnE "\\b($broker|$web)\\b" "$b/etc"
    assert_equal '' "$output" 'places with the taken ports'
    # Chosen ports stay, also when nothing listens on the others any more.
    local chosen
    chosen=$(grep _port "$b/var/lib/packages/state" | sort)
    for pid in $(jobs -p); do kill "$pid"; done
    installed "$b"
    assert_lacks "$output" 'belongs'
    assert_equal "$chosen" "$(grep _port "$b/var/lib/packages/state" | sort)" 'ports after running again'
    assert_lacks "$output" 'taken'
}

test_a_port_that_we_listen_on_is_ours() {
    installed "$sandbox/a"
    local web
    web=$(state_of "$sandbox/a" web_port)
    listen_on "$web" "SUPERVISOR_SERVER_URL=unix://$sandbox/a/var/run/supervisor.sock"
    installed "$sandbox/a"
    assert_equal "$web" "$(state_of "$sandbox/a" web_port)" 'port'
    assert_lacks "$output" 'taken'
}

test_installations_that_are_stopped_keep_their_ports() {
    installed "$sandbox/a"
    local web
    web=$(state_of "$sandbox/a" web_port)
    installed "$sandbox/b"
    assert_contains "$output" "port $web belongs to the installation in $sandbox/a"
    run comm -12 <(grep -o '=[0-9]*$' "$sandbox/a/var/lib/packages/state" | grep -v '=1$' | sort) \
        <(grep -o '=[0-9]*$' "$sandbox/b/var/lib/packages/state" | sort)
    assert_equal '' "$output" 'ports that both have'
    # Gone with its prefix, an installation claims nothing any more.
    rm -rf "$sandbox/a"
    installed "$sandbox/c"
    assert_equal "$web" "$(state_of "$sandbox/c" web_port)" 'port of the next one'
}

test_no_two_services_get_one_port() {
    installed "$sandbox/a"
    # The next free one after the web server's port would be its own admin port.
    listen_on "$(state_of "$sandbox/a" web_port)"
    installed "$sandbox/b"
    local ports
    ports=$(sed -n 's/^.*_port=//p' "$sandbox/b/var/lib/packages/state" | sort)
    assert_equal "$ports" "$(sort -u <<<"$ports")" 'ports'
}

run_tests
