# shellcheck shell=bash
# The REST API and its accounts.
REQUIRES='home supervisord rabbitmq-server tools'
DESCRIPTION='the web server and the accounts'

readonly admin_password=etc/initial-admin-password

install() {
    put_link overstory bin/webserver
    put_config "$source_dir/etc/webserver.conf" etc/webserver.conf
    put_config "$source_dir/supervisord.d/webserver.conf" etc/supervisord.d/webserver.conf
    note_secret "$admin_password"
}

# Creates the store and the account `admin`. The password is shown at the end of the run that made it; it must not get
# into the log, so the program's output goes to a file that only this run reads.
provision() {
    local had_password=no
    [ ! -s "$(place "$admin_password")" ] || had_password=yes
    (umask 077 && as_owner "$prefix/bin/overstory" provision >"$work/provision.out")
    if [ "$had_password" = no ] && [ -s "$(place "$admin_password")" ]; then touch "$work/new-admin"; fi
}
