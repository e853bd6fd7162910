# shellcheck shell=bash
# The logfiles nodes, the checker of their files and their client. Instances are set up by `overstory add logfiles`.
REQUIRES='home supervisord tools'
DESCRIPTION='the logfiles nodes, logfiles_check and the swarm command'

readonly programs='logfilesnode logfiles_check swarm'

install() {
    local name
    for name in $programs; do
        put_link overstory "bin/$name"
    done
    put_instance_dirs
    put_dir etc/logfiles
    put_config "$source_dir/etc/logfiles/config.ini" etc/logfiles/config.ini
    restore_instances logfiles
}

stop() { stop_instances logfiles; }

remove() {
    keep_instances logfiles
    remove_recorded
}

# Only when this package goes alone; otherwise the prefix goes as a whole.
purge() { purge_instances logfiles; }
