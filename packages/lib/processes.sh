# shellcheck shell=bash
# The processes of this prefix, and no others.

# True for what the prefix' supervisord started, and for that supervisord itself.
belongs_to_prefix() { # PID
    grep -qszxF -e "SUPERVISOR_SERVER_URL=unix://$prefix/var/run/supervisor.sock" "/proc/$1/environ" || is_our_supervisord "$1"
}

is_our_supervisord() { # PID
    grep -qszxF -e "$prefix/etc/supervisord.conf" "/proc/$1/cmdline" &&
        grep -qszE -e '(^|/)supervisord$' "/proc/$1/cmdline"
}

our_processes() {
    local file pid
    # One search over all of them; only what is found is looked at more closely.
    {
        grep -lszxF -e "SUPERVISOR_SERVER_URL=unix://$prefix/var/run/supervisor.sock" /proc/[0-9]*/environ || true
        grep -lszxF -e "$prefix/etc/supervisord.conf" /proc/[0-9]*/cmdline || true
    } | while IFS=/ read -r _ _ pid file; do
        [ "$pid" = $$ ] || ! belongs_to_prefix "$pid" || printf '%s\n' "$pid"
    done | sort -u
}

none_left() { [ -z "$(our_processes)" ]; }

signal_ours() { # SIGNAL
    local pid
    for pid in $(our_processes); do
        kill "-$1" "$pid" 2>/dev/null || true
    done
}

# Asks hypcontrol first; what then still runs from this prefix is ended by its pid.
stop_everything() {
    none_left && return
    if [ -x "$prefix/bin/hypcontrol" ]; then
        as_owner "$prefix/bin/hypcontrol" stop || true
    fi
    wait_until 5 none_left && return
    signal_ours TERM
    wait_until 20 none_left && return
    signal_ours KILL
    wait_until 5 none_left || die "$exit_failed" "these processes of $prefix do not end: $(our_processes | tr '\n' ' ')"
}
