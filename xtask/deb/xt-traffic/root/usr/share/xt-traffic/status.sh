# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the command `status`. Functions and other parts set some of the variables:
# shellcheck shell=dash disable=SC2034,SC2154

# Shows the current state. It does not depend on the configuration, which may have errors.
status() {
    local now status=0
    [ "$(id -u)" -eq 0 ] || die 1 'status: only root can do this'
    is_running || die "$NOT_RUNNING" 'not started'
    load_record
    if now=$(read_conf && want && want_as_recorded && echo "$wanted") && [ "${now:+$now$NL}" != "$installed" ]; then
        say "$CONF has changed: run 'xt-traffic reload' to apply it"
    fi
    status_of_ports || status=1
    status_of_rules || status=1
    status_of_tables || status=1
    updates
    return $status
}

status_of_ports() {
    local port device value what state status=0
    has_mirror_type || say "$NO_MIRROR_TYPE"
    for port in $(recorded_ports); do
        # The records of version 0.2.0 have no kind and no mirror device.
        read_note "$port" kind
        case $value in port | '') what=port ;; *) what=tunnel ;; esac
        read_note "$port" mirror
        device=${value:--}
        state_of_port || status=1
        printf '%-6s %-15s  %s\n' "$what" "$port" "$state"
        [ -z "$uncounted" ] || printf '%-6s %-15s  not counted: %s\n' "$what" "$port" "$uncounted"
        [ "$cut" -eq 0 ] || say_if_not_sliced
    done
    return $status
}

# Sets $state to the state of the port, $uncounted to the frames that its mirror device does not
# count, and $cut to the number of those that the mirror has cut. Fails if the port cannot receive
# frames.
state_of_port() {
    local value flags frames counters=$SYS/$port/statistics
    state='does not exist' uncounted='' cut=0
    [ -e "$SYS/$port" ] || return 1
    read_flags "$port"
    case $flags in
        *,NO-CARRIER,*) state='no link' ;;
        *,UP,*) state=up ;;
        *) state=down ;;
    esac
    if [ "$device" = - ]; then
        case $state$flags in up*,PROMISC,*) state=listens ;; up*) state='not promiscuous' ;; esac
        read_value "$counters/rx_packets"
        frames=$value
    elif [ ! -e "$SYS/$device" ]; then
        state="has no mirror device $device"
    else
        read_flags "$device"
        case $state$flags in up*,UP,*) state="listens as $device" ;; up*) state="$device is down" ;; esac
        count_frames
    fi
    case $state in listens*) ;; *) return 1 ;; esac
    read_value "$counters/rx_missed_errors"
    state="$state: $frames frames, $value missed"
}

# Sets $frames, $uncounted and $cut from the statistics of the mirror device.
count_frames() {
    local key value
    frames=0
    while read -r key value; do
        case $key in
            rx_*_packets:) frames=$((frames + value)) ;;
            *) continue ;;
        esac
        case $key,$value in
            *,0 | rx_ipv?_packets:,*) continue ;;
            rx_cut_*) cut=$value ;;
        esac
        key=${key#rx_}
        key=${key%_packets:}
        case $key in
            not_ip) key='not IP' ;;
            too_deep) key='too deep' ;;
            no_memory) key='no memory' ;;
        esac
        uncounted="${uncounted:+$uncounted, }$value $key"
    done <<EOF
$(ethtool -S "$device" 2>/dev/null)
EOF
}

say_if_not_sliced() {
    case $(ethtool --show-priv-flags "$device" 2>/dev/null) in
        *sliced*off*) say "$what $port: add the option sliced to count frames whose end is cut off" ;;
    esac
}

status_of_rules() {
    local rule tool chain words port match name counters listed='' list status=0
    while read -r rule; do
        [ -n "$rule" ] || continue
        take_apart "$rule"
        if [ "$listed" != "$tool $chain" ]; then
            list=$("$tool" -w -v -S "$chain")
            listed="$tool $chain"
        fi
        read_counters || status=1
        printf 'rule   %-15s  %s %s -i %s: %s\n' "$name" "$tool" "$chain" "$port" "$counters"
    done <<EOF
$installed
EOF
    return $status
}

# Sets $counters to those of the rule that take_apart has split. $list has all rules of its chain.
read_counters() {
    local line
    counters=missing
    while read -r line; do
        case $line in
            *" -i $port -m traffic "*" --name $name "*"$MARK"*)
                counters=${line##* -c }
                counters="${counters%% *} packets, ${counters##* } bytes"
                return 0
                ;;
        esac
    done <<EOF
$list
EOF
    return 1
}

# Shows the statistics of the module for each file. Fails if a table waits for the files of its name.
status_of_tables() {
    local file key value rows status=0
    [ -f "$TABLES/.stats" ] || return 0
    while read -r key value; do
        file=${key%.*}
        case $key in
            *.flows.*) ;;
            *.rows) rows=$value ;;
            *.overflows)
                case $installed in
                    *" --name ${file%%.*} "*) echo "table  $TABLES/$file: $rows rows, $value overflows" ;;
                esac
                ;;
            *.waiting)
                case $installed in
                    *" --name $file "*)
                        echo "table  $TABLES/$file: $TWO_TABLES"
                        status=1
                        ;;
                esac
                ;;
        esac
    done <"$TABLES/.stats"
    return $status
}

# Says if the next boot uses another kernel than the running one, and if Debian has a newer kernel or
# iptables.
updates() {
    local installed newest
    installed=$(installed_images "$BOOT" | sed -n 1p)
    newest=$(newest_image "$BOOT")
    if [ "$installed" != "$newest" ]; then
        say "kernel ${installed##*/vmlinuz-} has no initrd, or is not signed for Secure Boot: it is not used"
    fi
    newest=${newest##*/vmlinuz-}
    say_if_source_is_old
    say_if_iptables_is_old
    say_if_boot_differs
}

say_if_boot_differs() {
    local running next=''
    running=$(uname -r)
    if command -v update-grub >/dev/null; then
        next=$(default_image "$BOOT/grub")
        next=${next##*/vmlinuz-}
    fi
    if [ -n "$next" ] && ! has_hook "$next"; then
        say "the next boot uses kernel $next, which has no hook PROMISC and does not count"
    elif [ -z "$newest" ] || [ "${next:-$newest}" = "$running" ]; then
        return
    elif [ "${next:-$newest}" = "$newest" ]; then
        say "kernel $newest is installed, but $running is running: reboot to use it"
    else
        say "the next boot uses kernel $next, but $running is running, and $newest is the newest"
    fi
}

# Whether a kernel is one of xt_traffic. One with another name has the hook if the module is loaded.
has_hook() { # RELEASE
    case $1 in *-promisc.* | *-promisc) return 0 ;; esac
    [ "$1" = "$(uname -r)" ] && [ -d "$TABLES" ]
}

# The package of a kernel has the version of Debian's source in its field Built-Using:
# "linux (= VERSION)".
say_if_source_is_old() {
    local source version package installed_version highest_version
    [ -n "$newest" ] || return 0
    source=$(dpkg-query --show --showformat='${Built-Using}' "linux-image-$newest" 2>/dev/null)
    source=${source#linux (= }
    source=${source%)}
    version=${newest%%-*}
    package=linux-source-${version%.*}
    read_versions "$package"
    [ -n "$source" ] || return 0
    if [ -z "$highest_version" ]; then
        say "apt knows no package $package: it cannot tell if Debian has a newer kernel than $source"
    elif dpkg --compare-versions "$highest_version" gt "$source"; then
        say "Debian has kernel $highest_version, but $newest is made of $source: rebuild it with the fixes"
    fi
}

# Debian's iptables has no chain PROMISC, so a file in /etc/apt/preferences.d keeps apt from
# installing a newer one. It may have security fixes. The versions of xt_traffic 0.2.0 are higher
# than those of later releases.
say_if_iptables_is_old() {
    local installed_version highest_version package packages=''
    read_versions iptables
    case $installed_version,$highest_version in
        *+promisc*,*)
            for package in iptables libip4tc2 libip6tc2 libxtables12; do
                packages="$packages $package='*+0promisc*'"
            done
            say "iptables $installed_version is of xt_traffic 0.2.0, and apt does not replace it:" \
                "run apt-get install --allow-downgrades$packages"
            ;;
        *promisc*,*promisc* | ,* | '(none)',*) ;;
        *promisc*,*)
            say "Debian has iptables $highest_version, which has no chain PROMISC:" \
                "rebuild $installed_version with its fixes"
            ;;
        *) say "iptables $installed_version has no chain PROMISC: install the one of xt_traffic" ;;
    esac
}

# Sets $installed_version and $highest_version to the versions of a package that apt knows. They are
# empty if apt does not know it.
read_versions() { # PACKAGE
    local first second table=''
    installed_version='' highest_version=''
    command -v apt-cache >/dev/null || return 0
    # The highest version is first in the table. Three asterisks mark the installed one.
    while read -r first second _; do
        case $table,$first in
            ,Installed:) installed_version=$second ;;
            ,Version) table=yes ;;
            yes,'***') highest_version=$second && break ;;
            yes,*) highest_version=$first && break ;;
        esac
    done <<EOF
$(apt-cache policy "$1" 2>/dev/null)
EOF
}
