# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the ports. Other parts set some of the variables:
# shellcheck shell=dash disable=SC2154

setup_ports() {
    local port mtu status=0
    for port in $(recorded_ports); do
        is_listed "$port" "$ports" || put_back "$port"
    done
    while read -r port mtu; do
        if [ -z "$port" ]; then
            :
        elif is_ready "$port"; then
            setup_port "$port" "$mtu" || status=$PORT_TROUBLE
        else
            say "port $port does not exist yet: $(advice_for_missing "$port")"
        fi
    done <<EOF
$ports
EOF
    return "$status"
}

# Whether a port exists and udev has processed it. Until then udev can rename the port. The unit of
# the port starts when udev has processed it.
is_ready() { # PORT
    local index
    read_value "$SYS/$1/ifindex"
    [ -n "$value" ] || return 1
    [ ! -e /run/udev/control ] || [ -e "/run/udev/data/n$value" ]
}

# Sets $value to the first line of a file, or to nothing if the file does not exist.
read_value() { # FILE
    value=''
    [ ! -f "$1" ] || read -r value <"$1"
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

# Sets up an interface as a mirror port. Settings that are right are not changed. The previous value
# of each changed setting is recorded first.
setup_port() { # PORT MTU
    local port=$1 features status=0
    note_port "$port" || return 1
    features=$(ethtool -k "$port" 2>/dev/null)
    switch_off "$port" large-receive-offload lro || warn "$port: LRO cannot be switched off: counts will be wrong"
    # These delay packets, or drop frames of VLANs. Some drivers cannot switch them off.
    switch_off "$port" rx-gro-list rx-gro-list
    switch_off "$port" rx-vlan-filter rx-vlan-filter
    setup_mtu "$port" "$2" || status=1
    setup_ipv6 "$port"
    read_flags "$port"
    case $flags in *,NOARP,*) ;; *) note "$port" arp on ;; esac
    case $flags in *,PROMISC,*) ;; *) note "$port" promisc off ;; esac
    case $flags in *,UP,*) ;; *) note "$port" state down ;; esac
    # With ARP on, the host would answer mirrored requests for any of its addresses.
    set_link "$port" arp off promisc on up || status=1
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

recorded_ports() { ls "$RUN/ports" 2>/dev/null; }

# Starts the record of a port. If another interface now has its name, the old record is discarded.
note_port() { # PORT
    local value index
    read_value "$SYS/$1/ifindex"
    index=$value
    [ -d "$RUN/ports" ] || mkdir "$RUN/ports" || return 1
    read_note "$1" ifindex
    [ "$value" = "$index" ] || echo "ifindex $index" >"$RUN/ports/$1"
}

# Records the previous value of a setting, unless it is recorded already.
note() { # PORT KEY VALUE
    local value
    read_note "$1" "$2"
    [ -n "$value" ] || echo "$2 $3" >>"$RUN/ports/$1"
}

# Sets $value to the recorded value, or to nothing if none was recorded.
read_note() { # PORT KEY
    local key noted
    value=''
    [ -f "$RUN/ports/$1" ] || return 0
    while read -r key noted; do
        [ "$key" != "$2" ] || value=$noted
    done <"$RUN/ports/$1"
}

# Restores the settings of a port, unless the port has disappeared in the meantime.
put_back() { # PORT
    local port=$1 key value index status=0
    read_value "$SYS/$port/ifindex"
    index=$value
    read_note "$port" ifindex
    if [ "$value" = "$index" ]; then
        # Down first, so that no frame is received with only some of the settings restored.
        for key in state promisc arp mtu disable_ipv6 lro rx-gro-list rx-vlan-filter; do
            read_note "$port" $key
            [ -z "$value" ] || put_back_setting "$port" $key "$value" || status=1
        done
    fi
    rm -f "$RUN/ports/$port"
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
