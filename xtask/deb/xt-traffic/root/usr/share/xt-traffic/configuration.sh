# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the configuration. Other parts share the variables:
# shellcheck shell=dash disable=SC2034,SC2154

# Reads $CONF and sets
#   ports    lines NAME DEVICE MTU SLICED KIND WORD... for each port and tunnel. DEVICE is the mirror
#            device, MTU is 0 if none is configured, SLICED is on or off, and KIND is `port`, or the
#            link type of a tunnel, which is made with the words
#   tables   lines NUMBER NAME FAMILY WORD..., where NUMBER is the line number, FAMILY is iptables
#            or ip6tables, and the words are those after `-m traffic` in a rule
#   chains   words, and chains_line is the number of their line, if there is one
read_conf() {
    local line names='' receivers=''
    ports='' tables='' chains='' chains_line='' number=0
    if [ ! -f "$CONF" ] || [ ! -r "$CONF" ]; then
        die "$BAD_CONF" "$CONF: cannot be read"
    fi
    while read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        # shellcheck disable=SC2086  # the line is split into words
        set -- ${line%%#*}
        case ${1-} in
            '') ;;
            port) read_port "$@" ;;
            tunnel) read_tunnel "$@" ;;
            table) read_table "$@" ;;
            chains) read_chains "$@" ;;
            *) bad "unknown word \"$1\" (expected port, tunnel, table or chains)" ;;
        esac
    done <"$CONF"
    chains=${chains:-PROMISC}
    if [ -n "$ports" ] && [ -z "$tables" ]; then
        die "$BAD_CONF" "$CONF: there is a port, but no table"
    elif [ -n "$tables" ] && [ -z "$ports" ]; then
        die "$BAD_CONF" "$CONF: there is a table, but no port or tunnel"
    fi
    check_parents
}

# A mirror device takes all frames of its port, so no tunnel can receive there.
check_parents() {
    local port kind words parent
    while read -r port _ _ _ kind words; do
        find_parent
        if [ "$kind" != port ] && [ -n "$parent" ] && is_listed "$parent" "$ports"; then
            die "$BAD_CONF" "$CONF: tunnel $port: dev $parent is a mirror port, where no tunnel receives"
        fi
    done <<EOF
$ports
EOF
}

bad() { die "$BAD_CONF" "$CONF:$number: $*"; }

read_port() { # port NAME [OPTION]...
    local name=${2-} device='' mtu=0 sliced=off taken
    is_port_name "$name" || bad "port: invalid name \"$name\": the name of a network interface is required"
    shift 2
    while [ $# -gt 0 ]; do
        read_option "port $name" "$@" || bad "port $name: unknown option \"$1\" (expected as, mtu or sliced)"
        shift "$taken"
    done
    add_port port port
}

# Reads an option that ports and tunnels have into $device, $mtu or $sliced. Sets $taken to the
# number of its words. Fails if there is no such option.
read_option() { # WHAT OPTION [VALUE]...
    taken=2
    case $2 in
        as)
            device=${3-}
            is_port_name "$device" || bad "$1: invalid name \"$device\" after as: 1 to 15 of A-Z a-z 0-9 . _ - are required"
            ;;
        mtu)
            mtu=${3-}
            is_number "$mtu" 68 65535 || bad "$1: invalid mtu \"$mtu\": a number from 68 to 65535 is required"
            ;;
        sliced) sliced=on taken=1 ;;
        *) return 1 ;;
    esac
}

# Adds the port or the tunnel $name. No two interfaces of the configuration have the same name.
add_port() { # port|tunnel KIND [WORD]...
    local what=$1
    shift
    ! is_listed "$name" "$ports" || bad "$what $name is listed twice"
    ! is_listed "$name" "$names" || bad "$what $name: this is the name of another mirror device"
    device=${device:-m-$name}
    # Earlier versions accepted a port with such a name, so it is used without a mirror device.
    if ! is_port_name "$device"; then
        case $what,$command in
            tunnel,* | port,check)
                bad "$what $name: the name of its mirror device, $device, has more than 15 characters:" \
                    "choose one with \"$what $name as DEVICE\""
                ;;
        esac
        device=-
    elif is_listed "$device" "$names$name$NL"; then
        bad "$what $name: the name of its mirror device, $device, is used already:" \
            "choose one with \"$what $name as DEVICE\""
    fi
    names="$names$name$NL$device$NL"
    ports="$ports$name $device $mtu $sliced $*$NL"
}

read_table() { # table NAME NET OPTION...
    local name=${2-} net=${3-} family width traffic='' ipconn='' portconn='' prefix='' hashsize='' clear='' internal=''
    is_table_name "$name" || bad "table: invalid name \"$name\": 1 to 31 of the characters A-Z a-z 0-9 _ - are required"
    case $tables in *" --name $name "*) bad "table $name is listed twice" ;; esac
    read_family "$net" ||
        bad "table $name: invalid network \"$net\": ADDRESS/LENGTH is required, like 193.11.176.0/20 or 2001:db8::/32"
    shift 3
    while [ $# -gt 0 ]; do
        case $1 in
            --traffic) traffic=' --traffic' ;;
            --ipconn) ipconn=' --ipconn' ;;
            --portconn) portconn=' --portconn' ;;
            --clearonread) clear=' --clearonread' ;;
            --nointernal) internal=' --nointernal' ;;
            '!')
                [ "${2-}" = --nointernal ] || bad "table $name: only --nointernal can follow \"!\""
                internal=' ! --nointernal'
                shift
                ;;
            --prefix)
                is_number "${2-}" 0 "$width" ||
                    bad "table $name: invalid --prefix \"${2-}\": a number from 0 to $width is required"
                prefix=" --prefix $2"
                shift
                ;;
            --hashsize)
                is_number "${2-}" 1 16777216 ||
                    bad "table $name: invalid --hashsize \"${2-}\": a number from 1 to 16777216 is required"
                hashsize=" --hashsize $2"
                shift
                ;;
            *) bad "table $name: unknown option \"$1\" (see libxt_traffic(8))" ;;
        esac
        shift
    done
    [ -n "$traffic$ipconn$portconn" ] || bad "table $name: at least one of --traffic, --ipconn and --portconn is required"
    # This is the default.
    [ "$prefix" != " --prefix $width" ] || prefix=''
    # Always in the same order, so that the rule does not depend on the order of the options.
    set -- "$traffic$ipconn$portconn --net $net$prefix --name $name$hashsize$clear$internal"
    tables="$tables$number $name $family$1 $MARK$NL"
}

read_chains() { # chains CHAIN...
    shift
    [ -z "$chains" ] || bad "chains is given more than once"
    chains_line=$number
    [ $# -gt 0 ] || bad "chains: at least one of PROMISC, INPUT and FORWARD is required"
    while [ $# -gt 0 ]; do
        case " $chains " in *" $1 "*) bad "chains: $1 is listed twice" ;; esac
        case $1 in
            PROMISC | INPUT | FORWARD) chains="${chains:+$chains }$1" ;;
            *) bad "chains: unknown chain \"$1\" (expected PROMISC, INPUT or FORWARD)" ;;
        esac
        shift
    done
}

is_number() { # WORD MIN MAX
    case $1 in '' | 0?* | *[!0-9]* | ???????????*) return 1 ;; esac
    [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

is_port_name() {
    # `all` and `default` are special names in /proc/sys/net.
    case $1 in '' | -* | . | .. | all | default | lo | *[!A-Za-z0-9._-]* | ????????????????*) return 1 ;; esac
}

is_table_name() {
    case $1 in '' | *[!A-Za-z0-9_-]* | ????????????????????????????????*) return 1 ;; esac
}

# Sets $family to the program for a network, and $width to the number of bits of an address. That
# program checks the network and its prefix completely.
read_family() { # NET
    case $1 in
        *[!0-9a-fA-F.:/]* | */*/*) return 1 ;;
        *:*/[0-9]*) family=ip6tables width=128 ;;
        *.*.*.*/[0-9]*) family=iptables width=32 ;;
        *) return 1 ;;
    esac
}
