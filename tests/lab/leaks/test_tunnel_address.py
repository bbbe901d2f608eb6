"""The tunnel's own address, from inside and outside; and the server taken for a router (L-19 to L-21)."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import cast

import pytest

from tests.cloudflare.netns import Namespace
from tests.conftest import Record
from tests.lab.leaks.asking import answers, asker, inner, knock_from_the_internet, tells
from tests.lab.leaks.stage import Ground, Stage
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, reasons
from tests.lab.senders import MARKED, PUBLIC, Kind
from tests.lab.topology import CLIENT, HOST, WIRE, Place
from tests.lab.wire import Allowed, Wire, neighbours

pytestmark = pytest.mark.lab

ROUNDS = 20
SHADOWS = range(21000, 21020)
"""Below the ports that the kernel gives to anybody."""


def tunnel_addresses(stage: Stage) -> tuple[IPv4Address, IPv6Address]:
    device = stage.lab.cloudflare.edge.devices()[-1]
    return IPv4Address(device.address4), IPv6Address(device.address6)


def test_l19_nothing_comes_out_of_the_tunnel_unasked(stage: Stage, record: Record) -> None:
    addresses = tunnel_addresses(stage)
    device = f"device-{len(stage.lab.cloudflare.edge.devices())}"
    with stage.watched(), Wire(stage.lab.name("H"), "wg0", near=True) as tunnel:
        with inner(stage.lab, device):
            knock_from_the_internet(addresses, PUBLIC, ROUNDS)
        asked = 2 * 3 * ROUNDS

        def came() -> int:
            return sum(str(one.source) in PUBLIC and not one.from_host for one in tunnel.strangers())

        eventually(lambda: came() >= asked, "all of them came")
    told = [one for one in tunnel.leaks() if str(one.destination) in PUBLIC]
    # Nothing that comes out of the tunnel unasked is let in, nor answered, under any policy.
    assert not told
    record(f"L-19, {stage.name}", f"{asked} asked by the tunnel, {len(told)} answered by it, 0 on the uplink")


def test_l20_without_us_an_address_behind_the_host_answers(ground: Ground) -> None:
    assert ground.exposed["arp"] and ground.exposed["tcp"], ground.exposed


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_l20_the_uplink_does_not_learn_of_the_tunnel_address(
    stage: Stage, rp_filter: int, record: Record
) -> None:
    addresses = tunnel_addresses(stage)
    host = Namespace.named(stage.lab.name("H"))
    host.sysctl(ipv4__conf__all__rp_filter=rp_filter, ipv4__conf__eth0__rp_filter=rp_filter)
    others = [one for one in reasons(stage.lab) if one.name != "neighbours"]
    others.append(Allowed("other neighbours", lambda p: neighbours().match(p) and not tells(p, addresses)))
    with Wire(stage.lab.name("R"), WIRE, others) as wire, asker(stage.lab, addresses) as neighbour:
        for _ in range(ROUNDS):
            before = len(wire.strangers())
            neighbour.ask()
            eventually(lambda: len(wire.strangers()) >= before + 8, "all questions passed")  # noqa: B023
    host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__eth0__rp_filter=0)
    host.close()
    assert not [str(one) for one in wire.leaks() if answers(one, addresses)]
    assert not wire.leaks()
    record(
        f"L-20, {stage.name}, rp_filter {rp_filter}", f"0 answers to {10 * ROUNDS} questions, ARP and ND too"
    )


def test_l21_not_a_router_into_the_tunnel(stage: Stage, record: Record) -> None:
    """Forwarded packets are dropped in our own namespace; a host treats them as it did without us."""
    host = Namespace.named(stage.lab.name("H"))
    host.sysctl(ipv4__ip_forward=1)
    probe = Kind("for others", target="9.9.9.9")
    stage.lab.run("R", ["ip", "route", "add", "9.9.9.9", "via", str(HOST[0]), "dev", WIRE])
    with (
        Wire(stage.lab.name("H"), "wg0", near=True) as tunnel,
        Wire(stage.lab.name("R"), WIRE, reasons(stage.lab)) as wire,
        stage.lab.inside("R"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        for _ in range(100):
            sock.sendto(probe.payload, probe.address)

        def came(back: bool) -> int:
            udp = (p for p in wire.strangers() if p.kind == "udp")  # not what quotes it
            return sum(bool(MARKED.search(p.payload)) and p.from_host is back for p in udp)

        eventually(lambda: came(False) >= 100, "all of them came")
    stage.lab.run("R", ["ip", "route", "del", "9.9.9.9"])
    if stage.ground.own:
        host.sysctl(ipv4__ip_forward=0)
    host.close()
    record(f"L-21, {stage.name}, forwarded", f"0 of 100 into the tunnel, {came(True)} back by the uplink")
    assert not [one for one in tunnel.leaks() if MARKED.search(one.payload)]
    if stage.ground.own and stage.full:
        assert not came(True)


NEXT = "5.9.250.9"
"""The next client's address: a public one, so that ssserver's list lets the first client send to it."""


@contextmanager
def next_client(stage: Stage) -> Iterator[None]:
    """Give C this address too, with the ways to it."""
    lines = {
        "C": f"address add {NEXT}/32 dev eth0",
        "R": f"route add {NEXT} via {CLIENT[0]}",
        "F": f"route add {NEXT} via 192.0.2.1",
    }
    for place, line in lines.items():
        stage.lab.run(cast("Place", place), ["ip", *line.split()])
    try:
        yield
    finally:
        for place, line in lines.items():
            stage.lab.run(cast("Place", place), ["ip", *line.replace(" add ", " del ").split()])


def test_l21_shadow_entries_keep_nobody_out(stage: Stage, record: Record) -> None:
    """CVE-2021-3773: a client has connections tracked whose far end is the next client's address and port."""
    with (
        next_client(stage),
        Wire(stage.lab.name("H"), "wg0", near=True) as tunnel,
        closing(stage.scene.client.udp(timeout=0.2)) as association,
        ExitStack() as stack,
    ):
        for port in SHADOWS:
            association.send(b"shadow", ip_address(NEXT), port)
            # A client sends its request with the first data.
            stack.enter_context(stage.scene.client.tcp(ip_address(NEXT), port)).sendall(b"shadow")

        def shadows(kind: str) -> set[int]:
            sent = (one for one in tunnel.leaks() if str(one.destination) == NEXT and one.kind == kind)
            return {one.destination_port for one in sent}

        for kind in "udp", "tcp":
            eventually(lambda: shadows(kind) == {*SHADOWS}, f"all shadows over {kind} are in the tunnel")  # noqa: B023
        reached = sum(greets(stage, port) for port in SHADOWS)
    record(f"L-21, {stage.name}, port shadow", f"{reached} of {len(SHADOWS)} new clients reached the server")
    assert reached == len(SHADOWS)
    assert stage.scene.reaches(cast("IPv4Address", ip_address(TRACE4)))


def greets(stage: Stage, port: int) -> bool:
    """Connect to the server from the next client's address and this port."""
    with stage.lab.inside("C"):
        sock = socket.socket()
    with sock:
        sock.settimeout(2)
        # Closed by a reset, the port is free at once for the next stage's clients.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind((NEXT, port))
        return sock.connect_ex((str(HOST[0]), 8388)) == 0
