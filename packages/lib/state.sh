# shellcheck shell=bash
# The prefix: whose it is, what was chosen for it, its lock. `var/lib/packages/state` holds one KEY=VALUE per line and
# marks the prefix as ours; it is made before anything else and outlives an uninstall that keeps the data.

state_get() { # KEY
    [ ! -f "$state" ] || sed -n "s/^$1=//p" "$state" | tail -n 1
}

state_set() { # KEY VALUE
    local next=$state.next
    { [ ! -f "$state" ] || grep -v "^$1=" "$state" || true; printf '%s=%s\n' "$1" "$2"; } >"$next"
    give_to_owner "$next"
    mv -f "$next" "$state"
}

give_to_owner() { # PATH...
    ! as_root || [ "$owner" = root ] || chown -h "$owner:$group" "$@"
}

default_prefix() {
    if [ -n "${OVERSTORY_HOME:-}" ]; then
        printf '%s\n' "$OVERSTORY_HOME"
    elif as_root; then
        printf '/opt/overstory\n'
    else
        printf '%s/overstory\n' "${HOME:?}"
    fi
}

# Settles `prefix` and what follows from it.
locate_prefix() { # DIR
    prefix=$(realpath -m -- "$1")
    packages_dir=$prefix/var/lib/packages
    state=$packages_dir/state
    case $prefix in
        / | /usr | /etc | /var | /opt | /home | /root | /tmp) die "$exit_refused" "$prefix is not a place for an installation" ;;
    esac
    [[ $prefix =~ ^/[A-Za-z0-9._/+@~-]+$ ]] ||
        die "$exit_refused" "the prefix '$prefix' has characters that the services' configuration cannot hold (use letters, digits and . _ + @ ~ -)"
    # A unix socket's path has 107 characters at most; supervisord adds a suffix of its own while it binds.
    [ "${#prefix}" -le 70 ] || die "$exit_refused" "the prefix '$prefix' is too long for the supervisor's socket (70 characters at most)"
}

prefix_is_ours() { [ -f "$state" ]; }

require_usable_prefix() {
    if [ "$prefix" = "$source_dir" ]; then
        die "$exit_refused" "$prefix is this source tree; name another place, for instance: ./build-install.sh --prefix $prefix-home"
    fi
    prefix_is_ours && return
    [ -e "$prefix" ] || return 0
    [ -d "$prefix" ] || die "$exit_refused" "$prefix exists and is not a directory"
    [ -z "$(ls -A -- "$prefix")" ] ||
        die "$exit_refused" "$prefix is not empty and was not made by this installer; name another place with --prefix"
}

# Takes the prefix for this run; two at once would mix their files.
lock_prefix() {
    exec 9<"$prefix"
    flock -n 9 || die "$exit_refused" "another build-install.sh is at work on $prefix"
}

# Says who owns the prefix and runs everything in it. As root that is a system user, made by us when it is not there.
settle_owner() {
    owner=$(state_get user)
    if [ -z "$owner" ]; then
        if as_root; then owner=$supervised_user; else owner=$(id -un); fi
    fi
    if ! as_root && [ "$owner" != "$(id -un)" ]; then
        die "$exit_refused" "$prefix belongs to the user $owner; run as root or as $owner"
    fi
    group=$(id -gn "$owner" 2>/dev/null || printf '%s' "$owner")
}

make_owner() {
    as_root || return 0
    if ! getent passwd "$owner" >/dev/null; then
        useradd --system --user-group --home-dir "$prefix" --no-create-home --shell /usr/sbin/nologin "$owner"
        touch "$(registry_dir)/.made-$owner"
    fi
    group=$(id -gn "$owner")
}

# Makes the directory, marks it as ours and locks it.
claim_prefix() {
    mkdir -p -- "$prefix"
    lock_prefix
    exclusively mark_prefix
    as_owner test -x "$prefix" ||
        die "$exit_refused" "the user $owner cannot enter $prefix; check the permissions of the directories above it"
}

mark_prefix() {
    make_owner
    local dir
    for dir in "$prefix" "$prefix/var" "$prefix/var/lib" "$packages_dir"; do
        refuse_foreign_link "$dir"
        [ -d "$dir" ] || mkdir -- "$dir"
        give_to_owner "$dir"
    done
    [ -f "$state" ] || state_set format 1
    state_set user "$owner"
    register_prefix
}

# Root never writes through a link that the unprivileged owner put in place of a directory.
refuse_foreign_link() { # PATH
    if as_root && [ -L "$1" ] && [ "$(stat -c %u -- "$1")" != 0 ]; then
        die "$exit_refused" "$1 is a link that root did not make; refusing to write through it"
    fi
}
