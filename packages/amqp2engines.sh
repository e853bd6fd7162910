# shellcheck shell=bash
# The event engines, one configuration file each.
REQUIRES='home supervisord rabbitmq-server tools'
DESCRIPTION='the event engines'

install() {
    local file
    put_link overstory bin/amqp2engines
    for file in "$source_dir"/etc/engines/*.conf; do
        [ ! -f "$file" ] || put_config "$file" "etc/engines/$(basename "$file")"
    done
    put_config "$source_dir/supervisord.d/amqp2engines.conf" etc/supervisord.d/amqp2engines.conf
}
