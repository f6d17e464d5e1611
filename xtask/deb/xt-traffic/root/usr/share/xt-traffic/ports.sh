# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the ports.
# shellcheck shell=sh disable=SC3043,SC2086,SC2046,SC2015,SC2034,SC2154

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
            say "$port is not there yet: $(what_helps "$port")"
        fi
    done <<EOF
$ports
EOF
    return $status
}

# A port that udev still works on can get another name, so it is left alone: the unit for it comes when udev is done.
is_ready() { # PORT
    local index
    read_value "$SYS/$1/ifindex"
    [ -n "$value" ] || return 1
    [ ! -e /run/udev/control ] || [ -e "/run/udev/data/n$value" ]
}

# Sets $value to what a file holds; empty if there is none.
read_value() { # FILE
    value=''
    [ ! -f "$1" ] || read -r value <"$1"
}

# What makes a port count that comes later. The unit for it is pulled in by what xt-traffic-generator has made.
what_helps() { # PORT
    local device=/sys/subsystem/net/devices/$1
    if [ ! -d /run/systemd/system ]; then
        echo "run 'xt-traffic start' again when it is"
    elif [ -e "/run/systemd/generator/$(systemd-escape --path --suffix=device "$device").wants" ]; then
        echo 'it is set up when it comes'
    else
        echo "run 'systemctl daemon-reload', and it is set up when it comes"
    fi
}

# Makes a mirror port of an interface, as far as it is not one. What it was like is noted first.
setup_port() { # PORT MTU
    local port=$1 features status=0
    note_port "$port" || return 1
    features=$(ethtool -k "$port" 2>/dev/null)
    switch_off "$port" large-receive-offload lro || warn "$port: LRO cannot be switched off: counts will be wrong"
    # They hold packets back, or frames of VLANs. A driver that does not let go of them has its reason.
    switch_off "$port" rx-gro-list rx-gro-list
    switch_off "$port" rx-vlan-filter rx-vlan-filter
    setup_mtu "$port" "$2" || status=1
    setup_ipv6 "$port"
    read_flags "$port"
    case $flags in *,NOARP,*) ;; *) note "$port" arp on ;; esac
    case $flags in *,PROMISC,*) ;; *) note "$port" promisc off ;; esac
    case $flags in *,UP,*) ;; *) note "$port" state down ;; esac
    # With ARP it would answer what the switch mirrors: requests for any address of the box.
    set_link "$port" arp off promisc on up || status=1
    warn_of_company "$port"
    return $status
}

# Looks for what else uses the port.
warn_of_company() { # PORT
    if [ -e "$SYS/$1/master" ]; then
        warn "$1 belongs to another interface, which takes its frames away"
    elif [ -n "$(ip -o -4 address show dev "$1")" ]; then
        warn "$1 has an address; a mirror port should have none"
    fi
}

set_link() { # PORT SETTING...
    try ip link set dev "$@" || { warn "ip link set dev $*: $complaint"; return 1; }
}

# Sets $flags, with commas between them and at both ends.
read_flags() { # PORT
    flags=$(ip -o link show dev "$1")
    flags=${flags#*<}
    flags=,${flags%%>*},
}

# Switches a feature of $features off, if it is on.
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
    # Without one, what it was before an earlier configuration changed it.
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

# Begins the record of a port. Another interface with the same name is another port.
note_port() { # PORT
    local value index
    read_value "$SYS/$1/ifindex"
    index=$value
    [ -d "$RUN/ports" ] || mkdir "$RUN/ports" || return 1
    read_note "$1" ifindex
    [ "$value" = "$index" ] || echo "ifindex $index" >"$RUN/ports/$1"
}

# Notes what a setting was, once.
note() { # PORT KEY VALUE
    local value
    read_note "$1" "$2"
    [ -n "$value" ] || echo "$2 $3" >>"$RUN/ports/$1"
}

# Sets $value to what was noted; empty if nothing was.
read_note() { # PORT KEY
    local key noted
    value=''
    [ -f "$RUN/ports/$1" ] || return 0
    while read -r key noted; do
        [ "$key" != "$2" ] || value=$noted
    done <"$RUN/ports/$1"
}

# Gives a port back as it was. If it has gone meanwhile, there is nothing to do.
put_back() { # PORT
    local port=$1 key value index status=0
    read_value "$SYS/$port/ifindex"
    index=$value
    read_note "$port" ifindex
    if [ "$value" = "$index" ]; then
        # Down first, so that nothing is heard with half of the settings.
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
