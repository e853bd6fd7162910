# shellcheck shell=bash
# The nodes of the distributed hash table, their tools and their client. Instances are set up by `overstory add dht`.
REQUIRES='home supervisord tools'
DESCRIPTION='the dht nodes, their tools and the swarm command'

readonly programs='dhtnode dhtdump tcmcli dhtredist swarm'

install() {
    local name
    for name in $programs; do
        put_link overstory "bin/$name"
    done
    put_instance_dirs
    put_dir etc/dht
    for name in config.ini dump.ini; do
        put_config "$source_dir/etc/dht/$name" "etc/dht/$name"
    done
    restore_instances dht
}

stop() { stop_instances dht; }

remove() {
    keep_instances dht
    remove_recorded
}

# Only when this package goes alone; otherwise the prefix goes as a whole.
purge() { purge_instances dht; }
