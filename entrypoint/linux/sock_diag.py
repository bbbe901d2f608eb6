"""Find and close sockets by the kernel's sock_diag (linux/inet_diag.h).

What began before the firewall was closed has no known direction: connection tracking takes the first
packet that it sees for the beginning, and would let an older outgoing connection go on as a reply.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from entrypoint.addresses import Address, word_for

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
INET_DIAG_MARK: Final = 15
LISTEN: Final = 10
UNPRIVILEGED: Final = 1024
SENDING: Final = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
"""States of a TCP socket that may still send (net/tcp_states.h), and 1 of a connected UDP socket."""
TRANSPORTS: Final = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)


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
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(2)
        closed = 0
        for one in outgoing(list(_list(sock)), allowed):
            try:
                _exchange(sock, SOCK_DESTROY, ACK, one.family, one.protocol, 1 << one.state, one.id)
            except OSError as error:
                if error.errno != errno.ENOENT:  # it ended by itself
                    raise
            else:
                closed += 1
        return closed


def _list(sock: socket.socket) -> Iterator[OpenSocket]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in TRANSPORTS:
            for body in _exchange(sock, SOCK_DIAG_BY_FAMILY, DUMP, family, protocol, 0xFFFFFFFF, bytes(48)):
                state, identity = body[1], body[4:52]
                attributes = dict(_attributes(body[72:]))
                mark = int.from_bytes(attributes.get(INET_DIAG_MARK, b""), sys.byteorder)
                yield OpenSocket(family, protocol, state, identity, mark)


def _exchange(
    sock: socket.socket, command: int, flags: int, family: int, protocol: int, states: int, identity: bytes
) -> list[bytes]:
    """Send one inet_diag_req_v2; return the bodies of the answers."""
    body = struct.pack("=BBBBI", family, protocol, 0, 0, states) + identity
    sock.send(struct.pack("=IHHII", 16 + len(body), command, REQUEST | flags, 1, 0) + body)
    answers: list[bytes] = []
    while True:
        data = sock.recv(1 << 17)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == NLMSG_ERROR and (code := -struct.unpack_from("=i", data, 16)[0]):
                raise OSError(code, os.strerror(code))
            if kind in {NLMSG_DONE, NLMSG_ERROR}:
                return answers
            answers.append(data[16:length])
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[max((length + 3) & ~3, 4) :]
