# shellcheck shell=bash
# What every part of the installer uses: messages, steps with their time, the command runner, the machine's facts.

# Exit codes, as `--help` lists them.
readonly exit_failed=1 exit_usage=2 exit_missing=3 exit_refused=4

readonly supervised_user=overstory
# Where root's commands are linked.
root_links=${root_links:-/usr/local/bin}

# Ends the run. Inside a step the message becomes the step's reason instead of the end of its log.
die() { # CODE MESSAGE...
    local code=$1
    shift
    if [ -n "${in_step:-}" ]; then
        printf '%s\n' "$*" >"$work/reason"
    else
        printf 'build-install.sh: %s\n' "$*" >&2
    fi
    exit "$code"
}

# A line for the operator; from inside a step it is printed once the step's own line is complete.
notice() {
    if [ -n "${in_step:-}" ]; then
        printf '%s\n' "$*" >>"$work/notices"
    else
        printf '%s\n' "$*"
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() { [ "$(id -u)" = 0 ]; }

# True when version $1 is at least $2; both are dotted numbers.
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Waits up to SECONDS until the command succeeds.
wait_until() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# Runs a command as the owner of the installation, with nothing of the caller's environment but what it needs.
as_owner() {
    local clean=(env -i "HOME=$prefix" "OVERSTORY_HOME=$prefix" LANG=C.UTF-8
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
    if as_root && [ "$owner" != root ]; then
        (cd "$prefix" && setpriv --reuid "$owner" --regid "$group" --init-groups "${clean[@]}" "$@")
    else
        (cd "$prefix" && "${clean[@]}" "$@")
    fi
}

# Closes the installer's lock for what outlives it: supervisord would hold it for ever.
without_lock() {
    "$@" 9<&-
}

# Runs one step in a process group of its own: progress on the terminal, everything else in the log.
step() { # TITLE FUNCTION ARGUMENT...
    local head began=$SECONDS rc=0
    step_number=$((step_number + 1))
    head="[$step_number/$step_count] $1 ..."
    printf '\n== %s\n' "$1" >>"$log"
    shift
    rm -f "$work/reason" "$work/notices"
    [ -t 1 ] || printf '%s ' "$head"
    set -m
    (
        trap - INT TERM HUP EXIT
        set -Eeu
        in_step=yes
        trap 'printf "%s:%s: failed: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "${BASH_COMMAND%%[[:cntrl:]]*}" >&2' ERR
        without_lock "$@"
    ) >>"$log" 2>&1 </dev/null &
    step_group=$!
    set +m
    if [ -t 1 ]; then
        while kill -0 "$step_group" 2>/dev/null; do
            printf '\r%s %ss  %.40s\033[K' "$head" "$((SECONDS - began))" "$(tail -n 1 "$log" | tr -d '[:cntrl:]')"
            sleep 0.2
        done
        printf '\r%s \033[K' "$head"
    fi
    wait "$step_group" || rc=$?
    step_group=
    if [ "$rc" != 0 ]; then
        printf 'failed after %ss\n' "$((SECONDS - began))"
        keep_log_at_exit=yes
        explain_failure >&2
        exit "$rc"
    fi
    printf '%ss\n' "$((SECONDS - began))"
    [ ! -s "$work/notices" ] || sed 's/^/      /' "$work/notices"
}

explain_failure() {
    if [ -s "$work/reason" ]; then
        cat "$work/reason"
        return
    fi
    printf 'The last lines of %s:\n' "$log"
    tail -n 20 "$log" | sed 's/^/    /'
}

# Ends a step that is under way, with all it started, and waits until it has put back what it changed.
end_step() {
    [ -n "${step_group:-}" ] || return 0
    kill -TERM -- "-$step_group" 2>/dev/null || true
    wait "$step_group" 2>/dev/null || true
}

# The log of a run that failed stays, where the message says.
clean_up() {
    rm -rf -- "$work"
    [ "$keep_log_at_exit" = yes ] || rm -f -- "$log"
}
