"""The observer: an AF_PACKET socket on one port, which judges every frame by an allow-list.

    with Wire(lab.name("R"), WIRE, allowed=[neighbours(), wireguard(HOST, edge), …]) as wire:
        …
        assert not wire.leaks()

Frames on veth may be GSO super-packets, far larger than the MTU: judge and count frames, not packets.
"""

import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Self

from tests.cloudflare.devices import RESERVED
from tests.cloudflare.netns import Namespace
from tests.pace import longer

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

SNAP = 512
"""Bytes kept of each frame."""
GRACE = longer(1.0)
SYN, ACK = 0x02, 0x10


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame. `from_host`: the host sent it. Ports are 0 and addresses None where there are none.

    `kind`: arp, tcp, udp, icmp, icmp6, igmp, `ip-N` for other protocols, fragment, `ether-XXXX`.
    """

    time: float
    from_host: bool
    kind: str
    source: Address | None = None
    destination: Address | None = None
    source_port: int = 0
    destination_port: int = 0
    payload: bytes = b""
    sequence: int = 0
    """TCP's sequence number."""
    opens: bool = False
    """Whether it opens a TCP connection: SYN without ACK."""

    def __str__(self) -> str:
        way = "host sent" if self.from_host else "host got"
        ends = f"{self.source}:{self.source_port} -> {self.destination}:{self.destination_port}"
        return f"{way} {self.kind} {ends} {self.payload[:24]!r}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A reason for a packet to be there."""

    name: str
    match: Callable[[Packet], bool]


def neighbours() -> Allowed:
    """ARP, neighbour and router discovery, multicast listener reports."""
    # 130-132 and 143: multicast listeners; 133-136: routers and neighbours.
    types = {130, 131, 132, 133, 134, 135, 136, 143}
    return Allowed(
        "neighbours",
        lambda p: (
            p.kind in ("arp", "igmp") or (p.kind == "icmp6" and bool(p.payload) and p.payload[0] in types)
        ),
    )


def wireguard(edge: Sequence[Network], ports: Collection[int], reserved: bytes = RESERVED) -> Allowed:
    """WireGuard messages (types 1 to 4, reserved bytes that are zeros or begin so) between host and edge.

    In an outage the host also sends a single zero byte, to see whether a router on the way rejects it.
    """

    def match(packet: Packet) -> bool:
        port = packet.destination_port if packet.from_host else packet.source_port
        return (
            packet.kind == "udp"
            and _within(_far(packet), edge)
            and port in ports
            and (packet.payload == b"\0" or _is_wireguard(packet.payload, reserved))
        )

    return Allowed("wireguard", match)


def _is_wireguard(payload: bytes, reserved: bytes) -> bool:
    return payload[:1] in (b"\x01", b"\x02", b"\x03", b"\x04") and (
        payload[1:4] == bytes(3) or payload[1:4].startswith(reserved)
    )


def served(
    name: str, port: int, kinds: Collection[str] = ("tcp",), clients: Collection[Address] = ()
) -> Allowed:
    """A port of the host: what comes in to it, and what it answers to whoever has asked. `served("ssh", 22)`.

    For one observer: it remembers who asked. A datagram of the host counts as an answer once its far end has
    sent one by the same address and ports; so does TCP unless the host has opened the connection. `clients`
    may have asked before the observer came: what they get in its first second is an answer.
    """
    asked: set[tuple[object, ...]] = set()
    opened: set[tuple[object, ...]] = set()
    begun: list[float] = []

    def match(packet: Packet) -> bool:
        begun[:] = begun or [packet.time]
        near = packet.source_port if packet.from_host else packet.destination_port
        if packet.kind not in kinds or near != port:
            return False
        if not packet.from_host:
            asked.add((packet.kind, packet.source, packet.source_port, packet.destination))
            return True
        ends = (packet.kind, packet.destination, packet.destination_port, packet.source)
        if packet.opens:
            opened.add(ends)
        if packet.kind == "tcp":
            return ends not in opened
        early = packet.destination in clients and packet.time < begun[0] + GRACE
        return ends in asked or early

    return Allowed(name, match)


def called(name: str, addresses: Sequence[Address], port: int, kinds: Collection[str] = ("tcp",)) -> Allowed:
    """A port of others that the host may call. `called("api", config.api_addresses, 443)`."""

    def match(packet: Packet) -> bool:
        far = packet.destination_port if packet.from_host else packet.source_port
        return packet.kind in kinds and far == port and _far(packet) in addresses

    return Allowed(name, match)


def looked_up(names: Collection[str], servers: Sequence[Address]) -> Allowed:
    """DNS over UDP with these servers, for these names only."""
    wanted = [b"".join(bytes([len(one)]) + one.encode() for one in name.split(".")) for name in names]

    def match(packet: Packet) -> bool:
        port = packet.destination_port if packet.from_host else packet.source_port
        asked = any(packet.payload[12:].lower().startswith(one + b"\0") for one in wanted)
        return packet.kind == "udp" and port == 53 and _far(packet) in servers and asked

    return Allowed("dns", match)


def _far(packet: Packet) -> Address | None:
    return packet.destination if packet.from_host else packet.source


def _within(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in one for one in networks if one.version == address.version)


class Wire:
    """Watches `port` in the namespace `netns` from entering to leaving, in a thread of its own.

    `near`: the port is the host's own, not the other end of its cable.
    """

    def __init__(self, netns: str, port: str, allowed: Sequence[Allowed] = (), *, near: bool = False) -> None:
        self._netns, self._port, self._allowed, self._near = netns, port, tuple(allowed), near
        self._leaks: list[Packet] = []
        self._counts: Counter[str] = Counter()
        self._lost = 0
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def leaks(self) -> list[Packet]:
        """Return the host's frames so far that nothing allows. Raises RuntimeError if any was missed."""
        return [one for one in self.strangers() if one.from_host]

    def strangers(self) -> list[Packet]:
        """Return every frame so far that nothing allows, both ways; as `leaks`."""
        self._catch_up()
        if self._lost:
            raise RuntimeError(f"the observer missed {self._lost} frames")
        with self._lock:
            return list(self._leaks)

    def counts(self) -> dict[str, int]:
        """Return frames per reason; without one: `leak` the host sent, `stranger` it got."""
        self._catch_up()
        with self._lock:
            return dict(self._counts)

    def __enter__(self) -> Self:
        """Start watching: from here on every frame is seen."""
        namespace = Namespace.named(self._netns)
        with namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            # SO_RCVBUFFORCE: 50 MB in flight must not overrun us.
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
            self._socket.bind((self._port, 0x0003))  # ETH_P_ALL
        namespace.close()
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop watching; what was seen can still be asked."""
        self._catch_up()
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            if select.select([self._socket], [], [], 0.05)[0]:
                self._drain()

    def _catch_up(self) -> None:
        if self._socket.fileno() >= 0:
            self._drain()
            # PACKET_STATISTICS: seen and dropped since it was last asked.
            self._lost += struct.unpack("II", self._socket.getsockopt(263, 6, 8))[1]

    def _drain(self) -> None:
        with self._lock:
            while True:
                try:
                    frame, address = self._socket.recvfrom(SNAP)
                except BlockingIOError:
                    return
                if address[3] == 0xFFFE:  # ARPHRD_NONE: a tunnel's packets have no Ethernet header
                    frame = bytes(12) + address[1].to_bytes(2) + frame
                sent_here = address[2] == 4  # PACKET_OUTGOING
                packet = parse(frame, from_host=sent_here is self._near, at=time.monotonic())
                reason = next((one.name for one in self._allowed if one.match(packet)), None)
                self._counts[reason or ("leak" if packet.from_host else "stranger")] += 1
                if reason is None:
                    self._leaks.append(packet)


KINDS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmp6"}


def parse(frame: bytes, *, from_host: bool, at: float = 0.0) -> Packet:
    """Return the Ethernet frame as a Packet."""
    ether = int.from_bytes(frame[12:14])
    body = frame[14:]
    if ether == 0x0806:
        return Packet(at, from_host, "arp", payload=body)
    if ether == 0x0800 and len(body) >= 20:
        head, protocol = (body[0] & 15) * 4, body[9]
        ends = (ip_address(body[12:16]), ip_address(body[16:20]))
        if int.from_bytes(body[6:8]) & 0x1FFF:
            return Packet(at, from_host, "fragment", *ends, payload=body[head:])
    elif ether == 0x86DD and len(body) >= 40:
        head, protocol = 40, body[6]
        ends = (ip_address(body[8:24]), ip_address(body[24:40]))
        while protocol in (0, 43, 60) and len(body) >= head + 8:  # hop-by-hop, routing, destination options
            protocol, head = body[head], head + (body[head + 1] + 1) * 8
        if protocol == 44:
            return Packet(at, from_host, "fragment", *ends, payload=body[head:])
    else:
        return Packet(at, from_host, f"ether-{ether:04x}", payload=body)
    return _transport(at, from_host, protocol, ends, body[head:])


def _transport(
    at: float, from_host: bool, protocol: int, ends: tuple[Address, Address], rest: bytes
) -> Packet:
    kind = KINDS.get(protocol, f"ip-{protocol}")
    if kind not in ("tcp", "udp") or len(rest) < 8:
        return Packet(at, from_host, kind, *ends, payload=rest)
    near, far = struct.unpack("!HH", rest[:4])
    start = 8 if kind == "udp" else (rest[12] >> 4) * 4 if len(rest) > 12 else 0
    if kind == "udp":
        return Packet(at, from_host, kind, *ends, near, far, rest[start:])
    opens = len(rest) > 13 and rest[13] & (SYN | ACK) == SYN
    return Packet(at, from_host, kind, *ends, near, far, rest[start:], int.from_bytes(rest[4:8]), opens)
