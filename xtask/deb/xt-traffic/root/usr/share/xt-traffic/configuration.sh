# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the configuration.
# shellcheck shell=dash

# Reads $CONF and sets
#   ports    lines NAME MTU, with the MTU 0 if none is configured
#   tables   lines NUMBER NAME FAMILY WORD..., where NUMBER is the line number, FAMILY is iptables
#            or ip6tables, and the words are those after `-m traffic` in a rule
#   chains   words
read_conf() {
    local line
    ports='' tables='' chains='' number=0
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
            table) read_table "$@" ;;
            chains) read_chains "$@" ;;
            *) bad "unknown word \"$1\" (expected port, table or chains)" ;;
        esac
    done <"$CONF"
    chains=${chains:-PROMISC}
    if [ -n "$ports" ] && [ -z "$tables" ]; then
        die "$BAD_CONF" "$CONF: there is a port, but no table"
    elif [ -n "$tables" ] && [ -z "$ports" ]; then
        die "$BAD_CONF" "$CONF: there is a table, but no port"
    fi
}

bad() { die "$BAD_CONF" "$CONF:$number: $*"; }

read_port() { # port NAME [mtu BYTES]
    local name=${2-} mtu=0
    is_port_name "$name" || bad "port: invalid name \"$name\": the name of a network interface is required"
    ! is_listed "$name" "$ports" || bad "port $name is listed twice"
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
            mtu) mtu=${2-} ;;
            *) bad "port $name: unknown option \"$1\" (expected mtu)" ;;
        esac
        is_number "$mtu" 68 65535 || bad "port $name: invalid mtu \"$mtu\": a number from 68 to 65535 is required"
        shift 2
    done
    ports="$ports$name $mtu$NL"
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
                [ "${2-}" = 0 ] || is_number "${2-}" 1 "$width" ||
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
    case $1 in '' | 0* | *[!0-9]* | ?????????*) return 1 ;; esac
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
