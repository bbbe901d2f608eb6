"""Kinds of probes: whose, by which protocol, from where, to where; each is known again on the wire."""

import ctypes
import itertools
import re
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Literal

from tests.cloudflare.config import ECHO_PORT
from tests.lab.topology import HOST
from tests.lab.wire import Packet, Wire

type Protocol = Literal["udp", "tcp", "icmp", "dns", "fragment"]

PROTOCOLS: tuple[Protocol, ...] = ("udp", "tcp", "icmp", "dns")
SSSERVER = 58388
PUBLIC = ("9.9.9.9", "2620:fe::fe")
"""Where probes go: public addresses that do not answer."""
MARKED = re.compile(rb"probe of the lab ([^|]*)\|")
# linux/in.h
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of probe: to `target` (PUBLIC's, when empty), whose, from which address, by which device.

    `bound`: from the uplink's address, or from `source`.

    `size`: bytes of payload, of which any part on the wire is a leak; `cut`: whether it may be fragmented.
    """

    name: str
    version: int = 4
    uid: int = 0
    bound: bool = False
    source: str = ""
    device: str = ""
    protocol: Protocol = "udp"
    target: str = ""
    port: int = ECHO_PORT
    size: int = 0
    cut: bool = True

    @property
    def mark(self) -> bytes:
        """What tells it on the wire."""
        return b"probe of the lab " + self.name.encode() + b"|"

    @property
    def payload(self) -> bytes:
        """The datagram."""
        match self.protocol:
            case "dns":
                # The mark is the queried name: one label, of any bytes.
                name = bytes([len(self.mark)]) + self.mark + b"\0"
                return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
            case "icmp":
                # The kernel fills in ICMPv6's checksum alone.
                head = struct.pack("!BBHHH", 8 if self.version == 4 else 128, 0, 0, 7, 7)
                body = self.mark + bytes(len(self.mark) % 2)
                return head[:2] + struct.pack("!H", checksum(head + body)) + head[4:] + body
            case "fragment":
                # The end of a datagram whose beginning is never sent (RFC 791): offset 8, protocol UDP.
                # Length, identification, source and checksum are filled in by the kernel.
                head = struct.pack(
                    "!BBHHHBBH4x4s", 0x45, 0, 0, 0, 1, 64, 17, 0, ip_address(self.address[0]).packed
                )
                return head + self.mark
            case _:
                return self.mark.ljust(self.size, b".")

    @property
    def address(self) -> tuple[str, int]:
        """Where it goes. TCP has no payload yet: its port is the mark."""
        ports = {"icmp": 0, "fragment": 0, "dns": 53, "tcp": 20000 + zlib.crc32(self.mark) % 30000}
        return self.target or PUBLIC[self.version == 6], ports.get(self.protocol, self.port)


def checksum(data: bytes) -> int:
    """Return the internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - (total + (total >> 16)) % 0x10000


def kinds(whose: str, protocols: Sequence[Protocol] = PROTOCOLS, **fields: object) -> tuple[Kind, ...]:
    """Return one of each protocol and family."""
    return tuple(
        replace(Kind(f"{whose} v{version} {protocol}", version), protocol=protocol, **fields)  # type: ignore[arg-type]
        for protocol, version in itertools.product(protocols, (4, 6))
    )


UNBOUND = kinds("anybody's")
FROM_THE_UPLINK = kinds("from the uplink", bound=True)
ANYBODY = (*UNBOUND, *FROM_THE_UPLINK)
THE_SERVERS_UNBOUND = kinds("ssserver's", uid=SSSERVER)
THE_SERVERS = (*THE_SERVERS_UNBOUND, *kinds("ssserver's from the uplink", uid=SSSERVER, bound=True))
"""What ssserver would send were it not bound to the tunnel."""
BOUND = kinds("ssserver's by wg0", uid=SSSERVER, device="wg0")


def light(some: Sequence[Kind]) -> tuple[Kind, ...]:
    """Return the datagrams of these alone: where what else happens is timed."""
    return tuple(one for one in some if one.protocol == "udp")


@contextmanager
def owned(uid: int) -> Iterator[None]:
    """Make sockets that nft takes for this user's: its skuid is the file system uid at their creation."""
    ctypes.CDLL(None).setfsuid(uid)  # of this thread alone
    try:
        yield
    finally:
        ctypes.CDLL(None).setfsuid(0)


def opened(kind: Kind) -> socket.socket:
    """Return a socket for this kind, made in this thread's namespace; it does not block."""
    family = socket.AF_INET if kind.version == 4 else socket.AF_INET6
    raw = socket.IPPROTO_ICMP if kind.version == 4 else socket.IPPROTO_ICMPV6
    with owned(kind.uid):
        match kind.protocol:
            case "tcp":
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            case "icmp":
                sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, raw)
            case "fragment":
                sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
            case _:
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    with ExitStack() as stack:
        stack.enter_context(sock)
        if kind.device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, kind.device.encode())
        if not kind.cut and kind.version == 4:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        if kind.bound:
            sock.bind((kind.source or str(HOST[kind.version == 6]), 0))
        stack.pop_all()
    return sock


class Sender:
    """Sends probes of one kind; datagrams by one socket, each TCP probe from a port of its own."""

    def __init__(self, kind: Kind) -> None:
        """Open what it needs, in this thread's namespace."""
        self.kind = kind
        self._payload, self._address = kind.payload, kind.address
        self._socket = opened(kind) if kind.protocol != "tcp" else None

    def send(self) -> bool:
        """Send one from this thread's namespace; return False when the kernel refuses at once."""
        try:
            if self._socket:
                self._socket.sendto(self._payload, self._address)
            else:
                with opened(self.kind) as sock, suppress(BlockingIOError):
                    sock.connect(self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close it."""
        if self._socket:
            self._socket.close()


def seen(wire: Wire, some: Sequence[Kind] = ()) -> Counter[str]:
    """Return how many probes of each kind the wire saw in clear; TCP's only of `some`.

    The first packet of a connection counts once, however often it is sent again.
    """
    syns = {one.address: one.name for one in some if one.protocol == "tcp"}
    found: Counter[str] = Counter()
    connections: set[tuple[str, str, int, int]] = set()
    for packet in wire.leaks():
        if mark := MARKED.search(packet.payload):
            found[mark[1].decode()] += 1
        elif name := syns.get((str(packet.destination), packet.destination_port)):
            connections.add((name, str(packet.source), packet.source_port, packet.sequence))
    return found + Counter(name for name, *_ in connections)


def about(packet: Packet, some: Sequence[Kind]) -> bool:
    """Say whether the packet goes where these probes go."""
    return str(packet.destination) in {one.address[0] for one in some}
