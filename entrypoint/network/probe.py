"""Does the kernel have WireGuard, or else a TUN? Asked by rtnetlink by hand: light to import."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from entrypoint.errors import PlatformError

NAME: Final = b"ss-probe\0"

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h
RTM_NEWLINK, RTM_DELLINK = 16, 17
REQUEST, ACK, EXCL, CREATE = 0x1, 0x4, 0x200, 0x400
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 18, 1


def kernel_has_wireguard() -> bool:
    """Make such a link and delete it; only a kernel that does not know the kind counts as one without."""
    kind = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, b"wireguard\0"))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1.0)
        refused = _ask(sock, RTM_NEWLINK, CREATE | EXCL, kind)
        if not refused:
            _ask(sock, RTM_DELLINK, 0, b"")
    return refused != errno.EOPNOTSUPP


def require_tun(
    implementation: str,
    node: Path = Path("/dev/net/tun"),
    has_wireguard: Callable[[], bool] = kernel_has_wireguard,
) -> None:
    """Raise PlatformError when the tunnel needs a TUN and the container has none."""
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if implementation == "userspace" or not has_wireguard():
            raise PlatformError(
                f"cannot open {node}: {error.strerror}", "add devices: [/dev/net/tun]"
            ) from error


def _ask(sock: socket.socket, kind: int, flags: int, more: bytes) -> int:
    """Return the errno that the kernel answers with, 0 for none."""
    body = bytes(16) + _attribute(IFLA_IFNAME, NAME) + more
    sock.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK | flags, 1, 0) + body)
    return -int(struct.unpack_from("=i", sock.recv(4096), 16)[0])


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
