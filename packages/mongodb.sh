# shellcheck shell=bash
# MongoDB, when it is the chosen store: the machine's mongod run from the prefix, or a server elsewhere.
REQUIRES='home supervisord'
DESCRIPTION='the database, when the store is mongodb'

install() {
    note_secret etc/secrets/mongodb-uri
    have mongod || return 0
    put_dir var/lib/mongodb 0750
    put_config "$source_dir/etc/mongodb.conf" etc/mongodb.conf
    put_config "$source_dir/supervisord.d/mongodb.conf" etc/supervisord.d/mongodb.conf
}

secrets() {
    [ -s "$(place etc/secrets/mongodb-uri)" ] ||
        printf 'mongodb://127.0.0.1:%s/\n' "$(port_of mongodb_port)" | put_secret etc/secrets/mongodb-uri
}
