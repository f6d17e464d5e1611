#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A VLAN interface in user space, for kernels without 8021q (see record.sh).

tagger.py TAP TRUNK VLAN: frames that the host sends to the tap device TAP leave through TRUNK
with an 802.1Q tag. Frames with this tag that arrive on TRUNK leave through TAP without the tag.
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
# The control message of a packet socket with the tag that the kernel removed from the frame, see
# https://man7.org/linux/man-pages/man7/packet.7.html
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
    """The next frame of the VLAN without its tag, or None for another frame."""
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
    """Sends a frame to the host. While the device is down, the frame is lost."""
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
