# shellcheck shell=bash
# What the machine must have: Debian's broker and supervisor, and to build a C compiler and Rust.

readonly rust_needed=1.95
broker_program=${broker_program:-/usr/lib/rabbitmq/bin/rabbitmq-server}
policy_file=${policy_file:-/usr/sbin/policy-rc.d}
readonly policy_mark='# Written by build-install.sh for the time of one installation.'

# The Debian packages that are not there and needed.
missing_packages() {
    if [ "$action" = 'test' ]; then
        missing_test_packages
        return
    fi
    [ -x "$broker_program" ] || echo rabbitmq-server
    have supervisord || echo supervisor
    if [ -z "$executable" ]; then
        # The linker's driver, and the compiler of the embedded database.
        have cc || printf 'gcc\nlibc6-dev\n'
    fi
    if [ "$action" = package ]; then
        have zstd || echo zstd
    fi
}

# Stops before anything is done when something is missing that this run cannot install, and says how to get all of it.
require_needs() {
    local text='' more
    if [ -z "$executable" ]; then
        settle_builder
        text=$(rust_message)
    fi
    for more in "$(packages_message)" "$(mongodb_message)"; do
        text+=${text:+${more:+$'\n\n'}}$more
    done
    [ -z "$text" ] || die "$exit_missing" "$text"
}

packages_message() {
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if [ "$no_deps" = yes ]; then
        printf -- '--no-deps was given, and these Debian packages are missing: %s\n' "$missing"
    elif ! as_root; then
        printf 'These Debian packages are missing. As root, run:
    apt-get update && apt-get install --no-install-recommends -y %s
(where services start at installation this starts the system'\''s own broker and supervisor; they do no harm) and then this
command again.\n' "$missing"
    elif ! have apt-get; then
        printf 'This is not a Debian system; install these yourself: %s\n' "$missing"
    fi
}

mongodb_message() {
    [ "$store" = mongodb ] && [ ! -s "${prefix:-}/etc/secrets/mongodb-uri" ] || return 0
    if ! have mongod; then
        printf 'The store is to be mongodb, and there is no mongod on this machine. Install MongoDB 5.0 or newer, or write the address of
a replica set elsewhere, as one line mongodb://..., into %s/etc/secrets/mongodb-uri (mode 0600).\n' "${prefix:-}"
    elif ! have mongosh && ! have mongo; then
        printf 'The store is to be mongodb, whose shell (mongosh) is needed once to make the server a replica set.\n'
    fi
}

system_packages() {
    local missing
    missing=$(missing_packages)
    # shellcheck disable=SC2086 # a list of names
    [ -z "$missing" ] || install_packages $missing
}

# Installs Debian packages without letting apt start their services.
install_packages() { # NAME...
    local ours_before=yes
    [ -x "$broker_program" ] || ours_before=no
    trap restore_policy EXIT
    trap 'exit 143' TERM INT HUP
    forbid_service_starts
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
    restore_policy
    trap - EXIT TERM INT HUP
    local name
    for name in "$@"; do
        case $name in
            rabbitmq-server) disable_unit rabbitmq-server ;;
            supervisor) disable_unit supervisor ;;
            collectd-core) disable_unit collectd ;;
        esac
    done
    # Erlang came with the broker, and with it a port mapper for the whole machine.
    [ "$ours_before" = yes ] || disable_unit epmd
    notice "installed $*"
}

disable_unit() { # NAME
    local unit
    for unit in "$1.service" "$1.socket"; do
        if have systemctl; then
            systemctl disable "$unit" || true
        elif have deb-systemd-helper; then
            # It only listens to maintainer scripts.
            DPKG_MAINTSCRIPT_PACKAGE=overstory deb-systemd-helper disable "$unit" || true
        fi
    done
    if [ -x "/etc/init.d/$1" ] && have update-rc.d; then update-rc.d "$1" disable || true; fi
}

# A policy that was there before stays in force for all services but these.
forbid_service_starts() {
    if [ -e "$policy_file" ] && ! grep -qF "$policy_mark" "$policy_file"; then
        mv -f -- "$policy_file" "$policy_file.before-overstory"
    fi
    cat >"$policy_file" <<END
#!/bin/sh
$policy_mark
case \$1 in rabbitmq-server | supervisor | collectd | epmd*) exit 101 ;; esac
[ ! -x '$policy_file.before-overstory' ] || exec '$policy_file.before-overstory' "\$@"
exit 0
END
    chmod 0755 "$policy_file"
}

restore_policy() {
    if grep -qsF "$policy_mark" "$policy_file"; then rm -f -- "$policy_file"; fi
    if [ -e "$policy_file.before-overstory" ]; then mv -f -- "$policy_file.before-overstory" "$policy_file"; fi
}

# Who builds: root with its own Rust or, under sudo, the owner of the sources with theirs.
settle_builder() {
    local source_owner home
    builder=()
    if ! have cargo && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
    if have cargo || ! as_root; then return; fi
    source_owner=$(stat -c %U -- "$source_dir")
    home=$(getent passwd "$source_owner" | cut -d : -f 6)
    if [ "$source_owner" != root ] && [ -x "$home/.cargo/bin/cargo" ]; then
        builder=(runuser -u "$source_owner" -- env "HOME=$home" "PATH=$home/.cargo/bin:$PATH")
        [ -z "${CARGO_TARGET_DIR:-}" ] || builder+=("CARGO_TARGET_DIR=$CARGO_TARGET_DIR")
    fi
}

as_builder() { "${builder[@]}" "$@"; }

# How to get Rust, or nothing when there is a new enough one.
rust_message() {
    local found how
    if found=$(as_builder rustc --version 2>/dev/null) && as_builder cargo --version >/dev/null 2>&1; then
        found=$(awk '{ print $2 }' <<<"$found")
        if version_at_least "${found%%-*}" "$rust_needed"; then return; fi
    else
        found=none
    fi
    how="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
    . \"\$HOME/.cargo/env\""
    have curl || how="apt-get install -y curl ca-certificates    (as root)
    $how"
    if have rustup; then how="rustup toolchain install stable --profile minimal && rustup default stable"; fi
    printf 'The build needs rustc %s or newer (found: %s). To get it, as the user that builds:
    %s
and then run this command again. A package made with --package installs without a compiler.\n' "$rust_needed" "$found" "$how"
}
