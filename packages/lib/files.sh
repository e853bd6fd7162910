# shellcheck shell=bash
# Putting files into the prefix and remembering them. `var/lib/packages/NAME.files` has one line per path:
#
#     KIND HASH PATH
#
# KIND is d (directory), f (file, always replaced), c (configuration, the operator may change it), l (link; HASH is its
# target) or s (generated secret or password: data, kept like var/lib). HASH is the sha256 of what we put there.
# PATH counts from the prefix, or is absolute for the links outside it.

place() { # PATH
    case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$prefix/$1" ;; esac
}

hash_of() { # FILE
    sha256sum -- "$1" | cut -d ' ' -f 1
}

record() { # KIND HASH PATH
    printf '%s %s %s\n' "$1" "$2" "$3" >>"$work/$package.files"
}

recorded_hash() { # PATH
    [ ! -f "$packages_dir/$package.files" ] ||
        awk -v path="$1" '$3 == path { hash = $2 } END { print hash }' "$packages_dir/$package.files"
}

changed() { # PATH
    printf '%s\n' "$1" >>"$work/changed"
}

put_dir() { # PATH [MODE]
    local to
    to=$(place "$1")
    refuse_foreign_link "$to"
    [ -d "$to" ] || mkdir -p -- "$to"
    chmod "${2:-0755}" "$to"
    give_to_owner "$to"
    record d - "$1"
}

# Moves a finished file into place, so that nobody ever sees half of one.
move_into_place() { # FROM TO MODE
    cp -- "$1" "$2.installing"
    chmod "$3" "$2.installing"
    give_to_owner "$2.installing"
    mv -f -- "$2.installing" "$2"
}

put_file() { # FROM PATH [MODE]
    local to
    to=$(place "$2")
    if [ ! -f "$to" ] || ! cmp -s -- "$1" "$to"; then
        move_into_place "$1" "$to" "${3:-0644}"
        changed "$2"
    fi
    record f "$(hash_of "$1")" "$2"
}

put_link() { # TARGET PATH
    local to
    to=$(place "$2")
    if [ "$(readlink -- "$to" 2>/dev/null)" != "$1" ]; then
        ln -sfn -- "$1" "$to.installing"
        mv -fT -- "$to.installing" "$to"
    fi
    # Outside the prefix it is root's.
    [[ $2 = /* ]] || give_to_owner "$to"
    record l "$1" "$2"
}

# A file of the repository with the installation's values in it. The repository holds the default ports; one number
# replaced by another must not be taken for a third, so they go through marks.
render() { # FROM
    local key default value marks=() values=()
    while read -r key default; do
        value=$(state_get "$key")
        [ "${value:-$default}" != "$default" ] || continue
        if [ "$key" = engines_admin_port ]; then
            # `809%(process_num)d`: the last digit is the process' number.
            marks+=(-e "s/\\b${default%0}%(/@@$key@@%(/g")
            values+=(-e "s/@@$key@@%(/${value%0}%(/g")
        fi
        marks+=(-e "s/\\b$default\\b/@@$key@@/g")
        values+=(-e "s/@@$key@@/$value/g")
    done < <(default_ports)
    [ "$store" != mongodb ] || values+=(-e 's/^kind = "embedded"/kind = "mongodb"/'
        -e 's/^services = \["rabbitmq-server"\]/services = ["rabbitmq-server", "mongodb"]/')
    sed "${marks[@]}" -e "s|@PREFIX@|$prefix|g" -e "s|@USER@|$owner|g" "${values[@]}" -- "$1"
}

# Configuration: what the operator changed is kept, and the new file is laid beside it.
put_config() { # FROM PATH [MODE]
    local to new hash was
    to=$(place "$2")
    new=$work/rendered
    render "$1" >"$new"
    hash=$(hash_of "$new")
    was=$(recorded_hash "$2")
    if [ ! -e "$to" ]; then
        move_into_place "$new" "$to" "${3:-0644}"
        changed "$2"
    elif [ "$(hash_of "$to")" = "$hash" ]; then
        rm -f -- "$to.new"
    elif [ -n "$was" ] && [ "$(hash_of "$to")" = "$was" ]; then
        move_into_place "$new" "$to" "${3:-0644}"
        rm -f -- "$to.new"
        changed "$2"
    else
        move_into_place "$new" "$to.new" "${3:-0644}"
        notice "kept $2, which was changed here; the new one is $2.new"
    fi
    record c "$hash" "$2"
}

# Notes a generated file that is data from now on.
note_secret() { # PATH
    record s - "$1"
}

begin_package() {
    : >"$work/$package.files"
}

# Drops what the package no longer has and writes down what it has.
finish_package() {
    local kind hash path
    if [ -f "$packages_dir/$package.files" ]; then
        while read -r kind hash path; do
            case $kind in d | s) continue ;; esac
            awk -v path="$path" '$3 == path { found = 1 } END { exit !found }' "$work/$package.files" ||
                remove_path "$kind" "$hash" "$path"
        done <"$packages_dir/$package.files"
    fi
    {
        printf 'name=%s\nversion=%s\nrequires=%s\n' "$package" "$VERSION" "$REQUIRES"
        printf 'description=%s\narch=%s\ninstalled=%s\n' "$DESCRIPTION" "$(uname -m)" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    } >"$work/$package.info"
    move_into_place "$work/$package.files" "$packages_dir/$package.files" 0644
    move_into_place "$work/$package.info" "$packages_dir/$package.info" 0644
}

# Whether another package has put it there, too: `swarm` comes with each kind of nodes.
is_shared() { # PATH
    awk -v path="$1" -v own="$packages_dir/$package.files" \
        'FILENAME != own && $3 == path { found = 1 } END { exit !found }' "$packages_dir"/*.files
}

# Removes one recorded path unless the operator made it theirs, or another package has the same link.
remove_path() { # KIND HASH PATH
    local at
    at=$(place "$3")
    case $1 in
        f) rm -f -- "$at" ;;
        l) is_shared "$3" || [ "$(readlink -- "$at" 2>/dev/null)" != "$2" ] || rm -f -- "$at" ;;
        c)
            rm -f -- "$at.new"
            if [ -f "$at" ]; then
                if [ "$(hash_of "$at")" = "$2" ]; then rm -f -- "$at"; else notice_kept "$3, which was changed here"; fi
            fi
            ;;
        d) rmdir -- "$at" 2>/dev/null || true ;;
        s) [ ! -e "$at" ] || notice_kept "$3" ;;
    esac
}

# A purge keeps nothing.
notice_kept() {
    [ "$purge" = yes ] || notice "kept $1"
}

# Removes everything that a package put into the prefix, deepest paths first.
remove_recorded() {
    local kind hash path list=$packages_dir/$package.files
    [ -f "$list" ] || return 0
    while read -r kind hash path; do
        case $path in var/lib | var/lib/*) [ "$kind" = f ] || continue ;; esac
        remove_path "$kind" "$hash" "$path"
    done < <(LC_ALL=C sort -r -k 3 "$list")
    rm -f -- "$list" "$packages_dir/$package.info"
}
