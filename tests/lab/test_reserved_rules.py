"""The rules that write and clear reserved bytes for the kernel's WireGuard, by packets that are none of its.

eth0 ── far       one namespace (test_killswitch.py); what a packet socket sends on far, eth0 receives
                  unverified: no card has looked at its checksum
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import anyio
import pytest

from entrypoint.addresses import Destination
from entrypoint.firewall.killswitch import kill_switch
from entrypoint.firewall.policy import FullTunnel, HostFull, ProxyTunnel
from entrypoint.firewall.ruleset import ruleset
from entrypoint.linux.nft import SystemNft
from tests.cloudflare.netns import Namespace
from tests.lab.policies import FULL, HOST, PROXY, namespace
from tests.lab.product import eventually
from tests.lab.wire import parse

__all__ = ["namespace"]  # a fixture

pytestmark = pytest.mark.lab

type Address = IPv4Address | IPv6Address

BYTES = b"\xc1\x1d\x07"
EDGES = [ip_address("162.159.192.1"), ip_address("2606:4700:d0::a29f:c001")]
US = {4: ip_address("203.0.113.9"), 6: ip_address("2001:db8:7::7")}
PORT = 2408
PLACES = frozenset(Destination(one, PORT, "udp") for one in EDGES)
POLICIES = [replace(one, endpoints=PLACES) for one in (FULL, HOST)]
BY_FAMILY = pytest.mark.parametrize("edge", EDGES, ids=["v4", "v6"])


@contextmanager
def ends(namespace: Namespace, edge: Address) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A marked UDP socket towards the edge, as WireGuard's, and the wire."""
    family = socket.AF_INET if edge.version == 4 else socket.AF_INET6
    with (
        namespace.entered(),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire,
        socket.socket(family, socket.SOCK_DGRAM) as ours,
    ):
        wire.bind(("far", 3))  # ETH_P_ALL
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x1000)
        ours.connect((str(edge), PORT))
        for one in (wire, ours):
            one.settimeout(5)
        yield ours, wire


def sent(wire: socket.socket, edge: Address, port: int = PORT) -> bytes:
    """Return the payload of the next frame to the edge."""
    while True:
        packet = parse(wire.recv(4096), from_host=True)
        if packet.kind == "udp" and (packet.destination, packet.destination_port) == (edge, port):
            return packet.payload


def folded(words: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def answer(edge: Address, port: int, payload: bytes, damage: int = 0) -> bytes:
    """Return a frame from the edge to us at this port, with its checksum, or one that is off by `damage`."""
    addresses, length = edge.packed + US[edge.version].packed, 8 + len(payload)
    checksum = folded(addresses + struct.pack("!HHHHHH", 17, length, PORT, port, length, 0) + payload)
    # Zero would mean that there is none.
    datagram = struct.pack("!HHHH", PORT, port, length, (checksum + damage) & 0xFFFF or 0xFFFF) + payload
    if edge.version == 6:
        head = b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, length, 17, 64) + addresses
    else:
        bare = struct.pack("!BBHIBBH", 0x45, 0, 20 + length, 0, 64, 17, 0) + addresses
        head = b"\x08\x00" + bare[:10] + struct.pack("!H", folded(bare)) + bare[12:]
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + head + datagram


@BY_FAMILY
@pytest.mark.parametrize("policy", [*POLICIES, PROXY, None], ids=["full", "host", "proxy", "FIREWALL=off"])
def test_written_on_the_way_out_cleared_on_the_way_in(
    namespace: Namespace, edge: Address, policy: FullTunnel | HostFull | ProxyTunnel | None
) -> None:
    """By the kernel's WireGuard."""
    carrying = replace(policy or PROXY, endpoints=PLACES, reserved=BYTES)
    namespace.nft(ruleset(carrying, policed=policy is not None))
    with ends(namespace, edge) as (ours, wire):
        port = ours.getsockname()[1]
        for kind in (b"\x01", b"\x04"):
            ours.send(kind + bytes(3) + b"message.")
            assert sent(wire, edge) == kind + BYTES + b"message."
            wire.send(answer(edge, port, kind + BYTES + b"damaged.", damage=2))
            wire.send(answer(edge, port, kind + BYTES + b"answer, ok"))
            assert ours.recv(100) == kind + bytes(3) + b"answer, ok"


@BY_FAMILY
def test_nobody_else_is_touched(namespace: Namespace, edge: Address) -> None:
    namespace.nft(ruleset(replace(PROXY, endpoints=PLACES, reserved=BYTES)))
    with ends(namespace, edge) as (ours, wire):
        ours.connect((str(edge), PORT + 1))
        ours.send(b"another port")
        assert sent(wire, edge, PORT + 1) == b"another port"
        ours.connect((str(edge), PORT))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0)
        ours.send(b"not marked")
        assert sent(wire, edge) == b"not marked"


@BY_FAMILY
def test_without_connection_tracking_answers_would_die_of_their_checksum(
    namespace: Namespace, edge: Address
) -> None:
    """So the tests above can fail, and the rule with `ct` is needed."""
    text = ruleset(replace(PROXY, endpoints=PLACES, reserved=BYTES), policed=False)
    namespace.nft(text.replace("\t\tct state invalid accept\n", ""))
    with ends(namespace, edge) as (ours, wire):
        wire.send(answer(edge, ours.getsockname()[1], b"\x04" + BYTES + b"answer"))
        eventually(lambda: damaged(edge) == 1, "the kernel counts a bad checksum")


@pytest.mark.parametrize("on", [True, False], ids=["FIREWALL=on", "FIREWALL=off"])
def test_they_are_guarded_like_the_rest(namespace: Namespace, on: bool) -> None:
    places = frozenset(Destination(one, port, "udp") for one in EDGES for port in (500, 1701, PORT, 4500))

    async def play() -> None:
        async with kill_switch(SystemNft(), on=on) as switch:
            await switch.set(replace(FULL, endpoints=places, reserved=BYTES))
            assert await switch.intact()
            namespace.nft("flush chain inet ss_warp write_reserved")
            assert not await switch.intact()
            await switch.restore()
            assert await switch.intact()

    with namespace.entered():
        anyio.run(play)
    assert "reserved" not in "".join(namespace.output("nft", "list", "ruleset"))


def damaged(edge: Address) -> int:
    """Return how many datagrams of this family the namespace we are in found damaged."""
    if edge.version == 6:
        lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
        return int(next(one.split()[1] for one in lines if one.startswith("Udp6InCsumErrors")))
    names, values = (
        one.split()
        for one in Path("/proc/thread-self/net/snmp").read_text().splitlines()
        if one.startswith("Udp:")
    )
    return int(dict(zip(names, values, strict=True))["InCsumErrors"])
