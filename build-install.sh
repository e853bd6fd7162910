#!/usr/bin/env bash
# Builds Overstory and installs, updates, tests, packs or removes it. The work is described by packages/NAME.sh, one file
# per package, with the shell functions that they share in packages/lib.
set -euo pipefail

source_dir=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
packages_source=${OVERSTORY_PACKAGES:-$source_dir/packages}

# shellcheck source=packages/lib/common.sh
. "$source_dir/packages/lib/common.sh"
# shellcheck source=packages/lib/state.sh
. "$source_dir/packages/lib/state.sh"
# shellcheck source=packages/lib/registry.sh
. "$source_dir/packages/lib/registry.sh"
# shellcheck source=packages/lib/files.sh
. "$source_dir/packages/lib/files.sh"
# shellcheck source=packages/lib/instances.sh
. "$source_dir/packages/lib/instances.sh"
# shellcheck source=packages/lib/order.sh
. "$source_dir/packages/lib/order.sh"
# shellcheck source=packages/lib/ports.sh
. "$source_dir/packages/lib/ports.sh"
# shellcheck source=packages/lib/processes.sh
. "$source_dir/packages/lib/processes.sh"
# shellcheck source=packages/lib/system.sh
. "$source_dir/packages/lib/system.sh"
# shellcheck source=packages/lib/secrets.sh
. "$source_dir/packages/lib/secrets.sh"
# shellcheck source=packages/lib/actions.sh
. "$source_dir/packages/lib/actions.sh"
# shellcheck source=packages/lib/test.sh
[ ! -f "$source_dir/packages/lib/test.sh" ] || . "$source_dir/packages/lib/test.sh" # not in a package

usage() {
    cat <<'END'
Usage: ./build-install.sh [OPTION...]

Builds Overstory and installs it into a prefix; run again it updates what is there. Configuration that was changed in
the prefix is kept and the new file laid beside it as FILE.new; data is never touched.

  --prefix DIR        where it lives (root: /opt/overstory, otherwise ~/overstory; OVERSTORY_HOME names another)
  --start             start everything at the end
  --store KIND        embedded (the default) or mongodb; kept for the next runs
  --no-deps           do not install Debian packages, only check that they are there
  --debug             build quickly instead of optimised
  --executable FILE   install this executable instead of building one
  --only NAME         only this package (see packages/NAME.sh)
  --package           write overstory-VERSION-ARCH.tar.zst, which installs without a compiler, and stop
  --uninstall         stop everything, remove what was installed, keep data and changed configuration
  --purge             with --uninstall: remove those, too
  --test              run all tests (installs what they need); the last line counts them
  --long              with --test: the long ones as well
  --yes               do not ask before --purge
  -h, --help          this text
      --version       the version

Exit codes: 0 done; 1 failed, the log's name is printed; 2 wrong usage; 3 something must be installed first, the
command for it is printed; 4 the prefix cannot be used.
END
}

wrong_usage() { # MESSAGE
    printf 'build-install.sh: %s; see --help\n' "$1" >&2
    exit "$exit_usage"
}

# Two of these at once contradict each other.
choose_action() { # ACTION
    case $action in
        install | "$1") action=$1 ;;
        *) wrong_usage "--$action and --$1 exclude each other" ;;
    esac
}

action=install prefix_wanted='' start=no store_wanted='' no_deps=no profile=release executable='' only=''
purge=no long=no yes=no

while [ $# -gt 0 ]; do
    option=$1
    value=
    case $option in
        --*=*)
            value=${option#*=}
            option=${option%%=*}
            set -- "$option" "$value" "${@:2}"
            ;;
    esac
    case $option in
        --prefix | --store | --only | --executable)
            value=${2:-}
            [ -n "$value" ] || wrong_usage "$option needs a value"
            shift
            ;;
        *) [ -z "$value" ] || wrong_usage "$option takes no value" ;;
    esac
    shift
    case $option in
        --prefix) prefix_wanted=$value ;;
        --store) store_wanted=$value ;;
        --only) only=$value ;;
        --executable) executable=$value ;;
        --start) start=yes ;;
        --no-deps) no_deps=yes ;;
        --debug) profile=debug ;;
        --package)
            choose_action package
            profile=dist
            ;;
        --uninstall) choose_action uninstall ;;
        --purge) purge=yes ;;
        --test) choose_action 'test' ;;
        --long) long=yes ;;
        --yes) yes=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        --version) action=version ;;
        *) wrong_usage "unknown option $option" ;;
    esac
done

case $store_wanted in '' | embedded | mongodb) ;; *) wrong_usage "--store is embedded or mongodb, not $store_wanted" ;; esac
[ "$purge" = no ] || [ "$action" = uninstall ] || wrong_usage "--purge goes with --uninstall"
[ "$start" = no ] || [ "$action" = install ] || [ "$action" = version ] || wrong_usage "--start does not go with --$action"
[ "$long" = no ] || [ "$action" = test ] || wrong_usage "--long goes with --test"
if [ -n "$only" ] && [ ! -f "$packages_source/$only.sh" ]; then
    wrong_usage "there is no package $only; there are: $(package_names | tr '\n' ' ')"
fi

# In a package the executable is already built.
if [ -f "$source_dir/VERSION" ]; then
    version=$(cat "$source_dir/VERSION")
    executable=${executable:-$source_dir/bin/overstory}
    case $action in package | test) wrong_usage "--$action needs the source tree" ;; esac
else
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$source_dir/Cargo.toml")
fi
if [ -n "$executable" ]; then
    executable=$(realpath -m -- "$executable")
    [ -x "$executable" ] || wrong_usage "$executable is not an executable"
fi

if [ "$action" = version ]; then
    printf 'overstory %s\n' "$version"
    exit 0
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/overstory-install.XXXXXX")
log=$work.log
(umask 077 && : >"$log")
keep_log_at_exit=no
step_number=0 step_count=0
trap clean_up EXIT
trap 'end_step; exit 130' INT
trap 'end_step; exit 143' TERM HUP

"run_$action"
