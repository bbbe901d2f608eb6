"""TUN devices: made to last, and kept with a carrier though no program reads them (linux/if_tun.h)."""

import errno
import fcntl
import os
import struct

from entrypoint.linux.kernel_objects import LinkState

NODE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL = 0x0001, 0x1000, 0x4000, 0x8000


def add_tun(name: str) -> None:
    """Create a persistent TUN: it exists even while no process holds it open. Raises OSError."""
    try:
        # EXCL makes a taken name an error instead of a second reader.
        node = _open(name, IFF_TUN_EXCL)
    except OSError as error:
        if error.errno == errno.EBUSY:  # what TUN reports for a name that is taken
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        raise
    try:
        fcntl.ioctl(node, TUNSETPERSIST, 1)
    finally:
        os.close(node)


class Carrier:
    """The carrier of one TUN, which it has as long as a process holds it open.

    Where `ignore_routes_with_linkdown` is set, routes of a device without a carrier do not count.
    """

    def __init__(self) -> None:
        self._held: tuple[int, int] | None = None
        """Index of the TUN, and our descriptor."""

    def keep(self, link: LinkState) -> None:
        """Hold this TUN open instead of the one before, which may be gone. Raises OSError."""
        if self._held and self._held[0] == link.index:
            return
        if self._held:
            os.close(self._held[1])
            self._held = None
        self._held = link.index, _open(link.name, 0)


def _open(name: str, more: int) -> int:
    # VNET_HDR lets the engine pass merged packets.
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | more
    node = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(node, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(node)
        raise
    return node
