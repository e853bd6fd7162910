# shellcheck shell=bash
# The ports of an installation: chosen once, kept in the state file, written into the configuration by `render`.

default_ports() {
    cat <<'END'
broker_port 5672
epmd_port 4370
distribution_port 25673
web_port 8082
web_admin_port 8083
collectd_admin_port 8084
engines_admin_port 8090
mongodb_port 27017
END
}

# Where the operator changes a port.
port_key() { # KEY
    case $1 in
        broker_port) echo 'port in etc/amqp.conf, listeners.tcp.1 in etc/rabbitmq/rabbitmq.conf, hyp_ready in etc/supervisord.d/rabbitmq-server.conf' ;;
        epmd_port) echo 'ERL_EPMD_PORT in etc/rabbitmq/rabbitmq-env.conf, the command of epmd in etc/supervisord.d/rabbitmq-server.conf' ;;
        distribution_port) echo 'DIST_PORT in etc/rabbitmq/rabbitmq-env.conf' ;;
        web_port) echo 'the command in etc/supervisord.d/webserver.conf' ;;
        web_admin_port) echo '[admin] listen in etc/webserver.conf, hyp_ready in etc/supervisord.d/webserver.conf' ;;
        collectd_admin_port) echo '[admin] listen in etc/collectd.conf, hyp_ready in etc/supervisord.d/collectd.conf' ;;
        engines_admin_port) echo 'admin_port in etc/engines/amqp2engines.conf, hyp_ready in etc/supervisord.d/amqp2engines.conf' ;;
        mongodb_port) echo 'port in etc/mongodb.conf, etc/secrets/mongodb-uri, hyp_ready in etc/supervisord.d/mongodb.conf' ;;
    esac
}

# The socket inodes that listen on a port, from the kernel's own tables.
listeners() { # PORT
    local hex
    hex=$(printf '%04X' "$1")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$hex" '$4 == "0A" && $2 ~ (":" port "$") { print $10 }'
}

is_taken() { # PORT
    [ -n "$(listeners "$1")" ]
}

# True when every listener on the port is a process of this prefix.
is_ours() { # PORT
    local inode pid
    for inode in $(listeners "$1"); do
        pid=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d / -f 3)
        [ -n "$pid" ] && belongs_to_prefix "$pid" || return 1
    done
}

# The engines' processes count upwards from theirs.
ports_from() { # KEY PORT
    if [ "$1" = engines_admin_port ]; then echo "$2 $(($2 + 1))"; else echo "$2"; fi
}

# What is added to every default; for installations beside each other in tests.
port_offset=${port_offset:-0}

# Chooses each port: the one of the last time, else the default, else the next that is free. One of the last time is only
# given up when somebody else listens on it.
choose_ports() {
    local key default wanted port step reason used=' '
    while read -r key default; do
        [ "$key" = mongodb_port ] && [ "$store" != mongodb ] && continue
        default=$((default + port_offset))
        wanted=$(state_get "$key")
        port=${wanted:-$default}
        step=1
        # The last digit of these is the process' number.
        [ "$key" != engines_admin_port ] || step=10
        reason=''
        until why_not "$key" "$port" "$wanted" && is_unclaimed "$key" "$port" "$used"; do
            reason=${reason:-$why}
            port=$((port + step))
            [ "$port" -lt 65535 ] || die "$exit_failed" "no free port for $key"
        done
        if [ -n "$reason" ]; then
            notice "port ${wanted:-$default} $reason: ${key//_/ } is $port"
            notice "  (to change it: $(port_key "$key"))"
        fi
        used+="$(ports_from "$key" "$port") "
        state_set "$key" "$port"
    done < <(default_ports)
}

# True when the port can be taken; otherwise `why` says what speaks against it.
why_not() { # KEY PORT WANTED
    local port other
    why=''
    for port in $(ports_from "$1" "$2"); do
        other=''
        [ "$2" = "$3" ] || other=$(chosen_by "$port")
        if [ -n "$other" ]; then
            why="belongs to the installation in $other"
            return 1
        fi
        if is_taken "$port" && ! is_ours "$port"; then
            why='is taken by something that is not ours'
            return 1
        fi
    done
}

# Neither chosen for another key in this run nor another key's default.
is_unclaimed() { # KEY PORT USED
    local key default port
    for port in $(ports_from "$1" "$2"); do
        [[ $3 != *" $port "* ]] || return 1
    done
    while read -r key default; do
        [ "$key" = "$1" ] || [[ " $(ports_from "$1" "$2") " != *" $((default + port_offset)) "* ]] || return 1
    done < <(default_ports)
}

port_of() { # KEY
    local chosen
    chosen=$(state_get "$1")
    printf '%s\n' "${chosen:-$(default_ports | sed -n "s/^$1 //p")}"
}
