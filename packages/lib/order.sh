# shellcheck shell=bash
# The packages: which there are, in which order they go, and running their functions.

package_names() {
    local file
    for file in "$packages_source"/*.sh; do
        basename "$file" .sh
    done
}

# Runs one function of a package in a shell of its own, so that packages cannot see each other's names.
in_package() { # NAME FUNCTION
    (
        package=$1
        VERSION=$version REQUIRES='' DESCRIPTION=''
        build() { :; }
        install() { :; }
        update() { install; }
        secrets() { :; }
        provision() { :; }
        stop() { :; }
        remove() { remove_recorded; }
        purge() { :; }
        # shellcheck source=/dev/null
        . "$packages_source/$1.sh"
        "$2"
    )
}

package_field() { # NAME FIELD
    # shellcheck disable=SC2317 # called by its name
    show() { printf '%s\n' "${!field}"; }
    local field=$2
    in_package "$1" show
}

# Prints all packages (or those given), each after what it requires. A cycle is an error that shows it.
in_order() { # NAME...
    local done_list=' '
    visit() { # NAME TRAIL
        local name=$1 trail=$2 need circle
        [[ $done_list != *" $name "* ]] || return 0
        if [[ " $trail " == *" $name "* ]]; then
            circle=" $trail "
            circle="$name ${circle#*" $name "}$name"
            die "$exit_failed" "packages require each other in a circle: ${circle// / -> }"
        fi
        [ -f "$packages_source/$name.sh" ] ||
            die "$exit_failed" "package ${trail##* } requires $name, which does not exist"
        for need in $(package_field "$name" REQUIRES); do
            visit "$need" "$trail $name"
        done
        done_list+="$name "
        printf '%s\n' "$name"
    }
    local name
    for name in "$@"; do
        visit "$name" ''
    done
}

is_installed() { [ -f "$packages_dir/$1.info" ]; }

# The packages of this run, in order.
selected_packages() {
    if [ -n "$only" ]; then
        printf '%s\n' "$only"
        return
    fi
    local name names=()
    while read -r name; do
        [ "$name" = mongodb ] && [ "$store" != mongodb ] || names+=("$name")
    done < <(package_names)
    in_order "${names[@]}"
}
