# shellcheck shell=bash
# What build-install.sh does as a whole: install or update, pack, uninstall.

built_executable() {
    local dir=$profile
    if [ -n "$executable" ]; then
        printf '%s\n' "$executable"
    else
        printf '%s/%s/overstory\n' "$(target_dir)" "$dir"
    fi
}

target_dir() {
    (cd "$source_dir" && as_builder cargo metadata --format-version 1 --no-deps --locked) |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

run_install() {
    local order
    locate_prefix "${prefix_wanted:-$(default_prefix)}"
    require_usable_prefix
    settle_owner
    store=${store_wanted:-$(state_get store)}
    store=${store:-embedded}
    order=$(selected_packages) || exit $?
    step_count=5
    [ -z "$executable" ] || step_count=$((step_count - 1))
    [ "$start" = no ] || step_count=$((step_count + 1))

    require_needs
    step 'system packages' system_packages
    if [ -z "$executable" ]; then
        step "build ($profile)" each_package "$order" build
    fi
    claim_prefix
    state_set store "$store"
    was_running=no
    none_left || was_running=yes
    step "install into $prefix" install_into_prefix "$order"
    step 'secrets' each_package "$order" secrets
    step 'provision' provision_prefix "$order"
    [ "$start" = no ] || step 'start' start_stack
    keep_log
    closing_words
}

each_package() { # ORDER FUNCTION
    local name
    for name in $1; do
        printf -- '-- %s: %s\n' "$name" "$2"
        in_package "$name" "$2"
    done
}

install_into_prefix() { # ORDER
    local name need
    if [ -n "$only" ]; then
        for need in $(package_field "$only" REQUIRES); do
            is_installed "$need" || die "$exit_failed" "$only requires $need, which is not installed; run without --only first"
        done
    else
        exclusively choose_ports
    fi
    each_package "$1" install_or_update
}

# Runs inside a package's shell.
install_or_update() {
    begin_package
    if is_installed "$package"; then update; else install; fi
    finish_package
}

# A MongoDB of ours must be up while the accounts are made in it.
provision_prefix() { # ORDER
    local started=no service=$prefix/bin/service
    if [ "$store" = mongodb ] && [ -f "$prefix/etc/supervisord.d/mongodb.conf" ] && ! as_owner "$service" mongodb status; then
        as_owner "$service" mongodb start
        started=yes
    fi
    each_package "$1" provision
    [ "$started" = no ] || as_owner "$service" mongodb stop
}

# What runs already goes on with its old files, so changed ones mean a restart.
start_stack() {
    if [ "$was_running" = yes ] && [ -s "$work/changed" ]; then
        as_owner "$prefix/bin/hypcontrol" restart
    else
        as_owner "$prefix/bin/hypcontrol" start
    fi
}

# The log of a run that went well belongs to the installation.
keep_log() {
    local to=$prefix/var/log/build-install.log
    rm -f -- "$to"
    mv -- "$log" "$to"
    give_to_owner "$to"
}

web_address() {
    local listen
    listen=$(sed -n 's/^command=.*--listen[ =]\([^ ]*\).*/\1/p' "$prefix/etc/supervisord.d/webserver.conf" 2>/dev/null)
    printf 'http://%s/\n' "${listen:-127.0.0.1:$(port_of web_port)}"
}

closing_words() {
    local bin=$prefix/bin/
    [ "$(readlink -- "$root_links/hypcontrol")" != "${bin}hypcontrol" ] || bin=
    printf '\nOverstory %s is in %s' "$version" "$prefix"
    if [ "$start" = yes ]; then
        printf ' and running.\n'
    elif [ "$was_running" = yes ] && [ -s "$work/changed" ]; then
        printf '; what runs is still the old one: %shypcontrol restart\n' "$bin"
    else
        printf '.\n'
    fi
    if [ "$owner" != "$(id -un)" ]; then printf '  %-16s %s\n' 'runs as' "$owner"; fi
    if [ -f "$prefix/etc/supervisord.d/webserver.conf" ]; then
        printf '  %-16s %s\n' 'REST API' "$(web_address)"
    fi
    if [ -f "$work/new-admin" ]; then
        printf '  %-16s %s\n' 'account' admin 'password' "$(cat "$prefix/etc/initial-admin-password")" \
            '' "(kept in $prefix/etc/initial-admin-password; it is not shown again)"
    elif [ -f "$prefix/etc/initial-admin-password" ]; then
        printf '  %-16s %s\n' 'account' "admin, its first password is in $prefix/etc/initial-admin-password"
    fi
    if [ "$start" = yes ]; then
        printf '  %-16s %s\n' 'state' "${bin}hypcontrol status" 'stop' "${bin}hypcontrol stop"
    else
        printf '  %-16s %s\n' 'start' "${bin}hypcontrol start" 'stop' "${bin}hypcontrol stop"
    fi
}

run_package() {
    local name
    name=overstory-$version-$(uname -m)
    step_count=3
    [ -z "$executable" ] || step_count=$((step_count - 1))
    store=embedded
    require_needs
    step 'system packages' system_packages
    if [ -z "$executable" ]; then
        step "build ($profile)" in_package tools build
    fi
    step "pack $name.tar.zst" pack "$name"
    printf '\n%s (%s)\n' "$PWD/$name.tar.zst" "$(du -h -- "$name.tar.zst" | cut -f 1)"
    printf 'On the other machine: tar xf %s.tar.zst && %s/install.sh --start\n' "$name" "$name"
}

# The package is this installer with the executable in place of the sources.
pack() { # NAME
    local to=$work/$1 file
    mkdir -p -- "$to/bin" "$to/docs"
    cp -a -- "$source_dir/build-install.sh" "$source_dir/LICENSE" "$source_dir/etc" "$source_dir/supervisord.d" "$to/"
    cp -a -- "$packages_source" "$to/packages"
    mv -- "$to/packages/dist/install.sh" "$to/install.sh"
    rm -rf -- "$to/packages/dist" "$to/packages/lib/test.sh"
    cp -- "$(built_executable)" "$to/bin/overstory"
    # Line tables are five sixths of it.
    ! have strip || strip --strip-debug "$to/bin/overstory" || true
    for file in README.md CHANGELOG.md docs/OPERATIONS.md; do
        [ ! -f "$source_dir/$file" ] || cp -- "$source_dir/$file" "$to/$file"
    done
    printf '%s\n' "$version" >"$to/VERSION"
    tar -C "$work" --owner=0 --group=0 --numeric-owner --sort=name -cf - -- "$1" | zstd -q -10 -T0 -f -o "$PWD/$1.tar.zst"
}

run_uninstall() {
    local order dependent
    locate_prefix "${prefix_wanted:-$(default_prefix)}"
    if ! prefix_is_ours; then
        [ ! -e "$prefix" ] || die "$exit_refused" "$prefix was not made by this installer"
        printf 'Nothing is installed in %s.\n' "$prefix"
        return
    fi
    settle_owner
    lock_prefix
    store=$(state_get store)
    store=${store:-embedded}
    if [ "$purge" = yes ] && [ "$yes" = no ] && [ -t 0 ]; then
        printf 'This deletes %s with all its data. Type yes to go on: ' "$prefix"
        read -r dependent
        [ "$dependent" = yes ] || die "$exit_failed" 'nothing was removed'
    fi
    order=$(installed_backwards) || exit $?
    if [ -n "$only" ]; then
        for dependent in $order; do
            [[ " $(package_field "$dependent" REQUIRES) " != *" $only "* ]] ||
                die "$exit_failed" "$dependent requires $only; uninstall it first"
        done
        is_installed "$only" || die "$exit_failed" "$only is not installed"
        order=$only
    fi
    step_count=2
    [ "$purge" = no ] || [ -n "$only" ] || step_count=3
    step 'stop' stop_packages
    step 'remove' remove_packages "$order"
    if [ "$purge" = yes ] && [ -z "$only" ]; then
        step 'purge' exclusively purge_prefix
    elif [ -z "$only" ]; then
        printf '\nData is kept in %s/var/lib' "$prefix"
        [ ! -d "$prefix/srv" ] || printf ' and %s/srv' "$prefix"
        printf '; --uninstall --purge removes it.\n'
    fi
}

# The installed packages, each before what it requires.
installed_backwards() {
    local names=() file
    for file in "$packages_dir"/*.info; do
        [ ! -f "$file" ] || names+=("$(basename "$file" .info)")
    done
    in_order "${names[@]}" | tac | while read -r file; do
        ! is_installed "$file" || printf '%s\n' "$file"
    done
}

stop_packages() {
    if [ -z "$only" ]; then
        stop_everything
    elif [ -f "$prefix/etc/supervisord.d/$only.conf" ] && ! none_left; then
        as_owner "$prefix/bin/service" "$only" stop
    elif ! none_left; then
        in_package "$only" stop
    fi
}

remove_packages() { # ORDER
    local name
    for name in $1; do
        in_package "$name" remove
        [ "$purge" = no ] || in_package "$name" purge
    done
    [ -z "$only" ] || return 0
    # What the programs wrote for themselves while they ran; what waits for the broker in var/spool is data.
    rm -rf -- "${prefix:?}/var/run" "$prefix/var/log" "$prefix/tmp"
    for name in etc/supervisord.d etc/engines etc/rabbitmq etc/secrets etc bin var/spool; do
        rmdir -- "$prefix/$name" 2>/dev/null || true
    done
}

purge_prefix() {
    rm -rf --one-file-system -- "${prefix:?}"
    forget_prefix
    ! as_root || remove_made_user
    rmdir -- "$(registry_dir)" 2>/dev/null || true
}
