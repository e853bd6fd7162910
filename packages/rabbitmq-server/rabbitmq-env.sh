# shellcheck shell=sh
# The environment of the broker and its command-line tools; sourced by the wrappers beside it, which set `prefix`.
# What an operator may change is in etc/rabbitmq/rabbitmq-env.conf.

RABBITMQ_CONF_ENV_FILE=$prefix/etc/rabbitmq/rabbitmq-env.conf
# shellcheck source=/dev/null
. "$RABBITMQ_CONF_ENV_FILE"

export RABBITMQ_CONF_ENV_FILE
export RABBITMQ_NODENAME="$NODENAME"
export RABBITMQ_DIST_PORT="$DIST_PORT"
export RABBITMQ_USE_LONGNAME=false
export RABBITMQ_CONFIG_FILE="$prefix/etc/rabbitmq/rabbitmq.conf"
export RABBITMQ_ADVANCED_CONFIG_FILE="$prefix/etc/rabbitmq/advanced.config"
export RABBITMQ_ENABLED_PLUGINS_FILE="$prefix/etc/rabbitmq/enabled_plugins"
export RABBITMQ_MNESIA_BASE="$prefix/var/lib/rabbitmq/mnesia"
export RABBITMQ_GENERATED_CONFIG_DIR="$prefix/var/lib/rabbitmq/config"
export RABBITMQ_LOG_BASE="$prefix/var/log/rabbitmq"
export RABBITMQ_PID_FILE="$prefix/var/run/rabbitmq.pid"
export ERL_CRASH_DUMP="$prefix/var/log/rabbitmq/erl_crash.dump"
export ERL_CRASH_DUMP_SECONDS=5
export ERL_EPMD_ADDRESS=127.0.0.1
# Nodes and tools talk to each other on the loopback interface alone.
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
export RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
# The Erlang cookie is kept here.
export HOME="$prefix/var/lib/rabbitmq"
export LANG=C.UTF-8
cd "$HOME" || exit 1
