# shellcheck shell=bash
# Instances that `overstory add` set up: each has its directory srv/KIND-NAME and its program file in etc/supervisord.d.
# An uninstall lays the program file into the directory, and the next install puts it back.

readonly kept_program=etc/program.conf

# The folders that all kinds share.
put_instance_dirs() {
    put_dir srv 0750
    put_dir etc/nodes
}

stop_instances() { # KIND
    local file
    for file in "$prefix/etc/supervisord.d/$1"-*.conf; do
        [ ! -f "$file" ] || as_owner "$prefix/bin/service" "$(basename "$file" .conf)" stop
    done
}

# The data stays, and with it what says how it is run.
keep_instances() { # KIND
    local file name
    for file in "$prefix/etc/supervisord.d/$1"-*.conf; do
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

restore_instances() { # KIND
    local file name
    for file in "$prefix/srv/$1"-*/"$kept_program"; do
        [ -f "$file" ] || continue
        name=${file#"$prefix/srv/"}
        name=${name%%/*}
        [ -e "$prefix/etc/supervisord.d/$name.conf" ] ||
            as_owner mv -- "$file" "$prefix/etc/supervisord.d/$name.conf"
    done
}

# Deletes the instances of a kind and what clients had to reach them. Other kinds' stay.
purge_instances() { # KIND
    local dir nodes name
    for dir in "$prefix/srv/$1"-*; do
        [ -d "$dir" ] || continue
        for nodes in "$prefix"/etc/nodes/*.nodes; do
            [ -f "$nodes" ] || continue
            grep -q " # ${dir##*/}\$" -- "$nodes" || continue
            name=$(basename "$nodes" .nodes)
            rm -f -- "$nodes" "$prefix/etc/secrets/${name%.legacy}.credentials"
        done
    done
    rm -rf --one-file-system -- "${prefix:?}/srv/$1"-* "$prefix/srv/removed/$1"-*
    rmdir -- "$prefix/srv/removed" "$prefix/srv" "$prefix/etc/nodes" 2>/dev/null || true
}
