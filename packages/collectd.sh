# shellcheck shell=bash
# The connector that watches this host.
REQUIRES='home supervisord rabbitmq-server tools'
DESCRIPTION='the host connector'

install() {
    put_link overstory bin/collectd
    put_config "$source_dir/etc/collectd.conf" etc/collectd.conf
    put_config "$source_dir/supervisord.d/collectd.conf" etc/supervisord.d/collectd.conf
}
