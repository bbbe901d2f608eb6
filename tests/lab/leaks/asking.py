"""A neighbour on the uplink's segment that asks for addresses that are none of its business (L-20, L-21)."""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tests.cloudflare.netns import Namespace
from tests.lab.senders import checksum
from tests.lab.topology import HOST, ROUTER, WIRE, Lab
from tests.lab.wire import Packet

type Two = tuple[IPv4Address, IPv6Address]

ARP_REQUEST, ARP_REPLY = 1, 2
ROUTER_ADVERT, NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT = 134, 135, 136
SYN_ACK = 0x12
CLOSED, OPEN = 81, 22
EVERY_NODE = "ff02::1"


def tells(packet: Packet, addresses: Two) -> bool:
    """Say whether the host shows by ARP or neighbour discovery that it has one of these addresses."""
    four, six = (one.packed for one in addresses)
    arp = packet.kind == "arp" and packet.payload[14:18] == four
    return packet.from_host and (
        arp or (packet.kind == "icmp6" and packet.payload[:1] == b"\x88" and packet.payload[8:24] == six)
    )


def answers(packet: Packet, addresses: Two) -> bool:
    """Say whether the host speaks as one of these addresses, or tells of it."""
    return packet.from_host and (packet.source in addresses or tells(packet, addresses))


class Asker:
    """Sockets on R's port towards H, where these addresses are routed to H."""

    def __init__(self, lab: Lab, addresses: Two) -> None:
        self._addresses = addresses
        with lab.inside("R"):
            self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._frames.bind((WIRE, 0))
            self._tcp4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
            self._tcp6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP)
            self._icmp6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            self._udp = [
                socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)
            ]
        self._tcp6.setsockopt(socket.IPPROTO_IPV6, 7, 16)  # IPV6_CHECKSUM: the kernel fills it in there
        self._icmp6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        with lab.inside("R"):
            self._icmp6.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("i", socket.if_nametoindex(WIRE))
            )

    def ask(self) -> None:
        """Ask for the addresses in every way: ARP, neighbour discovery, SYN, SYN/ACK and UDP."""
        four, six = self._addresses
        mine = self._frames.getsockname()[4]
        head = b"\xff" * 6 + mine + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REQUEST)
        self._frames.send(head + mine + ROUTER[0].packed + bytes(6) + four.packed)
        solicit = struct.pack("!BBHI", NEIGHBOUR_SOLICIT, 0, 0, 0) + six.packed + b"\x01\x01" + mine
        group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(six) & 0xFFFFFF)
        self._icmp6.sendto(solicit, (str(group), 0))
        for flags, port in (0x02, CLOSED), (0x02, OPEN), (SYN_ACK, CLOSED):
            self._tcp4.sendto(_tcp(flags, port, four), (str(four), 0))
            self._tcp6.sendto(_tcp(flags, port, None), (str(six), 0))
        for sock, address in zip(self._udp, self._addresses, strict=True):
            sock.sendto(b"anybody there?", (str(address), CLOSED))

    def advertise(self, prefix: IPv6Address, lifetime: int) -> None:
        """Tell every node that we are a router for so many seconds, and of this /64."""
        head = struct.pack("!BBHBBHII", ROUTER_ADVERT, 0, 0, 64, 0, lifetime, 0, 0)
        option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, lifetime * 2, lifetime, 0) + prefix.packed
        self._icmp6.sendto(head + option, (EVERY_NODE, 0))

    def close(self) -> None:
        """Close them."""
        for one in (self._frames, self._tcp4, self._tcp6, self._icmp6, *self._udp):
            one.close()


def _tcp(flags: int, port: int, to: IPv4Address | None) -> bytes:
    parts = [4711, port, 7, 7, 0x5000 | flags, 1024, 0, 0]
    plain = struct.pack("!HHIIHHHH", *parts)
    if to is None:
        return plain
    pseudo = ROUTER[0].packed + to.packed + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(plain))
    return struct.pack("!HHIIHHHH", *parts[:6], checksum(pseudo + plain), 0)


@contextmanager
def asker(lab: Lab, addresses: Two) -> Iterator[Asker]:
    """Route these addresses to H and be ready to ask for them."""
    routes = [
        ["ip", f"-{one.version}", "route", "{}", str(one), "via", str(host), "dev", WIRE]
        for one, host in zip(addresses, HOST, strict=True)
    ]
    made = Asker(lab, addresses)
    for route in routes:
        lab.run("R", [word.format("replace") for word in route])
    try:
        yield made
    finally:
        for route in routes:
            lab.run("R", [word.format("del") for word in route])
        made.close()


@contextmanager
def inner(lab: Lab, name: str) -> Iterator[None]:
    """Be in one of the emulator's inner namespaces with this thread."""
    path = Path(lab.cloudflare.namespaces()[name])
    namespace = Namespace(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        with namespace.entered():
            yield
    finally:
        namespace.close()


def knock_from_the_internet(addresses: Sequence[object], sources: Sequence[str], rounds: int) -> None:
    """Send SYNs and datagrams to closed ports, also by the last hop; IP_TRANSPARENT lends the source."""
    for _ in range(rounds):
        for address, source in zip(addresses, sources, strict=True):
            six = ":" in source
            family = socket.AF_INET6 if six else socket.AF_INET
            level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
            for kind, hops in (socket.SOCK_STREAM, 64), (socket.SOCK_DGRAM, 64), (socket.SOCK_DGRAM, 1):
                with socket.socket(family, kind | socket.SOCK_NONBLOCK) as sock:
                    sock.setsockopt(level, 75 if six else 19, 1)
                    sock.setsockopt(level, socket.IPV6_UNICAST_HOPS if six else socket.IP_TTL, hops)
                    sock.bind((source, 0))
                    if kind == socket.SOCK_STREAM:
                        sock.connect_ex((str(address), CLOSED))
                    else:
                        sock.sendto(b"anybody there?", (str(address), CLOSED))
