# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the ports. Other parts share the variables:
# shellcheck shell=dash disable=SC2034,SC2154

setup_ports() {
    local port device mtu sliced kind words parent status=0
    while read -r port device mtu sliced kind words; do
        [ -n "$port" ] || continue
        find_parent
        if [ -z "$parent" ] || is_ready "$parent"; then
            setup_port || status=$PORT_TROUBLE
        else
            say "port $parent does not exist yet: $(advice_for_missing "$parent")"
        fi
    done <<EOF
$ports
EOF
    return "$status"
}

# Sets $parent to the interface that must exist first, if there is one: a port itself, or that of a
# tunnel that has the option `dev`.
find_parent() {
    case $kind,$words in
        port,*) parent=$port ;;
        *' dev '*) parent=${words##* dev } ;;
        *) parent='' ;;
    esac
}

# Whether a port exists and udev has processed it. Until then udev can rename the port. The unit of
# the port starts when udev has processed it.
is_ready() { # PORT
    local index
    read_value "$SYS/$1/ifindex"
    [ -n "$value" ] || return 1
    [ ! -e /run/udev/control ] || [ -e "/run/udev/data/n$value" ]
}

# Prints what the user has to do for a port that appears later. If xt-traffic-generator has made a
# link for the port, systemd starts the unit of the port.
advice_for_missing() { # PORT
    local device=/sys/subsystem/net/devices/$1
    if [ ! -d /run/systemd/system ]; then
        echo "run 'xt-traffic start' again when it exists"
    elif [ -e "/run/systemd/generator/$(systemd-escape --path --suffix=device "$device").wants" ]; then
        echo 'it is set up when it appears'
    else
        echo "run 'systemctl daemon-reload', then it is set up when it appears"
    fi
}

# Sets up the port or the tunnel of a line of $ports. Settings that are right are not changed. The
# previous value of each changed setting is recorded first.
#
# While the mirror device is up, the kernel makes the port promiscuous, and the host receives nothing
# from it. Some settings are still needed:
#   arp off, disable_ipv6  The host must not send anything from the port either, and it must not
#                          answer while the mirror device is down.
#   lro off                The kernel switches LRO off, but `stop` has to know that it was on.
#   rx-gro-list off        It delays packets.
#   rx-vlan-filter off     It drops frames of VLANs.
setup_port() {
    local features status=0
    [ "$kind" = port ] || make_tunnel || return 1
    note_port "$port" || return 1
    features=$(ethtool -k "$port" 2>/dev/null)
    switch_off "$port" large-receive-offload lro || warn "$port: LRO cannot be switched off: counts will be wrong"
    # Some drivers cannot switch these off.
    switch_off "$port" rx-gro-list rx-gro-list
    switch_off "$port" rx-vlan-filter rx-vlan-filter
    setup_mtu "$port" "$mtu" || status=1
    setup_ipv6 "$port"
    read_flags "$port"
    case $flags in *,NOARP,*) ;; *) note "$port" arp on ;; esac
    case $flags in *,UP,*) ;; *) note "$port" state down ;; esac
    if [ "$device" = - ]; then
        case $flags in *,PROMISC,*) ;; *) note "$port" promisc off ;; esac
        set_link "$port" arp off promisc on up || status=1
    else
        set_link "$port" arp off || status=1
        # Before the port is up, so that the host itself receives nothing.
        setup_mirror || return 1
        set_link "$port" up || status=1
    fi
    warn_if_used "$port"
    return $status
}

# Warns if something else uses the port.
warn_if_used() { # PORT
    if [ -e "$SYS/$1/master" ]; then
        warn "port $1 belongs to another interface, which receives its frames"
    elif [ -n "$(ip -o -4 address show dev "$1")" ]; then
        warn "port $1 has an address; a mirror port should have none"
    fi
}

set_link() { # PORT SETTING...
    try ip link set dev "$@" || { warn "ip link set dev $*: $complaint"; return 1; }
}

# Sets $flags to the flags of the port, with a comma before and after each flag.
read_flags() { # PORT
    flags=$(ip -o link show dev "$1")
    flags=${flags#*<}
    flags=,${flags%%>*},
}

# Switches off a feature in $features, if it is on.
switch_off() { # PORT NAME-IN-THE-LIST NAME-IN-COMMANDS
    case $NL$features in
        *"$NL$2: on [fixed]"*) return 1 ;;
        *"$NL$2: on"*)
            note "$1" "$3" on
            try ethtool -K "$1" "$3" off
            ;;
    esac
}

setup_mtu() { # PORT BYTES
    local value wanted=$2
    # If none is configured now, restore the MTU that an earlier configuration changed.
    if [ "$wanted" -eq 0 ]; then
        read_note "$1" mtu
        wanted=${value:-0}
    fi
    read_value "$SYS/$1/mtu"
    [ "$wanted" -ne 0 ] && [ "$wanted" -ne "$value" ] || return 0
    note "$1" mtu "$value"
    set_link "$1" mtu "$wanted"
}

setup_ipv6() { # PORT
    local value file=/proc/sys/net/ipv6/conf/$1/disable_ipv6
    read_value "$file"
    [ "$value" = 0 ] || return 0
    note "$1" disable_ipv6 0
    echo 1 >"$file"
}

# Restores the settings of a port, unless the port has disappeared in the meantime. Removes the
# devices that were made for it, and its record.
put_back() { # PORT
    local port=$1 value index left='' status=0
    read_value "$SYS/$port/ifindex"
    index=$value
    read_note "$port" ifindex
    if [ -n "$index" ] && [ "$value" = "$index" ]; then
        # Down first, so that no frame is received with only some of the settings restored.
        put_back_settings state || status=1
        remove_mirror "$port" || left=yes
        put_back_settings promisc arp mtu disable_ipv6 lro rx-gro-list rx-vlan-filter || status=1
    else
        remove_mirror "$port" || left=yes
    fi
    remove_tunnel "$port" || left=yes
    # Keep the record of a device that still exists.
    [ -z "$left" ] || return 1
    rm -f "$RUN/ports/$port"
    return $status
}

put_back_settings() { # KEY...
    local key status=0
    for key; do
        read_note "$port" "$key"
        [ -z "$value" ] || put_back_setting "$port" "$key" "$value" || status=1
    done
    return $status
}

put_back_setting() { # PORT KEY VALUE
    case $2 in
        state) set_link "$1" "$3" ;;
        promisc | arp | mtu) set_link "$1" "$2" "$3" ;;
        disable_ipv6) echo "$3" >"/proc/sys/net/ipv6/conf/$1/disable_ipv6" ;;
        *) try ethtool -K "$1" "$2" "$3" || warn "ethtool -K $1 $2 $3: $complaint" ;;
    esac
}
