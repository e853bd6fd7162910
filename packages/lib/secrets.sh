# shellcheck shell=bash
# Secrets: made once, one per file, readable by the owner alone.

# Random letters and digits; 40 of them are 238 bits.
random_secret() {
    local text
    text=$(head -c 4096 /dev/urandom | base64 -w 0 | tr -dc 'A-Za-z0-9')
    printf '%s\n' "${text:0:40}"
}

# Writes stdin to a file that no other user can read, not even while it is written.
put_secret() { # PATH
    local to
    to=$(place "$1")
    rm -f -- "$to.installing"
    (umask 077 && cat >"$to.installing")
    give_to_owner "$to.installing"
    mv -f -- "$to.installing" "$to"
}

# Writes the bytes that hexadecimal digits stand for.
bytes() { # HEX
    local escaped
    # shellcheck disable=SC2001 # a parameter expansion cannot repeat a group
    escaped=$(sed 's/../\\x&/g' <<<"$1")
    # shellcheck disable=SC2059 # the escapes are the point
    printf "$escaped"
}

# The broker's form of a password: base64(salt, sha256(salt, password)), the salt four bytes.
broker_hash() { # PASSWORD SALT-HEX
    local digest
    digest=$({ bytes "$2"; printf '%s' "$1"; } | sha256sum | cut -d ' ' -f 1)
    bytes "$2$digest" | base64 -w 0
}

random_salt() { head -c 4 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# True when the hash was made from the password.
broker_hash_matches() { # HASH PASSWORD
    local salt
    salt=$(base64 -d <<<"$1" 2>/dev/null | od -An -tx1 -N 4 | tr -d ' \n')
    [ "${#salt}" = 8 ] && [ "$(broker_hash "$2" "$salt")" = "$1" ]
}
