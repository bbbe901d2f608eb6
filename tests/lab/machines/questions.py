"""The questions: each returns what was answered no to, in words; an empty list is a yes."""

import os
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

from nacl.exceptions import CryptoError

from tests.cloudflare.config import ECHO_PORT, EDGE_PORTS, EXITS4, EXITS6
from tests.cloudflare.netns import Namespace
from tests.cloudflare.rules import MARK6
from tests.lab.client import Reached
from tests.lab.machines import shadowsocks
from tests.lab.machines.built import DNS, SSH, WEB, at, containers
from tests.lab.machines.machine import Door, Machine
from tests.lab.product import Product, eventually
from tests.lab.scene import EDGE, TRACE4, TRACE6
from tests.lab.senders import SSSERVER, Kind, Sender, kinds, seen
from tests.lab.topology import Lab
from tests.lab.visitors import traced
from tests.lab.wire import Allowed, Packet, Wire, called, looked_up, neighbours, served, wireguard
from tests.pace import longer

PATIENCE = longer(0.7)
EACH = 10
"""Probes of each kind."""
GET = b"GET /cdn-cgi/trace HTTP/1.0\r\n\r\n"


@dataclass
class Visit:
    """A machine that is built, and the product on it while it runs."""

    lab: Lab
    machine: Machine
    mode: str
    product: Product | None = None

    def watch(
        self, stack: ExitStack, allowed: "Callable[[Visit], list[Allowed]] | None" = None
    ) -> list[Wire]:
        """Observe every cable, from the provider's end; each observer has a memory of its own."""
        name = self.lab.name(at("G"))
        return [
            stack.enter_context(Wire(name, f"p-{one.name}", allowed(self) if allowed else ()))
            for one in self.machine.cables
        ]

    def from_outside(self, door: Door) -> tuple[str, str]:
        """Return where a visitor of this door is, and the address it comes from."""
        six = ":" in door.address
        return ("G", door.visitor) if door.visitor else ("C", "2001:db8:c::50" if six else "198.51.100.50")


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connected(lab: Lab, place: str, address: str, port: int, source: str = "") -> socket.socket:
    """Return a TCP connection from there. Raises OSError."""
    with lab.inside(at(place)):
        sock = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE)
        if source:
            sock.bind((source, 0))
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def directly(lab: Lab, place: str, address: str, port: int) -> bool:
    """Say whether a server there answers, and saw this machine's address: not through WARP and back."""
    seen = says(lab, place, address, port)
    return bool(seen) and not any(ip_address(seen) in one for one in (EXITS4, EXITS6))


def says(lab: Lab, place: str, address: str, port: int, source: str = "") -> str:
    """Return what a server that speaks first says in its first line, empty when nothing comes."""
    with suppress(OSError), connected(lab, place, address, port, source) as sock:
        return sock.makefile("rb").readline().decode().strip().strip('"').removeprefix("::ffff:")
    return ""


def sends_back(lab: Lab, place: str, address: str, port: int, source: str = "", mark: int = 0) -> bytes:
    """Return what the asked address and no other answers to a datagram, empty when nothing comes."""
    with lab.inside(at(place)):
        sock = socket.socket(family(address), socket.SOCK_DGRAM)
    with sock, suppress(OSError):
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source:
            sock.bind((source, 0))
        sock.connect((address, port))
        sock.send(b"hello")
        return sock.recv(100)
    return b""


def ssh(visit: Visit) -> list[str]:
    """A new connection by every door; the server sees the real client, unless it is translated."""
    found = []
    for door in visit.machine.doors:
        place, source = visit.from_outside(door)
        if says(visit.lab, place, door.address, SSH, source) != source:
            found.append(f"no SSH from {source} by {door.address}")
    return found


def ports(visit: Visit) -> list[str]:
    found = []
    for one in visit.machine.published:
        if one.transport == "tcp":
            answered = bool(says(visit.lab, "C", one.address, one.port))
        else:
            answered = sends_back(visit.lab, "C", one.address, one.port) == b"hello"
        if not answered:
            found.append(f"no {one.transport} from C by {one.address} port {one.port}")
    return found


def reaches(visit: Visit, what: str) -> list[str]:
    found = []
    for one in visit.machine.far:
        if one.what != what:
            continue
        if not directly(visit.lab, "M", one.address, WEB):
            found.append(f"no TCP to {one.address}")
        if sends_back(visit.lab, "M", one.address, DNS) != b"hello":
            found.append(f"no UDP to {one.address}")
    return found


def containers_traffic(visit: Visit) -> list[str]:
    """Out as without us, between them, and with the machine itself."""
    found = []
    lab, machine = visit.lab, visit.machine
    for place, one in zip(containers(machine), machine.containers, strict=True):
        if one.out:
            target = TRACE6 if ":" in one.out else TRACE4
            if traced(lab, target, place) != Reached(one.out, "off"):
                found.append(f"{place} does not leave as {one.out}")
        for address in one.asked or [str(ip_interface(text).ip) for text in one.addresses]:
            if not directly(lab, "M", address, WEB):
                found.append(f"no TCP from the machine to {place} at {address}")
            found += [
                f"no TCP from {other} to {place} at {address}"
                for other in containers(machine)
                if other != place and not says(lab, other, address, WEB)
            ]
    return found


def others(visit: Visit) -> list[str]:
    """What other software sends: its marked packets are answered, its multicast is on the wire."""
    found = []
    lab = visit.lab
    for one in visit.machine.marked:
        answer = sends_back(lab, "M", str(TRACE4), ECHO_PORT, mark=one.mark)
        own = answer.rpartition(b"|")[2].split(b" ")[0].decode()
        if not answer or (one.direct and not own.startswith("5.9.")):
            found.append(f"mark {one.mark:#x}: {own or 'no answer'}")
    with ExitStack() as stack:
        (wire, *_) = visit.watch(stack)
        for group in visit.machine.multicast:
            marker = f"multicast {group.protocol} {group.group}".encode()
            with lab.inside(at("M")):
                sock = socket.socket(family(group.group), socket.SOCK_RAW, group.protocol)
            with sock, suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, group.device.encode())
                sock.sendto(marker, (group.group, 0))
            if not carried(wire, marker):
                found.append(f"protocol {group.protocol} to {group.group} is not on the wire")
    return found


def carried(wire: Wire, marker: bytes) -> bool:
    try:
        eventually(lambda: any(marker in one.payload for one in wire.leaks()), "the marker", 0.3)
    except AssertionError:
        return False
    return True


def by_shadowsocks(visit: Visit) -> list[str]:
    assert visit.product is not None
    key = shadowsocks.master_key(visit.product.secrets()["password"])
    found = []
    for door in visit.machine.doors:
        if not door.shadowsocks:
            continue
        place, source = visit.from_outside(door)
        to = shadowsocks.target(str(TRACE4), WEB)
        answer = b""
        with (
            suppress(OSError, CryptoError, struct.error),
            connected(visit.lab, place, door.address, 8388, source) as sock,
        ):
            answer = shadowsocks.fetch(sock, key, to, GET)
        if b"warp=on" not in answer:
            found.append(f"no Shadowsocks over TCP by {door.address}")
        with visit.lab.inside(at(place)):
            udp = socket.socket(family(door.address), socket.SOCK_DGRAM)
        answer = b""
        with udp, suppress(OSError, CryptoError):
            udp.settimeout(PATIENCE)
            udp.bind((source, 0))
            udp.connect((door.address, 8388))
            udp.send(shadowsocks.datagram(key, shadowsocks.target(str(TRACE4), ECHO_PORT), b"hello"))
            answer = shadowsocks.undatagram(key, udp.recv(2048))
        if not answer.startswith(b"hello|"):
            found.append(f"no Shadowsocks over UDP by {door.address}")
    return found


@contextmanager
def inside_the_tunnel(visit: Visit) -> Iterator[tuple[str, str]]:
    """Be at the edge with this thread, on the other end of the product's tunnel; yield its addresses."""
    assert visit.product is not None
    own = str(visit.product.account())
    devices = visit.lab.cloudflare.edge.devices()
    number = next(n for n, one in enumerate(devices, 1) if one.address6 in own)
    path = Path(visit.lab.cloudflare.namespaces()[f"device-{number}"])
    namespace = Namespace(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        with namespace.entered():
            yield devices[number - 1].address4, devices[number - 1].address6
    finally:
        namespace.close()


def closed(visit: Visit) -> list[str]:
    """SSH is on every address of the machine, the tunnel's too, but out of reach from the tunnel."""
    found = []
    with Wire(visit.lab.name(at("M")), "wg0", near=True) as tunnel, inside_the_tunnel(visit) as addresses:
        for address in addresses:
            if ":" in address and not tunnel_has(visit, 6):
                continue
            with socket.socket(family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                if 4 not in visit.machine.families:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK6)
                sock.connect_ex((address, SSH))
                eventually(lambda: asked(tunnel, address), f"the question at {address}")  # noqa: B023
                _, writable, _ = select.select([], [sock], [], longer(0.1))
                if writable and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found.append(f"SSH answers out of the tunnel at {address}")
    return found


def asked(tunnel: Wire, address: str) -> bool:
    came = (one for one in tunnel.strangers() if not one.from_host and one.destination_port == SSH)
    return any(str(one.destination) == address for one in came)


def tunnel_has(visit: Visit, version: int) -> bool:
    listed = visit.lab.run(
        at("M"), ["ip", f"-{version}", "-o", "address", "show", "dev", "wg0", "scope", "global"]
    )
    return bool(listed.stdout)


def probes(visit: Visit) -> tuple[Kind, ...]:
    """Return what must not leave in clear: everybody's, in `proxy` ssserver's."""
    uids = {"ssserver's": SSSERVER} if visit.mode == "proxy" else {"anybody's": 0, "ssserver's": SSSERVER}
    made: list[Kind] = []
    for whose, uid in uids.items():
        made += kinds(whose, uid=uid)
        for cable in visit.machine.cables:
            for text in cable.addresses:
                source = str(ip_interface(text).ip)
                some = kinds(f"{whose} from {source}", uid=uid, bound=True, source=source)
                made += [one for one in some if (one.version == 6) is (":" in source)]
    return tuple(one for one in made if one.version in visit.machine.families)


def burst(visit: Visit, some: Sequence[Kind]) -> int:
    """Send EACH probes of every kind from the machine; return how many the kernel took."""
    went = 0
    with visit.lab.inside(at("M")):
        for kind in some:
            try:
                sender = Sender(kind)
            except OSError:  # refused at once
                continue
            went += sum(sender.send() for _ in range(EACH))
            sender.close()
    return went


def leaks(visit: Visit) -> list[str]:
    """Probes, and whatever else is on the cables without a reason."""
    some = probes(visit)
    with ExitStack() as stack:
        wires = visit.watch(stack, allowed)
        burst(visit, some)
        ssh(visit)  # a question and its answer are behind the last probe on every cable
        found: list[str] = []
        for cable, wire in zip(visit.machine.cables, wires, strict=True):
            clear = seen(wire, some)
            if visit.mode != "proxy":
                clear += Counter(f"{one.kind} {one.source} -> {one.destination}" for one in wire.leaks())
            found += [f"{cable.name}: {number} of {name}" for name, number in clear.items()]
    return found


def allowed(visit: Visit) -> list[Allowed]:
    """Return the reasons to be on a cable while probes are sent."""
    far = {*(one.address for one in visit.machine.far), *visit.machine.peers}

    def private(packet: Packet) -> bool:
        return str(packet.destination if packet.from_host else packet.source) in far

    api = visit.lab.cloudflare.config.api_addresses
    return [
        neighbours(),
        wireguard(EDGE, EDGE_PORTS),
        served("ssh", SSH),
        served("shadowsocks", 8388, ("tcp", "udp")),
        # Whoever was greeted by a published port is still told that it closed the connection.
        *(served("published", one.port, (one.transport,)) for one in visit.machine.published),
        called("api", api, 443),
        looked_up(["api.cloudflareclient.com", "engage.cloudflareclient.com"], [TRACE4, TRACE6]),
        Allowed("private", private),
    ]


def control(visit: Visit) -> None:
    """Assert that without the product every probe is seen."""
    some = probes(visit)
    with ExitStack() as stack:
        wires = visit.watch(stack)
        burst(visit, some)
        ssh(visit)
        found: dict[str, int] = {}
        for wire in wires:
            found |= {name: found.get(name, 0) + number for name, number in seen(wire, some).items()}
    missing = {one.name: found.get(one.name, 0) for one in some if found.get(one.name, 0) < EACH}
    assert not missing, f"with the product off the wire does not see {missing}"


type Question = Callable[[Visit], list[str]]

SERVICES: dict[str, Question] = {
    "ssh": ssh,
    "ports": ports,
    "private": lambda visit: reaches(visit, "private"),
    "platform": lambda visit: reaches(visit, "platform"),
    "neighbours": containers_traffic,
    "others": others,
}
"""What is answered before us, too."""
OURS: dict[str, Question] = {"shadowsocks": by_shadowsocks, "closed": closed, "leaks": leaks}
