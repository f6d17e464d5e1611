# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the devices that it makes, which are mirror devices and tunnels. Other parts
# share the variables:
# shellcheck shell=dash disable=SC2034,SC2154
#
# The record of a port has the ifindex of each of its devices, as `mirror-index` and `tunnel-index`.
# It is `new` while the device is being made. A device that is not in the record is not changed.

# Whether the kernel has the link type `mirror`. A mirror device needs a link, so this makes none.
# Without the hook PROMISC nothing can be counted at all, and the answer is yes: `check` then shows
# what the kernel of xt_traffic does.
has_mirror_type() {
    has_hook "$(uname -r)" || return 0
    try ip link add name xt-traffic-type type mirror
    case $complaint in *'Unknown device type'* | *'not supported'*) return 1 ;; esac
}

# Makes the mirror devices of the ports that exist. While they are down they have no effect. A port
# that cannot have one is used without it, as in version 0.2.0: ports of Open vSwitch, for example.
make_mirrors() {
    local port device mtu sliced kind words kept='' status=0
    while read -r port device mtu sliced kind words; do
        [ -n "$port" ] || continue
        if [ "$kind" = port ] && [ "$device" != - ] && is_ready "$port" && ! make_mirror; then
            warn "port $port is used without a mirror device"
            set_note "$port" mirror - && set_note "$port" refused "$device"
            device=- status=$PORT_TROUBLE
        fi
        kept="$kept$port $device $mtu $sliced $kind${words:+ $words}$NL"
    done <<EOF
$ports
EOF
    [ "$kept" != "$ports" ] || return "$status"
    ports=$kept
    want_again
    return "$status"
}

# Makes the mirror device of the port, and brings it up.
setup_mirror() {
    make_mirror || return 1
    try ethtool --set-priv-flags "$device" sliced "$sliced" ||
        warn "ethtool --set-priv-flags $device sliced $sliced: $complaint"
    set_link "$device" up
}

make_mirror() {
    local value index
    read_value "$SYS/$port/ifindex"
    index=$value
    # If the port has moved to another network namespace, its mirror device still exists.
    read_value "$SYS/$device/iflink"
    [ "$value" = "$index" ] || remove_mirror "$port" || return 1
    # shellcheck disable=SC2046  # the words are split
    make_device mirror-index "$device" $(mirror_words)
}

make_tunnel() {
    # shellcheck disable=SC2046  # the words are split
    make_device tunnel-index "$port" $(tunnel_words)
}

# Print what follows `ip link add` for a line of $ports.
mirror_words() { echo "link $port name $device type mirror"; }
tunnel_words() { echo "name $port type $kind $words"; }

# Makes a device for the port, unless that was done before. Fails if another device has its name.
make_device() { # KEY DEVICE WORD...
    local key=$1 name=$2 value
    shift 2
    if [ ! -e "$SYS/$name" ]; then
        set_note "$port" "$key" new || return 1
        if ! try ip link add "$@"; then
            warn "ip link add $*: $complaint"
            set_note "$port" "$key" ''
            return 1
        fi
    elif ! is_ours "$port" "$key" "$name"; then
        warn "$name exists already, and xt-traffic has not made it: choose another name in $CONF"
        return 1
    fi
    read_value "$SYS/$name/ifindex"
    set_note "$port" "$key" "$value"
}

# Whether a device was made for the port. If xt-traffic was killed while it made the device, the
# record does not have the ifindex.
is_ours() { # PORT KEY DEVICE
    local value index type=mirror
    read_value "$SYS/$3/ifindex"
    index=$value
    read_note "$1" "$2"
    case $2,$value in
        *,) return 1 ;;
        mirror-index,new)
            read_value "$SYS/$1/ifindex"
            index=$value
            read_value "$SYS/$3/iflink"
            [ "$value" = "$index" ] || return 1
            ;;
        tunnel-index,new)
            read_note "$1" kind
            type=${value%% *}
            ;;
        *)
            [ "$value" = "$index" ]
            return
            ;;
    esac
    [ -n "$(ip -o link show dev "$3" type "$type")" ]
}

remove_mirror() { # PORT
    local value
    read_note "$1" mirror
    [ -z "$value" ] || remove_device "$1" mirror-index "$value"
}

remove_tunnel() { # PORT
    remove_device "$1" tunnel-index "$1"
}

# Removes a device if it was made for the port.
remove_device() { # PORT KEY DEVICE
    if [ ! -e "$SYS/$3" ] || ! is_ours "$@"; then return 0; fi
    try ip link del dev "$3" || { warn "ip link del dev $3: $complaint"; return 1; }
}
