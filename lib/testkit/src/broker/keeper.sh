#!/bin/bash
# Keeps one RabbitMQ in the directory $1 for tests, and takes everything away when nobody needs it any more.
#
# leases/PID  a test process that uses it; holds the pid of what runs the tests, or nothing
# wanted      `up` or `down`: whether the broker is to run
# beam.pid    the broker's pid while it runs
# $2          the lock under which leases are taken
set -u
dir=$1 lock=$2 amqp_port=$3 epmd_port=$4 dist_port=$5
# Without tests, but with something that runs tests alive, the broker stays for so many half seconds.
idle_limit=360

export HOME=$dir/lib LANG=C.UTF-8
export ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP_SECONDS=0
export RABBITMQ_NODENAME=t$amqp_port@localhost RABBITMQ_USE_LONGNAME=false RABBITMQ_DIST_PORT=$dist_port
export RABBITMQ_CONF_ENV_FILE=$dir/etc/env.conf RABBITMQ_CONFIG_FILE=$dir/etc/rabbitmq.conf
export RABBITMQ_ADVANCED_CONFIG_FILE=$dir/etc/advanced.config
export RABBITMQ_ENABLED_PLUGINS_FILE=$dir/etc/enabled_plugins
export RABBITMQ_MNESIA_BASE=$dir/lib/mnesia RABBITMQ_GENERATED_CONFIG_DIR=$dir/lib/config
export RABBITMQ_LOG_BASE=$dir/log RABBITMQ_PID_FILE=$dir/lib/pid
# No busy waiting of idle schedulers: the tests want the processors.
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
export RUNNING_UNDER_SYSTEMD=true
cd "$dir" || exit 1

epmd -port "$epmd_port" -address 127.0.0.1 >log/epmd 2>&1 9>&- &
epmd=$!
beam=

start() {
    /usr/lib/rabbitmq/bin/rabbitmq-server >>log/out 2>&1 9>&- &
    beam=$!
    echo "$beam" >beam.pid.new
    mv beam.pid.new beam.pid
}

finish() {
    trap - EXIT
    # Nothing in it is worth a clean stop.
    [ -z "$beam" ] || kill -9 "$beam" 2>/dev/null
    kill "$epmd" 2>/dev/null
    wait 2>/dev/null
    cd / && rm -rf "$dir"
    exit 0
}
trap finish TERM EXIT

# Sets `users` and `runners` to the number of those alive.
count() {
    users=0 runners=0
    local lease pid runner
    for lease in leases/*; do
        [ -e "$lease" ] || continue
        pid=${lease#leases/}
        runner=$(cat "$lease" 2>/dev/null)
        if [ -n "$runner" ] && [ -d "/proc/$runner" ]; then runners=1; fi
        if [ -d "/proc/$pid" ]; then
            users=1
        elif [ -z "$runner" ] || [ ! -d "/proc/$runner" ]; then
            rm -f "$lease"
        fi
    done
}

idle=0
while :; do
    if [ -n "$beam" ] && ! kill -0 "$beam" 2>/dev/null; then
        wait "$beam"
        beam=
        rm -f beam.pid
    fi
    if [ "$(cat wanted)" = up ] && [ -z "$beam" ]; then start; fi
    count
    if [ "$users" = 1 ]; then
        idle=0
    else
        idle=$((idle + 1))
        if [ "$runners" = 0 ] && [ "$idle" -gt 2 ] || [ "$idle" -gt "$idle_limit" ]; then
            exec 9>>"$lock"
            if flock -n 9; then
                count
                [ "$users" = 1 ] || finish
            fi
            exec 9>&-
        fi
    fi
    sleep 0.5
done
