# shellcheck shell=bash
# The installations of this machine (of this user, when not root) know of each other, so that they choose different ports
# also while they are stopped, and so that the system user goes with the last of them. One file per prefix, named by a
# hash of it; a prefix that is gone is forgotten.

registry_dir() {
    if [ -n "${OVERSTORY_REGISTRY:-}" ]; then
        printf '%s\n' "$OVERSTORY_REGISTRY"
    elif as_root; then
        printf '/var/lib/overstory-prefixes\n'
    else
        printf '%s/.local/state/overstory-prefixes\n' "${HOME:?}"
    fi
}

# Runs a command while no other installer changes the registry, the system user or the choice of ports.
exclusively() { # COMMAND...
    local dir
    dir=$(registry_dir)
    mkdir -p -- "$dir"
    {
        flock 8
        "$@" 8<&-
    } 8<"$dir"
}

registry_entry() {
    printf '%s/%s\n' "$(registry_dir)" "$(sha256sum <<<"$prefix" | cut -c 1-16)"
}

register_prefix() { printf '%s\n' "$prefix" >"$(registry_entry)"; }

forget_prefix() { rm -f -- "$(registry_entry)"; }

other_prefixes() {
    local file other
    for file in "$(registry_dir)"/*; do
        [ -f "$file" ] || continue
        other=$(head -n 1 "$file")
        if [ ! -f "$other/var/lib/packages/state" ]; then
            rm -f -- "$file"
        elif [ "$other" != "$prefix" ]; then
            printf '%s\n' "$other"
        fi
    done
}

# Which other installation has chosen the port.
chosen_by() { # PORT
    local other
    while read -r other; do
        if grep -qE "^[a-z_]+_port=$1$" "$other/var/lib/packages/state" || engines_of "$other" "$1"; then
            printf '%s\n' "$other"
            return
        fi
    done < <(other_prefixes)
}

# The second engine process' port is not in the file.
engines_of() { # PREFIX PORT
    grep -qx "engines_admin_port=$(($2 - 1))" "$1/var/lib/packages/state"
}

# The user is removed when we made it and no other installation lives by it.
remove_made_user() {
    local mark
    mark=$(registry_dir)/.made-$owner
    if [ -f "$mark" ] && [ -z "$(other_prefixes)" ]; then
        if getent passwd "$owner" >/dev/null && ! userdel "$owner"; then
            notice "kept the user $owner, who is still in use"
            return
        fi
        rm -f -- "$mark"
        notice "removed the user $owner"
    fi
}
