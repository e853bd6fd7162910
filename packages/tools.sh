# shellcheck shell=bash
# The executable that all programs are applets of, the operators' commands, and the configuration that programs share.
REQUIRES='home supervisord'
DESCRIPTION='the executable and the operators'\'' commands'

readonly commands='hypcontrol service send_event amqp2tty'
# What root finds in its PATH; `service` and `collectd` would shadow the system's own.
readonly commands_for_root='hypcontrol overstory'

build() {
    local cargo_profile=release
    [ -z "$executable" ] || return 0
    [ "$profile" != dist ] || cargo_profile=dist
    [ "$profile" != debug ] || cargo_profile=dev
    cd "$source_dir" || return
    as_builder cargo build --locked --profile "$cargo_profile" -p overstory --bin overstory
}

install() {
    local name
    put_file "$(built_executable)" bin/overstory 0755
    for name in $commands; do
        put_link overstory "bin/$name"
    done
    for name in amqp.conf store.conf hypcontrol.conf; do
        put_config "$source_dir/etc/$name" "etc/$name"
    done
    if as_root; then
        for name in $commands_for_root; do
            link_for_root "$name"
        done
    fi
}

# Never takes the place of something that is there already.
link_for_root() { # NAME
    local at=$root_links/$1
    if [ -e "$at" ] && [ "$(readlink -- "$at")" != "$prefix/bin/$1" ]; then
        notice "left $at alone, it is $(readlink -f -- "$at")"
    else
        put_link "$prefix/bin/$1" "$at"
    fi
}
