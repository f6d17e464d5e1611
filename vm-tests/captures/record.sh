#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Records the captures in this folder: real programs communicate between two
# network namespaces, and tcpdump records in one of them.
#
# Run it as root to replace the captures. It needs tcpdump, iproute2, ethtool,
# iputils-ping, curl, python3, dnsmasq, dig, iperf3 and OpenSSH. It changes only
# its own namespaces, a temporary folder and this folder. New captures have other
# times and ports, so review the snapshots afterwards: cargo xtask vm-test --review.

set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
alice=xtt-alice-$$
bob=xtt-bob-$$

cleanup() {
	for ns in "$alice" "$bob"; do
		ip netns pids "$ns" 2>/dev/null | xargs -r kill 2>/dev/null || true
	done
	for ns in "$alice" "$bob"; do
		ip netns delete "$ns" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap cleanup EXIT

in_ns() {
	local ns=$1
	shift
	ip netns exec "$ns" "$@"
}

# Two hosts on one link. Bob has addresses in two networks, so that some traffic
# is internal to 192.0.2.0/24 and some is not.
link() {
	ip netns add "$alice"
	ip netns add "$bob"
	in_ns "$alice" ip link add eth0 address 02:00:5e:00:53:01 type veth \
		peer name eth0 address 02:00:5e:00:53:02 netns "$bob"
	for ns in "$alice" "$bob"; do
		in_ns "$ns" ip link set lo up
		in_ns "$ns" ip link set eth0 up
	done
	in_ns "$alice" ip addr add 192.0.2.1/24 dev eth0
	in_ns "$alice" ip addr add 2001:db8::1/64 dev eth0 nodad
	in_ns "$bob" ip addr add 192.0.2.2/24 dev eth0
	in_ns "$bob" ip addr add 198.51.100.2/24 dev eth0
	in_ns "$bob" ip addr add 2001:db8::2/64 dev eth0 nodad
	in_ns "$alice" ip route add 198.51.100.0/24 dev eth0
}

offloads() {
	for ns in "$alice" "$bob"; do
		in_ns "$ns" ethtool -K eth0 tso "$1" gso "$1" gro "$1" tx "$1" >/dev/null
	done
}

# record NAME FUNCTION: runs the function while tcpdump writes NAME.pcap.
record() {
	local name=$1 dump
	# Without in_ns, so that the process id is that of tcpdump.
	ip netns exec "$bob" tcpdump -Z root -i eth0 -U -w "$work/$name.pcap" \
		2>"$work/tcpdump.log" &
	dump=$!
	until grep -q 'listening on' "$work/tcpdump.log"; do sleep 0.05; done
	"$2"
	# tcpdump writes its buffer within a second.
	sleep 1.2
	kill -TERM "$dump"
	wait "$dump" || true
	mv "$work/$name.pcap" "$name.pcap"
	chmod 644 "$name.pcap"
	printf '%s: %s bytes, %s frames\n' "$name" "$(stat -c %s "$name.pcap")" \
		"$(tcpdump -r "$name.pcap" 2>/dev/null | wc -l)"
}

# Waits until a server in bob's namespace listens on a port.
listening() {
	until in_ns "$bob" ss -Hln "sport = :$1" 2>/dev/null | grep -q .; do sleep 0.05; done
}

ping_all() {
	in_ns "$alice" ping -q -c 5 -i 0.2 192.0.2.2 >/dev/null
	in_ns "$alice" ping -q -c 3 -i 0.2 -s 4000 198.51.100.2 >/dev/null
	in_ns "$alice" ping -q -c 2 -i 0.2 2001:db8::2 >/dev/null
	in_ns "$alice" ping -q -c 2 -i 0.2 -b 192.0.2.255 >/dev/null 2>&1 || true
}

web() {
	for address in 192.0.2.2 198.51.100.2; do
		in_ns "$alice" curl -s -o /dev/null "http://$address:8000/page"
		in_ns "$alice" curl -s -o /dev/null "http://$address:8000/nothing"
	done
}

names() {
	local host
	for host in www.example.test mail.example.test nobody.example.test; do
		in_ns "$alice" dig +tries=1 +time=2 @192.0.2.2 "$host" >/dev/null || true
		in_ns "$alice" dig +tcp +tries=1 +time=2 @198.51.100.2 "$host" >/dev/null || true
	done
	# No server listens on this port: bob answers with an ICMP error.
	in_ns "$alice" dig +tries=1 +time=1 -p 5353 @192.0.2.2 www.example.test >/dev/null || true
}

shell_session() {
	in_ns "$alice" ssh -F none -i "$work/user" -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p 2222 192.0.2.2 \
		'uname -a; seq 1 2000; exit 3' >/dev/null || [ $? -eq 3 ]
}

bulk() {
	in_ns "$alice" iperf3 -c 192.0.2.2 -l 4K -n 60K >/dev/null
	in_ns "$alice" iperf3 -c 198.51.100.2 -l 4K -n 40K -R >/dev/null
	in_ns "$alice" iperf3 -c 192.0.2.2 -u -n 40K -l 1000 -b 4M >/dev/null
}

tagged() {
	in_ns "$alice" ping -q -c 3 -i 0.2 203.0.113.2 >/dev/null
	in_ns "$alice" ping -q -c 3 -i 0.2 192.0.2.2 >/dev/null
	in_ns "$alice" curl -s -o /dev/null http://203.0.113.2:8000/page
}

serve() {
	mkdir "$work/www"
	head -c 40000 /dev/zero | tr '\0' x >"$work/www/page"
	in_ns "$bob" python3 -m http.server -d "$work/www" 8000 >/dev/null 2>&1 &
	in_ns "$bob" dnsmasq -k -C /dev/null -R -h --user=root --pid-file= \
		--address=/www.example.test/192.0.2.80 \
		--address=/mail.example.test/192.0.2.25 --local=/test/ 2>/dev/null &
	in_ns "$bob" iperf3 -s >/dev/null 2>&1 &
	ssh-keygen -q -t ed25519 -N '' -f "$work/host"
	ssh-keygen -q -t ed25519 -N '' -f "$work/user"
	mkdir -p /run/sshd
	in_ns "$bob" /usr/sbin/sshd -D -f /dev/null -h "$work/host" -p 2222 \
		-o PidFile=none -o StrictModes=no -o UsePAM=no \
		-o AuthorizedKeysFile="$work/user.pub" 2>/dev/null &
	for port in 8000 53 5201 2222; do listening "$port"; done
}

# VLAN 7 on the same link. tagger.py replaces `ip link add type vlan`, which some
# kernels do not support.
vlans() {
	local ns address=0
	for ns in "$alice" "$bob"; do
		address=$((address + 1))
		in_ns "$ns" python3 tagger.py vlan7 eth0 7 &
		until in_ns "$ns" ip link set vlan7 address "02:00:5e:00:53:7$address" 2>/dev/null; do
			sleep 0.05
		done
		in_ns "$ns" ip link set vlan7 up
		in_ns "$ns" ip addr add "203.0.113.$address/24" dev vlan7
	done
}

link
offloads off
serve
record ping ping_all
record web web
record names names
record shell_session shell_session
record bulk bulk
vlans
record vlan tagged
offloads on
record web_offloaded web
