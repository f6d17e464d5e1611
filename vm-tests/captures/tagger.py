#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A VLAN interface in user space, for kernels without 8021q (see record.sh).

tagger.py TAP TRUNK VLAN: sends the frames of the tap device TAP through TRUNK
with an 802.1Q tag. Delivers frames with this tag from TRUNK to TAP without it.
"""

import errno
import fcntl
import os
import selectors
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
ETH_P_ALL = 0x0003
ETH_P_8021Q = 0x8100
# A packet socket reports here the tag that the kernel has removed (packet(7)).
SOL_PACKET = 263
PACKET_AUXDATA = 8
TP_STATUS_VLAN_VALID = 0x10
PACKET_OUTGOING = 4


def open_tap(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def open_trunk(name):
    trunk = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    trunk.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    trunk.bind((name, ETH_P_ALL))
    return trunk


def untagged(trunk, vlan):
    """Receive a frame: without its tag, or None if it is not of the VLAN."""
    frame, control, _, sender = trunk.recvmsg(65536, 256)
    if sender[2] == PACKET_OUTGOING:
        return None
    for level, kind, data in control:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            # struct tpacket_auxdata
            status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", data[:20])
            if status & TP_STATUS_VLAN_VALID and tci & 0xFFF == vlan:
                return frame
    return None


def deliver(tap, frame):
    """Deliver a frame. The device refuses it while it is down."""
    try:
        os.write(tap, frame)
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def main():
    tap_name, trunk_name, vlan = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tap, trunk = open_tap(tap_name), open_trunk(trunk_name)
    selector = selectors.DefaultSelector()
    selector.register(tap, selectors.EVENT_READ)
    selector.register(trunk, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == tap:
                frame = os.read(tap, 65536)
                trunk.send(frame[:12] + struct.pack("!HH", ETH_P_8021Q, vlan) + frame[12:])
            else:
                frame = untagged(trunk, vlan)
                if frame is not None:
                    deliver(tap, frame)


main()
