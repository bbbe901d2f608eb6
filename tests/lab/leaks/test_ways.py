"""Routes, addresses and packets that look for another way out (L-14 to L-18, L-22)."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.conftest import Record
from tests.lab.leaks.asking import ROUTER_ADVERT, asker
from tests.lab.leaks.injected import ON_LINK, PUSHED, at_the_edge, big, neighbourly, routed
from tests.lab.leaks.stage import ECHO, PROBES, Stage
from tests.lab.probes import Prober
from tests.lab.product import eventually
from tests.lab.scene import TRACE4, reasons
from tests.lab.senders import FROM_THE_UPLINK, SSSERVER, THE_SERVERS, kinds
from tests.lab.topology import CLIENT, HOST, WIRE
from tests.lab.visitors import echoes
from tests.lab.wire import Allowed, Packet, Wire

pytestmark = pytest.mark.lab

SOME = max(1, PROBES // 10)
BIG_SIZE = 30_000
UNANSWERED = (IPv4Address("192.0.2.77"), IPv6Address("2001:db8:f::77"))
NET = IPv6Address("2001:db8:77::")


def test_l14_routes_pushed_by_dhcp(stage: Stage, record: Record) -> None:
    """TunnelVision: the halves of everything, then the target's own neighbourhood, in the main table."""
    with routed(stage.lab, PUSHED):
        tried = stage.keeps(stage.kinds, SOME)
        stage.whole()
    record(f"L-14, {stage.name}, TunnelVision", f"0 of {tried} probes in clear")


def test_l15_the_lan_claims_public_prefixes(stage: Stage, record: Record) -> None:
    """LocalNet: the uplink's own prefix is public, and then half of everything is on the link."""
    tried = stage.keeps(neighbourly(full=stage.full), SOME)
    with routed(stage.lab, ON_LINK):
        tried += stage.keeps((*stage.kinds, *neighbourly(full=stage.full)), SOME)
        stage.whole()
    record(f"L-15, {stage.name}, LocalNet", f"0 of {tried} probes in clear")


def test_l16_the_edges_own_address(stage: Stage, record: Record) -> None:
    """ServerIP: to the endpoint and its port goes what is marked, and nothing else."""
    record(
        f"L-16, {stage.name}, the endpoint",
        f"0 of {stage.keeps(at_the_edge(full=stage.full), SOME)} in clear",
    )


def test_l17_who_binds_the_uplinks_address_may_only_answer(stage: Stage, record: Record) -> None:
    some = (*(FROM_THE_UPLINK if stage.full else ()), *(one for one in THE_SERVERS if one.bound))
    tried = stage.keeps(some, SOME)
    with answering(stage):
        assert all(echoes(stage.lab, address, ECHO) for address in HOST for _ in range(20)), (
            stage.scene.product.log
        )
    record(f"L-17, {stage.name}", f"0 of {tried} probes in clear, 40 of 40 answers to who came in")


@contextmanager
def answering(stage: Stage) -> Iterator[None]:
    """Serve echoes at the uplink's addresses."""
    echo = "import socket, threading\n" + "\n".join(
        f"s{n} = socket.socket({family}, socket.SOCK_DGRAM); s{n}.bind(({str(address)!r}, {ECHO}))\n"
        f"def f{n}():\n while True: s{n}.sendto(*s{n}.recvfrom(99))\n"
        f"threading.Thread(target=f{n}).start()"
        for n, (family, address) in enumerate(zip(("socket.AF_INET", "socket.AF_INET6"), HOST, strict=True))
    )
    process = stage.lab.popen("H", ["python", "-c", echo])
    try:
        eventually(lambda: all(echoes(stage.lab, one, ECHO) for one in HOST), "the echo is there")
        yield
    finally:
        process.kill()
        process.wait()


def test_l18_big_datagrams_and_fragments(stage: Stage, record: Record) -> None:
    tried = stage.keeps(big(full=stage.full), SOME)

    def to_the_client(packet: Packet) -> bool:
        return packet.kind == "fragment" and packet.destination in CLIENT

    pieces = [*reasons(stage.lab), Allowed("pieces of answers to the client", to_the_client)]
    with Wire(stage.lab.name("R"), WIRE, pieces) as wire, closing(stage.scene.client.udp()) as association:

        def comes_back(octet: int) -> bool:
            payload = bytes([octet]) * BIG_SIZE
            association.send(payload, TRACE4)
            with suppress(TimeoutError):
                return association.receive()[2].startswith(payload)
            return False

        # The probes have filled wg0's queue to the brim, and UDP is not sent again.
        eventually(lambda: comes_back(0), "what they left in it is gone", 20)
        assert all(comes_back(octet) for octet in range(1, 11))
    assert not wire.leaks()
    record(f"L-18, {stage.name}", f"0 of {tried} in clear; {BIG_SIZE} bytes through Shadowsocks 10 of 10")


def advertised(packet: Packet, first: bytes) -> bool:
    return packet.kind == "icmp6" and not packet.from_host and packet.payload[:1] == first


def test_l22_a_late_router_advertisement(stage: Stage, record: Record) -> None:
    """A new default and new addresses, privacy addresses among them on the host."""

    def addresses() -> set[str]:
        lines = stage.lab.run(
            "H", ["ip", "-6", "-o", "address", "show", "dev", "eth0", "to", f"{NET}/64"]
        ).stdout
        return {line.split()[3].partition("/")[0] for line in lines.splitlines()}

    def followed() -> bool:
        listed = stage.lab.run("H", ["ip", "-6", "rule"]).stdout
        return all(f"from {one} lookup main" in listed for one in addresses())

    alone = stage.ground.own and stage.full  # a neighbour's advertisement changes nothing there
    with (
        asker(stage.lab, UNANSWERED) as router,
        Prober(stage.lab, stage.kinds) as prober,
        stage.watched(),
        Wire(stage.lab.name("R"), WIRE) as wire,
    ):
        router.advertise(NET, 1800)
        if alone:
            advert = bytes([ROUTER_ADVERT])
            eventually(lambda: any(advertised(one, advert) for one in wire.strangers()), "it came")
            prober.probed(SOME)
            assert not addresses()
            # The runtime can still give the namespace one.
            stage.lab.run("H", ["ip", "address", "add", f"{NET + 7}/64", "dev", "eth0", "nodad"])
        least = 1 if stage.ground.own else 2
        eventually(lambda: len(addresses()) >= least, "addresses of that prefix")
        came = time.monotonic()
        if stage.full:
            eventually(followed, "rules for them", 5)
        took = time.monotonic() - came
        prober.probed(SOME)
    new = [
        one
        for address in sorted(addresses())
        for uid in ((0, SSSERVER) if stage.full else (SSSERVER,))
        for one in kinds(f"{uid} from {address}", uid=uid, bound=True, source=address)
        if one.version == 6
    ]
    tried = prober.tried + stage.keeps(new, SOME)
    with asker(stage.lab, UNANSWERED) as router:
        router.advertise(NET, 0)
    for address in addresses():
        # A privacy address goes with the one it was made for.
        stage.lab.run("H", ["sh", "-c", f"ip address del {address}/64 dev eth0 2>/dev/null || true"])
    stage.whole()
    record(
        f"L-22, {stage.name}",
        f"0 of {tried} probes in clear, rules follow after {took * 1000:.0f} ms (limit 2 s)",
    )
    assert took <= 2
