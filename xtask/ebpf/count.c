// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs for tc ingress that count bytes per address, for the benchmark.
 *
 * The program "count" counts what "-m traffic --traffic --net 10.0.0.0/16"
 * counts for IPv4: bytes at the IP layer that each address of the network has
 * sent and received, for TCP, UDP and other protocols. It does not verify the
 * checksum of the IP header, and a packet whose address has no room in the
 * map is not counted. "senders" is the same for senders only. In "array" the
 * lower 16 bits of the address are the number of its row, as in a table with
 * direct rows. "nothing" does nothing.
 *
 * Each program is a section of the object file. vm-tests/agent/tools/bpf.rs
 * loads it. A program refers to at most one map, "rows", and to nothing else
 * outside its section.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define NETWORK		__builtin_bswap32(0x0a000000)
#define NETMASK		__builtin_bswap32(0xffff0000)

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define __inline	inline __attribute__((always_inline))
#define PROGRAM(name)	__attribute__((section(name), used)) int

/* https://docs.ebpf.io/linux/helper-function/ */
static void *(*const map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static long (*const map_update_elem)(void *map, const void *key,
				     const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static long (*const skb_load_bytes)(const struct __sk_buff *skb, __u32 offset,
				    void *to, __u32 length) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*const skb_pull_data)(struct __sk_buff *skb, __u32 length) =
	(void *)BPF_FUNC_skb_pull_data;

extern char rows;

enum column { TCP, UDP, OTHER, COLUMNS };

/* A row of a CPU. No other CPU changes it, so additions need not be atomic. */
struct row {
	__u64 sent[COLUMNS];
	/* Not in the map of "senders". */
	__u64 received[COLUMNS];
};

/* How a program finds rows, and whether it counts both ends of a packet. */
enum kind { BOTH, SENDERS, ARRAY };

/*
 * The kernel compares keys with memcmp(), which compares eight bytes at once
 * and fewer one by one. So an address is a key of eight bytes.
 */
static __inline struct row *row_of(__u64 address)
{
	struct row *row = map_lookup_elem(&rows, &address);

	if (likely(row))
		return row;
	/* The address is new. */
	struct row empty = {};

	map_update_elem(&rows, &address, &empty, BPF_NOEXIST);
	return map_lookup_elem(&rows, &address);
}

static __inline struct row *row_in_array(__u32 address)
{
	__u32 number = __builtin_bswap32(address & ~NETMASK);

	return map_lookup_elem(&rows, &number);
}

static __inline struct row *find(enum kind kind, __u32 address)
{
	return kind == ARRAY ? row_in_array(address) : row_of(address);
}

static __inline enum column column_of(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? TCP :
	       protocol == IPPROTO_UDP ? UDP :
					 OTHER;
}

/*
 * GRO has merged several packets. Each but the first had headers of its own.
 */
static __inline __u32 aggregate_length(struct __sk_buff *skb,
				       __u32 header_length, __u8 protocol)
{
	__u32 headers = header_length;

	if (protocol == IPPROTO_TCP) {
		__u8 data_offset = 0;

		skb_load_bytes(skb, ETH_HLEN + header_length + 12, &data_offset,
			       sizeof(data_offset));
		headers += (data_offset >> 4) * 4;
	} else if (protocol == IPPROTO_UDP) {
		headers += sizeof(struct udphdr);
	}
	return skb->len - ETH_HLEN + (skb->gso_segs - 1) * headers;
}

static __inline struct iphdr *header_of(struct __sk_buff *skb)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	return (void *)(ip + 1) > (void *)(long)skb->data_end ? 0 : ip;
}

static __inline int count(struct __sk_buff *skb, enum kind kind)
{
	if (skb->protocol != __builtin_bswap16(ETH_P_IP) ||
	    skb->pkt_type != PACKET_OTHERHOST)
		return TCX_PASS;
	struct iphdr *ip = header_of(skb);

	if (unlikely(!ip)) {
		/* The header is not in the linear part of the buffer. */
		if (skb_pull_data(skb, ETH_HLEN + sizeof(*ip)))
			return TCX_PASS;
		ip = header_of(skb);
		if (!ip)
			return TCX_PASS;
	}
	__u8 protocol = ip->protocol;
	__u32 from = ip->saddr, to = ip->daddr;
	__u32 header_length = ip->ihl * 4;
	__u64 length = __builtin_bswap16(ip->tot_len);

	if (unlikely(ip->version != IPVERSION || header_length < sizeof(*ip)))
		return TCX_PASS;
	if (unlikely(skb->gso_segs > 1))
		length = aggregate_length(skb, header_length, protocol);
	else if (unlikely(length < header_length || length > skb->len - ETH_HLEN))
		return TCX_PASS;
	enum column column = column_of(protocol);

	if ((from & NETMASK) == NETWORK) {
		struct row *row = find(kind, from);

		if (likely(row))
			row->sent[column] += length;
	}
	if (kind != SENDERS && (to & NETMASK) == NETWORK) {
		struct row *row = find(kind, to);

		if (likely(row))
			row->received[column] += length;
	}
	return TCX_PASS;
}

PROGRAM("count") count_both(struct __sk_buff *skb)
{
	return count(skb, BOTH);
}

PROGRAM("senders") count_senders(struct __sk_buff *skb)
{
	return count(skb, SENDERS);
}

PROGRAM("array") count_in_array(struct __sk_buff *skb)
{
	return count(skb, ARRAY);
}

PROGRAM("nothing") do_nothing(struct __sk_buff *skb)
{
	return TCX_PASS;
}
