# shellcheck shell=bash
# The broker: Debian's RabbitMQ run from the prefix as our user, with a port mapper of its own.
REQUIRES='home supervisord'
DESCRIPTION='the message broker'

readonly definitions=etc/rabbitmq/definitions.json

install() {
    local file
    put_dir var/log/rabbitmq 0750
    for file in rabbitmq.conf rabbitmq-env.conf enabled_plugins; do
        put_config "$source_dir/etc/rabbitmq/$file" "etc/rabbitmq/$file"
    done
    for file in rabbitmq-env.sh rabbitmq-server-wrapper rabbitmqctl rabbitmq-diagnostics; do
        put_file "$packages_source/rabbitmq-server/$file" "bin/$file" 0755
    done
    put_config "$source_dir/supervisord.d/rabbitmq-server.conf" etc/supervisord.d/rabbitmq-server.conf
    note_secret etc/secrets/amqp
    note_secret "$definitions"
}

# The password of the programs at the broker, and the broker's copy of it. The definitions are read at each start of
# the broker, so they are only written anew when they do not hold the password that is in force.
secrets() {
    local password hash at
    at=$(place etc/secrets/amqp)
    [ -s "$at" ] || random_secret | put_secret etc/secrets/amqp
    password=$(cat "$at")
    at=$(place "$definitions")
    hash=''
    [ ! -f "$at" ] || hash=$(sed -n 's/.*"password_hash": *"\([^"]*\)".*/\1/p' "$at" | head -n 1)
    if ! broker_hash_matches "$hash" "$password"; then
        hash=$(broker_hash "$password" "$(random_salt)")
        sed "s|@PASSWORD_HASH@|$hash|" "$source_dir/$definitions" | put_secret "$definitions"
    fi
}
