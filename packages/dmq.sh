# shellcheck shell=bash
# The queue nodes and their client. Instances are set up by `overstory add dmq` and `overstory add queue`.
REQUIRES='home supervisord tools'
DESCRIPTION='the queue nodes and the swarm command'

readonly programs='dmqnode queuenode swarm'
readonly kinds='dmq queue'

install() {
    local name
    for name in $programs; do
        put_link overstory "bin/$name"
    done
    put_instance_dirs
    for name in $kinds; do
        put_dir "etc/$name"
        put_config "$source_dir/etc/$name/config.ini" "etc/$name/config.ini"
        restore_instances "$name"
    done
}

stop() {
    local kind
    for kind in $kinds; do stop_instances "$kind"; done
}

remove() {
    local kind
    for kind in $kinds; do keep_instances "$kind"; done
    remove_recorded
}

# Only when this package goes alone; otherwise the prefix goes as a whole.
purge() {
    local kind
    for kind in $kinds; do purge_instances "$kind"; done
}
