"""Find and close sockets by the kernel's sock_diag (linux/inet_diag.h).

What began before the firewall was closed has no known direction: connection tracking takes the first
packet that it sees for the beginning, and would let an older outgoing connection go on as a reply.
"""

import errno
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from entrypoint.addresses import Address, word_for
from entrypoint.linux.raw_netlink import ACK, DUMP, HEADER, ask, attributes

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
INET_DIAG_MARK = 15
SYN_RECV, LISTEN = 3, 10
UNPRIVILEGED = 1024
SENDING = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
"""States of a TCP socket that may still send (net/tcp_states.h), and 1 of a connected UDP socket."""


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """A connected or listening socket. `id` is what the kernel wants back to find it again."""

    family: int
    protocol: int
    state: int
    id: bytes
    mark: int

    @property
    def local_port(self) -> int:
        """The port here."""
        return int(struct.unpack_from("!H", self.id, 0)[0])

    @property
    def remote_port(self) -> int:
        """The port there, 0 if it is not connected."""
        return int(struct.unpack_from("!H", self.id, 2)[0])

    @property
    def local(self) -> Address:
        """The address here."""
        return self._address(4)

    @property
    def remote(self) -> Address:
        """The far end."""
        return self._address(20)

    def _address(self, at: int) -> Address:
        address = ip_address(self.id[at : at + (4 if self.family == socket.AF_INET else 16)])
        return getattr(address, "ipv4_mapped", None) or address


def outgoing(
    sockets: Sequence[OpenSocket], allowed: Callable[[Address, Address], bool]
) -> Iterator[OpenSocket]:
    """Yield the connections to the internet that began here, except `allowed` (local, remote) ones.

    Nothing listens on their port. Below 1024 it is a server's all the same: sshd may be restarting.
    Marked ones are a VPN's or our own, and the firewall judges their mark.
    """
    servers = {
        (one.protocol, one.local_port) for one in sockets if one.state == LISTEN or not one.remote_port
    }
    for one in sockets:
        if (
            one.remote_port
            and 1 << one.state & SENDING
            and not one.mark
            and (one.protocol, one.local_port) not in servers
            and not (one.protocol == socket.IPPROTO_TCP and one.local_port < UNPRIVILEGED)
            and word_for(one.remote) is None
            and not allowed(one.local, one.remote)
        ):
            yield one


def close_outgoing(allowed: Callable[[Address, Address], bool]) -> int:
    """Close the connections that began here; return how many.

    Raises OSError: EOPNOTSUPP or ENOENT where the kernel has no such service.
    """
    return _close(outgoing(list(_list()), allowed))


def close_half_open(remote: Collection[Address]) -> int:
    """Close what these far ends began and no program has accepted yet. Raises OSError, as above."""
    return _close(one for one in _list((socket.IPPROTO_TCP,), 1 << SYN_RECV) if one.remote in remote)


def _close(sockets: Iterable[OpenSocket]) -> int:
    closed = 0
    for one in sockets:
        try:
            _ask(SOCK_DESTROY, ACK, one.family, one.protocol, 1 << one.state, one.id)
        except OSError as error:
            if error.errno != errno.ENOENT:  # it ended by itself
                raise
        else:
            closed += 1
    return closed


def _list(
    protocols: Sequence[int] = (socket.IPPROTO_TCP, socket.IPPROTO_UDP), states: int = 0xFFFFFFFF
) -> Iterator[OpenSocket]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in protocols:
            for message in _ask(SOCK_DIAG_BY_FAMILY, DUMP, family, protocol, states, bytes(48)):
                body = message[HEADER:]
                mark = dict(attributes(body[72:])).get(INET_DIAG_MARK, b"")
                yield OpenSocket(family, protocol, body[1], body[4:52], int.from_bytes(mark, sys.byteorder))


def _ask(command: int, flags: int, family: int, protocol: int, states: int, identity: bytes) -> list[bytes]:
    """Send one inet_diag_req_v2."""
    body = struct.pack("=BBBBI", family, protocol, 0, 0, states) + identity
    return ask(NETLINK_SOCK_DIAG, command, flags, body)
