# shellcheck shell=bash
# The supervisor's own configuration; the program is Debian's.
REQUIRES='home'
DESCRIPTION='supervisord, which runs every program'

install() {
    put_config "$source_dir/etc/supervisord.conf" etc/supervisord.conf
}
