# SPDX-License-Identifier: GPL-2.0-only
# Part of xt-traffic(8): the lines `tunnel` of the configuration. Other parts share the variables:
# shellcheck shell=dash disable=SC2034,SC2154

# Reads a tunnel, which receives the packets of a remote mirror, and adds the words for `ip link add`
# to $ports.
#
# With metadata (`external`) a tunnel accepts the packets of all senders with all keys. The kernel
# ignores the addresses then.
read_tunnel() { # tunnel NAME TYPE [OPTION]...
    local name=${2-} kind=${3-} device='' mtu=0 sliced=off taken options what most families
    local source='' remote='' key='' port='' version='' parent='' inherit='' words=''
    is_port_name "$name" || bad "tunnel: invalid name \"$name\": the name of a new network interface is required"
    what="tunnel $name"
    describe_type
    shift 3
    while [ $# -gt 0 ]; do
        read_tunnel_option "$@"
        shift "$taken"
    done
    if [ "$key" = any ]; then
        [ -z "$source$remote$parent$version" ] || bad "$what: with any, local, remote, version and dev are not allowed"
        key=''
    fi
    port=${port:+dstport ${port}}
    case $kind in
        erspan | ip6erspan) say_erspan ;;
        gretap | ip6gretap) say_gretap ;;
        vxlan) say_vxlan ;;
        geneve) say_geneve ;;
    esac
    check_receivers
    # shellcheck disable=SC2086  # $words is split into words
    add_port tunnel "$kind" $words
}

# Sets what depends on the type: its $options, the families of its addresses, its largest key and
# its port.
describe_type() {
    families='' most=16777215
    case $kind in
        erspan) families=4 most=1023 options='local remote key id version dev' ;;
        ip6erspan) families=6 most=1023 options='local remote key id version dev' ;;
        gretap) families=4 most=4294967295 options='local remote key id dev' ;;
        ip6gretap) families=6 most=4294967295 options='local remote key id dev' ;;
        vxlan) options='local remote key id dstport dev' port=4789 ;;
        geneve) options='remote key id dstport innerprotoinherit' port=6081 ;;
        *) bad "$what: unknown type \"$kind\" (expected erspan, ip6erspan, gretap, ip6gretap, vxlan or geneve)" ;;
    esac
}

# Sets $taken to the number of words of the first option.
read_tunnel_option() { # OPTION [VALUE]...
    ! read_option "$what" "$@" || return 0
    taken=2
    case " $options " in
        *" $1 "*) ;;
        *) bad "$what: unknown option \"$1\" of $kind (expected $options as mtu or sliced)" ;;
    esac
    case $1 in
        local) source=${2-} && check_address "$@" ;;
        remote) remote=${2-} && check_address "$@" ;;
        key | id)
            key=${2-}
            [ "$key" = any ] || is_number "$key" 0 "$most" ||
                bad "$what: invalid $1 \"$key\": a number from 0 to $most, or any, is required"
            ;;
        dstport)
            port=${2-}
            is_number "$port" 1 65535 || bad "$what: invalid dstport \"$port\": a number from 1 to 65535 is required"
            ;;
        version) version=${2-} && check_version ;;
        dev)
            parent=${2-}
            is_port_name "$parent" || bad "$what: invalid dev \"$parent\": the name of a network interface is required"
            ;;
        innerprotoinherit) inherit=' innerprotoinherit' taken=1 ;;
    esac
}

# An address of the tunnel's family. All addresses of a tunnel are of one family.
check_address() { # OPTION ADDRESS
    local family=''
    case ${2-} in
        *[!0-9a-fA-F.:]*) ;;
        *:*) family=6 ;;
        *.*.*.*) family=4 ;;
    esac
    if [ -z "$family" ] || ! try ip "-$family" -o address show to "$2"; then
        bad "$what: invalid $1 \"${2-}\": an address is required"
    elif [ "${families:-$family}" != "$family" ]; then
        bad "$what: invalid $1 \"$2\": the addresses must be of IPv$families"
    fi
    families=$family
}

check_version() {
    case $kind,$version in
        erspan,[012] | ip6erspan,[12]) ;;
        ip6erspan,*) bad "$what: invalid version \"$version\": 1 (type II) or 2 (type III) is required" ;;
        *) bad "$what: invalid version \"$version\": 0 (type I), 1 (type II) or 2 (type III) is required" ;;
    esac
}

# The words for the addresses and the interface.
addresses() {
    words="$words${source:+ local $source}${remote:+ remote $remote}${parent:+ dev $parent}"
}

# Packets of type I have no key. For the other types, the kernel wants sequence numbers in one
# direction at least. With `oseq` it does not check those of received packets: it would drop the
# packets of a switch that has restarted, and of a second switch with the same session.
say_erspan() {
    case $key,$version,$source$remote in
        ,,)
            [ -z "$parent" ] || bad "$what: dev needs key NUMBER, from 0 to $most"
            words=external
            ;;
        ,0,) bad "$what: version 0 needs local or remote" ;;
        ,0,*) words='erspan_ver 0' ;;
        *,0,*) bad "$what: version 0 has no key: leave it out" ;;
        ,*) bad "$what: local, remote, version and dev need key NUMBER, from 0 to $most" ;;
        *) words="oseq key $key erspan_ver ${version:-1}" ;;
    esac
    addresses
}

# Without a key and with an address, packets have no key.
say_gretap() {
    case $key,$source$remote,$parent in
        ,,) words=external ;;
        ,,*) bad "$what: dev needs key, local or remote" ;;
        ,*) ;;
        *) words="key $key" ;;
    esac
    addresses
}

# A mirror device needs no forwarding table. The checksum of UDP is optional in a tunnel over IPv6:
# https://www.rfc-editor.org/rfc/rfc6935
say_vxlan() {
    [ -n "$key" ] || [ -z "$source$remote$parent" ] ||
        bad "$what: local, remote and dev need id NUMBER, from 0 to $most"
    words="${key:+id }${key:-external} $port nolearning udp6zerocsumrx"
    addresses
}

# The kernel needs both the number and the sender, or accepts all.
say_geneve() {
    case ${key:+id},${remote:+remote} in
        id, | ,remote) bad "$what: geneve needs both id NUMBER and remote ADDRESS, or neither" ;;
    esac
    words="${key:+id }${key:-external} $port udp6zerocsumrx$inherit"
    addresses
}

# A tunnel that accepts all keys is the only one of its type and port. For GRE, the kernel tries those
# with a key first, so only one of them can accept all.
check_receivers() {
    local receiver="$kind${port:+ with $port}" accepts=some
    case " $words " in *' external '*) accepts=all ;; esac
    if [ -z "$port" ]; then
        [ "$accepts" = some ] || ! is_listed "$receiver: all" "$receivers" ||
            bad "$what: only one tunnel of type $receiver can accept all keys"
    elif is_listed "$receiver: all" "$receivers" ||
        { [ "$accepts" = all ] && is_listed "$receiver: some" "$receivers"; }; then
        bad "$what: a tunnel of type $receiver that accepts all ids must be the only one"
    fi
    receivers="$receivers$receiver: $accepts$NL"
}
