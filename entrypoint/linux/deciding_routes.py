"""Which routes decide anything for us, told from netlink's bytes: a router has 100,000 that do not."""

import struct
import sys

from entrypoint.addresses import PLATFORM
from entrypoint.linux.raw_netlink import HEADER

RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTMSG = 12
"""Length of a struct rtmsg (linux/rtnetlink.h)."""
RTPROT_KERNEL = 2
RTN_UNICAST = 1
FULL_TABLES = (254, 255)
LONGEST_DEFAULT = 3
"""0.0.0.0/1 and 2000::/3 are parts of a default route."""
PLATFORM_BYTES = tuple(network.network_address.packed for network in PLATFORM)


def concerns_us(data: bytes) -> bool:
    """Return whether one of these messages may change what we look at.

    Of routes that is a default route, or a part of one, and the network of an address: a router
    changes a hundred others every second.
    """
    while len(data) >= HEADER:
        length, kind = struct.unpack_from("=IH", data)
        route = data[HEADER:length]
        if kind not in {RTM_NEWROUTE, RTM_DELROUTE} or len(route) < RTMSG or decides(route):
            return True
        data = data[max((length + 3) & ~3, HEADER) :]
    return False


def decides(data: bytes, at: int = 0) -> bool:
    """Return whether the route (struct rtmsg) at this place is a default, a part of one, or connected."""
    # A platform's address counts too; table and destination are a route's first attributes.
    platform = data[at + 1] == 32 and any(packed in data[at : at + 36] for packed in PLATFORM_BYTES)
    connected = data[at + 5] == RTPROT_KERNEL and data[at + 7] == RTN_UNICAST
    return platform or connected or data[at + 1] <= LONGEST_DEFAULT


def worth_a_look(data: bytes, at: int) -> bool:
    """Return whether a listed route decides, or is not in `main` and `local`, which a router fills."""
    return decides(data, at + HEADER) or data[at + HEADER + 4] not in FULL_TABLES


ROUTE_HEAD = struct.pack("=HH", RTM_NEWROUTE, 2)
"""Kind and flags (NLM_F_MULTI) of a listed route, no interruption among them."""


def all_dull(data: bytes) -> bool:
    """Return whether these are routes of one length, none of them worth a look.

    A router has 100,000 alike. Slices are compared without a Python loop: 10 ms where one took 90.
    """
    length = int.from_bytes(data[:4], sys.byteorder)
    if length < HEADER + RTMSG or len(data) % length or data[4:8] != ROUTE_HEAD:
        return False
    count = len(data) // length

    def column(at: int) -> bytes:
        return data[at::length]

    prefixes, tables, protocols = map(column, (HEADER + 1, HEADER + 4, HEADER + 5))
    return (
        # If each message that begins here has this length, then the next begins where it is looked for.
        all(column(at).count(data[at]) == count for at in range(8))
        and min(prefixes) > LONGEST_DEFAULT
        and not any(packed in data for packed in PLATFORM_BYTES)
        and sum(map(tables.count, FULL_TABLES)) == count
        and RTPROT_KERNEL not in protocols
    )
