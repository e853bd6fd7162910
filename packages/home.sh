# shellcheck shell=bash
# The directories of the prefix and its papers.
REQUIRES=''
DESCRIPTION='the directories of the prefix'

install() {
    local dir
    for dir in bin etc etc/supervisord.d etc/engines etc/rabbitmq var var/log var/run var/lib var/lib/packages \
        var/lib/store var/lib/rabbitmq var/spool tmp; do
        put_dir "$dir"
    done
    put_dir etc/secrets 0700
    # Data, what waits for the broker, and the supervisor's socket are nobody else's business.
    chmod 0750 "$(place var/lib/store)" "$(place var/lib/rabbitmq)" "$(place var/spool)" "$(place var/run)"
    put_file "$source_dir/LICENSE" LICENSE
}
