#!/usr/bin/env bash
# Stands in for the executable in the installer's tests: makes the account as `provision` does and notes hypcontrol's calls.
set -eu
prefix=$(cd -- "$(dirname -- "$0")/.." && pwd)
case $(basename -- "$0") in
    overstory)
        [ "$1" = provision ]
        if [ -p "$prefix/var/lib/hold" ]; then cat "$prefix/var/lib/hold"; fi
        if [ ! -s "$prefix/etc/initial-admin-password" ]; then
            (umask 077 && echo a-password >"$prefix/etc/initial-admin-password")
            echo 'admin: a-password'
        fi
        ;;
    service)
        # Nothing runs yet.
        [ "$2" != status ] || exit 3
        ;;
    hypcontrol)
        echo "$1" >>"$prefix/var/lib/calls"
        if [ -e "$prefix/var/lib/fail" ]; then
            echo 'rabbitmq-server did not become ready' >&2
            exit 1
        fi
        ;;
esac
