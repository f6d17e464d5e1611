# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the rules that the configuration asks for. Other parts share the variables:
# shellcheck shell=dash disable=SC2034,SC2154

# Sets $wanted from the configuration: one line TOOL CHAIN WORDS... for each rule. TOOL names the
# back end that `iptables` uses now, so that the tool that adds a rule also removes it.
#
# Everything that a mirror device receives passes through PROMISC. Without the link type, or without
# a name for a mirror device, the rules are for the port itself.
want() {
    wanted='' mirror_type=yes iptables='' ip6tables=''
    [ -n "$tables" ] || return 0
    iptables=$(tool iptables) && ip6tables=$(tool ip6tables) || exit 1
    has_mirror_type || use_no_mirrors
    want_for_ports
}

# Sets $wanted and $missing again after the mirror devices in $ports have changed.
want_again() {
    wanted=''
    want_for_ports
    find_missing
}

# Sets $wanted to the rules of $ports without the mirror devices that could not be made.
want_as_recorded() {
    local port device rest value changed=''
    while read -r port device rest; do
        [ -n "$port" ] || continue
        read_note "$port" refused
        [ "$value" != "$device" ] || device=-
        changed="$changed$port $device $rest$NL"
    done <<EOF
$ports
EOF
    ports=$changed wanted=''
    [ -z "$tables" ] || want_for_ports
}

want_for_ports() {
    local chain port family options plain='' mirrors=''
    sort_ports
    while read -r _ _ family options; do
        [ -n "$family" ] || continue
        [ "$family" = iptables ] && family=$iptables || family=$ip6tables
        want_rules PROMISC "$mirrors"
        for chain in $chains; do
            want_rules "$chain" "$plain"
        done
    done <<EOF
$tables
EOF
}

want_rules() { # CHAIN DEVICES
    local device
    for device in $2; do
        wanted="$wanted$family $1 -i $device -m traffic $options$NL"
    done
}

# Sets $mirrors to the mirror devices, and $plain to the ports that have none.
sort_ports() {
    local port device
    while read -r port device _; do
        case $device in
            -) plain="$plain $port" ;;
            *) mirrors="$mirrors $device" ;;
        esac
    done <<EOF
$ports
EOF
}

# Takes the mirror devices out of $ports.
use_no_mirrors() {
    local port rest changed=''
    mirror_type=no
    while read -r port _ rest; do
        [ -z "$port" ] || changed="$changed$port - $rest$NL"
    done <<EOF
$ports
EOF
    ports=$changed
}

# Says what the administrator may not expect.
say_hints() {
    local port device plain=''
    if [ "$mirror_type" = no ]; then
        say "$NO_MIRROR_TYPE"
        return
    fi
    while read -r port device _; do
        if [ "$device" = - ]; then
            plain=yes
            say "port $port has no mirror device, because its name is too long:" \
                "choose one with \"port $port as DEVICE\""
        fi
    done <<EOF
$ports
EOF
    [ -z "$chains_line" ] || [ -n "$plain" ] ||
        say "$CONF:$chains_line: chains has no effect on mirror devices: this line can be removed"
}

tool() { # iptables|ip6tables
    local version
    version=$("$1" -V) || die 1 "cannot run '$1 -V'"
    case $version in
        *'(legacy)'*) echo "$1-legacy" ;;
        *) echo "$1-nft" ;;
    esac
}

# Splits a rule: sets $tool, $chain, and $words to the words after them. Of these words, sets $port,
# $match to the options of the table, and $name to the name of the table.
take_apart() { # RULE
    tool=${1%% *}
    words=${1#* }
    chain=${words%% *}
    words=${words#* }
    port=${words#-i }
    port=${port%% *}
    match=${words#* -m traffic }
    name=${match#* --name }
    name=${name%% *}
}
