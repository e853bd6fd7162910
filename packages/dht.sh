# shellcheck shell=bash
# The nodes of the distributed hash table, their tools and their client. Instances are set up by `overstory add dht`: each
# has its directory in srv and its program file in etc/supervisord.d, which an uninstall lays into that directory.
REQUIRES='home supervisord tools'
DESCRIPTION='the dht nodes, their tools and the swarm command'

readonly programs='dhtnode dhtdump tcmcli dhtredist swarm'
readonly kept_program=etc/program.conf

install() {
    local name
    for name in $programs; do
        put_link overstory "bin/$name"
    done
    put_dir srv 0750
    put_dir etc/nodes
    put_dir etc/dht
    for name in config.ini dump.ini; do
        put_config "$source_dir/etc/dht/$name" "etc/dht/$name"
    done
    restore_instances
}

stop() {
    local file
    for file in "$prefix"/etc/supervisord.d/dht-*.conf; do
        [ ! -f "$file" ] || as_owner "$prefix/bin/service" "$(basename "$file" .conf)" stop
    done
}

remove() {
    keep_instances
    remove_recorded
}

# Only when this package goes alone; otherwise the prefix goes as a whole.
purge() {
    rm -rf --one-file-system -- "${prefix:?}"/srv/dht-* "$prefix/srv/removed"
    rm -f -- "$prefix"/etc/nodes/*.nodes "$prefix"/etc/secrets/*.credentials
    rmdir -- "$prefix/srv" "$prefix/etc/nodes" 2>/dev/null || true
}

# The data stays, and with it what says how it is run; the next install puts that back.
keep_instances() {
    local file name
    for file in "$prefix"/etc/supervisord.d/dht-*.conf; do
        [ -f "$file" ] || continue
        name=$(basename "$file" .conf)
        if [ -d "$prefix/srv/$name/etc" ]; then
            as_owner mv -f -- "$file" "$prefix/srv/$name/$kept_program"
            notice_kept "srv/$name"
        else
            notice_kept "etc/supervisord.d/$name.conf"
        fi
    done
}

restore_instances() {
    local file name
    for file in "$prefix"/srv/dht-*/"$kept_program"; do
        [ -f "$file" ] || continue
        name=${file#"$prefix/srv/"}
        name=${name%%/*}
        [ -e "$prefix/etc/supervisord.d/$name.conf" ] ||
            as_owner mv -- "$file" "$prefix/etc/supervisord.d/$name.conf"
    done
}
