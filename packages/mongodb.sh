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

local_uri() { printf 'mongodb://127.0.0.1:%s/?replicaSet=overstory\n' "$(port_of mongodb_port)"; }

secrets() {
    [ -s "$(place etc/secrets/mongodb-uri)" ] || local_uri | put_secret etc/secrets/mongodb-uri
}

# Transactions need a replica set, be it of one. Runs while the server is up; a set that is there stays as it is.
provision() {
    local client
    [ "$(cat "$(place etc/secrets/mongodb-uri)")" = "$(local_uri)" ] || return 0
    client=$(command -v mongosh || command -v mongo)
    as_owner "$client" --quiet --host 127.0.0.1 --port "$(port_of mongodb_port)" --eval "
        let made = 0;
        try { made = db.adminCommand({ replSetGetStatus: 1 }).ok } catch (error) { print(error) }
        if (made !== 1) {
            rs.initiate({ _id: 'overstory', members: [{ _id: 0, host: '127.0.0.1:$(port_of mongodb_port)' }] });
        }
        for (let i = 0; i < 300 && !db.adminCommand({ hello: 1 }).isWritablePrimary; i++) sleep(100);
        if (!db.adminCommand({ hello: 1 }).isWritablePrimary) throw 'the replica set has no primary';
    "
}
